//! `trib run`

use trib_core::Code;
use trib_project::Selection;
use trib_store::Status;

use crate::app::{Session, holder, usage};
use crate::args::Select;
use crate::assemble::Ask;
use crate::conduct::conduct;
use crate::exit::{Exit, Result};
use crate::output::{confirm, is_interactive};
use crate::unfinished::Unfinished;

/// Do it: load what the selected syncs say from where the last run has ended, make the models, ask the tests
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib run shop 'events/*' --exclude tag:slow")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// Read everything from the very beginning and replace the tables
    #[arg(long)]
    full_refresh: bool,
    /// Sources that are suddenly empty may empty their tables
    #[arg(long)]
    allow_empty: bool,
    /// Let what a guard held in this run go ahead
    #[arg(long, value_name = "RUN")]
    approve: Option<String>,
    /// What failed in the last run, and what was left out because of that
    #[arg(long, conflicts_with_all = ["select", "exclude"])]
    retry_failed: bool,
    /// Of a delivery: send the one record with this key
    #[arg(long, value_name = "KEY", conflicts_with = "retry_failed")]
    row: Option<String>,
    /// Do not ask, in protected environments
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let selection = if args.retry_failed { unfinished(session).await? } else { session.select(&args.select).await? };
    if selection.nodes.is_empty() && !args.retry_failed {
        session.output.note("there is nothing to run: `trib discover CONNECTION --write` proposes a sync");
    }
    if args.row.is_some() {
        one_delivery(session, &selection)?;
    }
    if args.full_refresh {
        permit(session, "load everything again", args.yes)?;
    }
    let approved = match &args.approve {
        Some(run) => approve(session, run).await?,
        None => Vec::new(),
    };
    let (full_refresh, allow_empty, row) = (args.full_refresh, args.allow_empty, args.row.clone());
    let ask = Ask { full_refresh, allow_empty, approved, row, ..Ask::default() };
    conduct(session, &selection, &ask, &called(args)).await
}

/// What the last run has left undone; what was switched off or taken away since then is not part of it.
async fn unfinished(session: &Session) -> Result<Selection> {
    let Some(last) = Unfinished::last(session.store().await?).await? else {
        return Err(usage("there is no earlier run").hint("`trib run` makes one").into());
    };
    let mut selection = last.selection();
    let all = session.select(&Select::default()).await?;
    selection.nodes.retain(|name, _| all.contains(name));
    if selection.nodes.is_empty() {
        session.output.note(format!("nothing was left undone by run {}", last.run));
    }
    Ok(selection)
}

/// Only what goes to an API is told apart by records.
fn one_delivery(session: &Session, selection: &Selection) -> Result<()> {
    let project = session.project()?;
    for name in selection.nodes.keys() {
        let sync = project.syncs().iter().find(|s| s.name == *name);
        if sync.is_none_or(|s| session.destination(&s.spec.to).is_ok_and(|d| d.deliveries().is_none())) {
            return Err(usage("only a delivery has records to choose by key").detail(name).hint("leave `--row` out").into());
        }
    }
    Ok(())
}

/// In a protected environment a person has to say yes.
pub fn permit(session: &Session, what: &str, yes: bool) -> Result<()> {
    let environment = &session.project()?.environment;
    if !environment.protected || yes {
        return Ok(());
    }
    if is_interactive() && confirm(&format!("{} is protected: {what}?", environment.name)) {
        return Ok(());
    }
    let error = trib_core::Error::new(Code::Held, "the environment is protected, and nobody has said yes");
    Err(error.detail(format!("{}: {what}", environment.name)).hint("say `--yes`").into())
}

/// The streams that were held in a run, as (sync, stream).
async fn approve(session: &Session, run: &str) -> Result<Vec<(String, String)>> {
    let store = session.store().await?;
    store.approve(run, &holder()).await?;
    let held = store.run_streams(run).await?.into_iter().filter(|s| s.status == Status::Held);
    // A run knows each source of a sync that has several as a sync of its own.
    let held: Vec<_> = held.map(|s| (s.sync.split('@').next().unwrap_or_default().to_owned(), s.stream)).collect();
    if held.is_empty() {
        return Err(usage("nothing was held in this run").detail(run).hint("`trib runs` shows which run is held").into());
    }
    Ok(held)
}

fn called(args: &Args) -> String {
    let mut words = vec!["trib run".to_owned()];
    words.extend(args.select.select.iter().cloned());
    words.extend(args.select.exclude.iter().map(|e| format!("--exclude {e}")));
    words.extend(args.full_refresh.then(|| "--full-refresh".to_owned()));
    words.extend(args.allow_empty.then(|| "--allow-empty".to_owned()));
    words.extend(args.retry_failed.then(|| "--retry-failed".to_owned()));
    words.extend(args.row.iter().map(|row| format!("--row {row}")));
    words.extend(args.approve.iter().map(|run| format!("--approve {run}")));
    words.join(" ")
}
