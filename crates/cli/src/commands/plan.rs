//! `trib plan`

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trib_core::{Code, Error, TableName};
use trib_project::{Graph, Model, NodeKind};
use trib_runtime::{NoObserver, StreamOutline, SyncTask, outline};

use crate::app::Session;
use crate::args::Select;
use crate::assemble::Ask;
use crate::exit::{Exit, Result};
use crate::impact::{self, Change, Loss};
use crate::models::{self, Computing};
use crate::preflight;
use crate::prepare::{self, Prepared, Wanted, admit};
use crate::program;
use crate::render;

/// What a run would do: streams and models, modes, from which state, what is not seen, changes to tables and to the project
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib plan shop")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// What `trib run --full-refresh` would do
    #[arg(long)]
    full_refresh: bool,
}

/// One node of the plan.
#[derive(Default)]
pub struct SyncOutline {
    pub sync: String,
    /// Where from and where to; both empty for a node that is no longer part of the project.
    pub from: String,
    pub to: String,
    /// What became of the node since the last run.
    pub change: Option<Change>,
    /// Columns that its tables lose.
    pub loses: Vec<Loss>,
    pub streams: Vec<StreamOutline>,
    pub notes: Vec<String>,
    pub errors: Vec<Error>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let selection = session.select(&args.select).await?;
    let ask = Ask { full_refresh: args.full_refresh, counts: true, ..Ask::default() };
    let project = session.project()?;
    let paused = session.store().await?.paused().await?;
    let wanted = Wanted { selection: &selection, ask: &ask, paused: &paused };
    let graph = session.graph()?;
    let before = session.last_manifest().await?;
    let mut writers = Vec::new();
    let mut plans = Vec::new();
    for node in graph.order().into_iter().filter(|n| selection.contains(&n.name)) {
        let at = plans.len();
        match node.kind {
            NodeKind::Sync => {
                let sync = project.sync(&node.name)?;
                let from = |i: usize| sync.spec.from.0.get(i).cloned().unwrap_or_default();
                for (i, prepared) in prepare::sync(session, sync, &wanted).await.into_iter().enumerate() {
                    let mut plan =
                        SyncOutline { sync: sync.name.clone(), from: from(i), to: sync.spec.to.clone(), ..SyncOutline::default() };
                    match prepared {
                        Err(failure) => plan.errors.extend(failure.0),
                        Ok(mut prepared) => {
                            admit(&mut prepared, &mut writers);
                            streams(session, prepared, &mut plan).await?;
                            unmade(session, graph, &wanted, &mut plan).await?;
                        }
                    }
                    plans.push(plan);
                }
            }
            NodeKind::Model => plans.push(model(session, graph, &wanted, project.model(&node.name)?).await?),
            NodeKind::Command => {
                let Some(command) = project.commands().iter().find(|c| c.name == node.name) else { continue };
                let (from, to) = (command.spec.reads.join(", "), command.spec.writes.join(", "));
                let mut plan = SyncOutline { sync: command.name.clone(), from, to, ..SyncOutline::default() };
                plan.notes.push(format!("a command: {}", program::shown(command)));
                plan.errors.extend(command.ready().err());
                plans.push(plan);
            }
            NodeKind::Seed => {
                let Some(seed) = project.seeds().iter().find(|s| s.name == node.name) else { continue };
                let to = format!("{}: {}", seed.connection, seed.table);
                let mut plan = SyncOutline { sync: seed.name.clone(), from: seed.file.clone(), to, ..SyncOutline::default() };
                match models::seed(session, seed).await {
                    Ok(task) => outlines(session, &task, &mut plan).await?,
                    Err(failure) => plan.errors.extend(failure.0),
                }
                plans.push(plan);
            }
        }
        for plan in &mut plans[at..] {
            if let Some(pause) = paused.iter().find(|p| p.node == node.name) {
                plan.notes.push(format!("paused by {}: a run leaves it out", pause.by));
            }
            plan.change = Change::of(before.as_ref(), node, graph);
        }
    }
    impact::read_by_syncs(project, &mut plans);
    if args.select.select.is_empty() {
        for name in before.iter().flat_map(|b| b.keys()).filter(|name| !graph.nodes().iter().any(|n| n.name == **name)) {
            plans.push(SyncOutline { sync: name.clone(), change: Some(Change::removed()), ..SyncOutline::default() });
        }
    }
    session.output.either(|| plans.iter().map(to_json).collect(), || render::plan::text(&plans));
    let streams = plans.iter().map(|p| p.streams.len()).sum();
    let codes: Vec<_> = plans.iter().flat_map(|p| &p.errors).map(Error::code).collect();
    Ok(Exit::of_run(streams, &codes))
}

/// A model: checked against its parents as they are written now.
async fn model(session: &Session, graph: &Graph, wanted: &Wanted<'_>, model: &Model) -> Result<SyncOutline> {
    let to = format!("{}: {} {}", model.spec.connection, model.spec.materialized.as_str(), model.table);
    let mut plan = SyncOutline { sync: model.name.clone(), from: model.read_names().join(", "), to, ..SyncOutline::default() };
    let here = models::is_here(session, model)?;
    if here {
        plan.errors = preflight::unmade(session, model).await?;
    }
    if !plan.errors.is_empty() {
        return Ok(plan);
    }
    if model.is_script {
        plan.notes.push("a script: what it gives is known when it has run".to_owned());
        return Ok(plan);
    }
    let computing = match here {
        true => Computing::Here(preflight::as_written(session, graph, wanted.selection, model).await?),
        false => Computing::of(session, model).await?,
    };
    match models::model(session, model, computing, wanted.ask).await {
        Ok(Some(task)) => {
            outlines(session, &task, &mut plan).await?;
            if let Some(stream) = task.streams.first() {
                plan.loses = impact::losses(session, graph, model, &stream.spec.schema).await?;
            }
        }
        Ok(None) => plan.notes.push("the query is right".to_owned()),
        // What a sync is about to make may bring the table or the column.
        Err(failure) => match preflight::moved_by(session, graph, wanted.selection, model)? {
            Some(sync) => {
                let why = failure.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                plan.notes.push(format!("is checked again once {sync} has run: {why}"));
            }
            None => plan.errors.extend(failure.0),
        },
    }
    Ok(plan)
}

async fn streams(session: &Session, prepared: Prepared, plan: &mut SyncOutline) -> Result<()> {
    plan.notes.extend(prepared.notes);
    plan.errors.extend(prepared.errors);
    outlines(session, &prepared.task, plan).await
}

/// What reads a table that another node of the plan has yet to make is planned when that has run.
async fn unmade(session: &Session, graph: &Graph, wanted: &Wanted<'_>, plan: &mut SyncOutline) -> Result<()> {
    if plan.errors.iter().all(|e| e.code() != Code::NotFound) {
        return Ok(());
    }
    let project = session.project()?;
    let parents = graph.parents(&plan.sync).filter(|name| wanted.selection.contains(name));
    for parent in parents.filter_map(|name| project.model(name).ok()).filter(|m| m.spec.materialized.is_stored()) {
        if session.destination(&parent.spec.connection)?.inspect(&project.environment.physical(&parent.table)).await?.is_none() {
            let named = |e: &Error| e.place().stream.as_ref().is_some_and(|s| parent.is_called(&TableName::parse(s)));
            let of_it = |e: &Error| e.code() == Code::NotFound && named(e);
            if plan.errors.iter().any(of_it) {
                plan.errors.retain(|e| !of_it(e));
                plan.notes.push(format!("{} is looked at once {} has run", parent.table, parent.name));
            }
        }
    }
    Ok(())
}

async fn outlines(session: &Session, task: &SyncTask, plan: &mut SyncOutline) -> Result<()> {
    let runtime = session.runtime("", Arc::new(NoObserver), CancellationToken::new()).await?;
    for stream in &task.streams {
        match outline(&runtime, task, stream).await {
            Ok(outline) => {
                plan.notes.extend(impact::intervals(task, stream, &outline.from_state).await);
                plan.streams.push(outline);
            }
            Err(e) => plan.errors.push(e.connection(&plan.to)),
        }
    }
    Ok(())
}

fn to_json(plan: &SyncOutline) -> serde_json::Value {
    let errors: Vec<_> = plan.errors.iter().map(Error::to_json).collect();
    json!({
        "sync": plan.sync, "from": plan.from, "to": plan.to, "change": plan.change, "loses": plan.loses, "streams": plan.streams,
        "notes": plan.notes, "errors": errors,
    })
}
