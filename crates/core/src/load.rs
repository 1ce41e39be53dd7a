//! A load: one finite step whose rows become visible together or not at all.

use std::fmt;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::contract::SchemaChange;
use crate::error::{Code, Error};
use crate::mode::WriteMode;
use crate::name::{TableName, system};
use crate::state::State;

/// The right to commit for a sync. A later lease has a greater generation and outdates all earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Identity of the sync in its environment: what markers at the destination are kept under.
    pub sync: String,
    pub generation: u64,
    /// Who holds it, for people: host, process, run.
    pub holder: String,
}

/// Unique over all loads of all syncs; sorts by time. Safe in file names and identifiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadId(pub String);

impl fmt::Display for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a destination remembers of the last load of a stream, written in the same transaction as the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// The stream, or the group of streams that load together.
    pub scope: String,
    /// 1 for the first load of the scope, one more for each that follows.
    pub number: u64,
    pub load: LoadId,
    /// The lease under which it was committed.
    pub generation: u64,
    /// Where the load led to, so that a lost control database can be rebuilt.
    pub state: State,
    /// See [`Load::filled`]. Markers of before have none, which says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<TableName>,
    pub committed_at: DateTime<Utc>,
}

impl Marker {
    /// What stands at the destination once a load is committed under a lease, as of the load's own time.
    pub fn of(load: &Load, lease: &Lease) -> Self {
        Self {
            scope: load.scope.clone(),
            number: load.number,
            load: load.id.clone(),
            generation: lease.generation,
            state: load.state.clone(),
            filled: load.filled.clone(),
            committed_at: load.loaded_at,
        }
    }
}

/// A table as a load wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub name: TableName,
    /// The columns that readers will see, the system ones included, in order.
    pub schema: SchemaRef,
    /// Columns that identify a row; empty when rows have no identity.
    pub key: Vec<String>,
    pub write: WriteMode,
    /// What happens to rows that are gone at the source (mirror, prune, deletes in a change log).
    pub deletes: Deletes,
    /// Only these rows are replaced, mirrored or pruned: several sources share the table, or the load holds a part of it.
    pub scope: Option<RowScope>,
    /// Rows belong to rows of another table of the same load, and are replaced with them.
    pub parent: Option<Parent>,
    /// Columns to lay files out by, where the destination can.
    pub partition_by: Vec<String>,
    /// Staged rows also carry [`system::OP`].
    pub changes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// The row goes away.
    #[default]
    Hard,
    /// The row stays and [`system::DELETED_AT`] is set.
    Soft,
    /// Nothing happens.
    Ignore,
}

/// The rows of a table that a load is about. It leaves all others as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowScope {
    pub column: String,
    pub rows: Rows,
}

/// Which rows, by the column of their scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// The column is text, and has this value in every row of the load.
    With(String),
    /// `from ≤ column < until`, in text that reads as the column's type. With [`WriteMode::Replace`] only.
    Between { from: String, until: String },
    /// Those that have a value, NULL included, that a staged row has. With [`WriteMode::Replace`] only.
    Staged,
}

impl RowScope {
    /// The rows with one value of a text column: those of one source among several.
    pub fn with(column: impl Into<String>, value: impl Into<String>) -> Self {
        Self { column: column.into(), rows: Rows::With(value.into()) }
    }

    /// The one value that all its rows have, where that is what tells them apart.
    pub fn value(&self) -> Option<&str> {
        match &self.rows {
            Rows::With(value) => Some(value),
            Rows::Between { .. } | Rows::Staged => None,
        }
    }
}

/// A child table's tie to its parent. For each staged parent row, the child rows that the table has for it are
/// deleted and the staged ones are inserted. A staged child row carries the [`system::SEQ`] of its parent's row, so that of several
/// versions of a parent only the children of the one that wins are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub table: TableName,
    /// Pairs of (column here, column of the parent). A child of a child is tied to the topmost
    /// table, whose key every descendant carries.
    pub columns: Vec<(String, String)>,
}

impl Table {
    /// The schema of the batches that are staged: the table's columns, less those that only a commit can fill,
    /// then [`system::SEQ`] and [`system::OP`] where they are needed.
    pub fn staging_schema(&self) -> SchemaRef {
        let made_by_commit = [system::DELETED_AT, system::VALID_FROM, system::VALID_TO];
        let mut fields: Vec<_> = self.schema.fields().iter().filter(|f| !made_by_commit.contains(&f.name().as_str())).cloned().collect();
        if self.write.needs_sequence() {
            fields.push(Arc::new(Field::new(system::SEQ, DataType::Int64, false)));
        }
        if self.changes {
            fields.push(Arc::new(Field::new(system::OP, DataType::Utf8, false)));
        }
        Arc::new(Schema::new(fields))
    }

    /// The columns that hold the source's data: all but ours. History compares these.
    pub fn data_columns(&self) -> impl Iterator<Item = &Field> {
        self.schema.fields().iter().map(AsRef::as_ref).filter(|f| !f.name().starts_with(system::PREFIX))
    }

    /// The system columns that a table of this kind ends with.
    pub fn system_fields(write: WriteMode, deletes: Deletes) -> Vec<Field> {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let mut fields = vec![Field::new(system::LOAD_ID, DataType::Utf8, false), Field::new(system::LOADED_AT, utc(), false)];
        if write == WriteMode::History {
            fields.push(Field::new(system::VALID_FROM, utc(), false));
            fields.push(Field::new(system::VALID_TO, utc(), true));
        } else if deletes == Deletes::Soft {
            fields.push(Field::new(system::DELETED_AT, utc(), true));
        }
        fields
    }
}

/// One attempt to stage the rows of one split for one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    pub load: LoadId,
    pub sync: String,
    pub split: u32,
    pub attempt: u32,
}

/// Proof that a part is staged. Only parts whose receipt came back are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub part: Part,
    pub table: TableName,
    pub rows: u64,
    pub bytes: u64,
    pub durability: Durability,
    /// What the destination needs to find the part again: file names, a staging table.
    pub staged: serde_json::Value,
    /// Rows that the destination would not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedRow>,
}

/// Whether a staged part outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The part can be committed by a later run.
    Durable,
    /// The part lives in an open transaction, a temporary table, this process.
    Session,
}

/// One table's share of a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableLoad {
    pub table: Table,
    /// To be applied before the rows become visible, in order.
    pub changes: Vec<SchemaChange>,
    pub receipts: Vec<Receipt>,
}

/// Everything that a commit needs, so that it can be done again by another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    pub id: LoadId,
    /// Marker scope: the stream, or the group of streams that load together.
    pub scope: String,
    /// One more than the marker's.
    pub number: u64,
    /// Parents stand before their children.
    pub tables: Vec<TableLoad>,
    /// Where this load leads to: the state of the load's streams.
    pub state: State,
    /// Tables that rows of the scope have gone into, this load's among them: what the state takes for granted to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<TableName>,
    /// The definition that all rows of the table come from once this load is visible, as a fingerprint; `None` where some are of another, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<String>,
    /// The time that [`system::LOADED_AT`] and history's validity carry.
    pub loaded_at: DateTime<Utc>,
}

impl Load {
    pub fn rows(&self) -> u64 {
        self.tables.iter().flat_map(|t| &t.receipts).map(|r| r.rows).sum()
    }

    pub fn durability(&self) -> Durability {
        let session = self.tables.iter().flat_map(|t| &t.receipts).any(|r| r.durability == Durability::Session);
        if session { Durability::Session } else { Durability::Durable }
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub tables: Vec<TableOutcome>,
    /// The marker was there already: nothing was done again, and the counts are unknown.
    pub already_committed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    pub table: TableName,
    /// Rows that are new in the table. A history counts each new version.
    pub inserted: u64,
    /// Rows that were there and hold other values now. A history counts each version that a new one has followed.
    pub updated: u64,
    /// Rows that are gone, or marked so; in a history, versions that ended and were not followed.
    pub deleted: u64,
    /// Staged rows that the table has no row for, and that were to be none of their own ([`WriteMode::Update`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unmatched: u64,
    /// The table's version where it has one, or where its new files are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl TableOutcome {
    /// Of a table that nothing has happened to yet.
    pub fn new(table: TableName) -> Self {
        Self { table, inserted: 0, updated: 0, deleted: 0, unmatched: 0, version: None }
    }
}

/// A load that only changes rows finds no table.
pub fn table_gone(table: &TableName) -> Error {
    Error::new(Code::NotFound, "the table is gone").detail(table.to_string()).hint("run again: it is made anew")
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Rows that one load may reject, unless its sync says otherwise. A destination stops there in each part, since it holds them in memory.
pub const MOST_REJECTED: u64 = 100_000;

/// Rows beyond the limit would have to be lost or kept without bound, so the load fails.
pub fn too_many_rejected(most: u64, last: &RejectedRow) -> Error {
    Error::new(Code::DataInvalid, "more rows were rejected than one load may reject")
        .detail(format!("more than {most}, at last: {}: {}", last.place, last.reason))
        .hint("mend what they have in common, at the source or under `columns:`; `load: {rejected: …}` on the sync allows more, up to 100000 for the destination's")
}

/// A row that could not be delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// Where the row stands: `orders.csv:17`, `id=42`.
    pub place: String,
    pub reason: String,
    /// The row as an object of source columns, or its raw text when it could not be decoded.
    pub row: serde_json::Value,
}
