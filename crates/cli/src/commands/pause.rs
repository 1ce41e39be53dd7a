//! `trib pause`

use serde_json::json;
use trib_core::error::closest;
use trib_core::{Code, Error};
use trib_project::NodeKind;

use crate::app::{Session, holder};
use crate::exit::{Exit, Result};

/// Keep a sync, or one of its streams, from running
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib pause shop --reason 'migration until Tuesday'")]
pub struct Args {
    /// A sync, or `sync/stream`
    node: String,
    /// Why, for the others
    #[arg(long)]
    reason: Option<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    check(session, &args.node)?;
    session.store().await?.pause(&args.node, &holder(), args.reason.as_deref()).await?;
    session.output.either(|| json!({"node": args.node, "paused": true}), || format!("{}: paused", args.node));
    Ok(Exit::Success)
}

/// A node that is not there is a slip of the pen.
fn check(session: &Session, node: &str) -> Result<()> {
    let graph = session.graph()?;
    let name = node.split('/').next().unwrap_or(node);
    if graph.nodes().iter().any(|n| n.name == name && (name == node || n.kind == NodeKind::Sync)) {
        return Ok(());
    }
    let error = Error::new(Code::NotFound, "there is no such node in the project").detail(format!("`{node}`"));
    Err(match closest(name, graph.nodes().iter().map(|n| n.name.as_str())) {
        Some(near) => error.hint(format!("did you mean `{}`?", node.replacen(name, near, 1))),
        None => error.hint("`trib ls` lists what there is"),
    }
    .into())
}
