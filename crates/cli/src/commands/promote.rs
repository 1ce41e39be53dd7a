//! `trib promote`

use std::sync::Arc;

use serde_json::json;
use trib_core::{Error, Outcome};
use trib_runtime::{NoObserver, Promotion, Runtime, new_id, promote};
use trib_store::{Counts, RunEnd, RunStart, Status, StreamEnd};

use crate::app::{Session, holder, usage};
use crate::args::Select;
use crate::commands::run::permit;
use crate::conduct::version;
use crate::exit::{Exit, Result};
use crate::models::{self, Computing};
use crate::promotion::{Decided, Sides};
use crate::render::amount;

/// Give another environment the tables of models and seeds that this one has made: nothing is computed again
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib promote --from dev --to prod")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// The environment that has made the tables; left out, that of the call
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// The environment that gets them
    #[arg(long, value_name = "NAME")]
    to: String,
    /// Only say what would be promoted
    #[arg(long)]
    dry_run: bool,
    /// Take rows, too, that were made from other data than the environment has, or from older
    #[arg(long)]
    allow_other_data: bool,
    /// Do not ask, in protected environments
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let to = session.in_environment(&args.to);
    let named = args.from.as_ref().map(|name| session.in_environment(name));
    let from = named.as_ref().unwrap_or(session);
    let names = [from.project()?.environment.name.as_str(), to.project()?.environment.name.as_str()];
    if names[0] == names[1] {
        return Err(usage("an environment cannot be promoted to itself").detail(names[0]).hint("`--from dev --to prod`").into());
    }
    let selection = to.select(&args.select).await?;
    let sides = Sides { from, to: &to, allow_other_data: args.allow_other_data };
    let decided = sides.decide(&selection).await?;
    let count: usize = decided.promotions.values().map(Vec::len).sum();
    if args.dry_run || count + decided.views.len() == 0 {
        if !args.dry_run {
            to.remember(&decided.same).await?;
        }
        told(session, names, &decided, None);
        return Ok(Exit::Success);
    }
    permit(&to, "replace its tables", args.yes)?;
    let promoted = Recorded { sides, decided: &decided, names, run: new_id() }.run().await?;
    told(session, names, &decided, Some(&promoted));
    Ok(Exit::Success)
}

/// What became of each table, in the order of the promotions.
struct Promoted {
    run: String,
    outcomes: Vec<Outcome>,
}

struct Recorded<'a> {
    sides: Sides<'a>,
    decided: &'a Decided,
    names: [&'a str; 2],
    run: String,
}

impl Recorded<'_> {
    async fn run(self) -> Result<Promoted> {
        let to = self.sides.to;
        let store = to.store().await?.clone();
        store
            .start_run(&RunStart {
                id: self.run.clone(),
                command: format!("trib promote --from {} --to {}", self.names[0], self.names[1]),
                selection: self.decided.promotions.values().flatten().map(|p| p.name.clone()).chain(self.decided.views.clone()).collect(),
                project_version: Some(version(to.project()?)),
                job: None,
                holder: holder(),
            })
            .await?;
        let result = self.promote().await;
        let error = result.as_ref().err().and_then(|failure| failure.0.first()).map(Error::to_json);
        let status = if error.is_none() { Status::Succeeded } else { Status::Failed };
        store.finish_run(&self.run, &RunEnd { status, error }).await?;
        Ok(Promoted { outcomes: result?, run: self.run })
    }

    async fn promote(&self) -> Result<Vec<Outcome>> {
        let Sides { from, to, .. } = self.sides;
        let cancel = to.stop_on_signal();
        let runtime = to.runtime(&self.run, Arc::new(NoObserver), cancel.clone()).await?;
        let source = Runtime { store: from.store().await?.clone(), ..runtime.clone() };
        let mut outcomes = Vec::new();
        for (connection, promotions) in &self.decided.promotions {
            let done = promote(&runtime, &source, &to.destination(connection)?, promotions).await.map_err(|e| e.connection(connection))?;
            for (one, outcome) in promotions.iter().zip(&done) {
                self.record(&runtime, one, outcome).await?;
            }
            outcomes.extend(done);
        }
        for name in &self.decided.views {
            let model = to.project()?.model(name)?;
            models::make_view(to, model, &Computing::of(to, model).await?).await?;
        }
        let promoted = self.decided.promotions.values().flatten().map(|p| p.name.clone());
        let all: Vec<String> = promoted.chain(self.decided.views.clone()).chain(self.decided.same.clone()).collect();
        to.remember(&all).await?;
        Ok(outcomes)
    }

    async fn record(&self, runtime: &Runtime, one: &Promotion, outcome: &Outcome) -> Result<()> {
        let written = outcome.tables.iter().map(|t| t.inserted).sum();
        runtime.store.stream_progress(&self.run, &one.name, &one.scope, &Counts::default()).await?;
        let counts = Counts { written, ..Counts::default() };
        let (status, to_state) = (Status::Succeeded, Some(one.state.clone()));
        let end = StreamEnd { status, counts, from_state: None, to_state, schema_changes: Vec::new(), error: None };
        Ok(runtime.store.finish_stream(&self.run, &one.name, &one.scope, &end).await?)
    }
}

fn told(session: &Session, [from, to]: [&str; 2], decided: &Decided, promoted: Option<&Promoted>) {
    let rows = |at: usize| promoted.and_then(|p| p.outcomes.get(at)).map(|o| o.tables.iter().map(|t| t.inserted).sum::<u64>());
    let tables = || decided.promotions.values().flatten().enumerate();
    let one = |(at, p): (usize, &Promotion)| json!({"name": p.name, "from": p.tables[0].to_string(), "to": p.tables[1].to_string(), "rows": rows(at)});
    let value = || {
        json!({
            "from": from, "to": to, "run": promoted.map(|p| &p.run), "promoted": tables().map(one).collect::<Vec<_>>(),
            "views": decided.views, "same": decided.same, "notes": decided.notes,
        })
    };
    let text = || {
        let mut lines = Vec::new();
        for (at, p) in tables() {
            let rows = rows(at).map(|rows| format!("  {}", amount::rows(rows))).unwrap_or_default();
            lines.push(format!("{}  {} → {}{rows}", p.name, p.tables[0], p.tables[1]));
        }
        lines.extend(decided.views.iter().map(|name| format!("{name}  view")));
        let what = match (lines.is_empty(), promoted.is_some()) {
            (true, _) => format!("nothing to promote: {to} has what the project's files say"),
            (false, true) => format!("promoted from {from} to {to}"),
            (false, false) => format!("would be promoted from {from} to {to}"),
        };
        lines.insert(0, what);
        lines.extend(decided.notes.iter().map(|note| format!("note: {note}")));
        lines.join("\n")
    };
    session.output.either(value, text);
}
