//! What a source needs to go on from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Opaque to all but the source that wrote it, readable JSON to a person.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Value>,
    /// What belongs to no single stream: a log position, a Singer tap's whole state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<Value>,
    /// Of each stream whose read was cut: the fingerprint of what was asked for ([`crate::StreamRead::fingerprint`]). What the source has left of
    /// the read answers that question and no other. The runtime's own; sources hand it on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cut: BTreeMap<String, String>,
}

impl State {
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.global.is_none()
    }

    pub fn stream(&self, name: &str) -> Option<&Value> {
        self.streams.get(name)
    }

    /// This state with one stream's part replaced.
    #[must_use]
    pub fn with_stream(&self, name: &str, value: Value) -> State {
        let mut state = self.clone();
        state.streams.insert(name.to_owned(), value);
        state.cut.remove(name);
        state
    }

    /// This state, with what `newer` says in place of what this one said.
    #[must_use]
    pub fn merged(&self, newer: &State) -> State {
        let mut state = self.clone();
        state.streams.extend(newer.streams.clone());
        state.cut.retain(|stream, _| !newer.streams.contains_key(stream));
        state.cut.extend(newer.cut.clone());
        if newer.global.is_some() {
            state.global.clone_from(&newer.global);
        }
        state
    }
}
