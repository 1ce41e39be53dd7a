//! Projects of other tools, as projects of ours.

pub mod airbyte;
pub mod dlt;
pub mod expression;
pub mod meltano;
pub mod sling;
pub mod stream_map;
mod system;
mod yaml_text;

use std::collections::BTreeMap;

/// Reads a file of the other tool's project, by its path below it.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Option<String>;

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
