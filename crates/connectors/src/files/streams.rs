//! Which streams the settings and the files make, and which files belong to each.

use std::collections::BTreeMap;
use std::path::Path as FsPath;

use arrow::datatypes::Schema;
use trib_core::error::closest;
use trib_core::{Code, Error, Result, TableName};
use trib_kit::storage::{self, Location};

use super::config::{FilesConfig, StreamSettings, Track};
use super::format::{Format, named};
use super::listing::{FileEntry, Listing, Pattern, has_folders, list, nothing};
use super::manifest::{self, TableManifest};
use super::place::Place;
use super::split::Piece;

/// A stream with its files.
#[derive(Clone, Debug)]
pub struct StreamFiles {
    pub name: String,
    pub table: TableName,
    pub settings: StreamSettings,
    pub location: Location,
    pub files: Vec<DataFile>,
    /// The schema that a manifest gives.
    pub schema: Option<Schema>,
    /// How many rows it says there are.
    pub rows: Option<u64>,
    pub key: Vec<String>,
    /// Declared columns stand in the schema even when no sampled file has them.
    pub is_only_one: bool,
}

/// A file whose format is known.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub entry: FileEntry,
    pub format: Format,
    pub compression: super::compression::Compression,
    pub partition: BTreeMap<String, Option<String>>,
}

impl StreamFiles {
    /// What the state remembers of a file.
    fn stamp(&self, entry: &FileEntry) -> String {
        let changed = || format!("{} {}", entry.modified.format("%Y-%m-%dT%H:%M:%S%.fZ"), entry.size);
        match self.settings.track {
            Track::Name => String::new(),
            Track::Mtime => changed(),
            Track::Etag => entry.etag.clone().unwrap_or_else(changed),
        }
    }

    pub fn piece(&self, file: &DataFile) -> Piece {
        Piece {
            name: file.entry.name.clone(),
            path: file.entry.path.clone(),
            stamp: self.stamp(&file.entry),
            size: file.entry.size,
            format: file.format,
            compression: file.compression,
            bytes: None,
            line: None,
            row_groups: None,
            partition: file.partition.clone(),
        }
    }
}

/// Where a stream's or the connection's files are. Pure.
pub fn locate(config: &FilesConfig, project: &FsPath, stream: Option<&str>) -> Result<(String, Pattern, Location)> {
    let path = match stream.and_then(|s| config.streams.get(s)) {
        Some(own) => joined(&config.path, &own.path),
        None => config.path.clone(),
    };
    if path.starts_with("http") && path.contains('?') {
        return Err(Error::new(Code::Unsupported, "a URL with a query cannot be read as a file")
            .setting("path")
            .hint("fetch it first, or read it from its store with credentials under `storage:`"));
    }
    let pattern = Pattern::of(&path);
    let location = storage::open(&pattern.base, &config.storage, project)?;
    Ok((path, pattern, location))
}

/// A stream's path in a connection's folder.
fn joined(base: &str, own: &str) -> String {
    let is_absolute = own.contains("://") || own.starts_with('/') || FsPath::new(own).is_absolute();
    if is_absolute || base == "." { own.to_owned() } else { format!("{}/{own}", base.trim_end_matches('/')) }
}

/// All streams, or at least those in `only`.
pub async fn find(config: &FilesConfig, project: &FsPath, only: &[String]) -> Result<Vec<StreamFiles>> {
    if config.streams.is_empty() {
        let (path, pattern, location) = locate(config, project, None)?;
        let streams = unnamed(config, &pattern, &location).await?;
        // A folder that a destination of ours has opened may be empty yet.
        let is_ours = || async { Ok::<_, Error>(!Place::new(location.clone()).folders(manifest::CONTROL).await?.is_empty()) };
        let may_be_ours = pattern.glob.is_none() && has_folders(&location);
        if streams.is_empty() && !(may_be_ours && is_ours().await?) {
            return Err(nothing(&path, &location));
        }
        return Ok(streams);
    }
    let mut streams = Vec::new();
    for name in config.streams.keys().filter(|name| only.is_empty() || only.contains(name)) {
        let (path, pattern, location) = locate(config, project, Some(name))?;
        let settings = config.stream(name);
        let (folder, files) = match list(&location, &pattern).await? {
            Listing::File(entry) => (None, vec![entry]),
            Listing::Files(entries) => (Some(location.clone()), entries),
        };
        let mut stream = stream(name.clone(), TableName::new(None, name), &settings, &location, files)?;
        if let Some(manifest) = written(&location, &pattern, folder.is_some()).await? {
            stream = of_manifest(name.clone(), manifest, &settings, &location)?;
        }
        if stream.files.is_empty() && stream.schema.is_none() {
            return Err(nothing(&path, &location).stream(name));
        }
        streams.push(StreamFiles { is_only_one: true, ..stream });
    }
    Ok(streams)
}

/// The one named stream.
pub async fn find_one(config: &FilesConfig, project: &FsPath, name: &str) -> Result<StreamFiles> {
    let mut streams = find(config, project, &[name.to_owned()]).await?;
    if let Some(found) = streams.iter().position(|s| s.name == name) {
        return Ok(streams.swap_remove(found));
    }
    let named: Vec<&str> = config.streams.keys().map(String::as_str).collect();
    let known = if named.is_empty() { streams.iter().map(|s| s.name.as_str()).collect() } else { named };
    let error = Error::new(Code::NotFound, "the source has no such stream").detail(name).stream(name);
    Err(match closest(name, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint(format!("it has {}", known.join(", "))),
    })
}

async fn unnamed(config: &FilesConfig, pattern: &Pattern, location: &Location) -> Result<Vec<StreamFiles>> {
    let settings = |name: &str| config.stream(name);
    let entries = match list(location, pattern).await? {
        Listing::File(entry) => {
            let name = named(&entry.name).stem.to_owned();
            let one = stream(name.clone(), TableName::new(None, &name), &settings(&name), location, vec![entry])?;
            return Ok(vec![StreamFiles { is_only_one: true, ..one }]);
        }
        Listing::Files(entries) => entries,
    };
    if pattern.glob.is_some() {
        let name = pattern.stem().to_owned();
        let one = stream(name.clone(), TableName::new(None, &name), &settings(&name), location, entries)?;
        return Ok(if one.files.is_empty() { Vec::new() } else { vec![StreamFiles { is_only_one: true, ..one }] });
    }
    if !has_folders(location) {
        return Ok(Vec::new());
    }
    let tables = manifest::tables(&Place::new(location.clone())).await?;
    if !tables.is_empty() {
        let of = |m: TableManifest| of_manifest(m.table.to_string(), m, &settings(""), location);
        return tables.into_iter().map(of).collect();
    }
    if let Some(manifest) = written(location, pattern, true).await? {
        let name = manifest.table.to_string();
        return Ok(vec![of_manifest(name.clone(), manifest, &settings(&name), location)?]);
    }
    let grouped = group(entries, config.format);
    let alone = grouped.len() == 1;
    let mut streams = Vec::new();
    for (name, files) in grouped {
        let table = name.rsplit('.').next().unwrap_or(&name).to_owned();
        let schema = name.strip_suffix(&table).map(|s| s.trim_end_matches('.')).filter(|s| !s.is_empty());
        let found = stream(name.clone(), TableName::new(schema, &table), &settings(&name), location, files)?;
        streams.push(StreamFiles { is_only_one: alone, ..found });
    }
    Ok(streams)
}

/// Files of a folder by stream: those directly in it by their stem, those in subfolders by folder. Hive's `column=value` folders are no streams of their own.
fn group(entries: Vec<FileEntry>, format: Option<Format>) -> BTreeMap<String, Vec<FileEntry>> {
    let mut groups: BTreeMap<String, BTreeMap<Format, Vec<FileEntry>>> = BTreeMap::new();
    for entry in entries {
        let Some(format) = format.or(named(&entry.name).format) else { continue };
        let folders: Vec<&str> = entry.name.split('/').rev().skip(1).filter(|part| !part.contains('=')).collect();
        let name = match folders.as_slice() {
            [] => named(&entry.name).stem.to_owned(),
            folders => folders.iter().rev().copied().collect::<Vec<_>>().join("."),
        };
        groups.entry(name).or_default().entry(format).or_default().push(entry);
    }
    let mut streams = BTreeMap::new();
    for (name, by_format) in groups {
        let several = by_format.len() > 1;
        for (format, files) in by_format {
            let name = if several { format!("{name}_{}", format.extension()) } else { name.clone() };
            streams.insert(name, files);
        }
    }
    streams
}

fn stream(name: String, table: TableName, settings: &StreamSettings, location: &Location, entries: Vec<FileEntry>) -> Result<StreamFiles> {
    let mut files = Vec::with_capacity(entries.len());
    let single = entries.len() == 1;
    for entry in entries {
        let by_name = named(&entry.name);
        let Some(format) = settings.format.or(by_name.format) else {
            if single {
                return Err(Error::new(Code::ConfigInvalid, "the file's name does not tell its format")
                    .detail(entry.name)
                    .setting("format")
                    .hint("set `format: csv`, or another one"));
            }
            continue;
        };
        let partition = hive(&entry.name);
        files.push(DataFile {
            format,
            compression: settings.compression.filter(|_| format.is_text()).unwrap_or(by_name.compression),
            partition,
            entry,
        });
    }
    Ok(StreamFiles {
        name,
        table,
        settings: settings.clone(),
        location: location.clone(),
        files,
        schema: None,
        rows: None,
        key: settings.key.clone(),
        is_only_one: false,
    })
}

/// Values that folders named `column=value` give to all rows in them.
fn hive(name: &str) -> BTreeMap<String, Option<String>> {
    let folders = name.split('/').rev().skip(1);
    folders
        .filter_map(|part| part.split_once('='))
        .map(|(column, value)| (decoded(column), (value != super::stage::NULL_PARTITION).then(|| decoded(value))))
        .collect()
}

/// Undoes percent encoding.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        let code = (b == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok().and_then(|h| u8::from_str_radix(h, 16).ok())).flatten();
        out.push(code.unwrap_or(b));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// The manifest of a table whose folder is `location`, when a destination of ours has written it.
async fn written(location: &Location, pattern: &Pattern, is_folder: bool) -> Result<Option<TableManifest>> {
    if !is_folder || pattern.glob.is_some() || !has_folders(location) {
        return Ok(None);
    }
    let parts: Vec<String> = location.path.parts().map(|p| p.as_ref().to_owned()).collect();
    for depth in 1..=2.min(parts.len()) {
        let (base, table) = parts.split_at(parts.len() - depth);
        let mut above = location.clone();
        above.path = base.iter().map(String::as_str).collect();
        above.local = location.local.as_ref().and_then(|p| p.ancestors().nth(depth)).map(FsPath::to_owned);
        let place = Place::new(above);
        let folder = table.join("/");
        // Names of tables are encoded in both in one way.
        let name = TableName::parse(&table.join("."));
        if let Some((manifest, _)) = manifest::table(&place, &name).await?
            && manifest::folder(&manifest.table) == folder
        {
            return Ok(Some(rebased(manifest, &folder)));
        }
    }
    Ok(None)
}

/// A manifest whose file names are relative to the table's own folder.
fn rebased(mut manifest: TableManifest, folder: &str) -> TableManifest {
    for file in &mut manifest.files {
        if let Some(inner) = file.name.strip_prefix(folder) {
            file.name = inner.trim_start_matches('/').to_owned();
        }
    }
    manifest
}

/// The files that a manifest names, and no others: those of loads that are not committed do not count.
fn of_manifest(name: String, manifest: TableManifest, settings: &StreamSettings, location: &Location) -> Result<StreamFiles> {
    let place = Place::new(location.clone());
    let entries = manifest.files.iter().map(|file| FileEntry {
        path: place.path(&file.name).as_ref().to_owned(),
        name: file.name.clone(),
        size: file.bytes,
        modified: file.committed_at,
        etag: None,
    });
    let mut found = stream(name, manifest.table, settings, location, entries.collect())?;
    for file in &mut found.files {
        let known = manifest.files.iter().find(|f| f.name == file.entry.name);
        file.partition = known.map(|f| f.partition.clone()).unwrap_or_default();
        file.format = manifest.format;
    }
    if found.key.is_empty() {
        found.key = manifest.key;
    }
    found.rows = Some(manifest.files.iter().map(|f| f.rows).sum());
    found.schema = Some(manifest.schema);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn a_folder_makes_streams() {
        let names = [
            "orders.csv",
            "orders.json",
            "customers.csv.gz",
            "README",
            "sales/2024/a.parquet",
            "sales/2024/b.parquet",
            "events/day=1/x.jsonl",
            "events/day=2/y.jsonl",
        ];
        let entry =
            |name: &&str| FileEntry { name: (*name).to_owned(), path: String::new(), size: 1, modified: DateTime::UNIX_EPOCH, etag: None };
        let groups = group(names.iter().map(entry).collect(), None);
        let got: Vec<(&str, usize)> = groups.iter().map(|(n, f)| (n.as_str(), f.len())).collect();
        assert_eq!(got, [("customers", 1), ("events", 2), ("orders_csv", 1), ("orders_json", 1), ("sales.2024", 2)]);
    }

    #[test]
    fn folders_hold_values() {
        let values = hive("t/country=DE/day=__HIVE_DEFAULT_PARTITION__/note=a%2Fb/x.parquet");
        let expected = [("country", Some("DE")), ("day", None), ("note", Some("a/b"))];
        assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))).into());
    }
}
