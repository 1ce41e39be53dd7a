//! Which files there are.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use trib_core::{Code, Error, Result};
use trib_kit::storage::{self, Location};

/// A file as its store lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEntry {
    /// Relative to the folder that was listed.
    pub name: String,
    /// In its store.
    pub path: String,
    pub size: u64,
    pub modified: DateTime<Utc>,
    pub etag: Option<String>,
}

/// A setting `path`, taken apart.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What stands before the first wildcard: a folder, or the whole path.
    pub base: String,
    /// The rest, when there are wildcards.
    pub glob: Option<String>,
}

impl Pattern {
    pub fn of(path: &str) -> Self {
        let Some(wild) = path.find(['*', '?', '[', '{']).filter(|_| !path.starts_with("http")) else {
            return Self { base: path.to_owned(), glob: None };
        };
        let folder = path[..wild].rfind('/').map_or(0, |n| n + 1);
        let base = match &path[..folder] {
            "" => ".".to_owned(),
            "/" => "/".to_owned(),
            folder => folder.trim_end_matches('/').to_owned(),
        };
        Self { base, glob: Some(path[folder..].to_owned()) }
    }

    fn matcher(&self) -> Result<Option<GlobMatcher>> {
        let Some(glob) = &self.glob else { return Ok(None) };
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        let built =
            built.map_err(|e| Error::new(Code::ConfigInvalid, "the pattern is not one that can be matched").detail(glob.clone()).source(e));
        Ok(Some(built?.compile_matcher()))
    }

    /// A name for what the pattern finds: its last fixed part.
    pub fn stem(&self) -> &str {
        let fixed = |part: &str| part.split(['*', '?', '[', '{']).next().unwrap_or_default().trim_end_matches(['_', '-', '.', ' ']).len();
        let whole = self.glob.as_deref().unwrap_or(&self.base);
        let last = whole.rsplit('/').next().unwrap_or(whole);
        let stem = &super::format::named(last).stem;
        let in_last = &last[..fixed(stem).min(last.len())];
        if !in_last.is_empty() {
            return in_last;
        }
        let folders = whole.rsplit('/').skip(1).chain(self.base.rsplit('/'));
        folders.map(|part| &part[..fixed(part)]).find(|part| !part.is_empty() && *part != "." && *part != "..").unwrap_or("files")
    }
}

/// What stands at a place.
#[derive(Clone, Debug)]
pub enum Listing {
    /// The path itself is a file.
    File(FileEntry),
    /// Files in a folder, or matching a pattern, ordered by name.
    Files(Vec<FileEntry>),
}

/// Lists the files of `pattern`, whose base is `location`. Files and folders whose names begin with `_` or `.` are left out, as other tools of the field do.
pub async fn list(location: &Location, pattern: &Pattern) -> Result<Listing> {
    let matcher = pattern.matcher()?;
    if matcher.is_none()
        && let Some(entry) = file(location).await?
    {
        return Ok(Listing::File(entry));
    }
    let mut entries: Vec<FileEntry> = Vec::new();
    if !has_folders(location) {
        return Ok(Listing::Files(entries));
    }
    let mut found = location.store.list(Some(&location.path));
    while let Some(meta) = found.try_next().await.map_err(|e| storage::error(e, &location.shown))? {
        let Some(name) = relative(&meta.location, &location.path) else { continue };
        let hidden = name.split('/').any(|part| part.starts_with(['_', '.']));
        if !hidden && matcher.as_ref().is_none_or(|m| m.is_match(&name)) {
            entries.push(entry(name, meta));
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing::Files(entries))
}

/// Whether the place can hold more than one file: a web server lists nothing.
pub fn has_folders(location: &Location) -> bool {
    !location.shown.starts_with("http")
}

/// The file at the place itself.
async fn file(location: &Location) -> Result<Option<FileEntry>> {
    if location.local.as_ref().is_some_and(|p| p.is_dir()) || location.path.as_ref().is_empty() {
        return Ok(None);
    }
    match location.store.head(&location.path).await {
        Ok(meta) => {
            let name = meta.location.filename().unwrap_or_default().to_owned();
            Ok(Some(entry(name, meta)))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(storage::error(e, &location.shown)),
    }
}

fn relative(path: &Path, base: &Path) -> Option<String> {
    let parts: Vec<String> = path.prefix_match(base)?.map(|p| p.as_ref().to_owned()).collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn entry(name: String, meta: ObjectMeta) -> FileEntry {
    FileEntry { name, path: meta.location.as_ref().to_owned(), size: meta.size, modified: meta.last_modified, etag: meta.e_tag }
}

/// The error of a place where nothing was found.
pub fn nothing(path: &str, location: &Location) -> Error {
    let what = if Pattern::of(path).glob.is_some() {
        "no file matches the pattern"
    } else {
        "there is no such file, and no folder with files in it"
    };
    let hint = match &location.local {
        Some(folder) if folder.is_dir() => {
            "files with a known extension are read, or with any when `format` is set; names that begin with `_` or `.` are not"
        }
        Some(_) => "relative paths start at the project's folder",
        None => "check the bucket, the prefix and the credentials' permissions",
    };
    Error::new(Code::NotFound, what).detail(format!("{} ({})", storage::shown(path), location.shown)).setting("path").hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_taken_apart_and_named() {
        let cases = [
            ("data/orders_*.csv", "data", Some("orders_*.csv"), "orders"),
            ("data/events/**/*.jsonl", "data/events", Some("**/*.jsonl"), "events"),
            ("s3://bucket/a/*.parquet", "s3://bucket/a", Some("*.parquet"), "a"),
            ("*.csv", ".", Some("*.csv"), "files"),
            ("/*.csv", "/", Some("*.csv"), "files"),
            ("data/20*/part.csv.gz", "data", Some("20*/part.csv.gz"), "part"),
            ("data/orders.csv", "data/orders.csv", None, "orders"),
            ("https://h/x.csv?a=[1]", "https://h/x.csv?a=[1]", None, "x.csv"),
        ];
        for (path, base, glob, stem) in cases {
            let pattern = Pattern::of(path);
            assert_eq!((pattern.base.as_str(), pattern.glob.as_deref(), pattern.stem()), (base, glob, stem), "{path}");
        }
    }
}
