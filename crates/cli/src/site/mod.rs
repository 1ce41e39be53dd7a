//! The project as a folder of pages: tables, columns, tests with what they have found, lineage, runs. Nothing of it needs a network, and no
//! row of a table is on it.

pub mod graph;
pub mod pages;
mod tables;

pub use tables::{key, type_name};

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use trib_core::{Code, Error};
use trib_store::{Run, RunStream, Status};

use crate::app::Session;
use crate::commands::runs::sentence;
use crate::conduct::version;
use crate::exit::Result;
use crate::lineage::Lineage;
use crate::render::amount::{count, duration};
use crate::render::name::node;
use pages::{Bar, Card, Head, Index, Pages, Runs, TablePage, Tests};
use tables::TableView;

/// Runs that are shown.
const RUNS: u32 = 60;
/// Runs that have a bar.
const BARS: usize = 40;

const CSS: &str = include_str!("site.css");
const JS: &str = include_str!("site.js");

/// All that the pages show.
pub struct Site {
    project: String,
    description: Option<String>,
    environment: String,
    version: String,
    made: String,
    tables: Vec<TableView>,
    runs: Vec<RunView>,
    /// What could not be described, and why.
    pub notes: Vec<String>,
}

/// One stream in a run, or a run.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    pub id: String,
    pub status: &'static str,
    pub status_text: String,
    pub at: String,
    pub took: String,
    seconds: f64,
    pub command: String,
    pub error: Option<String>,
    pub streams: Vec<StreamView>,
}

#[derive(Clone, Debug, Serialize)]
pub struct StreamView {
    pub name: String,
    pub run: String,
    pub sync: String,
    pub stream: String,
    pub status: &'static str,
    pub status_text: String,
    pub at: String,
    pub took: String,
    /// Read, new, updated, deleted, rejected.
    pub counts: [String; 5],
    pub changes: Vec<String>,
    pub error: Option<String>,
}

impl Site {
    /// Asks sources and destinations for columns, and the control database for what has run.
    pub async fn of(session: &Session) -> Result<Self> {
        let project = session.project()?;
        let store = session.store().await?;
        let mut runs = Vec::new();
        for run in store.runs(RUNS).await? {
            let streams = store.run_streams(&run.id).await?;
            runs.push(run_view(&run, &streams));
        }
        let lineage = Lineage::of(session).await?;
        let tables = tables::views(session, &lineage, &store.last_tests().await?, &runs).await?;
        Ok(Self {
            project: project.name.clone(),
            description: project.description.clone(),
            environment: project.environment.name.clone(),
            version: version(project),
            made: stamp(Utc::now()),
            tables,
            runs,
            notes: lineage.unknown.iter().map(ToString::to_string).collect(),
        })
    }

    /// Writes the pages into a folder, in the place of those of an earlier time. Gives how many there are.
    pub fn write(&self, folder: &Path) -> Result<usize> {
        let pages = folder.join("tables");
        if pages.exists() {
            // Pages of tables that are no more; nobody else's files are below a folder that has our mark.
            if !folder.join("site.css").is_file() {
                let error = Error::new(Code::UsageInvalid, "the folder holds something else").detail(folder.display().to_string());
                return Err(error.hint("name a folder of its own with `--out`").into());
            }
            std::fs::remove_dir_all(&pages)?;
        }
        std::fs::create_dir_all(&pages)?;
        std::fs::write(folder.join("site.css"), CSS)?;
        std::fs::write(folder.join("site.js"), format!("const SITE = {};\n{JS}", self.index()))?;
        let fill = Pages::new()?;
        let tested: Vec<&TableView> = self.tables.iter().filter(|t| !t.tests.is_empty()).collect();
        let index = Index {
            project: &self.project,
            description: self.description.as_deref(),
            cards: self.cards(),
            bars: self.bars(),
            drawing: tables::drawing(&self.tables, None).svg(&fill)?,
            tables: &self.tables,
            notes: &self.notes,
        };
        let page = fill.page(&self.head("index", ""), "Overview", "index.html", &index)?;
        std::fs::write(folder.join("index.html"), page)?;
        let page = fill.page(&self.head("tests", ""), "Tests", "tests.html", &Tests { tables: tested })?;
        std::fs::write(folder.join("tests.html"), page)?;
        let page = fill.page(&self.head("runs", ""), "Runs", "runs.html", &Runs { runs: &self.runs })?;
        std::fs::write(folder.join("runs.html"), page)?;
        for table in &self.tables {
            let drawing = tables::drawing(&self.tables, Some(&table.name)).svg(&fill)?;
            let page = fill.page(&self.head("", "../"), &table.name, "table.html", &TablePage { table, drawing })?;
            std::fs::write(folder.join(&table.file), page)?;
        }
        Ok(self.tables.len() + 3)
    }

    fn head(&self, active: &'static str, root: &'static str) -> Head<'_> {
        Head { project: &self.project, environment: &self.environment, version: &self.version, made: &self.made, active, root }
    }

    /// What the search field looks through: name, page and columns of each table.
    fn index(&self) -> String {
        let one = |t: &TableView| serde_json::json!([t.name, t.file, t.columns.iter().map(|c| &c.name).collect::<Vec<_>>()]);
        serde_json::Value::Array(self.tables.iter().map(one).collect()).to_string()
    }

    fn cards(&self) -> Vec<Card> {
        let columns: usize = self.tables.iter().map(|t| t.columns.len()).sum();
        let mut tests: BTreeMap<&str, usize> = BTreeMap::new();
        for test in self.tables.iter().flat_map(|t| &t.tests) {
            *tests.entry(test.status).or_default() += 1;
        }
        let of = |status: &str| tests.get(status).copied().unwrap_or_default();
        let (all, wrong) = (tests.values().sum::<usize>(), of("failed") + of("broken"));
        let mut cards = vec![
            Card { label: "tables", value: self.tables.len().to_string(), href: "#tables", tone: "" },
            Card { label: "columns", value: count(columns as u64), href: "#tables", tone: "" },
        ];
        if all > 0 {
            let tone = if wrong > 0 { "bad" } else { "good" };
            cards.push(Card { label: "tests passed", value: format!("{} / {all}", of("passed")), href: "tests.html", tone });
        }
        if let Some(last) = self.runs.first() {
            let tone = if last.status == Status::Succeeded.as_str() { "good" } else { "bad" };
            cards.push(Card { label: "last run", value: last.status_text.clone(), href: "runs.html", tone });
        }
        cards
    }

    /// Oldest first; the longest run's bar is the highest.
    fn bars(&self) -> Vec<Bar> {
        let shown = || self.runs.iter().take(BARS);
        let longest = shown().map(|r| r.seconds).fold(0.001, f64::max);
        let bar = |run: &RunView| Bar {
            run: run.id.clone(),
            status: run.status,
            // The root shows short runs beside long ones.
            percent: (100.0 * (run.seconds / longest).sqrt()).clamp(6.0, 100.0) as u32,
            title: format!("{}: {}, {}", run.at, run.status_text, run.took),
        };
        let mut bars: Vec<Bar> = shown().map(bar).collect();
        bars.reverse();
        bars
    }
}

fn run_view(run: &Run, streams: &[RunStream]) -> RunView {
    let seconds = seconds(run.started_at, run.finished_at);
    RunView {
        id: run.id.clone(),
        status: run.status.as_str(),
        status_text: run.status.as_str().replace('_', " "),
        at: stamp(run.started_at),
        took: took(seconds),
        seconds: seconds.unwrap_or_default(),
        command: run.command.clone(),
        error: run.error.as_ref().map(sentence),
        streams: streams.iter().map(|s| stream_view(&run.id, s)).collect(),
    }
}

fn stream_view(run: &str, stream: &RunStream) -> StreamView {
    let counts = &stream.counts;
    StreamView {
        name: node(&stream.sync, &stream.stream),
        run: run.to_owned(),
        sync: stream.sync.clone(),
        stream: stream.stream.clone(),
        status: stream.status.as_str(),
        status_text: stream.status.as_str().replace('_', " "),
        at: stamp(stream.started_at),
        took: took(seconds(stream.started_at, stream.finished_at)),
        counts: [counts.read, counts.written, counts.updated, counts.deleted, counts.rejected].map(count),
        changes: stream.schema_changes.clone(),
        error: stream.error.as_ref().map(sentence),
    }
}

fn seconds(from: DateTime<Utc>, to: Option<DateTime<Utc>>) -> Option<f64> {
    Some((to? - from).to_std().ok()?.as_secs_f64())
}

fn took(seconds: Option<f64>) -> String {
    seconds.map(|s| duration(std::time::Duration::from_secs_f64(s))).unwrap_or_default()
}

/// For people and for the page's script, which shows how long ago that is.
fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
