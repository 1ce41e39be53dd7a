//! The front matter of `models/**/*.sql`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trib_core::{Code, Error, Result};

use super::amount::Lookback;
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
    /// Columns of the result that identify a row. `history` needs them; an `incremental` model with a key replaces rows, one without
    /// appends them.
    pub key: Option<OneOrMany>,
    /// For `incremental`: the column of the result that tells what is new. Left out: everything is computed, and the rows whose key is
    /// there are replaced.
    pub cursor: Option<String>,
    /// For `incremental`: compute again what is up to this much older than the cursor, for rows that come late.
    pub lookback: Option<Lookback>,
    /// Columns to lay the table's files out by, where the destination can.
    pub partition_by: Option<OneOrMany>,
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
    /// A query that is run whenever somebody reads it.
    View,
    /// Made anew in every run.
    #[default]
    Table,
    /// Only what is new is computed.
    Incremental,
    /// Every version of a row is kept, with the time from and to which it held (SCD2).
    History,
    /// Part of the models that read it, and nothing of its own.
    Ephemeral,
}

impl Materialized {
    /// Whether rows are stored.
    pub fn is_stored(self) -> bool {
        !matches!(self, Materialized::View | Materialized::Ephemeral)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Materialized::View => "view",
            Materialized::Table => "table",
            Materialized::Incremental => "incremental",
            Materialized::History => "history",
            Materialized::Ephemeral => "ephemeral",
        }
    }
}

impl ModelSpec {
    /// What the settings say about each other.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message, setting: &str| Error::new(Code::ConfigInvalid, message).setting(setting);
        match self.materialized {
            Materialized::History if self.key.is_none() => {
                Err(wrong("a history needs a key", "key").hint("name the columns of the result that identify a row"))
            }
            Materialized::Incremental if self.key.is_none() && self.cursor.is_none() => {
                let error = wrong("an incremental model needs a key, a cursor or both", "materialized");
                Err(error.hint("`key:` names the columns that identify a row, `cursor:` the one that tells what is new"))
            }
            Materialized::Incremental if self.key.is_none() && self.lookback.is_some() => {
                let error = wrong("computing rows again would append them a second time", "lookback");
                Err(error.hint("give the model a key, so that its rows are replaced"))
            }
            Materialized::Incremental => Ok(()),
            _ if self.cursor.is_some() || self.lookback.is_some() => {
                Err(wrong("only an incremental model has a cursor", "cursor").hint("say `materialized: incremental`"))
            }
            _ => Ok(()),
        }
    }
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
