//! Peak memory of an upsert, for tables of different sizes: `merge_memory [TABLE_ROWS] [LOAD_ROWS]`.
//!
//! Each size needs a process of its own, since a process never tells of a peak that is lower than an earlier one:
//! `for rows in 6000000 20000000; do cargo run --release -p trib-lake --example merge_memory -- $rows 1000000; done`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use serde_json::json;
use trib_core::load::{Deletes, TableLoad};
use trib_core::{Context, Destination, Lease, Load, LoadId, Part, State, Table, TableName, WriteMode};

/// The one that `trib` has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<i64>().unwrap());
    let (table_rows, load_rows) = (numbers.next().unwrap_or(6_000_000), numbers.next().unwrap_or(1_000_000));
    let folder = std::env::temp_dir().join(format!("trib-merge-{}", std::process::id()));
    let context = Context { connection: "lake".into(), project_dir: folder.clone(), threads: 2 };
    let lake = trib_lake::open(&json!({"path": "lake"}), &context).unwrap();
    let lease = Lease { sync: "memory".into(), generation: 1, holder: "example".into() };
    lake.open(&lease, &[]).await.unwrap();

    // Every key of the load is somewhere in the table, spread over all of its files.
    let step = (table_rows / load_rows).max(1);
    for (number, rows, step) in [(1, table_rows, 1), (2, load_rows, step)] {
        let started = Instant::now();
        let table = Table {
            name: TableName::parse("main.big"),
            schema: Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, false),
                Field::new("text", DataType::Utf8, true),
                Field::new("number", DataType::Int64, true),
            ])),
            key: vec!["id".into()],
            write: if number == 1 { WriteMode::Append } else { WriteMode::Upsert },
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: vec![],
            changes: false,
        };
        let schema = table.staging_schema();
        let batches = (0..rows).step_by(8192).map(move |from| {
            let ids: Vec<i64> = (from..(from + 8192).min(rows)).map(|i| i * step).collect();
            let texts = StringArray::from_iter_values(ids.iter().map(|i| format!("row {i} of load {number}")));
            let numbers = Int64Array::from_iter_values(ids.iter().map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)));
            let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.clone())), Arc::new(texts), Arc::new(numbers)];
            if schema.fields().len() > 3 {
                columns.push(Arc::new(Int64Array::from_iter_values(from..from + ids.len() as i64)));
            }
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        });
        let id = LoadId(format!("load{number}"));
        let part = Part { load: id.clone(), sync: lease.sync.clone(), split: 0, attempt: 0 };
        let receipt = lake.stage(&part, &table, futures::stream::iter(batches).boxed()).await.unwrap();
        let staged = started.elapsed();
        let load = Load {
            id,
            scope: "big".into(),
            number,
            tables: vec![TableLoad { table, changes: vec![], receipts: vec![receipt] }],
            state: State::default(),
            filled: Vec::new(),
            made_from: None,
            loaded_at: chrono::Utc::now(),
        };
        let outcome = lake.commit(&load, &lease).await.unwrap();
        println!(
            "load {number}: {rows} rows, staged in {staged:.1?}, committed after {:.1?}, {:?}, peak {} MB",
            started.elapsed(),
            outcome.tables.first().map(|t| (t.inserted, t.updated)),
            peak_mb()
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Greatest resident memory of this process so far.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}
