//! A destination that is a program: it takes a load as a whole, and remembers nothing. What is staged waits in files until it is handed over; leases and
//! markers are kept here, since such a program has no place for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef};
use async_trait::async_trait;
use trib_core::destination::{Capabilities, ColumnType, ExistingColumn, ExistingTable};
use trib_core::load::TableOutcome;
use trib_core::name::system;
use trib_core::{
    BatchStream, Destination, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result, Table, TableLoad, TableName, WriteMode,
};

use crate::journal::{Journal, remove};
use crate::spool;

/// Who takes the loads.
#[async_trait]
pub trait Taker: Send + Sync {
    /// See [`Destination::column_type`].
    fn column_type(&self, field: &Field) -> Result<ColumnType>;

    /// See [`Destination::check`].
    async fn check(&self) -> Result<()>;

    /// Refuses a table that could not be handed over, before any row of it is staged.
    async fn admit(&self, _table: &Table) -> Result<()> {
        Ok(())
    }

    /// Hands a load over, and returns when all of it is where it belongs. After an error the same load comes again, perhaps from another process.
    /// `folder` is the load's own, and is removed when the load is committed: a place to note how far a handing over has come.
    async fn take(&self, load: &Load, folder: &Path) -> Result<()>;
}

pub struct Relay<T> {
    taker: T,
    journal: Journal,
    capabilities: Capabilities,
}

impl<T: Taker> Relay<T> {
    /// `folder` is where all is kept that must be remembered.
    pub fn new(taker: T, folder: PathBuf, write_modes: &'static [WriteMode]) -> Self {
        let capabilities = Capabilities {
            write_modes,
            atomic_tables: false,
            atomic_across_tables: false,
            nested: true,
            max_columns: None,
            max_identifier: 200,
            case_sensitive: true,
            parallel_parts: 2,
            batch_bytes: 4 << 20,
            default_schema: None,
            partitions: false,
        };
        Self { taker, journal: Journal::new(folder), capabilities }
    }
}

#[async_trait]
impl<T: Taker> Destination for Relay<T> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        self.taker.column_type(field)
    }

    async fn check(&self) -> Result<()> {
        self.taker.check().await
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        self.journal.open(lease).await
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let Some(schema) = self.journal.table(table).await? else {
            return Ok(None);
        };
        let column = |field: &FieldRef| Ok(ExistingColumn { field: field.clone(), native: self.taker.column_type(field)?.native });
        Ok(Some(ExistingTable { columns: schema.fields().iter().map(column).collect::<Result<_>>()?, key: Vec::new() }))
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        self.taker.admit(table).await?;
        spool::stage(&self.journal.stage(&part.sync, &part.load), part, table, rows).await
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        // Held while the load is handed over.
        let locked = self.journal.lock().await?;
        let Some(record) = self.journal.gate(load, lease).await? else {
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        };
        let folder = self.journal.stage(&lease.sync, &load.id);
        if shares(load).any(says_something) {
            self.taker.take(load, &folder).await?;
        }
        self.journal.committed(record, load, lease).await?;
        drop(locked);
        remove(&folder).await?;
        let outcome = |share: &TableLoad| TableOutcome {
            inserted: share.receipts.iter().map(|r| r.rows).sum(),
            ..TableOutcome::new(share.table.name.clone())
        };
        Ok(Outcome { tables: shares(load).map(outcome).collect(), already_committed: false })
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        self.journal.abort(load).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        self.journal.sweep(&lease.sync, keep).await
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        self.journal.forget(lease, scopes).await
    }

    async fn maintain(&self, _table: &TableName, _retention: Duration) -> Result<String> {
        Ok("the tables are the program's own business".to_owned())
    }
}

/// The tables that a load is about.
pub fn shares(load: &Load) -> impl Iterator<Item = &TableLoad> {
    load.tables.iter().filter(|share| !share.receipts.is_empty())
}

/// There are rows, or that there are none is what the table is to hold.
fn says_something(share: &TableLoad) -> bool {
    share.table.write == WriteMode::Replace || share.receipts.iter().any(|r| r.rows > 0)
}

/// What is handed over of a batch. Rows go in their order, so that it need not be told.
pub fn without_order(batch: &RecordBatch) -> Result<RecordBatch> {
    let kept: Vec<usize> = (0..batch.num_columns()).filter(|i| batch.schema().field(*i).name() != system::SEQ).collect();
    Ok(batch.project(&kept)?)
}
