//! A sync, and how the settings of its streams are laid over each other.

use sha2::{Digest, Sha256};
use trib_core::{Error, Result};

use crate::config::stream::StreamSpec;
use crate::config::sync::SyncSpec;
use crate::decode::decode;
use crate::environment::Environment;
use crate::interpolate::Missing;
use crate::pattern::Pattern;
use crate::place::At;
use crate::yaml::{Content, Node};

#[derive(Clone)]
pub struct Sync {
    pub name: String,
    pub spec: SyncSpec,
    pub at: At,
    /// Of the sync as it is written, variables not filled in.
    pub hash: String,
    pub(crate) environment: Environment,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) exclude: Vec<Pattern>,
    /// The sync's file, the project's defaults below it.
    pub(crate) node: Node,
    pub(crate) missing: Vec<Missing>,
}

impl Sync {
    /// An error when a variable that the sync uses has no value.
    pub fn ready(&self) -> Result<()> {
        self.missing.first().map_or(Ok(()), |missing| Err(missing.error()))
    }

    /// Whether anything in the sync asks for a data test.
    pub fn has_tests(&self) -> bool {
        fn any(node: &Node) -> bool {
            node.entries().iter().any(|e| e.key == "tests" || any(&e.value))
        }
        any(&self.node)
    }

    /// The names and globs under `streams:`; `*` when the sync does not say.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether the sync takes a stream of this name.
    pub(crate) fn takes(&self, stream: &str) -> bool {
        self.patterns.iter().any(|p| p.text() == stream)
            || self.patterns.iter().any(|p| p.takes(stream)) && !self.exclude.iter().any(|p| p.takes(stream))
    }

    /// The settings of one stream, everything laid over each other, and the tree that they came from, for places.
    pub(crate) fn stream_settings(&self, stream: &str) -> Result<(StreamSpec, Node)> {
        let mut merged = Node::empty_map(self.at.clone());
        let shared: Vec<_> = self.node.entries().iter().filter(|e| e.key == "contract" || e.key == "add").cloned().collect();
        merged = merged.overlaid(&Node::new(self.at.clone(), Content::Map(shared)));
        let layers = self.node.get("defaults").into_iter().chain(self.layers(stream));
        for layer in layers.filter(|l| l.content != Content::Null) {
            merged = merged.overlaid(layer);
        }
        let mut errors = Vec::new();
        match decode(&merged, &["streams", stream], &mut errors) {
            Some(spec) => Ok((spec, merged)),
            None => Err(errors.pop().unwrap_or_else(|| Error::internal("settings that were read could not be read again"))),
        }
    }

    /// What `streams:` says about one stream: shorter globs before longer ones, the exact name last.
    fn layers(&self, stream: &str) -> Vec<&Node> {
        let mut patterns: Vec<&Pattern> = self.patterns.iter().filter(|p| p.takes(stream)).collect();
        patterns.sort_by_key(|p| specificity(p, stream));
        patterns.into_iter().filter_map(|p| self.node.at_path(&["streams", p.text()])).collect()
    }

    /// The most specific pattern that takes a stream.
    pub(crate) fn pattern_for(&self, stream: &str) -> Option<&Pattern> {
        self.patterns.iter().filter(|p| p.takes(stream)).max_by_key(|p| specificity(p, stream))
    }

    /// What the exact name alone says, if it is there.
    pub(crate) fn exact(&self, stream: &str) -> Option<&Node> {
        self.node.at_path(&["streams", stream])
    }

    /// The place of a name or glob under `streams:`.
    pub(crate) fn pattern_place(&self, pattern: &str) -> At {
        let streams = self.node.get("streams");
        let listed = streams.and_then(|s| match &s.content {
            Content::List(items) => items.iter().find(|i| i.content == Content::Text(pattern.to_owned())).map(|i| &i.at),
            _ => None,
        });
        listed.unwrap_or_else(|| self.node.place(&["streams", pattern])).clone()
    }
}

/// The exact name beats a glob, a longer glob a shorter one.
fn specificity(pattern: &Pattern, stream: &str) -> (bool, usize) {
    (pattern.text() == stream, pattern.text().chars().count())
}

/// SHA-256 in hex. The parts are kept apart by their lengths.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    hex::encode(digest.finalize())
}
