//! `trib resume`

use serde_json::json;
use trib_core::{Code, Error};

use crate::app::Session;
use crate::exit::{Exit, Result};

/// Let what was paused run again
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib resume shop")]
pub struct Args {
    /// A sync, or `sync/stream`
    node: String,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let store = session.store().await?;
    if !store.resume(&args.node).await? {
        let paused: Vec<String> = store.paused().await?.into_iter().map(|p| p.node).collect();
        let error = Error::new(Code::NotFound, "this is not paused").detail(&args.node);
        let hint = if paused.is_empty() { "nothing is paused".to_owned() } else { format!("paused are: {}", paused.join(", ")) };
        return Err(error.hint(hint).into());
    }
    session.output.either(|| json!({"node": args.node, "paused": false}), || format!("{}: runs again", args.node));
    Ok(Exit::Success)
}
