//! From stored values to Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder,
    IntervalMonthDayNanoBuilder, StringBuilder, UInt64Builder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use rusqlite::types::ValueRef;
use trib_core::{Code, Error, Result};

use super::decimal;
use super::kind::{Kind, Stored};
use trib_kit::calendar::{self, DAY};

/// Integers beyond this are not all doubles.
const EXACT_IN_DOUBLE: u64 = 1 << 53;
/// 1970-01-01 00:00 as a Julian day.
const UNIX_EPOCH_JULIAN: f64 = 2_440_587.5;

/// A stored value that its column's kind does not allow; the text says what would have been right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction(pub &'static str);

/// Builds one column.
pub struct Decoder {
    kind: Kind,
    builder: Builder,
}

/// Everything that is an integer in Arrow's memory is built as `i64` and given its type at the end.
enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Decimal128(Decimal128Builder),
    Decimal256(Decimal256Builder),
    Text(StringBuilder),
    Blob(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Interval(IntervalMonthDayNanoBuilder),
}

impl Decoder {
    pub fn new(kind: &Kind) -> Self {
        let builder = match kind {
            Kind::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Kind::Integer(_) | Kind::Date(_) | Kind::Timestamp { .. } | Kind::Time(_) => Builder::Integer(Int64Builder::new()),
            Kind::Unsigned64 => Builder::Unsigned(UInt64Builder::new()),
            Kind::Float32 | Kind::Float64 => Builder::Float(Float64Builder::new()),
            Kind::Decimal { precision, .. } if *precision <= 38 => {
                Builder::Decimal128(Decimal128Builder::new().with_data_type(kind.data_type()))
            }
            Kind::Decimal { .. } => Builder::Decimal256(Decimal256Builder::new().with_data_type(kind.data_type())),
            Kind::Text { .. } | Kind::Json => Builder::Text(StringBuilder::new()),
            Kind::Blob => Builder::Blob(BinaryBuilder::new()),
            Kind::Uuid => Builder::Uuid(FixedSizeBinaryBuilder::new(16)),
            Kind::Interval => Builder::Interval(IntervalMonthDayNanoBuilder::new()),
        };
        Self { kind: kind.clone(), builder }
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Appends the value; where it contradicts the kind, appends NULL and says so. Returns the bytes that were added, about.
    pub fn append(&mut self, value: ValueRef<'_>) -> std::result::Result<usize, Contradiction> {
        if value == ValueRef::Null {
            self.append_null();
            return Ok(1);
        }
        let appended = self.append_value(value);
        if appended.is_err() {
            self.append_null();
        }
        appended
    }

    fn append_value(&mut self, value: ValueRef<'_>) -> std::result::Result<usize, Contradiction> {
        match &mut self.builder {
            Builder::Boolean(b) => {
                b.append_value(boolean(value).ok_or(Contradiction("0 or 1"))?);
                Ok(1)
            }
            Builder::Integer(b) => {
                b.append_value(integer(&self.kind, value)?);
                Ok(8)
            }
            Builder::Unsigned(b) => {
                b.append_value(unsigned(value).ok_or(Contradiction("the digits of an integer below 2^64"))?);
                Ok(8)
            }
            Builder::Float(b) => {
                b.append_value(float(&self.kind, value).ok_or(Contradiction("a number that the type holds exactly"))?);
                Ok(8)
            }
            Builder::Decimal128(b) => {
                b.append_value(digits(&self.kind, value, decimal::parse128)?);
                Ok(16)
            }
            Builder::Decimal256(b) => {
                b.append_value(digits(&self.kind, value, decimal::parse256)?);
                Ok(32)
            }
            Builder::Text(b) => append_text(b, &self.kind, value),
            Builder::Blob(b) => match value {
                ValueRef::Blob(bytes) => {
                    b.append_value(bytes);
                    Ok(bytes.len() + 4)
                }
                _ => Err(Contradiction("a blob")),
            },
            Builder::Uuid(b) => {
                let uuid = match value {
                    ValueRef::Text(_) => text(value).and_then(|t| uuid::Uuid::try_parse(t).ok()),
                    ValueRef::Blob(bytes) => uuid::Uuid::from_slice(bytes).ok(),
                    _ => None,
                };
                let uuid = uuid.ok_or(Contradiction("a UUID, as text or as 16 bytes"))?;
                // The builder refuses only values of another length.
                b.append_value(uuid.as_bytes()).map_err(|_| Contradiction("16 bytes"))?;
                Ok(16)
            }
            Builder::Interval(b) => {
                let parsed = text(value).and_then(calendar::parse_interval);
                let (months, days, nanos) = parsed.ok_or(Contradiction("an ISO 8601 duration as text"))?;
                b.append_value(IntervalMonthDayNano::new(months, days, nanos));
                Ok(16)
            }
        }
    }

    /// For the columns behind one that contradicted, so that all stay of one length.
    pub fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Boolean(b) => b.append_null(),
            Builder::Integer(b) => b.append_null(),
            Builder::Unsigned(b) => b.append_null(),
            Builder::Float(b) => b.append_null(),
            Builder::Decimal128(b) => b.append_null(),
            Builder::Decimal256(b) => b.append_null(),
            Builder::Text(b) => b.append_null(),
            Builder::Blob(b) => b.append_null(),
            Builder::Uuid(b) => b.append_null(),
            Builder::Interval(b) => b.append_null(),
        }
    }

    /// The column so far; building starts anew.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let array: ArrayRef = match &mut self.builder {
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Integer(b) => Arc::new(b.finish()),
            Builder::Unsigned(b) => Arc::new(b.finish()),
            Builder::Float(b) => Arc::new(b.finish()),
            Builder::Decimal128(b) => Arc::new(b.finish()),
            Builder::Decimal256(b) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Blob(b) => Arc::new(b.finish()),
            Builder::Uuid(b) => Arc::new(b.finish()),
            Builder::Interval(b) => Arc::new(b.finish()),
        };
        let wanted = self.kind.data_type();
        Ok(match wanted {
            _ if *array.data_type() == wanted => array,
            DataType::Date32 | DataType::Time32(_) => cast(&cast(&array, &DataType::Int32)?, &wanted)?,
            _ => cast(&array, &wanted)?,
        })
    }
}

/// One value as the text that Arrow casts back to it; `None` for NULL.
pub fn as_text(kind: &Kind, value: ValueRef<'_>) -> Result<Option<String>> {
    let mut decoder = Decoder::new(kind);
    decoder.append(value).map_err(|contradiction| {
        Error::new(Code::DataInvalid, "the greatest value of the cursor contradicts the column's declaration")
            .detail(format!("{}; expected {}", excerpt(value), contradiction.0))
            .hint("mend the row, or declare what the column holds in the connection's `columns:`")
    })?;
    let text = cast(&decoder.finish()?, &DataType::Utf8)?;
    let text = arrow::array::cast::AsArray::as_string::<i32>(&text);
    Ok(arrow::array::Array::is_valid(text, 0).then(|| text.value(0).to_owned()))
}

/// A date or timestamp as nanoseconds since 1970.
pub fn instant(kind: &Kind, value: ValueRef<'_>) -> Option<i128> {
    let value = integer(kind, value).ok()?;
    match kind {
        Kind::Date(_) => Some(calendar::from_unit(value, TimeUnit::Second) * i128::from(DAY)),
        Kind::Timestamp { unit, .. } => Some(calendar::from_unit(value, *unit)),
        _ => None,
    }
}

/// The Julian day of an instant.
pub fn julian_day(nanos: i128) -> f64 {
    nanos as f64 / 1e9 / DAY as f64 + UNIX_EPOCH_JULIAN
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn boolean(value: ValueRef<'_>) -> Option<bool> {
    match value {
        ValueRef::Integer(0) => Some(false),
        ValueRef::Integer(1) => Some(true),
        _ => None,
    }
}

fn integer(kind: &Kind, value: ValueRef<'_>) -> std::result::Result<i64, Contradiction> {
    match kind {
        Kind::Date(stored) => {
            let nanos = match stored {
                Stored::Iso => {
                    let days = text(value).and_then(calendar::parse_date).filter(|days| i32::try_from(*days).is_ok());
                    return days.ok_or(Contradiction("a date as text, YYYY-MM-DD"));
                }
                Stored::Unix(unit) => unix(value, *unit),
                Stored::Julian => julian(value),
            };
            let day = i128::from(DAY) * 1_000_000_000;
            let days = nanos.filter(|n| n % day == 0).and_then(|n| i32::try_from(n / day).ok());
            days.map(i64::from).ok_or(Contradiction("midnight of a day"))
        }
        Kind::Timestamp { unit, zoned, stored } => {
            let nanos = match stored {
                Stored::Iso => {
                    let stamp = text(value).and_then(calendar::parse_stamp).ok_or(Contradiction("a time as text, YYYY-MM-DD HH:MM:SS"))?;
                    if stamp.offset.is_some() && !zoned {
                        return Err(Contradiction("a time without a zone"));
                    }
                    // Without an offset it is UTC, as for SQLite's own functions.
                    Some(stamp.instant())
                }
                Stored::Unix(stored_unit) => unix(value, *stored_unit),
                Stored::Julian => julian(value),
            };
            let nanos = nanos.ok_or(Contradiction("a number since 1970 or a Julian day, as declared"))?;
            calendar::to_unit(nanos, *unit).ok_or(Contradiction("a time in the range of the type, and no finer"))
        }
        Kind::Time(unit) => text(value)
            .and_then(calendar::parse_time)
            .and_then(|nanos| calendar::to_unit(nanos, *unit))
            .ok_or(Contradiction("a time of day as text, HH:MM:SS, no finer than the type")),
        Kind::Integer(t) => match value {
            ValueRef::Integer(i) if in_range(i, t) => Ok(i),
            _ => Err(Contradiction("an integer in the range of the type")),
        },
        _ => Err(Contradiction("an integer")),
    }
}

fn in_range(i: i64, t: &DataType) -> bool {
    match t {
        DataType::Int8 => i8::try_from(i).is_ok(),
        DataType::Int16 => i16::try_from(i).is_ok(),
        DataType::Int32 => i32::try_from(i).is_ok(),
        DataType::UInt8 => u8::try_from(i).is_ok(),
        DataType::UInt16 => u16::try_from(i).is_ok(),
        DataType::UInt32 => u32::try_from(i).is_ok(),
        _ => true,
    }
}

fn unix(value: ValueRef<'_>, unit: TimeUnit) -> Option<i128> {
    match value {
        ValueRef::Integer(i) => Some(calendar::from_unit(i, unit)),
        // A double near now is good for a quarter of a microsecond.
        ValueRef::Real(r) if r.is_finite() => Some((r / calendar::per_second(unit) as f64 * 1e6).round() as i128 * 1000),
        _ => None,
    }
}

/// To the millisecond, as SQLite itself takes Julian days.
fn julian(value: ValueRef<'_>) -> Option<i128> {
    let day = match value {
        ValueRef::Real(r) if r.is_finite() => r,
        ValueRef::Integer(i) => i as f64,
        _ => return None,
    };
    Some(((day - UNIX_EPOCH_JULIAN) * DAY as f64 * 1e3).round() as i128 * 1_000_000)
}

fn unsigned(value: ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Integer(i) => u64::try_from(i).ok(),
        ValueRef::Text(_) => text(value)?.parse().ok(),
        _ => None,
    }
}

fn float(kind: &Kind, value: ValueRef<'_>) -> Option<f64> {
    let value = match value {
        ValueRef::Real(r) => r,
        ValueRef::Integer(i) if i.unsigned_abs() <= EXACT_IN_DOUBLE => i as f64,
        _ => return None,
    };
    // Bit for bit: a double that is no single would be rounded.
    (*kind == Kind::Float64 || f64::from(value as f32).to_bits() == value.to_bits()).then_some(value)
}

fn digits<T>(kind: &Kind, value: ValueRef<'_>, parse: fn(&str, u8, i8) -> Option<T>) -> std::result::Result<T, Contradiction> {
    let Kind::Decimal { precision, scale, .. } = kind else {
        return Err(Contradiction("a number"));
    };
    let parsed = match value {
        ValueRef::Text(_) => text(value).and_then(|t| parse(t, *precision, *scale)),
        ValueRef::Integer(i) => parse(&i.to_string(), *precision, *scale),
        // The shortest digits that give this double again, and no others.
        ValueRef::Real(r) if r.is_finite() => parse(&r.to_string(), *precision, *scale),
        _ => None,
    };
    parsed.ok_or(Contradiction("a number with no more digits than declared, before and after the point"))
}

fn append_text(builder: &mut StringBuilder, kind: &Kind, value: ValueRef<'_>) -> std::result::Result<usize, Contradiction> {
    let takes_numbers = matches!(kind, Kind::Text { numbers: true } | Kind::Json);
    match value {
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Contradiction("text in valid UTF-8"))?;
            builder.append_value(text);
            Ok(bytes.len() + 4)
        }
        ValueRef::Integer(i) if takes_numbers => {
            builder.append_value(i.to_string());
            Ok(16)
        }
        ValueRef::Real(r) if takes_numbers => {
            builder.append_value(format!("{r:?}"));
            Ok(16)
        }
        _ => Err(Contradiction("text")),
    }
}

/// The storage class and the beginning of a value, for a person.
pub fn excerpt(value: ValueRef<'_>) -> String {
    const MOST: usize = 60;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(i) => format!("INTEGER {i}"),
        ValueRef::Real(r) => format!("REAL {r:?}"),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let short: String = text.chars().take(MOST).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("TEXT '{short}{more}'")
        }
        ValueRef::Blob(bytes) => {
            let more = if bytes.len() > MOST / 4 { "…" } else { "" };
            format!("BLOB of {} bytes x'{}{more}'", bytes.len(), hex::encode(&bytes[..bytes.len().min(MOST / 4)]))
        }
    }
}

/// A value as JSON, for a rejected row; blobs as hex.
pub fn json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(i) => i.into(),
        ValueRef::Real(r) if r.is_finite() => r.into(),
        ValueRef::Real(r) => r.to_string().into(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        ValueRef::Blob(bytes) => hex::encode(bytes).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ValueRef::{Blob, Integer, Real, Text};

    #[test]
    fn values_fit_their_declaration_or_contradict_it() {
        let t = |s: &'static str| Text(s.as_bytes());
        let cases: Vec<(&str, ValueRef<'_>, Option<&str>)> = vec![
            ("INTEGER", Integer(i64::MIN), Some("-9223372036854775808")),
            ("INTEGER", t("abc"), None),
            ("INTEGER", Real(1.5), None),
            ("INT2", Integer(40_000), None),
            ("BOOLEAN", Integer(1), Some("true")),
            ("BOOLEAN", Integer(2), None),
            ("BOOLEAN", t("true"), None),
            ("DECIMAL(10,2)", Real(12.34), Some("12.34")),
            ("DECIMAL(10,2)", Integer(12), Some("12.00")),
            ("DECIMAL(10,2)", t("12.3"), Some("12.30")),
            ("DECIMAL(10,2)", Real(0.1 + 0.2), None),
            ("DECIMAL(10,2)", t("12.345"), None),
            ("DECIMAL(3,2)", Integer(12), None),
            ("NUMERIC", Real(0.1 + 0.2), Some("0.300000000000000040")),
            ("REAL", Integer(3), Some("3.0")),
            ("REAL", Integer((1 << 53) + 1), None),
            ("FLOAT4", Real(0.1), None),
            ("FLOAT4", Real(0.5), Some("0.5")),
            ("TEXT", t(""), Some("")),
            ("TEXT", Integer(7), None),
            ("TEXT", Text(b"\xff"), None),
            ("TEXT", Blob(b"x"), None),
            ("", Integer(7), Some("7")),
            ("", Real(7.0), Some("7.0")),
            ("STRING", Integer(7), Some("7")),
            ("", Blob(b"x"), None),
            ("DATE", t("2024-02-29"), Some("2024-02-29")),
            ("DATE", t("2024-02-29 00:00:00"), None),
            ("DATE", t("29.02.2024"), None),
            ("DATE", Integer(1), None),
            ("DATETIME", t("2024-02-29 01:02:03.5"), Some("2024-02-29T01:02:03.500")),
            ("DATETIME", t("2024-02-29 01:02:03Z"), None),
            ("DATETIME", t("2024-02-29 01:02:03.1234567"), None),
            ("DATETIME", Integer(1_700_000_000), None),
            ("TIMESTAMPTZ", t("2024-02-29 01:02:03+01:00"), Some("2024-02-29T00:02:03Z")),
            ("TIMESTAMPTZ", t("2024-02-29 01:02:03"), Some("2024-02-29T01:02:03Z")),
            ("TIME", t("23:59:59.25"), Some("23:59:59.250")),
            ("TIME", t("24:00:01"), None),
            ("TEXT_U64", t("18446744073709551615"), Some("18446744073709551615")),
            ("TEXT_U64", Integer(-1), None),
            ("JSON", Integer(5), Some("5")),
            ("JSON", t("{\"a\":1.50}"), Some("{\"a\":1.50}")),
        ];
        for (declared, value, expected) in cases {
            let kind = Kind::of_declaration(declared);
            let mut decoder = Decoder::new(&kind);
            let fits = decoder.append(value).is_ok();
            assert_eq!(fits, expected.is_some(), "{declared} {value:?}");
            // What contradicts leaves a NULL, so that columns stay of one length.
            assert_eq!(decoder.finish().unwrap().len(), 1);
            if let Some(expected) = expected {
                assert_eq!(as_text(&kind, value).unwrap().as_deref(), Some(expected), "{declared} {value:?}");
            }
        }
    }

    #[test]
    fn a_day_ends_at_24_00() {
        let mut decoder = Decoder::new(&Kind::of_declaration("TIME"));
        assert!(decoder.append(Text(b"24:00:00")).is_ok() && decoder.append(Text(b"24:00:00.5")).is_err());
    }

    #[test]
    fn times_as_numbers() {
        let cases = [
            ("timestamp unix", Integer(1_700_000_000), Some("2023-11-14T22:13:20")),
            ("timestamp unix", Real(1_700_000_000.25), Some("2023-11-14T22:13:20.250")),
            ("timestamptz unix_ms", Integer(1_700_000_000_123), Some("2023-11-14T22:13:20.123Z")),
            ("timestamp unix_us", Integer(-1), Some("1969-12-31T23:59:59.999999")),
            ("timestamp julian", Real(2_460_263.425_925_926), Some("2023-11-14T22:13:20")),
            ("date unix", Integer(86_400), Some("1970-01-02")),
            ("date unix", Integer(86_401), None),
            ("date julian", Real(2_440_588.5), Some("1970-01-02")),
            ("timestamp unix", Text(b"2024-01-01"), None),
        ];
        for (setting, value, expected) in cases {
            let kind = Kind::of_setting(setting).unwrap();
            let mut decoder = Decoder::new(&kind);
            let text = decoder.append(value).ok().and_then(|_| as_text(&kind, value).unwrap());
            assert_eq!(text.as_deref(), expected, "{setting} {value:?}");
        }
    }

    #[test]
    fn excerpts_are_short() {
        let long = "ä".repeat(1000);
        assert!(excerpt(Text(long.as_bytes())).chars().count() < 80);
        assert_eq!(excerpt(Blob(&[0; 99])).matches("00").count(), 15);
    }
}
