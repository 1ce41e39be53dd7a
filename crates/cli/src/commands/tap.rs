//! `trib tap`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use trib_connectors::singer::catalog::{Entry, Metadata, TapCatalog};
use trib_connectors::singer::write::{record_lines, schema_line, state_line, stream_schema};
use trib_core::source::Cursor;
use trib_core::{Code, Emitter, Error, Message, Read, Source, SplitEnd, State, Stream, StreamRead};

use crate::app::{Session, usage};
use crate::exit::{Exit, Result};

/// An incremental stream gives a STATE after about so many rows.
const ROWS: usize = 100_000;

/// Be a Singer tap: write a connection's streams as messages to standard output
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example: trib tap shop --discover > catalog.json",
    after_help = "The catalog chooses streams and columns by `selected` in its metadata, and a cursor by `replication-method: INCREMENTAL` with \
                  `replication-key`. The state is what an earlier run wrote: the value of its last STATE message."
)]
pub struct Args {
    /// A connection of the project, or postgres://…, ./shop.db, ./folder/
    connection: Option<String>,
    /// Write the catalog, and no rows
    #[arg(long)]
    discover: bool,
    /// A JSON file that names the connection, as Singer's taps take their settings: `{"connection": "shop"}`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The catalog with what is selected; all streams, in full, when left out
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Where the last run has ended
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let config: Map<String, Value> = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let named = args.connection.as_deref().or_else(|| config.get("connection").and_then(Value::as_str));
    let named = named.ok_or_else(|| usage("the tap needs a connection to read").hint("such as `trib tap shop --discover`"))?;
    let source = source(session, named)?;
    let offered = source.discover(&[]).await.map_err(|e| e.connection(named))?;
    if args.discover {
        let catalog = TapCatalog { streams: offered.streams.iter().map(entry).collect() };
        let text = serde_json::to_string_pretty(&catalog).map_err(Error::from)?;
        writeln!(std::io::stdout(), "{text}")?;
        return Ok(Exit::Success);
    }
    let chosen: Option<TapCatalog> = args.catalog.as_deref().map(read).transpose()?;
    let reads = match &chosen {
        None => offered.streams.iter().map(|stream| (stream, whole(stream))).collect(),
        Some(catalog) => chosen_reads(&offered.streams, catalog)?,
    };
    let state: Value = args.state.as_deref().map(read).transpose()?.unwrap_or(Value::Null);
    let mut tap = Tap { source, state: of_singer(&state)? };
    if tap.source.streams_together() {
        tap.together(&reads).await?;
    } else {
        for (stream, read) in &reads {
            tap.stream(stream, read).await.map_err(|e| e.stream(&stream.name).connection(named))?;
        }
    }
    Ok(Exit::Success)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let shown = path.display().to_string();
    let text = std::fs::read(path).map_err(|e| Error::from(e).file(shown.as_str(), None, None))?;
    serde_json::from_slice(&text).map_err(|e| {
        let error = Error::new(Code::ConfigInvalid, "the file is not as it must be").detail(e.to_string());
        error.file(shown, Some(e.line()), Some(e.column()))
    })
}

fn source(session: &Session, named: &str) -> Result<Arc<dyn Source>> {
    if let Ok(project) = session.project()
        && project.connection(named).is_ok()
    {
        return session.source(named);
    }
    let (connector, settings) = session.registry().by_url(named)?;
    let context = trib_core::Context { connection: "tap".to_owned(), project_dir: std::env::current_dir()?, threads: 2 };
    Ok(connector.make_source(&settings, &context)?)
}

fn entry(stream: &Stream) -> Entry {
    let is_column = |c: &&String| stream.schema.field_with_name(c).is_ok();
    let cursors: Vec<&String> = stream.cursors.iter().filter(is_column).collect();
    let mut root = Map::from_iter([
        ("inclusion".to_owned(), json!("available")),
        ("table-key-properties".to_owned(), json!(stream.primary_key)),
        ("valid-replication-keys".to_owned(), json!(cursors)),
    ]);
    root.extend(stream.schema_name.as_ref().map(|s| ("schema-name".to_owned(), json!(s))));
    root.extend(stream.rows.map(|n| ("row-count".to_owned(), json!(n))));
    let mut metadata = vec![Metadata { breadcrumb: Vec::new(), metadata: root }];
    for field in stream.schema.fields() {
        let inclusion = if stream.primary_key.contains(field.name()) { "automatic" } else { "available" };
        metadata.push(Metadata {
            breadcrumb: vec!["properties".to_owned(), field.name().clone()],
            metadata: Map::from_iter([("inclusion".to_owned(), json!(inclusion)), ("selected-by-default".to_owned(), json!(true))]),
        });
    }
    Entry {
        tap_stream_id: called(&stream.name),
        stream: Some(called(&stream.name)),
        schema: stream_schema(&stream.schema),
        metadata,
        rest: Map::from_iter([("key_properties".to_owned(), json!(stream.primary_key))]),
    }
}

/// A stream as taps call theirs: to whoever selects in a catalog, a dot comes between stream and column.
fn called(stream: &str) -> String {
    stream.replace('.', "-")
}

fn whole(stream: &Stream) -> StreamRead {
    StreamRead { may_stop: false, ..crate::sample::whole(stream) }
}

/// The streams that a catalog selects.
fn chosen_reads<'a>(offered: &'a [Stream], catalog: &TapCatalog) -> Result<Vec<(&'a Stream, StreamRead)>> {
    let mut reads = Vec::new();
    for entry in catalog.streams.iter().filter(|e| e.is_selected()) {
        let named = |s: &&Stream| called(&s.name) == entry.tap_stream_id || s.name == entry.tap_stream_id;
        let stream = offered.iter().find(named).ok_or_else(|| {
            Error::new(Code::NotFound, "the catalog selects a stream that is not there").detail(&entry.tap_stream_id).hint("discover again")
        })?;
        let columns = stream.schema.fields().iter().map(|f| f.name().clone());
        let columns = columns.filter(|name| stream.primary_key.contains(name) || entry.selects(name)).collect();
        let mut read = StreamRead { columns: Some(columns), ..whole(stream) };
        if let Some(column) = entry.replication_key() {
            stream.field(&column)?;
            read.may_stop = true;
            read.read = Read::Incremental(Cursor {
                column,
                lookback: None,
                null_cursor: trib_core::source::NullCursor::default(),
                start: None,
                end: None,
            });
        }
        reads.push((stream, read));
    }
    Ok(reads)
}

/// Our state within a Singer state: `{"bookmarks": {stream: …}, "global": …}`.
fn of_singer(value: &Value) -> Result<State, Error> {
    let streams: BTreeMap<String, Value> = match value.get("bookmarks") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(bookmarks) => serde_json::from_value(bookmarks.clone())?,
    };
    Ok(State { streams, global: value.get("global").filter(|v| !v.is_null()).cloned(), ..State::default() })
}

fn to_singer(state: &State) -> Value {
    let mut value = json!({"bookmarks": state.streams});
    if let Some(global) = &state.global {
        value["global"] = global.clone();
    }
    value
}

struct Tap {
    source: Arc<dyn Source>,
    state: State,
}

impl Tap {
    async fn stream(&mut self, stream: &Stream, read: &StreamRead) -> Result<(), Error> {
        self.announce(stream, read)?;
        let reads = std::slice::from_ref(read);
        while self.load(reads).await? {}
        Ok(())
    }

    async fn together(&mut self, reads: &[(&Stream, StreamRead)]) -> Result<(), Error> {
        for (stream, read) in reads {
            self.announce(stream, read)?;
        }
        let reads: Vec<StreamRead> = reads.iter().map(|(_, read)| read.clone()).collect();
        while self.load(&reads).await? {}
        Ok(())
    }

    fn announce(&self, stream: &Stream, read: &StreamRead) -> Result<(), Error> {
        let bookmarks = match &read.read {
            Read::Incremental(cursor) => vec![cursor.column.clone()],
            _ => Vec::new(),
        };
        let schema = match &read.columns {
            None => stream.schema.as_ref().clone(),
            Some(names) => {
                let places: Vec<usize> = names.iter().map(|n| stream.schema.index_of(n)).collect::<Result<_, _>>()?;
                stream.schema.project(&places)?
            }
        };
        write(&schema_line(&called(&stream.name), &schema, &stream.primary_key, &bookmarks)?)
    }

    /// Reads what is there, up to a place from which the rest can be read, and says the state there. True when there is more.
    async fn load(&mut self, reads: &[StreamRead]) -> Result<bool, Error> {
        let splits = self.source.plan(reads, &self.state).await?;
        if splits.is_empty() {
            return Ok(false);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut rows = 0;
        let mut ends = Vec::new();
        for split in splits {
            if stop.load(Ordering::Relaxed) {
                ends.push(SplitEnd::stopped(&split, split.clone(), Value::Null));
                continue;
            }
            let (mut emitter, mut messages) = Emitter::channel(2, stop.clone());
            let source = self.source.clone();
            let reading = tokio::spawn(async move { source.read(&split, &mut emitter).await });
            let mut lines = Vec::new();
            while let Some(message) = messages.recv().await {
                match message {
                    Message::Batch { stream, batch, .. } => {
                        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
                        lines.clear();
                        record_lines(&called(&stream), &batch, &now, &mut lines)?;
                        write(&lines)?;
                        rows += batch.num_rows();
                        let cuts = reads.iter().all(|r| r.may_stop);
                        stop.store(cuts && rows >= ROWS, Ordering::Relaxed);
                    }
                    Message::Reject { stream, row } => {
                        let error = Error::new(Code::DataInvalid, "a row cannot be decoded").detail(row.reason).row(row.place);
                        return Err(error.stream(stream.as_ref()));
                    }
                    Message::Schema { .. } | Message::Log { .. } => {}
                }
            }
            ends.push(reading.await.map_err(|_| Error::internal("the read has panicked"))??);
        }
        let next = self.source.advance(reads, &self.state, &ends)?;
        self.state = self.state.merged(&next);
        write(&state_line(&to_singer(&self.state))?)?;
        self.source.acknowledge(&self.state).await?;
        Ok(ends.iter().any(|end| end.rest.is_some()))
    }
}

/// A reader that has gone away ends the tap.
fn write(lines: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(lines)?;
    Ok(out.flush()?)
}
