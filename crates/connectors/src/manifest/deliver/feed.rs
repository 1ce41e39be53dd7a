//! What a delivery has to do next: the rows of a load become calls and bulk jobs, no more of them at a time than are worked on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use trib_core::delivery::{Changes, Fate, Operation};
use trib_core::{Error, Result, TableLoad};
use trib_kit::spool;

use super::delivery::Delivery;
use super::job::Job;
use super::log::{Known, Started};
use super::object::ApiOperation;
use super::record::{Record, of_batch};
use super::resolve::Resolved;

/// Calls that may wait to be sent again without keeping others from going out.
pub(in super::super) const WAITING: usize = 16;
/// Bulk jobs at the same time: while the API works on one, the next is given its data.
const JOBS: usize = 2;

pub(super) enum Work {
    /// Records that need no call.
    Done(Changes),
    Call(Operation, Vec<Record>),
    Job(Operation, Vec<Record>),
    /// A job that a run before this one has left.
    Resumed(Started, Vec<Record>),
}

/// Held while something is worked on.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

pub(super) struct Feed<'a> {
    delivery: &'a Delivery<'a>,
    batches: mpsc::Receiver<Result<Vec<Record>>>,
    jobs: Gathered,
    calls_at_once: Arc<Semaphore>,
    jobs_at_once: Arc<Semaphore>,
    ready: VecDeque<Work>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(delivery: &'a Delivery<'a>, share: &TableLoad) -> Self {
        let jobs = Gathered::new(&delivery.known, share.receipts.iter().map(|r| r.rows).sum());
        let at_once = |most| Arc::new(Semaphore::new(most));
        let calls_at_once = at_once(delivery.side_by_side + WAITING);
        Self { delivery, batches: read(share), jobs, calls_at_once, jobs_at_once: at_once(JOBS), ready: VecDeque::new() }
    }

    /// `None`: nothing is left, or the delivery has stopped.
    pub(super) async fn next(&mut self) -> Option<Result<(Work, Turn)>> {
        loop {
            if self.delivery.stopped.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(work) = self.ready.pop_front() {
                return Some(self.turn(&work).await.map(|turn| (work, turn)));
            }
            match self.batches.recv().await {
                Some(records) => match self.take_up(records).await {
                    Ok(()) => {}
                    Err(e) => return Some(Err(e)),
                },
                None => {
                    self.ready.extend(self.jobs.rest());
                    if self.ready.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    async fn turn(&self, work: &Work) -> Result<Turn> {
        let turns = match work {
            Work::Done(_) => return Ok(None),
            Work::Call(..) => &self.calls_at_once,
            Work::Job(..) | Work::Resumed(..) => &self.jobs_at_once,
        };
        let turn = turns.clone().acquire_owned().await;
        turn.map(Some).map_err(|_| Error::internal("the turns of a delivery have ended"))
    }

    /// Looks up what has to be known about records and makes calls of them, or gathers them for a job.
    async fn take_up(&mut self, records: Result<Vec<Record>>) -> Result<()> {
        let delivery = self.delivery;
        let mut delivered = Changes::default();
        let mut open = Vec::new();
        for record in records? {
            match delivery.known.fates.get(&record.row) {
                Some(Fate::Delivered(_)) => delivered.count(&record.change, 1),
                Some(_) => {}
                None => open.extend(self.jobs.unless_resumed(record)),
            }
        }
        delivery.still_ours().await?;
        let Resolved { send, settled } = delivery.resolver().resolve(open).await?;
        self.ready.push_back(Work::Done(delivered.plus(delivery.settle(settled).await?)));
        let mut calls: BTreeMap<Operation, Vec<Record>> = BTreeMap::new();
        for record in send {
            match &delivery.object.operation(record.operation)?.job {
                Some(job) if self.jobs.rows >= job.from => {
                    let full = self.jobs.add(record, job);
                    self.ready.extend(full.map(|records| Work::Job(records[0].operation, records)));
                }
                _ => calls.entry(record.operation).or_default().push(record),
            }
        }
        for (kind, records) in calls {
            let operation = delivery.object.operation(kind)?;
            self.ready.extend(chunks(records, operation).into_iter().map(|records| Work::Call(kind, records)));
        }
        Ok(())
    }
}

/// Records on their way into bulk jobs.
struct Gathered {
    /// Of the whole load.
    rows: u64,
    waiting: BTreeMap<Operation, (Vec<Record>, usize)>,
    /// Jobs that a run before this one has left, with the records that are theirs.
    resumed: Vec<(Started, Vec<Record>)>,
    job_of: HashMap<u64, usize>,
}

impl Gathered {
    fn new(known: &Known, rows: u64) -> Self {
        let left = known.jobs.iter().filter(|job| job.rows.iter().any(|row| !known.fates.contains_key(row)));
        let resumed: Vec<(Started, Vec<Record>)> = left.map(|job| (job.clone(), Vec::new())).collect();
        let job_of = resumed.iter().enumerate().flat_map(|(i, (job, _))| job.rows.iter().map(move |row| (*row, i))).collect();
        Self { rows, waiting: BTreeMap::new(), resumed, job_of }
    }

    /// The record, unless it is in a job already.
    fn unless_resumed(&mut self, record: Record) -> Option<Record> {
        match self.job_of.get(&record.row) {
            Some(job) => {
                self.resumed[*job].1.push(record);
                None
            }
            None => Some(record),
        }
    }

    /// The records of a job that is full with this one.
    fn add(&mut self, record: Record, job: &Job) -> Option<Vec<Record>> {
        let (records, bytes) = self.waiting.entry(record.operation).or_default();
        *bytes += record.size();
        records.push(record);
        let is_full = records.len() >= job.records || *bytes >= job.bytes;
        is_full.then(|| {
            *bytes = 0;
            std::mem::take(records)
        })
    }

    /// What is left at the end.
    fn rest(&mut self) -> Vec<Work> {
        let resumed = std::mem::take(&mut self.resumed).into_iter().map(|(started, records)| Work::Resumed(started, records));
        let waiting = std::mem::take(&mut self.waiting).into_iter().filter(|(_, (records, _))| !records.is_empty());
        resumed.chain(waiting.map(|(operation, (records, _))| Work::Job(operation, records))).collect()
    }
}

/// Records in their order, a staged batch at a time.
fn read(share: &TableLoad) -> mpsc::Receiver<Result<Vec<Record>>> {
    let (sender, receiver) = mpsc::channel(1);
    let batches = spool::batches(share);
    tokio::task::spawn_blocking(move || {
        let mut first = 0;
        for batch in batches {
            let records = batch.and_then(|batch| {
                let records = of_batch(&batch, first)?;
                first += batch.num_rows() as u64;
                Ok(records)
            });
            let failed = records.is_err();
            if sender.blocking_send(records).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// As many records a call as the API takes.
fn chunks(records: Vec<Record>, operation: &ApiOperation) -> Vec<Vec<Record>> {
    let (most, most_bytes) = (operation.most_records(), operation.most_bytes());
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for record in records {
        let size = record.size();
        if !chunk.is_empty() && (chunk.len() >= most || bytes + size > most_bytes) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(record);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}
