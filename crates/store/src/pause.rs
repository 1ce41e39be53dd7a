//! Nodes that somebody has paused, and single facts that belong to no table.

use chrono::{DateTime, Utc};
use trib_core::Result;

use crate::Store;
use crate::database::{failed, maybe, now, plain, text, time};

/// A node that runs leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// A sync, `sync/stream`, model or job.
    pub node: String,
    pub by: String,
    pub reason: Option<String>,
    pub at: DateTime<Utc>,
}

impl Store {
    /// Pausing again replaces who and why.
    pub async fn pause(&self, node: &str, by: &str, reason: Option<&str>) -> Result<()> {
        sqlx::query(
            "insert into trib_paused (environment, node, paused_by, reason, paused_at) values ($1, $2, $3, $4, $5)
             on conflict (environment, node) do update set paused_by = excluded.paused_by, reason = excluded.reason,
                paused_at = excluded.paused_at",
        )
        .bind(self.environment.as_str())
        .bind(node)
        .bind(by)
        .bind(reason.map(plain))
        .bind(now())
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Whether it was paused.
    pub async fn resume(&self, node: &str) -> Result<bool> {
        let resumed = sqlx::query("delete from trib_paused where environment = $1 and node = $2")
            .bind(self.environment.as_str())
            .bind(node)
            .execute(&self.database.pool)
            .await
            .map_err(failed)?;
        Ok(resumed.rows_affected() == 1)
    }

    pub async fn paused(&self) -> Result<Vec<Pause>> {
        let rows = sqlx::query("select node, paused_by, reason, paused_at from trib_paused where environment = $1 order by node")
            .bind(self.environment.as_str())
            .fetch_all(&self.database.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|r| Ok(Pause { node: text(r, 0)?, by: text(r, 1)?, reason: maybe(r, 2)?, at: time(r, 3)? })).collect()
    }

    /// A single fact under a name, such as when something was last shown.
    pub async fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        sqlx::query(
            "insert into trib_meta (environment, key, value) values ($1, $2, $3)
             on conflict (environment, key) do update set value = excluded.value",
        )
        .bind(self.environment.as_str())
        .bind(key)
        .bind(value)
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    pub async fn meta(&self, key: &str) -> Result<Option<String>> {
        let row = sqlx::query("select value from trib_meta where environment = $1 and key = $2")
            .bind(self.environment.as_str())
            .bind(key)
            .fetch_optional(&self.database.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(|row| text(row, 0)).transpose()
    }
}
