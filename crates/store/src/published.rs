//! Loads that became visible, with the runs that have published them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;
use trib_core::Result;

use crate::Store;
use crate::database::{failed, maybe, parsed, text, time};

/// A load that became visible.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    pub load: String,
    pub environment: String,
    pub run: String,
    /// How the run was called; `None` where nothing is known of it any more.
    pub command: Option<String>,
    pub committed_at: DateTime<Utc>,
    /// Where the read had begun, and where it had come to.
    pub from_state: Value,
    pub to_state: Value,
}

const PUBLISHED: &str = "select l.load, l.environment, l.run, r.command, l.committed_at, l.from_state, l.to_state
    from trib_loads l left join trib_runs r on r.environment = l.environment and r.id = l.run";

impl Store {
    /// A load of this environment or, where it has none of this name, of another one in the same database.
    pub async fn published(&self, load: &str) -> Result<Option<Published>> {
        let first = "where l.load = $2 order by case when l.environment = $1 then 0 else 1 end limit 1";
        self.first_published(first, load).await
    }

    /// The load of a promotion by which a sync's table has last come from another environment.
    pub async fn promoted(&self, sync: &str) -> Result<Option<Published>> {
        let last = "where l.environment = $1 and l.sync = $2 and r.command like 'trib promote %' order by l.number desc limit 1";
        self.first_published(last, sync).await
    }

    async fn first_published(&self, which: &str, of: &str) -> Result<Option<Published>> {
        let sql = AssertSqlSafe(format!("{PUBLISHED} {which}"));
        let row = sqlx::query(sql).bind(self.environment.as_str()).bind(of).fetch_optional(&self.database.pool).await.map_err(failed)?;
        row.as_ref().map(published).transpose()
    }
}

fn published(row: &AnyRow) -> Result<Published> {
    Ok(Published {
        load: text(row, 0)?,
        environment: text(row, 1)?,
        run: text(row, 2)?,
        command: maybe(row, 3)?,
        committed_at: time(row, 4)?,
        from_state: parsed(row, 5)?,
        to_state: parsed(row, 6)?,
    })
}
