//! What a run has left undone, for `trib run --retry-failed`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trib_core::{Error, Result};
use trib_project::pattern::Pattern;
use trib_project::{Pick, Selection};
use trib_store::Store;

const KEY: &str = "unfinished";

/// Nodes of the last run that failed or were left out, and of syncs the streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unfinished {
    pub run: String,
    /// No streams named means the whole node.
    nodes: BTreeMap<String, Vec<String>>,
}

impl Unfinished {
    pub fn of(run: &str) -> Self {
        Self { run: run.to_owned(), nodes: BTreeMap::new() }
    }

    pub fn node(&mut self, name: &str) {
        self.nodes.insert(name.to_owned(), Vec::new());
    }

    /// One stream of a node; nothing where the whole node is unfinished anyway.
    pub fn stream(&mut self, node: &str, stream: &str) {
        match self.nodes.get_mut(node) {
            Some(streams) if streams.is_empty() => {}
            Some(streams) => streams.push(stream.to_owned()),
            None => drop(self.nodes.insert(node.to_owned(), vec![stream.to_owned()])),
        }
    }

    pub async fn keep(&self, store: &Store) -> Result<()> {
        store.set_meta(KEY, &serde_json::to_string(self)?).await
    }

    /// `None` before the first run.
    pub async fn last(store: &Store) -> Result<Option<Self>> {
        let stored = store.meta(KEY).await?;
        stored.map(|text| serde_json::from_str(&text).map_err(Error::from)).transpose()
    }

    pub fn selection(&self) -> Selection {
        let mut nodes = BTreeMap::new();
        for (node, streams) in &self.nodes {
            let mut pick: Option<Pick> = None;
            for stream in streams {
                let this = Pick::Named(Pattern::literal(stream));
                pick = Some(match pick {
                    None => this,
                    Some(others) => Pick::Either(Box::new(others), Box::new(this)),
                });
            }
            nodes.insert(node.clone(), pick.unwrap_or(Pick::All));
        }
        Selection { nodes }
    }
}
