//! `trib status`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use trib_store::{Pause, RunStream, Status, Store};

use trib_project::graph::GraphNode;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::output;
use crate::render::amount::{ago, count, duration};
use crate::render::name::node;
use crate::render::table::{left, render, right};

/// Runs that are looked through for the last word on each stream.
const RUNS: u32 = 200;

/// How fresh each stream is and how its last run went
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib status")]
pub struct Args {}

/// The last that is known of one stream.
struct Fresh {
    last: RunStream,
    /// See [`Store::fresh`].
    fresh_at: Option<DateTime<Utc>>,
}

pub async fn run(_: &Args, session: &Session) -> Result<Exit> {
    let store = session.store().await?;
    let streams = streams(store).await?;
    let paused = store.paused().await?;
    let now = Utc::now();
    let project = session.project()?;
    let graph = session.graph()?;
    // A view has nothing that could grow old.
    let stored = |n: &&GraphNode| project.model(&n.name).map_or(true, |m| m.spec.materialized.is_stored());
    let ran = |n: &GraphNode| streams.keys().any(|(sync, _)| sync.split('@').next() == Some(n.name.as_str()));
    let never: Vec<&str> = graph.nodes().iter().filter(|n| n.enabled && !ran(n)).filter(stored).map(|n| n.name.as_str()).collect();
    session.output.either(|| to_json(&streams, &never, &paused), || text(&streams, &never, &paused, now, output::width()));
    Ok(Exit::Success)
}

async fn streams(store: &Store) -> Result<BTreeMap<(String, String), Fresh>> {
    let fresh = store.fresh().await?;
    let mut streams: BTreeMap<(String, String), Fresh> = BTreeMap::new();
    for run in store.runs(RUNS).await? {
        for stream in store.run_streams(&run.id).await? {
            let name = (stream.sync.clone(), stream.stream.clone());
            let fresh_at = fresh.get(&name).copied();
            streams.entry(name).or_insert_with(|| {
                // Of a run that died, the streams never heard.
                let status = if stream.status == Status::Running { run.status } else { stream.status };
                Fresh { last: RunStream { status, ..stream }, fresh_at }
            });
        }
    }
    Ok(streams)
}

fn text(streams: &BTreeMap<(String, String), Fresh>, never: &[&str], paused: &[Pause], now: DateTime<Utc>, width: Option<usize>) -> String {
    let columns = [left("stream"), left("last run"), right("read"), right("new"), right("updated"), right("time"), left("fresh")];
    let row = |((sync, stream), fresh): (&(String, String), &Fresh)| {
        let last = &fresh.last;
        let took = last.finished_at.and_then(|end| (end - last.started_at).to_std().ok()).map(duration).unwrap_or_default();
        vec![
            node(sync, stream),
            last.status.as_str().to_owned(),
            count(last.counts.read),
            count(last.counts.written),
            count(last.counts.updated),
            took,
            fresh.fresh_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
        ]
    };
    let mut out = if streams.is_empty() { String::new() } else { render(&columns, &streams.iter().map(row).collect::<Vec<_>>(), width) };
    for name in never {
        let _ = writeln!(out, "{name}: has not run yet");
    }
    for pause in paused {
        let _ = writeln!(out, "{}: paused by {}, {}", pause.node, pause.by, ago(pause.at, now));
    }
    out
}

fn to_json(streams: &BTreeMap<(String, String), Fresh>, never: &[&str], paused: &[Pause]) -> Value {
    let stream = |((sync, stream), fresh): (&(String, String), &Fresh)| {
        json!({
            "sync": sync, "stream": stream, "status": fresh.last.status, "counts": fresh.last.counts, "error": fresh.last.error,
            "started_at": fresh.last.started_at, "finished_at": fresh.last.finished_at, "fresh_at": fresh.fresh_at,
        })
    };
    let paused: Vec<Value> = paused.iter().map(|p| json!({"node": p.node, "by": p.by, "reason": p.reason, "at": p.at})).collect();
    json!({"streams": streams.iter().map(stream).collect::<Vec<_>>(), "never_run": never, "paused": paused})
}
