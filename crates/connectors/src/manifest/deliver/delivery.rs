//! Sending a load: call by call, side by side within the connector's limits, each call written down before and after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use trib_core::delivery::{Changes, Fate, Operation};
use trib_core::{Error, Lease, Result, TableLoad};
use trib_kit::http::{Request, Response};
use trib_kit::journal::Journal;

use super::super::env::Env;
use super::super::requester::{Reply, Witness, stopped};
use super::call::Outgoing;
use super::exchanges::Exchanges;
use super::feed::{Feed, Turn, Work};
use super::job::About;
use super::log::{Known, Log, Started};
use super::look_up::{LookUp, Match};
use super::object::ApiObject;
use super::record::{Names, Record, place};
use super::resolve::{Parents, Resolver};

/// A call that nobody answers is repeated so often, where a look-up has shown that it did nothing.
const MOST_LOST: u32 = 2;
/// A shorter wait between two tries is nobody's concern.
const WORTH_TELLING: Duration = Duration::from_secs(4);

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
    /// Where requests and answers are kept, if somebody wants that.
    pub(super) exchanges: Option<Exchanges>,
    /// Calls on their way at the same time.
    pub(super) side_by_side: usize,
    /// As many.
    pub(super) turns: Semaphore,
    pub(super) attention: Arc<Attention>,
    /// No further call goes out: one has failed for a reason that is not its records', or somebody wants it so.
    pub(super) stopped: AtomicBool,
}

/// Between a delivery and who looks after it.
#[derive(Default)]
pub(super) struct Attention {
    pub(super) stop: CancellationToken,
    /// Why calls wait, until somebody has asked.
    pub(super) trouble: Mutex<Option<String>>,
}

impl Delivery<'_> {
    /// Sends all rows that have no fate yet. Returns what was delivered, now or before.
    pub(super) async fn run(&self, share: &TableLoad) -> Result<Changes> {
        let (give, mut take) = mpsc::channel(1);
        let mut feed = Feed::new(self, share);
        let feeding = async move {
            while let Some(work) = feed.next().await {
                if give.send(work).await.is_err() {
                    break;
                }
            }
        };
        let (mut delivered, mut failed) = (Changes::default(), None);
        let stop = &self.attention.stop;
        let working = async {
            let (mut under_way, mut more) = (FuturesUnordered::new(), true);
            while more || !under_way.is_empty() {
                tokio::select! {
                    () = stop.cancelled(), if failed.is_none() => {
                        self.stopped.store(true, Ordering::Relaxed);
                        failed = Some(stopped());
                    }
                    work = take.recv(), if more => match work {
                        Some(work) => under_way.push(self.done(work)),
                        None => more = false,
                    },
                    Some(one) = under_way.next(), if !under_way.is_empty() => match one {
                        Ok(changes) => delivered = delivered.plus(changes),
                        // Calls that are under way are waited for, so that their records' fates are known; no other begins.
                        Err(e) => {
                            self.stopped.store(true, Ordering::Relaxed);
                            failed.get_or_insert(e);
                        }
                    },
                }
            }
        };
        tokio::join!(feeding, working);
        if let Some(e) = failed {
            return Err(e);
        }
        self.log.close()?;
        Ok(delivered)
    }

    async fn done(&self, work: Result<(Work, Turn)>) -> Result<Changes> {
        let (work, _turn) = work?;
        match work {
            Work::Done(delivered) => Ok(delivered),
            _ if self.stopped.load(Ordering::Relaxed) => Ok(Changes::default()),
            Work::Call(operation, records) => self.call(operation, records).await,
            Work::Job(operation, records) => self.job(operation, records).await,
            Work::Resumed(started, records) => self.finish(&started, records, false).await,
        }
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

    /// What follows when a job has its data, unless the delivery is stopped: the next run asks after the same job.
    async fn finish(&self, started: &Started, records: Vec<Record>, is_open: bool) -> Result<Changes> {
        tokio::select! {
            done = self.to_its_end(started, records, is_open) => done,
            () = self.attention.stop.cancelled() => Err(stopped()),
        }
    }

    async fn to_its_end(&self, started: &Started, records: Vec<Record>, is_open: bool) -> Result<Changes> {
        let operation = self.object.operation(started.operation)?;
        let Some(job) = &operation.job else { return Err(Error::internal("the manifest knows a job no longer that was begun")) };
        let about = About { env: self.env, names: &self.names, operation };
        let fates = job.finish(&about, &started.created, &records, is_open).await?;
        self.settle(records.into_iter().zip(fates).collect()).await
    }

    /// One call. Where the API refuses several records together they are sent in halves, until the one that it refuses stands alone.
    async fn call(&self, kind: Operation, records: Vec<Record>) -> Result<Changes> {
        let operation = self.object.operation(kind)?;
        let mut delivered = Changes::default();
        let mut waiting = vec![(records, 0)];
        while let Some((mut records, lost)) = waiting.pop() {
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let outgoing = Outgoing { env: self.env, operation, records: &records, names: &self.names, load: self.load };
            let Some(reply) = self.sent(&outgoing).await? else { break };
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
                Reply::Undone(error) => {
                    self.log.undone(records.iter().map(|r| r.row).collect()).await?;
                    return Err(error);
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

    /// What the API says to a call; `None`: the delivery was stopped before it went out.
    async fn sent(&self, outgoing: &Outgoing<'_>) -> Result<Option<Reply>> {
        let departure = Departure { delivery: self, outgoing, left: AtomicBool::new(false), turn: Mutex::default() };
        let reply = outgoing.send(&departure).await;
        if self.stopped.load(Ordering::Relaxed) && !departure.left.load(Ordering::Relaxed) { Ok(None) } else { reply.map(Some) }
    }

    /// Writes fates down. Gives what was delivered.
    pub(super) async fn settle(&self, settled: Vec<(Record, Fate)>) -> Result<Changes> {
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

    pub(super) fn resolver(&self) -> Resolver<'_> {
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
    pub(super) async fn still_ours(&self) -> Result<()> {
        self.journal.held(self.lease).await
    }
}

/// A call that waits for its turn, its budget or another try, and then goes out: only then it counts as sent.
struct Departure<'a> {
    delivery: &'a Delivery<'a>,
    outgoing: &'a Outgoing<'a>,
    /// It went out once, and has to come to an end.
    left: AtomicBool,
    /// Held from the preparation of a try to its answer.
    turn: Mutex<Option<SemaphorePermit<'a>>>,
}

impl<'a> Departure<'a> {
    fn hold(&self, turn: Option<SemaphorePermit<'a>>) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }
}

#[async_trait]
impl Witness for Departure<'_> {
    async fn turn(&self) -> Result<()> {
        let turn = self.delivery.turns.acquire().await;
        self.hold(Some(turn.map_err(|_| Error::internal("the turns of calls have ended"))?));
        Ok(())
    }

    async fn leaving(&self) -> Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        if !left && self.delivery.stopped.load(Ordering::Relaxed) {
            return Err(Error::internal("a call was about to go out after its delivery had stopped"));
        }
        self.delivery.still_ours().await?;
        if !left {
            let rows = self.outgoing.records.iter().map(|r| r.row).collect();
            self.delivery.log.sent(rows, !self.outgoing.operation.idempotent).await?;
            self.left.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn waits(&self, wait: Duration, why: String) {
        if wait >= WORTH_TELLING {
            let told = format!("{why}; sent again in {}s", wait.as_secs());
            *self.delivery.attention.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
    }

    async fn stopped(&self) {
        self.delivery.attention.stop.cancelled().await;
    }

    async fn answered(&self, request: &Request, sent: &Result<Response>) -> Result<()> {
        self.hold(None);
        let Some(exchanges) = &self.delivery.exchanges else { return Ok(()) };
        let key: Vec<String> = serde_json::from_value(self.delivery.names.key.clone())?;
        let places = self.outgoing.records.iter().map(|r| place(&r.value(), &key)).collect();
        exchanges.keep(self.delivery.env, places, request, sent).await
    }
}

/// An error of a delivery, so that nobody thinks that nothing was sent.
pub(super) fn unfinished(error: Error) -> Error {
    error.hint("what was delivered is written down; the next run goes on from there")
}
