//! The settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use trib_core::connector::Verified;
use trib_core::{ConnectorConfig, Context, Destination, Result, Secret, Source};

use super::compression::Compression;
use super::csv::dialect::CsvConfig;
use super::destination::FilesDestination;
use super::format::{Format, named};
use super::source::FilesSource;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// A file, folder or glob, as a path (relative ones start at the project's folder) or a URL: `s3://`, `gs://`, `az://`, `https://`, `file://`.
    /// User and password of an `https://` URL are sent as basic authentication.
    #[serde(default = "here")]
    pub path: String,
    /// The format of all files; left out, it is taken from each file's extension. Files that are written are Parquet unless this or the path says otherwise.
    #[serde(default)]
    pub format: Option<Format>,
    /// How the files are compressed; left out, it is taken from each file's extension. Parquet that is written takes `zstd` or `none` in place of its default, Snappy.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// Options of the object store, such as `aws_access_key_id`, `endpoint` or `google_service_account`; what they leave out is taken from the environment.
    #[serde(default)]
    pub storage: BTreeMap<String, Secret>,
    /// How CSV and TSV files are written.
    #[serde(default)]
    pub csv: CsvConfig,
    /// The worksheet of Excel files; the first one when left out.
    #[serde(default)]
    pub sheet: Option<String>,
    /// Types of columns by name, in SQL's words: `bigint`, `decimal(12,2)`, `timestamptz`. A declared type is never guessed.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// How types are found for columns that declare none.
    #[serde(default)]
    pub infer: Infer,
    /// Streams by name. Left out, a file or glob is one stream, and a folder one stream per file name or subfolder.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamConfig>,
    /// What tells an incremental read that a file is new: its name alone, or also its time of change and size, or its version in the store.
    #[serde(default)]
    pub track: Track,
    /// Adds the column `_file` with the name of the file that a row comes from.
    #[serde(default)]
    pub add_file_name: bool,
}

fn here() -> String {
    ".".to_owned()
}

/// One stream of files. What it leaves out holds as for the connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// A file, folder or glob; relative to the connection's `path` where that is a folder.
    pub path: String,
    #[serde(default)]
    pub format: Option<Format>,
    #[serde(default)]
    pub compression: Option<Compression>,
    #[serde(default)]
    pub csv: Option<CsvConfig>,
    #[serde(default)]
    pub sheet: Option<String>,
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Columns that identify a row.
    #[serde(default)]
    pub key: Vec<String>,
    #[serde(default)]
    pub track: Option<Track>,
}

/// How much is looked at to find types.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Infer {
    /// Bytes of text that are sampled per stream.
    pub bytes: usize,
    /// Files that are sampled per stream, evenly spread over all.
    pub files: usize,
}

impl Default for Infer {
    fn default() -> Self {
        Self { bytes: 8 << 20, files: 32 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// A name that was not read yet.
    Name,
    /// A name, time of change or size that was not read yet.
    #[default]
    Mtime,
    /// A version that was not read yet, as the store tells it.
    Etag,
}

/// What is known of one stream's files before looking at them.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    pub format: Option<Format>,
    pub compression: Option<Compression>,
    pub csv: CsvConfig,
    pub sheet: Option<String>,
    pub columns: BTreeMap<String, String>,
    pub key: Vec<String>,
    pub track: Track,
}

impl FilesConfig {
    /// Settings of a stream that `streams` names, or of any other.
    pub fn stream(&self, name: &str) -> StreamSettings {
        let own = self.streams.get(name).cloned().unwrap_or_default();
        let mut columns = self.columns.clone();
        columns.extend(own.columns);
        StreamSettings {
            format: own.format.or(self.format),
            compression: own.compression.or(self.compression),
            csv: own.csv.unwrap_or_else(|| self.csv.clone()),
            sheet: own.sheet.or_else(|| self.sheet.clone()),
            columns,
            key: own.key,
            track: own.track.unwrap_or(self.track),
        }
    }
}

impl ConnectorConfig for FilesConfig {
    const NAME: &'static str = "files";
    const TITLE: &'static str = "Files";
    const DESCRIPTION: &'static str = "CSV, JSON, Parquet, Arrow and Excel files, local, in object stores or behind a URL";
    const VERIFIED: Verified = Verified::RealSystem;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(FilesSource::new(self, context).map(|s| Arc::new(s) as _))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        Some(FilesDestination::new(self, context).map(|d| Arc::new(d) as _))
    }

    fn from_url(url: &str) -> Option<Value> {
        claims(url, &|path| Path::new(path).is_dir()).then(|| json!({"path": url}))
    }
}

/// Whether a URL or path on the command line means files.
fn claims(text: &str, is_folder: &dyn Fn(&str) -> bool) -> bool {
    let known = |path: &str| named(path).format.is_some();
    match text.split_once("://") {
        Some(("file" | "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss", _)) => true,
        Some(("http" | "https", rest)) => known(rest),
        Some(_) => false,
        None if known(text) => true,
        // A Delta table is a folder that belongs to another connector.
        None if is_folder(text) => !is_folder(&format!("{}/_delta_log", text.trim_end_matches('/'))),
        None => {
            // A folder that is yet to be made.
            let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let like_a_path = text.starts_with("./") || text.starts_with("../") || text.starts_with('/') || text.ends_with('/');
            like_a_path && (!last.contains('.') || last == ".." || last == ".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed() {
        let folder = |path: &str| ["data", "delta", "delta/_delta_log"].contains(&path);
        let cases = [
            ("orders.csv", true),
            ("./out/x.parquet", true),
            ("data", true),
            ("delta", false),
            ("./out", true),
            ("../x/", true),
            ("/tmp/export", true),
            ("s3://bucket/prefix", true),
            ("gs://bucket/*.parquet", true),
            ("https://host/data.csv.gz", true),
            ("https://host/api/v1", false),
            ("file:///tmp/a.json", true),
            ("postgres://u@h/db", false),
            ("mysql://h/db", false),
            ("./shop.db", false),
            ("/var/lib/shop.sqlite3", false),
            ("shop", false),
        ];
        for (text, expected) in cases {
            assert_eq!(claims(text, &folder), expected, "{text}");
        }
    }
}
