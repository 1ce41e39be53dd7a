//! Values that a read begins, ends or goes on at: in the form in which they are stored, so that SQLite compares them.

use arrow::datatypes::DataType;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Result};

use super::decode::{instant, julian_day};
use super::kind::{Kind, Stored};
use trib_kit::calendar;

/// A stored value as JSON keeps it without loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "class", content = "value", rename_all = "lowercase")]
pub enum Bound {
    Integer(i64),
    /// Its shortest digits.
    Real(String),
    Text(String),
    /// In hex.
    Blob(String),
}

impl ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| rusqlite::Error::ToSqlConversionFailure(e);
        Ok(match self {
            Bound::Integer(i) => ToSqlOutput::from(*i),
            Bound::Real(text) => ToSqlOutput::from(text.parse::<f64>().map_err(|e| wrong(e.into()))?),
            Bound::Text(text) => ToSqlOutput::from(text.as_str()),
            Bound::Blob(text) => ToSqlOutput::from(hex::decode(text).map_err(|e| wrong(e.into()))?),
        })
    }
}

impl Bound {
    /// `None` for NULL, and for text that is not UTF-8.
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Null => None,
            ValueRef::Integer(i) => Some(Bound::Integer(i)),
            ValueRef::Real(r) => Some(Bound::Real(r.to_string())),
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().map(|t| Bound::Text(t.to_owned())),
            ValueRef::Blob(bytes) => Some(Bound::Blob(hex::encode(bytes))),
        }
    }

    /// Calls `f` with the value as SQLite would hand it out.
    pub fn with_value<T>(&self, f: impl FnOnce(ValueRef<'_>) -> T) -> Result<T> {
        let broken = || Error::new(Code::DataInvalid, "the stored state is not one that this source has written");
        Ok(match self {
            Bound::Integer(i) => f(ValueRef::Integer(*i)),
            Bound::Real(text) => f(ValueRef::Real(text.parse().map_err(|e| broken().source(e))?)),
            Bound::Text(text) => f(ValueRef::Text(text.as_bytes())),
            Bound::Blob(text) => f(ValueRef::Blob(&hex::decode(text).map_err(|e| broken().source(e))?)),
        })
    }

    /// As it stands in the state: what is stored, as text.
    pub fn to_state(&self) -> String {
        match self {
            Bound::Integer(i) => i.to_string(),
            Bound::Real(text) | Bound::Text(text) | Bound::Blob(text) => text.clone(),
        }
    }

    /// The inverse of [`Bound::to_state`] for a column of this kind.
    pub fn from_state(kind: &Kind, text: &str) -> Self {
        let number = || match text.parse() {
            Ok(i) => Bound::Integer(i),
            Err(_) => Bound::Real(text.to_owned()),
        };
        match kind {
            Kind::Date(Stored::Iso) | Kind::Timestamp { stored: Stored::Iso, .. } | Kind::Time(_) => Bound::Text(text.to_owned()),
            Kind::Integer(_) | Kind::Boolean | Kind::Date(_) | Kind::Timestamp { .. } | Kind::Decimal { text: false, .. } => number(),
            Kind::Float32 | Kind::Float64 => Bound::Real(text.to_owned()),
            _ => Bound::Text(text.to_owned()),
        }
    }

    /// What a person has written, in the form of `sample`, a value of the column.
    pub fn from_user(kind: &Kind, text: &str, sample: Option<&Bound>) -> Result<Self> {
        let unfit = || {
            Error::new(Code::ConfigInvalid, "the bound is not a value of its column")
                .detail(format!("{text} for {}", kind.data_type()))
                .hint("write it like a value of the column; times as `2024-01-31 12:00:00`")
        };
        match kind {
            Kind::Date(_) | Kind::Timestamp { .. } => {
                let stamp = calendar::parse_stamp(text).ok_or_else(unfit)?;
                Ok(from_instant(kind, stamp.instant(), sample))
            }
            Kind::Integer(_) => text.parse().map(Bound::Integer).map_err(|_| unfit()),
            Kind::Float32 | Kind::Float64 | Kind::Decimal { text: false, .. } => {
                text.parse::<f64>().map_err(|_| unfit())?;
                Ok(Self::from_state(kind, text))
            }
            _ => Ok(Bound::Text(text.to_owned())),
        }
    }

    /// This much earlier: seconds for times, units for numbers.
    pub fn less(&self, kind: &Kind, lookback: u64) -> Result<Self> {
        let impossible = || {
            Error::new(Code::ConfigInvalid, "the cursor's column has no distance to look back by")
                .detail(kind.data_type().to_string())
                .hint("use lookback with a cursor of times or numbers")
        };
        match (kind, self) {
            (Kind::Date(_) | Kind::Timestamp { .. }, _) => {
                let nanos = self.with_value(|value| instant(kind, value))?.ok_or_else(impossible)?;
                Ok(from_instant(kind, nanos - i128::from(lookback) * 1_000_000_000, Some(self)))
            }
            (Kind::Integer(_) | Kind::Decimal { .. }, Bound::Integer(i)) => {
                Ok(Bound::Integer(i.saturating_sub(i64::try_from(lookback).unwrap_or(i64::MAX))))
            }
            (Kind::Float32 | Kind::Float64 | Kind::Decimal { .. }, Bound::Real(text)) => {
                let value: f64 = text.parse().map_err(|_| impossible())?;
                Ok(Bound::Real((value - lookback as f64).to_string()))
            }
            _ => Err(impossible()),
        }
    }
}

/// An instant as a column of this kind stores it. Text takes the shape of `sample`, since texts of different shapes do not
/// sort by time; no digit of the instant is lost.
fn from_instant(kind: &Kind, nanos: i128, sample: Option<&Bound>) -> Bound {
    let (stored, is_date) = match kind {
        Kind::Timestamp { stored, .. } => (*stored, false),
        Kind::Date(stored) => (*stored, true),
        _ => (Stored::Iso, false),
    };
    match stored {
        Stored::Unix(unit) => {
            let step = 1_000_000_000 / i128::from(calendar::per_second(unit));
            if nanos % step == 0 { Bound::Integer((nanos / step) as i64) } else { Bound::Real((nanos as f64 / step as f64).to_string()) }
        }
        Stored::Julian => Bound::Real(julian_day(nanos).to_string()),
        Stored::Iso => {
            let mut out = String::new();
            if is_date {
                calendar::write_date(&mut out, nanos.div_euclid(i128::from(calendar::DAY) * 1_000_000_000) as i64);
                return Bound::Text(out);
            }
            let shape = Shape::of(sample);
            let local = nanos + i128::from(shape.offset) * 1_000_000_000;
            let needed = (0..9).find(|digits| local % 10_i128.pow(9 - digits) == 0).unwrap_or(9);
            calendar::write_stamp_as(&mut out, local, shape.separator, shape.digits.max(needed as usize));
            out.push_str(shape.suffix);
            Bound::Text(out)
        }
    }
}

/// How a column writes its times.
struct Shape<'a> {
    separator: char,
    digits: usize,
    offset: i32,
    suffix: &'a str,
}

impl<'a> Shape<'a> {
    fn of(sample: Option<&'a Bound>) -> Self {
        let text = match sample {
            Some(Bound::Text(text)) => text.as_str(),
            _ => "",
        };
        let clock = text.get(11..).unwrap_or("");
        let time = clock.bytes().take_while(|b| b.is_ascii_digit() || *b == b':' || *b == b'.').count();
        Self {
            separator: if text.as_bytes().get(10) == Some(&b'T') { 'T' } else { ' ' },
            digits: clock[..time].split_once('.').map_or(0, |(_, fraction)| fraction.len().min(9)),
            offset: calendar::parse_stamp(text).and_then(|stamp| stamp.offset).unwrap_or(0),
            suffix: &clock[time..],
        }
    }
}

/// Whether a cursor can run on a column of this kind.
pub fn check_cursor(kind: &Kind, column: &str) -> Result<()> {
    if kind.sorts() {
        return Ok(());
    }
    let error = Error::new(Code::Unsupported, "a cursor cannot run on the column: its stored values do not sort as what they mean")
        .detail(format!("{column} is {}", kind.data_type()));
    Err(match kind.data_type() {
        DataType::Utf8 => error.hint("declare the column's type in the connection's `columns:`, or choose another cursor"),
        _ => error.hint("choose a number, a date or a time as the cursor"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;

    fn timestamp(stored: Stored, zoned: bool) -> Kind {
        Kind::Timestamp { unit: TimeUnit::Microsecond, zoned, stored }
    }

    #[test]
    fn bounds_take_the_shape_of_the_column() {
        let text = |t: &str| Bound::Text(t.to_owned());
        let iso = timestamp(Stored::Iso, true);
        let cases = [
            (iso.clone(), Some(text("2024-01-31T00:00:00.000Z")), text("2024-02-01T10:00:00.000Z")),
            (iso.clone(), Some(text("2024-01-31 00:00:00")), text("2024-02-01 10:00:00")),
            (iso.clone(), Some(text("2024-01-31 00:00:00+02:00")), text("2024-02-01 12:00:00+02:00")),
            (iso, None, text("2024-02-01 10:00:00")),
            (Kind::Date(Stored::Iso), None, text("2024-02-01")),
            (timestamp(Stored::Unix(TimeUnit::Second), false), None, Bound::Integer(1_706_781_600)),
            (timestamp(Stored::Unix(TimeUnit::Millisecond), false), None, Bound::Integer(1_706_781_600_000)),
            (Kind::Integer(DataType::Int64), None, Bound::Integer(5)),
        ];
        for (kind, sample, expected) in cases {
            let written = if matches!(kind, Kind::Integer(_)) { "5" } else { "2024-02-01 10:00:00" };
            assert_eq!(Bound::from_user(&kind, written, sample.as_ref()).unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn looking_back() {
        let text = |t: &str| Bound::Text(t.to_owned());
        let cases = [
            (timestamp(Stored::Iso, false), text("2024-03-01 00:30:00.5"), text("2024-02-29 23:30:00.5")),
            (timestamp(Stored::Unix(TimeUnit::Second), false), Bound::Integer(4000), Bound::Integer(400)),
            (Kind::Date(Stored::Iso), text("2024-03-01"), text("2024-02-29")),
            (Kind::Integer(DataType::Int64), Bound::Integer(4000), Bound::Integer(400)),
            (Kind::Float64, Bound::Real("4000.5".into()), Bound::Real("400.5".into())),
        ];
        for (kind, from, expected) in cases {
            assert_eq!(from.less(&kind, 3600).unwrap(), expected, "{kind:?}");
        }
        assert!(text("x").less(&Kind::Text { numbers: false }, 1).is_err());
    }

    #[test]
    fn state_and_json_keep_the_value() {
        let cases = [
            (Kind::Integer(DataType::Int64), Bound::Integer(i64::MIN)),
            (Kind::Float64, Bound::Real("0.1".into())),
            (Kind::Text { numbers: false }, Bound::Text("5".into())),
            (timestamp(Stored::Iso, false), Bound::Text("2024-01-31T00:00".into())),
            (timestamp(Stored::Unix(TimeUnit::Second), false), Bound::Integer(5)),
            (timestamp(Stored::Julian, false), Bound::Real("2460000.5".into())),
        ];
        for (kind, bound) in cases {
            assert_eq!(Bound::from_state(&kind, &bound.to_state()), bound);
            let json = serde_json::to_string(&bound).unwrap();
            assert_eq!(serde_json::from_str::<Bound>(&json).unwrap(), bound);
        }
    }
}
