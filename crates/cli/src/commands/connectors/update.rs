//! `trib connectors update`

use std::path::Path;

use serde_json::{Value, json};
use trib_connectors::manifest::{Change, Manifest};
use trib_core::{Code, Error};
use trib_project::lock::{checksum, manifest_file};
use trib_project::{Lock, Pin};

use super::{name_and_version, project_dir};
use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::index::Which;
use crate::hub::origin::{Found, Origin};
use crate::output::{self, print};

/// Take other versions of pinned connectors, and see before what they change
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors update pokeapi")]
pub struct Args {
    /// All that are pinned when left out
    #[arg(value_name = "NAME[@VERSION]")]
    names: Vec<String>,
    /// Take them without asking
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    registry: Which,
}

/// From one version to another.
pub struct Step {
    pub name: String,
    pub from: Pin,
    pub found: Found,
    pub changes: Vec<Change>,
}

impl Step {
    /// Whether anything is different at all.
    pub fn is_news(&self) -> bool {
        self.from.sha256 != self.found.pin.sha256 || self.from.version != self.found.pin.version
    }

    fn breaks(&self) -> bool {
        self.changes.iter().any(|c| c.breaking)
    }

    pub fn summary(&self) -> String {
        let (breaking, all) = (self.changes.iter().filter(|c| c.breaking).count(), self.changes.len());
        match (breaking, all) {
            (_, 0) if self.from.sha256 == self.found.pin.sha256 => "none".to_owned(),
            (_, 0) => "none in streams, fields, keys, cursors and settings".to_owned(),
            (0, all) => format!("{all}, none breaking"),
            (breaking, all) => format!("{all}, {breaking} breaking"),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "connector": self.name, "from": self.from.version, "to": self.found.pin.version, "licence": self.found.pin.licence,
            "origin": self.found.pin.origin, "breaking": self.breaks(), "changes": self.changes,
        })
    }

    fn show(&self) -> String {
        let mut out = format!("{} {} -> {}: {}", self.name, self.from.version, self.found.pin.version, self.summary());
        if self.from.licence != self.found.pin.licence {
            out.push_str(&format!("\n  the licence is {}, it was {}", self.found.pin.licence, self.from.licence));
        }
        for change in &self.changes {
            let mark = if change.breaking { "breaking" } else { "" };
            let stream = change.stream.as_ref().map(|s| format!("{s}: ")).unwrap_or_default();
            out.push_str(&format!("\n  {mark:<8}  {stream}{}", change.what));
        }
        out
    }
}

/// What taking a version means; `None` for a connector that is pinned as the project itself has it.
pub async fn step(name: &str, pin: &Pin, version: Option<&str>, dir: &Path, registry: &Which) -> trib_core::Result<Option<Step>> {
    let file = manifest_file(dir, name);
    let shown = file.strip_prefix(dir).unwrap_or(&file).display().to_string();
    let origin = Origin::of(pin);
    if matches!(&origin, Origin::Place(place) if dir.join(place) == file) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).map_err(|e| Error::from(e).file(&shown, None, None))?;
    if checksum(&text) != pin.sha256 {
        return Err(Error::new(Code::ConfigInvalid, "the connector's file is not what was pinned").file(shown.clone(), None, None).hint(
            format!("an update would undo your changes: keep them with `trib connectors add {name} --from {shown}`, or drop them first"),
        ));
    }
    let before = Manifest::parse(&file, &text)?.outline();
    let found = origin.find(name, version, dir, registry).await?;
    let changes = before.changes(&found.manifest.outline());
    Ok(Some(Step { name: name.to_owned(), from: pin.clone(), found, changes }))
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let dir = project_dir(session)?;
    let mut lock = Lock::read(&dir)?;
    let all: Vec<String> = if args.names.is_empty() { lock.connectors.keys().cloned().collect() } else { args.names.clone() };
    let mut steps = Vec::new();
    for asked in &all {
        let (name, version) = name_and_version(asked);
        let Some(pin) = lock.connectors.get(name) else {
            let error = Error::new(Code::NotFound, "the project has not pinned such a connector").detail(format!("`{name}`"));
            return Err(error.hint(format!("`trib connectors add {name}` does")).into());
        };
        steps.extend(step(name, pin, version, &dir, &args.registry).await?.filter(Step::is_news));
    }
    if !session.output.json {
        if steps.is_empty() {
            print("all is up to date");
        }
        steps.iter().for_each(|s| print(s.show()));
    }
    let take = steps.is_empty() || args.yes || output::is_interactive() && !session.output.json && output::confirm("take it?");
    if take {
        for step in &steps {
            step.found.take(&step.name, &dir, &mut lock)?;
        }
    }
    if session.output.json {
        print(json!({"updates": steps.iter().map(Step::json).collect::<Vec<_>>(), "taken": take}));
    }
    if !take {
        return Err(Error::new(Code::Held, "nothing was changed").hint("`--yes` takes what is shown").into());
    }
    Ok(Exit::Success)
}
