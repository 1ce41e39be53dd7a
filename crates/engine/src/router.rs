//! From what a source pushes to the stages of its streams.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use trib_core::{BatchStream, Code, Error, Lines, Message, Result, turn, wire};

use crate::conformer::{Batches, Conformer, send_rejects};
use crate::execute::{Done, IN_FLIGHT, Outcome, SplitTask, stopped};
use crate::plan::SharedPlan;
use crate::spill::Spill;

/// For how long stages may take to end of themselves when the load has failed. One that waits for a system which does not answer is cut off then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Brings each stream's batches to its stages.
pub(crate) struct Router<'a> {
    task: &'a SplitTask,
    /// Schemas that the source has announced, by stream: from there on its batches have only these columns.
    announced: HashMap<String, SchemaRef>,
    /// The stream whose stages are open: the first that had rows.
    live: HashMap<String, Batches>,
    /// The others, in the order in which they came. They are staged when the read has ended: a stage that waits for rows holds a connection for which another may
    /// wait, and a writer's memory, and a split can have hundreds of streams.
    waiting: Vec<(SharedPlan, Spill)>,
    /// The read, and what it feeds.
    pub tasks: JoinSet<Result<Done>>,
}

impl<'a> Router<'a> {
    pub fn new(task: &'a SplitTask) -> Self {
        Self { task, announced: HashMap::new(), live: HashMap::new(), waiting: Vec::new(), tasks: JoinSet::new() }
    }

    pub async fn route(&mut self, message: Message) -> Result<()> {
        let task = self.task;
        match message {
            Message::Reject { stream, row } => {
                task.count(&stream, |p| p.rows_rejected.fetch_add(1, Ordering::Relaxed));
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
            Message::Schema { stream, schema } => {
                if let Some(plan) = task.plans.plan(&stream).await? {
                    adapted(&RecordBatch::new_empty(schema.clone()), &plan.spec.schema, Some(&schema), &stream)?;
                    self.announced.insert(stream.to_string(), schema);
                }
                Ok(())
            }
            Message::Batch { stream, batch, lines } => self.batch(&stream, &batch, lines).await,
        }
    }

    async fn batch(&mut self, stream: &str, batch: &RecordBatch, lines: Option<Lines>) -> Result<()> {
        let task = self.task;
        let Some(plan) = task.plans.plan(stream).await? else {
            // A split over many streams also carries those that the sync leaves out.
            return Ok(());
        };
        task.count(stream, |p| {
            p.rows_read.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            p.bytes_read.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed)
        });
        let batch = match wire::rows(batch) {
            Some(_) => batch.clone(),
            None => adapted(batch, &plan.spec.schema, self.announced.get(stream), stream)?,
        };
        let batch = match lines.filter(|_| plan.steps.keeps_rows()) {
            Some(lines) => lines.mark(batch)?,
            None => batch,
        };
        if let Some((_, spill)) = self.waiting.iter_mut().find(|(waiting, _)| waiting.spec.stream == *stream) {
            return spill.write(&batch);
        }
        let sender = match self.live.get(stream) {
            Some(sender) => sender.clone(),
            None if self.live.is_empty() => self.start(plan),
            None => {
                let mut spill = Spill::new(task.plans.spill(), &plan.spec.schema)?;
                spill.write(&batch)?;
                self.waiting.push((plan, spill));
                return Ok(());
            }
        };
        // Nobody takes it when the stream's query has all it needs (a `limit`): the rest is read for the state alone. Nor when the stream has failed, which is
        // heard from its task.
        let _ = sender.send(Ok(batch)).await;
        Ok(())
    }

    /// Ends the open stages, then stages the streams that have waited, one by one. Stops at the first error.
    pub async fn finish(&mut self, outcome: &mut Outcome) {
        let begun: Vec<String> = self.live.keys().cloned().chain(self.waiting.iter().map(|(plan, _)| plan.spec.stream.clone())).collect();
        self.live.clear();
        self.join(outcome).await;
        for plan in self.task.plans.plans().await {
            let stream = &plan.spec.stream;
            let read = self.task.splits.iter().any(|split| split.streams.contains(stream));
            if outcome.error.is_none() && plan.stages_nothing_too() && read && !begun.contains(stream) {
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
            let halt = self.task.halt.clone();
            self.tasks.spawn_blocking(move || {
                let feed = || -> Result<()> {
                    for batch in spill.read()? {
                        if halt.is_cancelled() {
                            return Err(stopped());
                        }
                        if sender.blocking_send(Ok(batch?)).is_err() {
                            // The stage has failed, and says why itself.
                            break;
                        }
                    }
                    Ok(())
                };
                feed().inspect_err(|_| {
                    let _ = sender.blocking_send(Err(stopped()));
                })?;
                Ok(Done::Conformed)
            });
            self.join(outcome).await;
        }
    }

    async fn join(&mut self, outcome: &mut Outcome) {
        while outcome.error.is_none()
            && let Some(done) = self.tasks.join_next().await
        {
            outcome.take(done);
        }
    }

    /// Ends the stages that are open, as failed, and waits for them: the destination is about to remove what they have written.
    pub async fn give_up(mut self, outcome: &mut Outcome) {
        // None of them may take an early end for a complete part.
        for (_, sender) in self.live.drain() {
            self.tasks.spawn(async move {
                let _ = sender.send(Err(stopped())).await;
                Ok(Done::Conformed)
            });
        }
        let ended = async {
            while let Some(done) = self.tasks.join_next().await {
                outcome.take(done);
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }

    /// Starts a stream's conforming task and one stage per table.
    fn start(&mut self, plan: SharedPlan) -> Batches {
        let task = self.task;
        let stream = plan.spec.stream.clone();
        let mut stages = Vec::new();
        for conform in plan.conforms() {
            let (sender, receiver) = mpsc::channel::<Result<RecordBatch>>(IN_FLIGHT);
            let rows: BatchStream = Box::pin(stream_of(receiver));
            let (destination, part, table) = (task.destination.clone(), task.part(), conform.table.clone());
            let (name, waiting) = (stream.clone(), task.waiting());
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

/// The batch in the planned schema: columns by name. One that the source has announced to be without is NULL. A column that was not planned would be lost, and one that
/// is missing unannounced would be NULL where the source may have values: both are errors.
pub(crate) fn adapted(batch: &RecordBatch, planned: &SchemaRef, announced: Option<&SchemaRef>, stream: &str) -> Result<RecordBatch> {
    let schema = batch.schema_ref();
    let same = |a: &Schema, b: &Schema| {
        a.fields().len() == b.fields().len()
            && a.fields().iter().zip(b.fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
    };
    if same(schema, planned) {
        return Ok(batch.clone());
    }
    let changed =
        |detail: String| Error::new(Code::ContractBroken, "the source's schema changed while it was read").detail(detail).stream(stream);
    if let Some(extra) = schema.fields().iter().find(|f| planned.field_with_name(f.name()).is_err()) {
        return Err(changed(format!("column {} is new", extra.name())).hint("run again: the new column is then part of the plan"));
    }
    let columns: Result<Vec<_>> = planned
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => {
                let cast = crate::cast::exact(column, field.data_type())?;
                if cast.unfit.is_some() {
                    let detail = format!("column {} is {} now, {} was planned", field.name(), column.data_type(), field.data_type());
                    return Err(changed(detail).hint("run again: the new type is then part of the plan"));
                }
                Ok(cast.values)
            }
            None if announced.is_some_and(|schema| schema.field_with_name(field.name()).is_err()) => {
                Ok(new_null_array(field.data_type(), batch.num_rows()))
            }
            None => Err(changed(format!("column {} is gone", field.name())).hint("run again: the plan is then without the column")),
        })
        .collect();
    Ok(RecordBatch::try_new(planned.clone(), columns?)?)
}

fn stream_of(receiver: mpsc::Receiver<Result<RecordBatch>>) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}
