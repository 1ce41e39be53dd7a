//! Every type there and back.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use chrono::{DateTime, Duration, NaiveDate};
use proptest::prelude::*;
use serde_json::{Value, json};
use trib_core::load::Deletes;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Destination, SqlEngine, Table, TableName, WriteMode};

use crate::harness::Bench;

/// Values of one row, from which each type's value is made.
#[derive(Clone, Debug)]
pub struct Sample {
    null: bool,
    int: i64,
    wide: i128,
    bits: u64,
    text: String,
    bytes: Vec<u8>,
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<bool>(),
        any::<i64>(),
        -(10i128.pow(38) - 1)..10i128.pow(38),
        any::<u64>(),
        "\\PC{0,12}",
        proptest::collection::vec(any::<u8>(), 0..20),
    )
        .prop_map(|(null, int, wide, bits, text, bytes)| Sample { null, int, wide, bits, text, bytes })
}

/// Values at the edges.
pub fn samples() -> Vec<Sample> {
    let of = |int: i64, wide: i128, bits: u64, text: &str, bytes: &[u8]| Sample {
        null: false,
        int,
        wide,
        bits,
        text: text.into(),
        bytes: bytes.into(),
    };
    vec![
        of(0, 0, 0, "", b""),
        of(i64::MAX, 10i128.pow(38) - 1, u64::MAX, "it's \"quoted\"\n\t\\", b"\0\xff"),
        of(i64::MIN, -(10i128.pow(38) - 1), f64::NEG_INFINITY.to_bits(), "Größe 🦀 日本", b"\\x00"),
        of(-1, -1, f64::MIN_POSITIVE.to_bits(), "NULL", b"text"),
        of(1, 10i128.pow(20), (0.1f64).to_bits(), "\u{0000}\u{10ffff}", b" "),
        Sample { null: true, ..of(7, 7, 7, "hidden", b"hidden") },
        of(1_700_000_000_123_456, 123, (-0.0f64).to_bits(), "null", &[0x80]),
    ]
}

pub struct Column {
    field: Field,
    array: ArrayRef,
    /// As `read_with_python.py` writes it.
    expected: Vec<Value>,
}

fn column<T, A: Array + 'static>(
    name: &str,
    samples: &[Sample],
    value: impl Fn(&Sample) -> T,
    expected: impl Fn(&T) -> Value,
    array: impl Fn(Vec<Option<T>>) -> A,
) -> Column {
    let values: Vec<Option<T>> = samples.iter().map(|s| (!s.null).then(|| value(s))).collect();
    let expected = values.iter().map(|v| v.as_ref().map_or(Value::Null, &expected)).collect();
    let array: ArrayRef = Arc::new(array(values));
    Column { field: Field::new(name, array.data_type().clone(), true), array, expected }
}

fn float(v: f64) -> Value {
    json!(format!("{:016x}", v.to_bits()))
}

fn decimal(v: i128, scale: u32) -> Value {
    let (sign, digits) = (if v < 0 { "-" } else { "" }, v.unsigned_abs());
    let one = 10u128.pow(scale);
    json!(if scale == 0 {
        format!("{sign}{digits}")
    } else {
        format!("{sign}{}.{:0width$}", digits / one, digits % one, width = scale as usize)
    })
}

fn text<T: ToString>(v: &T) -> Value {
    json!(v.to_string())
}

/// Microseconds of the years that text forms of dates reach.
fn micros(s: &Sample) -> i64 {
    s.int.rem_euclid(8_000 * 365 * 86_400 * 1_000_000) - 60_000_000_000_000_000
}

/// A NaN has many bit patterns, and only one meaning.
fn finite(s: &Sample) -> f64 {
    let v = f64::from_bits(s.bits);
    if v.is_nan() { 0.5 } else { v }
}

pub fn columns(samples: &[Sample]) -> Vec<Column> {
    let day = |s: &Sample| (micros(s) / 86_400_000_000) as i32;
    let date = |days: &i32| json!((NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + Duration::days(i64::from(*days))).to_string());
    let uuid = |s: &Sample| uuid_bytes(s.bits);
    let mut columns = vec![
        column("bool", samples, |s| s.bits.is_multiple_of(2), text, BooleanArray::from),
        column("i8", samples, |s| s.int as i8, text, Int8Array::from),
        column("i16", samples, |s| s.int as i16, text, Int16Array::from),
        column("i32", samples, |s| s.int as i32, text, Int32Array::from),
        column("i64", samples, |s| s.int, text, Int64Array::from),
        column("u8", samples, |s| s.bits as u8, text, UInt8Array::from),
        column("u16", samples, |s| s.bits as u16, text, UInt16Array::from),
        column("u32", samples, |s| s.bits as u32, text, UInt32Array::from),
        column("u64", samples, |s| s.bits, text, UInt64Array::from),
        column("f32", samples, |s| finite(s) as f32, |v| float(f64::from(*v)), Float32Array::from),
        column("f64", samples, finite, |v| float(*v), Float64Array::from),
        column(
            "d15_2",
            samples,
            |s| s.wide % 10i128.pow(15),
            |v| decimal(*v, 2),
            |v| Decimal128Array::from(v).with_precision_and_scale(15, 2).unwrap(),
        ),
        column("d38_10", samples, |s| s.wide, |v| decimal(*v, 10), |v| Decimal128Array::from(v).with_precision_and_scale(38, 10).unwrap()),
        column(
            "d256",
            samples,
            |s| s.wide,
            |v| decimal(*v, 0),
            |v| {
                v.into_iter()
                    .map(|x| x.map(arrow::datatypes::i256::from_i128))
                    .collect::<Decimal256Array>()
                    .with_precision_and_scale(38, 0)
                    .unwrap()
            },
        ),
        column("date", samples, day, date, Date32Array::from),
        column("date64", samples, day, date, |v| v.into_iter().map(|d| d.map(|d| i64::from(d) * 86_400_000)).collect::<Date64Array>()),
        column("ts", samples, micros, text, |v| TimestampMicrosecondArray::from(v).with_timezone("UTC")),
        column("ts_zone", samples, micros, text, |v| TimestampMicrosecondArray::from(v).with_timezone("+05:30")),
        column(
            "ts_s",
            samples,
            |s| micros(s) / 1_000_000,
            |v| text(&(v * 1_000_000)),
            |v| TimestampSecondArray::from(v).with_timezone("UTC"),
        ),
        column("ntz", samples, micros, text, TimestampMicrosecondArray::from),
        column("ntz_ms", samples, |s| micros(s) / 1_000, |v| text(&(v * 1_000)), TimestampMillisecondArray::from),
        column("text", samples, |s| s.text.clone(), text, StringArray::from),
        column("large", samples, |s| s.text.clone(), text, LargeStringArray::from),
        column("view", samples, |s| s.text.clone(), text, |v| v.iter().map(Option::as_deref).collect::<StringViewArray>()),
        column("bytes", samples, |s| s.bytes.clone(), |v| json!(hex(v)), |v| v.iter().map(Option::as_deref).collect::<BinaryArray>()),
        column("dict", samples, |s| s.text.clone(), text, |v| v.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>()),
        column(
            "time",
            samples,
            |s| s.bits as i64 & i64::MAX,
            |v| json!(time_text(v % 86_400_000_000)),
            |v| v.into_iter().map(|t| t.map(|t| t % 86_400_000_000)).collect::<Time64MicrosecondArray>(),
        ),
        column(
            "list",
            samples,
            |s| vec![Some(s.int as i32), None],
            |v| json!(v.iter().map(|x| x.map(|x| x.to_string())).collect::<Vec<_>>()),
            ListArray::from_iter_primitive::<Int32Type, _, _>,
        ),
        column(
            "map",
            samples,
            |s| s.text.clone(),
            |v| json!([["k", v]]),
            |v| {
                let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
                for value in v {
                    if let Some(value) = &value {
                        map.keys().append_value("k");
                        map.values().append_value(value);
                    }
                    map.append(value.is_some()).unwrap();
                }
                map.finish()
            },
        ),
    ];
    let structs = column(
        "struct",
        samples,
        |s| s.bits as u16,
        |v| json!({"n": v.to_string()}),
        |v| {
            let nulls: Vec<bool> = v.iter().map(Option::is_some).collect();
            let inner: ArrayRef = Arc::new(UInt16Array::from(v));
            StructArray::new(vec![Field::new("n", DataType::UInt16, true)].into(), vec![inner], Some(nulls.into()))
        },
    );
    columns.push(structs);
    let mut uuids = column(
        "uuid",
        samples,
        uuid,
        |v| json!(uuid_text(v)),
        |v| FixedSizeBinaryArray::try_from_sparse_iter_with_size(v.into_iter(), 16).unwrap(),
    );
    uuids.field = uuids.field.with_logical(Logical::Uuid);
    columns.push(uuids);
    let mut documents = column("json", samples, |s| json!({"t": s.text}).to_string(), text, StringArray::from);
    documents.field = documents.field.with_logical(Logical::Json).with_native("postgres", "jsonb");
    columns.push(documents);
    let nothing: ArrayRef = Arc::new(NullArray::new(samples.len()));
    columns.push(Column { field: Field::new("nothing", DataType::Null, true), array: nothing, expected: vec![Value::Null; samples.len()] });
    let row: ArrayRef = Arc::new(Int32Array::from_iter_values(0..samples.len() as i32));
    let expected = (0..samples.len()).map(|i| text(&i)).collect();
    columns.push(Column { field: Field::new("row", DataType::Int32, false), array: row, expected });
    columns
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

fn uuid_bytes(bits: u64) -> [u8; 16] {
    let mut bytes = [0xab; 16];
    bytes[..8].copy_from_slice(&bits.to_be_bytes());
    bytes
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let h = hex(bytes);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// As Arrow writes times: no more digits than needed, in groups of three.
fn time_text(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap().format("%H:%M:%S%.f").to_string()
}

pub fn table(columns: &[Column]) -> Table {
    Table {
        name: TableName::parse("main.orders"),
        schema: Arc::new(Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>())),
        key: vec![],
        write: WriteMode::Append,
        deletes: Deletes::Hard,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    }
}

pub fn batch(columns: &[Column]) -> RecordBatch {
    let schema = Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.iter().map(|c| c.array.clone()).collect()).unwrap()
}

pub fn expected(columns: &[Column]) -> Vec<Value> {
    let rows = columns[0].expected.len();
    let row = |i: usize| Value::Object(columns.iter().map(|c| (c.field.name().clone(), c.expected[i].clone())).collect());
    (0..rows).map(row).collect()
}

/// What a query gives, in the same form.
fn canonical(array: &ArrayRef, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(i))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(i)),
        DataType::Decimal128(_, s) => decimal(array.as_primitive::<Decimal128Type>().value(i), *s as u32),
        DataType::Timestamp(..) => text(&array.as_primitive::<TimestampMicrosecondType>().value(i)),
        DataType::Binary => json!(hex(array.as_binary::<i32>().value(i))),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(i);
            Value::Array((0..items.len()).map(|j| canonical(&items, j)).collect())
        }
        DataType::Map(..) => {
            let pairs = array.as_map().value(i);
            Value::Array((0..pairs.len()).map(|j| json!([canonical(pairs.column(0), j), canonical(pairs.column(1), j)])).collect())
        }
        DataType::Struct(fields) => {
            let row = array.as_struct();
            Value::Object(fields.iter().zip(row.columns()).map(|(f, c)| (f.name().clone(), canonical(c, i))).collect())
        }
        _ => json!(arrow::util::display::array_value_to_string(array, i).unwrap()),
    }
}

async fn round_trip(samples: Vec<Sample>) {
    let bench = Bench::new().await;
    let columns = columns(&samples);
    let table = table(&columns);
    bench.batches(&table, vec![batch(&columns)]).await;
    let sql = "select * from orders order by row";
    let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(bench.lake.query(sql).await.unwrap()).await.unwrap();
    let mut got = Vec::new();
    for batch in &batches {
        for i in 0..batch.num_rows() {
            let fields = batch.schema().fields().clone();
            got.push(Value::Object(fields.iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), canonical(c, i))).collect()));
        }
    }
    assert_eq!(got, expected(&columns));
    // What the table has is what was promised.
    let existing = bench.lake.inspect(&table.name).await.unwrap().unwrap();
    for (have, column) in existing.columns.iter().zip(&columns) {
        assert_eq!(have.native, bench.lake.column_type(&column.field).unwrap().native, "{}", have.field.name());
        assert_eq!(have.native, bench.lake.column_type(&have.field).unwrap().native, "{}", have.field.name());
        assert_eq!(have.field.logical(), column.field.logical(), "{}", have.field.name());
    }
    let document = existing.columns.iter().find(|c| c.field.name() == "json").unwrap();
    assert_eq!(document.field.native("postgres"), Some("jsonb"));
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_come_back() {
    round_trip(samples()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn values_come_back(samples in proptest::collection::vec(sample(), 1..40)) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(round_trip(samples));
    }
}
