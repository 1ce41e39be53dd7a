//! Projects of other tools, as projects of ours.

pub mod expression;
pub mod meltano;
pub mod stream_map;
mod yaml_text;

use std::collections::BTreeMap;

/// What has become of another tool's project.
#[derive(Debug, Default)]
pub struct Imported {
    /// Files by their path below the new project's folder.
    pub files: BTreeMap<String, String>,
    /// What could not be carried over, and what a person should look at: one line each.
    pub notes: Vec<String>,
}

impl Imported {
    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
