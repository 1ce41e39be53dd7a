//! SQLite, against the library itself.

mod incremental;
mod modes;
mod protocol;
mod reading;
mod roundtrip;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use futures::stream::StreamExt;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use trib_core::contract::SchemaChange;
use trib_core::emitter::Message;
use trib_core::load::{Deletes, RejectedRow};
use trib_core::name::system;
use trib_core::{
    Context, Destination, Emitter, Lease, Load, LoadId, Outcome, Part, Read, Receipt, Result, Source, SplitEnd, State, StreamRead, Table,
    TableLoad, TableName, WriteMode,
};

pub struct Place {
    folder: PathBuf,
    _guard: Option<TempDir>,
}

impl Place {
    pub fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        Self { folder: guard.path().to_owned(), _guard: Some(guard) }
    }

    /// In a folder that somebody else looks after.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _guard: None }
    }

    pub fn with(sql: &str) -> Self {
        let place = Self::new();
        place.connect().execute_batch(sql).unwrap();
        place
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("shop.db")
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub fn source(&self) -> Arc<dyn Source> {
        self.source_with(json!({}))
    }

    pub fn source_with(&self, settings: Value) -> Arc<dyn Source> {
        trib_connectors::sqlite::connector().make_source(&Self::settings(settings), &self.context()).unwrap()
    }

    pub fn destination(&self) -> Arc<dyn Destination> {
        self.destination_with(json!({}))
    }

    pub fn destination_with(&self, settings: Value) -> Arc<dyn Destination> {
        trib_connectors::sqlite::connector().make_destination(&Self::settings(settings), &self.context()).unwrap()
    }

    fn settings(mut settings: Value) -> Value {
        settings["path"] = "shop.db".into();
        settings
    }

    fn context(&self) -> Context {
        Context { connection: "shop".into(), project_dir: self.folder.clone(), threads: 3 }
    }

    /// All rows of a query, each as its values' text, separated by `|`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let connection = self.connect();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut out = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns)
                .map(|i| match row.get_ref(i).unwrap() {
                    rusqlite::types::ValueRef::Null => "∅".to_owned(),
                    rusqlite::types::ValueRef::Integer(i) => i.to_string(),
                    rusqlite::types::ValueRef::Real(r) => format!("{r:?}"),
                    rusqlite::types::ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
                    rusqlite::types::ValueRef::Blob(b) => format!("{b:?}"),
                })
                .collect();
            out.push(values.join("|"));
        }
        out
    }

    pub fn side_files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains("-trib-"))
            .collect();
        names.sort();
        names
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

pub fn stream_read(stream: &str, read: Read) -> StreamRead {
    StreamRead {
        stream: stream.into(),
        columns: None,
        filter: None,
        key: Vec::new(),
        read,
        split_by: None,
        parallelism: 3,
        may_stop: false,
        exactly_once: true,
    }
}

pub struct Got {
    pub batches: Vec<RecordBatch>,
    pub rejected: Vec<RejectedRow>,
    pub state: State,
    pub ends: Vec<SplitEnd>,
}

impl Got {
    pub fn rows(&self) -> Vec<String> {
        self.batches.iter().flat_map(text_rows).collect()
    }

    pub fn batch(&self) -> RecordBatch {
        concat_batches(&self.batches[0].schema(), &self.batches).unwrap()
    }
}

pub fn text_rows(batch: &RecordBatch) -> Vec<String> {
    (0..batch.num_rows())
        .map(|row| {
            let cell = |c: &ArrayRef| if c.is_null(row) { "∅".to_owned() } else { array_value_to_string(c, row).unwrap() };
            batch.columns().iter().map(cell).collect::<Vec<_>>().join("|")
        })
        .collect()
}

/// Plans and reads everything; asks the source to stop as soon as it can when `stop`.
pub async fn read(source: &Arc<dyn Source>, read: &StreamRead, state: &State, stop: bool) -> Result<Got> {
    let splits = source.plan(std::slice::from_ref(read), state).await?;
    let (mut batches, mut rejected, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for split in splits {
        // A split is plain JSON.
        let split = serde_json::from_str(&serde_json::to_string(&split).unwrap()).unwrap();
        let (mut emitter, mut receiver) = Emitter::channel(4, Arc::new(AtomicBool::new(stop)));
        let reader = source.clone();
        let reading = tokio::spawn(async move { reader.read(&split, &mut emitter).await });
        while let Some(message) = receiver.recv().await {
            match message {
                Message::Batch { batch, .. } => batches.push(batch),
                Message::Reject { row, .. } => rejected.push(row),
                Message::Schema { .. } | Message::Log { .. } => {}
            }
        }
        ends.push(reading.await.unwrap()?);
    }
    let state = source.advance(std::slice::from_ref(read), state, &ends)?;
    Ok(Got { batches, rejected, state, ends })
}

pub async fn read_full(source: &Arc<dyn Source>, stream: &str) -> Got {
    read(source, &stream_read(stream, Read::Full), &State::default(), false).await.unwrap()
}

pub fn lease(generation: u64) -> Lease {
    Lease { sync: "shop".into(), generation, holder: "test".into() }
}

/// A table `t` of an id and a name, as the engine would ask for it.
pub fn table(write: WriteMode, deletes: Deletes) -> Table {
    let mut fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    fields.extend(Table::system_fields(write, deletes));
    Table {
        name: TableName::parse("t"),
        schema: Arc::new(Schema::new(fields)),
        key: vec!["id".into()],
        write,
        deletes,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    }
}

/// A row of [`table`]: id, name, operation of a change log.
pub type TestRow = (i64, Option<&'static str>, &'static str);

/// A batch of the table's staging schema; `_trib_seq` counts from `first`.
pub fn staged(table: &Table, load: &str, loaded_at: i64, first: i64, rows: &[TestRow]) -> RecordBatch {
    let schema = table.staging_schema();
    let columns = schema.fields().iter().map(|f| -> ArrayRef {
        match f.name().as_str() {
            "id" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            "name" => Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>()),
            "region" => Arc::new(StringArray::from(vec![table.scope.as_ref().unwrap().value().unwrap(); rows.len()])),
            system::LOAD_ID => Arc::new(StringArray::from(vec![load; rows.len()])),
            system::LOADED_AT => Arc::new(TimestampMicrosecondArray::from(vec![loaded_at; rows.len()]).with_timezone("UTC")),
            system::SEQ => Arc::new(Int64Array::from_iter_values(first..first + rows.len() as i64)),
            system::OP => Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
            other => panic!("{other}"),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

pub fn part(load: &str, split: u32) -> Part {
    Part { load: LoadId(load.into()), sync: "shop".into(), split, attempt: 0 }
}

pub async fn stage(destination: &Arc<dyn Destination>, part: &Part, table: &Table, batches: Vec<RecordBatch>) -> Result<Receipt> {
    destination.stage(part, table, futures::stream::iter(batches.into_iter().map(Ok)).boxed()).await
}

pub fn load(number: u64, tables: Vec<TableLoad>) -> Load {
    Load {
        id: LoadId(format!("l{number}")),
        scope: "t".into(),
        number,
        tables,
        state: State::default().with_stream("t", json!({ "n": number })),
        filled: Vec::new(),
        made_from: None,
        loaded_at: chrono::DateTime::from_timestamp(number as i64, 0).unwrap(),
    }
}

/// Stages the rows as one part for each slice, and commits them as load `number`.
pub async fn load_rows(destination: &Arc<dyn Destination>, table: &Table, number: u64, parts: &[&[TestRow]]) -> Result<Outcome> {
    destination.open(&lease(1), &[]).await?;
    let id = format!("l{number}");
    let mut receipts = Vec::new();
    let mut first = 0;
    for (split, rows) in parts.iter().enumerate() {
        let batch = staged(table, &id, number as i64 * 1_000_000, first, rows);
        first += rows.len() as i64;
        receipts.push(stage(destination, &part(&id, split as u32), table, vec![batch]).await?);
    }
    let exists = destination.inspect(&table.name).await?.is_some();
    let changes = if exists { vec![] } else { vec![SchemaChange::CreateTable] };
    destination.commit(&load(number, vec![TableLoad { table: table.clone(), changes, receipts }]), &lease(1)).await
}

/// Inserted, updated, deleted.
pub fn counts(outcome: &Outcome) -> (u64, u64, u64) {
    let t = &outcome.tables[0];
    (t.inserted, t.updated, t.deleted)
}
