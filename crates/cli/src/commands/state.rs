//! `trib state`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trib_core::{Code, Error, State};
use trib_engine::ChangeSource;
use trib_project::NodeKind;
use trib_runtime::{NoObserver, SyncTask, TOGETHER, new_id, recover_state, reset};
use trib_store::Store;

use crate::app::{Session, holder, usage};
use crate::args::Select;
use crate::assemble::{Ask, identified, shown_name};
use crate::commands::run::permit;
use crate::exit::{Exit, Failure, Result};
use crate::models;
use crate::prepare::{self, Wanted};
use crate::render::name::node;

/// How long a change of state may hold a sync.
const HOLD: Duration = Duration::from_secs(30);

/// Look at how far each stream has come, and mend it
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// The state as JSON, of all syncs, one sync, or one stream
    #[command(before_help = "Example: trib state get shop/public.orders")]
    Get {
        /// A sync, or `sync/stream`
        node: Option<String>,
    },
    /// Put another state in place of a stream's: what `get` gives for it, edited. The source is asked whether it could have written it
    #[command(before_help = "Example: trib state set shop/public.orders '{\"cursor\": \"updated_at\", \"value\": \"2025-01-01\"}'")]
    Set {
        /// `sync/stream`
        node: String,
        /// JSON; `-` reads it from standard input
        value: String,
    },
    /// Forget how far streams have come: the next run loads them from the beginning
    #[command(before_help = "Example: trib state reset shop/public.orders")]
    Reset {
        #[arg(required = true, value_name = "SELECT")]
        select: Vec<String>,
        /// Do not ask, in protected environments
        #[arg(long, short)]
        yes: bool,
    },
    /// Take the state from the destination's markers, when the control database was lost or is out of date
    #[command(before_help = "Example: trib state recover shop")]
    Recover {
        #[arg(value_name = "SELECT")]
        select: Vec<String>,
    },
}

pub async fn run(args: Args, session: &Session) -> Result<Exit> {
    match args.command {
        Command::Get { node } => get(session, node.as_deref()).await,
        Command::Set { node, value } => set(session, &node, &value).await,
        Command::Reset { select, yes } => {
            permit(session, "forget the state", yes)?;
            mend(session, select, false).await
        }
        Command::Recover { select } => mend(session, select, true).await,
    }
}

/// The identities that state is kept under in this environment, by the name that the user knows.
async fn identities(session: &Session, store: &Store) -> Result<BTreeMap<String, String>> {
    let project = session.project()?;
    let named = |identity: String| {
        let (sync, connection) = identified(project, &identity)?;
        Some((shown_name(project, sync, connection), identity))
    };
    Ok(store.syncs().await?.into_iter().filter_map(named).collect())
}

async fn get(session: &Session, node: Option<&str>) -> Result<Exit> {
    let store = session.store().await?;
    let (wanted, stream) = match node.and_then(|n| n.split_once('/')) {
        Some((sync, stream)) => (Some(sync), Some(stream)),
        None => (node, None),
    };
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    for (name, identity) in identities(session, store).await? {
        if wanted.is_none_or(|w| name == w || name.split('@').next() == Some(w)) {
            states.insert(name, store.state(&identity).await?);
        }
    }
    if let Some(sync) = wanted.filter(|_| states.is_empty()) {
        // A sync that is there and has not run has no state; any other name is a mistake.
        let name = sync.split('@').next().unwrap_or(sync);
        if !session.graph()?.nodes().iter().any(|n| n.name == name) {
            session.project()?.sync(name)?;
        }
    }
    let value = match (stream, wanted) {
        (Some(stream), Some(sync)) => {
            let found = states.values().find_map(|s| s.stream(stream));
            found.cloned().ok_or_else(|| {
                Error::new(Code::NotFound, "there is no state for this stream")
                    .detail(format!("{sync}/{stream}"))
                    .hint("it has not been loaded yet")
            })?
        }
        _ => states.into_iter().map(|(name, state)| (name, json!(state))).collect::<serde_json::Map<_, _>>().into(),
    };
    let text = serde_json::to_string_pretty(&value).map_err(Error::from)?;
    session.output.either(|| value, || text);
    Ok(Exit::Success)
}

async fn set(session: &Session, node: &str, value: &str) -> Result<Exit> {
    let (sync, stream) =
        node.split_once('/').ok_or_else(|| usage("the state of one stream is set at a time").detail(node).hint("write `sync/stream`"))?;
    let text = if value == "-" { std::io::read_to_string(std::io::stdin())? } else { value.to_owned() };
    let form = || format!("`trib state get {node}` shows the form");
    let value: Value = serde_json::from_str(&text).map_err(|e| usage("the state is not JSON").source(e).hint(form()))?;
    if value.get(sync).unwrap_or(&value).get("streams").is_some() {
        return Err(usage("this is the state of a whole sync, and it is set stream by stream").hint(form()).into());
    }
    if !value.is_object() {
        return Err(usage("the state of a stream is a JSON object").hint(form()).into());
    }
    let store = session.store().await?;
    let known = identities(session, store).await?;
    let identity = known.get(sync).ok_or_else(|| {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Error::new(Code::NotFound, "the sync has no state yet").detail(sync).hint(match names.as_slice() {
            [] => "run it first; `start:` in the stream's settings says where a first run begins".to_owned(),
            some => format!("there is state for {}", some.join(", ")),
        })
    })?;
    let select = vec![sync.split('@').next().unwrap_or(sync).to_owned()];
    let Tasks { tasks, errors } = Tasks::of(session, select, &Ask::default()).await?;
    let task = tasks.iter().map(|(task, _)| task).find(|t| t.identity == *identity);
    let asked = task.and_then(|t| Some((t, t.streams.iter().find(|s| s.spec.stream == stream)?)));
    let Some((task, asked)) = asked else {
        let unknown = || vec![Error::new(Code::NotFound, "the sync has no such stream").detail(node).hint("`trib ls` names them")];
        return Err(Failure(if errors.is_empty() { unknown() } else { errors }));
    };
    let scope = if task.source.streams_together() { TOGETHER } else { stream };
    let lease = store.acquire(identity, &holder(), HOLD).await?;
    let state = store.state_of(identity, scope).await?.with_stream(stream, value);
    // The only one who writes this state is asked to go on from it.
    let changed = match task.source.advance(&[asked.stream_read(1)], &state, &[]) {
        Ok(_) => store.set_state(&lease, scope, &state).await,
        Err(e) => Err(e),
    };
    store.release(&lease).await?;
    changed?;
    session.output.either(|| json!({"node": node, "set": true}), || format!("{node}: set; the next run goes on from there"));
    Ok(Exit::Success)
}

/// What is selected, ready to run.
#[derive(Default)]
struct Tasks {
    /// With what has to be sent, where the streams are deliveries.
    tasks: Vec<(SyncTask, Option<Arc<ChangeSource>>)>,
    /// What keeps the others from running.
    errors: Vec<Error>,
}

impl Tasks {
    async fn of(session: &Session, select: Vec<String>, ask: &Ask) -> Result<Self> {
        let selection = session.select(&Select { select, exclude: Vec::new() }).await?;
        let project = session.project()?;
        let wanted = Wanted { selection: &selection, ask, paused: &[] };
        let mut found = Self::default();
        for node in session.graph()?.nodes().iter().filter(|n| selection.contains(&n.name)) {
            match node.kind {
                NodeKind::Sync => {
                    for prepared in prepare::sync(session, project.sync(&node.name)?, &wanted).await {
                        match prepared {
                            Err(Failure(mut more)) => found.errors.append(&mut more),
                            Ok(prepared) => {
                                found.errors.extend(prepared.errors);
                                found.tasks.push((prepared.task, prepared.changes));
                            }
                        }
                    }
                }
                NodeKind::Model | NodeKind::Seed => match models::task_of(session, node).await {
                    Err(Failure(mut more)) => found.errors.append(&mut more),
                    Ok(task) => found.tasks.extend(task.map(|task| (task, None))),
                },
                NodeKind::Command => {}
            }
        }
        Ok(found)
    }
}

/// Resets or recovers what is selected.
async fn mend(session: &Session, select: Vec<String>, recover: bool) -> Result<Exit> {
    let ask = Ask { forget: !recover, ..Ask::default() };
    let Tasks { tasks, mut errors } = Tasks::of(session, select, &ask).await?;
    let runtime = session.runtime(&new_id(), Arc::new(NoObserver), CancellationToken::new()).await?;
    let mut mended: Vec<String> = Vec::new();
    for (task, changes) in tasks.into_iter().filter(|(task, _)| !task.streams.is_empty()) {
        match one(&runtime, &task, changes.as_deref(), recover).await {
            Ok(streams) => mended.extend(streams),
            Err(e) => errors.push(e),
        }
    }
    let done = if recover { "taken from the destination" } else { "forgotten; the next run begins anew" };
    session.output.either(
        || json!({"streams": mended, "errors": errors.iter().map(Error::to_json).collect::<Vec<_>>()}),
        || {
            let lines: Vec<String> = mended.iter().map(|name| format!("{name}: {done}")).collect();
            if lines.is_empty() { "no stream was touched".to_owned() } else { lines.join("\n") }
        },
    );
    if !session.output.json {
        for error in &errors {
            session.output.error(error);
        }
    }
    let codes: Vec<Code> = errors.iter().map(Error::code).collect();
    Ok(Exit::of_run(mended.len(), &codes))
}

/// `changes`: where the streams are deliveries, what was delivered of them is forgotten too.
async fn one(
    runtime: &trib_runtime::Runtime,
    task: &SyncTask,
    changes: Option<&ChangeSource>,
    recover: bool,
) -> trib_core::Result<Vec<String>> {
    let streams: Vec<String> = if recover {
        recover_state(runtime, task).await?.into_iter().map(|marker| marker.scope).collect()
    } else {
        reset(runtime, task).await?
    };
    if let Some(changes) = changes.filter(|_| !recover) {
        for stream in &streams {
            changes.forget(stream).await?;
        }
    }
    Ok(streams.into_iter().map(|stream| node(&task.sync, &stream)).collect())
}
