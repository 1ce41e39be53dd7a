//! `trib fmt`

use serde_json::json;
use trib_project::format;

use crate::app::Session;
use crate::exit::{Exit, Result};

/// Write the project's files in one style. Comments and order stay
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib fmt --check")]
pub struct Args {
    /// Change nothing, and end with status 1 when a file would change
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args, session: &Session) -> Result<Exit> {
    let dir = session.project_dir()?;
    let changes = format::changes(&dir)?;
    if !args.check {
        for (file, text) in &changes {
            std::fs::write(dir.join(file), text)?;
        }
    }
    let changed: Vec<&str> = changes.iter().map(|(file, _)| file.as_str()).collect();
    let done = if args.check { "would change" } else { "written anew" };
    session
        .output
        .either(|| json!({"changed": changed}), || changed.iter().map(|file| format!("{file}: {done}")).collect::<Vec<_>>().join("\n"));
    Ok(if args.check && !changed.is_empty() { Exit::Failed } else { Exit::Success })
}
