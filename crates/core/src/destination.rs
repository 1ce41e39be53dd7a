//! Where rows go.

use std::time::Duration;

use arrow::datatypes::{Field, FieldRef, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::BatchStream;
use crate::delivery::Delivers;
use crate::error::{Code, Error, Result};
use crate::load::{Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Table, TableLoad};
use crate::mode::WriteMode;
use crate::name::TableName;

/// A system that rows can be loaded into.
///
/// Making one does no I/O. All methods may be called concurrently for different loads; `stage` also for
/// different parts of one load.
///
/// The life of a load: `open` once per run; `inspect` the table; `stage` each part; `commit`. Nothing that is staged
/// may be seen by a reader before `commit`, and nothing of it may be left after `abort` or `sweep`.
#[async_trait]
pub trait Destination: Send + Sync {
    /// What this destination can do: pure data, the same for the life of the value.
    fn capabilities(&self) -> &Capabilities;

    /// The type that a column of this field gets, and what it cannot hold. Pure.
    ///
    /// An error (code `unsupported`) refuses the field at plan time; its hint names what would be taken instead.
    fn column_type(&self, field: &Field) -> Result<ColumnType>;

    /// Proves that the system answers and that permissions suffice to load; the hint of an error is
    /// the statement that mends what is missing.
    async fn check(&self) -> Result<()>;

    /// Takes over the sync from whoever held it before, durably, and returns the markers of its scopes.
    ///
    /// `tables` are the tables that the sync writes, for destinations that keep markers beside the rows.
    /// Afterwards a commit under an older generation fails with `lease_lost`; where reading markers and committing
    /// is not one atomic step, the marker's load number decides instead: see [`Destination::commit`].
    async fn open(&self, lease: &Lease, tables: &[TableName]) -> Result<Vec<Marker>>;

    /// The markers that [`Destination::open`] would return, for a look that takes nothing over and changes nothing. `None` where they cannot be told
    /// without opening.
    async fn markers(&self, _sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        Ok(None)
    }

    /// The table as it is; `None` when it is not there.
    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>>;

    /// Writes rows where no reader looks.
    ///
    /// Batches have exactly [`Table::staging_schema`], or are in the form that [`Destination::wire`] names. An empty stream still gives a receipt (with no rows). When `rows` gives an error,
    /// stage returns that error and leaves nothing that `abort` would not find, nor a thread that still writes. A part that is tried again comes with another
    /// attempt number, and only the attempt whose receipt returned is published.
    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt>;

    /// The form of its own system in which [`Destination::stage`] takes the rows of this table besides ([`crate::wire`]): all columns of
    /// [`Table::staging_schema`] but those that are the same for all rows of a load, with the types that the fields say they had where they come from.
    fn wire(&self, _table: &Table) -> Option<&'static str> {
        None
    }

    /// [`Destination::stage`] with the rows of a table that the destination has already: they never leave it, and that table stays as it is.
    ///
    /// It has the columns of [`Table::data_columns`]. The receipt is one that commit cannot tell from that of a staged part. Rows may keep the system
    /// columns that they have, where they stand in files that become part of both tables.
    async fn stage_table(&self, part: &Part, table: &Table, from: &TableName, loaded_at: DateTime<Utc>) -> Result<Receipt> {
        match self.sql() {
            Some(engine) => engine.stage_query(part, table, &format!("select * from {}", engine.table(from)), loaded_at).await,
            None => Err(cannot_compute()),
        }
    }

    /// Publishes exactly the parts named in the receipts.
    ///
    /// In one transaction where the system has them: checks the lease, checks that the marker of the scope is the one before
    /// this load (`number - 1`, or none for 1), checks the parts' row counts, applies the schema changes, merges the rows by [`Table::write`], and
    /// writes the marker. A marker that already names this load makes commit return
    /// [`Outcome::already_committed`]; any other marker fails with `lease_lost`. A load without receipts only moves the marker.
    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome>;

    /// [`Destination::commit`] of loads of several syncs, in the order of `loads`: in one transaction when [`Capabilities::atomic_across_tables`], one after the
    /// other where there is none. An error may come when some of them are visible.
    async fn commit_together(&self, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for (load, lease) in loads {
            outcomes.push(self.commit(load, lease).await?);
        }
        Ok(outcomes)
    }

    /// Makes sure that nothing is visible of a load whose commit has failed on its way, and that another one of its number can be committed in its
    /// place. `false` where rows may stay visible that another load would add once more. Only asked where the tables of a load do not become visible in
    /// one transaction, and when the marker is not this load's. A crash in between leaves a load that can be committed, and taken back, again.
    async fn take_back(&self, _load: &Load, _lease: &Lease) -> Result<bool> {
        Ok(false)
    }

    /// Removes what was staged for a load that will not be committed. Not finding it is no error.
    async fn abort(&self, load: &LoadId) -> Result<()>;

    /// Removes what crashed loads of this sync have left behind, except the loads in `keep`.
    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()>;

    /// Removes the sync's markers for these scopes, so that the next load is the first. Used by `trib state reset`.
    async fn forget(&self, lease: &Lease, scopes: &[String], tables: &[TableName]) -> Result<()>;

    /// Upkeep by hand: compaction, vacuum of what is older than `retention`. Returns what was done, for people.
    async fn maintain(&self, _table: &TableName, _retention: Duration) -> Result<String> {
        Ok("nothing to do".to_owned())
    }

    /// The destination's own SQL, where it has one.
    fn sql(&self) -> Option<&dyn SqlEngine> {
        None
    }

    /// What it knows about objects and fates, where rows go to an API.
    fn deliveries(&self) -> Option<&dyn Delivers> {
        None
    }
}

/// A destination that can run SQL itself.
#[async_trait]
pub trait SqlEngine: Send + Sync {
    /// Runs one query that returns rows. Read-only where the system can be told so.
    async fn query(&self, sql: &str) -> Result<BatchStream>;

    /// A table name as it is written in this SQL, quoted where needed.
    fn table(&self, name: &TableName) -> String;

    /// The columns that a query gives, without computing its rows where the system can tell without.
    async fn describe(&self, _sql: &str) -> Result<SchemaRef> {
        Err(cannot_compute())
    }

    /// [`Destination::stage`] with the rows of a query that the system computes itself: they never leave it.
    ///
    /// The query gives the columns of [`crate::load::Table::data_columns`] by name; what it computes is converted to the table's types. The system columns
    /// are filled in, with the order of the query's rows as their sequence and `loaded_at` as in [`Load::loaded_at`]. The receipt is one
    /// that commit cannot tell from that of a staged part.
    async fn stage_query(&self, _part: &Part, _table: &Table, _sql: &str, _loaded_at: DateTime<Utc>) -> Result<Receipt> {
        Err(cannot_compute())
    }

    /// Makes a view, or replaces the one of this name. A table that has the name stays, and is an error.
    async fn create_view(&self, _name: &TableName, _sql: &str) -> Result<()> {
        Err(cannot_compute())
    }

    /// What can stand behind `from` to read the rows that a load has staged for a table, its sequence included; `None` where they cannot
    /// be looked at before the commit. Columns that are the same for all rows of the load may be absent.
    fn staged(&self, _load: &TableLoad) -> Option<String> {
        None
    }
}

fn cannot_compute() -> Error {
    Error::new(Code::Unsupported, "models cannot be made inside this system")
        .hint("leave `connection:` out: on the lake, Tributary computes them itself")
}

/// What differs between destinations, as data.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    pub write_modes: &'static [WriteMode],
    /// The rows of one table become visible in one step. Where they do not (they go out one after the other), a load that fails on its way is only ever
    /// committed again: nobody else knows which of them have gone.
    pub atomic_tables: bool,
    /// All tables of a load become visible in one transaction.
    pub atomic_across_tables: bool,
    /// Struct and list columns can be stored as they are; otherwise the engine makes child tables or JSON.
    pub nested: bool,
    /// Files are laid out by the values of columns ([`Table::partition_by`]). Where they are not, the wish is refused.
    pub partitions: bool,
    /// Columns a table may have.
    pub max_columns: Option<usize>,
    /// Bytes an identifier may have.
    pub max_identifier: usize,
    /// `Id` and `id` are two columns.
    pub case_sensitive: bool,
    /// Parts of one load that are worth staging at the same time.
    pub parallel_parts: usize,
    /// Bytes a batch should have, about.
    pub batch_bytes: usize,
    /// A schema-less table name is put in this schema.
    pub default_schema: Option<&'static str>,
}

/// The type that a destination gives a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnType {
    /// In the destination's own words: `numeric(15,2)`.
    pub native: String,
    /// What it cannot hold exactly, for the plan to say; `None` when every value comes back equal.
    pub lossy: Option<String>,
}

impl ColumnType {
    pub fn exact(native: impl Into<String>) -> Self {
        Self { native: native.into(), lossy: None }
    }

    pub fn lossy(native: impl Into<String>, why: impl Into<String>) -> Self {
        Self { native: native.into(), lossy: Some(why.into()) }
    }
}

/// A table that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct ExistingTable {
    pub columns: Vec<ExistingColumn>,
    /// Its primary key, where the system knows one.
    pub key: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExistingColumn {
    /// Name, nullability, and the Arrow type that comes closest.
    pub field: FieldRef,
    /// Comparable with [`ColumnType::native`].
    pub native: String,
}
