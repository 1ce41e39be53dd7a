//! A sync of the project, made ready to run: its source asked what it offers, its streams resolved.

use std::sync::Arc;

use trib_core::{Catalog, Code, Connector, Error, Source, WriteMode};
use trib_engine::steps::Steps;
use trib_engine::{ChangeSource, Engine};
use trib_project::select::Selection;
use trib_project::{Connection, StreamPlan, Sync, check_writers};
use trib_runtime::{Renew, StreamTask, SyncTask, TOGETHER, fill};
use trib_store::{Pause, Store};

use crate::app::Session;
use crate::assemble::{Ask, Newcomer, identity, limits, newcomer, shown_name, stream_task};
use crate::deliveries;
use crate::exit::{Failure, Result};

/// One sync, or one source of a sync that has several.
pub struct Prepared {
    /// Without streams when there is nothing to do.
    pub task: SyncTask,
    pub plans: Vec<StreamPlan>,
    /// Streams that cannot run, with the reason; the others can.
    pub errors: Vec<Error>,
    /// Streams that are left out on purpose, and what else a person should know.
    pub notes: Vec<String>,
    /// Where the streams are deliveries: what has to be sent.
    pub changes: Option<Arc<ChangeSource>>,
}

/// What decides which streams of a sync are taken, and how.
pub struct Wanted<'a> {
    pub selection: &'a Selection,
    pub ask: &'a Ask,
    pub paused: &'a [Pause],
}

/// Each source of the sync, in the order in which the project names them. A source that cannot be reached is an error of its own.
pub async fn sync(session: &Session, sync: &Sync, wanted: &Wanted<'_>) -> Vec<Result<Prepared>> {
    let mut prepared = Vec::new();
    for connection in &sync.spec.from.0 {
        prepared.push(source_of(session, sync, connection, wanted).await);
    }
    prepared
}

/// What the stream's SQL says has a place in the project only here: a run knows the text alone.
async fn checked(engine: &Engine, plan: &StreamPlan, task: trib_core::Result<StreamTask>) -> trib_core::Result<StreamTask> {
    let task = task?;
    Steps::compile(engine, &task.spec.schema, &task.spec.transform).await.map_err(|e| plan.mark(e))?;
    Ok(task)
}

/// Takes streams out that would write a table which another stream writes already; the others join `writers`.
pub fn admit(prepared: &mut Prepared, writers: &mut Vec<StreamPlan>) {
    for plan in std::mem::take(&mut prepared.plans) {
        writers.push(plan.clone());
        match check_writers(writers).pop() {
            None => prepared.plans.push(plan),
            Some(error) => {
                writers.pop();
                prepared.task.streams.retain(|s| s.spec.stream != plan.stream);
                prepared.errors.push(error);
            }
        }
    }
}

async fn source_of(session: &Session, sync: &Sync, name: &str, wanted: &Wanted<'_>) -> Result<Prepared> {
    let project = session.project()?;
    sync.ready()?;
    let (connection, connector) = enabled(session, name)?;
    enabled(session, &sync.spec.to)?;
    let source = session.source(name)?;
    let destination = session.destination(&sync.spec.to)?;
    if destination.deliveries().is_some() {
        if wanted.ask.range.is_some() || !wanted.ask.columns.is_empty() {
            let error = Error::new(Code::Unsupported, "deliveries are not read again: what differs from what was sent is sent")
                .hint("`trib run --full-refresh` sends every record again");
            return Err(sync.at.mark(error).into());
        }
        return deliveries::prepare(session, sync, name, wanted).await;
    }
    let catalog = discover(source.as_ref(), sync).await?;
    let identity = identity(project, &sync.name, name);
    let mut chosen = choose(sync, name, &catalog, wanted, &loaded_before(session.store().await?, &identity).await?)?;

    let engine = session.engine()?;
    let mut streams = Vec::new();
    let mut plans = Vec::new();
    for plan in chosen.plans {
        let task = catalog.stream(&plan.stream).and_then(|s| stream_task(&plan, s, connector.pushes_filter, wanted.ask));
        match checked(&engine, &plan, task).await {
            Ok(task) => {
                streams.push(task);
                plans.push(plan);
            }
            Err(e) => chosen.errors.push(e),
        }
    }
    let mirrors = destination.capabilities().write_modes.contains(&WriteMode::Mirror);
    let renew = || renewal(sync, name, &plans, (connector.pushes_filter, mirrors), wanted.ask);
    let mut task = SyncTask {
        sync: shown_name(project, &sync.name, name),
        identity,
        source: source.clone(),
        destination,
        renew: source.streams_together().then(renew),
        streams,
        limits: limits(&sync.spec, project.threads, connection.threads),
    };
    if !wanted.ask.columns.is_empty() {
        for stream in std::mem::take(&mut task.streams) {
            match fill(&engine, &task, &stream, &wanted.ask.columns).await {
                Ok(stream) => task.streams.push(stream),
                Err(e) => chosen.errors.push(e),
            }
        }
        plans.retain(|plan| task.streams.iter().any(|s| s.spec.stream == plan.stream));
    }
    let errors = chosen.errors.into_iter().map(|e| e.connection(name)).collect();
    Ok(Prepared { task, plans, errors, notes: chosen.notes, changes: None })
}

/// A connection that is not switched off.
pub fn enabled<'a>(session: &'a Session, name: &str) -> Result<(Connection, &'a Connector)> {
    let (connection, connector) = session.connection(name)?;
    if !connection.enabled {
        let error = Error::new(Code::ConfigInvalid, "the connection is not enabled").connection(name).hint("take `enabled: false` away");
        return Err(connection.place.mark(error).into());
    }
    Ok((connection, connector))
}

/// Asks for no more than the sync names, where it names its streams one by one.
async fn discover(source: &dyn Source, sync: &Sync) -> Result<Catalog> {
    let patterns = sync.patterns();
    let exact = patterns.iter().all(|p| !p.is_glob());
    if exact {
        let only: Vec<String> = patterns.iter().map(|p| p.text().to_owned()).collect();
        let catalog = source.discover(&only).await?;
        if only.iter().all(|name| catalog.streams.iter().any(|s| s.name == *name)) {
            return Ok(catalog);
        }
        // One is not there: only all the others tell which one may have been meant.
    }
    Ok(source.discover(&[]).await?)
}

/// Streams that were loaded before: scopes, or what the state of a scope of many streams names.
async fn loaded_before(store: &Arc<Store>, identity: &str) -> Result<Vec<String>> {
    let scopes = store.scopes(identity).await?;
    let streams = scopes.values().flat_map(|s| s.state.streams.keys().cloned()).collect::<Vec<_>>();
    Ok(scopes.into_keys().filter(|s| s != TOGETHER).chain(streams).collect())
}

/// The same streams, as what they are like at the source has changed while they were read.
fn renewal(sync: &Sync, connection: &str, plans: &[StreamPlan], (pushes_filter, mirrors): (bool, bool), ask: &Ask) -> Renew {
    let (sync, connection, ask) = (sync.clone(), connection.to_owned(), ask.clone());
    let names: Vec<String> = plans.iter().map(|p| p.stream.clone()).collect();
    Arc::new(move |catalog| {
        let resolved = sync.streams_for(&connection, catalog)?;
        if let Some(error) = resolved.errors.into_iter().find(|e| e.place().stream.as_ref().is_some_and(|s| names.contains(s))) {
            return Err(error);
        }
        let chosen = resolved.streams.iter().filter(|p| names.contains(&p.stream));
        let task = |plan: &StreamPlan| -> trib_core::Result<StreamTask> {
            let stream = catalog.stream(&plan.stream)?;
            let mut task = stream_task(plan, stream, pushes_filter, &ask)?;
            // What is gone can be told when all of a stream comes.
            if stream.anew && mirrors && task.spec.write == WriteMode::Upsert {
                task.spec.write = WriteMode::Mirror;
                task.allow_empty = true;
            }
            Ok(task)
        };
        chosen.map(task).collect()
    })
}

#[derive(Default)]
struct Chosen {
    plans: Vec<StreamPlan>,
    errors: Vec<Error>,
    notes: Vec<String>,
}

/// Which streams go ahead: selected, not paused, welcome by the contract.
fn choose(sync: &Sync, connection: &str, catalog: &Catalog, wanted: &Wanted<'_>, loaded: &[String]) -> Result<Chosen, Failure> {
    let resolved = sync.streams_for(connection, catalog)?;
    let selected = |stream: &str| wanted.selection.takes(&sync.name, stream);
    let loaded: Vec<&str> = loaded.iter().map(String::as_str).collect();
    let errors = resolved.errors.into_iter().filter(|e| e.place().stream.as_deref().is_none_or(selected)).collect();
    let mut chosen = Chosen { errors, ..Chosen::default() };
    for plan in resolved.streams.into_iter().filter(|p| selected(&p.stream)) {
        let node = format!("{}/{}", sync.name, plan.stream);
        if let Some(pause) = wanted.paused.iter().find(|p| p.node == node) {
            chosen.notes.push(format!("{node} is paused by {}", pause.by));
            continue;
        }
        match newcomer(&plan, sync.patterns().iter().any(|p| p.text() == plan.stream), &loaded) {
            Newcomer::Known => {}
            Newcomer::Taken => chosen.notes.push(format!("{node} is new at the source")),
            Newcomer::LeftOut => {
                chosen.notes.push(format!("{node} is new at the source and left out, as the contract says"));
                continue;
            }
            Newcomer::Refused(e) => {
                chosen.errors.push(e);
                continue;
            }
        }
        chosen.plans.push(plan);
    }
    Ok(chosen)
}
