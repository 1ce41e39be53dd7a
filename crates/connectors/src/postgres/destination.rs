//! Loading: the destination's methods, each a few statements on one connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use tokio::sync::OnceCell;
use trib_core::destination::{Capabilities, ColumnType, Destination, ExistingTable, SqlEngine};
use trib_core::{
    BatchStream, Code, Error, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, Result, Table, TableLoad, TableName, WriteMode,
};
use trib_kit::sql::ANSI;

use super::WIRE;
use super::column_type::column_type;
use super::commit::commit;
use super::connect::{Server, Session, Turn};
use super::control::{self, Loads};
use super::copy_out::{BatchSize, CopyOut};
use super::decode::Decoder;
use super::layout::{DEFAULT_SCHEMA, Layout, MAX_IDENTIFIER, Place};
use super::pg_type::{PgType, Rules};
use super::{error, staging, target};

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
    max_columns: Some(1600),
    max_identifier: MAX_IDENTIFIER,
    case_sensitive: true,
    parallel_parts: 4,
    batch_bytes: 4 << 20,
    default_schema: Some(DEFAULT_SCHEMA),
};

pub struct PostgresDestination {
    server: Server,
    rules: Rules,
    /// Staging tables that this process has made or found. The first part of a table makes it while the others wait.
    staging: Mutex<HashMap<Place, Arc<OnceCell<()>>>>,
    /// Turns of splits that are being staged: the tables of one split are fed side by side, so none of them can wait for another.
    turns: Mutex<HashMap<(LoadId, u32, u32), Weak<OnceCell<Turn>>>>,
}

impl PostgresDestination {
    pub fn new(server: Server, rules: Rules) -> Self {
        Self { server, rules, staging: Mutex::default(), turns: Mutex::default() }
    }

    /// The turn of a part's split, to be waited for by the first of its tables.
    fn turn_of(&self, part: &Part) -> Arc<OnceCell<Turn>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.entry((part.load.clone(), part.split, part.attempt)).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *turn = Arc::downgrade(&new);
            new
        })
    }

    /// The staging table of a load's table, made by the first of its parts.
    async fn staging_table(&self, session: &Session, part: &Part, table: &Table, layout: &Layout) -> Result<Place> {
        let place = Place::staging(part, &table.name);
        let made = self.staging.lock().unwrap_or_else(PoisonError::into_inner).entry(place.clone()).or_default().clone();
        made.get_or_try_init(|| staging::create_table(session, part, &place, layout)).await?;
        Ok(place)
    }

    /// The columns of a query, and their types as the server knows them.
    async fn columns_of(&self, session: &Session, query: &str) -> Result<(Vec<Field>, Vec<PgType>)> {
        let statement = session.client.prepare(query).await.map_err(error::driver)?;
        // One more question for the types as `format_type` spells them.
        let spelled: Vec<String> =
            statement.columns().iter().map(|c| format!("format_type({}, {})", c.type_().oid(), c.type_modifier())).collect();
        if spelled.is_empty() {
            return Err(Error::new(Code::UsageInvalid, "the statement returns no rows").hint("`trib query` takes a SELECT"));
        }
        let row = session.rows(&format!("SELECT {}", spelled.join(", "))).await?;
        let types: Vec<PgType> =
            (0..spelled.len()).map(|i| PgType::parse(row.first().and_then(|row| row.get(i)).unwrap_or("text"))).collect();
        let fields = statement.columns().iter().zip(&types).map(|(c, t)| t.field(c.name(), true, self.rules)).collect();
        Ok((fields, types))
    }

    /// Drops staging tables. One that somebody still writes into is left to the next sweep.
    async fn drop_staged(&self, session: &Session, places: Vec<Place>) -> Result<()> {
        for place in places {
            let sql = format!("BEGIN; SET LOCAL lock_timeout = '5s'; {}; COMMIT", control::drop_staged(&place));
            match session.client.batch_execute(&sql).await {
                Ok(()) => {}
                Err(e) if error::is_state(&e, &["55P03"]) => session.run("ROLLBACK").await?,
                Err(e) => return Err(error::driver(e)),
            }
            self.forget_staging([place]);
        }
        Ok(())
    }

    fn forget_staging(&self, places: impl IntoIterator<Item = Place>) {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            staging.remove(&place);
        }
    }
}

#[async_trait]
impl Destination for PostgresDestination {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        column_type(field)
    }

    async fn check(&self) -> Result<()> {
        const MISSING: &str = "SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user) \
             WHERE to_regnamespace('_trib') IS NULL AND NOT has_database_privilege(current_database(), 'CREATE') \
            UNION ALL SELECT format('GRANT USAGE, CREATE ON SCHEMA _trib TO %I', current_user) \
             WHERE to_regnamespace('_trib') IS NOT NULL AND NOT has_schema_privilege(to_regnamespace('_trib')::oid, 'USAGE')";
        let session = self.server.session().await?;
        let missing: Vec<String> = session.rows(MISSING).await?.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect();
        let standby = session.rows("SELECT 1 WHERE pg_is_in_recovery()").await?;
        self.server.give_back(session);
        if !standby.is_empty() {
            return Err(Error::new(Code::Unsupported, "the server is read-only").hint("load into the primary server, not into a standby"));
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::PermissionDenied, "the user may not keep markers in the database").hint(format!("{};", missing.join("; "))))
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        let session = self.server.session().await?;
        let markers = control::open(&session, lease).await?;
        self.server.give_back(session);
        Ok(markers)
    }

    async fn markers(&self, sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        let session = self.server.session().await?;
        let markers = control::markers(&session, sync).await?;
        self.server.give_back(session);
        Ok(markers)
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let session = self.server.session().await?;
        let target = target::find(&session, &Place::of(table)).await?;
        self.server.give_back(session);
        Ok(target.map(|t| t.existing()))
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        let layout = Layout::of(table)?;
        // Without a row its end is seen here, and again by whoever copies.
        let mut rows = rows.fuse();
        // Not before there are rows: a read that waits for its own turn may need one that is held here.
        let first = rows.next().await.transpose()?;
        let rows: BatchStream = Box::pin(stream::iter(first.map(Ok)).chain(rows));
        let shared = self.turn_of(part);
        let turn = shared.get_or_try_init(|| self.server.turn()).await?.clone();
        let session = self.server.session_in(turn).await?;
        let place = self.staging_table(&session, part, table, &layout).await?;
        let receipt = staging::copy(&session, part, table, &place, &layout, rows).await?;
        self.server.give_back(session);
        Ok(receipt)
    }

    fn wire(&self, table: &Table) -> Option<&'static str> {
        Layout::of(table).is_ok_and(|layout| layout.takes_wire(table)).then_some(WIRE)
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let outcomes = self.commit_together(&[(load.clone(), lease.clone())]).await?;
        outcomes.into_iter().next().ok_or_else(|| Error::internal("a load that was committed has no outcome"))
    }

    async fn commit_together(&self, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
        let session = self.server.session().await?;
        let outcomes = commit(&session, loads).await?;
        self.server.give_back(session);
        let receipts = loads.iter().flat_map(|(load, _)| &load.tables).flat_map(|t| &t.receipts);
        self.forget_staging(receipts.filter_map(|r| serde_json::from_value(r.staged.clone()).ok()));
        Ok(outcomes)
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        let session = self.server.session().await?;
        let staged = control::staged(&session, Loads::One(load)).await?;
        self.drop_staged(&session, staged).await?;
        self.server.give_back(session);
        Ok(())
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        let session = self.server.session().await?;
        let staged = control::staged(&session, Loads::AllBut { sync: &lease.sync, keep }).await?;
        self.drop_staged(&session, staged).await?;
        self.server.give_back(session);
        Ok(())
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        if scopes.is_empty() {
            return Ok(());
        }
        let session = self.server.session().await?;
        control::open(&session, lease).await?;
        session.run(&control::forget(&lease.sync, scopes)).await?;
        self.server.give_back(session);
        Ok(())
    }

    async fn maintain(&self, table: &TableName, _retention: Duration) -> Result<String> {
        let session = self.server.session().await?;
        session.run(&format!("VACUUM (ANALYZE) {}", Place::of(table).sql())).await?;
        self.server.give_back(session);
        Ok("vacuumed and analyzed".to_owned())
    }

    fn sql(&self) -> Option<&dyn SqlEngine> {
        Some(self)
    }
}

#[async_trait]
impl SqlEngine for PostgresDestination {
    async fn query(&self, sql: &str) -> Result<BatchStream> {
        let session = self.server.session().await?;
        session.run("BEGIN READ ONLY").await?;
        let query = sql.trim().trim_end_matches(';');
        let (fields, types) = self.columns_of(&session, query).await?;
        // Names of our own, since a query may give two columns one name.
        let aliases: Vec<String> = (0..types.len()).map(|i| ANSI.identifier(&format!("c{i}"))).collect();
        let columns: Vec<String> = aliases.iter().zip(&types).map(|(name, t)| format!("{name}{}", t.cast(self.rules))).collect();
        let wrapped = format!("SELECT {} FROM (\n{query}\n) AS q ({})", columns.join(", "), aliases.join(", "));
        let decoder = Decoder::new(Arc::new(Schema::new(fields)), &types, &[], self.rules);
        let rows = CopyOut::start(&session, &wrapped, decoder, BatchSize::default()).await?;
        // The session ends, and the transaction with it, when the stream is dropped.
        let batches = stream::try_unfold((rows, session), |(mut rows, session)| async move {
            let Some(decoded) = rows.next().await? else { return Ok(None) };
            if let Some(row) = decoded.rejected.first() {
                return Err(Error::new(Code::DataInvalid, "a value has no Arrow form").detail(&row.reason).hint("cast the column to text"));
            }
            Ok(Some((decoded.batch, (rows, session))))
        });
        Ok(Box::pin(batches))
    }

    fn table(&self, name: &TableName) -> String {
        Place::of(name).sql()
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef> {
        let session = self.server.session().await?;
        let (fields, _) = self.columns_of(&session, sql).await?;
        self.server.give_back(session);
        Ok(Arc::new(Schema::new(fields)))
    }

    async fn stage_query(&self, part: &Part, table: &Table, sql: &str, _: DateTime<Utc>) -> Result<Receipt> {
        let layout = Layout::of(table)?;
        let session = self.server.session().await?;
        let place = self.staging_table(&session, part, table, &layout).await?;
        let receipt = staging::compute(&session, part, table, &place, &layout, sql).await?;
        self.server.give_back(session);
        Ok(receipt)
    }

    async fn create_view(&self, name: &TableName, sql: &str) -> Result<()> {
        let place = Place::of(name);
        let session = self.server.session().await?;
        let schema = ANSI.identifier(&place.schema);
        session.run(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        // A view may only gain columns; one that changes otherwise is made anew, and what hangs on it keeps it from going.
        let view = format!("VIEW {}", place.sql());
        match session.client.batch_execute(&format!("CREATE OR REPLACE {view} AS {sql}")).await {
            Err(e) if error::is_state(&e, &["42P16"]) => {
                session.run(&format!("BEGIN; DROP {view}; CREATE {view} AS {sql}; COMMIT")).await?;
            }
            made => made.map_err(error::driver)?,
        }
        self.server.give_back(session);
        Ok(())
    }

    fn staged(&self, load: &TableLoad) -> Option<String> {
        let place: Place = serde_json::from_value(load.receipts.first()?.staged.clone()).ok()?;
        Some(place.sql())
    }
}
