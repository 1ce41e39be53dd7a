//! `trib plan`

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trib_core::Error;
use trib_project::{Graph, NodeKind};
use trib_runtime::{NoObserver, StreamOutline, outline};

use crate::app::Session;
use crate::args::Select;
use crate::assemble::Ask;
use crate::exit::{Exit, Result};
use crate::prepare::{self, Prepared, Wanted, admit};
use crate::render;

/// What a run would do: streams, modes, from which state, what is not seen, changes to tables
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib plan shop")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// What `trib run --full-refresh` would do
    #[arg(long)]
    full_refresh: bool,
}

/// One sync of the plan.
#[derive(Default)]
pub struct SyncOutline {
    pub sync: String,
    pub from: String,
    pub to: String,
    pub streams: Vec<StreamOutline>,
    pub notes: Vec<String>,
    pub errors: Vec<Error>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let selection = session.select(&args.select).await?;
    let ask = Ask { full_refresh: args.full_refresh, ..Ask::default() };
    let project = session.project()?;
    let paused = session.store().await?.paused().await?;
    let wanted = Wanted { selection: &selection, ask: &ask, paused: &paused };
    let mut writers = Vec::new();
    let mut plans = Vec::new();
    for node in Graph::of(project).order().into_iter().filter(|n| selection.contains(&n.name) && n.kind == NodeKind::Sync) {
        let sync = project.sync(&node.name)?;
        let named = |i: usize| SyncOutline {
            sync: sync.name.clone(),
            from: sync.spec.from.0.get(i).cloned().unwrap_or_default(),
            to: sync.spec.to.clone(),
            ..SyncOutline::default()
        };
        for (i, prepared) in prepare::sync(session, sync, &wanted).await.into_iter().enumerate() {
            let mut plan = named(i);
            if let Some(pause) = paused.iter().find(|p| p.node == sync.name) {
                plan.notes.push(format!("paused by {}: a run leaves it out", pause.by));
            }
            match prepared {
                Err(failure) => plan.errors.extend(failure.0),
                Ok(mut prepared) => {
                    admit(&mut prepared, &mut writers);
                    streams(session, prepared, &mut plan).await?;
                }
            }
            plans.push(plan);
        }
    }
    session.output.either(|| plans.iter().map(to_json).collect(), || render::plan::text(&plans));
    let streams = plans.iter().map(|p| p.streams.len()).sum();
    let codes: Vec<_> = plans.iter().flat_map(|p| &p.errors).map(Error::code).collect();
    Ok(Exit::of_run(streams, &codes))
}

async fn streams(session: &Session, prepared: Prepared, plan: &mut SyncOutline) -> Result<()> {
    let runtime = session.runtime("", Arc::new(NoObserver), CancellationToken::new()).await?;
    plan.notes.extend(prepared.notes);
    plan.errors.extend(prepared.errors);
    for stream in &prepared.task.streams {
        match outline(&runtime, &prepared.task, stream).await {
            Ok(outline) => plan.streams.push(outline),
            Err(e) => plan.errors.push(e.connection(&plan.to)),
        }
    }
    Ok(())
}

fn to_json(plan: &SyncOutline) -> serde_json::Value {
    let errors: Vec<_> = plan.errors.iter().map(Error::to_json).collect();
    json!({"sync": plan.sync, "from": plan.from, "to": plan.to, "streams": plan.streams, "notes": plan.notes, "errors": errors})
}
