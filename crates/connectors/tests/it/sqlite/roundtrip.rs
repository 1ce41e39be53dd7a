//! Every type there and back, and queries.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch, StringArray,
    Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Field, IntervalMonthDayNano, Schema, i256};
use futures::TryStreamExt;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use trib_core::contract::SchemaChange;
use trib_core::load::Deletes;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, Table, TableLoad, WriteMode};

use super::{Place, lease, load, part, read_full, stage, table};

/// Loads the batch into a new table and reads it again, once by the source and once by a query.
async fn there_and_back(batch: &RecordBatch) -> (RecordBatch, RecordBatch) {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let table = Table { schema: batch.schema(), key: vec![], ..table(WriteMode::Append, Deletes::Hard) };
    let receipt = stage(&destination, &part("l1", 0), &table, vec![batch.clone()]).await.unwrap();
    assert_eq!(receipt.rejected, []);
    let tables = vec![TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts: vec![receipt] }];
    destination.commit(&load(1, tables), &lease(1)).await.unwrap();
    let existing = destination.inspect(&table.name).await.unwrap().unwrap();
    for (column, field) in existing.columns.iter().zip(batch.schema().fields()) {
        assert_eq!(column.native, destination.column_type(field).unwrap().native);
        assert_eq!(column.field.data_type(), field.data_type());
        assert_eq!(column.field.logical(), field.logical());
    }
    let got = read_full(&place.source(), "t").await;
    assert_eq!(got.rejected, []);
    let queried: Vec<RecordBatch> = destination.sql().unwrap().query("SELECT * FROM t").await.unwrap().try_collect().await.unwrap();
    (got.batch(), arrow::compute::concat_batches(&queried[0].schema(), &queried).unwrap())
}

const ROWS: usize = 8;
/// Microseconds of the years that have four digits.
const YEARS: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[0-9]{1,25}", "-?[0-9]{1,3}\\.[0-9]{1,3}", "[0-9]e[0-9]{1,3}", Just(String::new()), Just(" 1".to_owned())]
}

macro_rules! column {
    ($name:literal, $strategy:expr, $make:expr) => {
        vec(of($strategy), ROWS).prop_map(move |values| {
            let array: ArrayRef = Arc::new($make(values));
            (Field::new($name, array.data_type().clone(), true), array)
        })
    };
}

fn numbers() -> impl Strategy<Value = Vec<(Field, ArrayRef)>> {
    let finite = any::<f64>().prop_filter("SQLite has no NaN and no negative zero", |f| !f.is_nan() && (*f != 0.0 || f.is_sign_positive()));
    let finite32 =
        any::<f32>().prop_filter("SQLite has no NaN and no negative zero", |f| !f.is_nan() && (*f != 0.0 || f.is_sign_positive()));
    let digits = |n: u32| -(10_i128.pow(n) - 1)..10_i128.pow(n);
    let decimal = |p, s| move |v: Vec<Option<i128>>| Decimal128Array::from(v).with_precision_and_scale(p, s).unwrap();
    let wide = |v: Vec<Option<i128>>| {
        let scaled = v.into_iter().map(|v| v.map(|v| i256::from_i128(v).wrapping_mul(i256::from_i128(10_i128.pow(37)))));
        scaled.collect::<Decimal256Array>().with_precision_and_scale(76, 30).unwrap()
    };
    (
        (column!("i8", any::<i8>(), Int8Array::from), column!("i16", any::<i16>(), Int16Array::from)),
        (column!("i32", any::<i32>(), Int32Array::from), column!("i64", any::<i64>(), Int64Array::from)),
        (column!("u8", any::<u8>(), UInt8Array::from), column!("u16", any::<u16>(), UInt16Array::from)),
        (column!("u32", any::<u32>(), UInt32Array::from), column!("u64", any::<u64>(), UInt64Array::from)),
        (column!("f32", finite32, Float32Array::from), column!("f64", finite, Float64Array::from)),
        (column!("d15", digits(15), decimal(15, 2)), column!("d15s15", digits(15), decimal(15, 15))),
        (column!("d18", digits(18), decimal(18, 0)), column!("d16", digits(16), decimal(16, 1))),
        (column!("d38", digits(38), decimal(38, 20)), column!("d76", digits(38), wide)),
        column!("bool", any::<bool>(), BooleanArray::from),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i)| vec![a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1, e.0, e.1, f.0, f.1, g.0, g.1, h.0, h.1, i])
}

fn others() -> impl Strategy<Value = Vec<(Field, ArrayRef)>> {
    let uuids = vec(of(any::<[u8; 16]>()), ROWS).prop_map(|values| {
        let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16).unwrap();
        (Field::new("uuid", array.data_type().clone(), true).with_logical(Logical::Uuid), Arc::new(array) as ArrayRef)
    });
    let json = column!("json", prop_oneof!["[0-9]{1,20}", "-?[0-9]\\.[0-9]0", Just("{\"a\":[1.0]}".to_owned())], StringArray::from);
    let interval = (any::<i32>(), any::<i32>(), any::<i64>()).prop_map(|(m, d, n)| IntervalMonthDayNano::new(m, d, n));
    let zoned = |v: Vec<Option<i64>>| TimestampMicrosecondArray::from(v).with_timezone("UTC");
    let zoned_nanos = |v: Vec<Option<i64>>| TimestampNanosecondArray::from(v).with_timezone("UTC");
    (
        (column!("text", text(), StringArray::from), json.prop_map(|(f, a)| (f.with_logical(Logical::Json), a))),
        (
            column!("blob", vec(any::<u8>(), 0..20), |v: Vec<Option<Vec<u8>>>| v.iter().map(Option::as_deref).collect::<BinaryArray>()),
            uuids,
        ),
        (column!("date", any::<i32>(), Date32Array::from), column!("ts", YEARS, TimestampMicrosecondArray::from)),
        (
            column!("ts_s", -4_000_000_000_000..4_000_000_000_000_i64, TimestampSecondArray::from),
            column!("ts_ms", any::<i64>(), TimestampMillisecondArray::from),
        ),
        (column!("ts_ns", any::<i64>(), TimestampNanosecondArray::from), column!("tz", any::<i64>(), zoned)),
        (column!("tz_ns", any::<i64>(), zoned_nanos), column!("time_s", 0..86_400, Time32SecondArray::from)),
        (
            column!("time_ms", 0..86_400_000, Time32MillisecondArray::from),
            column!("time", 0..86_400_000_000_i64, Time64MicrosecondArray::from),
        ),
        (
            column!("time_ns", 0..86_400_000_000_000_i64, Time64NanosecondArray::from),
            column!("interval", interval, IntervalMonthDayNanoArray::from),
        ),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| vec![a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1, e.0, e.1, f.0, f.1, g.0, g.1, h.0, h.1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_value_comes_back(columns in (numbers(), others()).prop_map(|(a, b)| [a, b].concat())) {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (read, queried) = runtime.block_on(there_and_back(&batch));
        for (i, field) in batch.schema().fields().iter().enumerate() {
            prop_assert_eq!(read.column(i), batch.column(i), "{} by the source", field.name());
            prop_assert_eq!(queried.column(i), batch.column(i), "{} by a query", field.name());
        }
    }
}

#[tokio::test]
async fn what_sqlite_cannot_hold_is_rejected_by_row() {
    let place = Place::new();
    let destination = place.destination();
    let floats = Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::INFINITY), None]);
    let batch = RecordBatch::try_from_iter([("x", Arc::new(floats) as ArrayRef)]).unwrap();
    let table = Table { schema: batch.schema(), key: vec![], ..table(WriteMode::Append, Deletes::Hard) };
    let receipt = stage(&destination, &part("l1", 0), &table, vec![batch]).await.unwrap();
    assert_eq!((receipt.rows, receipt.rejected.len()), (3, 1));
    assert!(receipt.rejected[0].reason.contains("x holds NaN"), "{:?}", receipt.rejected);
}

#[tokio::test]
async fn queries_read_and_only_read() {
    let place = Place::with("CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    let destination = place.destination();
    let sql = destination.sql().unwrap();
    let run = |query: &'static str| async move { sql.query(query).await.unwrap().try_collect::<Vec<RecordBatch>>().await };
    let got = run("SELECT sum(a) AS s, avg(a) AS m, max(b) AS t, NULL AS n, b FROM t").await.unwrap();
    assert_eq!(super::text_rows(&got[0]), ["3|1.5|x|∅|x"]);
    let types: Vec<String> = got[0].schema().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Float64", "Utf8", "Utf8", "Utf8"]);
    // No rows still have a schema.
    assert_eq!(run("SELECT a FROM t WHERE a > 5").await.unwrap()[0].num_columns(), 1);
    for refused in ["DELETE FROM t", "SELECT nothing FROM t", "CREATE TABLE u (x)", "DELETE FROM t RETURNING a"] {
        assert_eq!(run(refused).await.unwrap_err().code(), Code::UsageInvalid, "{refused}");
    }
    assert_eq!(place.rows("SELECT count(*) FROM t"), ["2"]);
}
