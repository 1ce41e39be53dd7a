//! What a sync says about streams that go to an API.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use trib_core::delivery::OnMiss;
use trib_core::{WriteMode, load};

/// `write:`, for tables and for objects of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// The table holds what this load has read, and nothing else.
    Replace,
    /// Rows are added as they come.
    Append,
    /// Rows whose key is new are added; what is there stays as it is.
    Insert,
    /// The last row of each key wins.
    Upsert,
    /// Upsert, and what was not read is deleted.
    Mirror,
    /// Every version of a row is kept, with the time from and to which it held (SCD2).
    History,
    /// API destinations: records that are there get the rows' values.
    Update,
    /// API destinations: each row names a record that is to be deleted.
    Delete,
}

impl Write {
    /// What it is for a table; `None`: it is only for objects of an API.
    pub fn of_table(self) -> Option<WriteMode> {
        match self {
            Write::Replace => Some(WriteMode::Replace),
            Write::Append => Some(WriteMode::Append),
            Write::Insert => Some(WriteMode::Insert),
            Write::Upsert => Some(WriteMode::Upsert),
            Write::Mirror => Some(WriteMode::Mirror),
            Write::History => Some(WriteMode::History),
            Write::Update | Write::Delete => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self.of_table() {
            Some(mode) => mode.as_str(),
            None if self == Write::Update => "update",
            None => "delete",
        }
    }
}

/// `deletes: {apply}`, for tables and for objects of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// The row goes away.
    Hard,
    /// The row stays, and `_trib_deleted_at` is set.
    Soft,
    /// Nothing happens.
    Ignore,
    /// API destinations: the mapped fields are emptied.
    Clear,
    /// API destinations: the record is put away.
    Archive,
    /// API destinations: the record is deleted.
    Delete,
}

impl Apply {
    /// What it is for a table; `None`: it is only for objects of an API.
    pub fn of_table(self) -> Option<load::Deletes> {
        match self {
            Apply::Hard => Some(load::Deletes::Hard),
            Apply::Soft => Some(load::Deletes::Soft),
            Apply::Ignore => Some(load::Deletes::Ignore),
            Apply::Clear | Apply::Archive | Apply::Delete => None,
        }
    }
}

/// Which rows are sent to an API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Send {
    /// Rows that differ from what was last delivered.
    #[default]
    Changed,
    /// All rows, in every run.
    All,
}

/// What is kept of calls to an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// Each request with its answer, secrets left out.
    Requests,
}

/// What NULL means to an API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Empty {
    /// The field is not sent.
    Skip,
    /// The field is emptied.
    #[default]
    Clear,
}

/// How much one run may change at the API before somebody has to say yes. Percentages are of the records that were delivered before.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardSpec {
    pub max_creates: Option<Most>,
    pub max_changes: Option<Most>,
    pub max_deletes: Option<Most>,
}

/// A number of rows, or a percentage such as `5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Most {
    Rows(u64),
    Percent(f64),
}

impl Most {
    /// Whether this many of so many are too many.
    pub fn exceeded(self, rows: u64, of: u64) -> bool {
        match self {
            Most::Rows(most) => rows > most,
            Most::Percent(most) => rows as f64 > of as f64 * most / 100.0,
        }
    }
}

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Most::Rows(rows) => rows.fmt(f),
            Most::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl<'de> Deserialize<'de> for Most {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl Visitor<'_> for Amount {
            type Value = Most;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of rows, or a percentage such as `5%`")
            }

            fn visit_u64<E>(self, rows: u64) -> Result<Most, E> {
                Ok(Most::Rows(rows))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Most, E> {
                let percent = text.trim().strip_suffix('%').and_then(|t| t.trim().parse::<f64>().ok()).filter(|p| *p >= 0.0);
                percent
                    .map(Most::Percent)
                    .ok_or_else(|| E::custom(format!("{text:?} is neither a number of rows nor a percentage such as 5%")))
            }
        }

        deserializer.deserialize_any(Amount)
    }
}

impl JsonSchema for Most {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Most".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+ *%$"}]})
    }
}

/// What a field of the object gets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// A column, or an SQL expression.
    pub value: String,
    /// The value is the key of another object's record, and the field gets what the API calls that.
    pub lookup: Option<String>,
    /// What becomes of the record when there is no such other record: it is rejected (`fail`), or sent without the field (`skip`).
    #[serde(default)]
    pub on_miss: OnMiss,
    /// When the field is sent.
    #[serde(default)]
    pub set: Set,
}

/// When a field is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// Whenever the record is.
    #[default]
    Always,
    /// Where the API has no value in it.
    IfEmpty,
}

/// A field's [`Mapping`], or the value alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped(pub Mapping);

impl<'de> Deserialize<'de> for Mapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Mapped;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column or an SQL expression, or a map with `value`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Mapped, E> {
                Ok(Mapped(Mapping { value: text.to_owned(), lookup: None, on_miss: OnMiss::Fail, set: Set::Always }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Mapped, A::Error> {
                Mapping::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Mapped)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Mapped {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mapped".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mapping = generator.subschema_for::<Mapping>();
        json_schema!({"anyOf": [{"type": "string"}, mapping]})
    }
}

/// `key:`: columns, or for an API fields with the SQL expression of their value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Columns(Vec<String>),
    Fields(Vec<(String, String)>),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, a list of columns, or a map of fields to columns or SQL expressions")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key::Columns(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Key, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Key::Columns(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Key, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Key::Fields(fields))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_rows_and_percent() {
        let of = |text: &str| serde_json::from_str::<Most>(text).unwrap();
        assert!(of("10").exceeded(11, 0) && !of("10").exceeded(10, 0));
        assert!(of("\"5%\"").exceeded(6, 100) && !of("\"5%\"").exceeded(5, 100));
        assert!(of("\"5%\"").exceeded(1, 0));
        assert!(serde_json::from_str::<Most>("\"some\"").is_err());
    }
}
