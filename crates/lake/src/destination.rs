//! The lake as a destination.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Field;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use tokio::sync::Mutex;
use trib_core::destination::ExistingColumn;
use trib_core::{
    BatchStream, Capabilities, ColumnType, Destination, ExistingTable, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result,
    SqlEngine, Table, TableName, WriteMode,
};
use trib_kit::storage;

use crate::commit::{self, Commit};
use crate::config::LakeConfig;
use crate::delta_type;
use crate::layout::{DEFAULT_SCHEMA, Layout};
use crate::maintain;
use crate::marker;
use crate::stage;
use crate::table_log::{Head, TableLog};

/// A folder of Delta tables.
pub struct Lake {
    pub(crate) layout: Layout,
    pub(crate) config: LakeConfig,
    capabilities: Capabilities,
    /// The tables that queries have looked at, as they were: a query is planned more than once before it runs.
    pub(crate) seen: Mutex<HashMap<Path, (Head, Arc<dyn TableProvider>)>>,
}

impl Lake {
    pub(crate) fn new(layout: Layout, config: LakeConfig, threads: usize) -> Self {
        let capabilities = Capabilities {
            write_modes: &[
                WriteMode::Replace,
                WriteMode::Append,
                WriteMode::Insert,
                WriteMode::Upsert,
                WriteMode::Mirror,
                WriteMode::History,
                WriteMode::Prune,
                WriteMode::Update,
            ],
            atomic_tables: true,
            atomic_across_tables: false,
            nested: true,
            partitions: false,
            max_columns: None,
            // A table is a folder, and file systems give its name 255 bytes.
            max_identifier: 200,
            case_sensitive: false,
            parallel_parts: threads.clamp(1, 4),
            batch_bytes: 4 << 20,
            default_schema: Some(DEFAULT_SCHEMA),
        };
        Self { layout, config, capabilities, seen: Mutex::default() }
    }

    pub(crate) fn log(&self, table: &TableName) -> Result<TableLog> {
        Ok(TableLog::new(&self.layout, self.layout.table(table)?))
    }
}

#[async_trait]
impl Destination for Lake {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        delta_type::column_type(field)
    }

    /// Writes a file as only a commit does (so that no other can have written it), and removes it.
    async fn check(&self) -> Result<()> {
        let probe = self.layout.leases("_check").join(format!("{}.json", uuid::Uuid::new_v4()));
        let writes = marker::put(&self.layout, &probe, &"can this be written?", PutMode::Create).await;
        writes.map_err(|e| {
            e.hint(match self.layout.local() {
                Some(folder) => format!("make the folder writable: `mkdir -p {0} && chmod u+rwx {0}`", folder.display()),
                None => {
                    "the store's user needs to list, read, write and delete below the lake's path, and the store needs conditional writes"
                        .into()
                }
            })
        })?;
        self.layout.store.delete(&probe).await.map_err(|e| storage::error(e, self.layout.shown()))
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        marker::raise(&self.layout, lease).await?;
        marker::all(&self.layout, &lease.sync).await
    }

    async fn markers(&self, sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        marker::all(&self.layout, sync).await.map(Some)
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let Some(snapshot) = self.log(table)?.snapshot().await? else {
            return Ok(None);
        };
        let columns = snapshot
            .schema
            .fields()
            .iter()
            .map(|field| ExistingColumn { native: delta_type::native(field), field: std::sync::Arc::new(delta_type::restored(field)) });
        Ok(Some(ExistingTable { columns: columns.collect(), key: snapshot.key() }))
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        stage::stage(&self.layout, self.config.file_bytes(), part, table, rows).await
    }

    async fn stage_table(&self, part: &Part, table: &Table, from: &TableName, _: DateTime<Utc>) -> Result<Receipt> {
        stage::copy(&self.layout, part, table, &self.log(from)?).await
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        Commit { layout: &self.layout, config: &self.config, load, lease }.run().await
    }

    async fn take_back(&self, load: &Load, lease: &Lease) -> Result<bool> {
        commit::take_back(&self.layout, load, lease).await
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        stage::abort(&self.layout, load).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        for (load, notes) in stage::noted(&self.layout, &lease.sync).await? {
            if !keep.contains(&load) {
                stage::clear(&self.layout, &notes, &load).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], tables: &[TableName]) -> Result<()> {
        for scope in scopes {
            commit::forget(&self.layout, lease, scope, tables).await?;
        }
        Ok(())
    }

    async fn maintain(&self, table: &TableName, retention: Duration) -> Result<String> {
        maintain::maintain(self, table, retention).await
    }

    fn sql(&self) -> Option<&dyn SqlEngine> {
        Some(self)
    }
}
