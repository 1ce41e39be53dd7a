//! One lake in a temporary folder, and loads into it as a run would make them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, TimeZone, Utc};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use trib_core::contract::SchemaChange;
use trib_core::load::{Deletes, TableLoad};
use trib_core::name::system;
use trib_core::{
    BatchStream, Context, Destination, Lease, Load, LoadId, Outcome, Part, Receipt, Result, SqlEngine, State, Table, TableName, WriteMode,
};
use trib_lake::Lake;

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub lake: Arc<Lake>,
    pub lease: Lease,
    number: AtomicU64,
}

/// `id, name`, the sequence being the position.
pub type Row<'a> = (i64, &'a str);

pub fn context(dir: &std::path::Path) -> Context {
    Context { connection: "lake".into(), project_dir: dir.to_owned(), threads: 2 }
}

pub fn moment(n: u64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + n as i64, 0).unwrap()
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(json!({})).await
    }

    pub async fn with(mut settings: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if settings.get("path").is_none() {
            settings["path"] = json!("lake");
        }
        let lake = trib_lake::open(&settings, &context(dir.path())).unwrap();
        let lease = Lease { sync: "shop/dev".into(), generation: 1, holder: "test".into() };
        lake.open(&lease, &[]).await.unwrap();
        Self { dir, lake, lease, number: AtomicU64::new(1) }
    }

    pub fn folder(&self, table: &str) -> std::path::PathBuf {
        self.dir.path().join("lake").join(table.replace('.', "/"))
    }

    /// The next load of the scope that is called like the table.
    pub fn load(&self, tables: Vec<TableLoad>) -> Load {
        let number = self.number.load(Ordering::SeqCst);
        Load {
            id: LoadId(format!("load{number:04}")),
            scope: "orders".into(),
            number,
            tables,
            state: State::default().with_stream("orders", json!({"at": number})),
            filled: Vec::new(),
            made_from: None,
            loaded_at: moment(number),
        }
    }

    pub async fn commit(&self, load: &Load) -> Result<Outcome> {
        let outcome = self.lake.commit(load, &self.lease).await?;
        self.number.store(load.number + 1, Ordering::SeqCst);
        Ok(outcome)
    }

    pub async fn stage(&self, table: &Table, batches: Vec<RecordBatch>) -> Receipt {
        let number = self.number.load(Ordering::SeqCst);
        self.stage_part(table, number, 0, batches).await.unwrap()
    }

    pub async fn stage_part(&self, table: &Table, number: u64, split: u32, batches: Vec<RecordBatch>) -> Result<Receipt> {
        let part = Part { load: LoadId(format!("load{number:04}")), sync: self.lease.sync.clone(), split, attempt: 0 };
        self.lake.stage(&part, table, stream(batches)).await
    }

    /// Stages and commits rows of `id, name` in one load.
    pub async fn rows(&self, table: &Table, rows: &[Row<'_>]) -> Counts {
        let batch = self.batch(table, rows, None);
        self.batches(table, vec![batch]).await
    }

    /// The same with an operation for each row.
    pub async fn changes(&self, table: &Table, rows: &[(&str, i64, &str)]) -> Counts {
        let plain: Vec<Row<'_>> = rows.iter().map(|r| (r.1, r.2)).collect();
        let ops: Vec<&str> = rows.iter().map(|r| r.0).collect();
        let batch = self.batch(table, &plain, Some(&ops));
        self.batches(table, vec![batch]).await
    }

    pub async fn batches(&self, table: &Table, batches: Vec<RecordBatch>) -> Counts {
        let receipt = self.stage(table, batches).await;
        let load = self.load(vec![TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts: vec![receipt] }]);
        counts(&self.commit(&load).await.unwrap())
    }

    pub fn batch(&self, table: &Table, rows: &[Row<'_>], ops: Option<&[&str]>) -> RecordBatch {
        let number = self.number.load(Ordering::SeqCst);
        staged(&table.staging_schema(), rows, ops, number)
    }

    pub async fn query(&self, sql: &str) -> Vec<String> {
        query(&self.lake, sql).await
    }

    /// `id=name` of each row, in order of both.
    pub async fn content(&self) -> Vec<String> {
        self.query("select id, name from orders order by 1, 2").await
    }

    /// Parquet files in the table's folder that are not part of the table.
    pub fn loose(&self) -> Vec<String> {
        let folder = self.folder("main.orders");
        let all = std::fs::read_dir(&folder).into_iter().flatten().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut logged = String::new();
        for entry in std::fs::read_dir(folder.join("_delta_log")).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                logged += &std::fs::read_to_string(path).unwrap();
            }
        }
        all.filter(|f| f.contains(".parquet") && !logged.contains(f.as_str())).collect()
    }
}

pub type Counts = (u64, u64, u64);

pub fn counts(outcome: &Outcome) -> Counts {
    let t = &outcome.tables[0];
    (t.inserted, t.updated, t.deleted)
}

pub fn stream(batches: Vec<RecordBatch>) -> BatchStream {
    futures::stream::iter(batches.into_iter().map(Ok)).boxed()
}

/// Fills a staging schema: `id`, `name` and `region` from the rows, system columns from the load.
pub fn staged(schema: &SchemaRef, rows: &[Row<'_>], ops: Option<&[&str]>, number: u64) -> RecordBatch {
    let columns = schema.fields().iter().map(|f| -> ArrayRef {
        match f.name().as_str() {
            "id" | "order_id" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            "name" => Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            "region" => Arc::new(StringArray::from(vec![if number.is_multiple_of(2) { "de" } else { "us" }; rows.len()])),
            system::LOAD_ID => Arc::new(StringArray::from(vec![format!("load{number:04}"); rows.len()])),
            system::LOADED_AT => {
                let at = moment(number).timestamp_micros();
                Arc::new(TimestampMicrosecondArray::from(vec![at; rows.len()]).with_timezone("UTC"))
            }
            system::SEQ => Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)),
            system::OP => Arc::new(StringArray::from(ops.unwrap().to_vec())),
            other => panic!("no value for {other}"),
        }
    });
    let columns: Vec<ArrayRef> = columns.collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

pub fn table(write: WriteMode) -> Table {
    table_with(write, Deletes::Hard)
}

pub fn table_with(write: WriteMode, deletes: Deletes) -> Table {
    let mut fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    fields.extend(Table::system_fields(write, deletes));
    Table {
        name: TableName::parse("main.orders"),
        schema: Arc::new(Schema::new(fields)),
        key: if write.needs_key() { vec!["id".into()] } else { vec![] },
        write,
        deletes,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    }
}

pub async fn query(lake: &Lake, sql: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = SqlEngine::query(lake, sql).await.unwrap().try_collect().await.unwrap();
    let options = FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for batch in &batches {
        let columns: Vec<ArrayFormatter<'_>> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for i in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("="));
        }
    }
    lines
}
