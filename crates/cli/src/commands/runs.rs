//! `trib runs`

use chrono::Utc;
use serde_json::{Value, json};
use std::fmt::Write as _;
use trib_core::{Code, Error};
use trib_store::{Run, RunStream};

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::output;
use crate::render::amount::{ago, count, duration, time};
use crate::render::name::node;
use crate::render::table::{left, render, right};

/// What ran, when, and how it went; one run with its streams
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib runs")]
pub struct Args {
    /// A run, as the list names it
    run: Option<String>,
    /// At most so many, the newest first
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let store = session.store().await?;
    let Some(id) = &args.run else {
        let runs = store.runs(args.limit).await?;
        session.output.either(|| runs.iter().map(run_json).collect(), || list(&runs, output::width()));
        return Ok(Exit::Success);
    };
    let run = store.run(id).await?.ok_or_else(|| no_such_run(id))?;
    let streams = store.run_streams(id).await?;
    session.output.either(
        || {
            let mut value = run_json(&run);
            value["streams"] = streams.iter().map(stream_json).collect();
            value
        },
        || one(&run, &streams, output::width()),
    );
    Ok(Exit::Success)
}

pub fn no_such_run(id: &str) -> Error {
    Error::new(Code::NotFound, "there is no such run").detail(id).hint("`trib runs` lists them")
}

fn list(runs: &[Run], width: Option<usize>) -> String {
    if runs.is_empty() {
        return "nothing has run yet".to_owned();
    }
    let now = Utc::now();
    let columns = [left("run"), left("started"), left("status"), right("time"), left("command")];
    let row = |r: &Run| vec![r.id.clone(), ago(r.started_at, now), r.status.as_str().to_owned(), took(r), r.command.clone()];
    render(&columns, &runs.iter().map(row).collect::<Vec<_>>(), width)
}

fn took(run: &Run) -> String {
    run.finished_at.and_then(|end| (end - run.started_at).to_std().ok()).map(duration).unwrap_or_default()
}

fn one(run: &Run, streams: &[RunStream], width: Option<usize>) -> String {
    let mut out =
        format!("run {}: {}\n{}\nstarted {} UTC by {}\n", run.id, run.status.as_str(), run.command, time(run.started_at), run.holder);
    let facts = [
        ("took", run.finished_at.map(|_| took(run))),
        ("project version", run.project_version.clone()),
        ("approved by", run.approved_by.clone()),
        ("asked to stop", run.cancel_requested_at.map(time)),
    ];
    for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let _ = writeln!(out, "{name} {value}");
    }
    let columns = [left("stream"), left("status"), right("read"), right("new"), right("updated"), right("deleted"), right("rejected")];
    let row = |s: &RunStream| {
        let counts = [s.counts.read, s.counts.written, s.counts.updated, s.counts.deleted, s.counts.rejected].map(count);
        let mut row = vec![node(&s.sync, &s.stream), s.status.as_str().to_owned()];
        row.extend(counts);
        row
    };
    if !streams.is_empty() {
        out.push('\n');
        out.push_str(&render(&columns, &streams.iter().map(row).collect::<Vec<_>>(), width));
    }
    for stream in streams {
        let name = node(&stream.sync, &stream.stream);
        for change in &stream.schema_changes {
            let _ = writeln!(out, "{name}: {change}");
        }
        if let Some(error) = &stream.error {
            let _ = writeln!(out, "{name}: {}", sentence(error));
        }
    }
    if let (Some(error), true) = (&run.error, streams.iter().all(|s| s.error.is_none())) {
        let _ = writeln!(out, "{}", sentence(error));
    }
    out
}

/// A stored error in one line.
pub fn sentence(error: &Value) -> String {
    let text = |key: &str| error.get(key).and_then(Value::as_str);
    [text("message"), text("detail")].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn run_json(run: &Run) -> Value {
    json!({
        "id": run.id, "command": run.command, "selection": run.selection, "project_version": run.project_version, "holder": run.holder,
        "status": run.status, "error": run.error, "started_at": run.started_at, "finished_at": run.finished_at,
        "cancel_requested_at": run.cancel_requested_at, "approved_by": run.approved_by,
    })
}

fn stream_json(stream: &RunStream) -> Value {
    json!({
        "sync": stream.sync, "stream": stream.stream, "status": stream.status, "counts": stream.counts, "from_state": stream.from_state,
        "to_state": stream.to_state, "schema_changes": stream.schema_changes, "error": stream.error,
        "started_at": stream.started_at, "finished_at": stream.finished_at,
    })
}
