//! `trib logs`

use serde_json::{Value, json};
use trib_store::{Level, LogLine};

use crate::app::{Session, usage};
use crate::commands::runs::no_such_run;
use crate::exit::{Exit, Result};
use crate::render::amount::time;

/// What a run has said
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib logs")]
pub struct Args {
    /// A run, as `trib runs` names it; the last one when left out
    run: Option<String>,
    /// Warnings and errors only
    #[arg(long)]
    problems: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let store = session.store().await?;
    let run = match &args.run {
        Some(id) => store.run(id).await?.ok_or_else(|| no_such_run(id))?,
        None => store.runs(1).await?.pop().ok_or_else(|| usage("nothing has run yet").hint("`trib run` begins"))?,
    };
    let mut lines = store.logs(&run.id, 0).await?;
    lines.retain(|line| !args.problems || line.level >= Level::Warn);
    session.output.either(|| lines.iter().map(to_json).collect(), || lines.iter().map(text).collect());
    Ok(Exit::Success)
}

fn text(line: &LogLine) -> String {
    let place: Vec<&str> = [&line.sync, &line.stream].into_iter().flatten().map(String::as_str).collect();
    format!("{} {:5} {}: {}\n", time(line.at), line.level.as_str(), place.join("/"), line.message)
}

fn to_json(line: &LogLine) -> Value {
    json!({
        "id": line.id, "at": line.at, "level": line.level, "sync": line.sync, "stream": line.stream, "message": line.message,
        "fields": line.fields,
    })
}
