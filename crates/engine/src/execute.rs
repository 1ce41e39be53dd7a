//! Splits on their way, from the source's emitter to the destination's receipts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trib_core::{Code, Destination, Emitter, Error, Level, Message, Part, Receipt, RejectedRow, Result, Source, Split, SplitEnd, turn};
use trib_kit::sql::ANSI;

use crate::conform::Stamp;
use crate::router::Router;
use crate::shelf::Shelf;

/// Messages between a source and the router, and batches between the router and a stage: with batches of a few megabytes this
/// is what bounds a read's memory.
pub(crate) const IN_FLIGHT: usize = 2;

/// Counts of one stream in a load, read by the progress display while they grow.
#[derive(Debug, Default)]
pub struct Progress {
    pub rows_read: AtomicU64,
    pub bytes_read: AtomicU64,
    pub rows_staged: AtomicU64,
    pub rows_rejected: AtomicU64,
    /// Reads and stages that wait until it is their turn to have a connection.
    pub waiting: Arc<AtomicUsize>,
}

/// What is needed to read splits and to stage their rows.
pub struct SplitTask {
    pub source: Arc<dyn Source>,
    pub destination: Arc<dyn Destination>,
    /// Usually one. Several are read one after the other into the same part, so that a query over a stream sees the rows of all of them.
    pub splits: Vec<Split>,
    /// Place of the part in the load's plan: rows of a later one win over rows of an earlier one.
    pub ordinal: u32,
    pub attempt: u32,
    /// Identity of the sync, for the names of staged parts.
    pub sync: String,
    pub stamp: Stamp,
    pub plans: Arc<Shelf>,
    pub progress: HashMap<String, Arc<Progress>>,
    /// Set by whoever watches the load's budget.
    pub stop: Arc<AtomicBool>,
    /// Gives the work up: what is under way ends, and nothing of it will be published.
    pub halt: CancellationToken,
    /// Takes rejected rows, by stream.
    pub rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
    /// Takes what the source says for the run's log. Must not block.
    pub log: Arc<dyn Fn(Level, String) + Send + Sync>,
}

impl SplitTask {
    pub(crate) fn part(&self) -> Part {
        Part { load: self.stamp.load.clone(), sync: self.sync.clone(), split: self.ordinal, attempt: self.attempt }
    }

    /// The form of their own system in which the destination takes the rows of the one stream that is read, where nothing is done to them. A stream that is only planned when
    /// it turns out to have rows has none.
    async fn wire(&self) -> Option<&'static str> {
        let plans = self.plans.plans().await;
        let streams: Vec<&String> = self.splits.iter().flat_map(|split| &split.streams).collect();
        let [stream] = streams.as_slice() else { return None };
        let plan = plans.iter().find(|plan| plan.spec.stream == **stream)?;
        plan.untouched().and_then(|table| self.destination.wire(table))
    }

    /// Who counts what waits for its turn.
    pub(crate) fn waiting(&self) -> Vec<Arc<AtomicUsize>> {
        self.progress.values().map(|p| p.waiting.clone()).collect()
    }

    pub(crate) fn count(&self, stream: &str, add: impl Fn(&Progress) -> u64) {
        if let Some(progress) = self.progress.get(stream) {
            add(progress);
        }
    }
}

/// How a task went.
pub struct SplitResult {
    /// In the order of the splits.
    pub ends: Vec<SplitEnd>,
    pub receipts: Vec<Receipt>,
}

/// Reads and stages a task's splits. On an error nothing of this attempt may be published; whatever the outcome, nothing is being staged any more
/// when this returns.
pub async fn run_splits(task: SplitTask) -> Result<SplitResult> {
    if let [split] = task.splits.as_slice()
        && let Some(sql) = task.source.inside(split)?
    {
        // A query may take as long as it likes, and looks at nothing that could tell it to stop.
        return tokio::select! {
            result = run_inside(&task, split, &sql) => result,
            () = task.halt.cancelled() => Err(stopped()),
        };
    }
    let (emitter, messages) = Emitter::channel(IN_FLIGHT, task.stop.clone());
    let emitter = emitter.taking(task.wire().await);
    let mut router = Router::new(&task);
    let reading = router.tasks.spawn(read(task.source.clone(), task.splits.clone(), emitter, task.waiting()));
    let mut outcome = Outcome::default();
    tokio::select! {
        () = carry(&mut router, messages, &mut outcome) => {}
        () = task.halt.cancelled() => outcome.fail(stopped()),
    }
    if outcome.error.is_some() {
        reading.abort();
        router.give_up(&mut outcome).await;
    }
    match (outcome.error, outcome.ends) {
        (Some(e), _) => Err(e),
        (None, Some(ends)) => Ok(SplitResult { ends, receipts: outcome.receipts }),
        (None, None) => Err(Error::internal("a read ended without saying how")),
    }
}

/// What says only that something else has ended the work.
pub(crate) fn stopped() -> Error {
    Error::new(Code::Cancelled, "the load was stopped")
}

async fn read(source: Arc<dyn Source>, splits: Vec<Split>, mut out: Emitter, waiting: Vec<Arc<AtomicUsize>>) -> Result<Done> {
    let mut ends = Vec::with_capacity(splits.len());
    for split in &splits {
        ends.push(turn::counted(waiting.clone(), source.read(split, &mut out)).await?);
    }
    Ok(Done::Read(ends))
}

/// Until all is read and staged, or something has failed.
async fn carry(router: &mut Router<'_>, mut messages: mpsc::Receiver<Message>, outcome: &mut Outcome) {
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => {
                    if let Err(e) = router.route(message).await {
                        outcome.fail(e);
                    }
                }
                None => break,
            },
            Some(done) = router.tasks.join_next() => outcome.take(done),
        }
        if outcome.error.is_some() {
            return;
        }
    }
    // The source may have ended with an error after its last batch: stages must not finish before that is known.
    while outcome.ends.is_none() && outcome.error.is_none() {
        match router.tasks.join_next().await {
            Some(done) => outcome.take(done),
            None => return,
        }
    }
    router.finish(outcome).await;
}

/// The destination computes the rows itself.
async fn run_inside(task: &SplitTask, split: &Split, sql: &str) -> Result<SplitResult> {
    let engine = task.destination.sql().ok_or_else(|| Error::internal("a query is to run inside a system that knows no SQL"))?;
    let mut receipts = Vec::new();
    for stream in &split.streams {
        let plan = task.plans.plan(stream).await?.ok_or_else(|| Error::internal("a stream without a plan"))?;
        for table in plan.conforms().map(|c| &c.table) {
            // Columns that the table keeps and the query no longer has.
            let gone = table.data_columns().filter(|f| plan.spec.schema.field_with_name(f.name()).is_err());
            let gone: String = gone.map(|f| format!(", null as {}", ANSI.identifier(f.name()))).collect();
            let sql = if gone.is_empty() { sql.to_owned() } else { format!("select q.*{gone} from ({sql}) as q") };
            let receipt = engine.stage_query(&task.part(), table, &sql, task.stamp.loaded_at).await.map_err(|e| e.stream(stream))?;
            task.count(stream, |p| {
                p.rows_read.fetch_add(receipt.rows, Ordering::Relaxed);
                p.rows_staged.fetch_add(receipt.rows, Ordering::Relaxed)
            });
            receipts.push(receipt);
        }
    }
    Ok(SplitResult { ends: vec![SplitEnd::finished(split, serde_json::Value::Null)], receipts })
}

pub(crate) enum Done {
    Read(Vec<SplitEnd>),
    Staged(Box<Receipt>),
    Conformed,
}

#[derive(Default)]
pub(crate) struct Outcome {
    ends: Option<Vec<SplitEnd>>,
    receipts: Vec<Receipt>,
    pub error: Option<Error>,
}

impl Outcome {
    pub fn take(&mut self, done: Result<Result<Done>, tokio::task::JoinError>) {
        match done {
            Ok(Ok(Done::Read(ends))) => self.ends = Some(ends),
            Ok(Ok(Done::Staged(receipt))) => self.receipts.push(*receipt),
            Ok(Ok(Done::Conformed)) => {}
            Ok(Err(e)) => self.fail(e),
            Err(e) if e.is_cancelled() => {}
            Err(_) => self.fail(Error::internal("a task of the load has panicked")),
        }
    }

    /// Keeps the error that says most: a cancellation only tells that something else has failed.
    fn fail(&mut self, e: Error) {
        if self.error.as_ref().is_none_or(|kept| kept.code() == Code::Cancelled) {
            self.error = Some(e);
        }
    }
}
