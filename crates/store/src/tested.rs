//! What data tests have found.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use trib_core::Result;

use crate::Store;
use crate::database::{failed, json, now, number, text, time};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// It failed, and was only to be told.
    Warned,
    Failed,
    /// It could not be asked.
    Broken,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Warned => "warned",
            Verdict::Failed => "failed",
            Verdict::Broken => "broken",
        }
    }
}

/// One test, once.
#[derive(Clone, Debug, Serialize)]
pub struct Tested {
    /// The sync or model whose table was tested.
    pub node: String,
    /// The stream of a sync; empty for a model.
    pub stream: String,
    pub test: String,
    /// `warn` or `error`.
    pub severity: &'static str,
    pub verdict: Verdict,
    /// Rows that the test did not want.
    pub failures: u64,
    /// The first of them, as objects.
    pub rows: Vec<Value>,
    /// The rows that were tested can be seen by readers.
    pub published: bool,
    /// What it has measured, when it compares with earlier runs.
    pub measured: Option<Value>,
    /// Why it could not be asked; from [`trib_core::Error::to_json`].
    pub error: Option<Value>,
}

/// What a test has found when it was last asked.
#[derive(Clone, Debug)]
pub struct LastTest {
    pub node: String,
    /// Empty for a model.
    pub stream: String,
    pub test: String,
    pub severity: String,
    /// As [`Verdict::as_str`] says it.
    pub status: String,
    pub failures: u64,
    pub run: String,
    pub tested_at: DateTime<Utc>,
}

impl Store {
    /// The last word on each test that was ever asked.
    pub async fn last_tests(&self) -> Result<Vec<LastTest>> {
        let rows = sqlx::query(
            "select node, stream, test, severity, status, failures, run, tested_at from trib_tests where environment = $1
             and id in (select max(id) from trib_tests where environment = $1 group by node, stream, test) order by node, stream, test",
        )
        .bind(self.environment.as_str())
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        let last = |row| {
            Ok(LastTest {
                node: text(row, 0)?,
                stream: text(row, 1)?,
                test: text(row, 2)?,
                severity: text(row, 3)?,
                status: text(row, 4)?,
                failures: number(row, 5)?,
                run: text(row, 6)?,
                tested_at: time(row, 7)?,
            })
        };
        rows.iter().map(last).collect()
    }

    /// Keeps what tests have found under a run's id.
    pub async fn record_tests(&self, run: &str, tests: &[Tested]) -> Result<()> {
        let at = now();
        for test in tests {
            sqlx::query(
                "insert into trib_tests (environment, run, node, stream, test, severity, status, failures, failing_rows, published, measured, error, tested_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            )
            .bind(self.environment.as_str())
            .bind(run)
            .bind(test.node.as_str())
            .bind(test.stream.as_str())
            .bind(test.test.as_str())
            .bind(test.severity)
            .bind(test.verdict.as_str())
            .bind(test.failures as i64)
            .bind(json(&test.rows)?)
            .bind(if test.published { "yes" } else { "no" })
            .bind(test.measured.as_ref().map(json).transpose()?)
            .bind(test.error.as_ref().map(json).transpose()?)
            .bind(at.as_str())
            .execute(&self.database.pool)
            .await
            .map_err(failed)?;
        }
        Ok(())
    }

    /// What a test has measured in the last runs in which it was content and its rows were published, the newest first.
    pub async fn measured(&self, node: &str, stream: &str, test: &str, most: usize) -> Result<Vec<Value>> {
        let rows = sqlx::query(
            "select measured from trib_tests
             where environment = $1 and node = $2 and stream = $3 and test = $4 and measured is not null and published = 'yes'
               and status in ('passed', 'warned') and run in (select id from trib_runs where environment = $1)
             order by id desc limit $5",
        )
        .bind(self.environment.as_str())
        .bind(node)
        .bind(stream)
        .bind(test)
        .bind(most as i64)
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| Ok(serde_json::from_str(&text(row, 0)?)?)).collect()
    }
}
