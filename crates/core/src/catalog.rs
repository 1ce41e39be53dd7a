//! What a source offers.

use arrow::datatypes::{DataType, Field, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result, closest};
use crate::mode::ReadMode;

/// The streams that a source offers, in the order in which a person would list them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Catalog {
    pub streams: Vec<Stream>,
}

/// One named series of records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Unique in the catalog, and what a project writes under `streams:` — `public.orders`.
    pub name: String,
    /// What `{schema}` stands for in `into:`; empty when the source has no such grouping.
    pub schema_name: Option<String>,
    /// What `{table}` stands for in `into:`.
    pub table: String,
    pub schema: SchemaRef,
    /// Columns that identify a row; empty when the source declares none.
    pub primary_key: Vec<String>,
    /// Columns that a cursor may run on, the best first.
    pub cursors: Vec<String>,
    pub read_modes: Vec<ReadMode>,
    /// An estimate, where one is cheap to have.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub description: Option<String>,
    /// What comes next is all of the stream: rows that were loaded before and do not come again are gone. Only where streams share a split.
    pub anew: bool,
}

impl Stream {
    /// A stream that can only be read as a whole.
    pub fn new(name: impl Into<String>, table: impl Into<String>, schema: SchemaRef) -> Self {
        Self {
            name: name.into(),
            schema_name: None,
            table: table.into(),
            schema,
            primary_key: Vec::new(),
            cursors: Vec::new(),
            read_modes: vec![ReadMode::Full],
            rows: None,
            bytes: None,
            description: None,
            anew: false,
        }
    }

    /// The field, or an error that suggests the one that was meant.
    pub fn field(&self, name: &str) -> Result<&Field> {
        self.schema.field_with_name(name).map_err(|_| {
            let error = Error::new(Code::NotFound, "the stream has no such column").detail(name).stream(&self.name);
            match closest(name, self.schema.fields().iter().map(|f| f.name().as_str())) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error,
            }
        })
    }
}

/// Names that usually mean "last changed", the most usual first, in lower case and without anything between the words.
const CHANGED: [&str; 18] = [
    "updatedat",
    "modifiedat",
    "lastmodified",
    "lastmodifiedat",
    "updated",
    "modified",
    "updatedon",
    "modifiedon",
    "lastupdated",
    "lastupdatedat",
    "changedat",
    "changedon",
    "updatetime",
    "lastupdate",
    "lastmodifieddate",
    "modifieddate",
    "datemodified",
    "dateupdated",
];

/// Place of a name in [`CHANGED`].
fn changed(column: &str) -> Option<usize> {
    let squashed: String = column.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    CHANGED.iter().position(|c| *c == squashed)
}

/// Whether a column's name says that it moves with every change of its row, so that a cursor on it sees updates.
pub fn moves_with_changes(column: &str) -> bool {
    changed(column).is_some()
}

/// Columns that a cursor can run on, best first: names that usually mean "last changed", then other
/// times, then ascending numbers. A proposal for people to confirm, never a decision.
pub fn propose_cursors(schema: &SchemaRef, primary_key: &[String]) -> Vec<String> {
    let rank = |field: &Field| -> Option<usize> {
        let name = field.name().to_lowercase();
        match field.data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                Some(changed(&name).unwrap_or(if name.contains("creat") { 60 } else { 50 }))
            }
            t if t.is_integer() && primary_key == [field.name().clone()] => Some(80),
            _ => None,
        }
    };
    let mut ranked: Vec<_> = schema.fields().iter().filter_map(|f| Some((rank(f)?, f.name().clone()))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, name)| name).collect()
}

impl Catalog {
    /// The stream, or an error that suggests the one that was meant.
    pub fn stream(&self, name: &str) -> Result<&Stream> {
        self.streams.iter().find(|s| s.name == name).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "the source has no such stream").detail(name);
            match closest(name, self.streams.iter().map(|s| s.name.as_str())) {
                Some(near) => error.hint(format!("did you mean {near:?}? `trib discover` lists the streams")),
                None => error.hint("`trib discover` lists the streams; the connection's user sees only what it may read"),
            }
        })
    }
}
