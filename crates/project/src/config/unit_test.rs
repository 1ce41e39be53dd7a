//! `tests/*.yaml`: unit tests of models and of what a sync does to its rows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::connection::yes;

/// Tests by name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UnitTestsSpec(pub BTreeMap<String, UnitTestSpec>);

/// Given these rows, the node gives those.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitTestSpec {
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A model, or a stream of a sync: `sync/stream`.
    pub node: String,
    /// Rows by table: what the node reads. A row is a map of columns.
    pub given: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    /// The rows that must come out.
    pub expect: Vec<BTreeMap<String, Value>>,
}
