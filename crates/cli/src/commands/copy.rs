//! `trib copy`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use trib_core::mode::{Fit, fit};
use trib_core::secret::redact_url;
use trib_core::source::Cursor;
use trib_core::{Catalog, Code, Connector, Context, Error, Read, ReadMode, Source, Stream, TableName, WriteMode};
use trib_engine::StreamSpec;
use trib_project::pattern::Pattern;
use trib_runtime::{Limits, Refresh, Runtime, StreamTask, SyncTask, new_id, run_sync};
use trib_store::{RunEnd, RunStart, Store};

use crate::app::{Session, data_folder, engine, holder, place, usage};
use crate::exit::{Exit, Result};
use crate::observe::Watch;
use crate::output;
use crate::render;
use crate::summary::Summary;

/// The environment that copies are kept under in their control databases, and the sync that runs show.
const COPY: &str = "copy";
/// Connections to each side.
const THREADS: usize = 4;
/// Rejected rows whose reasons are shown.
const SHOWN: usize = 5;
/// Somebody sits there and waits.
const BACKOFF: Duration = Duration::from_secs(5);

/// Move data without a project: from one URL or path to another
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example: trib copy postgres://me@localhost/shop ./out --streams 'public.*' --format parquet",
    after_help = "What a copy must remember for its next run is kept in $XDG_DATA_HOME/tributary/copy (~/.local/share when it is not set)."
)]
pub struct Args {
    /// postgres://…, ./shop.db, ./orders.csv, ./folder/, s3://…, lake:./folder
    from: String,
    /// The same; a path that ends in a known extension is one file
    to: String,
    /// Names or globs; may be left out when the source has one stream
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    streams: Vec<String>,
    /// Of the files that are written: parquet, csv, jsonl, …
    #[arg(long)]
    format: Option<String>,
    /// Columns that identify a row; the source's primary key when left out
    #[arg(long, value_delimiter = ',')]
    key: Vec<String>,
    /// What happens to the tables; `replace`, or with a cursor `upsert` (`append` without a key), when left out
    #[arg(long, value_enum)]
    write: Option<Write>,
    /// The column that tells what is new: only that is read from the second time on
    #[arg(long, value_name = "COLUMN")]
    cursor: Option<String>,
    /// The schema or folder of the tables; `{schema}` stands for the source's
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// A source that has become empty may empty the tables
    #[arg(long)]
    allow_empty: bool,
    /// Add _trib_load_id and _trib_loaded_at
    #[arg(long)]
    system_columns: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Write {
    Replace,
    Append,
    Insert,
    Upsert,
    Mirror,
    History,
}

impl From<Write> for WriteMode {
    fn from(write: Write) -> Self {
        match write {
            Write::Replace => WriteMode::Replace,
            Write::Append => WriteMode::Append,
            Write::Insert => WriteMode::Insert,
            Write::Upsert => WriteMode::Upsert,
            Write::Mirror => WriteMode::Mirror,
            Write::History => WriteMode::History,
        }
    }
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let began = Instant::now();
    let registry = session.registry();
    let (from, from_settings) = registry.by_url(&args.from)?;
    let (to, to_settings) = registry.by_url(&args.to)?;
    let to_settings = with_format(to, to_settings, args.format.as_deref())?;
    let source = from.make_source(&from_settings, &context("source")?)?;
    let destination = to.make_destination(&to_settings, &context("target")?)?;

    let patterns: Vec<Pattern> = args.streams.iter().map(|p| Pattern::new(p)).collect::<trib_core::Result<_>>()?;
    let identity = identity(args);
    let folder = data_folder(COPY)?;
    let control = format!("{identity}.db");
    let (catalog, store) = tokio::join!(offered(source.as_ref(), &patterns), Store::open(&control, &folder, COPY));
    let (catalog, store) = (catalog?, Arc::new(store?));
    let streams = streams(args, &patterns, &catalog)?;

    let run = new_id();
    let watch = Watch::new(session.output, store.clone(), &run);
    let runtime = Runtime {
        engine: engine(&folder)?,
        store: store.clone(),
        observer: watch.clone(),
        cancel: session.stop_on_signal(),
        run: run.clone(),
        holder: holder(),
    };
    let command = format!("trib copy {} {}", redact_url(&args.from), redact_url(&args.to));
    let start = RunStart { id: run.clone(), command, selection: args.streams.clone(), holder: holder(), ..RunStart::default() };
    store.start_run(&start).await?;
    let limits = Limits { backoff: BACKOFF, ..Limits::default() };
    let sync = format!("{COPY}:{identity}");
    let task = SyncTask { sync: COPY.to_owned(), identity: sync.clone(), source, destination, streams, renew: None, limits };
    let asked = task.streams.clone();
    let mut summary = Summary::default();
    match run_sync(&runtime, task).await {
        Ok(report) => summary.add(&asked, report),
        Err(e) => summary.add_errors([e.connection("target")]),
    }
    watch.finish().await;
    let rejected = store.rejected(Some(&sync), None, u32::MAX).await?;
    summary.rejected = rejected.into_iter().filter(|r| r.run == run).map(|r| r.row).take(SHOWN).collect();
    summary.took = began.elapsed();
    let error = summary.failures().next().map(|e| e.to_json());
    store.finish_run(&run, &RunEnd { status: summary.status(), error }).await?;
    session.output.either(|| summary.to_json(&run), || render::summary::text(&summary, &run, output::width()));
    Ok(summary.exit())
}

fn context(connection: &str) -> Result<Context> {
    Ok(Context { connection: connection.to_owned(), project_dir: std::env::current_dir()?, threads: THREADS })
}

/// `--format` belongs to whatever connector has such a setting.
fn with_format(connector: &Connector, mut settings: Value, format: Option<&str>) -> Result<Value> {
    if let Some(format) = format {
        if !connector.settings().contains(&"format") {
            return Err(usage("the target has no format")
                .detail(format!("{} takes none", connector.name))
                .hint("leave `--format` out")
                .into());
        }
        settings["format"] = format.into();
    }
    Ok(settings)
}

/// What makes two copies the same: both places (user, host and path, never a password) and the streams.
fn identity(args: &Args) -> String {
    let mut digest = Sha256::new();
    for part in [place(&args.from), place(&args.to)].iter().chain(&args.streams).chain(args.schema.iter()) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex::encode(&digest.finalize()[..8])
}

/// The catalog, no more of it than is needed where the streams are named one by one.
async fn offered(source: &dyn Source, patterns: &[Pattern]) -> trib_core::Result<Catalog> {
    let named: Vec<String> = patterns.iter().filter(|p| !p.is_glob()).map(|p| p.text().to_owned()).collect();
    if !named.is_empty() && named.len() == patterns.len() {
        let catalog = source.discover(&named).await?;
        if patterns.iter().all(|p| catalog.streams.iter().any(|s| takes(p, s))) {
            return Ok(catalog);
        }
    }
    source.discover(&[]).await
}

/// A pattern is about a stream's name, or about its table's where it names no schema.
fn takes(pattern: &Pattern, stream: &Stream) -> bool {
    pattern.takes(&stream.name) || !pattern.text().contains('.') && pattern.takes(&stream.table)
}

/// The streams that are wanted, ready to run.
fn streams(args: &Args, patterns: &[Pattern], catalog: &Catalog) -> Result<Vec<StreamTask>> {
    let chosen: Vec<&Stream> = if patterns.is_empty() {
        let [only] = catalog.streams.as_slice() else {
            let names: Vec<&str> = catalog.streams.iter().map(|s| s.name.as_str()).take(10).collect();
            let error = usage("the source has more than one stream, or none").detail(names.join(", "));
            return Err(error.hint("name them: `--streams 'public.*'`, or `--streams '*'` for all").into());
        };
        vec![only]
    } else {
        for pattern in patterns {
            if !catalog.streams.iter().any(|s| takes(pattern, s)) {
                let known = catalog.stream(pattern.text()).err().unwrap_or_else(|| Error::internal("a stream is there and is not"));
                return Err(known.connection("source").into());
            }
        }
        catalog.streams.iter().filter(|s| patterns.iter().any(|p| takes(p, s))).collect()
    };
    let mut tables: HashMap<TableName, &str> = HashMap::new();
    let mut tasks = Vec::new();
    for stream in chosen {
        let task = stream_task(args, stream).map_err(|e| e.stream(&stream.name))?;
        if let Some(other) = tables.insert(task.spec.table.clone(), &stream.name) {
            let error = usage("two streams would be written into one table")
                .detail(format!("{other} and {} into {}", stream.name, task.spec.table));
            return Err(error.hint("keep their schemas apart: `--schema '{schema}'`").into());
        }
        tasks.push(task);
    }
    Ok(tasks)
}

fn stream_task(args: &Args, stream: &Stream) -> trib_core::Result<StreamTask> {
    let key = if args.key.is_empty() { stream.primary_key.clone() } else { args.key.clone() };
    for column in args.key.iter().chain(&args.cursor) {
        stream.field(column)?;
    }
    let mode = if args.cursor.is_some() { ReadMode::Incremental } else { ReadMode::Full };
    let usual = match (mode, key.is_empty()) {
        (ReadMode::Full, _) => WriteMode::Replace,
        (_, false) => WriteMode::Upsert,
        (_, true) => WriteMode::Append,
    };
    let write = args.write.map_or(usual, WriteMode::from);
    if let Fit::No(why) = fit(mode, write) {
        let pair = format!("{} with {}: {why}", mode.as_str(), write.as_str());
        return Err(Error::new(Code::UsageInvalid, "the read mode and the write mode do not go together").detail(pair));
    }
    if write.needs_key() && key.is_empty() {
        let error = Error::new(Code::UsageInvalid, "the write mode needs a key, and the source declares none");
        return Err(error.detail(write.as_str()).hint("name the columns that identify a row: `--key id`"));
    }
    let read = match &args.cursor {
        None => Read::Full,
        Some(column) => Read::Incremental(Cursor {
            column: column.clone(),
            lookback: None,
            null_cursor: trib_core::source::NullCursor::default(),
            start: None,
            end: None,
        }),
    };
    let schema = args.schema.as_ref().map(|s| s.replace("{schema}", stream.schema_name.as_deref().unwrap_or_default()));
    let table = TableName::new(schema.as_deref(), &stream.table);
    let plain = StreamSpec::plain(&stream.name, stream.schema.clone(), table, write);
    Ok(StreamTask {
        read,
        allow_empty: args.allow_empty,
        // A copy that replaces needs no memory of the last time.
        refresh: if write == WriteMode::Replace { Refresh::Full } else { Refresh::No },
        rows: stream.rows,
        ..StreamTask::whole(StreamSpec { key, system_columns: args.system_columns, ..plain })
    })
}
