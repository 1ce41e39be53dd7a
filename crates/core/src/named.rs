//! The ends that a connector has made, so that every error of theirs says which connection it is about.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::BatchStream;
use crate::catalog::Catalog;
use crate::delivery::{Delivers, Object, Operation};
use crate::destination::{Capabilities, ColumnType, Destination, ExistingTable, SqlEngine};
use crate::emitter::Emitter;
use crate::error::{Code, Error, Result};
use crate::load::{Lease, Load, LoadId, Marker, Outcome, Part, Receipt, RejectedRow, Table, TableLoad};
use crate::name::TableName;
use crate::source::{Source, Split, SplitEnd, StreamRead};
use crate::state::State;

/// A source or a destination under the user's name for its connection.
pub struct Named<T: ?Sized> {
    inner: Arc<T>,
    connection: String,
}

impl<T: ?Sized> Named<T> {
    pub fn new(inner: Arc<T>, connection: &str) -> Self {
        Self { inner, connection: connection.to_owned() }
    }

    fn named<O>(&self, result: Result<O>) -> Result<O> {
        result.map_err(|e| self.name(e))
    }

    fn name(&self, e: Error) -> Error {
        // Who was told to stop has not failed.
        if e.code() == Code::Cancelled { e } else { e.connection(&self.connection) }
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default in place of the inner one would be lost")]
#[async_trait]
impl Source for Named<dyn Source> {
    async fn check(&self) -> Result<()> {
        self.named(self.inner.check().await)
    }

    async fn discover(&self, only: &[String]) -> Result<Catalog> {
        self.named(self.inner.discover(only).await)
    }

    fn streams_together(&self) -> bool {
        self.inner.streams_together()
    }

    fn remembered_elsewhere(&self) -> bool {
        self.inner.remembered_elsewhere()
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        self.named(self.inner.plan(reads, state).await)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        self.named(self.inner.read(split, out).await)
    }

    fn inside(&self, split: &Split) -> Result<Option<String>> {
        self.named(self.inner.inside(split))
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        self.named(self.inner.advance(reads, state, ends))
    }

    async fn acknowledge(&self, state: &State) -> Result<()> {
        self.named(self.inner.acknowledge(state).await)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default in place of the inner one would be lost")]
#[async_trait]
impl Destination for Named<dyn Destination> {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        self.named(self.inner.column_type(field))
    }

    async fn check(&self) -> Result<()> {
        self.named(self.inner.check().await)
    }

    async fn open(&self, lease: &Lease, tables: &[TableName]) -> Result<Vec<Marker>> {
        self.named(self.inner.open(lease, tables).await)
    }

    async fn markers(&self, sync: &str, tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        self.named(self.inner.markers(sync, tables).await)
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        self.named(self.inner.inspect(table).await)
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        self.named(self.inner.stage(part, table, rows).await)
    }

    fn wire(&self, table: &Table) -> Option<&'static str> {
        self.inner.wire(table)
    }

    async fn stage_table(&self, part: &Part, table: &Table, from: &TableName, loaded_at: DateTime<Utc>) -> Result<Receipt> {
        self.named(self.inner.stage_table(part, table, from, loaded_at).await)
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        self.named(self.inner.commit(load, lease).await)
    }

    async fn commit_together(&self, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
        self.named(self.inner.commit_together(loads).await)
    }

    async fn take_back(&self, load: &Load, lease: &Lease) -> Result<bool> {
        self.named(self.inner.take_back(load, lease).await)
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        self.named(self.inner.abort(load).await)
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        self.named(self.inner.sweep(lease, keep).await)
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], tables: &[TableName]) -> Result<()> {
        self.named(self.inner.forget(lease, scopes, tables).await)
    }

    async fn maintain(&self, table: &TableName, retention: Duration) -> Result<String> {
        self.named(self.inner.maintain(table, retention).await)
    }

    fn sql(&self) -> Option<&dyn SqlEngine> {
        self.inner.sql().map(|_| self as &dyn SqlEngine)
    }

    fn deliveries(&self) -> Option<&dyn Delivers> {
        self.inner.deliveries().map(|_| self as &dyn Delivers)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default in place of the inner one would be lost")]
#[async_trait]
impl Delivers for Named<dyn Destination> {
    fn object(&self, name: &str) -> Result<Object> {
        self.named(self.delivering()?.object(name))
    }

    fn objects(&self) -> Vec<Object> {
        self.inner.deliveries().map(Delivers::objects).unwrap_or_default()
    }

    async fn describe(&self, name: &str) -> Result<Object> {
        self.named(self.delivering()?.describe(name).await)
    }

    async fn list(&self) -> Result<Vec<Object>> {
        self.named(self.delivering()?.list().await)
    }

    fn stop(&self, sync: &str) {
        if let Some(inner) = self.inner.deliveries() {
            inner.stop(sync);
        }
    }

    fn trouble(&self, sync: &str) -> Option<String> {
        self.inner.deliveries().and_then(|inner| inner.trouble(sync))
    }

    fn keep_requests(&self, sync: &str, scope: &str) {
        if let Some(inner) = self.inner.deliveries() {
            inner.keep_requests(sync, scope);
        }
    }

    async fn kept_requests(&self, sync: &str, load: &LoadId, place: &str) -> Result<Vec<serde_json::Value>> {
        self.named(self.delivering()?.kept_requests(sync, load, place).await)
    }

    fn least_time(&self, object: &str, calls: &[(Operation, u64)]) -> Option<Duration> {
        self.inner.deliveries().and_then(|inner| inner.least_time(object, calls))
    }

    async fn requests(&self, object: &str, key: &[String], rows: BatchStream) -> Result<Vec<serde_json::Value>> {
        self.named(self.delivering()?.requests(object, key, rows).await)
    }

    async fn settled(&self, sync: &str, scope: &str) -> Result<Vec<LoadId>> {
        self.named(self.delivering()?.settled(sync, scope).await)
    }

    async fn fates(&self, sync: &str, load: &LoadId) -> Result<BatchStream> {
        self.named(self.delivering()?.fates(sync, load).await)
    }

    async fn undelivered(&self, sync: &str, load: &LoadId) -> Result<Vec<RejectedRow>> {
        self.named(self.delivering()?.undelivered(sync, load).await)
    }

    async fn noted(&self, sync: &str, load: &LoadId) -> Result<()> {
        self.named(self.delivering()?.noted(sync, load).await)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default in place of the inner one would be lost")]
#[async_trait]
impl SqlEngine for Named<dyn Destination> {
    async fn query(&self, sql: &str) -> Result<BatchStream> {
        self.named(self.engine()?.query(sql).await)
    }

    fn table(&self, name: &TableName) -> String {
        self.inner.sql().map_or_else(|| name.to_string(), |engine| engine.table(name))
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef> {
        self.named(self.engine()?.describe(sql).await)
    }

    async fn stage_query(&self, part: &Part, table: &Table, sql: &str, loaded_at: DateTime<Utc>) -> Result<Receipt> {
        self.named(self.engine()?.stage_query(part, table, sql, loaded_at).await)
    }

    async fn create_view(&self, name: &TableName, sql: &str) -> Result<()> {
        self.named(self.engine()?.create_view(name, sql).await)
    }

    fn staged(&self, load: &TableLoad) -> Option<String> {
        self.inner.sql()?.staged(load)
    }
}

impl Named<dyn Destination> {
    fn delivering(&self) -> Result<&dyn Delivers> {
        self.inner.deliveries().ok_or_else(|| Error::internal("a destination that delivers nothing was asked about deliveries"))
    }

    fn engine(&self) -> Result<&dyn SqlEngine> {
        self.inner.sql().ok_or_else(|| Error::internal("a destination without SQL was asked a query"))
    }
}
