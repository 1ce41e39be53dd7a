//! Rows that could not be delivered, kept with the reason until they are retried.
//!
//! A row is `staged` until its load is committed, then `waiting`. While another load is on its way with it, it is `retrying`, or `replacing` where that load has
//! read its whole stream again; once that load is committed, `retried` or `superseded`. The latter it is too once a later load has rejected the same row.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::any::{Any, AnyRow};
use sqlx::{AssertSqlSafe, Transaction};
use trib_core::name::system;
use trib_core::{Code, Error, LoadId, RejectedRow, Result};

use crate::Store;
use crate::database::{failed, json, now, number, parsed, plain, text, time};

/// Rows per statement: each has eleven parameters, and SQLite takes 32766.
const CHUNK: usize = 500;

/// A rejected row that waits to be retried.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    pub id: u64,
    pub run: String,
    pub sync: String,
    pub scope: String,
    pub load: LoadId,
    pub row: RejectedRow,
    pub rejected_at: DateTime<Utc>,
}

const COLUMNS: &str = "select id, run, sync, scope, load, place, reason, row_json, rejected_at from trib_rejected";

impl Store {
    /// Keeps rows that a load in progress has set aside, before the destination sees them. They count once [`Store::committed`]
    /// is called for the load; [`Store::drop_rejected`] takes them back. Rows that a receipt names are not given here.
    pub async fn reject(&self, run: &str, sync: &str, scope: &str, load: &LoadId, rows: &[RejectedRow]) -> Result<()> {
        let mut tx = self.begin().await?;
        self.add_rejected(&mut tx, (run, sync, scope, load), rows).await?;
        tx.commit().await.map_err(failed)
    }

    /// Forgets the rejected rows of a load that will not be committed.
    pub async fn drop_rejected(&self, load: &LoadId) -> Result<()> {
        let mut tx = self.begin().await?;
        self.remove_rejected(&mut tx, load).await?;
        tx.commit().await.map_err(failed)
    }

    /// Rows that wait, the oldest first.
    pub async fn rejected(&self, sync: Option<&str>, scope: Option<&str>, limit: u32) -> Result<Vec<Rejected>> {
        let sql = format!(
            "{COLUMNS} where environment = $1 and status = 'waiting' and (sync = $2 or $2 is null) and (scope = $3 or $3 is null)
             order by id limit $4"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(self.environment.as_str())
            .bind(sync)
            .bind(scope)
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(rejected).collect()
    }

    /// The rows of these ids that still wait, in order. They wait until a load that delivers them is recorded ([`Store::record_staged`]), and again
    /// when it is discarded, so that a retry that dies neither loses nor repeats them.
    pub async fn take_rejected(&self, ids: &[u64]) -> Result<Vec<Rejected>> {
        let mut taken = Vec::with_capacity(ids.len());
        for ids in ids.chunks(CHUNK) {
            let sql =
                format!("{COLUMNS} where environment = $1 and status = 'waiting' and id in ({}) order by id", placeholders(2, ids.len()));
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind(self.environment.as_str());
            for id in ids {
                query = query.bind(*id as i64);
            }
            for row in query.fetch_all(&self.database.pool).await.map_err(failed)? {
                taken.push(rejected(&row)?);
            }
        }
        Ok(taken)
    }

    /// These rows are on their way in a load.
    pub(crate) async fn claim_rejected(&self, tx: &mut Transaction<'static, Any>, load: &LoadId, ids: &[u64]) -> Result<()> {
        for ids in ids.chunks(CHUNK) {
            let sql = format!(
                "update trib_rejected set status = 'retrying', retried_by = $2 where environment = $1 and status = 'waiting' and id in ({})",
                placeholders(3, ids.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind(self.environment.as_str()).bind(load.0.as_str());
            for id in ids {
                query = query.bind(*id as i64);
            }
            let claimed = query.execute(&mut **tx).await.map_err(failed)?.rows_affected();
            if claimed != ids.len() as u64 {
                return Err(Error::new(Code::LeaseLost, "another run retries these rejected rows")
                    .hint("`trib rejected list` shows which still wait"));
            }
        }
        Ok(())
    }

    /// Rows of these streams that earlier loads have rejected: the load reads the streams to their ends, and what it rejects itself takes their place.
    pub(crate) async fn supersede_rejected(
        &self,
        tx: &mut Transaction<'static, Any>,
        (sync, load): (&str, &LoadId),
        streams: &[String],
    ) -> Result<()> {
        for stream in streams {
            sqlx::query(
                "update trib_rejected set status = 'replacing', retried_by = $2
                 where environment = $1 and status = 'waiting' and sync = $3 and scope = $4",
            )
            .bind(self.environment.as_str())
            .bind(load.0.as_str())
            .bind(sync)
            .bind(stream.as_str())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        }
        Ok(())
    }

    /// The rows that a load has delivered, or read again, wait no longer.
    pub(crate) async fn settle_rejected(&self, tx: &mut Transaction<'static, Any>, load: &LoadId, run: &str) -> Result<()> {
        sqlx::query(
            "update trib_rejected set status = case status when 'retrying' then 'retried' else 'superseded' end, retried_by = $3, retried_at = $4
             where environment = $1 and retried_by = $2 and status in ('retrying', 'replacing')",
        )
        .bind(self.environment.as_str())
        .bind(load.0.as_str())
        .bind(run)
        .bind(now())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// `of` is run, sync, scope and load.
    pub(crate) async fn add_rejected(
        &self,
        tx: &mut Transaction<'static, Any>,
        of: (&str, &str, &str, &LoadId),
        rows: &[RejectedRow],
    ) -> Result<()> {
        let at = now();
        for rows in rows.chunks(CHUNK) {
            let groups: Vec<String> = (0..rows.len()).map(|i| format!("({})", placeholders(1 + i * 11, 11))).collect();
            let sql = format!(
                "insert into trib_rejected (environment, run, sync, scope, load, place, reason, row_json, status, rejected_at, identity) values {}",
                groups.join(", ")
            );
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for row in rows {
                query = query
                    .bind(self.environment.as_str())
                    .bind(of.0)
                    .bind(of.1)
                    .bind(of.2)
                    .bind(of.3.0.as_str())
                    .bind(plain(&row.place))
                    .bind(plain(&row.reason))
                    .bind(json(&row.row)?)
                    .bind("staged")
                    .bind(at.as_str())
                    .bind(identity(of.2, row)?);
            }
            query.execute(&mut **tx).await.map_err(failed)?;
        }
        Ok(())
    }

    /// What a load has rejected waits from now on, in the place of what earlier loads have rejected of the same rows.
    pub(crate) async fn count_rejected(&self, tx: &mut Transaction<'static, Any>, (sync, load): (&str, &LoadId), run: &str) -> Result<()> {
        sqlx::query(
            "update trib_rejected set status = 'superseded', retried_by = $4, retried_at = $5
             where environment = $1 and status = 'waiting' and sync = $3
                 and identity in (select identity from trib_rejected where environment = $1 and load = $2 and status = 'staged')",
        )
        .bind(self.environment.as_str())
        .bind(load.0.as_str())
        .bind(sync)
        .bind(run)
        .bind(now())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        sqlx::query("update trib_rejected set status = 'waiting' where environment = $1 and load = $2 and status = 'staged'")
            .bind(self.environment.as_str())
            .bind(load.0.as_str())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Of a load that will not be committed: what it rejected goes, and what it was to deliver or to replace waits again.
    pub(crate) async fn remove_rejected(&self, tx: &mut Transaction<'static, Any>, load: &LoadId) -> Result<()> {
        sqlx::query(
            "update trib_rejected set status = 'waiting', retried_by = null where environment = $1 and retried_by = $2 and status in ('retrying', 'replacing')",
        )
        .bind(self.environment.as_str())
        .bind(load.0.as_str())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        sqlx::query("delete from trib_rejected where environment = $1 and load = $2 and status = 'staged'")
            .bind(self.environment.as_str())
            .bind(load.0.as_str())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        Ok(())
    }
}

/// The same for each rejection of one row for one reason. A row that nobody can find is told from none that looks like it.
fn identity(scope: &str, rejected: &RejectedRow) -> Result<Option<String>> {
    if rejected.place.is_empty() {
        return Ok(None);
    }
    // What a destination has refused says by which load.
    let values: Option<Vec<_>> =
        rejected.row.as_object().map(|row| row.iter().filter(|(name, _)| !name.starts_with(system::PREFIX)).collect());
    let values = values.map_or_else(|| json(&rejected.row), |values| json(&values))?;
    Ok(Some(hex::encode(Sha256::digest(json(&[scope, &rejected.place, &rejected.reason, &values])?))))
}

fn rejected(row: &AnyRow) -> Result<Rejected> {
    let value: Value = parsed(row, 7)?;
    Ok(Rejected {
        id: number(row, 0)?,
        run: text(row, 1)?,
        sync: text(row, 2)?,
        scope: text(row, 3)?,
        load: LoadId(text(row, 4)?),
        row: RejectedRow { place: text(row, 5)?, reason: text(row, 6)?, row: value },
        rejected_at: time(row, 8)?,
    })
}

fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}
