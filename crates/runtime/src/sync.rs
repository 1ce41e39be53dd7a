//! A sync in a run: its lease, its streams side by side, and what came of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use trib_core::{Code, Error, LoadId, Marker, Result, TableName};
use trib_store::{Status, StreamEnd};

use crate::event::Event;
use crate::fault;
use crate::lease::Keeper;
use crate::load::cancelled;
use crate::retry;
use crate::scope::ScopeRun;
use crate::task::{Runtime, StreamTask, SyncTask};
use crate::track::{StreamOutcome, Track};

/// How a sync went, stream by stream.
#[derive(Debug)]
pub struct SyncReport {
    pub sync: String,
    pub streams: Vec<StreamReport>,
}

#[derive(Debug)]
pub struct StreamReport {
    pub stream: String,
    pub table: TableName,
    pub outcome: StreamOutcome,
    pub took: Duration,
    pub error: Option<Arc<Error>>,
}

impl SyncReport {
    pub fn failed(&self) -> usize {
        self.streams.iter().filter(|s| s.error.is_some()).count()
    }
}

/// Carries out a sync. An error means that no stream could begin; what happens to single streams stands in the report.
pub async fn run_sync(runtime: &Runtime, task: SyncTask) -> Result<SyncReport> {
    let keeper = Keeper::take(runtime, &task.identity).await?;
    fault::point("leased");
    let result = with_lease(runtime, &task, &keeper).await;
    keeper.release(runtime).await;
    result
}

async fn with_lease(runtime: &Runtime, task: &SyncTask, keeper: &Keeper) -> Result<SyncReport> {
    let markers = open(runtime, task, keeper).await?;
    fault::point("opened");
    let task_ref = &task;
    let runs = task.scopes().into_iter().enumerate().map(|(i, scope)| {
        let marker = markers.iter().find(|m| m.scope == scope).cloned();
        let mut streams = task_ref.streams.clone();
        streams.retain(|s| task_ref.source.streams_together() || s.spec.stream == scope);
        async move { (i, run_scope(runtime, task_ref, scope, streams, keeper, marker).await) }
    });
    // One that takes long holds none of the others back; they are told of in the order in which they were asked for.
    let mut reports = futures::stream::iter(runs).buffer_unordered(task.limits.streams.max(1)).collect::<Vec<_>>().await;
    reports.sort_by_key(|(i, _)| *i);
    Ok(SyncReport { sync: task.sync.clone(), streams: reports.into_iter().flat_map(|(_, reports)| reports).collect() })
}

/// Takes the destination over, and sweeps what crashed loads have left there.
async fn open(runtime: &Runtime, task: &SyncTask, keeper: &Keeper) -> Result<Vec<Marker>> {
    let tables = task.tables();
    let mut attempt = 1;
    let markers = loop {
        match task.destination.open(&keeper.lease, &tables).await {
            Ok(markers) => break markers,
            Err(error) => {
                let Some(pause) = retry::pause(&error, attempt, &task.limits) else {
                    return Err(error);
                };
                let event = Event::Retrying { error: Arc::new(error), attempt, of: task.limits.attempts, pause };
                runtime.observer.event(&task.sync, None, &event);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = keeper.lost.cancelled() => return Err(cancelled(runtime)),
                }
                attempt += 1;
            }
        }
    };
    // Loads that recovery may still publish are kept, those of streams that are not part of this run as well.
    let scopes = runtime.store.scopes(&task.identity).await?;
    let keep: Vec<LoadId> = scopes.into_values().filter_map(|s| Some(s.known.staged?.id)).collect();
    task.destination.sweep(&keeper.lease, &keep).await?;
    Ok(markers)
}

async fn run_scope(
    runtime: &Runtime,
    task: &SyncTask,
    scope: String,
    streams: Vec<StreamTask>,
    keeper: &Keeper,
    marker: Option<Marker>,
) -> Vec<StreamReport> {
    let mut run = ScopeRun::new(runtime, task, scope, streams, keeper);
    let error = run.run(marker).await.err().map(Arc::new);
    let mut reports = Vec::new();
    for track in run.tracks {
        reports.push(report(runtime, &task.sync, track, error.clone()).await);
    }
    reports
}

/// Ends a stream's part of the run: tells and records how it went.
async fn report(runtime: &Runtime, sync: &str, track: Track, error: Option<Arc<Error>>) -> StreamReport {
    let Track { stream, table, began, progress, mut outcome, .. } = track;
    outcome.counts.read = progress.rows_read.load(Ordering::Relaxed);
    outcome.counts.bytes = progress.bytes_read.load(Ordering::Relaxed);
    outcome.counts.rejected = progress.rows_rejected.load(Ordering::Relaxed);
    let event = match &error {
        None => Event::Finished,
        Some(e) => Event::Failed(e.clone()),
    };
    runtime.observer.event(sync, Some(&stream), &event);
    let end = StreamEnd {
        status: status(error.as_deref()),
        counts: outcome.counts,
        from_state: outcome.from_state.clone(),
        to_state: outcome.to_state.clone(),
        schema_changes: outcome.changes.clone(),
        error: error.as_ref().map(|e| e.to_json()),
    };
    // The run's record is for people; that it cannot be written must not turn a good load into a failed one.
    if let Err(e) = runtime.store.finish_stream(&runtime.run, sync, &stream, &end).await {
        runtime.observer.event(sync, Some(&stream), &Event::Note(format!("the outcome could not be recorded: {e}")));
    }
    StreamReport { stream, table, outcome, took: began.elapsed(), error }
}

fn status(error: Option<&Error>) -> Status {
    match error.map(Error::code) {
        None => Status::Succeeded,
        Some(Code::Held) => Status::Held,
        Some(Code::Cancelled) => Status::Cancelled,
        Some(Code::TestFailed) => Status::TestsFailed,
        Some(_) => Status::Failed,
    }
}

/// Forgets how far these streams have come, at the destination and in the store; tables and rows stay. The next run reads from the beginning.
pub async fn reset(runtime: &Runtime, task: &SyncTask) -> Result<Vec<String>> {
    let keeper = Keeper::take(runtime, &task.identity).await?;
    let result = async {
        let tables = task.tables();
        let scopes = task.scopes();
        task.destination.open(&keeper.lease, &tables).await?;
        task.destination.forget(&keeper.lease, &scopes, &tables).await?;
        runtime.store.reset(&keeper.lease, &scopes).await?;
        Ok(scopes)
    }
    .await;
    keeper.release(runtime).await;
    result
}

/// Takes the state of these streams from the destination's markers. Returns what was found.
pub async fn recover_state(runtime: &Runtime, task: &SyncTask) -> Result<Vec<Marker>> {
    let keeper = Keeper::take(runtime, &task.identity).await?;
    let result = async {
        let tables = task.tables();
        let markers = task.destination.open(&keeper.lease, &tables).await?;
        let scopes = task.scopes();
        let wanted: Vec<Marker> = markers.into_iter().filter(|m| scopes.contains(&m.scope)).collect();
        for marker in &wanted {
            runtime.store.adopt(&keeper.lease, marker).await?;
        }
        Ok(wanted)
    }
    .await;
    keeper.release(runtime).await;
    result
}
