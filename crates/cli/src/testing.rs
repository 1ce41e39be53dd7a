//! Asking data tests, wherever the tested table lies.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use serde_json::Value;
use trib_core::{BatchStream, Code, Destination, Error, Result, TableName};
use trib_engine::Queries;
use trib_engine::check::{Failing, count};
use trib_project::data_test::{DataTest, Severity, quoted};
use trib_project::{Environment, sql_tables};
use trib_store::{Store, Tested, Verdict};

use crate::measured::measure;

/// Failing rows that are kept of each test.
const KEPT: usize = 20;

/// A table and its tests.
#[derive(Clone, Debug)]
pub struct Subject {
    pub node: String,
    /// The stream of a sync; empty for a model.
    pub stream: String,
    /// As the project names it.
    pub table: TableName,
    pub tests: Vec<DataTest>,
    /// What tests have measured in earlier runs, the newest first.
    pub before: BTreeMap<String, Vec<Value>>,
}

/// Who answers queries about a table.
pub enum Ground {
    Engine(Queries),
    /// The system itself, in its own SQL.
    Inside(Arc<dyn Destination>, Environment),
    /// The same, where a query stands for the table.
    Staged(Arc<dyn Destination>, Environment, String),
}

impl Subject {
    pub fn new(node: &str, stream: &str, table: &TableName, tests: &[DataTest]) -> Self {
        Self { node: node.to_owned(), stream: stream.to_owned(), table: table.clone(), tests: tests.to_vec(), before: BTreeMap::new() }
    }

    /// With what was measured before, for tests that compare with it.
    pub async fn recalled(mut self, store: &Store) -> Result<Self> {
        for test in &self.tests {
            if let Some(runs) = test.looks_back() {
                self.before.insert(test.name.clone(), store.measured(&self.node, &self.stream, &test.name, runs).await?);
            }
        }
        Ok(self)
    }

    /// Whether a test's own SQL means the table by this name: a model also by its name alone.
    pub fn is_called(&self, name: &TableName) -> bool {
        self.table == *name || self.stream.is_empty() && name.schema.is_none() && self.node == name.name
    }

    /// The same with some of its tests.
    pub fn only(&self, wanted: impl Fn(&DataTest) -> bool) -> Self {
        let tests = self.tests.iter().filter(|t| wanted(t)).cloned().collect();
        Self { tests, ..self.clone() }
    }

    /// Asks every test, one after the other. A test that cannot be asked is broken, and the others are asked all the same.
    pub async fn ask(&self, ground: &Ground) -> Vec<Tested> {
        let mut found = Vec::new();
        for test in &self.tests {
            let asked = Asked { ground, subject: self, test };
            let before = self.before.get(&test.name).map(Vec::as_slice).unwrap_or_default();
            let looked = match test.looks_back() {
                None => asked.failing().await.map(|failing| (None, failing)),
                Some(_) => measure(&asked, before).await.map(|(measured, failing)| (Some(measured), failing)),
            };
            let (measured, failing) = match looked {
                Ok((measured, failing)) => (measured, Ok(failing)),
                Err(e) => (None, Err(e)),
            };
            let (verdict, failing, error) = match (failing, test.severity) {
                (Ok(failing), _) if failing.count == 0 => (Verdict::Passed, failing, None),
                (Ok(failing), Severity::Warn) => (Verdict::Warned, failing, None),
                (Ok(failing), Severity::Error) => (Verdict::Failed, failing, None),
                (Err(e), _) => (Verdict::Broken, Failing::default(), Some(e.to_json())),
            };
            found.push(Tested {
                node: self.node.clone(),
                stream: self.stream.clone(),
                test: test.name.clone(),
                severity: if test.severity == Severity::Warn { "warn" } else { "error" },
                verdict,
                failures: failing.count,
                rows: failing.rows,
                published: true,
                measured,
                error,
            });
        }
        found
    }
}

/// One test of one table, and who answers.
pub struct Asked<'a> {
    ground: &'a Ground,
    subject: &'a Subject,
    pub test: &'a DataTest,
}

impl Asked<'_> {
    async fn failing(&self) -> Result<Failing> {
        let inside = !matches!(self.ground, Ground::Engine(_));
        let sql = if inside && self.test.names_the_table_itself() {
            sql_tables::renamed(&self.sql(), |t| Some(self.named(t)))?
        } else {
            self.sql()
        };
        count(self.ask(&sql).await?, KEPT).await
    }

    /// The test's query.
    pub fn sql(&self) -> String {
        self.test.sql(&self.table(), Utc::now(), |t| self.named(t))
    }

    /// The tested table, as it stands behind `from`.
    pub fn table(&self) -> String {
        let name = self.named(&self.subject.table);
        if matches!(self.ground, Ground::Engine(_)) { name } else { format!("{name} as tested") }
    }

    fn named(&self, table: &TableName) -> String {
        let (destination, environment, staged) = match self.ground {
            Ground::Engine(_) => return quoted(table),
            Ground::Inside(destination, environment) => (destination, environment, None),
            Ground::Staged(destination, environment, sql) => (destination, environment, Some(sql)),
        };
        let Some(engine) = destination.sql() else { return quoted(table) };
        match staged {
            Some(sql) if self.subject.is_called(table) => format!("({sql})"),
            _ if self.subject.is_called(table) => engine.table(&environment.physical(&self.subject.table)),
            _ => engine.table(&environment.physical(table)),
        }
    }

    pub async fn ask(&self, sql: &str) -> Result<BatchStream> {
        match self.ground {
            Ground::Engine(queries) => Ok(queries.rows(sql).await?.1),
            Ground::Inside(destination, _) | Ground::Staged(destination, ..) => {
                let engine = destination
                    .sql()
                    .ok_or_else(|| Error::new(Code::Unsupported, "the connection cannot run SQL, so its tables cannot be tested"))?;
                engine.query(sql).await
            }
        }
    }
}

/// What a failed test means to a run, when its rows are visible already.
pub fn failure(tested: &Tested) -> Option<Error> {
    let error = match tested.verdict {
        Verdict::Passed | Verdict::Warned => return None,
        Verdict::Failed => Error::new(Code::TestFailed, "a data test failed")
            .detail(format!("{}: {}", tested.test, crate::render::amount::rows(tested.failures)))
            .hint("the failing rows stand below and in `_trib.tests`"),
        Verdict::Broken => {
            let why = tested.error.as_ref().map(|e| {
                let text = |key: &str| e[key].as_str().unwrap_or_default().to_owned();
                format!(": {}: {}", text("message"), text("detail"))
            });
            Error::new(Code::TestFailed, "a data test could not be asked").detail(format!("{}{}", tested.test, why.unwrap_or_default()))
        }
    };
    Some(error.stream(if tested.stream.is_empty() { tested.node.clone() } else { format!("{}/{}", tested.node, tested.stream) }))
}
