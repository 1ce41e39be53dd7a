//! The front matter of `models/**/*.sql`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::yes;
use super::one_or_many::OneOrMany;

/// What stands between `/*---` and `---*/` at the top of a model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: the model does not run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What the model becomes.
    #[serde(default)]
    pub materialized: Materialized,
    /// Where it is made.
    #[serde(default = "warehouse")]
    pub connection: String,
    /// The schema of its table, whose name is that of the file.
    #[serde(default = "analytics")]
    pub schema: String,
    /// Columns that identify a row; `incremental` and `history` need them.
    pub key: Option<OneOrMany>,
    /// The column that tells what is new, for `incremental`.
    pub cursor: Option<String>,
    /// Descriptions and tests of columns.
    #[serde(default)]
    pub columns: BTreeMap<String, ModelColumn>,
    /// Data tests on the result.
    #[serde(default)]
    pub tests: Vec<Value>,
    /// Nodes that must run before, beyond those whose tables the SQL reads.
    #[serde(default)]
    pub after: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Materialized {
    View,
    #[default]
    Table,
    Incremental,
    History,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelColumn {
    pub description: Option<String>,
    pub tests: Vec<Value>,
}

/// What every model has unless it says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelDefaults {
    pub owner: Option<String>,
    pub materialized: Option<Materialized>,
    pub connection: Option<String>,
    pub schema: Option<String>,
}

fn warehouse() -> String {
    "warehouse".to_owned()
}

fn analytics() -> String {
    "analytics".to_owned()
}
