//! `trib import`

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use trib_core::{Code, Error, State};
use trib_project::import::{Imported, airbyte, dlt, meltano, sling};
use trib_project::{Project, Variables};
use trib_runtime::TOGETHER;
use trib_store::Store;

use crate::app::{Session, holder, usage};
use crate::assemble::identity;
use crate::exit::{Exit, Result};

/// How long writing the state may hold a sync.
const HOLD: Duration = Duration::from_secs(30);

/// Make a project of ours out of another tool's: its connections, syncs and jobs, and how far they have come
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example: trib import meltano.yml --into shop --state dev:tap-github-to-target-postgres=state.json
Example: trib import airbyte connection.json --into shop
Example: trib import sling replication.yaml --into shop",
    after_help = "A state file is what `meltano state get ID` prints. What could not be carried over is listed."
)]
pub struct Args {
    /// meltano, airbyte, sling or dlt, which may be left out for a meltano.yml; then the file: meltano.yml, what Airbyte's API gives for a connection, Sling's
    /// replication.yaml, dlt's NAME.schema.yaml
    #[arg(required = true, num_args = 1..=2, value_names = ["TOOL", "FILE"])]
    what: Vec<PathBuf>,
    /// The new project's folder; the file's own when left out
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Carry a state over; `ID=FILE`, the ID as Meltano has it
    #[arg(long, value_name = "ID=FILE")]
    state: Vec<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let (tool, file) = tool(&args.what)?;
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| Error::from(e).file(shown.as_str(), None, None))?;
    if !args.state.is_empty() && tool != Tool::Meltano {
        return Err(usage("only Meltano's state can be carried over").hint("leave `--state` out").into());
    }
    let states = args.state.iter().map(|given| Given::parse(given)).collect::<Result<Vec<_>>>()?;
    let file = std::path::absolute(file)?;
    let from = file.parent().unwrap_or(Path::new("/")).to_owned();
    let into = args.into.clone().unwrap_or_else(|| from.clone());
    let name = from.file_name().map_or_else(|| "project".to_owned(), |n| n.to_string_lossy().into_owned());
    let read = |path: &str| std::fs::read_to_string(from.join(path)).ok();
    let imported = match tool {
        Tool::Meltano => meltano::import(&text, &name, &states.iter().map(|s| s.sync).collect::<Vec<_>>(), &read)?,
        Tool::Airbyte => airbyte::import(&text, &shown)?,
        Tool::Sling => sling::import(&text, &shown, &name, &read)?,
        Tool::Dlt => dlt::import(&text, &shown)?,
    };

    if let Some(unknown) = states.iter().find(|s| !imported.files.contains_key(&format!("syncs/{}.yaml", s.sync))) {
        let error = usage("the state belongs to a pair of tap and target that the project does not have").detail(unknown.sync);
        return Err(error.hint("the name is what `meltano state list` shows").into());
    }
    write(&imported, &into)?;
    for given in &states {
        carry_over(&into, given).await?;
    }
    let states: Vec<&str> = states.iter().map(|s| s.sync).collect();
    let files: Vec<&String> = imported.files.keys().collect();
    session.output.either(
        || json!({"folder": into, "files": files, "states": states, "notes": imported.notes}),
        || {
            let mut lines = vec![format!("{} files in {}", files.len(), into.display())];
            lines.extend(states.iter().map(|s| format!("{s}: goes on from where it was")));
            if !imported.notes.is_empty() {
                lines.push("look at:".to_owned());
                lines.extend(imported.notes.iter().map(|n| format!("  - {n}")));
            }
            lines.join("\n")
        },
    );
    Ok(Exit::Success)
}

#[derive(Clone, Copy, PartialEq)]
enum Tool {
    Meltano,
    Airbyte,
    Sling,
    Dlt,
}

/// Whose file it is: as said, or as Meltano's own name for it says.
fn tool(what: &[PathBuf]) -> Result<(Tool, &Path)> {
    let unknown = |said: &Path| usage("whose file this is, is not known").detail(said.display().to_string());
    match what {
        [tool, file] => {
            let known = match tool.to_str() {
                Some("meltano") => Tool::Meltano,
                Some("airbyte") => Tool::Airbyte,
                Some("sling") => Tool::Sling,
                Some("dlt") => Tool::Dlt,
                _ => return Err(unknown(tool).hint("meltano, airbyte, sling and dlt are").into()),
            };
            Ok((known, file))
        }
        [file] if file.extension().is_some_and(|e| e == "yml") => Ok((Tool::Meltano, file)),
        other => {
            let said = other.first().map_or(Path::new(""), PathBuf::as_path);
            Err(unknown(said)
                .hint("`trib import meltano.yml`, `trib import airbyte FILE`, `trib import sling FILE`, `trib import dlt FILE`")
                .into())
        }
    }
}

/// Nothing that is there is overwritten.
fn write(imported: &Imported, into: &Path) -> Result<()> {
    if let Some(there) = imported.files.keys().map(|name| into.join(name)).find(|path| path.exists()) {
        return Err(usage("a file of the new project is there already")
            .detail(there.display().to_string())
            .hint("name an empty folder with `--into`")
            .into());
    }
    for (name, text) in &imported.files {
        let path = into.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// A state that is carried over: `[ENVIRONMENT:]NAME[:SUFFIX]=FILE`.
struct Given<'a> {
    environment: Option<&'a str>,
    sync: &'a str,
    file: &'a str,
}

impl<'a> Given<'a> {
    fn parse(given: &'a str) -> Result<Self> {
        let wrong = || usage("a state is given as ID=FILE").detail(given).hint("`--state dev:tap-github-to-target-postgres=state.json`");
        let (id, file) = given.split_once('=').ok_or_else(wrong)?;
        let parts: Vec<&str> = id.split(':').collect();
        let at = parts.iter().position(|p| p.contains("-to-")).ok_or_else(wrong)?;
        Ok(Self { environment: at.checked_sub(1).map(|i| parts[i]), sync: parts[at], file })
    }
}

/// Puts a Singer state where the sync of the same name begins.
async fn carry_over(into: &Path, given: &Given<'_>) -> Result<()> {
    let (sync, file) = (given.sync, given.file);
    let text = std::fs::read_to_string(file).map_err(|e| Error::from(e).file(file, None, None))?;
    let whole: Value = serde_json::from_str(&text).map_err(Error::from)?;
    // What Meltano prints holds the tap's state in one key; a tap's own file is the state itself.
    let singer = whole.get("singer_state").cloned().unwrap_or(whole);
    let project = Project::load(into, given.environment, Variables::of_process())?;
    let found = project.sync(sync).map_err(|e| e.hint("the state's name must be that of a sync that was imported"))?;
    let connection = found.spec.from.0.first().map(String::as_str).unwrap_or_default();
    let store = Store::open(project.state.expose(), &project.dir, &project.environment.name).await?;
    let identity = identity(&project, sync, connection);
    let lease = store.acquire(&identity, &holder(), HOLD).await?;
    let streams = singer.get("bookmarks").and_then(Value::as_object).map(|b| b.keys().map(|k| (k.clone(), json!({}))).collect());
    let state = State { streams: streams.unwrap_or_default(), global: Some(singer), ..State::default() };
    let put = store.set_state(&lease, TOGETHER, &state).await;
    store.release(&lease).await?;
    put.map_err(|e| if e.code() == Code::LeaseLost { e.hint("a run holds the sync: try again when it has ended") } else { e })?;
    Ok(())
}
