//! How far each scope of a sync has come: its state, its last load, and the load that is on its way.
//!
//! Everything that writes here needs the sync's current lease and fails with `lease_lost` otherwise, so that two runs can never
//! take turns in moving one state.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::Transaction;
use sqlx::any::{Any, AnyRow};
use trib_core::protocol::Known;
use trib_core::{Error, Lease, Load, LoadId, Marker, Outcome, Result, State};

use crate::Store;
use crate::database::{failed, json, maybe, maybe_parsed, maybe_time, now, number, parsed, text, time};

/// What is stored of one scope.
#[derive(Clone, Debug)]
pub struct ScopeRecord {
    pub scope: String,
    pub known: Known,
    pub state: State,
    pub staged_at: Option<DateTime<Utc>>,
    /// See [`Store::record_prune`].
    pub pruned_at: Option<DateTime<Utc>>,
    /// See [`Load::made_from`].
    pub made_from: Option<String>,
    pub updated_at: DateTime<Utc>,
}

/// Where a scope stands once a load is published.
struct Stands<'a> {
    number: u64,
    load: Option<&'a LoadId>,
    state: &'a State,
    made_from: Option<&'a str>,
}

const COLUMNS: &str = "select scope, number, load, state, staged, staged_at, pruned_at, updated_at, made_from from trib_scopes
    where environment = $1 and sync = $2";

impl Store {
    /// Every scope of the sync that has a record, by name.
    pub async fn scopes(&self, sync: &str) -> Result<BTreeMap<String, ScopeRecord>> {
        let rows = sqlx::query(COLUMNS).bind(self.environment.as_str()).bind(sync).fetch_all(&self.database.pool).await.map_err(failed)?;
        rows.iter().map(|row| record(row).map(|r| (r.scope.clone(), r))).collect()
    }

    /// One scope, or `None` when nothing was ever recorded of it.
    pub async fn scope(&self, sync: &str, scope: &str) -> Result<Option<ScopeRecord>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} and scope = $3")))
            .bind(self.environment.as_str())
            .bind(sync)
            .bind(scope)
            .fetch_optional(&self.database.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(record).transpose()
    }

    /// For [`trib_core::protocol::recover`].
    pub async fn known(&self, sync: &str, scope: &str) -> Result<Option<Known>> {
        Ok(self.scope(sync, scope).await?.map(|r| r.known))
    }

    /// The state of all the sync's streams.
    pub async fn state(&self, sync: &str) -> Result<State> {
        Ok(self.scopes(sync).await?.into_values().fold(State::default(), |all, r| all.merged(&r.state)))
    }

    /// The state of one scope; empty when there is none.
    pub async fn state_of(&self, sync: &str, scope: &str) -> Result<State> {
        Ok(self.scope(sync, scope).await?.map(|r| r.state).unwrap_or_default())
    }

    /// The syncs that have any record, by name.
    pub async fn syncs(&self) -> Result<Vec<String>> {
        let rows = sqlx::query("select distinct sync from trib_scopes where environment = $1 order by sync")
            .bind(self.environment.as_str())
            .fetch_all(&self.database.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| text(row, 0)).collect()
    }

    /// Remembers a load whose parts are all staged, before its commit. It takes the place of an earlier one. `retries` are the rejected rows that it
    /// delivers, and `whole` the streams that it replaces by all there is of them, rejected rows included: both are settled with it.
    pub async fn record_staged(&self, lease: &Lease, load: &Load, retries: &[u64], whole: &[String]) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        sqlx::query(
            "insert into trib_scopes (environment, sync, scope, number, state, staged, staged_at, updated_at)
             values ($1, $2, $3, 0, '{}', $4, $5, $5)
             on conflict (environment, sync, scope) do update set staged = excluded.staged, staged_at = excluded.staged_at",
        )
        .bind(self.environment.as_str())
        .bind(lease.sync.as_str())
        .bind(load.scope.as_str())
        .bind(json(load)?)
        .bind(now())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.claim_rejected(&mut tx, &load.id, retries).await?;
        self.supersede_rejected(&mut tx, (&lease.sync, &load.id), whole).await?;
        tx.commit().await.map_err(failed)
    }

    /// Moves number, load and state on after the destination's commit, in one transaction with the load's history, its schema
    /// changes and its rejected rows: those in its receipts are added here, and those given to [`Store::reject`] begin to count.
    ///
    /// Doing it again for the same load changes nothing.
    pub async fn committed(&self, lease: &Lease, load: &Load, outcome: &Outcome, run: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        let before = self.scope_in(&mut tx, &lease.sync, &load.scope).await?;
        let (number, last, from) = before.map_or((0, None, State::default()), |r| (r.known.number, r.known.load, r.state));
        if last.as_ref() == Some(&load.id) {
            return Ok(());
        }
        if number + 1 != load.number {
            return Err(Error::internal("a load was recorded out of its order")
                .detail(format!("load {} is number {}, the state stands at {number}", load.id, load.number))
                .stream(&load.scope));
        }
        let to = from.merged(&load.state);
        let stands = Stands { number: load.number, load: Some(&load.id), state: &to, made_from: load.made_from.as_deref() };
        self.put(&mut tx, &lease.sync, &load.scope, stands).await?;
        self.add_load(&mut tx, lease, load, outcome, run, [&from, &to]).await?;
        self.add_schema_changes(&mut tx, lease, load, run).await?;
        for receipt in load.tables.iter().flat_map(|t| &t.receipts) {
            self.add_rejected(&mut tx, (run, &lease.sync, &load.scope, &load.id), &receipt.rejected).await?;
        }
        self.count_rejected(&mut tx, (&lease.sync, &load.id), run).await?;
        self.settle_rejected(&mut tx, &load.id, run).await?;
        tx.commit().await.map_err(failed)
    }

    /// Forgets the load that was recorded as staged, and the rows that it rejected.
    pub async fn discard_staged(&self, lease: &Lease, scope: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        if let Some(load) = self.scope_in(&mut tx, &lease.sync, scope).await?.and_then(|r| r.known.staged) {
            self.remove_rejected(&mut tx, &load.id).await?;
        }
        sqlx::query("update trib_scopes set staged = null, staged_at = null where environment = $1 and sync = $2 and scope = $3")
            .bind(self.environment.as_str())
            .bind(lease.sync.as_str())
            .bind(scope)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Replaces a scope's state by hand. Number and load stay, since the destination has not changed.
    pub async fn set_state(&self, lease: &Lease, scope: &str, state: &State) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        let before = self.scope_in(&mut tx, &lease.sync, scope).await?.map(|r| (r.known, r.made_from));
        let (number, load, made_from) = before.map_or((0, None, None), |(known, made_from)| (known.number, known.load, made_from));
        let stands = Stands { number, load: load.as_ref(), state, made_from: made_from.as_deref() };
        self.put(&mut tx, &lease.sync, scope, stands).await?;
        tx.commit().await.map_err(failed)
    }

    /// Takes a scope's number, load and state from the destination's marker, in place of whatever is stored.
    pub async fn adopt(&self, lease: &Lease, marker: &Marker) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        let before = self.scope_in(&mut tx, &lease.sync, &marker.scope).await?;
        let (staged, last) = before.map_or((None, None), |r| (r.known.staged, r.known.load.zip(r.made_from)));
        // What the table was made from stands here alone.
        let here = staged.iter().map(|load| (&load.id, load.made_from.as_ref()));
        let mut here = here.chain(last.iter().map(|(load, made_from)| (load, Some(made_from))));
        let made_from = here.find(|(load, _)| **load == marker.load).and_then(|(_, made_from)| made_from.cloned());
        match staged {
            Some(load) if load.id == marker.load => {
                self.count_rejected(&mut tx, (&lease.sync, &load.id), &lease.holder).await?;
                self.settle_rejected(&mut tx, &load.id, &lease.holder).await?;
            }
            Some(load) => self.remove_rejected(&mut tx, &load.id).await?,
            None => {}
        }
        let stands = Stands { number: marker.number, load: Some(&marker.load), state: &marker.state, made_from: made_from.as_deref() };
        self.put(&mut tx, &lease.sync, &marker.scope, stands).await?;
        tx.commit().await.map_err(failed)
    }

    /// Forgets these scopes: the next load of each is number 1. The destination's markers go first
    /// ([`trib_core::Destination::forget`]); a crash in between leaves state without markers, which a run refuses and a second reset mends.
    pub async fn reset(&self, lease: &Lease, scopes: &[String]) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        for scope in scopes {
            if let Some(load) = self.scope_in(&mut tx, &lease.sync, scope).await?.and_then(|r| r.known.staged) {
                self.remove_rejected(&mut tx, &load.id).await?;
            }
            sqlx::query("delete from trib_scopes where environment = $1 and sync = $2 and scope = $3")
                .bind(self.environment.as_str())
                .bind(lease.sync.as_str())
                .bind(scope.as_str())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Remembers that the keys of source and destination were compared, for `deletes: {detect: compare, every: …}`.
    pub async fn record_prune(&self, lease: &Lease, scope: &str, at: DateTime<Utc>) -> Result<()> {
        let mut tx = self.begin().await?;
        self.guard(&mut tx, lease).await?;
        sqlx::query(
            "insert into trib_scopes (environment, sync, scope, number, state, pruned_at, updated_at) values ($1, $2, $3, 0, '{}', $4, $5)
             on conflict (environment, sync, scope) do update set pruned_at = excluded.pruned_at",
        )
        .bind(self.environment.as_str())
        .bind(lease.sync.as_str())
        .bind(scope)
        .bind(crate::database::stamp(at))
        .bind(now())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// When [`Store::record_prune`] was last called.
    pub async fn last_prune(&self, sync: &str, scope: &str) -> Result<Option<DateTime<Utc>>> {
        Ok(self.scope(sync, scope).await?.and_then(|r| r.pruned_at))
    }

    async fn scope_in(&self, tx: &mut Transaction<'static, Any>, sync: &str, scope: &str) -> Result<Option<ScopeRecord>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} and scope = $3")))
            .bind(self.environment.as_str())
            .bind(sync)
            .bind(scope)
            .fetch_optional(&mut **tx)
            .await
            .map_err(failed)?;
        row.as_ref().map(record).transpose()
    }

    async fn put(&self, tx: &mut Transaction<'static, Any>, sync: &str, scope: &str, stands: Stands<'_>) -> Result<()> {
        sqlx::query(
            "insert into trib_scopes (environment, sync, scope, number, load, state, updated_at, made_from) values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (environment, sync, scope) do update set number = excluded.number, load = excluded.load, state = excluded.state,
                 updated_at = excluded.updated_at, made_from = excluded.made_from, staged = null, staged_at = null",
        )
        .bind(self.environment.as_str())
        .bind(sync)
        .bind(scope)
        .bind(stands.number as i64)
        .bind(stands.load.map(|l| l.0.clone()))
        .bind(json(stands.state)?)
        .bind(now())
        .bind(stands.made_from)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn add_load(
        &self,
        tx: &mut Transaction<'static, Any>,
        lease: &Lease,
        load: &Load,
        outcome: &Outcome,
        run: &str,
        [from, to]: [&State; 2],
    ) -> Result<()> {
        sqlx::query(
            "insert into trib_loads
             (environment, load, sync, scope, number, generation, run, rows, outcome, from_state, to_state, committed_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             on conflict (environment, load) do nothing",
        )
        .bind(self.environment.as_str())
        .bind(load.id.0.as_str())
        .bind(lease.sync.as_str())
        .bind(load.scope.as_str())
        .bind(load.number as i64)
        .bind(lease.generation as i64)
        .bind(run)
        .bind(load.rows() as i64)
        .bind(json(outcome)?)
        .bind(json(from)?)
        .bind(json(to)?)
        .bind(now())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn add_schema_changes(&self, tx: &mut Transaction<'static, Any>, lease: &Lease, load: &Load, run: &str) -> Result<()> {
        for (table, change) in load.tables.iter().flat_map(|t| t.changes.iter().map(|c| (&t.table.name, c))) {
            sqlx::query(
                "insert into trib_schema_changes
                 (environment, run, sync, scope, load, table_name, change, description, changed_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(self.environment.as_str())
            .bind(run)
            .bind(lease.sync.as_str())
            .bind(load.scope.as_str())
            .bind(load.id.0.as_str())
            .bind(table.to_string())
            .bind(json(change)?)
            .bind(change.to_string())
            .bind(now())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        }
        Ok(())
    }
}

fn record(row: &AnyRow) -> Result<ScopeRecord> {
    let known = Known { number: number(row, 1)?, load: maybe(row, 2)?.map(LoadId), staged: maybe_parsed(row, 4)? };
    Ok(ScopeRecord {
        scope: text(row, 0)?,
        known,
        state: parsed(row, 3)?,
        staged_at: maybe_time(row, 5)?,
        pruned_at: maybe_time(row, 6)?,
        made_from: maybe(row, 8)?,
        updated_at: time(row, 7)?,
    })
}
