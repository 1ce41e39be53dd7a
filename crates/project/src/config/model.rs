//! The front matter of `models/**/*.sql`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trib_core::interval::Period;
use trib_core::{Code, Error, Result};

use super::amount::{Lookback, Time};
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
    /// For `incremental` with a cursor that is a date or a time: the result is computed interval by interval, and each replaces its own rows.
    pub batch_size: Option<Period>,
    /// With `batch_size`: nothing before this time counts. Left out, the least one that the first run finds.
    pub begin: Option<String>,
    /// For `incremental` without key and cursor: the column whose values in the result say which rows of the table are replaced. Otherwise columns to
    /// lay the table's files out by, where the destination can.
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
    /// Of a script: the tables that it is given.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Of a script: how it is given tables, and writes its own to standard output.
    #[serde(default)]
    pub format: ScriptFormat,
    /// Of a script: packages that it needs, as pip takes them. It then runs in an environment of its own.
    #[serde(default)]
    pub requirements: Vec<String>,
    /// The SQL is a template: variables and macros are filled in before it is parsed.
    #[serde(default)]
    pub template: bool,
    /// Of a template: its variables, over those of `defaults.model.vars`.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// Of a script: how long it may run; an hour where nothing is said.
    pub timeout: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScriptFormat {
    /// Arrow IPC streams: `pyarrow.ipc`.
    #[default]
    Arrow,
    /// JSON Lines, an object for each row. Types of columns are taken from `columns:`, or found.
    Json,
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
    /// Rows are replaced by the values of this column that the result has.
    pub fn replaced_by(&self) -> Option<&str> {
        let alone = self.materialized == Materialized::Incremental && self.key.is_none() && self.cursor.is_none();
        match &self.partition_by {
            Some(OneOrMany(columns)) if alone => columns.first().map(String::as_str),
            _ => None,
        }
    }

    /// What a script can be, and what only a script has.
    pub(crate) fn check_script(&self, is_script: bool) -> Result<()> {
        let wrong = |message, setting: &str| Err(Error::new(Code::ConfigInvalid, message).setting(setting));
        let only_scripts = [
            (!self.reads.is_empty(), "reads"),
            (self.format != ScriptFormat::Arrow, "format"),
            (!self.requirements.is_empty(), "requirements"),
            (self.timeout.is_some(), "timeout"),
            (self.columns.values().any(|c| c.sql_type.is_some()), "columns.….type"),
        ];
        match only_scripts.iter().find(|(said, _)| *said) {
            Some((_, setting)) if !is_script => return wrong("only a script has this setting", setting),
            _ => {}
        }
        if is_script && !self.materialized.is_stored() {
            return wrong("a script gives rows that have to be stored", "materialized");
        }
        if is_script && self.template {
            return wrong("a script is no template", "template");
        }
        if is_script && self.cursor.is_some() {
            return wrong("a script computes everything, so it has no cursor", "cursor");
        }
        Ok(())
    }

    /// What the settings say about each other.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message, setting: &str| Error::new(Code::ConfigInvalid, message).setting(setting);
        if self.batch_size.is_some() {
            let error = wrong("`batch_size` is for incremental models with a cursor", "batch_size");
            if self.materialized != Materialized::Incremental || self.cursor.is_none() {
                return Err(error.hint("say `materialized: incremental` and name the date or time in `cursor:`"));
            }
            return Ok(());
        }
        if self.begin.is_some() {
            return Err(wrong("`begin` needs a `batch_size`", "begin").hint("`batch_size: day` computes day by day"));
        }
        match self.materialized {
            Materialized::History if self.key.is_none() => {
                Err(wrong("a history needs a key", "key").hint("name the columns of the result that identify a row"))
            }
            Materialized::Incremental if self.replaced_by().is_some() => match self.partition_by.as_ref().map_or(0, |p| p.0.len()) {
                1 => Ok(()),
                _ => {
                    Err(wrong("rows are replaced by the values of one column", "partition_by").hint("name one, or give the model a `key:`"))
                }
            },
            Materialized::Incremental if self.key.is_none() && self.cursor.is_none() => {
                let error = wrong("an incremental model needs a key, a cursor or a partition", "materialized");
                Err(error.hint("`key:` names the columns that identify a row, `cursor:` the one that tells what is new, `partition_by:` the one whose values are replaced"))
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
    /// Of a script that writes JSON: the column's SQL type.
    #[serde(rename = "type")]
    pub sql_type: Option<String>,
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
    /// Variables of models that are templates.
    pub vars: BTreeMap<String, Value>,
}

fn warehouse() -> String {
    "warehouse".to_owned()
}

fn analytics() -> String {
    "analytics".to_owned()
}
