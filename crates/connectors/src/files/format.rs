//! Which format a file has, by its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compression::Compression;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// One array of objects, or objects one after the other.
    Json,
    /// One object per line.
    Jsonl,
    Parquet,
    /// Arrow IPC, as a file or as a stream.
    Arrow,
    /// `xlsx`, `xls`, `xlsb` or `ods`; read only.
    Excel,
}

impl Format {
    /// The extension of files that are written.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Json => "json",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
            Format::Arrow => "arrow",
            Format::Excel => "xlsx",
        }
    }

    fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => Format::Csv,
            "tsv" | "tab" => Format::Tsv,
            "json" => Format::Json,
            "jsonl" | "ndjson" => Format::Jsonl,
            "parquet" | "pq" => Format::Parquet,
            "arrow" | "arrows" | "ipc" | "feather" => Format::Arrow,
            "xlsx" | "xls" | "xlsb" | "xlsm" | "ods" => Format::Excel,
            _ => return None,
        })
    }

    /// Text formats are compressed as whole files; the others inside.
    pub fn is_text(self) -> bool {
        matches!(self, Format::Csv | Format::Tsv | Format::Json | Format::Jsonl)
    }
}

/// What a file's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The last component, without the extensions that were understood.
    pub stem: &'a str,
    pub format: Option<Format>,
    pub compression: Compression,
}

/// Takes a path or name apart: `data/orders.csv.gz` is `orders`, CSV, gzip.
pub fn named(path: &str) -> Named<'_> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let (inner, compression) = match name.rsplit_once('.') {
        Some((inner, extension)) => match Compression::of_extension(extension) {
            Some(compression) => (inner, compression),
            None => (name, Compression::None),
        },
        None => (name, Compression::None),
    };
    let (stem, format) = match inner.rsplit_once('.') {
        Some((stem, extension)) => match Format::of_extension(extension) {
            Some(format) => (stem, Some(format)),
            None => (inner, None),
        },
        None => (inner, None),
    };
    Named { stem, format, compression }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell() {
        let cases = [
            ("a/orders.csv", "orders", Some(Format::Csv), Compression::None),
            ("orders.CSV.GZ", "orders", Some(Format::Csv), Compression::Gzip),
            ("v1.2.ndjson.zst", "v1.2", Some(Format::Jsonl), Compression::Zstd),
            ("dump.gz", "dump", None, Compression::Gzip),
            ("README", "README", None, Compression::None),
            ("a.b/c", "c", None, Compression::None),
            ("x.feather", "x", Some(Format::Arrow), Compression::None),
        ];
        for (path, stem, format, compression) in cases {
            assert_eq!(named(path), Named { stem, format, compression }, "{path}");
        }
    }
}
