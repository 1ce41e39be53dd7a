//! SQL over all tables of a lake, which are found when a query names them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use trib_core::load::TableLoad;
use trib_core::{BatchStream, Code, Error, Result, SqlEngine, TableName};
use trib_engine::failure::query_error;
use trib_kit::{sql, storage};

use crate::data_file;
use crate::destination::Lake;
use crate::layout::{DEFAULT_SCHEMA, Layout, is_schema};
use crate::scan::TableScan;
use crate::stage;
use crate::table_log::{Snapshot, TableLog};

const CATALOG: &str = "lake";
/// What a query may hold in memory before it spills.
const QUERY_MEMORY: usize = 1 << 30;

impl Lake {
    /// The table for DataFusion to scan, at a version or at the newest.
    pub async fn provider(&self, table: &TableName, version: Option<i64>) -> Result<Arc<dyn TableProvider>> {
        let log = self.log(table)?;
        let missing = || Error::new(Code::NotFound, "there is no such table in the lake").detail(table.to_string());
        if let Some(version) = version {
            let snapshot = log.snapshot_at(Some(version.unsigned_abs())).await?.ok_or_else(missing)?;
            return provider(&self.layout, &log, snapshot).await;
        }
        let seen = self.seen.lock().await.get(&log.folder).cloned();
        if let Some((head, provider)) = seen
            && log.still(&head).await?
        {
            return Ok(provider);
        }
        let snapshot = log.snapshot().await?.ok_or_else(missing)?;
        let head = log.head(snapshot.version).await?;
        let provider = provider(&self.layout, &log, snapshot).await?;
        if let Some(head) = head {
            self.seen.lock().await.insert(log.folder.clone(), (head, provider.clone()));
        }
        Ok(provider)
    }

    /// The rows that a load has staged for a table, for DataFusion to scan.
    pub fn staged(&self, load: &TableLoad) -> Result<Arc<dyn TableProvider>> {
        let schema = stage::stored_schema(&load.table)?;
        let folder = self.layout.table(&load.table.name)?;
        let mut files: Vec<Arc<dyn PartitionStream>> = Vec::new();
        for receipt in &load.receipts {
            for file in stage::Staged::of(receipt)?.files {
                let path = folder.clone().join(file.name.as_str());
                files.push(Arc::new(StagedFile { store: self.layout.store.clone(), path, size: file.size, schema: schema.clone() }));
            }
        }
        if files.is_empty() {
            return Ok(Arc::new(EmptyTable::new(schema)));
        }
        Ok(Arc::new(StreamingTable::try_new(schema, files).map_err(query_error)?))
    }

    /// All tables, by name.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        let mut tables = Vec::new();
        for schema in self.folders(self.layout.base()).await? {
            let Some(schema_name) = schema.filename().filter(|name| is_schema(name)) else {
                continue;
            };
            for table in self.folders(&schema).await? {
                if let Some(name) = table.filename().filter(|n| !n.starts_with('_') && !n.starts_with('.'))
                    && TableLog::new(&self.layout, table.clone()).exists().await?
                {
                    tables.push(TableName::new(Some(schema_name), name));
                }
            }
        }
        tables.sort();
        Ok(tables)
    }

    async fn folders(&self, folder: &Path) -> Result<Vec<Path>> {
        match self.layout.store.list_with_delimiter(Some(folder)).await {
            Ok(found) => Ok(found.common_prefixes),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(e) => Err(storage::error(e, folder.as_ref())),
        }
    }

    /// Tables are looked up by the names in `known`, or by name alone when a query asks for one that is not among them.
    pub(crate) fn session(&self, known: Vec<TableName>) -> Result<SessionContext> {
        let runtime =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(QUERY_MEMORY))).build_arc().map_err(query_error)?;
        let mut config = SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA);
        config.options_mut().execution.parquet.schema_force_view_types = false;
        let session = SessionContext::new_with_config_rt(config, runtime);
        session.register_catalog(CATALOG, Arc::new(Tables { layout: self.layout.clone(), known: Arc::new(known) }));
        Ok(session)
    }
}

/// The table at a version, for DataFusion to scan.
///
/// What holds plans of DataFusion while it waits is boxed where it stands: the compiler needs seconds to see that they are `Send`, and
/// would do so again in every `async` function around it.
pub(crate) fn provider<'a>(layout: &'a Layout, log: &'a TableLog, snapshot: Snapshot) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
    Box::pin(async move {
        if snapshot.is_plain() {
            let Snapshot { schema, files, .. } = snapshot;
            return Ok(Arc::new(TableScan { layout: layout.clone(), folder: log.folder.clone(), schema, files }) as Arc<dyn TableProvider>);
        }
        let table = log.table(Some(snapshot.version)).await?.table_provider();
        let files = table.with_file_paths(snapshot.files.into_iter().map(|f| f.path));
        Ok(Arc::new(files.build().await.map_err(query_error)?) as Arc<dyn TableProvider>)
    })
}

/// A query that changes nothing; boxed as [`provider`] is.
fn read_only(session: SessionContext, sql: String) -> BoxFuture<'static, Result<BatchStream>> {
    Box::pin(async move { rows(trib_engine::sql::frame(&session, &sql, query_error).await?).await })
}

/// Starts what was planned; boxed as [`provider`] is.
pub(crate) fn rows(frame: DataFrame) -> BoxFuture<'static, Result<BatchStream>> {
    Box::pin(async move {
        let rows = frame.execute_stream().await.map_err(query_error)?;
        Ok(Box::pin(rows.map(|batch| batch.map_err(query_error))) as BatchStream)
    })
}

#[async_trait]
impl SqlEngine for Lake {
    async fn query(&self, sql: &str) -> Result<BatchStream> {
        let known = self.tables().await?;
        let rows = read_only(self.session(known)?, sql.to_owned());
        rows.await
    }

    fn table(&self, name: &TableName) -> String {
        let schema = name.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
        format!("{}.{}", sql::ANSI.identifier(schema), sql::ANSI.identifier(&name.name))
    }
}

/// A file that no log names yet.
#[derive(Debug)]
struct StagedFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    schema: SchemaRef,
}

impl PartitionStream for StagedFile {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let (store, path, size, schema) = (self.store.clone(), self.path.clone(), self.size, self.schema.clone());
        let opened = async move { data_file::read(&store, &path, size, &schema, &[]).await.map_err(external) };
        let rows = futures::stream::once(opened).map_ok(move |rows| rows.map_err(external)).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// The lake as DataFusion's catalog.
#[derive(Debug)]
struct Tables {
    layout: Layout,
    known: Arc<Vec<TableName>>,
}

impl CatalogProvider for Tables {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.known.iter().filter_map(|t| t.schema.clone()).collect();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(SchemaTables { layout: self.layout.clone(), schema: name.to_owned(), known: self.known.clone() }))
    }
}

#[derive(Debug)]
struct SchemaTables {
    layout: Layout,
    schema: String,
    known: Arc<Vec<TableName>>,
}

#[async_trait]
impl SchemaProvider for SchemaTables {
    fn table_names(&self) -> Vec<String> {
        self.known.iter().filter(|t| t.schema.as_deref() == Some(&self.schema)).map(|t| t.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let folder = self.layout.table(&TableName::new(Some(&self.schema), name)).map_err(external)?;
        let log = TableLog::new(&self.layout, folder);
        let Some(snapshot) = log.snapshot().await.map_err(external)? else { return Ok(None) };
        provider(&self.layout, &log, snapshot).await.map(Some).map_err(external)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.known.iter().any(|t| t.schema.as_deref() == Some(&self.schema) && t.name == name)
    }
}
