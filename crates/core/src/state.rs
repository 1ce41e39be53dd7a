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
        state
    }

    /// This state, with what `newer` says in place of what this one said.
    #[must_use]
    pub fn merged(&self, newer: &State) -> State {
        let mut state = self.clone();
        state.streams.extend(newer.streams.clone());
        if newer.global.is_some() {
            state.global.clone_from(&newer.global);
        }
        state
    }

    /// Only the parts of these streams, and the global one.
    #[must_use]
    pub fn of_streams<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> State {
        State {
            streams: names.into_iter().filter_map(|n| Some((n.to_owned(), self.streams.get(n)?.clone()))).collect(),
            global: self.global.clone(),
        }
    }
}
