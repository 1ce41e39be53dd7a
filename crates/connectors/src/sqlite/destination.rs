//! Loading into tables.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use trib_core::destination::ExistingColumn;
use trib_core::{
    BatchStream, Capabilities, ColumnType, Destination, Error, ExistingTable, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result,
    SqlEngine, Table, TableName, WriteMode,
};

use super::commit;
use super::computed;
use super::database::{At, Database, blocking, quoted};
use super::ddl::physical;
use super::kind::Kind;
use super::marker::{self, Made};
use super::query;
use super::rebuild::kept_exactly;
use super::side_file::{self, Piece};
use super::table::describe;

const CAPABILITIES: Capabilities = Capabilities {
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
    atomic_across_tables: true,
    nested: false,
    partitions: false,
    // SQLite takes 2000 columns; a side file has two more than its table.
    max_columns: Some(1998),
    max_identifier: 1000,
    case_sensitive: false,
    parallel_parts: 4,
    batch_bytes: 4 << 20,
    default_schema: None,
};

pub struct SqliteDestination {
    database: Arc<Database>,
}

impl SqliteDestination {
    pub fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Destination for SqliteDestination {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        Ok(Kind::of_field(field)?.column_type())
    }

    async fn check(&self) -> Result<()> {
        let database = self.database.clone();
        blocking(move || {
            if database.path.exists() {
                // Taking the write lock proves the permission and changes nothing.
                return database.writer()?.execute_batch("BEGIN IMMEDIATE; ROLLBACK").at(&database.path);
            }
            let folder = database.path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(&database.path);
            tempfile::Builder::new().prefix(".trib-check").tempfile_in(folder).map(drop).map_err(|e| {
                Error::from(e).detail(folder.display().to_string()).hint("give this user permission to write the folder of the database")
            })
        })
        .await
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        let (database, lease) = (self.database.clone(), lease.clone());
        blocking(move || {
            let connection = database.creator()?;
            connection.execute_batch("BEGIN IMMEDIATE").at(&database.path)?;
            marker::raise(&connection, &lease).at(&database.path)??;
            connection.execute_batch("COMMIT").at(&database.path)?;
            marker::all(&connection, &lease.sync).at(&database.path)?.into_iter().collect()
        })
        .await
    }

    async fn markers(&self, sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        let (database, sync) = (self.database.clone(), sync.to_owned());
        blocking(move || {
            if !database.path.exists() {
                return Ok(Some(Vec::new()));
            }
            let connection = database.recovering_reader()?;
            match marker::made(&connection).at(&database.path)? {
                Made::Not => Ok(Some(Vec::new())),
                Made::Before => Ok(None),
                Made::Whole => marker::all(&connection, &sync).at(&database.path)?.into_iter().collect::<Result<_>>().map(Some),
            }
        })
        .await
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let (database, name) = (self.database.clone(), physical(table));
        blocking(move || {
            if !database.path.exists() {
                return Ok(None);
            }
            let Some(table) = describe(&database.recovering_reader()?, &name).at(&database.path)? else {
                return Ok(None);
            };
            if table.is_view {
                return Err(Error::new(trib_core::Code::Unsupported, "rows cannot be loaded into a view")
                    .detail(name)
                    .hint("choose another table"));
            }
            let column = |column: &super::table::Column| {
                let kind = Kind::of_declaration(&column.declared);
                let field = kind.field(&column.name, table.is_nullable(column), &column.declared).with_data_type(kept_exactly(&kind));
                ExistingColumn { field: Arc::new(field), native: column.declared.clone() }
            };
            // SQLite fills generated columns itself.
            let columns = table.columns.iter().filter(|c| !c.generated).map(column).collect();
            Ok(Some(ExistingTable { columns, key: table.key() }))
        })
        .await
    }

    async fn stage(&self, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
        let (sender, receiver) = mpsc::channel(2);
        let (database, part, table) = (self.database.clone(), part.clone(), table.clone());
        let writing = tokio::spawn(blocking(move || side_file::write(&database.path, &part, &table, receiver)));
        loop {
            let piece = match rows.next().await {
                Some(Ok(batch)) => Piece::Batch(batch),
                Some(Err(e)) => Piece::Failed(e),
                None => Piece::End,
            };
            let is_last = !matches!(piece, Piece::Batch(_));
            // The writer hangs up when it has failed, and says why below.
            if sender.send(piece).await.is_err() || is_last {
                break;
            }
        }
        drop(sender);
        writing.await.map_err(|e| Error::internal("the writer of a part is gone").source(e))?
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let outcomes = self.commit_together(&[(load.clone(), lease.clone())]).await?;
        outcomes.into_iter().next().ok_or_else(|| Error::internal("a load that was committed has no outcome"))
    }

    async fn commit_together(&self, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
        let (database, loads) = (self.database.clone(), loads.to_vec());
        blocking(move || commit::commit(&database, &loads)).await
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        let (database, load) = (self.database.clone(), load.clone());
        blocking(move || side_file::remove(&database.path, None, |found| *found == load)).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        let (database, sync, keep) = (self.database.clone(), lease.sync.clone(), keep.to_vec());
        blocking(move || side_file::remove(&database.path, Some(&sync), |found| !keep.contains(found))).await
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        let (database, lease, scopes) = (self.database.clone(), lease.clone(), scopes.to_vec());
        blocking(move || {
            let connection = database.creator()?;
            connection.execute_batch("BEGIN IMMEDIATE").at(&database.path)?;
            marker::raise(&connection, &lease).at(&database.path)??;
            for scope in &scopes {
                marker::forget(&connection, &lease.sync, scope).at(&database.path)?;
            }
            connection.execute_batch("COMMIT").at(&database.path)
        })
        .await
    }

    async fn maintain(&self, table: &TableName, _retention: Duration) -> Result<String> {
        let (database, name) = (self.database.clone(), physical(table));
        blocking(move || commit::maintain(&database, &name)).await
    }

    fn sql(&self) -> Option<&dyn SqlEngine> {
        Some(self)
    }
}

#[async_trait]
impl SqlEngine for SqliteDestination {
    async fn query(&self, sql: &str) -> Result<BatchStream> {
        let (sender, receiver) = mpsc::channel(2);
        let (database, sql) = (self.database.clone(), sql.to_owned());
        tokio::spawn(blocking(move || {
            if let Err(e) = query::run(&database, &sql, &sender) {
                // Nobody listening is no failure of the query.
                let _ = sender.blocking_send(Err(e));
            }
            Ok(())
        }));
        Ok(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed())
    }

    fn table(&self, name: &TableName) -> String {
        quoted(&physical(name))
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef> {
        let (database, sql) = (self.database.clone(), sql.to_owned());
        blocking(move || query::describe(&database, &sql)).await
    }

    async fn stage_query(&self, part: &Part, table: &Table, sql: &str, loaded_at: DateTime<Utc>) -> Result<Receipt> {
        let (database, part, table, sql) = (self.database.clone(), part.clone(), table.clone(), sql.to_owned());
        blocking(move || computed::write(&database, &part, &table, &sql, loaded_at)).await
    }

    async fn create_view(&self, name: &TableName, sql: &str) -> Result<()> {
        let (database, view, sql) = (self.database.clone(), quoted(&physical(name)), sql.to_owned());
        blocking(move || {
            let made = format!("BEGIN IMMEDIATE; DROP VIEW IF EXISTS {view}; CREATE VIEW {view} AS {sql}; COMMIT");
            database.creator()?.execute_batch(&made).at(&database.path)
        })
        .await
    }
}
