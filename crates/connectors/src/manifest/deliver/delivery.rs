//! Sending a load: call by call, side by side within the connector's limits, each call written down before and after.

use std::collections::BTreeMap;
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
use super::log::{Known, Log};
use super::object::{ApiObject, ApiOperation};
use super::record::{Names, Record, of_batch};

pub(super) struct Delivery<'a> {
    pub(super) env: &'a Arc<Env>,
    pub(super) object: &'a ApiObject,
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
        let mut delivered = Changes::default();
        while let Some(records) = batches.recv().await {
            delivered = delivered.plus(self.records(records?).await?);
        }
        self.log.close()?;
        Ok(delivered)
    }

    async fn records(&self, records: Vec<Record>) -> Result<Changes> {
        let mut delivered = Changes::default();
        let mut waiting: BTreeMap<Operation, Vec<Record>> = BTreeMap::new();
        let mut settled = Vec::new();
        for record in records {
            match self.known.fates.get(&record.row) {
                Some(Fate::Delivered(_)) => delivered.count(&record.change, 1),
                Some(_) => {}
                None if self.known.in_doubt.contains(&record.row) && !self.object.operation(record.operation)?.idempotent => {
                    settled.push((record.row, Fate::Unknown("it was sent, and the run ended before an answer came".to_owned())));
                }
                None if record.id.is_none() && self.object.operation(record.operation)?.needs_id => {
                    settled.push((record.row, Fate::Rejected("it is not known what the API calls the record".to_owned())));
                }
                None => waiting.entry(record.operation).or_default().push(record),
            }
        }
        if !settled.is_empty() {
            self.log.answered(settled).await?;
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

    /// One call. Where the API refuses several records together they are sent in halves, until the one that it refuses stands alone.
    async fn call(&self, operation: &ApiOperation, records: Vec<Record>) -> Result<Changes> {
        let mut delivered = Changes::default();
        let mut waiting = vec![records];
        while let Some(mut records) = waiting.pop() {
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
                    waiting.extend([second, records]);
                    continue;
                }
                Reply::Lost(error) => vec![Fate::Unknown(error.to_string()); records.len()],
            };
            for (record, fate) in records.iter().zip(&fates) {
                if matches!(fate, Fate::Delivered(_)) {
                    delivered.count(&record.change, 1);
                }
            }
            self.log.answered(records.iter().map(|r| r.row).zip(fates).collect()).await?;
        }
        Ok(delivered)
    }

    /// A rival that took the sync over sends from then on.
    async fn still_ours(&self) -> Result<()> {
        self.journal.held(self.lease).await
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
        let size: usize = record.fields.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum();
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
