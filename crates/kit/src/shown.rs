//! A value as text. Dates and times that Arrow's own formatter gives up on, because its calendar ends before theirs does, are written all the same:
//! what says "error" is never taken for a value.

use arrow::array::types::{
    Date32Type, Date64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::array::{Array, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use trib_core::{Code, Error, Result};

use crate::calendar::{self, DAY};

/// What a formatter is made with whose failures are to be seen, those inside lists and structs included.
pub const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);

/// The text of a value, which is not NULL. `formatter` is the array's, made with [`OPTIONS`].
pub fn text(formatter: &ArrayFormatter<'_>, array: &dyn Array, row: usize) -> Result<String> {
    let mut out = String::new();
    write(&mut out, formatter, array, row)?;
    Ok(out)
}

/// Appends what [`text`] gives.
pub fn write(out: &mut String, formatter: &ArrayFormatter<'_>, array: &dyn Array, row: usize) -> Result<()> {
    let begin = out.len();
    if let Err(e) = formatter.value(row).write(out) {
        out.truncate(begin);
        if !beyond(out, array, row) {
            return Err(Error::new(Code::DataInvalid, "a value has no text").detail(array.data_type().to_string()).source(e));
        }
    }
    Ok(())
}

/// Appends a date or time of any year, or of any hour. Says whether the value is one.
fn beyond(out: &mut String, array: &dyn Array, row: usize) -> bool {
    let mut text = String::new();
    match array.data_type() {
        DataType::Date32 => calendar::write_date(&mut text, i64::from(array.as_primitive::<Date32Type>().value(row))),
        DataType::Date64 => {
            let millis = array.as_primitive::<Date64Type>().value(row);
            calendar::write_date(&mut text, millis.div_euclid(DAY * 1000));
        }
        DataType::Time32(unit) | DataType::Time64(unit) => match time(array, *unit, row) {
            Some(value) => {
                text.push_str(if value < 0 { "-" } else { "" });
                calendar::write_time(&mut text, value.saturating_abs(), *unit);
            }
            None => return false,
        },
        DataType::Timestamp(unit, _) => {
            let value = match unit {
                TimeUnit::Second => value::<TimestampSecondType>(array, row),
                TimeUnit::Millisecond => value::<TimestampMillisecondType>(array, row),
                TimeUnit::Microsecond => value::<TimestampMicrosecondType>(array, row),
                TimeUnit::Nanosecond => value::<TimestampNanosecondType>(array, row),
            };
            calendar::write_stamp_as(&mut text, calendar::from_unit(value, *unit), 'T', calendar::digits_of(*unit));
        }
        _ => return false,
    }
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    out.push_str(text);
    out.push_str(if matches!(array.data_type(), DataType::Timestamp(_, Some(_))) { "Z" } else { "" });
    true
}

fn time(array: &dyn Array, unit: TimeUnit, row: usize) -> Option<i64> {
    Some(match (array.data_type(), unit) {
        (DataType::Time32(_), TimeUnit::Second) => value::<Time32SecondType>(array, row),
        (DataType::Time32(_), TimeUnit::Millisecond) => value::<Time32MillisecondType>(array, row),
        (DataType::Time64(_), TimeUnit::Microsecond) => value::<Time64MicrosecondType>(array, row),
        (DataType::Time64(_), TimeUnit::Nanosecond) => value::<Time64NanosecondType>(array, row),
        _ => return None,
    })
}

fn value<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array, row: usize) -> i64 {
    array.as_primitive::<T>().value(row).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Int64Array, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn no_date_or_time_is_too_far() {
        const DAY_MICROS: i64 = DAY * 1_000_000;
        let cases: [(ArrayRef, &str); 8] = [
            (Arc::new(Time64MicrosecondArray::from(vec![DAY_MICROS])), "24:00:00"),
            (Arc::new(Time64MicrosecondArray::from(vec![DAY_MICROS - 1])), "23:59:59.999999"),
            (Arc::new(Time64MicrosecondArray::from(vec![-1])), "-00:00:00.000001"),
            (Arc::new(Date32Array::from(vec![i32::MAX])), "+5881580-07-11"),
            (Arc::new(Date32Array::from(vec![0])), "1970-01-01"),
            (Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX])), "+294247-01-10T04:00:54.775807"),
            (Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")), "+294247-01-10T04:00:54.775807Z"),
            (Arc::new(Int64Array::from(vec![7])), "7"),
        ];
        for (array, expected) in cases {
            let formatter = ArrayFormatter::try_new(array.as_ref(), &OPTIONS).unwrap();
            assert_eq!(text(&formatter, array.as_ref(), 0).unwrap(), expected);
        }
        let nested = ListArray::from_iter_primitive::<Date32Type, _, _>([Some([Some(i32::MAX)])]);
        let formatter = ArrayFormatter::try_new(&nested, &OPTIONS).unwrap();
        assert_eq!(text(&formatter, &nested, 0).unwrap_err().code(), Code::DataInvalid);
    }
}
