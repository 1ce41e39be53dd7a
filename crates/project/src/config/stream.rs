//! What a sync says about its streams.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use trib_core::ReadMode;
use trib_core::contract::Contract;
use trib_core::source::NullCursor;
use trib_core::transform::{ColumnRule, Nesting};

use super::amount::{Lookback, Time};
use super::delivery::{Apply, Empty, GuardSpec, Key, Log, Mapped, Send, Write};
use super::one_or_many::OneOrMany;

/// How a stream is read, changed on its way, and written. Everything may be left out. What is said more specifically wins:
/// the project's defaults, the sync's, globs (shorter before longer), the exact name. Maps merge, lists replace, and
/// `null` takes back what was said before.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSpec {
    pub description: Option<String>,
    pub owner: Option<String>,
    pub tags: Vec<String>,
    /// `false`: the stream is left out.
    pub enabled: Option<bool>,
    /// `full`, `incremental` or `cdc`. Left out: `incremental` where a cursor is given, otherwise `full`.
    pub read: Option<ReadMode>,
    /// `replace`, `append`, `insert`, `upsert`, `mirror` or `history`. Left out: `replace` for a full read; otherwise `upsert` where
    /// there is a key, and `append` where there is none.
    pub write: Option<Write>,
    /// Columns that identify a row, named as the source has them. Left out: the source's primary key. For an API: fields of the object, each with the
    /// column or SQL expression of its value.
    pub key: Option<Key>,
    /// The column that tells what is new: one that only grows, such as `updated_at`.
    pub cursor: Option<String>,
    /// Read again what is up to this much older than the cursor, for commits that come late.
    pub lookback: Option<Lookback>,
    /// Rows whose cursor is NULL: `exclude`, `include` or `fail`.
    pub null_cursor: Option<NullCursor>,
    /// Where the first incremental run begins (inclusive).
    #[serde(deserialize_with = "bound")]
    pub start: Option<String>,
    /// Rows whose cursor is at or after this are never read.
    #[serde(deserialize_with = "bound")]
    pub end: Option<String>,
    /// A SQL condition on the source's columns, evaluated by the source where it can.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// The columns that are wanted, in this order. Left out: all.
    pub select: Option<Vec<String>>,
    /// What happens to single columns, named as the source has them.
    pub columns: BTreeMap<String, ColumnRule>,
    /// A query over the table `input` that replaces the stream's rows.
    pub sql: Option<String>,
    /// Columns that are added: name and SQL expression. `{connection}` and `{stream}` are filled in.
    pub add: BTreeMap<String, String>,
    /// What becomes of structs and lists: `table`, `json` or `struct`.
    pub nested: Option<Nesting>,
    /// The table: `schema.{table}`, with `{connection}`, `{schema}`, `{table}` and `{stream}`. Left out: the sync's.
    pub into: Option<String>,
    pub deletes: DeletesSpec,
    /// `allow`: rows may be loaded twice (a full read that appends, say).
    pub duplicates: Option<Duplicates>,
    /// A column by whose ranges the read is cut into pieces.
    pub split_by: Option<String>,
    /// Columns to lay the table's files out by, where the destination can.
    pub partition_by: Option<OneOrMany>,
    /// Data tests on the table.
    pub tests: Vec<Value>,
    pub contract: Contract,
    /// `false`: `--full-refresh` leaves this stream's state alone.
    pub full_refresh: Option<bool>,
    /// API destinations: fields of the object, each with the column or SQL expression of its value. Left out: every column, under its name.
    pub map: Option<BTreeMap<String, Mapped>>,
    /// API destinations: `changed` (rows that differ from what was last delivered) or `all`.
    pub send: Option<Send>,
    /// API destinations: what NULL means: `clear` empties the field, `skip` does not send it.
    pub empty: Option<Empty>,
    /// API destinations: `requests` keeps each request with its answer, without secrets, in files below `.tributary/deliveries`.
    pub log: Option<Log>,
    /// API destinations: how much one run may change before somebody has to say yes.
    pub guard: GuardSpec,
}

/// How deletes at the source are found and what they do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeletesSpec {
    /// `log`: from the change log. `compare`: by reading all keys now and then. `none`: not at all. Left out: `log` where the read is
    /// `cdc`, otherwise `none`.
    pub detect: Option<Detect>,
    /// How often keys are compared. Left out: in every run.
    pub every: Option<Time>,
    /// `hard`: the row goes away. `soft`: it stays, and `_trib_deleted_at` is set. `ignore`: nothing happens. For an API: `ignore`, `clear`, `archive` or
    /// `delete` what was delivered and whose row is gone.
    pub apply: Option<Apply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detect {
    Log,
    Compare,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    Allow,
}

/// A bound may be written as text, as a date (which is text in YAML 1.2) or as a number.
fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Bound;

    impl Visitor<'_> for Bound {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a whole number")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Bound)
}

/// Streams by name or glob, in the order of the file; or only their names.
#[derive(Clone, Debug, Default)]
pub struct StreamsSpec(pub Vec<(String, StreamSpec)>);

impl<'de> Deserialize<'de> for StreamsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Streams;

        impl<'de> Visitor<'de> for Streams {
            type Value = StreamsSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map or a list of streams")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StreamsSpec, A::Error> {
                let mut streams = Vec::new();
                while let Some((name, spec)) = map.next_entry::<String, Option<StreamSpec>>()? {
                    streams.push((name, spec.unwrap_or_default()));
                }
                Ok(StreamsSpec(streams))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<StreamsSpec, A::Error> {
                let mut streams = Vec::new();
                while let Some(name) = names.next_element::<String>()? {
                    streams.push((name, StreamSpec::default()));
                }
                Ok(StreamsSpec(streams))
            }
        }

        deserializer.deserialize_any(Streams)
    }
}

impl JsonSchema for StreamsSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Streams".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let spec = generator.subschema_for::<Option<StreamSpec>>();
        json_schema!({
            "description": "Streams by name or glob, or a list of them.",
            "anyOf": [
                {"type": "object", "additionalProperties": spec},
                {"type": "array", "items": {"type": "string"}},
            ],
        })
    }
}
