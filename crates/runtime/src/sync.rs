//! A sync in a run: its lease, its streams side by side, and what came of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use trib_core::{Code, Error, LoadId, Marker, Result, TableName};
use trib_engine::Progress;
use trib_store::{Counts, Status, StreamEnd};

use crate::event::Event;
use crate::fault;
use crate::lease::Keeper;
use crate::load::cancelled;
use crate::retry;
use crate::stream::{StreamOutcome, StreamRun};
use crate::task::{Runtime, StreamTask, SyncTask};

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
    let runs = task.streams.iter().map(|stream| {
        let marker = markers.iter().find(|m| m.scope == stream.spec.stream).cloned();
        run_stream(runtime, task_ref, stream.clone(), keeper, marker)
    });
    let streams = futures::stream::iter(runs).buffered(task.limits.streams.max(1)).collect::<Vec<_>>().await;
    Ok(SyncReport { sync: task.sync.clone(), streams })
}

/// Takes the destination over, and sweeps what crashed loads have left there.
async fn open(runtime: &Runtime, task: &SyncTask, keeper: &Keeper) -> Result<Vec<Marker>> {
    let tables: Vec<TableName> = task.streams.iter().map(|s| s.spec.table.clone()).collect();
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

async fn run_stream(runtime: &Runtime, task: &SyncTask, stream: StreamTask, keeper: &Keeper, marker: Option<Marker>) -> StreamReport {
    let began = Instant::now();
    let (name, table) = (stream.spec.stream.clone(), stream.spec.table.clone());
    let progress = Arc::new(Progress::default());
    let mut run = StreamRun { runtime, task, stream, keeper, progress: progress.clone(), outcome: StreamOutcome::default() };
    let begun = runtime.store.stream_progress(&runtime.run, &task.sync, &name, &Counts::default()).await;
    let result = match begun {
        Ok(()) => run.run(marker).await,
        Err(e) => Err(e),
    };
    let mut outcome = run.outcome;
    outcome.counts.read = progress.rows_read.load(Ordering::Relaxed);
    outcome.counts.bytes = progress.bytes_read.load(Ordering::Relaxed);
    outcome.counts.rejected = progress.rows_rejected.load(Ordering::Relaxed);
    let error = result.err().map(Arc::new);
    let event = match &error {
        None => Event::Finished,
        Some(e) => Event::Failed(e.clone()),
    };
    runtime.observer.event(&task.sync, Some(&name), &event);
    let end = StreamEnd {
        status: status(error.as_deref()),
        counts: outcome.counts,
        from_state: outcome.from_state.clone(),
        to_state: outcome.to_state.clone(),
        schema_changes: outcome.changes.clone(),
        error: error.as_ref().map(|e| e.to_json()),
    };
    // The run's record is for people; that it cannot be written must not turn a good load into a failed one.
    if let Err(e) = runtime.store.finish_stream(&runtime.run, &task.sync, &name, &end).await {
        runtime.observer.event(&task.sync, Some(&name), &Event::Note(format!("the outcome could not be recorded: {e}")));
    }
    StreamReport { stream: name, table, outcome, took: began.elapsed(), error }
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
        let tables: Vec<TableName> = task.streams.iter().map(|s| s.spec.table.clone()).collect();
        let scopes: Vec<String> = task.streams.iter().map(|s| s.spec.stream.clone()).collect();
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
        let tables: Vec<TableName> = task.streams.iter().map(|s| s.spec.table.clone()).collect();
        let markers = task.destination.open(&keeper.lease, &tables).await?;
        let wanted: Vec<Marker> = markers.into_iter().filter(|m| task.streams.iter().any(|s| s.spec.stream == m.scope)).collect();
        for marker in &wanted {
            runtime.store.adopt(&keeper.lease, marker).await?;
        }
        Ok(wanted)
    }
    .await;
    keeper.release(runtime).await;
    result
}
