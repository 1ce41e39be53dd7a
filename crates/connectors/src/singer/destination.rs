//! A target as a destination. What is staged waits in files; a commit hands it all to the target, and is done when the target gives our STATE back.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use async_trait::async_trait;
use futures::StreamExt;
use trib_core::destination::{Capabilities, ColumnType, ExistingTable};
use trib_core::load::{Durability, TableOutcome};
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{
    BatchStream, Code, Context, Destination, Error, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result, Table, TableName,
    WriteMode,
};
use trib_kit::records::schema::of_field;

use super::config::SingerConfig;
use super::delivery::Delivery;
use super::journal::Journal;

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

    async fn stage(&self, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
        let folder = self.journal.stage(&part.sync, &part.load);
        tokio::fs::create_dir_all(&folder).await?;
        let name = format!("{}-{}-{}.arrow", hex::encode(table.name.to_string()), part.split, part.attempt);
        let path = folder.join(name);
        let schema = table.staging_schema();
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = FileWriter::try_new_with_options(BufWriter::new(File::create(&path)?), &schema, options)?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            // A few megabytes at a time, which the system takes into its cache.
            writer.write(&batch)?;
        }
        let file = writer.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Receipt {
            part: part.clone(),
            table: table.name.clone(),
            rows: count,
            bytes: file.metadata()?.len(),
            durability: Durability::Durable,
            staged: serde_json::to_value(&path)?,
            rejected: Vec::new(),
        })
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let locked = self.journal.lock().await?;
        let record = self.journal.record(&lease.sync).await?;
        let marker = record.markers.get(&load.scope);
        match commit_gate(load, lease.generation, record.generation, marker) {
            CommitGate::Go => {}
            CommitGate::AlreadyCommitted => return Ok(Outcome { tables: Vec::new(), already_committed: true }),
            CommitGate::Outdated => return Err(lease_lost(load, marker)),
        }
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
        for folder in self.journal.staged(None).await? {
            if folder.file_name().is_some_and(|name| name.to_string_lossy() == load.0) {
                remove(&folder).await?;
            }
        }
        Ok(())
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        for folder in self.journal.staged(Some(&lease.sync)).await? {
            let kept = folder.file_name().is_some_and(|name| keep.iter().any(|load| name.to_string_lossy() == load.0));
            if !kept {
                remove(&folder).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        let _locked = self.journal.lock().await?;
        let mut record = self.journal.record(&lease.sync).await?;
        if record.generation > lease.generation {
            return Err(Error::new(Code::LeaseLost, "another run has taken this sync over"));
        }
        record.markers.retain(|scope, _| !scopes.contains(scope));
        self.journal.put(&lease.sync, &record).await
    }

    async fn maintain(&self, _table: &TableName, _retention: Duration) -> Result<String> {
        Ok("the target's tables are its own business".to_owned())
    }
}

async fn remove(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
