//! `tributary.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trib_core::Secret;

use super::model::ModelDefaults;
use super::sync::SyncDefaults;

/// The project: its name, where it keeps its state, and what its parts have in common.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSpec {
    /// The project's name. Part of the identity of its syncs, so that two projects can share a destination.
    pub name: String,
    /// The version of the project's format; older ones are brought up to date when they are read.
    #[serde(default = "newest")]
    pub version: u32,
    pub description: Option<String>,
    pub owner: Option<String>,
    /// The control database: a path to a SQLite file relative to the project, or `postgres://…` for CI and teams.
    #[serde(default = "default_state")]
    pub state: Secret,
    /// How many streams are read at the same time.
    pub threads: Option<usize>,
    #[serde(default)]
    pub defaults: Defaults,
    /// What differs between machines and stages, chosen with `--env`. `dev`, where it is declared, is used when none is named.
    #[serde(default)]
    pub environments: BTreeMap<String, EnvironmentSpec>,
    /// Who is told about what.
    #[serde(default)]
    pub notify: Vec<NotifySpec>,
    /// Where events of OpenLineage go.
    pub openlineage: Option<OpenLineageSpec>,
}

/// The format version that this program writes.
pub const NEWEST: u32 = 1;

fn newest() -> u32 {
    NEWEST
}

fn default_state() -> Secret {
    Secret::new(".tributary/control.db")
}

/// Settings that every sync and every model has unless it says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    pub sync: SyncDefaults,
    pub model: ModelDefaults,
}

/// One environment. Its settings may hold secrets, so it is not shown.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentSpec {
    pub description: Option<String>,
    /// Put before the schema of every table that is written, so that environments can share a destination.
    pub schema_prefix: String,
    /// `reset` and `--full-refresh` ask first.
    pub protected: bool,
    /// `false`: API destinations only plan, and nothing leaves the machine.
    pub deliver: Option<bool>,
    /// Connections as they are in this environment. One that names a `connector` replaces the project's; otherwise its settings are laid over them.
    pub connections: BTreeMap<String, Value>,
    /// Values for `${…}` where neither the process nor `.env` has them.
    pub vars: BTreeMap<String, String>,
}

/// Who is told about what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifySpec {
    /// What is worth a message.
    pub on: Vec<Event>,
    /// Where the message goes: a webhook's URL or an address.
    pub to: Secret,
    /// Only for these nodes, as in `--select`.
    #[serde(default)]
    pub select: Vec<String>,
}

/// Where events of OpenLineage go: what ran, what it read and wrote, which columns came from which. That they cannot be delivered fails no run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenLineageSpec {
    /// A file that events are added to, one a line; relative to the project.
    pub file: Option<String>,
    /// The endpoint that events are posted to, such as `https://host/api/v1/lineage`.
    pub url: Option<Secret>,
    /// Sent along as a bearer token.
    pub api_key: Option<Secret>,
    /// The namespace of jobs. Left out: the project's name.
    pub namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A run has failed.
    Failed,
    /// The first run that went well after one that failed.
    Recovered,
    /// A job did not end when it should have.
    Late,
    /// A guard holds a run until somebody approves it.
    Held,
}
