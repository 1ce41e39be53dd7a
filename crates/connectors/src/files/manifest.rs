//! What readers of a written folder may rely on: which files hold a table, and which loads brought them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::datatypes::Schema;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trib_core::{Code, Error, LoadId, Marker, Result, TableName};

use super::format::Format;
use super::place::{Place, Version};

const VERSION: u32 = 1;

/// The folder of everything that is not data. Its name begins with `_`, so that readers of the data leave it out.
pub const CONTROL: &str = "_trib";

/// One table: `_trib/tables/<table>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableManifest {
    pub version: u32,
    pub table: TableName,
    pub format: Format,
    pub schema: Schema,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// The last load of each writer, to find out what a crash has left.
    pub writers: Vec<Writer>,
    pub files: Vec<DataFile>,
    /// Files that the last load has replaced, to be removed: a crash may come before they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    pub sync: String,
    pub scope: String,
    pub number: u64,
    pub load: LoadId,
    pub generation: u64,
}

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the destination's folder.
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    pub load: LoadId,
    pub committed_at: DateTime<Utc>,
    /// Values of the columns that the folder's name holds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Option<String>>,
    /// The row scope that all of its rows are in, where several sources share the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// What a destination remembers of one sync: `_trib/syncs/<hash>.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncRecord {
    pub version: u32,
    pub sync: String,
    /// The greatest that the destination was opened with.
    pub generation: u64,
    pub holder: String,
    /// By scope.
    pub markers: BTreeMap<String, Marker>,
}

impl TableManifest {
    pub fn new(table: &TableName, format: Format) -> Self {
        Self {
            version: VERSION,
            table: table.clone(),
            format,
            schema: Schema::empty(),
            key: Vec::new(),
            partition_by: Vec::new(),
            writers: Vec::new(),
            files: Vec::new(),
            replaced: Vec::new(),
        }
    }
}

/// A name that is one component of a path: what is not a letter, digit, `-`, `_` or space is written as `%` and hex digits. A leading `_`
/// is too, since readers leave such folders out.
pub fn component(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_alphanumeric() || matches!(c, '-' | ' ') || (c == '_' && i > 0) {
            out.push(c);
        } else {
            for b in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

/// The folder of a table's files.
pub fn folder(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}/{}", component(schema), component(&table.name)),
        None => component(&table.name),
    }
}

pub fn table_file(table: &TableName) -> String {
    let name = match &table.schema {
        Some(schema) => format!("{}.{}", component(schema), component(&table.name)),
        None => component(&table.name),
    };
    format!("{CONTROL}/tables/{name}.json")
}

/// A sync's name in paths: any text may be one.
pub fn sync_key(sync: &str) -> String {
    hex::encode(&Sha256::digest(sync.as_bytes())[..8])
}

fn sync_file(sync: &str) -> String {
    format!("{CONTROL}/syncs/{}.json", sync_key(sync))
}

pub fn stage_folder(sync: &str, load: &LoadId) -> String {
    format!("{CONTROL}/stage/{}/{}", sync_key(sync), component(&load.0))
}

pub async fn table(place: &Place, name: &TableName) -> Result<Option<(TableManifest, Version)>> {
    read(place, &table_file(name)).await
}

pub async fn put_table(place: &Place, manifest: &TableManifest, expected: &Version) -> Result<()> {
    place.put(&table_file(&manifest.table), serde_json::to_vec(manifest)?, expected).await
}

/// All tables of a place.
pub async fn tables(place: &Place) -> Result<Vec<TableManifest>> {
    let mut tables = Vec::new();
    for name in place.files(&format!("{CONTROL}/tables")).await? {
        // Others are temporary files of a write that is going on.
        if std::path::Path::new(&name).extension().is_some_and(|e| e == "json")
            && let Some((manifest, _)) = read(place, &name).await?
        {
            tables.push(manifest);
        }
    }
    tables.sort_by(|a: &TableManifest, b| a.table.cmp(&b.table));
    Ok(tables)
}

pub async fn sync(place: &Place, name: &str) -> Result<(SyncRecord, Version)> {
    let found = read(place, &sync_file(name)).await?;
    Ok(found.unwrap_or_else(|| (SyncRecord { version: VERSION, sync: name.to_owned(), ..SyncRecord::default() }, Version::Absent)))
}

pub async fn put_sync(place: &Place, record: &SyncRecord, expected: &Version) -> Result<()> {
    place.put(&sync_file(&record.sync), serde_json::to_vec_pretty(record)?, expected).await
}

async fn read<T: DeserializeOwned>(place: &Place, name: &str) -> Result<Option<(T, Version)>> {
    let Some((bytes, version)) = place.get(name).await? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(Code::DataInvalid, "a control file cannot be understood")
            .file(format!("{}/{name}", place.shown()), None, None)
            .source(e)
            .hint("was it written by a newer version?")
    })?;
    Ok(Some((value, version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for (name, expected) in [("orders", "orders"), ("../x", "%2E%2E%2Fx"), ("_a", "%5Fa"), ("a=b", "a%3Db"), ("ä", "ä")] {
            assert_eq!(component(name), expected);
        }
        assert_eq!(folder(&TableName::new(Some("public"), "orders")), "public/orders");
    }
}
