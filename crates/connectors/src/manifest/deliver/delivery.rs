//! Sending a load: call by call, side by side within the connector's limits, each call written down before and after.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use trib_core::delivery::{Changes, Fate, Operation};
use trib_core::{Error, Lease, Result, TableLoad};
use trib_kit::journal::Journal;
use trib_kit::spool;

use super::super::env::Env;
use super::super::requester::Reply;
use super::call::Outgoing;
use super::job::{About, Job};
use super::log::{Known, Log, Started};
use super::look_up::{LookUp, Match};
use super::object::{ApiObject, ApiOperation};
use super::record::{Names, Record, of_batch};
use super::resolve::{Parents, Resolved, Resolver};

/// A call that nobody answers is repeated so often, where a look-up has shown that it did nothing.
const MOST_LOST: u32 = 2;

pub(super) struct Delivery<'a> {
    pub(super) env: &'a Arc<Env>,
    pub(super) object: &'a ApiObject,
    pub(super) objects: &'a BTreeMap<String, ApiObject>,
    pub(super) parents: &'a Parents,
    pub(super) journal: &'a Journal,
    pub(super) lease: &'a Lease,
    pub(super) load: &'a str,
    pub(super) names: Names,
    pub(super) log: Log,
    pub(super) known: Known,
    /// Calls on their way at the same time.
    pub(super) side_by_side: usize,
    /// A call has failed for a reason that is not its records'.
    pub(super) stopped: AtomicBool,
}

impl Delivery<'_> {
    /// Sends all rows that have no fate yet. Returns what was delivered, now or before.
    pub(super) async fn run(&self, share: &TableLoad) -> Result<Changes> {
        let mut batches = read(share);
        let mut jobs = Gathered::new(&self.known, share.receipts.iter().map(|r| r.rows).sum());
        let mut delivered = Changes::default();
        while let Some(records) = batches.recv().await {
            delivered = delivered.plus(self.records(records?, &mut jobs).await?);
        }
        while let Some((operation, records)) = jobs.next() {
            delivered = delivered.plus(self.job(operation, records).await?);
        }
        for (started, records) in jobs.resumed {
            delivered = delivered.plus(self.finish(&started, records, false).await?);
        }
        self.log.close()?;
        Ok(delivered)
    }

    async fn records(&self, records: Vec<Record>, jobs: &mut Gathered) -> Result<Changes> {
        let mut delivered = Changes::default();
        let mut open = Vec::new();
        for record in records {
            match self.known.fates.get(&record.row) {
                Some(Fate::Delivered(_)) => delivered.count(&record.change, 1),
                Some(_) => {}
                None => open.extend(jobs.unless_resumed(record)),
            }
        }
        self.still_ours().await?;
        let Resolved { send, settled } = self.resolver().resolve(open).await?;
        delivered = delivered.plus(self.settle(settled).await?);
        let mut waiting: BTreeMap<Operation, Vec<Record>> = BTreeMap::new();
        for record in send {
            match &self.object.operation(record.operation)?.job {
                Some(job) if jobs.rows >= job.from => {
                    if let Some(full) = jobs.add(record, job) {
                        delivered = delivered.plus(self.job(full[0].operation, full).await?);
                    }
                }
                _ => waiting.entry(record.operation).or_default().push(record),
            }
        }
        for (operation, records) in waiting {
            let operation = self.object.operation(operation)?;
            let calls = futures::stream::iter(chunks(records, operation)).map(|records| self.call(operation, records));
            let mut done = calls.buffer_unordered(self.side_by_side);
            let mut failed = None;
            while let Some(call) = done.next().await {
                match call {
                    Ok(more) => delivered = delivered.plus(more),
                    // Calls that are under way are waited for, so that their records' fates are known; no other begins.
                    Err(e) => {
                        self.stopped.store(true, Ordering::Relaxed);
                        failed.get_or_insert(e);
                    }
                }
            }
            if let Some(e) = failed {
                return Err(e);
            }
        }
        Ok(delivered)
    }

    /// One bulk job.
    async fn job(&self, kind: Operation, records: Vec<Record>) -> Result<Changes> {
        let operation = self.object.operation(kind)?;
        let Some(job) = &operation.job else { return Err(Error::internal("records were gathered for an operation without jobs")) };
        self.still_ours().await?;
        let about = About { env: self.env, names: &self.names, operation };
        let created = match job.start(&about, &records).await? {
            Ok(created) => created,
            // Nothing is done before a job is closed.
            Err(why) => return self.settle(records.into_iter().map(|r| (r, Fate::Rejected(why.clone()))).collect()).await,
        };
        self.still_ours().await?;
        let started = Started { rows: records.iter().map(|r| r.row).collect(), operation: kind, created };
        self.log.started(started.clone()).await?;
        self.finish(&started, records, true).await
    }

    /// What follows when a job has its data.
    async fn finish(&self, started: &Started, records: Vec<Record>, is_open: bool) -> Result<Changes> {
        let operation = self.object.operation(started.operation)?;
        let Some(job) = &operation.job else { return Err(Error::internal("the manifest knows a job no longer that was begun")) };
        let about = About { env: self.env, names: &self.names, operation };
        let fates = job.finish(&about, &started.created, &records, is_open).await?;
        self.settle(records.into_iter().zip(fates).collect()).await
    }

    /// One call. Where the API refuses several records together they are sent in halves, until the one that it refuses stands alone.
    async fn call(&self, operation: &ApiOperation, records: Vec<Record>) -> Result<Changes> {
        let mut delivered = Changes::default();
        let mut waiting = vec![(records, 0)];
        while let Some((mut records, lost)) = waiting.pop() {
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            self.still_ours().await?;
            self.log.sent(records.iter().map(|r| r.row).collect(), !operation.idempotent).await?;
            let reply = Outgoing { env: self.env, operation, records: &records, names: &self.names, load: self.load }.send().await?;
            let fates = match reply {
                Reply::Taken(response) => {
                    let seen: Vec<Value> = records.iter().map(Record::value).collect();
                    operation.answers.fates(self.env, &response, &seen, operation.idempotent)?
                }
                Reply::Refused(why) if records.len() == 1 => vec![Fate::Rejected(why)],
                Reply::Refused(..) => {
                    let second = records.split_off(records.len() / 2);
                    waiting.extend([(second, lost), (records, lost)]);
                    continue;
                }
                Reply::Lost(error) => {
                    let inserts = records.iter().all(|r| r.operation == Operation::Insert);
                    if let Some(look_up) = self.object.look_up.as_ref().filter(|_| inserts) {
                        let (found, missing) = self.look_again(look_up, records).await?;
                        delivered = delivered.plus(self.settle(found).await?);
                        if lost < MOST_LOST && !look_up.lags && !missing.is_empty() {
                            waiting.push((missing, lost + 1));
                            continue;
                        }
                        records = missing;
                    }
                    vec![Fate::Unknown(error.to_string()); records.len()]
                }
            };
            delivered = delivered.plus(self.settle(records.into_iter().zip(fates).collect()).await?);
        }
        Ok(delivered)
    }

    /// Writes fates down. Gives what was delivered.
    async fn settle(&self, settled: Vec<(Record, Fate)>) -> Result<Changes> {
        let mut delivered = Changes::default();
        let mut fates = Vec::with_capacity(settled.len());
        for (record, fate) in settled {
            fates.push(match fate {
                Fate::Delivered(id) => {
                    delivered.count(&record.change, 1);
                    (record.row, Fate::Delivered(id.or(record.id)))
                }
                other => (record.row, other),
            });
        }
        if !fates.is_empty() {
            self.log.answered(fates).await?;
        }
        Ok(delivered)
    }

    /// After a call that nobody answered: which of its records the API has all the same, and which it does not.
    async fn look_again(&self, look_up: &LookUp, records: Vec<Record>) -> Result<(Vec<(Record, Fate)>, Vec<Record>)> {
        let values: Vec<Value> = records.iter().map(Record::value).collect();
        let matches = look_up.ask(self.env, &self.names, &values, &[]).await?;
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (record, one) in records.into_iter().zip(matches) {
            match one {
                Match::One(there) => found.push((record, Fate::Delivered(Some(there.id)))),
                Match::Several(_) => found.push((record, Fate::Delivered(None))),
                Match::None => missing.push(record),
            }
        }
        Ok((found, missing))
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            env: self.env,
            object: self.object,
            objects: self.objects,
            names: &self.names,
            known: &self.known,
            parents: self.parents,
        }
    }

    /// A rival that took the sync over sends from then on.
    async fn still_ours(&self) -> Result<()> {
        self.journal.held(self.lease).await
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
    fn next(&mut self) -> Option<(Operation, Vec<Record>)> {
        self.waiting.retain(|_, (records, _)| !records.is_empty());
        self.waiting.pop_first().map(|(operation, (records, _))| (operation, records))
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

/// An error of a delivery, so that nobody thinks that nothing was sent.
pub(super) fn unfinished(error: Error) -> Error {
    error.hint("what was delivered is written down; the next run goes on from there")
}
