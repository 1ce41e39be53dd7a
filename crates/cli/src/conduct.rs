//! A run: the selected nodes in the order of the graph, side by side where none needs another's tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use trib_core::{Code, Error};
use trib_project::graph::GraphNode;
use trib_project::{Command, Graph, Model, NodeKind, Project, Seed, Selection, StreamPlan, Sync};
use trib_runtime::{Runtime, StreamTask, SyncReport, SyncTask, new_id, retry, run_sync};
use trib_store::{Pause, RunEnd, RunStart, Tested, Verdict};

use crate::app::{Session, holder};
use crate::assemble::{Ask, limits};
use crate::audit::{Auditor, Place};
use crate::exit::{Exit, Failure, Result};
use crate::models::{self, Computing};
use crate::observe::Watch;
use crate::openlineage::OpenLineage;
use crate::output;
use crate::preflight;
use crate::prepare::{self, Prepared, Wanted, admit};
use crate::program;
use crate::render;
use crate::summary::Summary;
use crate::testing::{Ground, Subject};
use crate::unfinished::Unfinished;

/// Nodes that run at the same time.
const SIDE_BY_SIDE: usize = 4;
/// How long a source may think before a person is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs what is selected, records the run, shows how it went, and gives the exit status. `command` is how the run was called.
pub async fn conduct(session: &Session, selection: &Selection, ask: &Ask, command: &str) -> Result<Exit> {
    let began = Instant::now();
    let graph = session.graph()?;
    preflight::preflight(session, graph, selection).await?;
    let store = session.store().await?.clone();
    let run = new_id();
    let lineage = OpenLineage::of(session, &run)?;
    let watch = Watch::telling(session.output, store.clone(), &run, lineage.clone());
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
    let paused = store.paused().await?;
    let conductor = Conductor { session, selection, ask, runtime, watch, lineage, writers: Mutex::default(), paused };
    if let Some(lineage) = &conductor.lineage {
        lineage.run_started();
    }
    let (mut summary, unfinished) = conductor.run(graph).await?;
    if let Some(lineage) = &conductor.lineage {
        lineage.run_ended(&summary, |said| conductor.watch.note("openlineage", None, &said)).await;
    }
    conductor.watch.finish().await;
    summary.took = began.elapsed();

    let error = summary.failures().next().map(|e| e.to_json());
    store.finish_run(&run, &RunEnd { status: summary.status(), error }).await?;
    unfinished.keep(&store).await?;
    session.remember_manifest().await?;
    session.output.either(|| summary.to_json(&run), || render::summary::text(&summary, &run, output::width()));
    Ok(summary.exit())
}

/// The project as it was run: a hash of all that its syncs and models say.
pub fn version(project: &Project) -> String {
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
    lineage: Option<Arc<OpenLineage>>,
    /// Streams that were let in so far: no two may write one table.
    writers: Mutex<Vec<StreamPlan>>,
    paused: Vec<Pause>,
}

/// How one node went.
#[derive(Default)]
pub struct Ran {
    pub reports: Vec<(Vec<StreamTask>, SyncReport)>,
    pub errors: Vec<Error>,
    pub tests: Vec<Tested>,
    /// There was nothing to store: the query is right, and that is all.
    pub view: bool,
    /// It was a command, and there is nothing to count.
    pub command: bool,
}

impl Ran {
    pub fn went_well(&self) -> bool {
        let failed = |t: &Tested| matches!(t.verdict, Verdict::Failed | Verdict::Broken);
        self.errors.is_empty() && self.reports.iter().all(|(_, report)| report.failed() == 0) && !self.tests.iter().any(failed)
    }

    fn failed(errors: Vec<Error>) -> Self {
        Self { errors, ..Self::default() }
    }
}

impl Conductor<'_> {
    async fn run(&self, graph: &Graph) -> Result<(Summary, Unfinished)> {
        let mut summary = Summary::default();
        let mut unfinished = Unfinished::of(&self.runtime.run);
        let mut waiting: Vec<&GraphNode> = Vec::new();
        for node in graph.order().into_iter().filter(|n| self.selection.contains(&n.name)) {
            match self.paused.iter().find(|p| p.node == node.name) {
                Some(pause) => summary.skipped.push((node.name.clone(), paused(pause))),
                None => waiting.push(node),
            }
        }
        let mut running = FuturesUnordered::new();
        let mut open: BTreeSet<&str> = waiting.iter().map(|n| n.name.as_str()).collect();
        let mut failed: BTreeSet<&str> = BTreeSet::new();
        loop {
            while running.len() < SIDE_BY_SIDE
                && let Some(at) = waiting.iter().position(|n| graph.parents(&n.name).all(|p| !open.contains(p)))
            {
                let node = waiting.remove(at);
                let broken = graph.parents(&node.name).find(|p| failed.contains(p)).map(str::to_owned);
                let reason = match broken {
                    Some(parent) => Some(format!("{parent} has failed, whose tables it reads")),
                    None => self.runtime.cancel.is_cancelled().then(|| "the run was stopped".to_owned()),
                };
                if let Some(reason) = reason {
                    summary.skipped.push((node.name.clone(), reason));
                    open.remove(node.name.as_str());
                    failed.insert(&node.name);
                    unfinished.node(&node.name);
                } else {
                    // Whatever waits, waits in here: the loop must go on asking the other nodes, which may hold what is waited for.
                    running.push(async move { (node, self.recorded(node).await) });
                }
            }
            let Some((node, ran)) = running.next().await else { break };
            open.remove(node.name.as_str());
            if !ran.went_well() {
                failed.insert(&node.name);
                self.note_unfinished(&mut unfinished, node, &ran);
            }
            summary.take(&node.name, ran);
        }
        if self.runtime.cancel.is_cancelled() && !summary.failures().any(|e| e.code() == Code::Cancelled) {
            summary.add_errors([stopped()]);
        }
        Ok((summary, unfinished))
    }

    /// Streams of a sync are run again one by one where it is known which of them failed.
    fn note_unfinished(&self, unfinished: &mut Unfinished, node: &GraphNode, ran: &Ran) {
        if node.kind != NodeKind::Sync || !ran.errors.is_empty() {
            return unfinished.node(&node.name);
        }
        for (_, report) in &ran.reports {
            for stream in report.streams.iter().filter(|s| s.error.is_some()) {
                unfinished.stream(&node.name, &stream.stream);
            }
        }
        for test in ran.tests.iter().filter(|t| matches!(t.verdict, Verdict::Failed | Verdict::Broken)) {
            unfinished.stream(&node.name, &test.stream);
        }
    }

    /// One node, and what its tests have found, in the control database.
    async fn recorded(&self, node: &GraphNode) -> Ran {
        if let Some(lineage) = &self.lineage {
            lineage.node_started(self.session, node);
        }
        let ran = self.one(node).await;
        if let Some(lineage) = &self.lineage {
            lineage.node_ended(self.session, node, &ran).await;
        }
        if let Err(e) = self.runtime.store.record_tests(&self.runtime.run, &ran.tests).await {
            self.watch.note(&node.name, None, &format!("what the tests have found could not be recorded: {e}"));
        }
        ran
    }

    async fn one(&self, node: &GraphNode) -> Ran {
        if !self.ask.columns.is_empty() && !matches!(node.kind, NodeKind::Sync) {
            let error = Error::new(Code::Unsupported, "only streams of a sync have columns that can be read again")
                .detail(&node.name)
                .setting("--columns")
                .hint("a model is computed again with `trib run --full-refresh`");
            return Ran::failed(vec![error]);
        }
        let project = match self.session.project() {
            Ok(project) => project,
            Err(failure) => return Ran::failed(failure.0),
        };
        let ran = match node.kind {
            NodeKind::Sync => match project.sync(&node.name) {
                Ok(sync) => return self.sync(sync).await,
                Err(e) => Err(e.into()),
            },
            NodeKind::Model => match project.model(&node.name) {
                Ok(model) => self.model(model).await,
                Err(e) => Err(e.into()),
            },
            NodeKind::Seed => match project.seeds().iter().find(|s| s.name == node.name) {
                Some(seed) => self.seed(seed).await,
                None => Err(Error::internal("a seed of the graph is not in the project").into()),
            },
            NodeKind::Command => match project.commands().iter().find(|c| c.name == node.name) {
                Some(command) => self.command(command).await,
                None => Err(Error::internal("a command of the graph is not in the project").into()),
            },
        };
        ran.unwrap_or_else(|failure| Ran::failed(failure.0))
    }

    /// One model: checked, made, tested.
    async fn model(&self, model: &Model) -> Result<Ran> {
        let subject = Subject::new(&model.name, "", &model.table, &model.tests).recalled(&self.runtime.store).await?;
        let computing = if model.is_script { self.script(model).await? } else { Computing::of(self.session, model).await? };
        models::make_view(self.session, model, &computing).await?;
        let Some(mut task) = models::model(self.session, model, computing, self.ask).await? else {
            let tests = subject.ask(&self.ground(&model.spec.connection).await?).await;
            return Ok(Ran { tests, view: true, ..Ran::default() });
        };
        let audits = self.audit(&mut task, &model.spec.connection, &[subject]).await?;
        self.load(task, &model.spec.connection, audits).await
    }

    /// A script is stopped with the run.
    async fn script(&self, model: &Model) -> Result<Computing> {
        model.ready()?;
        let said = |line: String| self.watch.note(&model.name, None, &line);
        let queries = models::queries(self.session, model).await?;
        tokio::select! {
            made = models::script(self.session, model, &queries, said) => Ok(Computing::Script(Arc::new(made?))),
            () = self.runtime.cancel.cancelled() => Err(stopped().into()),
        }
    }

    /// A command is stopped with the run.
    async fn command(&self, command: &Command) -> Result<Ran> {
        let said = |line: String| self.watch.note(&command.name, None, &line);
        said(program::shown(command));
        tokio::select! {
            ended = program::run(self.session, command, &self.runtime.run, said) => ended?,
            () = self.runtime.cancel.cancelled() => return Err(stopped().into()),
        }
        Ok(Ran { command: true, ..Ran::default() })
    }

    async fn seed(&self, seed: &Seed) -> Result<Ran> {
        let task = models::seed(self.session, seed).await?;
        self.load(task, &seed.connection, Vec::new()).await
    }

    /// One sync, source by source: the first one makes the tables that the others share.
    async fn sync(&self, sync: &Sync) -> Ran {
        let mut ran = Ran::default();
        let wanted = Wanted { selection: self.selection, ask: self.ask, paused: &self.paused };
        let Some(prepared) = self.prepared(sync, &wanted).await else { return Ran::failed(vec![stopped()]) };
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
            let loaded = match self.sync_audits(sync, &one.plans, &mut one.task).await {
                Ok(audits) => self.load(one.task, &sync.spec.to, audits).await,
                Err(failure) => Err(failure),
            };
            match loaded {
                Ok(mut more) => {
                    ran.reports.append(&mut more.reports);
                    ran.errors.append(&mut more.errors);
                    ran.tests.append(&mut more.tests);
                }
                Err(failure) => ran.errors.extend(failure.0),
            }
        }
        ran
    }

    /// The sync's sources, asked what they offer: again where waiting may help. `None`: the run was stopped.
    async fn prepared(&self, sync: &Sync, wanted: &Wanted<'_>) -> Option<Vec<Result<Prepared>>> {
        let limits = limits(&sync.spec, None, usize::MAX);
        let mut attempt = 1;
        loop {
            let preparing = prepare::sync(self.session, sync, wanted);
            tokio::pin!(preparing);
            let prepared = loop {
                tokio::select! {
                    prepared = &mut preparing => break prepared,
                    () = tokio::time::sleep(PATIENCE) => self.watch.note(&sync.name, None, "still asking the source what it offers"),
                    () = self.runtime.cancel.cancelled() => return None,
                }
            };
            let failed = prepared.iter().find_map(|one| match one {
                Err(Failure(errors)) => errors.iter().find_map(|e| retry::pause(e, attempt, &limits).map(|pause| (e, pause))),
                Ok(_) => None,
            });
            let Some((error, pause)) = failed else { return Some(prepared) };
            let told = format!("{error}; attempt {attempt} of {}, next in {} s", limits.attempts, pause.as_secs());
            self.watch.note(&sync.name, None, &told);
            tokio::select! {
                () = tokio::time::sleep(pause) => attempt += 1,
                () = self.runtime.cancel.cancelled() => return None,
            }
        }
    }

    async fn sync_audits(&self, sync: &Sync, plans: &[StreamPlan], task: &mut SyncTask) -> Result<Vec<Audited>> {
        let mut subjects = Vec::new();
        for plan in plans.iter().filter(|p| !p.tests.is_empty()) {
            subjects.push(Subject::new(&sync.name, &plan.stream, &plan.logical, &plan.tests).recalled(&self.runtime.store).await?);
        }
        self.audit(task, &sync.spec.to, &subjects).await
    }

    /// Gives each stream with blocking tests its audit.
    async fn audit(&self, task: &mut SyncTask, connection: &str, subjects: &[Subject]) -> Result<Vec<Audited>> {
        let mut audits = Vec::new();
        for subject in subjects {
            let stream = if subject.stream.is_empty() { &subject.node } else { &subject.stream };
            let Some(stream) = task.streams.iter_mut().find(|s| s.spec.stream == *stream) else { continue };
            let (blocking, rest) = (subject.only(|t| t.blocking), subject.only(|t| !t.blocking));
            let place = match (self.session.native(connection)?, self.session.queries(connection).await?) {
                (Some(native), Some(queries)) => Place::Lake(native, queries),
                _ => Place::Inside(task.destination.clone(), self.session.project()?.environment.clone()),
            };
            let auditor = Arc::new(Auditor::new(blocking.clone(), place));
            if !blocking.tests.is_empty() {
                stream.audit = Some(auditor.clone());
            }
            audits.push(Audited { stream: stream.spec.stream.clone(), auditor, blocking, rest });
        }
        Ok(audits)
    }

    /// Loads, then asks the tests that look at what is published: those that do not block, and those that had no staged rows to look at.
    async fn load(&self, task: SyncTask, connection: &str, audits: Vec<Audited>) -> Result<Ran> {
        let asked = task.streams.clone();
        let report = run_sync(&self.runtime, task).await?;
        let mut ran = Ran::default();
        for audited in audits {
            let well = report.streams.iter().any(|s| s.stream == audited.stream && s.error.is_none());
            let mut after = vec![&audited.rest];
            match audited.auditor.found() {
                Some(found) => ran.tests.extend(found),
                None => after.push(&audited.blocking),
            }
            for subject in after.into_iter().filter(|s| well && !s.tests.is_empty()) {
                ran.tests.extend(subject.ask(&self.ground(connection).await?).await);
            }
        }
        ran.reports.push((asked, report));
        Ok(ran)
    }

    async fn ground(&self, connection: &str) -> Result<Ground> {
        ground(self.session, connection).await
    }
}

/// One stream's tests.
struct Audited {
    stream: String,
    auditor: Arc<Auditor>,
    blocking: Subject,
    rest: Subject,
}

/// Who answers queries about the tables of a connection.
pub async fn ground(session: &Session, connection: &str) -> Result<Ground> {
    Ok(match session.queries(connection).await? {
        Some(queries) => Ground::Engine(queries),
        None => Ground::Inside(session.destination(connection)?, session.project()?.environment.clone()),
    })
}

fn paused(pause: &Pause) -> String {
    let reason = pause.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    format!("paused by {}{reason}", pause.by)
}

fn stopped() -> Error {
    Error::new(Code::Cancelled, "the run was stopped").hint("what was published stays; the next run goes on from there")
}
