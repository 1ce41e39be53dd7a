//! `trib docs`

use std::path::PathBuf;

use serde_json::json;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::site::Site;

/// Write the project as pages: tables, columns, tests, lineage, runs
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib docs --out site")]
pub struct Args {
    /// The folder to write
    #[arg(long, value_name = "DIR", default_value = ".tributary/docs")]
    out: PathBuf,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let site = Site::of(session).await?;
    let folder = session.project()?.dir.join(&args.out);
    let pages = site.write(&folder)?;
    for note in &site.notes {
        session.output.note(format!("not described: {note}"));
    }
    let index = folder.join("index.html");
    session.output.either(
        || json!({"folder": folder, "index": index, "pages": pages, "not_described": site.notes}),
        || format!("{pages} pages: {}", index.display()),
    );
    Ok(Exit::Success)
}
