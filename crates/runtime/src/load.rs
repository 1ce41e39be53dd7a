//! Reading and staging one load: its splits, side by side where nothing looks at a stream as a whole, within its budget.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trib_core::load::too_many_rejected;
use trib_core::{Code, Error, Level, LoadId, Receipt, RejectedRow, Result, Split, SplitEnd};
use trib_engine::conform::Stamp;
use trib_engine::{Progress, Shelf, SplitResult, SplitTask, StreamPlan, run_splits};

use crate::event::Event;
use crate::task::{Limits, Runtime, SyncTask};

/// How often the budget and the stall timeout are looked at.
const WATCH: Duration = Duration::from_millis(200);

/// What is needed to read one load.
pub struct Reading<'a> {
    pub runtime: &'a Runtime,
    pub task: &'a SyncTask,
    pub plans: Arc<Shelf>,
    pub stamp: Stamp,
    /// By stream.
    pub progress: HashMap<String, Arc<Progress>>,
    /// Rejected rows are kept. The load before a prune has kept what it could not take, and parts of rows could not be tried again.
    pub keep: bool,
    /// Whether the budget may cut the read.
    pub may_stop: bool,
    pub lost: &'a CancellationToken,
}

/// All splits of a load have ended.
pub struct Staged {
    pub ends: Vec<SplitEnd>,
    pub receipts: Vec<Receipt>,
    /// Rows that never came to a stage.
    pub rejected: u64,
    /// Of them the first of each stream.
    first: HashMap<String, RejectedRow>,
}

impl Staged {
    /// The first row of a stream that was not taken, be it by the source or by its destination.
    pub fn first_rejected(&self, stream: &str, plan: &StreamPlan) -> Option<&RejectedRow> {
        let of_stream = |r: &&Receipt| plan.tables.iter().any(|t| t.table().name == r.table);
        self.first.get(stream).or_else(|| self.receipts.iter().filter(of_stream).find_map(|r| r.rejected.first()))
    }
}

impl Reading<'_> {
    /// Reads every split and stages its rows. On an error nothing of the load may be published.
    pub async fn run(&self, splits: Vec<Split>) -> Result<Staged> {
        let (rejects, received) = mpsc::channel(16);
        let keep = Keep {
            runtime: self.runtime.clone(),
            sync: self.task.identity.clone(),
            load: self.stamp.load.clone(),
            most: self.task.limits.rejected,
            keep: self.keep,
        };
        let most = keep.most;
        let keep = tokio::spawn(keep.run(received));
        let staged = self.splits(splits, rejects).await;
        let kept = keep.await.map_err(|_| Error::internal("keeping rejected rows has panicked"))?;
        let ((ends, receipts), (rejected, first)) = match (staged, kept) {
            // When rows can no longer be kept, reading is stopped, and only says so.
            (Err(stopped), Err(why)) if stopped.code() == Code::Cancelled => return Err(why),
            (staged, kept) => (staged?, kept?),
        };
        let by_destination: Vec<&RejectedRow> = receipts.iter().flat_map(|r| &r.rejected).collect();
        match by_destination.last() {
            Some(last) if rejected + by_destination.len() as u64 > most => Err(too_many_rejected(most, last)),
            _ => Ok(Staged { ends, receipts, rejected, first }),
        }
    }

    /// Whatever the outcome, nothing is being staged any more when this returns: the destination may be told to remove what was.
    async fn splits(&self, splits: Vec<Split>, rejects: mpsc::Sender<(String, Vec<RejectedRow>)>) -> Result<(Vec<SplitEnd>, Vec<Receipt>)> {
        let halt = CancellationToken::new();
        let mut running = JoinSet::new();
        let result = self.side_by_side(splits, rejects, &halt, &mut running).await;
        halt.cancel();
        while running.join_next().await.is_some() {}
        result
    }

    async fn side_by_side(
        &self,
        splits: Vec<Split>,
        rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
        halt: &CancellationToken,
        running: &mut JoinSet<Result<(u32, SplitResult)>>,
    ) -> Result<(Vec<SplitEnd>, Vec<Receipt>)> {
        let side_by_side = self.task.limits.splits.min(self.task.destination.capabilities().parallel_parts).max(1);
        let stop = Arc::new(AtomicBool::new(false));
        let groups = if self.plans.in_one_piece() { vec![splits] } else { splits.into_iter().map(|s| vec![s]).collect() };
        let mut waiting: VecDeque<(u32, Vec<Split>)> = (0..).zip(groups.into_iter().filter(|g| !g.is_empty())).collect();
        let mut done: Vec<(u32, SplitResult)> = Vec::new();
        let mut watch = Watch::new(&self.progress, &self.task.limits);
        loop {
            while running.len() < side_by_side
                && let Some((ordinal, splits)) = waiting.pop_front()
            {
                if stop.load(Ordering::Relaxed) {
                    // Not begun: all of it is left for the next load.
                    let ends = splits.iter().map(|s| SplitEnd::stopped(s, s.clone(), serde_json::Value::Null)).collect();
                    done.push((ordinal, SplitResult { ends, receipts: Vec::new() }));
                    continue;
                }
                let task = self.split_task(ordinal, splits, stop.clone(), halt.clone(), rejects.clone());
                running.spawn(async move { Ok((ordinal, run_splits(task).await?)) });
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
        let (ends, receipts): (Vec<_>, Vec<_>) = done.into_iter().map(|(_, r)| (r.ends, r.receipts)).unzip();
        Ok((ends.into_iter().flatten().collect(), receipts.into_iter().flatten().collect()))
    }

    /// What the source says goes to whoever follows the run.
    fn log(&self) -> Arc<dyn Fn(Level, String) + Send + Sync> {
        let (observer, sync) = (self.runtime.observer.clone(), self.task.sync.clone());
        Arc::new(move |level, text| observer.event(&sync, None, &Event::Said { level, text }))
    }

    fn split_task(
        &self,
        ordinal: u32,
        splits: Vec<Split>,
        stop: Arc<AtomicBool>,
        halt: CancellationToken,
        rejects: mpsc::Sender<(String, Vec<RejectedRow>)>,
    ) -> SplitTask {
        SplitTask {
            source: self.task.source.clone(),
            destination: self.task.destination.clone(),
            splits,
            ordinal,
            attempt: 0,
            sync: self.task.identity.clone(),
            stamp: self.stamp.clone(),
            plans: self.plans.clone(),
            progress: self.progress.clone(),
            stop,
            halt,
            rejects,
            log: self.log(),
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
    load: LoadId,
    /// With more of them than this the load fails: rows that are not kept would be lost.
    most: u64,
    /// Otherwise they are only counted.
    keep: bool,
}

impl Keep {
    /// Until all senders are gone. Returns how many there were, and the first of each stream.
    async fn run(self, mut received: mpsc::Receiver<(String, Vec<RejectedRow>)>) -> Result<(u64, HashMap<String, RejectedRow>)> {
        const CHUNK: usize = 500;
        let mut waiting: HashMap<String, Vec<RejectedRow>> = HashMap::new();
        let (mut count, mut first) = (0, HashMap::new());
        while let Some((stream, more)) = received.recv().await {
            count += more.len() as u64;
            if let Some(last) = more.last().filter(|_| count > self.most) {
                return Err(too_many_rejected(self.most, last));
            }
            if let Some(row) = more.first().filter(|_| !first.contains_key(&stream)) {
                first.insert(stream.clone(), row.clone());
            }
            let rows = waiting.entry(stream.clone()).or_default();
            rows.extend(more);
            if rows.len() >= CHUNK {
                self.write(&stream, rows).await?;
                rows.clear();
            }
        }
        for (stream, rows) in &waiting {
            self.write(stream, rows).await?;
        }
        Ok((count, first))
    }

    async fn write(&self, stream: &str, rows: &[RejectedRow]) -> Result<()> {
        if rows.is_empty() || !self.keep {
            return Ok(());
        }
        self.runtime.store.reject(&self.runtime.run, &self.sync, stream, &self.load, rows).await
    }
}

/// Watches a load's budget and its signs of life.
struct Watch<'a> {
    progress: &'a HashMap<String, Arc<Progress>>,
    limits: &'a Limits,
    began: Instant,
    before: Moved,
    last_seen: Moved,
    last_sign: Instant,
}

impl<'a> Watch<'a> {
    fn new(progress: &'a HashMap<String, Arc<Progress>>, limits: &'a Limits) -> Self {
        let now = Instant::now();
        Self { progress, limits, began: now, before: Moved::of(progress), last_seen: Moved::default(), last_sign: now }
    }

    fn spent(&self) -> bool {
        let (budget, now) = (self.limits.budget, Moved::of(self.progress));
        now.read - self.before.read >= budget.rows || now.bytes - self.before.bytes >= budget.bytes || self.began.elapsed() >= budget.time
    }

    fn check_stall(&mut self, running: usize) -> Result<()> {
        let seen = Moved::of(self.progress);
        // Splits that all wait for a connection which others have are not stuck.
        let waits = running > 0 && self.progress.values().any(|p| p.waiting.load(Ordering::Relaxed) >= running);
        if seen != self.last_seen || waits {
            self.last_seen = seen;
            self.last_sign = Instant::now();
        }
        if self.last_sign.elapsed() < self.limits.stall_timeout {
            return Ok(());
        }
        Err(Error::new(Code::Stalled, "no row has moved for longer than `stall_timeout`")
            .detail(format!("{} s without a sign of life after {} rows", self.limits.stall_timeout.as_secs(), seen.read))
            .hint("a lock at the source or the destination may hold it; raise `stall_timeout` if the query needs longer to begin"))
    }
}

/// What all streams of a load have moved together.
#[derive(Clone, Copy, Default, PartialEq)]
struct Moved {
    read: u64,
    bytes: u64,
    staged: u64,
    rejected: u64,
}

impl Moved {
    fn of(progress: &HashMap<String, Arc<Progress>>) -> Self {
        let sum = |count: fn(&Progress) -> &AtomicU64| progress.values().map(|p| count(p).load(Ordering::Relaxed)).sum();
        Self {
            read: sum(|p| &p.rows_read),
            bytes: sum(|p| &p.bytes_read),
            staged: sum(|p| &p.rows_staged),
            rejected: sum(|p| &p.rows_rejected),
        }
    }
}
