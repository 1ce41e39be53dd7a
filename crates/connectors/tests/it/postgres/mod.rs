//! The PostgreSQL connector against a server of the test's own, with `psql` as the oracle.

mod faults;
mod reads;
mod round_trip;
mod threads;
mod tls;
mod wire;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream;
use serde_json::json;
use trib_connectors::postgres::connector;
use trib_core::contract::SchemaChange;
use trib_core::load::{Deletes, TableLoad};
use trib_core::name::system;
use trib_core::{Context, Destination, Lease, Load, LoadId, Outcome, Part, Receipt, Result, Source, State, Table, TableName, WriteMode};
use trib_testkit::emit;
use trib_testkit::postgres_server::PostgresServer;

/// A fresh database with both ends of the connector on it.
pub struct Database {
    pub server: Arc<PostgresServer>,
    pub name: String,
    pub source: Arc<dyn Source>,
    pub destination: Arc<dyn Destination>,
}

pub fn context() -> Context {
    Context { connection: "shop".into(), project_dir: PathBuf::from("."), threads: 4 }
}

impl Database {
    pub fn new() -> Self {
        let server = PostgresServer::shared().unwrap();
        let name = server.create_database().unwrap();
        let settings = json!({ "url": server.url(&name) });
        let source = connector().make_source(&settings, &context()).unwrap();
        let destination = connector().make_destination(&settings, &context()).unwrap();
        Self { server, name, source, destination }
    }

    /// The oracle: what `psql` prints.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql).unwrap()
    }

    /// Reads a stream as a whole.
    pub async fn read(&self, stream: &str) -> emit::Emitted {
        emit::read(self.source.as_ref(), &emit::full(stream), &State::default()).await.unwrap().0
    }

    /// Loads a stream's rows into another table.
    pub async fn copy(&self, stream: &str, into: &str, write: WriteMode, key: &[&str]) -> (Outcome, emit::Emitted) {
        let catalog = self.source.discover(&[stream.to_owned()]).await.unwrap();
        let emitted = self.read(stream).await;
        let table = table(into, catalog.stream(stream).unwrap().schema.fields().iter().map(|f| f.as_ref().clone()), key, write);
        let mut sync = Sync::begin(self.destination.clone(), into).await;
        let outcome = sync.load(&table, vec![emitted.batches.clone()]).await.unwrap();
        (outcome, emitted)
    }
}

/// A table with the system columns that its mode asks for.
pub fn table(name: &str, fields: impl IntoIterator<Item = Field>, key: &[&str], write: WriteMode) -> Table {
    table_with(name, fields, key, write, Deletes::Hard)
}

pub fn table_with(name: &str, fields: impl IntoIterator<Item = Field>, key: &[&str], write: WriteMode, deletes: Deletes) -> Table {
    let fields: Vec<Field> = fields.into_iter().chain(Table::system_fields(write, deletes)).collect();
    Table {
        name: TableName::parse(name),
        schema: Arc::new(Schema::new(fields)),
        key: key.iter().map(|k| (*k).to_owned()).collect(),
        write,
        deletes,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    }
}

/// Drives one stream of a sync, as the runtime would.
pub struct Sync {
    pub destination: Arc<dyn Destination>,
    pub lease: Lease,
    pub scope: String,
    pub number: u64,
}

impl Sync {
    pub async fn begin(destination: Arc<dyn Destination>, sync: &str) -> Self {
        Self::begin_at(destination, sync, 1).await
    }

    pub async fn begin_at(destination: Arc<dyn Destination>, sync: &str, generation: u64) -> Self {
        let lease = Lease { sync: sync.to_owned(), generation, holder: "test".into() };
        let markers = destination.open(&lease, &[]).await.unwrap();
        let number = markers.first().map_or(0, |m| m.number);
        Self { destination, lease, scope: "stream".into(), number }
    }

    pub fn next_id(&self) -> LoadId {
        LoadId(format!("{:032}", self.number + 1))
    }

    /// Later loads are later.
    pub fn loaded_at(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(19_000 + self.number as i64)
    }

    /// Stages one part per element and commits them.
    pub async fn load(&mut self, table: &Table, parts: Vec<Vec<RecordBatch>>) -> Result<Outcome> {
        let load = self.stage(table, parts).await?;
        self.commit(&load).await
    }

    pub async fn commit(&mut self, load: &Load) -> Result<Outcome> {
        let outcome = self.destination.commit(load, &self.lease).await?;
        self.number = load.number;
        Ok(outcome)
    }

    /// Stages without committing.
    pub async fn stage(&self, table: &Table, parts: Vec<Vec<RecordBatch>>) -> Result<Load> {
        let mut receipts = Vec::new();
        let mut first = 0;
        for (split, batches) in parts.into_iter().enumerate() {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            receipts.push(self.stage_part(table, split as u32, 0, &batches, first).await?);
            first += rows as i64;
        }
        Ok(self.load_of(vec![(table, receipts)]))
    }

    pub fn load_of(&self, tables: Vec<(&Table, Vec<Receipt>)>) -> Load {
        Load {
            id: self.next_id(),
            scope: self.scope.clone(),
            number: self.number + 1,
            tables: tables
                .into_iter()
                .map(|(table, receipts)| TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts })
                .collect(),
            state: State::default().with_stream("stream", json!({"value": self.number + 1})),
            filled: Vec::new(),
            made_from: None,
            loaded_at: self.loaded_at(),
        }
    }

    pub async fn stage_part(&self, table: &Table, split: u32, attempt: u32, batches: &[RecordBatch], first: i64) -> Result<Receipt> {
        let part = Part { load: self.next_id(), sync: self.lease.sync.clone(), split, attempt };
        let staged = self.stamped(table, batches, first);
        self.destination.stage(&part, table, Box::pin(stream::iter(staged.into_iter().map(Ok)))).await
    }

    /// The batches with what the engine adds.
    pub fn stamped(&self, table: &Table, batches: &[RecordBatch], mut first: i64) -> Vec<RecordBatch> {
        let schema = table.staging_schema();
        let stamp = |batch: &RecordBatch| {
            let rows = batch.num_rows();
            let columns: Vec<ArrayRef> = schema
                .fields()
                .iter()
                .map(|field| -> ArrayRef {
                    match field.name().as_str() {
                        system::LOAD_ID => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(self.next_id().0, rows))),
                        system::LOADED_AT => {
                            Arc::new(TimestampMicrosecondArray::from_value(self.loaded_at().timestamp_micros(), rows).with_timezone("UTC"))
                        }
                        system::SEQ => Arc::new(Int64Array::from_iter_values(first..first + rows as i64)),
                        name => batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")).clone(),
                    }
                })
                .collect();
            first += rows as i64;
            RecordBatch::try_new(schema.clone(), columns).unwrap()
        };
        batches.iter().map(stamp).collect()
    }
}
