//! `trib rejected`

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use trib_core::transform::Transform;
use trib_core::{Code, Error};
use trib_engine::protect::Protection;
use trib_engine::steps::looked_at;
use trib_project::{Pick, Selection};
use trib_runtime::{StreamTask, SyncTask, new_id, run_sync};
use trib_store::{Rejected, RunEnd, RunStart};

use crate::app::{Session, holder, usage};
use crate::assemble::{Ask, identified, shown_name};
use crate::exit::{Exit, Failure, Result};
use crate::observe::Watch;
use crate::output;
use crate::prepare::{self, Wanted};
use crate::render;
use crate::render::amount::{ago, rows};
use crate::render::table::{left, render, right};
use crate::retried::{Ready, as_retry, ready, source};
use crate::summary::Summary;

/// Rows that could not be delivered, kept with the reason
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Rows that wait, the oldest first
    #[command(before_help = "Example: trib rejected list shop")]
    List {
        /// A sync, or `sync/stream`
        node: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// One row in full
    #[command(before_help = "Example: trib rejected show 17")]
    Show { id: u64 },
    /// Load rows once more, through the sync as it is now. A row that has come in a newer version since is replaced by the older one:
    /// `trib backfill` reads such rows again instead
    #[command(before_help = "Example: trib rejected retry shop/public.orders")]
    Retry {
        /// Ids as `list` shows them, a sync, or `sync/stream`; all when left out
        what: Vec<String>,
    },
}

pub async fn run(args: Args, session: &Session) -> Result<Exit> {
    match args.command {
        Command::List { node, limit } => list(session, node.as_deref(), limit).await,
        Command::Show { id } => show(session, id).await,
        Command::Retry { what } => retry(session, &what).await,
    }
}

/// The sync and the source that an identity stands for.
struct Of {
    sync: String,
    connection: Option<String>,
    /// As runs show it.
    shown: String,
}

fn of(session: &Session, identity: &str) -> Result<Of> {
    let project = session.project()?;
    Ok(match identified(project, identity) {
        Some((sync, connection)) => {
            Of { sync: sync.to_owned(), connection: Some(connection.to_owned()), shown: shown_name(project, sync, connection) }
        }
        None => Of { sync: identity.to_owned(), connection: None, shown: identity.to_owned() },
    })
}

fn node(of: &Of, stream: &str) -> String {
    format!("{}/{stream}", of.shown)
}

/// Rows that wait, of one sync or stream.
async fn waiting(session: &Session, wanted: Option<&str>, limit: u32) -> Result<Vec<(Of, Rejected)>> {
    let (sync, stream) = match wanted {
        None => (None, None),
        Some(name) => name.split_once('/').map_or((Some(name), None), |(sync, stream)| (Some(sync), Some(stream))),
    };
    if let Some(sync) = sync {
        session.project()?.sync(sync)?;
    }
    let all = session.store().await?.rejected(None, stream, u32::MAX).await?;
    let mut rows = Vec::new();
    for row in all {
        let of = of(session, &row.sync)?;
        if sync.is_none_or(|s| s == of.sync) && rows.len() < limit as usize {
            rows.push((of, row));
        }
    }
    Ok(rows)
}

async fn list(session: &Session, wanted: Option<&str>, limit: u32) -> Result<Exit> {
    let waiting = waiting(session, wanted, limit).await?;
    let now = chrono::Utc::now();
    let columns = [right("id"), left("stream"), left("place"), left("reason"), left("row"), left("since")];
    let row = |(of, r): &(Of, Rejected)| {
        vec![r.id.to_string(), node(of, &r.scope), r.row.place.clone(), r.row.reason.clone(), short(&r.row.row), ago(r.rejected_at, now)]
    };
    session.output.either(
        || waiting.iter().map(to_json).collect(),
        || {
            if waiting.is_empty() {
                "no rows wait".to_owned()
            } else {
                render(&columns, &waiting.iter().map(row).collect::<Vec<_>>(), output::width())
            }
        },
    );
    Ok(Exit::Success)
}

/// The row in as much as a list has room for.
fn short(row: &Value) -> String {
    const CHARS: usize = 60;
    let text = row.to_string();
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

async fn show(session: &Session, id: u64) -> Result<Exit> {
    let found = session.store().await?.take_rejected(&[id]).await?.pop();
    let rejected = found.ok_or_else(|| {
        Error::new(Code::NotFound, "no rejected row of this id waits").detail(id.to_string()).hint("`trib rejected list` lists them")
    })?;
    let of = of(session, &rejected.sync)?;
    let row = serde_json::to_string_pretty(&rejected.row.row).map_err(Error::from)?;
    let name = node(&of, &rejected.scope);
    let requests = requests(session, &of, &rejected).await?;
    let mut text = format!("{name}, {}\n{}\nrun {}, load {}\n{row}", rejected.row.place, rejected.row.reason, rejected.run, rejected.load);
    requests.iter().for_each(|request| text += &format!("\n{request:#}"));
    let json = || {
        let mut shown = to_json(&(of, rejected));
        shown["requests"] = requests.into();
        shown
    };
    session.output.either(json, || text);
    Ok(Exit::Success)
}

/// What an API was asked for the row and has answered, where its stream has `log: requests`.
async fn requests(session: &Session, of: &Of, rejected: &Rejected) -> Result<Vec<Value>> {
    let Ok(sync) = session.project()?.sync(&of.sync) else { return Ok(Vec::new()) };
    // Whoever looks at a row need not have all that sending it takes.
    let Ok(destination) = session.destination(&sync.spec.to) else { return Ok(Vec::new()) };
    match destination.deliveries() {
        Some(api) => Ok(api.kept_requests(&rejected.sync, &rejected.load, &rejected.row.place).await?),
        None => Ok(Vec::new()),
    }
}

fn to_json((of, r): &(Of, Rejected)) -> Value {
    json!({
        "id": r.id, "sync": of.sync, "connection": of.connection, "stream": r.scope, "run": r.run, "load": r.load, "place": r.row.place,
        "reason": r.row.reason, "row": r.row.row, "rejected_at": r.rejected_at,
    })
}

async fn retry(session: &Session, what: &[String]) -> Result<Exit> {
    let ids: Vec<u64> = what.iter().filter_map(|w| w.parse().ok()).collect();
    let mut chosen: Vec<(Of, Rejected)> = Vec::new();
    if !ids.is_empty() {
        for row in session.store().await?.take_rejected(&ids).await? {
            chosen.push((of(session, &row.sync)?, row));
        }
    }
    for name in what.iter().filter(|w| w.parse::<u64>().is_err()) {
        chosen.extend(waiting(session, Some(name), u32::MAX).await?);
    }
    if what.is_empty() {
        chosen = waiting(session, None, u32::MAX).await?;
    }
    if chosen.is_empty() {
        session.output.either(|| json!({"retried": 0}), || "no rows wait".to_owned());
        return Ok(Exit::Success);
    }
    let mut groups: BTreeMap<(String, Option<String>, String), Vec<Rejected>> = BTreeMap::new();
    for (of, row) in chosen {
        groups.entry((of.sync, of.connection, row.scope.clone())).or_default().push(row);
    }
    load(session, groups).await
}

/// One load for each stream.
async fn load(session: &Session, groups: BTreeMap<(String, Option<String>, String), Vec<Rejected>>) -> Result<Exit> {
    let began = Instant::now();
    let store = session.store().await?.clone();
    let run = new_id();
    let watch = Watch::new(session.output, store.clone(), &run);
    let runtime = session.runtime(&run, watch.clone(), session.stop_on_signal()).await?;
    let selection: Vec<String> = groups.keys().map(|(sync, _, stream)| format!("{sync}/{stream}")).collect();
    let start = RunStart { id: run.clone(), command: "trib rejected retry".to_owned(), selection, holder: holder(), ..RunStart::default() };
    store.start_run(&start).await?;
    let mut summary = Summary::default();
    for ((sync, connection, stream), rejected) in groups {
        let name = format!("{sync}/{stream}");
        let skip = |summary: &mut Summary, count: u64, why: &str| {
            if count > 0 {
                summary.skipped.push((name.clone(), format!("{} {why}", rows(count))));
            }
        };
        // A line that could not even be decoded has no columns to load.
        let (rows_again, lines): (Vec<_>, Vec<_>) = rejected.into_iter().partition(|r| r.row.row.is_object());
        skip(&mut summary, lines.len() as u64, "could not be decoded: mend the source and read it again");
        if rows_again.is_empty() {
            continue;
        }
        match task(session, &sync, connection.as_deref(), &stream, rows_again).await {
            Err(failure) => summary.add_errors(failure.0),
            Ok((unfit, None)) => skip(&mut summary, unfit, UNFIT),
            Ok((unfit, Some((asked, task)))) => {
                skip(&mut summary, unfit, UNFIT);
                match run_sync(&runtime, task).await {
                    Err(e) => summary.add_errors([e]),
                    Ok(report) => summary.add(&asked, report),
                }
            }
        }
    }
    watch.finish().await;
    summary.took = began.elapsed();
    let error = summary.failures().next().map(|e| e.to_json());
    store.finish_run(&run, &RunEnd { status: summary.status(), error }).await?;
    session.output.either(|| summary.to_json(&run), || render::summary::text(&summary, &run, output::width()));
    Ok(summary.exit())
}

const UNFIT: &str = "were not kept in a form that the stream's rules of today can load: `trib backfill` reads them again";

/// The stream's own task with the rejected rows for a source, and how many of them it cannot take.
async fn task(
    session: &Session,
    sync: &str,
    connection: Option<&str>,
    stream: &str,
    rejected: Vec<Rejected>,
) -> Result<(u64, Option<(Vec<StreamTask>, SyncTask)>)> {
    let of_sync = Selection { nodes: BTreeMap::from([(sync.to_owned(), Pick::All)]) };
    let wanted = Wanted { selection: &of_sync, ask: &Ask::default(), paused: &[] };
    let project = session.project()?;
    let mut errors: Vec<Error> = Vec::new();
    for prepared in prepare::sync(session, project.sync(sync)?, &wanted).await {
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(Failure(mut more)) => {
                errors.append(&mut more);
                continue;
            }
        };
        errors.extend(prepared.errors.into_iter().filter(|e| e.place().stream.as_deref().is_none_or(|s| s == stream)));
        if connection.is_some_and(|c| !prepared.task.identity.ends_with(&format!(":{c}"))) {
            continue;
        }
        let Some(found) = prepared.task.streams.iter().find(|s| s.spec.stream == stream) else { continue };
        if prepared.changes.is_some() {
            // What an API has refused is pending: its stream sends it again, with whatever has changed.
            let streams = vec![found.clone()];
            let task = SyncTask { streams: streams.clone(), ..prepared.task };
            return Ok((0, Some((streams, task))));
        }
        let refused = |why| Err(Error::new(Code::Unsupported, why).stream(stream).hint("`trib backfill` reads the range again").into());
        // They have passed the filter before.
        let transform = Transform { filter: None, ..found.spec.transform.clone() };
        let Some(looked_at) = looked_at(&session.engine()?, &found.spec.schema, &transform)? else {
            return refused("rows that a query has made cannot be loaded once more");
        };
        if looked_at.iter().any(|name| transform.columns.get(name).is_some_and(|r| r.drop || Protection::of(r).is_some())) {
            return refused("an added column is made of a column that is dropped or protected, and that rejected rows no longer have");
        }
        let Ready { ids, rows, unfit } = ready(found, rejected);
        if rows.is_empty() {
            return Ok((unfit, None));
        }
        let retry = StreamTask { retries: ids, ..as_retry(found.clone()) };
        let source = source(stream, retry.spec.schema.clone(), rows);
        let streams = vec![retry];
        return Ok((unfit, Some((streams.clone(), SyncTask { source, streams, ..prepared.task }))));
    }
    if errors.is_empty() {
        errors.push(usage("the sync no longer has this stream").detail(format!("{sync}/{stream}")));
    }
    Err(Failure(errors))
}
