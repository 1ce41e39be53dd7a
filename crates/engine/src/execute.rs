//! One split, from the source's emitter to the destination's receipts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use trib_core::{
    BatchStream, Code, Destination, Emitter, Error, Level, Message, Part, Receipt, RejectedRow, Result, Source, Split, SplitEnd, turn,
};
use trib_kit::sql::ANSI;

use crate::conform::{Conformed, Stamp, TableConform, conform};
use crate::plan::{SharedPlan, StreamPlan};
use crate::shelf::Shelf;
use crate::spill::Spill;

/// Messages between a source and the router, and batches between the router and a stage: with batches of a few megabytes this
/// is what bounds a split's memory.
const IN_FLIGHT: usize = 2;

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

/// What one split needs to be read and staged.
pub struct SplitTask {
    pub source: Arc<dyn Source>,
    pub destination: Arc<dyn Destination>,
    pub split: Split,
    /// Place of the split in the load's plan: rows of a later split win over rows of an earlier one.
    pub ordinal: u32,
    pub attempt: u32,
    /// Identity of the sync, for the names of staged parts.
    pub sync: String,
    pub stamp: Stamp,
    pub plans: Arc<Shelf>,
    pub progress: HashMap<String, Arc<Progress>>,
    /// Set by whoever watches the load's budget.
    pub stop: Arc<AtomicBool>,
    /// Takes rejected rows, by stream.
    pub rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
    /// Takes what the source says for the run's log. Must not block.
    pub log: Arc<dyn Fn(Level, String) + Send + Sync>,
}

/// How a split went.
pub struct SplitResult {
    pub end: SplitEnd,
    pub receipts: Vec<Receipt>,
}

/// Reads and stages one split. On an error nothing of this attempt may be published.
pub async fn run_split(task: SplitTask) -> Result<SplitResult> {
    if let Some(sql) = task.source.inside(&task.split)? {
        return run_inside(&task, &sql).await;
    }
    let (mut emitter, mut messages) = Emitter::channel(IN_FLIGHT, task.stop.clone());
    let (source, split) = (task.source.clone(), task.split.clone());
    let mut tasks: JoinSet<Result<Done>> = JoinSet::new();
    let waiting = waiting(&task);
    tasks.spawn(async move { turn::counted(waiting, source.read(&split, &mut emitter)).await.map(Done::Read) });

    let mut router = Router { task: &task, live: HashMap::new(), waiting: Vec::new(), tasks };
    let mut outcome = Outcome::default();
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => {
                    if let Err(e) = router.route(message).await {
                        // A closed channel means that its reader has failed; that reader's error is the one that counts.
                        outcome.fail(e);
                        break;
                    }
                }
                None => break,
            },
            Some(done) = router.tasks.join_next() => outcome.take(done),
        }
        if outcome.error.is_some() {
            break;
        }
    }
    drop(messages);
    if outcome.error.is_some() {
        // Stages still waiting for rows are told, so that none of them takes an early end for a complete part.
        for sender in router.live.values() {
            let _ = sender.try_send(Err(Error::new(Code::Cancelled, "the read failed")));
        }
        while let Some(done) = tokio::time::timeout(std::time::Duration::from_secs(5), router.tasks.join_next()).await.ok().flatten() {
            outcome.take(done);
        }
        router.tasks.abort_all();
    } else {
        // The source may have ended with an error after its last batch: stages must not finish before that is known.
        while outcome.end.is_none() && outcome.error.is_none() {
            match router.tasks.join_next().await {
                Some(done) => outcome.take(done),
                None => break,
            }
        }
        if outcome.error.is_some() {
            for sender in router.live.values() {
                let _ = sender.send(Err(Error::new(Code::Cancelled, "the read failed"))).await;
            }
        }
        router.finish(&mut outcome).await;
    }
    match (outcome.error, outcome.end) {
        (Some(e), _) => Err(e),
        (None, Some(end)) => Ok(SplitResult { end, receipts: outcome.receipts }),
        (None, None) => Err(Error::internal("a split ended without saying how")),
    }
}

/// The destination computes the rows itself.
async fn run_inside(task: &SplitTask, sql: &str) -> Result<SplitResult> {
    let engine = task.destination.sql().ok_or_else(|| Error::internal("a query is to run inside a system that knows no SQL"))?;
    let mut receipts = Vec::new();
    for stream in &task.split.streams {
        let plan = task.plans.plan(stream).await?.ok_or_else(|| Error::internal("a stream without a plan"))?;
        for table in plan.conforms().map(|c| &c.table) {
            // Columns that the table keeps and the query no longer has.
            let gone = table.data_columns().filter(|f| plan.spec.schema.field_with_name(f.name()).is_err());
            let gone: String = gone.map(|f| format!(", null as {}", ANSI.identifier(f.name()))).collect();
            let sql = if gone.is_empty() { sql.to_owned() } else { format!("select q.*{gone} from ({sql}) as q") };
            let part = Part { load: task.stamp.load.clone(), sync: task.sync.clone(), split: task.ordinal, attempt: task.attempt };
            let receipt = engine.stage_query(&part, table, &sql, task.stamp.loaded_at).await.map_err(|e| e.stream(stream))?;
            count(task, stream, |p| {
                p.rows_read.fetch_add(receipt.rows, Ordering::Relaxed);
                p.rows_staged.fetch_add(receipt.rows, Ordering::Relaxed)
            });
            receipts.push(receipt);
        }
    }
    Ok(SplitResult { end: SplitEnd::finished(&task.split, serde_json::Value::Null), receipts })
}

enum Done {
    Read(SplitEnd),
    Staged(Box<Receipt>),
    Conformed,
}

#[derive(Default)]
struct Outcome {
    end: Option<SplitEnd>,
    receipts: Vec<Receipt>,
    error: Option<Error>,
}

impl Outcome {
    fn take(&mut self, done: Result<Result<Done>, tokio::task::JoinError>) {
        match done {
            Ok(Ok(Done::Read(end))) => self.end = Some(end),
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

/// Brings each stream's batches to its stages.
struct Router<'a> {
    task: &'a SplitTask,
    /// The stream whose stages are open: the first that had rows.
    live: HashMap<String, mpsc::Sender<Result<RecordBatch>>>,
    /// The others, in the order in which they came. They are staged when the read has ended: a stage that waits for rows holds a connection for which another may
    /// wait, and a writer's memory, and a split can have hundreds of streams.
    waiting: Vec<(SharedPlan, Spill)>,
    tasks: JoinSet<Result<Done>>,
}

impl Router<'_> {
    async fn route(&mut self, message: Message) -> Result<()> {
        let task = self.task;
        match message {
            Message::Reject { stream, row } => {
                count(task, &stream, |p| p.rows_rejected.fetch_add(1, Ordering::Relaxed));
                let row = match task.plans.plan(&stream).await? {
                    Some(plan) => plan.steps.kept.undecoded(row),
                    // Of a stream that the sync leaves out.
                    None => return Ok(()),
                };
                send_rejects(&task.rejects, &stream, vec![row]).await
            }
            Message::Log { level, text } => {
                (task.log)(level, text);
                Ok(())
            }
            Message::Schema { stream, schema } => match task.plans.plan(&stream).await? {
                Some(plan) => adapted(&RecordBatch::new_empty(schema), &plan.spec.schema, &stream).map(|_| ()),
                None => Ok(()),
            },
            Message::Batch { stream, batch } => {
                let Some(plan) = task.plans.plan(&stream).await? else {
                    // A split over many streams also carries those that the sync leaves out.
                    return Ok(());
                };
                count(task, &stream, |p| {
                    p.rows_read.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    p.bytes_read.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed)
                });
                let batch = adapted(&batch, &plan.spec.schema, &stream)?;
                if let Some((_, spill)) = self.waiting.iter_mut().find(|(waiting, _)| waiting.spec.stream == *stream) {
                    return spill.write(&batch);
                }
                let sender = match self.live.get(stream.as_ref()) {
                    Some(sender) => sender.clone(),
                    None if self.live.is_empty() => self.start(plan),
                    None => {
                        let mut spill = Spill::new(task.plans.spill(), &plan.spec.schema)?;
                        spill.write(&batch)?;
                        self.waiting.push((plan, spill));
                        return Ok(());
                    }
                };
                sender.send(Ok(batch)).await.map_err(|_| Error::new(Code::Cancelled, "the load was stopped"))
            }
        }
    }

    /// Ends the open stages, then stages the streams that have waited, one by one.
    async fn finish(mut self, outcome: &mut Outcome) {
        let begun: Vec<String> = self.live.keys().cloned().chain(self.waiting.iter().map(|(plan, _)| plan.spec.stream.clone())).collect();
        self.live.clear();
        self.join(outcome).await;
        for plan in self.task.plans.plans().await {
            let stream = &plan.spec.stream;
            if plan.stages_nothing_too() && self.task.split.streams.contains(stream) && !begun.contains(stream) {
                self.start(plan);
                self.live.clear();
                self.join(outcome).await;
            }
        }
        for (plan, spill) in std::mem::take(&mut self.waiting) {
            if outcome.error.is_some() {
                return;
            }
            let sender = self.start(plan);
            self.live.clear();
            self.tasks.spawn_blocking(move || {
                let feed = || -> Result<()> {
                    for batch in spill.read()? {
                        if sender.blocking_send(Ok(batch?)).is_err() {
                            // The stage has failed, and says why itself.
                            break;
                        }
                    }
                    Ok(())
                };
                feed().inspect_err(|_| {
                    let _ = sender.blocking_send(Err(Error::new(Code::Cancelled, "the load failed")));
                })?;
                Ok(Done::Conformed)
            });
            self.join(outcome).await;
        }
    }

    async fn join(&mut self, outcome: &mut Outcome) {
        while let Some(done) = self.tasks.join_next().await {
            outcome.take(done);
        }
    }

    /// Starts a stream's conforming task and one stage per table.
    fn start(&mut self, plan: SharedPlan) -> mpsc::Sender<Result<RecordBatch>> {
        let task = self.task;
        let stream = plan.spec.stream.clone();
        let mut stages = Vec::new();
        for conform in plan.conforms() {
            let (sender, receiver) = mpsc::channel::<Result<RecordBatch>>(IN_FLIGHT);
            let rows: BatchStream = Box::pin(tokio_stream(receiver));
            let part = Part { load: task.stamp.load.clone(), sync: task.sync.clone(), split: task.ordinal, attempt: task.attempt };
            let (destination, table) = (task.destination.clone(), conform.table.clone());
            let name = stream.clone();
            let waiting = waiting(task);
            self.tasks.spawn(async move {
                let receipt = turn::counted(waiting, destination.stage(&part, &table, rows)).await.map_err(|e| e.stream(name))?;
                Ok(Done::Staged(Box::new(receipt)))
            });
            stages.push(sender);
        }
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let conformer = Conformer {
            stream: stream.clone(),
            plan,
            stamp: task.stamp.clone(),
            position: i64::from(task.ordinal) << 40,
            stages,
            rejects: task.rejects.clone(),
            progress: task.progress.get(&stream).cloned().unwrap_or_default(),
        };
        self.tasks.spawn(async move { conformer.run(receiver).await.map(|()| Done::Conformed) });
        self.live.insert(stream, sender.clone());
        sender
    }
}

/// Who counts what waits for its turn.
fn waiting(task: &SplitTask) -> Vec<Arc<AtomicUsize>> {
    task.progress.values().map(|p| p.waiting.clone()).collect()
}

fn count(task: &SplitTask, stream: &str, add: impl Fn(&Progress) -> u64) {
    if let Some(progress) = task.progress.get(stream) {
        add(progress);
    }
}

async fn send_rejects(rejects: &mpsc::Sender<(String, Vec<RejectedRow>)>, stream: &str, rows: Vec<RejectedRow>) -> Result<()> {
    rejects.send((stream.to_owned(), rows)).await.map_err(|_| Error::new(Code::Cancelled, "the load was stopped"))
}

/// The batch in the planned schema: columns by name, absent ones NULL. A column that was not planned would be lost, so it is an error.
fn adapted(batch: &RecordBatch, planned: &SchemaRef, stream: &str) -> Result<RecordBatch> {
    let schema = batch.schema_ref();
    let same = |a: &Schema, b: &Schema| {
        a.fields().len() == b.fields().len()
            && a.fields().iter().zip(b.fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
    };
    if same(schema, planned) {
        return Ok(batch.clone());
    }
    if let Some(extra) = schema.fields().iter().find(|f| planned.field_with_name(f.name()).is_err()) {
        return Err(Error::new(Code::ContractBroken, "the source's schema changed while it was read")
            .detail(format!("column {} is new", extra.name()))
            .stream(stream)
            .hint("run again: the new column is then part of the plan"));
    }
    let columns: Result<Vec<_>> = planned
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => {
                let cast = crate::cast::exact(column, field.data_type())?;
                match cast.unfit {
                    None => Ok(cast.values),
                    Some(_) => Err(Error::new(Code::ContractBroken, "the source's schema changed while it was read")
                        .detail(format!("column {} is {} now, {} was planned", field.name(), column.data_type(), field.data_type()))
                        .stream(stream)
                        .hint("run again: the new type is then part of the plan")),
                }
            }
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect();
    Ok(RecordBatch::try_new(planned.clone(), columns?)?)
}

fn tokio_stream(receiver: mpsc::Receiver<Result<RecordBatch>>) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// Turns a stream's batches into staged ones, in order.
struct Conformer {
    stream: String,
    plan: Arc<StreamPlan>,
    stamp: Stamp,
    /// The next row's place in the load's order.
    position: i64,
    stages: Vec<mpsc::Sender<Result<RecordBatch>>>,
    rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
    progress: Arc<Progress>,
}

impl Conformer {
    async fn run(mut self, receiver: mpsc::Receiver<Result<RecordBatch>>) -> Result<()> {
        let mut rows = self.plan.steps.begin(receiver)?;
        let tables: Vec<&TableConform> = self.plan.conforms().collect();
        debug_assert_eq!(tables.len(), self.stages.len());
        while let Some(batch) = rows.next().await {
            let result = match batch {
                Ok(batch) => self.one(batch).await,
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                for stage in &self.stages {
                    // A stage that is gone has its own error.
                    let _ = stage.send(Err(Error::new(Code::Cancelled, "the load failed"))).await;
                }
                return Err(e.stream(&self.stream));
            }
        }
        Ok(())
    }

    async fn one(&mut self, batch: RecordBatch) -> Result<()> {
        let stepped = self.plan.steps.apply(batch)?;
        let rows = stepped.batch.num_rows();
        let Conformed { batches, rejected } = conform(&self.plan, stepped, &self.stamp, self.position)?;
        self.position += rows as i64;
        self.progress.rows_staged.fetch_add((rows - rejected.len()) as u64, Ordering::Relaxed);
        if !rejected.is_empty() {
            self.progress.rows_rejected.fetch_add(rejected.len() as u64, Ordering::Relaxed);
            send_rejects(&self.rejects, &self.stream, rejected).await?;
        }
        for (stage, batch) in self.stages.iter().zip(batches) {
            if batch.num_rows() > 0 {
                stage.send(Ok(batch)).await.map_err(|_| Error::new(Code::Cancelled, "the stage has ended"))?;
            }
        }
        Ok(())
    }
}
