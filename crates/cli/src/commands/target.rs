//! `trib target`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use trib_connectors::singer::Pipe;
use trib_core::load::Deletes;
use trib_core::name::Naming;
use trib_core::transform::{Nesting, Transform};
use trib_core::{Catalog, Code, Destination, Error, Source, Stream, TableName, WriteMode};
use trib_engine::StreamSpec;
use trib_runtime::{Budget, Limits, Renew, Runtime, StreamTask, SyncReport, SyncTask, new_id, run_sync};
use trib_store::{RunEnd, RunStart, Store};

use crate::app::{Session, data_folder, engine, holder, place, usage};
use crate::exit::{Exit, Result};
use crate::observe::Watch;
use crate::output::Output;
use crate::render::amount::rows;
use crate::summary::Summary;

/// The environment that loads of targets are kept under where there is no project, and the sync that runs show.
const TARGET: &str = "target";
/// Whoever writes the messages may think for as long as it wants.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Be a Singer target: load the messages that come on standard input
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example: trib target --to lake:./warehouse --schema github < messages.jsonl > state.jsonl",
    after_help = "STATE messages are written to standard output as soon as all that came before them is visible at the destination, in \
                  their order. Everything else goes to standard error."
)]
pub struct Args {
    /// A connection of the project, or postgres://…, ./shop.db, ./folder/, lake:./folder
    #[arg(long)]
    to: Option<String>,
    /// The schema or folder of the tables
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// These settings and more as a JSON file, as Singer's targets take it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What `--config` may hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// See [`Args::to`].
    to: Option<String>,
    /// See [`Args::schema`].
    schema: Option<String>,
    /// `snake_case` or `keep`.
    naming: Naming,
    /// What becomes of objects and arrays: `struct` (JSON where the destination has no such type), `json` or `table`.
    nested: Option<Nesting>,
    /// Add `_trib_load_id` and `_trib_loaded_at`.
    system_columns: bool,
    /// `false`: rows are appended even where they have a key.
    upsert: Option<bool>,
    /// `false`: ACTIVATE_VERSION is not followed, and rows of older versions stay.
    process_activate_version_messages: Option<bool>,
    /// `false`: rows of older versions are not deleted but marked in `_trib_deleted_at`, where they have a key.
    hard_delete: Option<bool>,
    /// A load is made visible at the next STATE message after this many rows,
    load_rows: Option<u64>,
    /// or this many seconds.
    load_seconds: Option<u64>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let settings = settings(args)?;
    let to = settings.to.clone().ok_or_else(|| usage("the target needs a place to load into").hint("such as `--to lake:./warehouse`"))?;
    // Standard output is for STATE messages only.
    let output = Output { json: false, ..session.output };
    let (destination, in_project) = destination(session, &to)?;
    let nested = destination.capabilities().nested && settings.nested != Some(Nesting::Json) || settings.nested == Some(Nesting::Table);
    let versions = settings.process_activate_version_messages.unwrap_or(true);
    let source = Pipe::new(std::io::stdin(), std::io::stdout(), nested, versions);

    let first = source.discover(&[]).await?;
    if first.streams.is_empty() {
        return Ok(Exit::Success);
    }
    let identity = identity(&place(&to), &settings, &first);
    let folder = if in_project { None } else { Some(data_folder(TARGET)?) };
    let store = match &folder {
        None => session.store().await?.clone(),
        Some(folder) => Arc::new(Store::open(&format!("{identity}.db"), folder, TARGET).await?),
    };
    let run = new_id();
    let watch = Watch::new(output, store.clone(), &run);
    let runtime = Runtime {
        engine: match &folder {
            None => session.engine()?,
            Some(folder) => engine(folder)?,
        },
        store: store.clone(),
        observer: watch.clone(),
        cancel: session.stop_on_signal(),
        run: run.clone(),
        holder: holder(),
    };
    let command = format!("trib target --to {}", trib_core::secret::redact_url(&to));
    store.start_run(&RunStart { id: run.clone(), command, holder: holder(), ..RunStart::default() }).await?;

    let tasks = tasks(settings.clone(), destination.clone());
    let task = SyncTask {
        sync: TARGET.to_owned(),
        identity: format!("{TARGET}:{identity}"),
        streams: tasks(&first)?,
        source,
        destination,
        renew: Some(tasks),
        limits: limits(&settings),
    };
    let mut summary = Summary::default();
    match run_sync(&runtime, task).await {
        Ok(report) => tell(&mut summary, report, output),
        Err(e) => summary.add_errors([e]),
    }
    watch.finish().await;
    let mut told: Vec<&Arc<Error>> = Vec::new();
    for error in summary.failures() {
        // Streams that load together fail together.
        if !told.iter().any(|e| Arc::ptr_eq(e, error)) {
            output.error(error);
            told.push(error);
        }
    }
    let error = told.first().map(|e| e.to_json());
    store.finish_run(&run, &RunEnd { status: summary.status(), error }).await?;
    Ok(summary.exit())
}

fn settings(args: &Args) -> Result<Settings> {
    let mut settings = match &args.config {
        None => Settings::default(),
        Some(file) => {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|e| Error::from(e).file(shown.as_str(), None, None))?;
            serde_json::from_str(&text).map_err(|e| {
                let error = Error::new(Code::ConfigInvalid, "the settings are not right").detail(e.to_string());
                error.file(shown, Some(e.line()), Some(e.column()))
            })?
        }
    };
    settings.to = args.to.clone().or(settings.to);
    settings.schema = args.schema.clone().or(settings.schema);
    Ok(settings)
}

/// A connection of the project when there is one of this name, or what a URL stands for.
fn destination(session: &Session, to: &str) -> Result<(Arc<dyn Destination>, bool)> {
    if let Ok(project) = session.project()
        && project.connection(to).is_ok()
    {
        return Ok((session.destination(to)?, true));
    }
    let (connector, settings) = session.registry().by_url(to)?;
    let context = trib_core::Context { connection: TARGET.to_owned(), project_dir: std::env::current_dir()?, threads: 4 };
    Ok((connector.make_destination(&settings, &context)?, false))
}

/// What makes two runs the same: the place (never a password), the schema and the streams that come first.
fn identity(place: &str, settings: &Settings, first: &Catalog) -> String {
    let mut digest = Sha256::new();
    let streams = first.streams.iter().map(|s| s.name.as_str());
    for part in [place, settings.schema.as_deref().unwrap_or_default()].into_iter().chain(streams) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex::encode(&digest.finalize()[..8])
}

fn limits(settings: &Settings) -> Limits {
    let usual = Limits::default();
    Limits {
        stall_timeout: PATIENCE,
        // What has come down a pipe cannot be read a second time.
        attempts: 1,
        budget: Budget {
            rows: settings.load_rows.unwrap_or(usual.budget.rows),
            bytes: usual.budget.bytes,
            time: settings.load_seconds.map_or(Duration::from_secs(5 * 60), Duration::from_secs),
        },
        ..usual
    }
}

/// What is to become of the streams that are known.
fn tasks(settings: Settings, destination: Arc<dyn Destination>) -> Renew {
    Arc::new(move |catalog| {
        let mut tasks: Vec<StreamTask> = Vec::new();
        for stream in &catalog.streams {
            let task = task(&settings, destination.as_ref(), stream);
            if let Some(other) = tasks.iter().find(|t| t.spec.table == task.spec.table) {
                return Err(Error::new(Code::ConfigInvalid, "two streams would be written into one table")
                    .detail(format!("{} and {} into {}", other.spec.stream, stream.name, task.spec.table))
                    .hint("`naming: keep` in the settings keeps their names apart"));
            }
            tasks.push(task);
        }
        Ok(tasks)
    })
}

fn task(settings: &Settings, destination: &dyn Destination, stream: &Stream) -> StreamTask {
    let can = |mode| destination.capabilities().write_modes.contains(&mode);
    let keyed = settings.upsert.unwrap_or(true) && !stream.primary_key.is_empty() && can(WriteMode::Upsert);
    // A stream that comes anew takes the place of the rows that were there.
    let write = match (keyed, stream.anew) {
        (true, true) if can(WriteMode::Mirror) => WriteMode::Mirror,
        (true, _) => WriteMode::Upsert,
        (false, true) if can(WriteMode::Replace) => WriteMode::Replace,
        (false, _) => WriteMode::Append,
    };
    let soft = keyed && settings.hard_delete == Some(false);
    let table = TableName::new(settings.schema.as_deref(), &settings.naming.apply(&stream.table));
    let spec = StreamSpec {
        transform: Transform { nested: settings.nested, ..Transform::default() },
        naming: settings.naming,
        key: stream.primary_key.clone(),
        deletes: if soft { Deletes::Soft } else { Deletes::Hard },
        system_columns: settings.system_columns,
        ..StreamSpec::plain(&stream.name, stream.schema.clone(), table, write)
    };
    StreamTask { allow_empty: true, ..StreamTask::whole(spec) }
}

fn tell(summary: &mut Summary, report: SyncReport, output: Output) {
    for stream in &report.streams {
        let rejected = stream.outcome.counts.rejected;
        if rejected > 0 {
            output.note(format!("{}: {} rejected, and not loaded", stream.stream, rows(rejected)));
        }
    }
    summary.add(&[], report);
}
