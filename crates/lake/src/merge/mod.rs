//! Merging staged rows into a table by key, with memory that neither the table nor the load decides.
//!
//! 1. The keys of the staged rows go into an index, the last row of each key winning. When they are more than the budget, the keys are
//!    cut into buckets by hash, and what follows is done for one bucket at a time.
//! 2. Files whose key range holds no staged key are left alone. Of the others only the key columns are read, to find
//!    the rows that the load touches. What is remembered of that is a bit for each row.
//! 3. Files with touched rows are written again without them, one after the other. Staged files of which every row counts become part of the
//!    table as they are; the others are written again with the rows that do.
//!
//! Steps 1 and 2 are in [`decide`], what becomes of a row in [`rules`], step 3 in [`rewrite`]. Rows of which only some columns change are [`amend`]'s.

pub mod amend;
pub mod covered;
pub mod decide;
pub mod keys;
pub mod rewrite;
pub mod rules;
pub mod unkeyed;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::data_file::NewFile;

/// Files that a load has staged for one table.
#[derive(Clone)]
pub struct StagedFiles {
    pub folder: Path,
    pub files: Vec<NewFile>,
    pub sequenced: bool,
    pub changes: bool,
}

/// Where a merge reads and writes.
#[derive(Clone)]
pub struct Room {
    pub store: Arc<dyn ObjectStore>,
    pub folder: Path,
    /// The table's columns after this load.
    pub schema: SchemaRef,
    /// Names of new files begin like this.
    pub prefix: String,
    pub file_bytes: u64,
    /// For the keys that are held at a time.
    pub key_bytes: usize,
    /// Columns that later merges prune by.
    pub bounded: Vec<String>,
}
