//! Reading.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use async_trait::async_trait;
use serde_json::Value;
use trib_core::catalog::propose_cursors;
use trib_core::{Catalog, Code, Context, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};

use super::config::{FilesConfig, Track};
use super::cursor::{After, Filter, Select};
use super::declared;
use super::listing::{FileEntry, Listing, list};
use super::place::blocking;
use super::scan::{Described, Scanner};
use super::sink::Sink;
use super::split::{FILE, Piece, Spec};
use super::state::{self, StreamState};
use super::streams::{self, StreamFiles};

/// Small files share a split up to this many bytes, and this many files.
const SHARED_BYTES: u64 = 64 << 20;
const SHARED_FILES: usize = 1000;

pub struct FilesSource {
    config: FilesConfig,
    project: PathBuf,
    /// Schemas of streams that were looked at: one run sees one schema.
    described: Mutex<HashMap<String, Described>>,
}

impl FilesSource {
    pub fn new(config: FilesConfig, context: &Context) -> Result<Self> {
        let streams = config.streams.keys().map(|name| Some(name.as_str())).chain([None]);
        for stream in streams {
            streams::locate(&config, &context.project_dir, stream)?;
            let settings = config.stream(stream.unwrap_or_default());
            settings.csv.dialect(false)?;
            declared::fields(&settings.columns)?;
        }
        Ok(Self { config, project: context.project_dir.clone(), described: Mutex::default() })
    }

    async fn describe(&self, stream: &StreamFiles) -> Result<Described> {
        let known = self.described.lock().unwrap_or_else(PoisonError::into_inner).get(&stream.name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let scanner = Scanner::new(stream, &self.config.infer)?;
        let looked_at = stream.clone();
        let mut described = blocking(move || scanner.describe(&looked_at)).await?;
        if self.config.add_file_name {
            let fields = described.schema.fields().iter().cloned().chain([Arc::new(file_field())]);
            described.schema = Schema::new(fields.collect::<Vec<FieldRef>>());
        }
        self.described.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.name.clone(), described.clone());
        Ok(described)
    }

    fn catalog_entry(stream: &StreamFiles, described: Described) -> Stream {
        let schema = Arc::new(described.schema);
        let mut cursors = vec![FILE.to_owned()];
        cursors.extend(propose_cursors(&schema, &stream.key));
        let bytes = stream.files.iter().map(|f| f.entry.size).sum();
        Stream {
            schema_name: stream.table.schema.clone(),
            primary_key: stream.key.clone(),
            cursors,
            read_modes: vec![ReadMode::Full, ReadMode::Incremental],
            rows: described.rows,
            bytes: Some(bytes),
            description: (!described.notes.is_empty()).then(|| described.notes.join("; ")),
            ..Stream::new(&stream.name, &stream.table.name, schema)
        }
    }

    async fn plan_one(&self, read: &StreamRead, state: &State) -> Result<Vec<Split>> {
        let before = StreamState::of(state, read)?;
        if !before.left.is_empty() {
            return Ok(before.left);
        }
        let mut stream = streams::find_one(&self.config, &self.project, &read.stream).await?;
        let described = self.describe(&stream).await?;
        let mut gone = Vec::new();
        let select = match &read.read {
            Read::Incremental(cursor) if cursor.column == FILE => {
                let found: BTreeSet<&str> = stream.files.iter().map(|f| f.entry.name.as_str()).collect();
                gone = before.files.keys().filter(|name| !found.contains(name.as_str())).cloned().collect();
                stream.files = new_files(&stream, &before, read.exactly_once)?;
                Select::All
            }
            Read::Incremental(cursor) => Select::After(After {
                column: cursor.column.clone(),
                lower: before.value.clone().or_else(|| cursor.start.clone()),
                lookback: before.value.as_ref().and(cursor.lookback),
                end: cursor.end.clone(),
                nulls: cursor.null_cursor,
                seen: before.seen,
                exactly_once: read.exactly_once,
            }),
            Read::Range { column, since, until } => Select::Range { column: column.clone(), since: since.clone(), until: until.clone() },
            Read::Full | Read::Keys => Select::All,
            Read::Cdc => return Err(Error::new(Code::Unsupported, "files have no change log").stream(&read.stream)),
        };
        // Says now, and not in the middle of a read, that the cursor is not there or that its bounds are no values of its type.
        let _ = Filter::new(&select, &searchable(&described.schema))?;
        let columns = read.columns.clone().or_else(|| (read.read == Read::Keys).then(|| read.key.clone()));
        let whole: Vec<Piece> = stream.files.iter().map(|f| stream.piece(f)).collect();
        let scanner = Scanner::new(&stream, &self.config.infer)?;
        let parallelism = read.parallelism.max(1);
        let groups = blocking(move || grouped(&scanner, whole, parallelism)).await?;
        let spec = |(i, files): (usize, Vec<Piece>)| {
            let gone = if i == 0 { std::mem::take(&mut gone) } else { Vec::new() };
            let spec = Spec {
                files,
                typed: stream.schema.is_some(),
                schema: described.schema.clone(),
                columns: columns.clone(),
                select: select.clone(),
                gone,
            };
            spec.split(&read.stream)
        };
        groups.into_iter().enumerate().map(spec).collect()
    }

    /// The same file as when it was planned, or an error: half of one version and half of another is no file.
    async fn unchanged(&self, stream: &StreamFiles, piece: &Piece) -> Result<()> {
        let mut location = stream.location.clone();
        location.path =
            object_store::path::Path::parse(&piece.path).map_err(|e| Error::internal("a listed path cannot be opened").source(e))?;
        if location.local.is_some() {
            location.local = object_store::local::LocalFileSystem::new().path_to_filesystem(&location.path).ok();
        }
        let pattern = super::listing::Pattern { base: String::new(), glob: None };
        let changed = |what: &'static str| {
            Error::new(Code::DataInvalid, what).file(&piece.name, None, None).hint(
                "the next run lists the files anew; if it was cut in the middle of this file, `trib state reset` reads the stream again",
            )
        };
        match list(&location, &pattern).await? {
            Listing::File(FileEntry { size, .. }) if size == piece.size => Ok(()),
            Listing::File(_) => Err(changed("the file has changed since it was listed")),
            Listing::Files(_) => Err(changed("the file is gone since it was listed")),
        }
    }
}

/// The schema that a filter may use: `_file` is always there.
fn searchable(schema: &Schema) -> Schema {
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    if !fields.iter().any(|f| f.name() == FILE) {
        fields.push(Arc::new(file_field()));
    }
    Schema::new(fields)
}

fn file_field() -> Field {
    Field::new(FILE, DataType::Utf8, false)
}

/// Files that the state does not know as they are now.
fn new_files(stream: &StreamFiles, before: &StreamState, exactly_once: bool) -> Result<Vec<streams::DataFile>> {
    let mut new = Vec::new();
    for file in &stream.files {
        let piece = stream.piece(file);
        match before.files.get(&piece.name) {
            Some(stamp) if *stamp == piece.stamp || stream.settings.track == Track::Name => {}
            Some(_) if exactly_once => {
                return Err(Error::new(
                    Code::DataInvalid,
                    "a file that was loaded has changed, and appending it again would repeat its rows",
                )
                .detail(piece.name)
                .stream(&stream.name)
                .hint("give the stream a key and `write: upsert`; or set `track: name`, if changes of old files do not matter"));
            }
            known => {
                if known.is_some() {
                    tracing::info!(file = piece.name, "the file has changed and is read again as a whole");
                }
                new.push(file.clone());
            }
        }
    }
    Ok(new)
}

/// Puts files into splits: small ones together, big ones in pieces.
fn grouped(scanner: &Scanner, files: Vec<Piece>, parallelism: usize) -> Result<Vec<Vec<Piece>>> {
    let total: u64 = files.iter().map(|f| f.size).sum();
    // Many files are parallel enough; only a file that dwarfs the others is cut.
    let share = (total / parallelism as u64).max(1);
    let together = SHARED_BYTES.min(share.max(1 << 20));
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for file in files {
        let worth = (file.size.div_ceil(share) as usize).min(parallelism);
        if worth > 1 {
            if !group.is_empty() {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            groups.extend(scanner.pieces(file, worth)?.into_iter().map(|piece| vec![piece]));
            continue;
        }
        if !group.is_empty() && (bytes + file.size > together || group.len() >= SHARED_FILES) {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += file.size;
        group.push(file);
    }
    if !group.is_empty() {
        groups.push(group);
    }
    Ok(groups)
}

#[async_trait]
impl Source for FilesSource {
    async fn check(&self) -> Result<()> {
        streams::find(&self.config, &self.project, &[]).await.map(|_| ())
    }

    async fn discover(&self, only: &[String]) -> Result<Catalog> {
        let found = streams::find(&self.config, &self.project, only).await?;
        let wanted: Vec<&StreamFiles> = found.iter().filter(|s| only.is_empty() || only.contains(&s.name)).collect();
        let mut streams = Vec::with_capacity(wanted.len());
        for stream in &wanted {
            match self.describe(stream).await {
                Ok(described) => streams.push(Self::catalog_entry(stream, described)),
                Err(e) if wanted.len() == 1 => return Err(e),
                Err(e) => tracing::warn!(stream = stream.name, error = ?e, "the stream cannot be described"),
            }
        }
        Ok(Catalog { streams })
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            splits.extend(self.plan_one(read, state).await.map_err(|e| e.stream(&read.stream))?);
        }
        Ok(splits)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let spec = Spec::of(split)?;
        let name = split.streams.first().ok_or_else(|| Error::internal("a split without a stream"))?.clone();
        let mut stream = self.settings_of(&name)?;
        stream.schema = spec.typed.then(|| spec.schema.clone());
        let all = searchable(&spec.schema);
        let pick = |name: &str| {
            all.field_with_name(name)
                .map(|f| Arc::new(f.clone()))
                .map_err(|_| Error::new(Code::NotFound, "the stream has no such column").detail(name))
        };
        let output: Vec<FieldRef> = match &spec.columns {
            Some(columns) => columns.iter().map(|c| pick(c)).collect::<Result<_>>()?,
            None => spec.schema.fields().iter().cloned().collect(),
        };
        let mut fields = output.clone();
        if let Some(cursor) = spec.select.column()
            && !fields.iter().any(|f| f.name() == cursor)
        {
            fields.push(pick(cursor)?);
        }
        let filter = Filter::new(&spec.select, &all)?;
        let mut sink =
            Sink { emitter: out.clone(), stream: name.clone(), output: Arc::new(Schema::new(output)), filter, constants: Vec::new() };
        let scanner = Scanner::new(&stream, &self.config.infer)?;
        for (i, piece) in spec.files.iter().enumerate() {
            self.unchanged(&stream, piece).await?;
            let (scanner, piece, fields, known) = (scanner.clone(), piece.clone(), fields.clone(), all.clone());
            sink = blocking(move || {
                scanner.read(&piece, &fields, &known, &mut sink)?;
                Ok(sink)
            })
            .await?;
            let left = &spec.files[i + 1..];
            if !left.is_empty() && out.should_stop() {
                let rest = Spec { files: left.to_vec(), ..spec.clone() };
                return Ok(SplitEnd::stopped(split, rest.split(&name)?, facts(&sink)?));
            }
        }
        Ok(SplitEnd::finished(split, facts(&sink)?))
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        state::advance(reads, state, ends)
    }
}

fn facts(sink: &Sink) -> Result<Value> {
    Ok(match &sink.filter {
        Some(filter) => serde_json::to_value(filter.reached()?)?,
        None => Value::Null,
    })
}

impl FilesSource {
    /// A stream's place and settings, without looking for its files.
    fn settings_of(&self, name: &str) -> Result<StreamFiles> {
        let (_, _, location) = streams::locate(&self.config, &self.project, Some(name))?;
        Ok(StreamFiles {
            name: name.to_owned(),
            table: trib_core::TableName::new(None, name),
            settings: self.config.stream(name),
            location,
            files: Vec::new(),
            schema: None,
            rows: None,
            key: Vec::new(),
            is_only_one: false,
        })
    }
}
