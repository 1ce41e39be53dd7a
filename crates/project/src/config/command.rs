//! `commands/*.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::amount::Time;
use super::connection::yes;

/// A program of somebody else's as a node: it runs after what it reads was made, and before what reads its tables.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: the command does not run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A list is a program and its arguments; a text is a line for `sh`.
    pub run: RunLine,
    /// The folder that it runs in, below the project's.
    pub dir: Option<String>,
    /// Variables of its environment, on top of Tributary's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where the tables lie that it reads and writes.
    #[serde(default = "warehouse")]
    pub connection: String,
    /// Tables that it reads: what makes them runs before.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Tables that it writes, names or globs: what reads them runs after.
    #[serde(default)]
    pub writes: Vec<String>,
    /// Nodes that must run before, beyond those whose tables it reads.
    #[serde(default)]
    pub after: Vec<String>,
    /// It is ended after this long; six hours where nothing is said.
    pub timeout: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RunLine {
    Shell(String),
    Program(Vec<String>),
}

impl RunLine {
    /// As people write it.
    pub fn text(&self) -> String {
        match self {
            RunLine::Shell(line) => line.trim().to_owned(),
            RunLine::Program(words) => words.join(" "),
        }
    }
}

fn warehouse() -> String {
    "warehouse".to_owned()
}
