//! A table's columns change with its loads.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::contract::{Contract, SchemaChange, meet};
use trib_core::load::{Deletes, TableLoad};
use trib_core::{Destination, Table, TableName, WriteMode};

use crate::harness::Bench;

fn table(write: WriteMode, fields: Vec<Field>) -> Table {
    Table {
        name: TableName::parse("main.orders"),
        schema: Arc::new(Schema::new(fields)),
        key: if write.needs_key() { vec!["id".into()] } else { vec![] },
        write,
        deletes: Deletes::Hard,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    }
}

fn field(name: &str, t: DataType, nullable: bool) -> Field {
    Field::new(name, t, nullable)
}

/// Loads columns as the engine would: the plan's schema and changes, rows of exactly that schema.
async fn load(bench: &Bench, write: WriteMode, incoming: Vec<Field>, columns: Vec<ArrayRef>) -> Vec<SchemaChange> {
    let existing = bench.lake.inspect(&TableName::parse("main.orders")).await.unwrap();
    let existing = existing.filter(|_| write != WriteMode::Replace);
    let incoming = Schema::new(incoming);
    let meeting = meet(existing.as_ref(), &incoming, &Contract::default(), |f| Ok(bench.lake.column_type(f)?.native)).unwrap();
    let mut table = table(write, vec![]);
    table.schema = meeting.schema.clone();
    let rows = columns[0].len();
    let staging = table.staging_schema();
    let columns = staging.fields().iter().map(|f| match incoming.index_of(f.name()) {
        Ok(at) => arrow::compute::cast(&columns[at], f.data_type()).unwrap(),
        Err(_) if f.name().starts_with("_trib_seq") => Arc::new(Int64Array::from_iter_values(0..rows as i64)) as ArrayRef,
        Err(_) => arrow::array::new_null_array(f.data_type(), rows),
    });
    let batch = RecordBatch::try_new(staging.clone(), columns.collect()).unwrap();
    let receipt = bench.stage(&table, vec![batch]).await;
    let load = bench.load(vec![TableLoad { table, changes: meeting.changes.clone(), receipts: vec![receipt] }]);
    bench.commit(&load).await.unwrap();
    meeting.changes
}

fn ids(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_widen_and_loosen() {
    for write in [WriteMode::Append, WriteMode::Upsert] {
        let bench = Bench::new().await;
        load(
            &bench,
            write,
            vec![field("id", DataType::Int32, false), field("a", DataType::Utf8, false)],
            vec![ids(&[1, 2]), texts(&["x", "y"])],
        )
        .await;
        // A new column, and `a` may be missing now.
        let changes = load(
            &bench,
            write,
            vec![field("id", DataType::Int32, false), field("a", DataType::Utf8, true), field("b", DataType::Boolean, true)],
            vec![ids(&[3]), Arc::new(StringArray::from(vec![None::<&str>])), Arc::new(arrow::array::BooleanArray::from(vec![true]))],
        )
        .await;
        assert_eq!(changes.len(), 2, "{changes:?}");
        // A wider key: the files that are there are written again.
        let big: ArrayRef = Arc::new(Int64Array::from(vec![2, 5_000_000_000]));
        let changes =
            load(&bench, write, vec![field("id", DataType::Int64, false), field("a", DataType::Utf8, true)], vec![big, texts(&["Y", "z"])])
                .await;
        assert!(matches!(changes[..], [SchemaChange::WidenColumn { .. }]), "{changes:?}");
        let expected: &[&str] = match write {
            WriteMode::Append => &["1=x=-", "2=Y=-", "2=y=-", "3=-=true", "5000000000=z=-"],
            _ => &["1=x=-", "2=Y=-", "3=-=true", "5000000000=z=-"],
        };
        assert_eq!(bench.query("select id, a, b from orders order by 1, 2").await, expected, "{write:?}");
        let existing = bench.lake.inspect(&TableName::parse("main.orders")).await.unwrap().unwrap();
        let natives: Vec<_> = existing.columns.iter().map(|c| c.native.as_str()).collect();
        assert_eq!(natives, ["long", "string", "boolean"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_may_change_everything() {
    let bench = Bench::new().await;
    load(
        &bench,
        WriteMode::Replace,
        vec![field("id", DataType::Int32, false), field("a", DataType::Utf8, false)],
        vec![ids(&[1]), texts(&["x"])],
    )
    .await;
    load(&bench, WriteMode::Replace, vec![field("a", DataType::Int32, true)], vec![ids(&[7])]).await;
    assert_eq!(bench.query("select * from orders").await, ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_without_zone_comes_later() {
    let bench = Bench::new().await;
    load(&bench, WriteMode::Append, vec![field("id", DataType::Int32, false)], vec![ids(&[1])]).await;
    let at: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![1]));
    let t = at.data_type().clone();
    load(&bench, WriteMode::Append, vec![field("id", DataType::Int32, false), field("at", t, true)], vec![ids(&[2]), at]).await;
    assert_eq!(bench.query("select id, at from orders order by 1").await, ["1=-", "2=1970-01-01T00:00:00.000001"]);
}
