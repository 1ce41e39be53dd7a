//! `connections.yaml`, and each file of `connections/`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Connections by name. Settings beyond these belong to the connector: `trib connectors show NAME` lists them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ConnectionsSpec(pub BTreeMap<String, ConnectionSpec>);

/// A connector with its settings, as far as every connection has them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConnectionSpec {
    /// What kind of system it is: `postgres`, `files`, … `trib connectors list` names them.
    pub connector: String,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: syncs of this connection do not run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How many connections to the system may be open at once.
    pub threads: Option<usize>,
}

impl ConnectionSpec {
    /// The keys of a connection that are not the connector's.
    pub const KEYS: &[&str] = &["connector", "description", "owner", "tags", "enabled", "threads"];
}

pub(super) fn yes() -> bool {
    true
}
