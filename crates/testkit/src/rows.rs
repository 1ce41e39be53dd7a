//! Rows as text that two systems agree on, for comparing.
//!
//! What differs only in storage is the same here: `Utf8` and `LargeUtf8`, a dictionary and its values, `1.5` with one or three places,
//! microseconds and nanoseconds, key order within JSON. What differs in meaning is not: NULL and `''`, a zoned and an unzoned time, a number and its text.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, IntervalMonthDayNanoArray, LargeListArray, LargeStringArray, MapArray, RecordBatch, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal256Type, Field, Float64Type, Int64Type, IntervalUnit, TimeUnit, UInt64Type};
use chrono::{DateTime, NaiveDate, TimeDelta};
use serde_json::Value;
use trib_core::logical::{FieldExt, Logical};

/// A row: canonical text by column.
pub type Row = BTreeMap<String, String>;

/// How NULL is written. No value of another kind is written so.
pub const NULL: &str = "NULL";

/// The rows in their order.
pub fn rows(batches: &[RecordBatch]) -> Vec<Row> {
    let mut all = Vec::new();
    for batch in batches {
        let mut of_batch = vec![Row::new(); batch.num_rows()];
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            for (row, text) in of_batch.iter_mut().zip(column(field, array)) {
                row.insert(field.name().clone(), text);
            }
        }
        all.extend(of_batch);
    }
    all
}

/// One line per row, columns by name, lines sorted: equal for equal contents, whatever their order.
pub fn canonical(batches: &[RecordBatch]) -> Vec<String> {
    lines(&rows(batches))
}

/// [`canonical`] of rows that were taken apart already.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> =
        rows.iter().map(|row| row.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    lines
}

/// The first lines that only one side has, for a message; `None` when both are equal.
pub fn difference(expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for (lines, n) in [(a, 1), (b, -1)] {
            for line in lines {
                *counts.entry(line).or_default() += n;
            }
        }
        counts.into_iter().filter(|(_, n)| *n > 0).map(|(line, n)| format!("    {n} × {line}")).take(5).collect()
    };
    Some(format!(
        "{} rows expected, {} found\n  missing:\n{}\n  too many:\n{}",
        expected.len(),
        found.len(),
        only(expected, found).join("\n"),
        only(found, expected).join("\n"),
    ))
}

/// Canonical text of every value of a column.
pub fn column(field: &Field, array: &ArrayRef) -> Vec<String> {
    let mut texts = values(field, array);
    for (i, text) in texts.iter_mut().enumerate() {
        if array.is_null(i) {
            NULL.clone_into(text);
        }
    }
    texts
}

fn values(field: &Field, array: &ArrayRef) -> Vec<String> {
    let all = 0..array.len();
    let to = |t: DataType| cast(array, &t).expect("a cast between forms of one type");
    match array.data_type() {
        DataType::Null => vec![NULL.to_owned(); array.len()],
        DataType::Boolean => array.as_boolean().values().iter().map(|b| b.to_string()).collect(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().values().iter().map(u64::to_string).collect(),
        t if t.is_integer() => to(DataType::Int64).as_primitive::<Int64Type>().values().iter().map(i64::to_string).collect(),
        // A narrower float is written with its own digits: 0.1 stays 0.1.
        DataType::Float32 | DataType::Float16 => {
            to(DataType::Float32).as_primitive::<arrow::datatypes::Float32Type>().values().iter().map(|f| float(f64::from(*f), f)).collect()
        }
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().map(|f| float(*f, f)).collect(),
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => {
            let wide = to(DataType::Decimal256(76, *s));
            let wide = wide.as_primitive::<Decimal256Type>();
            all.map(|i| if wide.is_null(i) { String::new() } else { decimal(&wide.value_as_string(i)) }).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = to(DataType::LargeUtf8);
            let texts: &LargeStringArray = texts.as_string();
            all.map(|i| text(field, texts.value(i))).collect()
        }
        DataType::FixedSizeBinary(16) if field.logical() == Some(Logical::Uuid) => {
            let bytes = array.as_fixed_size_binary();
            all.map(|i| uuid::Uuid::from_slice(bytes.value(i)).map(|u| quoted(&u.to_string())).unwrap_or_default()).collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = to(DataType::Binary);
            let bytes: &BinaryArray = bytes.as_binary();
            all.map(|i| format!("x'{}'", hex::encode(bytes.value(i)))).collect()
        }
        DataType::Date32 | DataType::Date64 => {
            let days = to(DataType::Date32);
            days.as_primitive::<Date32Type>().values().iter().map(|d| date(*d)).collect()
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let numbers = integers(array);
            numbers.iter().map(|n| format!("{} ns", i128::from(*n) * nanoseconds(*unit))).collect()
        }
        DataType::Timestamp(unit, zone) => {
            let zone = if zone.is_some() { "Z" } else { "" };
            integers(array).iter().map(|n| format!("{}{zone}", timestamp(i128::from(*n) * nanoseconds(*unit)))).collect()
        }
        // An interval without months and days.
        DataType::Duration(unit) => {
            let numbers = integers(array);
            numbers.iter().map(|n| format!("0 mon 0 d {} ns", i128::from(*n) * nanoseconds(*unit))).collect()
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals: &IntervalMonthDayNanoArray = array.as_primitive();
            intervals.values().iter().map(|v| format!("{} mon {} d {} ns", v.months, v.days, v.nanoseconds)).collect()
        }
        DataType::Interval(_) => values(field, &to(DataType::Interval(IntervalUnit::MonthDayNano))),
        DataType::Dictionary(_, value) => values(field, &to(value.as_ref().clone())),
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            let lists = to(DataType::LargeList(f.clone()));
            let lists: &LargeListArray = lists.as_list();
            let items = column(f, lists.values());
            let slice = |i: usize| &items[lists.value_offsets()[i] as usize..lists.value_offsets()[i + 1] as usize];
            all.map(|i| format!("[{}]", slice(i).join(", "))).collect()
        }
        DataType::Struct(_) => structs(array.as_struct()),
        DataType::Map(_, _) => {
            let maps: &MapArray = array.as_map();
            let entries = structs(maps.entries());
            let slice = |i: usize| {
                let mut slice = entries[maps.value_offsets()[i] as usize..maps.value_offsets()[i + 1] as usize].to_vec();
                slice.sort_unstable();
                slice
            };
            all.map(|i| format!("{{{}}}", slice(i).join(", "))).collect()
        }
        other => panic!("rows of type {other} cannot be compared yet"),
    }
}

fn structs(array: &StructArray) -> Vec<String> {
    let columns: Vec<_> = array.fields().iter().zip(array.columns()).map(|(f, c)| (f.name(), column(f, c))).collect();
    (0..array.len())
        .map(|i| {
            let members: Vec<String> = columns.iter().map(|(name, texts)| format!("{name}: {}", texts[i])).collect();
            format!("{{{}}}", members.join(", "))
        })
        .collect()
}

fn text(field: &Field, value: &str) -> String {
    match field.logical() {
        Some(Logical::Json) => serde_json::from_str::<Value>(value).map_or_else(|_| quoted(value), |v| sorted(v).to_string()),
        Some(Logical::Uuid) => quoted(&value.to_lowercase()),
        None => quoted(value),
    }
}

/// JSON with its keys in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            members.into_iter().collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// A text as a cell has it.
pub(crate) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// `own` is the value in its own width, whose shortest text is used.
fn float(value: f64, own: &impl std::fmt::Debug) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        // Zero has two signs and one value.
        0.0 => "0.0".to_owned(),
        _ => format!("{own:?}"),
    }
}

fn decimal(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn date(days: i32) -> String {
    NaiveDate::default().checked_add_signed(TimeDelta::days(days.into())).map_or_else(|| format!("day {days}"), |d| d.to_string())
}

fn timestamp(nanoseconds: i128) -> String {
    let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    i64::try_from(seconds)
        .ok()
        .and_then(|s| DateTime::from_timestamp(s, rest as u32))
        .map_or_else(|| format!("{nanoseconds} ns"), |t| t.format("%Y-%m-%dT%H:%M:%S%.9f").to_string())
}

fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The numbers that times are stored as.
fn integers(array: &ArrayRef) -> Vec<i64> {
    let data = array.to_data();
    if matches!(array.data_type(), DataType::Time32(_)) {
        return data.buffer::<i32>(0)[..array.len()].iter().map(|n| i64::from(*n)).collect();
    }
    data.buffer::<i64>(0)[..array.len()].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float32Array, StringArray, TimestampMicrosecondArray, TimestampSecondArray};
    use std::sync::Arc;

    fn texts(array: impl Array + 'static) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        column(&Field::new("c", array.data_type().clone(), true), &array)
    }

    #[test]
    fn storage_does_not_matter_and_meaning_does() {
        assert_eq!(texts(StringArray::from(vec![Some(""), None, Some("a\"b")])), ["\"\"", "NULL", "\"a\\\"b\""]);
        assert_eq!(texts(Float32Array::from(vec![0.1, -0.0, f32::NAN])), ["0.1", "0.0", "NaN"]);
        let decimal = |p, s| texts(Decimal128Array::from(vec![Some(150), None]).with_precision_and_scale(p, s).unwrap());
        assert_eq!(decimal(10, 2), ["1.5", "NULL"]);
        assert_eq!(decimal(10, 0), ["150", "NULL"]);
        let seconds = texts(TimestampSecondArray::from(vec![1]));
        assert_eq!(seconds, texts(TimestampMicrosecondArray::from(vec![1_000_000])));
        assert_ne!(seconds, texts(TimestampSecondArray::from(vec![1]).with_timezone("UTC")));
    }

    #[test]
    fn a_slice_is_read_from_its_own_start() {
        assert_eq!(texts(TimestampSecondArray::from(vec![1, 2]).slice(1, 1)), ["1970-01-01T00:00:02.000000000"]);
    }

    #[test]
    fn differences_are_named() {
        let lines = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(difference(&lines(&["a"]), &lines(&["a"])), None);
        let text = difference(&lines(&["a", "b"]), &lines(&["a", "a"])).unwrap();
        assert!(text.contains("1 × b") && text.contains("1 × a"), "{text}");
    }
}
