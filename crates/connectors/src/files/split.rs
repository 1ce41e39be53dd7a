//! What a split of this source says: plain JSON, from which any machine reads the same rows.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use trib_core::{Error, Result, Split};

use super::compression::Compression;
use super::cursor::Select;
use super::format::Format;

/// Name of the column, and of the cursor, that stands for the file that a row comes from.
pub const FILE: &str = "_file";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// In the order in which they are read.
    pub files: Vec<Piece>,
    /// All columns of the stream, with the types that were declared or found.
    pub schema: Schema,
    /// All types are known from a manifest, so text and numbers are taken for values of them alike.
    #[serde(default)]
    pub typed: bool,
    /// Those that are wanted, in their order; all when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    #[serde(default)]
    pub select: Select,
    /// Files that the state knows and that are no longer there, so that it can forget them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// A file, or a part of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// As people and state know it: relative to the stream's folder.
    pub name: String,
    /// In its store.
    pub path: String,
    /// What the state remembers: see [`super::config::Track`].
    pub stamp: String,
    pub size: u64,
    pub format: Format,
    #[serde(default)]
    pub compression: Compression,
    /// Only these bytes, which begin on `line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Only these row groups, the second not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_groups: Option<(usize, usize)>,
    /// Values of columns that the file does not hold, since its folder's name does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Option<String>>,
}

impl Spec {
    pub fn of(split: &Split) -> Result<Self> {
        serde_json::from_value(split.spec.clone())
            .map_err(|e| Error::from(e).hint("was it planned by another version? `trib state reset` starts the stream again"))
    }

    pub fn split(&self, stream: &str) -> Result<Split> {
        Ok(Split::new(stream, serde_json::to_value(self)?))
    }

    /// Names and stamps of its files.
    pub fn stamps(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|f| (f.name.as_str(), f.stamp.as_str()))
    }
}
