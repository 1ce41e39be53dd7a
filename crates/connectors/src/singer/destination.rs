//! A target as a destination. What is staged waits in files; a commit hands it all to the target, and is done when the target gives our STATE back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use trib_core::destination::{Capabilities, ColumnType, ExistingTable};
use trib_core::load::TableOutcome;
use trib_core::{
    BatchStream, Context, Destination, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result, Table, TableName, WriteMode,
};
use trib_kit::journal::{Journal, remove};
use trib_kit::records::schema::of_field;
use trib_kit::spool;

use super::config::SingerConfig;
use super::delivery::Delivery;

pub struct SingerDestination {
    config: Arc<SingerConfig>,
    dir: PathBuf,
    /// What must be remembered here, since a target remembers nothing.
    journal: Journal,
    capabilities: Capabilities,
}

impl SingerDestination {
    pub fn new(config: SingerConfig, context: &Context) -> Arc<Self> {
        let capabilities = Capabilities {
            write_modes: &[WriteMode::Append, WriteMode::Upsert],
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
        let journal = Journal::new(context.project_dir.join(".tributary/singer").join(&context.connection));
        Arc::new(Self { config: Arc::new(config), dir: context.project_dir.clone(), journal, capabilities })
    }
}

#[async_trait]
impl Destination for SingerDestination {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        let native = of_field(field).to_string();
        Ok(match field.data_type() {
            DataType::Timestamp(_, None) => ColumnType::lossy(native, "JSON Schema has no time without a zone: targets take it for UTC"),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::lossy(native, "JSON has no NaN and no infinity"),
            _ => ColumnType::exact(native),
        })
    }

    /// A target takes no message that proves anything without loading: that it can be made is all that can be known.
    async fn check(&self) -> Result<()> {
        Delivery { config: self.config.clone(), dir: self.dir.clone() }.program().await.map(drop)
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        self.journal.open(lease).await
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let Some(schema) = self.journal.table(table).await? else {
            return Ok(None);
        };
        let column = |field: &arrow::datatypes::FieldRef| trib_core::destination::ExistingColumn {
            field: field.clone(),
            native: of_field(field).to_string(),
        };
        Ok(Some(ExistingTable { columns: schema.fields().iter().map(column).collect(), key: Vec::new() }))
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        spool::stage(&self.journal.stage(&part.sync, &part.load), part, table, rows).await
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        // Held while the target is fed.
        let locked = self.journal.lock().await?;
        let Some(record) = self.journal.gate(load, lease).await? else {
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        };
        if load.rows() > 0 {
            Delivery { config: self.config.clone(), dir: self.dir.clone() }.run(load).await?;
        }
        self.journal.committed(record, load, lease).await?;
        drop(locked);
        remove(&self.journal.stage(&lease.sync, &load.id)).await?;
        let outcome = |share: &trib_core::TableLoad| TableOutcome {
            table: share.table.name.clone(),
            inserted: share.receipts.iter().map(|r| r.rows).sum(),
            updated: 0,
            deleted: 0,
            version: None,
        };
        Ok(Outcome { tables: load.tables.iter().filter(|t| !t.receipts.is_empty()).map(outcome).collect(), already_committed: false })
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
        Ok("the target's tables are its own business".to_owned())
    }
}
