//! Reading and staging one load: all its splits, side by side, within its budget.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trib_core::load::too_many_rejected;
use trib_core::{Code, Error, LoadId, Receipt, RejectedRow, Result, Split, SplitEnd, WriteMode};
use trib_engine::conform::Stamp;
use trib_engine::plan::SharedPlan;
use trib_engine::{Progress, SplitResult, SplitTask, run_split};

use crate::task::{Limits, Runtime, SyncTask};

/// How often the budget and the stall timeout are looked at.
const WATCH: Duration = Duration::from_millis(200);

/// What is needed to read one load of one stream.
pub struct Reading<'a> {
    pub runtime: &'a Runtime,
    pub task: &'a SyncTask,
    pub scope: &'a str,
    pub plan: SharedPlan,
    pub stamp: Stamp,
    pub progress: Arc<Progress>,
    /// Whether the budget may cut the read.
    pub may_stop: bool,
    pub lost: &'a CancellationToken,
}

/// All splits of a load have ended.
pub struct Staged {
    pub ends: Vec<SplitEnd>,
    pub receipts: Vec<Receipt>,
}

impl Reading<'_> {
    /// Reads every split and stages its rows. On an error nothing of the load may be published.
    pub async fn run(&self, splits: Vec<Split>) -> Result<Staged> {
        let (rejects, received) = mpsc::channel(16);
        let keep = Keep {
            runtime: self.runtime.clone(),
            sync: self.task.identity.clone(),
            scope: self.scope.to_owned(),
            load: self.stamp.load.clone(),
            most: self.task.limits.rejected,
            // The load before a prune has kept what it could not take.
            keep: self.plan.spec.write != WriteMode::Prune,
        };
        let most = keep.most;
        let keep = tokio::spawn(keep.run(received));
        let staged = self.splits(splits, rejects).await;
        let kept = keep.await.map_err(|_| Error::internal("keeping rejected rows has panicked"))?;
        let (staged, kept) = match (staged, kept) {
            // When rows can no longer be kept, reading is stopped, and only says so.
            (Err(stopped), Err(why)) if stopped.code() == Code::Cancelled => return Err(why),
            (staged, kept) => (staged?, kept?),
        };
        let by_destination: Vec<&RejectedRow> = staged.receipts.iter().flat_map(|r| &r.rejected).collect();
        match by_destination.last() {
            Some(last) if kept + by_destination.len() as u64 > most => Err(too_many_rejected(most, last)),
            _ => Ok(staged),
        }
    }

    async fn splits(&self, splits: Vec<Split>, rejects: mpsc::Sender<(String, Vec<RejectedRow>)>) -> Result<Staged> {
        let side_by_side = self.task.limits.splits.min(self.task.destination.capabilities().parallel_parts).max(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut waiting: VecDeque<(u32, Split)> = splits.into_iter().enumerate().map(|(i, s)| (i as u32, s)).collect();
        let mut running: JoinSet<Result<(u32, SplitResult)>> = JoinSet::new();
        let mut done: Vec<(u32, SplitResult)> = Vec::new();
        let mut watch = Watch::new(&self.progress, &self.task.limits);
        loop {
            while running.len() < side_by_side
                && let Some((ordinal, split)) = waiting.pop_front()
            {
                if stop.load(Ordering::Relaxed) {
                    // Not begun: all of it is left for the next load.
                    let end = SplitEnd::stopped(&split, split.clone(), serde_json::Value::Null);
                    done.push((ordinal, SplitResult { end, receipts: Vec::new() }));
                    continue;
                }
                let task = self.split_task(ordinal, split, stop.clone(), rejects.clone());
                running.spawn(async move { Ok((ordinal, run_split(task).await?)) });
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok(result) => done.push(result?),
                    Err(_) => return Err(Error::internal("reading a split has panicked")),
                },
                () = self.lost.cancelled() => return Err(cancelled(self.runtime)),
                () = tokio::time::sleep(WATCH) => {
                    if self.may_stop && watch.spent() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    watch.check_stall(running.len())?;
                }
            }
        }
        done.sort_by_key(|(ordinal, _)| *ordinal);
        let (ends, receipts): (Vec<_>, Vec<_>) = done.into_iter().map(|(_, r)| (r.end, r.receipts)).unzip();
        Ok(Staged { ends, receipts: receipts.into_iter().flatten().collect() })
    }

    fn split_task(
        &self,
        ordinal: u32,
        split: Split,
        stop: Arc<AtomicBool>,
        rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
    ) -> SplitTask {
        let stream = self.plan.spec.stream.clone();
        SplitTask {
            source: self.task.source.clone(),
            destination: self.task.destination.clone(),
            split,
            ordinal,
            attempt: 0,
            sync: self.task.identity.clone(),
            stamp: self.stamp.clone(),
            plans: HashMap::from([(stream.clone(), self.plan.clone())]),
            progress: HashMap::from([(stream, self.progress.clone())]),
            stop,
            rejects,
        }
    }
}

/// Why a run that was told to stop has stopped.
pub fn cancelled(runtime: &Runtime) -> Error {
    if runtime.cancel.is_cancelled() {
        Error::new(Code::Cancelled, "the run was stopped").hint("nothing of this load is visible; the next run goes on from the last one")
    } else {
        Error::new(Code::LeaseLost, "another run has taken this sync over")
    }
}

/// Writes rejected rows to the control store as they come. They count only when their load is committed.
struct Keep {
    runtime: Runtime,
    sync: String,
    scope: String,
    load: LoadId,
    /// With more of them than this the load fails: rows that are not kept would be lost.
    most: u64,
    /// Otherwise they are only counted.
    keep: bool,
}

impl Keep {
    /// Until all senders are gone. Returns how many there were.
    async fn run(self, mut received: mpsc::Receiver<(String, Vec<RejectedRow>)>) -> Result<u64> {
        const CHUNK: usize = 500;
        let mut rows = Vec::new();
        let mut count = 0;
        while let Some((_, more)) = received.recv().await {
            count += more.len() as u64;
            if let Some(last) = more.last().filter(|_| count > self.most) {
                return Err(too_many_rejected(self.most, last));
            }
            rows.extend(more);
            if rows.len() >= CHUNK {
                self.write(&rows).await?;
                rows.clear();
            }
        }
        self.write(&rows).await?;
        Ok(count)
    }

    async fn write(&self, rows: &[RejectedRow]) -> Result<()> {
        if rows.is_empty() || !self.keep {
            return Ok(());
        }
        self.runtime.store.reject(&self.runtime.run, &self.sync, &self.scope, &self.load, rows).await
    }
}

/// Watches a load's budget and its signs of life.
struct Watch<'a> {
    progress: &'a Progress,
    limits: &'a Limits,
    began: Instant,
    rows_before: u64,
    bytes_before: u64,
    last_seen: (u64, u64, u64),
    last_sign: Instant,
}

impl<'a> Watch<'a> {
    fn new(progress: &'a Progress, limits: &'a Limits) -> Self {
        let now = Instant::now();
        Self {
            progress,
            limits,
            began: now,
            rows_before: progress.rows_read.load(Ordering::Relaxed),
            bytes_before: progress.bytes_read.load(Ordering::Relaxed),
            last_seen: (0, 0, 0),
            last_sign: now,
        }
    }

    fn spent(&self) -> bool {
        let budget = self.limits.budget;
        self.progress.rows_read.load(Ordering::Relaxed) - self.rows_before >= budget.rows
            || self.progress.bytes_read.load(Ordering::Relaxed) - self.bytes_before >= budget.bytes
            || self.began.elapsed() >= budget.time
    }

    fn check_stall(&mut self, running: usize) -> Result<()> {
        let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let seen = (load(&self.progress.rows_read), load(&self.progress.rows_staged), load(&self.progress.rows_rejected));
        // Splits that all wait for a connection which others have are not stuck.
        let waits = running > 0 && self.progress.waiting.load(Ordering::Relaxed) >= running;
        if seen != self.last_seen || waits {
            self.last_seen = seen;
            self.last_sign = Instant::now();
        }
        if self.last_sign.elapsed() < self.limits.stall_timeout {
            return Ok(());
        }
        Err(Error::new(Code::Stalled, "no row has moved for longer than `stall_timeout`")
            .detail(format!("{} s without a sign of life after {} rows", self.limits.stall_timeout.as_secs(), seen.0))
            .hint("a lock at the source or the destination may hold it; raise `stall_timeout` if the query needs longer to begin"))
    }
}
