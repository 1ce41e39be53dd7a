//! Amounts that people write with a unit: `30s`, `64MB`.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time such as `30s`, `15m`, `1h 30m` or `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes: a whole number, or text such as `64MB` (millions) or `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// How far back to read: a length of time for a cursor that is a time, a whole number for one that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookback {
    Time(Duration),
    Units(u64),
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a length of time such as 30s, 15m, 1h or 1d"))
}

fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
        ("", 1),
    ];
    let lower = text.trim().to_lowercase();
    let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
    unit.and_then(|(unit, factor)| lower[..lower.len() - unit.len()].trim().parse::<u64>().ok()?.checked_mul(*factor))
        .ok_or_else(|| format!("{text:?} is not a number of bytes such as 64MB"))
}

macro_rules! written_with_unit {
    ($name:ident, $expected:literal, $from_text:expr, $from_number:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Written;

                impl Visitor<'_> for Written {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        $from_text(text).map_err(E::custom)
                    }

                    fn visit_u64<E: Error>(self, number: u64) -> Result<$name, E> {
                        $from_number(number).map_err(|m: &str| E::custom(m))
                    }
                }

                deserializer.deserialize_any(Written)
            }
        }
    };
}

written_with_unit!(Time, "a length of time such as `30s`", |t| time(t).map(Time), |_| Err(
    "a length of time needs its unit: 30s, 15m, 1h, 1d"
));
written_with_unit!(Bytes, "a number of bytes such as `64MB`", |t| bytes(t).map(Bytes), |n| Ok(Bytes(n)));
written_with_unit!(
    Lookback,
    "a length of time such as `1h`, or a whole number",
    |t: &str| t.parse().map(Lookback::Units).or_else(|_| time(t).map(Lookback::Time)),
    |n| Ok(Lookback::Units(n))
);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for Lookback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Lookback::Time(time) => Time(*time).serialize(serializer),
            Lookback::Units(units) => serializer.serialize_u64(*units),
        }
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A length of time such as `30s`, `15m`, `1h 30m` or `1d`.", "examples": ["30s", "1h"]})
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "description": "A number of bytes, or text such as `64MB` or `64MiB`."})
    }
}

impl JsonSchema for Lookback {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Lookback".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "description": "A length of time such as `1h`, or a whole number for a cursor that is a number."})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, expected) in [("30s", 30), ("15m", 900), ("1h 30m", 5400), ("1d", 86400)] {
            assert_eq!(time(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        for (text, expected) in [("64", 64), ("64 MB", 64_000_000), ("1GiB", 1 << 30), ("10b", 10)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in ["x", "MB", "-1", "1.5GB", "99999999999TB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
