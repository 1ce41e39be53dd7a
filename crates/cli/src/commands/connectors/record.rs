//! `trib connectors record` and `replay`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trib_core::{Code, Error};
use trib_kit::fixture::{Recorded, Recorder, Replay};
use trib_kit::scrub::Scrub;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::bench::{Subject, failure, read, text};
use crate::output::print;

/// Read streams, and keep what the API was asked and has answered, without secrets
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors record connectors/orders.yaml --pages 2")]
pub struct RecordArgs {
    #[command(flatten)]
    subject: Subject,
    /// Where to; `NAME.exchanges.json` beside the manifest when left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Read streams offline, from what was recorded; the same number of records must come out
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors replay connectors/orders.yaml")]
pub struct ReplayArgs {
    #[command(flatten)]
    subject: Subject,
    /// Where from; `NAME.exchanges.json` beside the manifest when left out
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    /// The settings, secrets blank.
    config: Value,
    pages: Option<usize>,
    /// How many there were, by stream.
    records: BTreeMap<String, usize>,
    exchanges: Vec<Recorded>,
}

pub async fn record(args: &RecordArgs, session: &Session) -> Result<Exit> {
    let manifest = args.subject.manifest()?;
    let config = args.subject.config(session, &manifest)?.unwrap_or_else(|| json!({}));
    let opened = manifest.open(&config)?;
    let scrub = Scrub::new(opened.secrets());
    let mut blank = config.clone();
    let known = Scrub::new(opened.secrets());
    known.json(&mut blank);
    let recorder = Arc::new(Recorder::new(scrub));
    let opened = Arc::new(opened.through(recorder.clone())?);
    let mut records = BTreeMap::new();
    for stream in args.subject.streams(&manifest) {
        let read = read(&opened, &stream, args.subject.pages).await?;
        if let Some(error) = read.error {
            return Err(failure(&stream, error).into());
        }
        records.insert(stream, read.records());
    }
    let config = serde_json::from_str(&known.text(&blank.to_string())).map_err(Error::from)?;
    let recording = Recording { config, pages: args.subject.pages, records, exchanges: recorder.take() };
    let file = args.out.clone().unwrap_or_else(|| beside(&args.subject.file));
    let content = serde_json::to_string_pretty(&recording).map_err(Error::from)?;
    std::fs::write(&file, content + "\n").map_err(|e| Error::from(e).file(file.display().to_string(), None, None))?;
    session.output.either(
        || json!({"file": file, "exchanges": recording.exchanges.len(), "records": recording.records}),
        || format!("{} exchanges of {} streams are in {}", recording.exchanges.len(), recording.records.len(), file.display()),
    );
    session
        .output
        .note("secrets of the settings and what has a secret's name are blank; records are as they came: look before you share the file");
    Ok(Exit::Success)
}

pub async fn replay(args: &ReplayArgs, session: &Session) -> Result<Exit> {
    let manifest = args.subject.manifest()?;
    let file = args.from.clone().unwrap_or_else(|| beside(&args.subject.file));
    let recording: Recording = serde_json::from_str(&text(&file)?).map_err(|e| {
        let error = Error::new(Code::DataInvalid, "the file is no recording").detail(e.to_string());
        error.file(file.display().to_string(), Some(e.line()), Some(e.column())).hint("`trib connectors record` writes one")
    })?;
    let replay = Arc::new(Replay::new(recording.exchanges));
    let opened = Arc::new(manifest.open(&recording.config)?.through(replay.clone())?);
    let wanted = args.subject.streams(&manifest);
    let mut errors = Vec::new();
    for (stream, expected) in recording.records.iter().filter(|(stream, _)| wanted.contains(stream)) {
        let read = read(&opened, stream, args.subject.pages.or(recording.pages)).await?;
        let count = read.records();
        session
            .output
            .either(|| json!({"stream": stream, "records": count, "recorded": expected}), || format!("{stream}: {count} records"));
        if let Some(error) = read.error {
            errors.push(failure(stream, error));
        } else if count != *expected && args.subject.pages.is_none() {
            let detail = format!("{count} records came, {expected} were recorded");
            errors.push(Error::new(Code::TestFailed, "the manifest gives something else than it did").detail(detail).stream(stream));
        }
    }
    // Pages are asked for ahead: of a recording of some pages, the next one is missing and nobody wants it.
    let whole = args.subject.pages.or(recording.pages).is_none();
    if let Some(missing) = replay.missing().first().filter(|_| whole) {
        let error = Error::new(Code::NotFound, "the recording has no answer for a request").detail(missing.clone());
        errors.push(error.hint("record again, if the manifest is meant to ask for something else now"));
    }
    if errors.is_empty() && !session.output.json {
        print("as recorded");
    }
    if errors.is_empty() { Ok(Exit::Success) } else { Err(errors.into()) }
}

fn beside(manifest: &Path) -> PathBuf {
    manifest.with_extension("exchanges.json")
}
