//! `trib connectors add`

use serde_json::json;
use trib_connectors::manifest::Manifest;
use trib_core::{Code, Error};
use trib_project::Lock;
use trib_project::lock::{checksum, manifest_file};

use super::{name_and_version, project_dir};
use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::index::Which;
use crate::hub::origin::Origin;

/// Put a connector's manifest into the project, with its version, checksum and licence in tributary.lock
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors add pokeapi@0.3.33")]
pub struct Args {
    /// What it is called here and in the registry; the newest version when none is named
    #[arg(value_name = "NAME[@VERSION]")]
    name: String,
    /// Take it from here and not from the registry: a manifest, or a folder with `manifest.yaml`
    #[arg(long, value_name = "URL|FILE|DIR")]
    from: Option<String>,
    /// Replace a file of this name that the project has
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    registry: Which,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let dir = project_dir(session)?;
    let (asked, version) = name_and_version(&args.name);
    let name = asked.rsplit('/').next().unwrap_or_default().trim_start_matches("source-");
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        let error = Error::new(Code::UsageInvalid, "this is no name for a connector").detail(format!("`{name}`"));
        return Err(error.hint("letters, digits, `-` and `_`; another name goes with `--from`").into());
    }
    let mut lock = Lock::read(&dir)?;
    let origin = match (&args.from, lock.connectors.get(name)) {
        (Some(from), _) => Origin::Place(from.clone()),
        (None, Some(pin)) if version.is_some() => Origin::of(pin),
        (None, _) => Origin::named(asked, &args.registry).await?,
    };
    let found = origin.find(name, version, &dir, &args.registry).await?;
    let file = manifest_file(&dir, name);
    let shown = file.strip_prefix(&dir).unwrap_or(&file).display().to_string();
    let there = std::fs::read_to_string(&file).ok();
    let same = there.as_ref().is_none_or(|text| checksum(text) == found.pin.sha256);
    if !same && !args.force {
        let error = Error::new(Code::UsageInvalid, "the project has another connector of this name").file(shown, None, None);
        let hint = if lock.connectors.contains_key(name) {
            format!("`trib connectors update {name}` shows what a newer version changes; `--force` replaces the file")
        } else {
            "`--force` replaces the file".to_owned()
        };
        return Err(error.hint(hint).into());
    }
    found.take(name, &dir, &mut lock)?;
    let pin = &found.pin;
    let streams = runnable(&found.manifest);
    session.output.either(
        || {
            json!({"connector": name, "file": shown, "version": pin.version, "origin": pin.origin, "licence": pin.licence, "sha256": pin.sha256,
                   "streams": streams.0, "unsupported": streams.1.iter().map(|(stream, class)| json!({"stream": stream, "needs": class})).collect::<Vec<_>>()})
        },
        || format!("{name} {} ({}, from {}) is in {shown}: {} streams", pin.version, licence(&pin.licence), pin.origin, streams.0),
    );
    for (stream, class) in &streams.1 {
        session.output.note(format!("note: the stream {stream} needs Python code ({class}) and does not run"));
    }
    session.output.note(format!("next: a connection with `connector: {name}`; `trib connectors show {name}` lists its settings"));
    Ok(Exit::Success)
}

/// How many streams run here, and those that do not, each with what it needs.
fn runnable(manifest: &Manifest) -> (usize, Vec<(String, String)>) {
    let outline = manifest.outline();
    let unsupported: Vec<_> = outline.streams.iter().filter_map(|(name, s)| Some((name.clone(), s.needs.clone()?))).collect();
    (outline.streams.len() - unsupported.len(), unsupported)
}

pub fn licence(text: &str) -> String {
    if text == "unknown" { "licence unknown".to_owned() } else { format!("licence {text}") }
}
