//! A run as events of OpenLineage, for whoever collects them. They are written beside the run: that none can be delivered fails nothing.

mod deliver;
mod event;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use trib_core::TableName;
use trib_project::graph::GraphNode;
use trib_project::{DataTest, NodeKind};
use trib_store::{Status, Tested, Verdict};
use url::Url;

use crate::app::Session;
use crate::conduct::Ran;
use crate::exit::Result;
use crate::lineage::{KnownTable, Lineage};
use crate::site::type_name;
use crate::summary::Summary;
use crate::tables::logical;
use deliver::Delivery;
use event::{Dataset, JobRun, Kind, Place};

pub struct OpenLineage {
    namespace: String,
    project: String,
    run: String,
    delivery: Delivery,
    /// Traced when the first node has ended, and again when one has made tables that were not known then.
    traced: tokio::sync::Mutex<Option<Arc<Lineage>>>,
    /// What nodes have said of themselves when they began.
    jobs: Mutex<BTreeMap<String, Map<String, Value>>>,
}

impl OpenLineage {
    /// `None` where the project wants no events. Does no I/O.
    pub fn of(session: &Session, run: &str) -> Result<Option<Arc<Self>>> {
        let project = session.project()?;
        let Some(spec) = project.openlineage.as_ref().filter(|s| s.file.is_some() || s.url.is_some()) else { return Ok(None) };
        Ok(Some(Arc::new(Self {
            namespace: spec.namespace.clone().unwrap_or_else(|| project.name.clone()),
            project: project.name.clone(),
            run: run.to_owned(),
            delivery: Delivery::start(spec, &project.dir),
            traced: tokio::sync::Mutex::default(),
            jobs: Mutex::default(),
        })))
    }

    pub fn run_started(&self) {
        self.send(Kind::Start, &self.whole(), None, &[], &[]);
    }

    /// Says how the run has ended, and waits until what was said is delivered; `tell` is told when it cannot be.
    pub async fn run_ended(&self, summary: &Summary, tell: impl Fn(String)) {
        let kind = match summary.status() {
            Status::Succeeded => Kind::Complete,
            Status::Cancelled => Kind::Abort,
            _ => Kind::Fail,
        };
        self.send(kind, &self.whole(), summary.failures().next().map(AsRef::as_ref), &[], &[]);
        if let Some(said) = self.delivery.finish().await {
            tell(said);
        }
    }

    pub fn node_started(&self, session: &Session, node: &GraphNode) {
        let facets = facets(session, node);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(node.name.clone(), facets);
        self.send(Kind::Start, &self.part(&node.name, ""), None, &[], &[]);
    }

    /// A load has become visible.
    pub fn running(&self, sync: &str) {
        self.send(Kind::Running, &self.part(sync.split('@').next().unwrap_or(sync), ""), None, &[], &[]);
    }

    /// A node has ended: what it read and wrote, and what its tests have found, which is a job of its own.
    pub async fn node_ended(&self, session: &Session, node: &GraphNode, ran: &Ran) {
        let lineage = self.lineage(session, &node.name).await;
        let places = Places { session, lineage: &lineage };
        let made: Vec<&KnownTable> = lineage.tables.iter().filter(|t| t.is_made_by(&node.name)).collect();
        let reads: BTreeSet<&str> = made.iter().flat_map(|t| &t.reads).map(String::as_str).collect();
        let inputs: Vec<Dataset> = reads.iter().map(|name| places.dataset(name)).collect();
        let mut outputs: Vec<Dataset> = made.iter().map(|t| places.made(t)).collect();
        for (table, output) in made.iter().zip(&mut outputs) {
            let reports = ran.reports.iter().flat_map(|(_, report)| &report.streams);
            let outcomes = reports.flat_map(|s| &s.outcome.tables).filter(|o| is_of(session, table, &o.table));
            let counts: Vec<u64> = outcomes.map(|o| o.inserted + o.updated).collect();
            output.rows = (!counts.is_empty()).then(|| counts.iter().sum());
        }
        let error = ran.errors.first();
        let failed = ran.reports.iter().flat_map(|(_, report)| &report.streams).find_map(|s| s.error.as_deref());
        let kind = match error.or(failed).map(trib_core::Error::code) {
            Some(trib_core::Code::Cancelled) => Kind::Abort,
            Some(_) => Kind::Fail,
            None => Kind::Complete,
        };
        self.send(kind, &self.part(&node.name, ""), error.or(failed), &inputs, &outputs);
        self.tested(session, node, ran, &made, &places);
    }

    fn tested(&self, session: &Session, node: &GraphNode, ran: &Ran, made: &[&KnownTable], places: &Places<'_>) {
        if ran.tests.is_empty() {
            return;
        }
        let of = |table: &KnownTable| -> Vec<Tested> {
            let stream = table.stream.as_deref().unwrap_or_default();
            // A child table is tested by nobody.
            let is_root = table.stream.is_none() || table.declared.is_some();
            ran.tests.iter().filter(|t| is_root && t.stream == stream).cloned().collect()
        };
        let about = |table: &KnownTable| -> BTreeMap<String, Vec<String>> {
            let model = session.project().ok().and_then(|p| p.models().iter().find(|m| m.name == table.node).map(|m| m.tests.as_slice()));
            let tests: &[DataTest] = model.or(table.declared.as_ref().map(|d| d.tests.as_slice())).unwrap_or_default();
            tests.iter().map(|t| (t.name.clone(), t.expectation.columns().to_vec())).collect()
        };
        let dataset = |table: &&KnownTable| {
            let tested = of(table);
            (!tested.is_empty()).then(|| Dataset { tested, about: about(table), from: BTreeMap::new(), ..places.made(table) })
        };
        let inputs: Vec<Dataset> = made.iter().filter_map(dataset).collect();
        let mut part = self.part(&node.name, ".tests");
        part.job_facets = Map::from_iter([event::job_type("TEST")]);
        let failed = ran.tests.iter().any(|t| matches!(t.verdict, Verdict::Failed | Verdict::Broken));
        self.send(Kind::Start, &part, None, &[], &[]);
        self.send(if failed { Kind::Fail } else { Kind::Complete }, &part, None, &inputs, &[]);
    }

    /// What is known of columns. Scripts, and what reads them, are known once they have run.
    async fn lineage(&self, session: &Session, node: &str) -> Arc<Lineage> {
        let mut traced = self.traced.lock().await;
        match traced.as_ref().filter(|l| l.tables.iter().any(|t| t.is_made_by(node))) {
            Some(known) => known.clone(),
            None => {
                let found = Arc::new(Lineage::of(session).await.unwrap_or_default());
                *traced = Some(found.clone());
                found
            }
        }
    }

    fn whole(&self) -> JobRun {
        JobRun {
            namespace: self.namespace.clone(),
            job: self.project.clone(),
            run: uuid(&self.run, ""),
            parent: None,
            job_facets: Map::from_iter([event::job_type("RUN")]),
        }
    }

    fn part(&self, node: &str, suffix: &str) -> JobRun {
        JobRun {
            namespace: self.namespace.clone(),
            job: format!("{}.{node}{suffix}", self.project),
            run: uuid(&self.run, &format!("{node}{suffix}")),
            parent: Some((self.project.clone(), uuid(&self.run, ""))),
            job_facets: self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned().unwrap_or_default(),
        }
    }

    fn send(&self, kind: Kind, of: &JobRun, error: Option<&trib_core::Error>, inputs: &[Dataset], outputs: &[Dataset]) {
        self.delivery.send(event::event(kind, Utc::now(), of, error, inputs, outputs));
    }
}

/// What a node says of itself.
fn facets(session: &Session, node: &GraphNode) -> Map<String, Value> {
    let kind = match node.kind {
        NodeKind::Sync => "SYNC",
        NodeKind::Seed => "SEED",
        NodeKind::Model => "MODEL",
        NodeKind::Command => "COMMAND",
    };
    let mut facets = vec![event::job_type(kind)];
    let Ok(project) = session.project() else { return facets.into_iter().collect() };
    let (mut description, mut owner) = (None, None);
    if let Ok(model) = project.model(&node.name) {
        (description, owner) = (model.spec.description.as_deref(), model.spec.owner.as_deref());
        if model.is_script {
            let code = std::fs::read_to_string(project.dir.join(&*model.at.file));
            facets.extend(code.ok().map(|code| event::source_code("PYTHON", &code)));
        } else {
            facets.push(event::sql(model.sql.trim()));
        }
    } else if let Ok(sync) = project.sync(&node.name) {
        (description, owner) = (sync.spec.description.as_deref(), sync.spec.owner.as_deref());
    }
    facets.extend(description.map(event::documentation));
    facets.extend(owner.map(event::ownership));
    facets.into_iter().collect()
}

/// Whether a load's outcome is of this table.
fn is_of(session: &Session, table: &KnownTable, physical: &TableName) -> bool {
    session.project().is_ok_and(|p| logical(&p.environment, physical.clone()) == table.logical || *physical == table.logical)
}

/// A run's id in the form that the specification wants; the same for the same run.
fn uuid(run: &str, part: &str) -> String {
    let digest = Sha256::digest(format!("{run}/{part}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Tables and streams as datasets.
struct Places<'a> {
    session: &'a Session,
    lineage: &'a Lineage,
}

impl Places<'_> {
    /// One that the lineage names.
    fn dataset(&self, name: &str) -> Dataset {
        match self.lineage.tables.iter().find(|t| t.name == name) {
            Some(known) => Dataset { from: BTreeMap::new(), ..self.made(known) },
            None => plain(self.named(name), Vec::new()),
        }
    }

    fn made(&self, table: &KnownTable) -> Dataset {
        let place = self.table(table);
        let columns = table.columns.iter().map(|(name, t)| (name.clone(), type_name(t), None)).collect();
        let mut dataset = plain(place, columns);
        for edge in self.lineage.edges.iter().filter(|e| e.to.table == table.name) {
            let from = (self.named(&edge.from.table), edge.from.column.clone(), edge.how);
            dataset.from.entry(edge.to.column.clone()).or_default().push(from);
        }
        dataset.description = table.declared.as_ref().and_then(|d| d.description.clone());
        dataset
    }

    fn named(&self, name: &str) -> Place {
        if let Some(known) = self.lineage.tables.iter().find(|t| t.name == name) {
            return self.table(known);
        }
        match name.split_once(": ") {
            Some((connection, stream)) => self.place(connection, stream),
            // A seed's file.
            None => Place { namespace: "file".to_owned(), name: name.to_owned() },
        }
    }

    fn table(&self, table: &KnownTable) -> Place {
        if !table.delivered.is_empty() {
            // The API knows nothing of environments.
            return self.place(&table.connection, &table.logical.to_string());
        }
        let physical = self.session.project().map_or_else(|_| table.logical.clone(), |p| p.environment.physical(&table.logical));
        self.place(&table.connection, &physical.to_string())
    }

    /// By the specification's rules for names: a system's address, and what stands there.
    fn place(&self, connection: &str, what: &str) -> Place {
        let Ok((found, connector)) = self.session.connection(connection) else {
            return Place { namespace: connection.to_owned(), name: what.to_owned() };
        };
        let settings = found.settings_for(&connector.schema);
        let text = |key: &str| settings.get(key).and_then(Value::as_str);
        let address = text("url").or(text("path")).and_then(|text| Url::parse(text).ok());
        match (address.as_ref().and_then(|url| Some((url, url.host_str()?))), text("path")) {
            // Of an address nothing but the host is told, and of a database or bucket its name.
            (Some((url, host)), _) => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                let within = if url.scheme().starts_with("http") { "" } else { url.path().trim_matches('/') };
                let name = if within.is_empty() { what.to_owned() } else { format!("{within}.{what}") };
                Place { namespace: format!("{}://{host}{port}", url.scheme()), name }
            }
            (None, Some(path)) if address.is_none() => {
                let dir = self.session.project().map(|p| p.dir.join(path)).unwrap_or_default();
                Place { namespace: "file".to_owned(), name: format!("{}/{what}", dir.display()) }
            }
            _ => Place { namespace: format!("{}://{connection}", found.connector), name: what.to_owned() },
        }
    }
}

fn plain(place: Place, columns: Vec<(String, String, Option<String>)>) -> Dataset {
    Dataset { place, columns, description: None, from: BTreeMap::new(), rows: None, tested: Vec::new(), about: BTreeMap::new() }
}
