//! From the values that come in to the values that are stored, and back.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, IntervalMonthDayNanoArray, ListArray, MapArray, RecordBatch, StringBuilder,
    StructArray, Time64NanosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Int64Type, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    SchemaRef, TimeUnit,
};
use arrow::util::display::FormatOptions;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, Error, Result};
use trib_kit::calendar;
use trib_kit::cast::lenient;

use crate::delta_type;

/// Brings a batch to a schema by position: same columns, stored types.
pub fn batch(batch: &RecordBatch, stored: &SchemaRef) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns: Result<Vec<ArrayRef>> = batch
        .columns()
        .iter()
        .zip(schema.fields().iter().zip(stored.fields()))
        .map(|(array, (from, to))| {
            let stored = column(array, from, to).map_err(|e| {
                let name = to.name();
                e.detail(format!("column {name}: the value does not fit {}, the type of the table's column", delta_type::native(to)))
            })?;
            if !to.is_nullable() && stored.null_count() > 0 {
                return Err(Error::new(Code::DataInvalid, "a column that may not be NULL has NULLs").detail(to.name()));
            }
            Ok(stored)
        })
        .collect();
    Ok(RecordBatch::try_new(stored.clone(), columns?)?)
}

/// One column, or one level of a nested one.
pub fn column(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    let (source, target) = (array.data_type(), to.data_type());
    if source == target {
        return Ok(array.clone());
    }
    match (source, target) {
        (DataType::Null, _) => Ok(new_null_array(target, array.len())),
        (DataType::FixedSizeBinary(16), DataType::Utf8) if from.logical() == Some(Logical::Uuid) => uuids(array),
        (DataType::Interval(unit), DataType::Utf8) => Ok(intervals(array, *unit)),
        (DataType::Duration(unit), DataType::Utf8) => {
            let numbers = cast(array, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            Ok(texts(array.len(), |i| numbers.is_valid(i).then(|| iso_interval(0, 0, i128::from(numbers.value(i)) * nanoseconds(*unit)))))
        }
        (DataType::Utf8 | DataType::Utf8View, DataType::Interval(IntervalUnit::MonthDayNano)) => {
            let held = parsed(array, |months, days, nanos| {
                Some(IntervalMonthDayNano::new(i32::try_from(months).ok()?, i32::try_from(days).ok()?, i64::try_from(nanos).ok()?))
            })?;
            Ok(Arc::new(IntervalMonthDayNanoArray::from(held)))
        }
        (DataType::Utf8 | DataType::Utf8View, DataType::Duration(unit)) => {
            let held = parsed(array, |months, days, nanos| {
                (months == 0 && days == 0).then(|| i64::try_from(nanos / nanoseconds(*unit)).ok()).flatten()
            })?;
            cast(&(Arc::new(Int64Array::from(held)) as ArrayRef), target)
        }
        (DataType::Time32(_) | DataType::Time64(_), DataType::Utf8) => lenient(array, target),
        (DataType::Utf8 | DataType::Utf8View, DataType::Time64(TimeUnit::Nanosecond)) => times(array),
        // What is inside may need more than a cast.
        (DataType::Dictionary(_, value), _) => {
            let plain = cast(array, value)?;
            column(&plain, &from.clone().with_data_type(value.as_ref().clone()), to)
        }
        (
            DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) | DataType::ListView(inner) | DataType::LargeListView(inner),
            _,
        ) => {
            let as_list = DataType::List(inner.clone());
            let list = cast(array, &as_list)?;
            column(&list, &from.clone().with_data_type(as_list), to)
        }
        (DataType::List(inner), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let values = column(list.values(), inner, element)?;
            Ok(Arc::new(ListArray::try_new(element.clone(), list.offsets().clone(), values, list.nulls().cloned())?))
        }
        (DataType::Struct(inner), DataType::Struct(fields)) if inner.len() == fields.len() => {
            let rows = array.as_struct();
            let columns: Result<Vec<ArrayRef>> =
                rows.columns().iter().zip(inner.iter().zip(fields)).map(|(c, (f, t))| column(c, f, t)).collect();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns?, rows.nulls().cloned(), rows.len())?))
        }
        (DataType::Map(inner, _), DataType::Map(entries, _)) => {
            let map = array.as_map();
            let pairs: ArrayRef = Arc::new(map.entries().clone());
            let pairs = column(&pairs, inner, entries)?;
            Ok(Arc::new(MapArray::try_new(entries.clone(), map.offsets().clone(), pairs.as_struct().clone(), map.nulls().cloned(), false)?))
        }
        _ => cast(array, target),
    }
}

/// A cast that fails where a value does not fit.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    Ok(cast_with_options(array, to, &options)?)
}

fn uuids(array: &ArrayRef) -> Result<ArrayRef> {
    let bytes =
        array.as_any().downcast_ref::<FixedSizeBinaryArray>().ok_or_else(|| Error::internal("a column of uuids is not of fixed size"))?;
    let text = |i: usize| uuid::Uuid::from_slice(bytes.value(i)).map(|u| u.to_string()).ok();
    Ok(texts(array.len(), |i| if bytes.is_valid(i) { text(i) } else { None }))
}

fn intervals(array: &ArrayRef, unit: IntervalUnit) -> ArrayRef {
    texts(array.len(), |i| {
        if array.is_null(i) {
            return None;
        }
        Some(match unit {
            IntervalUnit::YearMonth => iso_interval(array.as_primitive::<IntervalYearMonthType>().value(i), 0, 0),
            IntervalUnit::DayTime => {
                let v = array.as_primitive::<IntervalDayTimeType>().value(i);
                iso_interval(0, v.days, i128::from(v.milliseconds) * 1_000_000)
            }
            IntervalUnit::MonthDayNano => {
                let v = array.as_primitive::<IntervalMonthDayNanoType>().value(i);
                iso_interval(v.months, v.days, i128::from(v.nanoseconds))
            }
        })
    })
}

/// The values of texts that [`iso_interval`] has written, made from months, days and nanoseconds.
fn parsed<T>(array: &ArrayRef, make: impl Fn(i128, i128, i128) -> Option<T>) -> Result<Vec<Option<T>>> {
    let texts = cast(array, &DataType::Utf8)?;
    let one = |text: &str| {
        let value = parse_interval(text).and_then(|(months, days, nanos)| make(months, days, nanos));
        value.ok_or_else(|| {
            Error::new(Code::DataInvalid, "a text is not the interval that its column should hold").detail(format!("{text:?}"))
        })
    };
    texts.as_string::<i32>().iter().map(|text| text.map(one).transpose()).collect()
}

/// Arrow knows no 24:00.
fn times(array: &ArrayRef) -> Result<ArrayRef> {
    cast(array, &DataType::Time64(TimeUnit::Nanosecond)).or_else(|e| {
        let texts = cast(array, &DataType::Utf8)?;
        let time = |text| calendar::parse_time(text).and_then(|nanos| i64::try_from(nanos).ok());
        let held: Option<Vec<Option<i64>>> =
            texts.as_string::<i32>().iter().map(|text| text.map(time).map_or(Some(None), |t| t.map(Some))).collect();
        Ok(Arc::new(Time64NanosecondArray::from(held.ok_or(e)?)) as ArrayRef)
    })
}

fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn texts(rows: usize, text: impl Fn(usize) -> Option<String>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows, rows * 16);
    for i in 0..rows {
        builder.append_option(text(i));
    }
    Arc::new(builder.finish())
}

/// ISO 8601, with a sign on each part that is negative, as PostgreSQL writes it: `P1Y-2M3DT4H5M6.5S`.
fn iso_interval(months: i32, days: i32, nanos: i128) -> String {
    let mut out = String::from("P");
    let mut part = |n: i128, unit: char| {
        if n != 0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{n}{unit}");
        }
    };
    part(i128::from(months / 12), 'Y');
    part(i128::from(months % 12), 'M');
    part(i128::from(days), 'D');
    if nanos != 0 {
        out.push('T');
        let seconds = nanos / 1_000_000_000;
        for (n, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
            if n != 0 {
                let _ = write!(out, "{n}{unit}");
            }
        }
        let (whole, below) = (seconds % 60, (nanos % 1_000_000_000).unsigned_abs());
        if whole != 0 || below != 0 {
            let sign = if nanos < 0 { "-" } else { "" };
            let fraction = if below == 0 { String::new() } else { format!(".{below:09}").trim_end_matches('0').to_owned() };
            let _ = write!(out, "{sign}{}{fraction}S", whole.abs());
        }
    }
    if out == "P" { "PT0S".to_owned() } else { out }
}

/// Months, days and nanoseconds of a text as [`iso_interval`] writes it.
fn parse_interval(text: &str) -> Option<(i128, i128, i128)> {
    let (mut months, mut days, mut nanos) = (0, 0, 0);
    let (date, time) = text.strip_prefix('P')?.split_once('T').unwrap_or((text.strip_prefix('P')?, ""));
    for (number, unit) in parts(date)? {
        let number = i128::from(number.parse::<i64>().ok()?);
        match unit {
            'Y' => months += 12 * number,
            'M' => months += number,
            'D' => days += number,
            _ => return None,
        }
    }
    for (number, unit) in parts(time)? {
        match unit {
            'H' => nanos += i128::from(number.parse::<i64>().ok()?) * 3_600_000_000_000,
            'M' => nanos += i128::from(number.parse::<i64>().ok()?) * 60_000_000_000,
            'S' => {
                let (whole, below) = number.split_once('.').unwrap_or((number, ""));
                let below = i128::from(format!("{below:0<9}").get(..9)?.parse::<u32>().ok()?);
                let sign = if number.starts_with('-') { -1 } else { 1 };
                nanos += i128::from(whole.parse::<i64>().ok()?) * 1_000_000_000 + sign * below;
            }
            _ => return None,
        }
    }
    Some((months, days, nanos))
}

/// `1Y-2M` as `1, Y` and `-2, M`.
fn parts(text: &str) -> Option<Vec<(&str, char)>> {
    let parts = text.split_inclusive(|c: char| c.is_ascii_alphabetic());
    parts.map(|part| part.chars().next_back().map(|unit| (&part[..part.len() - unit.len_utf8()], unit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_in_iso() {
        let cases = [
            ((0, 0, 0), "PT0S"),
            ((14, 3, 0), "P1Y2M3D"),
            ((-1, 0, 1_500_000_000), "P-1MT1.5S"),
            ((0, 0, -3_661_000_000_001), "PT-1H-1M-1.000000001S"),
            ((0, 0, -1), "PT-0.000000001S"),
        ];
        for ((months, days, nanos), text) in cases {
            assert_eq!(iso_interval(months, days, nanos), text);
            assert_eq!(parse_interval(text), Some((i128::from(months), i128::from(days), nanos)));
        }
        for text in ["", "1Y", "P1X", "P1Y2", "PT1.xS", "P99999999999999999999Y"] {
            assert_eq!(parse_interval(text), None, "{text}");
        }
    }
}
