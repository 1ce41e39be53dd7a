//! Asking data tests, wherever the tested table lies.

use std::sync::Arc;

use chrono::Utc;
use trib_core::{Code, Destination, Error, Result, TableName};
use trib_engine::Queries;
use trib_engine::check::{Failing, count};
use trib_project::data_test::{DataTest, Severity, quoted};
use trib_project::{Environment, sql_tables};
use trib_store::{Tested, Verdict};

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
            let failing = ground.failing(test, self).await;
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
                error,
            });
        }
        found
    }
}

impl Ground {
    async fn failing(&self, test: &DataTest, subject: &Subject) -> Result<Failing> {
        let (destination, environment, staged) = match self {
            Ground::Engine(queries) => {
                let (_, rows) = queries.rows(&test.sql(&quoted(&subject.table), Utc::now(), quoted)).await?;
                return count(rows, KEPT).await;
            }
            Ground::Inside(destination, environment) => (destination, environment, None),
            Ground::Staged(destination, environment, sql) => (destination, environment, Some(sql)),
        };
        let engine = destination
            .sql()
            .ok_or_else(|| Error::new(Code::Unsupported, "the connection cannot run SQL, so its tables cannot be tested"))?;
        let named = |t: &TableName| match staged {
            Some(sql) if subject.is_called(t) => format!("({sql})"),
            _ if subject.is_called(t) => engine.table(&environment.physical(&subject.table)),
            _ => engine.table(&environment.physical(t)),
        };
        let sql = if test.names_the_table_itself() {
            sql_tables::renamed(&test.sql("", Utc::now(), quoted), |t| Some(named(t)))?
        } else {
            test.sql(&format!("{} as tested", named(&subject.table)), Utc::now(), named)
        };
        count(engine.query(&sql).await?, KEPT).await
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
