//! What a run is asked to do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use trib_core::load::{Deletes, MOST_REJECTED};
use trib_core::{Catalog, Code, Destination, Error, Load, Read, Result, Source, StreamRead, TableName, WriteMode};
use trib_engine::{Engine, StreamPlan, StreamSpec};
use trib_store::Store;

use crate::event::Observer;
use crate::scope::TOGETHER;

/// What all syncs of a run share.
#[derive(Clone)]
pub struct Runtime {
    pub engine: Engine,
    pub store: Arc<Store>,
    pub observer: Arc<dyn Observer>,
    /// Stops everything at the next safe place.
    pub cancel: CancellationToken,
    /// The run that loads are recorded under.
    pub run: String,
    /// Who holds the leases, for people: host, process, user.
    pub holder: String,
}

/// Streams of one connection going into another.
#[derive(Clone)]
pub struct SyncTask {
    /// As the user calls it.
    pub sync: String,
    /// What state and markers are kept under: project, environment, sync, and the source where a sync has several.
    pub identity: String,
    pub source: Arc<dyn Source>,
    pub destination: Arc<dyn Destination>,
    pub streams: Vec<StreamTask>,
    /// For sources whose streams come together and may change while they are read.
    pub renew: Option<Renew>,
    pub limits: Limits,
}

/// Makes the streams' tasks anew from what the source offers now.
pub type Renew = Arc<dyn Fn(&Catalog) -> Result<Vec<StreamTask>> + Send + Sync>;

impl SyncTask {
    /// The root tables of all streams.
    pub fn tables(&self) -> Vec<TableName> {
        self.streams.iter().map(|s| s.spec.table.clone()).collect()
    }

    /// What state and markers are kept under: each stream, or all of them as one.
    pub fn scopes(&self) -> Vec<String> {
        if self.source.streams_together() {
            return vec![TOGETHER.to_owned()];
        }
        self.streams.iter().map(|s| s.spec.stream.clone()).collect()
    }
}

/// One stream of a sync.
#[derive(Clone)]
pub struct StreamTask {
    pub spec: StreamSpec,
    pub read: Read,
    /// A condition that the source evaluates itself. Where it cannot, the condition stands in the transform.
    pub pushed_filter: Option<String>,
    pub split_by: Option<String>,
    /// Deletes are found by comparing keys.
    pub compare: Option<Compare>,
    /// The source may be empty although the table is not.
    pub allow_empty: bool,
    pub refresh: Refresh,
    /// Rows to expect, for progress.
    pub rows: Option<u64>,
    /// Rejected rows that are delivered by its one load.
    pub retries: Vec<u64>,
    /// Looks at each load before it becomes visible.
    pub audit: Option<Arc<dyn Audit>>,
    /// Of a model or a seed: the definition that its rows come from, as a fingerprint.
    pub made_from: Option<String>,
}

/// Whoever may keep a load from becoming visible.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Called when all parts of a load are staged. An error drops the load: nothing of it becomes visible, and state stays.
    async fn audit(&self, load: &Load) -> Result<()>;
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// At the stored state.
    No,
    /// At the very beginning; the table is replaced when all was read.
    Full,
}

/// `deletes: {detect: compare}`.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub every: Option<Duration>,
    pub apply: Deletes,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams that are read at the same time.
    pub streams: usize,
    /// Splits of a stream that are read at the same time.
    pub splits: usize,
    pub stall_timeout: Duration,
    /// How often a load is tried, the first time included.
    pub attempts: u32,
    /// Doubles with each further attempt.
    pub backoff: Duration,
    /// Rows that one load may reject.
    pub rejected: u64,
    pub budget: Budget,
}

/// How much one load may hold where the read can be cut.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub rows: u64,
    pub bytes: u64,
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 4,
            splits: 2,
            stall_timeout: Duration::from_secs(15 * 60),
            attempts: 3,
            backoff: Duration::from_secs(30),
            rejected: MOST_REJECTED,
            budget: Budget { rows: 10_000_000, bytes: 4 << 30, time: Duration::from_secs(15 * 60) },
        }
    }
}

impl StreamTask {
    /// The whole stream, with nothing asked beyond its spec.
    pub fn whole(spec: StreamSpec) -> Self {
        Self {
            spec,
            read: Read::Full,
            pushed_filter: None,
            split_by: None,
            compare: None,
            allow_empty: false,
            refresh: Refresh::No,
            rows: None,
            retries: Vec::new(),
            audit: None,
            made_from: None,
        }
    }

    /// Refuses to find deletes by keys where what they delete has rows in child tables, which would stay.
    pub fn check_compare(&self, plan: &StreamPlan) -> Result<()> {
        let deletes = self.compare.is_some_and(|c| c.apply == Deletes::Hard);
        match plan.tables.get(1).filter(|_| deletes && self.spec.write != WriteMode::Prune) {
            None => Ok(()),
            Some(child) => {
                Err(Error::new(Code::Unsupported, "deletes that are found by comparing keys would leave rows of child tables behind")
                    .detail(child.table().name.to_string())
                    .stream(&self.spec.stream)
                    .hint("use `write: mirror`, `deletes: {apply: soft}`, or keep nested columns as `nested: json`"))
            }
        }
    }

    /// Each load replaces a part of the table, and State says which parts were dealt with.
    pub fn in_parts(&self) -> bool {
        let part = self.spec.scope.as_ref().is_some_and(|scope| scope.value().is_none());
        part && matches!(self.read, Read::Incremental(_))
    }

    /// What the source is asked for.
    pub fn stream_read(&self, splits: usize) -> StreamRead {
        // Of a range nothing is kept to be read later.
        let whole = self.spec.write.needs_complete_read() || self.refresh == Refresh::Full || !self.read.moves_state();
        // A query over the stream may need all of it in one place.
        let one_piece = self.spec.transform.sql.is_some();
        StreamRead {
            stream: self.spec.stream.clone(),
            columns: Some(self.spec.schema.fields().iter().map(|f| f.name().clone()).collect()),
            filter: self.pushed_filter.clone(),
            key: self.spec.key.clone(),
            read: self.read.clone(),
            split_by: self.split_by.clone(),
            parallelism: if one_piece { 1 } else { splits.max(1) },
            may_stop: !whole && !one_piece,
            exactly_once: !self.spec.write.absorbs_repeats(),
        }
    }
}

/// A new identifier for a run or a load: fourteen lower-case letters and digits that sort by time.
pub fn new_id() -> String {
    let mut time = Utc::now().timestamp_millis().max(0) as u64;
    let mut random = rand::rng().random_range(0..36u64.pow(5));
    let mut id = [b'0'; 14];
    for (range, number) in [(0..9, &mut time), (9..14, &mut random)] {
        for place in range.rev() {
            id[place] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(*number % 36) as usize];
            *number /= 36;
        }
    }
    id.iter().map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_sort_by_time() {
        let first = new_id();
        std::thread::sleep(Duration::from_millis(2));
        let second = new_id();
        assert!(first < second, "{first} {second}");
        assert_eq!(first.len(), 14);
    }
}
