//! Where rows come from.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::catalog::Catalog;
use crate::emitter::Emitter;
use crate::error::Result;
use crate::load::RowScope;
use crate::state::State;

/// A system that rows can be read from.
///
/// A source lives for a whole run and is shared by all its reads, so it may hold a connection pool, a
/// snapshot or a replication connection open. Making one does no I/O; the first is [`Source::check`] or
/// [`Source::discover`].
#[async_trait]
pub trait Source: Send + Sync {
    /// Proves that the system answers and that permissions suffice to discover and read.
    ///
    /// What is missing is an error whose hint is the statement that grants it.
    async fn check(&self) -> Result<()>;

    /// The streams on offer. `only` names streams that suffice (never more than a hint: a source may
    /// return all); empty means all. A stream that cannot be described does not hide the others.
    async fn discover(&self, only: &[String]) -> Result<Catalog>;

    /// Whether all streams come out of one split (a change log, a Singer tap), and so share loads.
    ///
    /// Such a source may end a split early when a stream takes a shape that was not planned, or a new one appears. It is then asked to
    /// [`Source::discover`] again, and the rest is planned by what it says.
    fn streams_together(&self) -> bool {
        false
    }

    /// Whether somebody else remembers what was acknowledged, and sends again all that was not (a pipe, a message queue). Then the markers at the
    /// destination only number the loads: what the control database knows decides nothing, and may be missing.
    fn remembered_elsewhere(&self) -> bool {
        false
    }

    /// Cuts a read into splits that can be read side by side, in any order, on any machine.
    ///
    /// `reads` is one stream, or all of them when [`Source::streams_together`]. When `state` lists
    /// splits that are left from an unfinished read, those are returned and nothing else: whether what is asked for is still the same was looked at
    /// before, and a read that must be complete, a range and a read of keys come with an empty state. Bounds (the
    /// upper end of a cursor) are fixed here, so that splits agree on them. No splits means that there is
    /// nothing new. All splits of a run see one snapshot where the system has such a thing.
    ///
    /// A read that [`StreamRead::may_stop`] must be split by key, never by physical position, since the
    /// rest of it may be read in another snapshot.
    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>>;

    /// Reads one split, pushing rows into `out` in order.
    ///
    /// Called concurrently for different splits. Push batches of a few thousand rows or a few
    /// megabytes; `out` blocks while the destination is slower. After each batch a source that can
    /// stop there asks [`Emitter::should_stop`] and, if so, returns [`SplitEnd::stopped`] with the split
    /// that reads the rest. A row that cannot be decoded goes to [`Emitter::reject`] and does not end the read. An error ends it;
    /// nothing of this attempt will be published, and the same split may be read again.
    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd>;

    /// The query that gives the split's rows inside the destination itself, where source and destination are one system: the engine then has it
    /// staged there ([`crate::SqlEngine::stage_query`]) and does not call [`Source::read`]. The split ends with null facts.
    fn inside(&self, _split: &Split) -> Result<Option<String>> {
        Ok(None)
    }

    /// The state after these splits have ended: pure, and the only writer of this source's state.
    ///
    /// `ends` holds one entry for each split of the plan. Splits that stopped early are kept in the
    /// state to be planned next; the cursor moves to the bound fixed in [`Source::plan`] only when
    /// every split has finished. Not called for reads that move no state ([`Read::moves_state`]).
    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State>;

    /// Tells the system that `state` is safe at the destination (to confirm a log position, say).
    /// Called after each commit, and when a read has ended without rows; may be called again with the same state.
    async fn acknowledge(&self, _state: &State) -> Result<()> {
        Ok(())
    }
}

/// How one stream is to be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamRead {
    pub stream: String,
    /// Columns that are wanted, in this order; `None` means all.
    pub columns: Option<Vec<String>>,
    /// A condition in the source's own SQL. The engine applies it when the source says (by
    /// [`crate::Connector::pushes_filter`]) that it does not.
    pub filter: Option<String>,
    /// Identifies a row; orders ties of the cursor. Empty when there is none.
    pub key: Vec<String>,
    pub read: Read,
    /// A column to cut the read by, when the user names one.
    pub split_by: Option<String>,
    /// How many splits are worth making.
    pub parallelism: usize,
    /// The read may be cut at a checkpoint by the load's budget and go on in the next load.
    pub may_stop: bool,
    /// The destination does not absorb rows that it is given twice, so rows at the cursor's boundary
    /// that were loaded before must be left out.
    pub exactly_once: bool,
}

impl StreamRead {
    /// What is asked for, in a few letters. What is left of a read can stand for the rest of another only where both have one fingerprint.
    pub fn fingerprint(&self) -> String {
        let mode = match &self.read {
            // Where it begins is behind a read that was cut.
            Read::Incremental(cursor) => json!(["incremental", cursor.column, cursor.null_cursor, cursor.end]),
            other => json!(other),
        };
        let asked = json!([mode, self.columns, self.filter, self.key]);
        hex::encode(&Sha256::digest(asked.to_string())[..8])
    }
}

/// What a read covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Read {
    Full,
    Incremental(Cursor),
    Cdc,
    /// `since ≤ column < until`, whatever the state says. Never moves state.
    Range {
        column: String,
        since: Option<String>,
        until: Option<String>,
    },
    /// Every row, and of it the columns that are asked for, or else the key: to find out what is gone, or to fill columns of rows that are
    /// there. Never moves state.
    Keys,
}

impl Read {
    /// Whether what was read is not read again next time. A range, and the keys, are read whatever the state says.
    pub fn moves_state(&self) -> bool {
        matches!(self, Read::Full | Read::Incremental(_) | Read::Cdc)
    }
}

/// A cursor as the user declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    pub column: String,
    /// Read again what is up to this much older than the state: seconds for times, units for numbers.
    pub lookback: Option<u64>,
    #[serde(default)]
    pub null_cursor: NullCursor,
    /// The first run begins here (inclusive).
    pub start: Option<String>,
    /// Rows at or after this are never read.
    pub end: Option<String>,
}

/// What happens to rows whose cursor is NULL, which no comparison finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullCursor {
    /// Left out; `trib plan` says so.
    #[default]
    Exclude,
    /// Read in every run.
    Include,
    /// The run fails if there are any.
    Fail,
}

/// A piece of a read: plain JSON, readable on any machine by the same source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The streams whose rows come out.
    pub streams: Vec<String>,
    /// Whatever the source needs to read it.
    pub spec: Value,
    /// Rows to expect, for progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The rows that it gives are all that there are of this scope. Such a split is a load of its own, and replaces just these rows; the splits
    /// of one plan are then loaded in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<RowScope>,
}

impl Split {
    pub fn new(stream: impl Into<String>, spec: Value) -> Self {
        Self { streams: vec![stream.into()], spec, rows: None, covers: None }
    }
}

/// How a split ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitEnd {
    pub split: Split,
    /// What is left to read; `None` when the split was read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Split>,
    /// What [`Source::advance`] needs to know: the highest cursor seen, an LSN.
    #[serde(default)]
    pub facts: Value,
    /// Streams that were read to their end although the split has a rest: their tables may be replaced by what was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<String>,
}

impl SplitEnd {
    pub fn finished(split: &Split, facts: Value) -> Self {
        Self { split: split.clone(), rest: None, facts, whole: Vec::new() }
    }

    pub fn stopped(split: &Split, rest: Split, facts: Value) -> Self {
        Self { split: split.clone(), rest: Some(rest), facts, whole: Vec::new() }
    }
}
