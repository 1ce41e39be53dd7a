//! What a project may do to a stream's rows on their way, as data. The engine carries it out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::secret::Secret;

/// What happens to one column, named as the source has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnRule {
    pub description: Option<String>,
    /// The column's name at the destination, taken as it stands.
    pub rename: Option<String>,
    /// A SQL type, such as `decimal(12, 2)` or `timestamp with time zone`. Values that cannot be cast are treated by `contract: {type_changes}`.
    pub cast: Option<String>,
    /// Leave the column out.
    pub drop: bool,
    /// Replace the value: `true` for `***`, or keep the last characters with `{keep_last: 4}`.
    pub mask: Option<Mask>,
    /// Replace the value by the SHA-256 of its text, in hex.
    pub hash: bool,
    /// Replace the value by the HMAC-SHA-256 of its text under this key, in hex.
    pub hmac: Option<Secret>,
    /// What becomes of structs and lists.
    pub nested: Option<Nesting>,
    /// Data tests on this column.
    pub tests: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Mask {
    All(bool),
    Keep {
        /// Characters at the end that stay readable.
        keep_last: usize,
    },
}

/// What becomes of a nested value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nesting {
    /// Lists of structs become a child table; structs become columns named `outer__inner`; lists of plain values stay lists
    /// where the destination has such a type, and become JSON elsewhere.
    Table,
    /// One JSON text.
    Json,
    /// As it is, where the destination can hold it.
    Struct,
}

/// Everything that happens to one stream's rows between source and destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    /// Source columns that are wanted, in this order; `None` means all.
    pub select: Option<Vec<String>>,
    /// A SQL condition over source columns, where the source does not evaluate it itself.
    pub filter: Option<String>,
    /// A query over the table `input` that replaces the stream's rows.
    pub sql: Option<String>,
    /// Rules by source column (or by column of `sql`'s result).
    pub columns: BTreeMap<String, ColumnRule>,
    /// Columns that are added: name and SQL expression, after `{connection}` and `{stream}` were filled in.
    pub add: BTreeMap<String, String>,
    /// For nested columns without a rule of their own.
    pub nested: Option<Nesting>,
}
