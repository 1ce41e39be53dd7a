//! A run: the selected syncs in the order of the graph, side by side where none needs another's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use trib_core::{Code, Error};
use trib_project::{Graph, NodeKind, Project, Selection, StreamPlan, Sync};
use trib_runtime::{Runtime, StreamTask, SyncReport, new_id, run_sync};
use trib_store::{Pause, RunEnd, RunStart};

use crate::app::{Session, holder};
use crate::assemble::Ask;
use crate::exit::{Exit, Result};
use crate::observe::Watch;
use crate::output;
use crate::prepare::{self, Wanted, admit};
use crate::render;
use crate::summary::Summary;

/// Syncs that run at the same time.
const SIDE_BY_SIDE: usize = 4;
/// How long a source may think before a person is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs what is selected, records the run, shows how it went, and gives the exit status. `command` is how the run was called.
pub async fn conduct(session: &Session, selection: &Selection, ask: &Ask, command: &str) -> Result<Exit> {
    let began = Instant::now();
    let store = session.store().await?.clone();
    let run = new_id();
    let watch = Watch::new(session.output, store.clone(), &run);
    let runtime = session.runtime(&run, watch.clone(), session.stop_on_signal()).await?;
    store
        .start_run(&RunStart {
            id: run.clone(),
            command: command.to_owned(),
            selection: selection.nodes.keys().cloned().collect(),
            project_version: Some(version(session.project()?)),
            job: None,
            holder: holder(),
        })
        .await?;
    let conductor = Conductor { session, selection, ask, runtime, watch, writers: Mutex::default(), paused: store.paused().await? };
    let mut summary = conductor.run().await?;
    conductor.watch.finish().await;
    summary.took = began.elapsed();

    let error = summary.failures().next().map(|e| e.to_json());
    store.finish_run(&run, &RunEnd { status: summary.status(), error }).await?;
    session.remember_manifest().await?;
    session.output.either(|| summary.to_json(&run), || render::summary::text(&summary, &run, output::width()));
    Ok(summary.exit())
}

/// The project as it was run: a hash of all that its syncs and models say.
fn version(project: &Project) -> String {
    let mut digest = Sha256::new();
    for (name, hash) in project.manifest() {
        digest.update(format!("{name} {hash}\n"));
    }
    hex::encode(&digest.finalize()[..6])
}

struct Conductor<'a> {
    session: &'a Session,
    selection: &'a Selection,
    ask: &'a Ask,
    runtime: Runtime,
    watch: Arc<Watch>,
    /// Streams that were let in so far: no two may write one table.
    writers: Mutex<Vec<StreamPlan>>,
    paused: Vec<Pause>,
}

/// How one sync went.
#[derive(Default)]
struct Ran {
    reports: Vec<(Vec<StreamTask>, SyncReport)>,
    errors: Vec<Error>,
}

impl Ran {
    fn went_well(&self) -> bool {
        self.errors.is_empty() && self.reports.iter().all(|(_, report)| report.failed() == 0)
    }
}

impl Conductor<'_> {
    async fn run(&self) -> Result<Summary> {
        let project = self.session.project()?;
        let graph = Graph::of(project);
        let mut summary = Summary::default();
        let mut waiting: Vec<&Sync> = Vec::new();
        for node in graph.order().into_iter().filter(|n| self.selection.contains(&n.name)) {
            match (self.paused.iter().find(|p| p.node == node.name), node.kind) {
                (Some(pause), _) => summary.skipped.push((node.name.clone(), paused(pause))),
                (None, NodeKind::Model) => summary.skipped.push((node.name.clone(), "this version does not run models yet".to_owned())),
                (None, NodeKind::Sync) => waiting.push(project.sync(&node.name)?),
            }
        }
        let mut running = FuturesUnordered::new();
        let mut open: BTreeSet<&str> = waiting.iter().map(|s| s.name.as_str()).collect();
        let mut failed: BTreeMap<&str, &str> = BTreeMap::new();
        loop {
            while running.len() < SIDE_BY_SIDE
                && let Some(at) = waiting.iter().position(|s| graph.parents(&s.name).all(|p| !open.contains(p)))
            {
                let sync = waiting.remove(at);
                let broken = graph.parents(&sync.name).find(|p| failed.contains_key(p)).map(str::to_owned);
                if let Some(parent) = broken {
                    summary.skipped.push((sync.name.clone(), format!("{parent} has failed, whose tables it reads")));
                    open.remove(sync.name.as_str());
                    failed.insert(&sync.name, "left out");
                } else if self.runtime.cancel.is_cancelled() {
                    summary.skipped.push((sync.name.clone(), "the run was stopped".to_owned()));
                    open.remove(sync.name.as_str());
                } else {
                    running.push(async move { (sync, self.one(sync).await) });
                }
            }
            let Some((sync, ran)) = running.next().await else { break };
            open.remove(sync.name.as_str());
            if !ran.went_well() {
                failed.insert(&sync.name, "failed");
            }
            summary.add_errors(ran.errors);
            for (asked, report) in ran.reports {
                summary.add(&asked, report);
            }
        }
        if self.runtime.cancel.is_cancelled() && !summary.failures().any(|e| e.code() == Code::Cancelled) {
            summary.add_errors([stopped()]);
        }
        Ok(summary)
    }

    /// One sync, source by source: the first one makes the tables that the others share.
    async fn one(&self, sync: &Sync) -> Ran {
        let mut ran = Ran::default();
        let wanted = Wanted { selection: self.selection, ask: self.ask, paused: &self.paused };
        let preparing = prepare::sync(self.session, sync, &wanted);
        tokio::pin!(preparing);
        let prepared = loop {
            tokio::select! {
                prepared = &mut preparing => break prepared,
                () = tokio::time::sleep(PATIENCE) => self.watch.note(&sync.name, None, "still asking the source what it offers"),
                () = self.runtime.cancel.cancelled() => {
                    ran.errors.push(stopped());
                    return ran;
                }
            }
        };
        for one in prepared {
            let mut one = match one {
                Ok(one) => one,
                Err(failure) => {
                    ran.errors.extend(failure.0);
                    continue;
                }
            };
            admit(&mut one, &mut *self.writers.lock().await);
            for note in &one.notes {
                self.watch.note(&one.task.sync, None, note);
            }
            ran.errors.append(&mut one.errors);
            if one.task.streams.is_empty() {
                continue;
            }
            let asked = one.task.streams.clone();
            match run_sync(&self.runtime, one.task).await {
                Ok(report) => ran.reports.push((asked, report)),
                Err(e) => ran.errors.push(e),
            }
        }
        ran
    }
}

fn paused(pause: &Pause) -> String {
    let reason = pause.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    format!("paused by {}{reason}", pause.by)
}

fn stopped() -> Error {
    Error::new(Code::Cancelled, "the run was stopped").hint("what was published stays; the next run goes on from there")
}
