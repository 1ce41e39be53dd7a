//! Leases: at most one run works on a sync, and an outdated one cannot move its state.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Transaction;
use sqlx::any::Any;
use trib_core::{Code, Error, Lease, Result};

use crate::Store;
use crate::database::{failed, maybe, maybe_time, number, stamp, time};

/// Who holds a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub sync: String,
    pub generation: u64,
    /// As given to [`Store::acquire`]: host, process, run.
    pub holder: String,
    pub since: DateTime<Utc>,
    pub renewed_at: DateTime<Utc>,
    /// Unless it is renewed before.
    pub expires_at: DateTime<Utc>,
    /// The process is known to be dead, or the lease has expired: the next [`Store::acquire`] gets it.
    pub gone: bool,
}

impl Store {
    /// Takes the sync, with a generation greater than any before, durably.
    ///
    /// Fails with `lease_lost` while another holder is alive. A holder counts as dead when its lease has expired, or at once when it was
    /// a process on this machine that has ended.
    pub async fn acquire(&self, sync: &str, holder: &str, ttl: Duration) -> Result<Lease> {
        let key = lease_key(sync, holder);
        let live = self.live.vouch(key.clone())?;
        let taken = self.take(sync, holder, &live, ttl).await;
        if taken.is_err() {
            self.live.ended(&key);
        }
        taken
    }

    async fn take(&self, sync: &str, holder: &str, live: &str, ttl: Duration) -> Result<Lease> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        // Makes the row and locks it, on either database.
        sqlx::query(
            "insert into trib_leases (environment, sync, generation, ttl_ms) values ($1, $2, 0, $3)
             on conflict (environment, sync) do update set ttl_ms = trib_leases.ttl_ms",
        )
        .bind(self.environment.as_str())
        .bind(sync)
        .bind(ttl_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let now = self.database.now(&mut tx).await?;
        let row = sqlx::query("select generation from trib_leases where environment = $1 and sync = $2")
            .bind(self.environment.as_str())
            .bind(sync)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
        // At least the time in milliseconds: a control database that begins anew must still outdo the leases that destinations have seen.
        let generation = (number(&row, 0)? + 1).max(now.timestamp_millis().max(0).unsigned_abs());
        if let Some(other) = self.holder_at(&mut tx, sync, now).await?.filter(|other| !other.gone) {
            return Err(Error::new(Code::LeaseLost, "another run is working on this sync")
                .detail(format!("{}: held by {} since {}", sync, other.holder, other.since.format("%Y-%m-%d %H:%M:%S UTC")))
                .hint(format!(
                    "let it finish, or stop it with `trib cancel`; if it is dead, its hold ends at {}",
                    other.expires_at.format("%H:%M:%S UTC")
                )));
        }
        sqlx::query(
            "update trib_leases set generation = $3, holder = $4, live = $5, since = $6, renewed_at = $6, expires_at = $7, ttl_ms = $8
             where environment = $1 and sync = $2",
        )
        .bind(self.environment.as_str())
        .bind(sync)
        .bind(generation as i64)
        .bind(holder)
        .bind(live)
        .bind(stamp(now))
        .bind(stamp(expiry(now, ttl_ms)))
        .bind(ttl_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(Lease { sync: sync.to_owned(), generation, holder: holder.to_owned() })
    }

    /// Puts the expiry off by the lease's time to live. Fails with `lease_lost` when another has taken it. To be called several
    /// times within the time to live.
    pub async fn renew(&self, lease: &Lease) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        let now = self.database.now(&mut tx).await?;
        let row = sqlx::query("select ttl_ms from trib_leases where environment = $1 and sync = $2")
            .bind(self.environment.as_str())
            .bind(lease.sync.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
        let expires = expiry(now, number(&row, 0)? as i64);
        sqlx::query("update trib_leases set renewed_at = $3, expires_at = $4 where environment = $1 and sync = $2")
            .bind(self.environment.as_str())
            .bind(lease.sync.as_str())
            .bind(stamp(now))
            .bind(stamp(expires))
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Gives the sync back. A lease that another has taken over is left alone.
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        sqlx::query(
            "update trib_leases set holder = null, live = null, since = null, renewed_at = null, expires_at = null
             where environment = $1 and sync = $2 and generation = $3",
        )
        .bind(self.environment.as_str())
        .bind(lease.sync.as_str())
        .bind(lease.generation as i64)
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        self.live.ended(&lease_key(&lease.sync, &lease.holder));
        Ok(())
    }

    /// Who holds the sync now, if anybody.
    pub async fn holder(&self, sync: &str) -> Result<Option<Holder>> {
        let mut tx = self.database.pool.begin().await.map_err(failed)?;
        let now = self.database.now(&mut tx).await?;
        self.holder_at(&mut tx, sync, now).await
    }

    async fn holder_at(&self, tx: &mut Transaction<'static, Any>, sync: &str, now: DateTime<Utc>) -> Result<Option<Holder>> {
        let row = sqlx::query(
            "select generation, holder, live, since, renewed_at, expires_at from trib_leases where environment = $1 and sync = $2",
        )
        .bind(self.environment.as_str())
        .bind(sync)
        .fetch_optional(&mut **tx)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let Some(holder) = maybe(&row, 1)? else { return Ok(None) };
        let expires_at = maybe_time(&row, 5)?.unwrap_or(now);
        let gone = expires_at <= now || maybe(&row, 2)?.is_some_and(|live| self.live.is_gone(&live));
        Ok(Some(Holder {
            sync: sync.to_owned(),
            generation: number(&row, 0)?,
            holder,
            since: time(&row, 3)?,
            renewed_at: time(&row, 4)?,
            expires_at,
            gone,
        }))
    }

    /// Fails unless the lease is the current one, and keeps it so until the transaction ends.
    pub(crate) async fn guard(&self, tx: &mut Transaction<'static, Any>, lease: &Lease) -> Result<()> {
        let guarded = sqlx::query(
            "update trib_leases set ttl_ms = ttl_ms where environment = $1 and sync = $2 and generation = $3 and holder is not null",
        )
        .bind(self.environment.as_str())
        .bind(lease.sync.as_str())
        .bind(lease.generation as i64)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        if guarded.rows_affected() == 1 {
            return Ok(());
        }
        Err(Error::new(Code::LeaseLost, "another run has taken this sync over")
            .detail(lease.sync.clone())
            .hint("let the other run finish; `trib runs` shows it"))
    }
}

fn lease_key(sync: &str, holder: &str) -> String {
    format!("lease {sync} {holder}")
}

fn expiry(now: DateTime<Utc>, ttl_ms: i64) -> DateTime<Utc> {
    chrono::Duration::try_milliseconds(ttl_ms).and_then(|ttl| now.checked_add_signed(ttl)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
