//! What a run has said.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use trib_core::Result;

use crate::Store;
use crate::database::{failed, json, maybe, maybe_parsed, now, number, plain, text, time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

#[derive(Clone, Debug)]
pub struct LogLine {
    /// Grows with time; for [`Store::logs`] to go on from.
    pub id: u64,
    pub at: DateTime<Utc>,
    pub level: Level,
    pub sync: Option<String>,
    pub stream: Option<String>,
    pub message: String,
    pub fields: Option<Value>,
}

impl Store {
    /// Keeps one line. `fields` is an object with what the sentence leaves out.
    pub async fn log(
        &self,
        run: &str,
        level: Level,
        sync: Option<&str>,
        stream: Option<&str>,
        message: &str,
        fields: Option<&Value>,
    ) -> Result<()> {
        sqlx::query(
            "insert into trib_logs (environment, run, logged_at, level, sync, stream, message, fields)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.environment.as_str())
        .bind(run)
        .bind(now())
        .bind(level.as_str())
        .bind(sync)
        .bind(stream)
        .bind(plain(message))
        .bind(fields.map(json).transpose()?)
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// The lines of a run with an id greater than `after`, in order; 0 for all.
    pub async fn logs(&self, run: &str, after: u64) -> Result<Vec<LogLine>> {
        let rows = sqlx::query(
            "select id, logged_at, level, sync, stream, message, fields from trib_logs
             where environment = $1 and run = $2 and id > $3 order by id",
        )
        .bind(self.environment.as_str())
        .bind(run)
        .bind(after as i64)
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(line).collect()
    }
}

fn line(row: &AnyRow) -> Result<LogLine> {
    Ok(LogLine {
        id: number(row, 0)?,
        at: time(row, 1)?,
        level: serde_json::from_value(Value::String(text(row, 2)?))?,
        sync: maybe(row, 3)?,
        stream: maybe(row, 4)?,
        message: text(row, 5)?,
        fields: maybe_parsed(row, 6)?,
    })
}
