//! `syncs/*.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use trib_core::contract::Contract;
use trib_core::name::Naming;

use super::amount::{Bytes, Time};
use super::connection::yes;
use super::one_or_many::OneOrMany;
use super::stream::{StreamSpec, StreamsSpec};

/// Streams of one connection, or of several alike, going into another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncSpec {
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: the sync does not run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The connection that is read, or several that offer the same streams.
    pub from: OneOrMany,
    /// The connection that is written.
    #[serde(default = "warehouse")]
    pub to: String,
    /// The tables: `schema.{table}`, with `{connection}`, `{schema}`, `{table}` and `{stream}` of the source.
    #[serde(default = "default_into")]
    pub into: String,
    /// What all streams of this sync have unless they say otherwise.
    #[serde(default)]
    #[allow(dead_code, reason = "read from the tree, where the settings of a stream are laid over each other")]
    pub defaults: StreamSpec,
    /// Globs of streams that are left out, whatever `streams` says with a glob.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What may change at the source.
    #[serde(default)]
    pub contract: Contract,
    /// Columns that are added to every table: name and SQL expression. `{connection}` and `{stream}` are filled in.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// An added column that tells the sources of a table apart: it joins the key, and replace and mirror touch their own rows only.
    pub scope: Option<String>,
    /// Streams by name or glob, or a list of them. Left out: all.
    pub streams: Option<StreamsSpec>,
    /// What happens when a load fails in a way that waiting may mend.
    #[serde(default)]
    pub retry: RetrySpec,
    /// No row and no sign of life for this long, and the load is given up.
    pub stall_timeout: Option<Time>,
    /// How names of the source become names of tables and columns.
    #[serde(default)]
    pub naming: Naming,
    /// How many of its streams are read at the same time.
    pub threads: Option<usize>,
    /// How much one load may hold before it is committed and the next begins.
    #[serde(default)]
    pub load: LoadSpec,
    /// A source that is suddenly empty may empty the table.
    #[serde(default)]
    pub allow_empty: bool,
}

/// What every sync has unless it says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyncDefaults {
    /// What all streams have unless their sync or they themselves say otherwise.
    pub defaults: StreamSpec,
    pub contract: Contract,
    pub retry: RetrySpec,
    pub stall_timeout: Option<Time>,
    pub naming: Naming,
    pub threads: Option<usize>,
    pub load: LoadSpec,
    pub allow_empty: bool,
    /// The tables of syncs that do not say: `{connection}.{table}`.
    pub into: Option<String>,
    /// The connection that syncs write to when they do not say.
    pub to: Option<String>,
}

/// What happens when a load fails in a way that waiting may mend.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// How often a load is tried, the first time included.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles with each further one.
    pub backoff: Time,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 3, backoff: Time(std::time::Duration::from_secs(30)) }
    }
}

/// How much one load may hold before it is committed and the next begins. Where rows become visible only after a complete read
/// (`replace`, `mirror`) rows, bytes and time have no effect.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSpec {
    pub rows: Option<u64>,
    pub bytes: Option<Bytes>,
    pub time: Option<Time>,
    /// Rows that one load may reject. With more of them it fails, since something is wrong with all. Left out: 100000.
    pub rejected: Option<u64>,
}

fn warehouse() -> String {
    "warehouse".to_owned()
}

fn default_into() -> String {
    "{connection}.{table}".to_owned()
}
