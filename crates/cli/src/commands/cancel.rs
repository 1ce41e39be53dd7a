//! `trib cancel`

use serde_json::json;

use crate::app::Session;
use crate::exit::{Exit, Result};

/// Ask a run to stop at its next safe place, wherever it runs
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib cancel 0mh2k1f3xabcde")]
pub struct Args {
    /// A run, as `trib runs` names it
    run: String,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    session.store().await?.request_cancel(&args.run).await?;
    session.output.either(|| json!({"run": args.run, "asked": true}), || format!("{}: asked to stop; it does so within seconds", args.run));
    Ok(Exit::Success)
}
