//! From Arrow columns to stored values.

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, LargeBinaryArray, LargeStringArray, StringArray, UInt64Array, cast::AsArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, UInt64Type};
use rusqlite::Statement;
use trib_core::Result;

use super::decimal;
use super::kind::Kind;
use trib_kit::calendar;

/// A value that SQLite cannot hold; the text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit(pub &'static str);

/// One column of a batch, ready to be bound.
pub struct Encoder {
    values: Values,
    scratch: String,
}

enum Values {
    Boolean(BooleanArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Decimal128 { values: Decimal128Array, scale: i8, text: bool },
    Decimal256 { values: Decimal256Array, scale: i8 },
    Text(StringArray),
    LargeText(LargeStringArray),
    Blob(BinaryArray),
    LargeBlob(LargeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(Int64Array),
    Timestamp { values: Int64Array, unit: TimeUnit, zoned: bool },
    Time { values: Int64Array, unit: TimeUnit },
    Interval(IntervalMonthDayNanoArray),
}

impl Encoder {
    /// `kind` is [`Kind::of_field`] of the column's field.
    pub fn new(kind: &Kind, array: &ArrayRef) -> Result<Self> {
        let array = match array.data_type() {
            DataType::Dictionary(_, value) => cast(array, value)?,
            _ => array.clone(),
        };
        let integers = |array: &ArrayRef| -> Result<Int64Array> {
            // Arrow goes from 32-bit dates and times to 64 bits by way of 32.
            let array = match array.data_type() {
                DataType::Date32 | DataType::Time32(_) => cast(array, &DataType::Int32)?,
                _ => array.clone(),
            };
            Ok(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let values = match kind {
            Kind::Boolean => Values::Boolean(array.as_boolean().clone()),
            Kind::Integer(_) => Values::Integer(integers(&array)?),
            Kind::Unsigned64 => Values::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            Kind::Float32 | Kind::Float64 => Values::Float(cast(&array, &DataType::Float64)?.as_primitive().clone()),
            Kind::Decimal { precision, scale, text } if *precision <= 38 => {
                let values = cast(&array, &DataType::Decimal128(*precision, *scale))?.as_primitive().clone();
                Values::Decimal128 { values, scale: *scale, text: *text }
            }
            Kind::Decimal { scale, .. } => Values::Decimal256 { values: array.as_primitive().clone(), scale: *scale },
            Kind::Uuid if matches!(array.data_type(), DataType::FixedSizeBinary(16)) => Values::Uuid(array.as_fixed_size_binary().clone()),
            Kind::Text { .. } | Kind::Json | Kind::Uuid => match array.data_type() {
                DataType::Utf8 => Values::Text(array.as_string().clone()),
                _ => Values::LargeText(cast(&array, &DataType::LargeUtf8)?.as_string().clone()),
            },
            Kind::Blob => match array.data_type() {
                DataType::Binary => Values::Blob(array.as_binary().clone()),
                _ => Values::LargeBlob(cast(&array, &DataType::LargeBinary)?.as_binary().clone()),
            },
            Kind::Date(_) => Values::Date(integers(&array)?),
            Kind::Timestamp { unit, zoned, .. } => Values::Timestamp { values: integers(&array)?, unit: *unit, zoned: *zoned },
            Kind::Time(unit) => Values::Time { values: integers(&array)?, unit: *unit },
            Kind::Interval => {
                let array = cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                Values::Interval(array.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
        };
        Ok(Self { values, scratch: String::new() })
    }

    /// Binds one row's value to a parameter, which is counted from 1.
    pub fn bind(&mut self, statement: &mut Statement<'_>, parameter: usize, row: usize) -> rusqlite::Result<Option<Unfit>> {
        let out = &mut self.scratch;
        out.clear();
        let array: &dyn Array = match &self.values {
            Values::Boolean(a) => a,
            Values::Integer(a) | Values::Date(a) | Values::Timestamp { values: a, .. } | Values::Time { values: a, .. } => a,
            Values::Unsigned(a) => a,
            Values::Float(a) => a,
            Values::Decimal128 { values, .. } => values,
            Values::Decimal256 { values, .. } => values,
            Values::Text(a) => a,
            Values::LargeText(a) => a,
            Values::Blob(a) => a,
            Values::LargeBlob(a) => a,
            Values::Uuid(a) => a,
            Values::Interval(a) => a,
        };
        if array.is_null(row) {
            statement.raw_bind_parameter(parameter, rusqlite::types::Null)?;
            return Ok(None);
        }
        match &self.values {
            Values::Boolean(a) => statement.raw_bind_parameter(parameter, i64::from(a.value(row)))?,
            Values::Integer(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            Values::Float(a) if a.value(row).is_nan() => return Ok(Some(Unfit("NaN, which SQLite would make NULL"))),
            Values::Float(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            Values::Decimal128 { values, scale: 0, text: false } => {
                // Of 18 digits at most, by the choice of the kind.
                statement.raw_bind_parameter(parameter, values.value(row) as i64)?;
            }
            Values::Text(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            Values::LargeText(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            Values::Blob(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            Values::LargeBlob(a) => statement.raw_bind_parameter(parameter, a.value(row))?,
            values => {
                write_text(out, values, row);
                statement.raw_bind_parameter(parameter, out.as_str())?;
            }
        }
        Ok(None)
    }
}

/// The text of the kinds that are stored as text, and of decimals: a column of NUMERIC affinity makes numbers of those.
fn write_text(out: &mut String, values: &Values, row: usize) {
    match values {
        Values::Unsigned(a) => out.push_str(&a.value(row).to_string()),
        Values::Decimal128 { values, scale, .. } => decimal::write(out, &values.value(row).to_string(), *scale),
        Values::Decimal256 { values, scale } => decimal::write(out, &values.value(row).to_string(), *scale),
        Values::Uuid(a) => {
            let bytes: [u8; 16] = std::array::from_fn(|i| a.value(row)[i]);
            out.push_str(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        }
        Values::Date(a) => calendar::write_date(out, a.value(row)),
        Values::Timestamp { values, unit, zoned } => {
            calendar::write_stamp(out, values.value(row), *unit);
            if *zoned {
                out.push('Z');
            }
        }
        Values::Time { values, unit } => calendar::write_time(out, values.value(row), *unit),
        Values::Interval(a) => {
            let interval = a.value(row);
            calendar::write_interval(out, interval.months, interval.days, interval.nanoseconds);
        }
        Values::Boolean(_)
        | Values::Integer(_)
        | Values::Float(_)
        | Values::Text(_)
        | Values::LargeText(_)
        | Values::Blob(_)
        | Values::LargeBlob(_) => {}
    }
}
