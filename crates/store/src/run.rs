//! Runs: what was executed, how each stream fared, and whether it should stop or may go on.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use trib_core::{Code, Error, Result, State};

use crate::Store;
use crate::database::{failed, json, maybe, maybe_parsed, maybe_time, now, number, parsed, text, time};

/// A run of another machine that has not been seen for this long is taken for dead.
const UNSEEN: Duration = Duration::from_mins(10);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// How a run, or one stream in it, stands or ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Status { $($(#[$doc])* $name,)* }

        impl Status {
            /// As it stands in the database and in `--json` output.
            pub fn as_str(self) -> &'static str {
                match self { $(Status::$name => $text,)* }
            }
        }
    };
}

statuses! {
    Running = "running";
    Succeeded = "succeeded";
    /// Some streams failed and others succeeded.
    Partial = "partial";
    Failed = "failed";
    TestsFailed = "tests_failed";
    /// A guard holds it until somebody approves.
    Held = "held";
    Cancelled = "cancelled";
    /// Not begun, since something that it needs has failed or is paused.
    Skipped = "skipped";
    /// Its process is gone without a word.
    Interrupted = "interrupted";
}

/// What is known when a run begins.
#[derive(Clone, Debug, Default)]
pub struct RunStart {
    /// Unique; sorts by time.
    pub id: String,
    /// As it was called, without secrets: `trib run shop+`.
    pub command: String,
    /// The nodes that were selected.
    pub selection: Vec<String>,
    /// Which version of the project: a commit, or a hash of its files.
    pub project_version: Option<String>,
    pub job: Option<String>,
    /// Host, process, user.
    pub holder: String,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub command: String,
    pub selection: Vec<String>,
    pub project_version: Option<String>,
    pub job: Option<String>,
    pub holder: String,
    pub status: Status,
    /// From [`Error::to_json`].
    pub error: Option<Value>,
    pub started_at: DateTime<Utc>,
    /// See [`Store::beat`].
    pub seen_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// See [`Store::approve`].
    pub approved_by: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunEnd {
    pub status: Status,
    /// From [`Error::to_json`].
    pub error: Option<Value>,
}

/// What a stream has moved in a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub read: u64,
    /// Rows that are new at the destination.
    pub written: u64,
    pub updated: u64,
    pub deleted: u64,
    pub rejected: u64,
    pub bytes: u64,
}

/// How one stream ended.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    pub status: Status,
    pub counts: Counts,
    /// Of a stream that has gone on from a state, and was moved to another: a backfill has neither.
    pub from_state: Option<State>,
    pub to_state: Option<State>,
    /// For people, one line each; the changes themselves are kept with the loads.
    pub schema_changes: Vec<String>,
    /// From [`Error::to_json`].
    pub error: Option<Value>,
}

/// One stream of a run.
#[derive(Clone, Debug)]
pub struct RunStream {
    pub sync: String,
    pub stream: String,
    pub status: Status,
    pub counts: Counts,
    pub from_state: Option<State>,
    pub to_state: Option<State>,
    pub schema_changes: Vec<String>,
    pub error: Option<Value>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

const RUNS: &str = "select id, command, selection, project_version, job, holder, status, error, started_at, seen_at, finished_at,
    cancel_requested_at, approved_by, live from trib_runs";

impl Store {
    pub async fn start_run(&self, run: &RunStart) -> Result<()> {
        let live = self.live.vouch(run_key(&run.id))?;
        sqlx::query(
            "insert into trib_runs (environment, id, command, selection, project_version, job, holder, live, status, started_at, seen_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, 'running', $9, $9)",
        )
        .bind(self.environment.as_str())
        .bind(run.id.as_str())
        .bind(run.command.as_str())
        .bind(json(&run.selection)?)
        .bind(run.project_version.as_deref())
        .bind(run.job.as_deref())
        .bind(run.holder.as_str())
        .bind(live)
        .bind(now())
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// A sign of life, for other machines; to be given every minute or so.
    pub async fn beat(&self, run: &str) -> Result<()> {
        sqlx::query("update trib_runs set seen_at = $3 where environment = $1 and id = $2")
            .bind(self.environment.as_str())
            .bind(run)
            .bind(now())
            .execute(&self.database.pool)
            .await
            .map_err(failed)?;
        Ok(())
    }

    pub async fn finish_run(&self, run: &str, end: &RunEnd) -> Result<()> {
        sqlx::query("update trib_runs set status = $3, error = $4, seen_at = $5, finished_at = $5 where environment = $1 and id = $2")
            .bind(self.environment.as_str())
            .bind(run)
            .bind(end.status.as_str())
            .bind(end.error.as_ref().map(json).transpose()?)
            .bind(now())
            .execute(&self.database.pool)
            .await
            .map_err(failed)?;
        self.live.ended(&run_key(run));
        Ok(())
    }

    /// The latest runs, the newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<Run>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{RUNS} where environment = $1 order by started_at desc, id desc limit $2")))
            .bind(self.environment.as_str())
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| self.run_of(row)).collect()
    }

    pub async fn run(&self, id: &str) -> Result<Option<Run>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{RUNS} where environment = $1 and id = $2")))
            .bind(self.environment.as_str())
            .bind(id)
            .fetch_optional(&self.database.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(|row| self.run_of(row)).transpose()
    }

    /// Begins a stream, or moves its counts on. `counts` are totals, not differences.
    pub async fn stream_progress(&self, run: &str, sync: &str, stream: &str, counts: &Counts) -> Result<()> {
        let end = StreamEnd {
            status: Status::Running,
            counts: *counts,
            from_state: None,
            to_state: None,
            schema_changes: Vec::new(),
            error: None,
        };
        self.put_stream(run, sync, stream, &end, None).await
    }

    pub async fn finish_stream(&self, run: &str, sync: &str, stream: &str, end: &StreamEnd) -> Result<()> {
        self.put_stream(run, sync, stream, end, Some(now())).await
    }

    /// The streams of a run in the order in which they began.
    pub async fn run_streams(&self, run: &str) -> Result<Vec<RunStream>> {
        let rows = sqlx::query(
            "select sync, stream, status, rows_read, rows_written, rows_updated, rows_deleted, rows_rejected, bytes,
                from_state, to_state, schema_changes, error, started_at, finished_at
             from trib_run_streams where environment = $1 and run = $2 order by started_at, sync, stream",
        )
        .bind(self.environment.as_str())
        .bind(run)
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(stream_of).collect()
    }

    /// For each sync and stream the end of its last good run that has read on from where it stood, or was moved in another way. What is read again
    /// makes nothing fresh.
    pub async fn fresh(&self) -> Result<BTreeMap<(String, String), DateTime<Utc>>> {
        let rows = sqlx::query(
            "select sync, stream, max(finished_at) from trib_run_streams
             where environment = $1 and status = 'succeeded' and finished_at is not null and (from_state is not null or to_state is not null)
             group by sync, stream",
        )
        .bind(self.environment.as_str())
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| Ok(((text(row, 0)?, text(row, 1)?), time(row, 2)?))).collect()
    }

    /// Asks a run to stop at its next safe point. Fails with `not_found` when no such run is going.
    pub async fn request_cancel(&self, run: &str) -> Result<()> {
        let asked = sqlx::query("update trib_runs set cancel_requested_at = $3 where environment = $1 and id = $2 and status = 'running'")
            .bind(self.environment.as_str())
            .bind(run)
            .bind(now())
            .execute(&self.database.pool)
            .await
            .map_err(failed)?;
        found(asked.rows_affected(), "no run of this name is going", run)
    }

    pub async fn cancel_requested(&self, run: &str) -> Result<bool> {
        Ok(self.run(run).await?.is_some_and(|r| r.cancel_requested_at.is_some()))
    }

    /// Lets what a guard held go ahead, once it is run again. A yes counts once: of two that say it, the second gets `usage_invalid`. Fails with
    /// `not_found` when the run was not held.
    pub async fn approve(&self, run: &str, by: &str) -> Result<()> {
        let approved = sqlx::query(
            "update trib_runs set approved_by = $3, approved_at = $4 where environment = $1 and id = $2 and status = 'held'
             and approved_by is null",
        )
        .bind(self.environment.as_str())
        .bind(run)
        .bind(by)
        .bind(now())
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        if approved.rows_affected() == 0 && self.run(run).await?.is_some_and(|r| r.approved_by.is_some()) {
            return Err(Error::new(Code::UsageInvalid, "the run was approved already, and a yes counts once")
                .detail(run)
                .hint("see what is held now: `trib run`; `--allow-empty` says yes beforehand"));
        }
        found(approved.rows_affected(), "no run of this name is held", run)
    }

    async fn put_stream(&self, run: &str, sync: &str, stream: &str, end: &StreamEnd, finished: Option<String>) -> Result<()> {
        let c = &end.counts;
        let changes = if end.schema_changes.is_empty() { None } else { Some(json(&end.schema_changes)?) };
        sqlx::query(
            "insert into trib_run_streams
             (environment, run, sync, stream, status, rows_read, rows_written, rows_updated, rows_deleted, rows_rejected, bytes,
              from_state, to_state, schema_changes, error, started_at, finished_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             on conflict (environment, run, sync, stream) do update set status = excluded.status, rows_read = excluded.rows_read,
                rows_written = excluded.rows_written, rows_updated = excluded.rows_updated, rows_deleted = excluded.rows_deleted,
                rows_rejected = excluded.rows_rejected, bytes = excluded.bytes, from_state = excluded.from_state,
                to_state = excluded.to_state, schema_changes = excluded.schema_changes, error = excluded.error,
                finished_at = excluded.finished_at",
        )
        .bind(self.environment.as_str())
        .bind(run)
        .bind(sync)
        .bind(stream)
        .bind(end.status.as_str())
        .bind(c.read as i64)
        .bind(c.written as i64)
        .bind(c.updated as i64)
        .bind(c.deleted as i64)
        .bind(c.rejected as i64)
        .bind(c.bytes as i64)
        .bind(end.from_state.as_ref().map(json).transpose()?)
        .bind(end.to_state.as_ref().map(json).transpose()?)
        .bind(changes)
        .bind(end.error.as_ref().map(json).transpose()?)
        .bind(now())
        .bind(finished)
        .execute(&self.database.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    fn run_of(&self, row: &AnyRow) -> Result<Run> {
        let seen_at = time(row, 9)?;
        let mut status = status(row, 6)?;
        let unseen = || (Utc::now() - seen_at).to_std().is_ok_and(|age| age > UNSEEN);
        if status == Status::Running && (self.live.is_gone(&text(row, 13)?) || unseen()) {
            status = Status::Interrupted;
        }
        Ok(Run {
            id: text(row, 0)?,
            command: text(row, 1)?,
            selection: parsed(row, 2)?,
            project_version: maybe(row, 3)?,
            job: maybe(row, 4)?,
            holder: text(row, 5)?,
            status,
            error: maybe_parsed(row, 7)?,
            started_at: time(row, 8)?,
            seen_at,
            finished_at: maybe_time(row, 10)?,
            cancel_requested_at: maybe_time(row, 11)?,
            approved_by: maybe(row, 12)?,
        })
    }
}

fn stream_of(row: &AnyRow) -> Result<RunStream> {
    let counts = Counts {
        read: number(row, 3)?,
        written: number(row, 4)?,
        updated: number(row, 5)?,
        deleted: number(row, 6)?,
        rejected: number(row, 7)?,
        bytes: number(row, 8)?,
    };
    Ok(RunStream {
        sync: text(row, 0)?,
        stream: text(row, 1)?,
        status: status(row, 2)?,
        counts,
        from_state: maybe_parsed(row, 9)?,
        to_state: maybe_parsed(row, 10)?,
        schema_changes: maybe_parsed(row, 11)?.unwrap_or_default(),
        error: maybe_parsed(row, 12)?,
        started_at: time(row, 13)?,
        finished_at: maybe_time(row, 14)?,
    })
}

fn status(row: &AnyRow, column: usize) -> Result<Status> {
    Ok(serde_json::from_value(Value::String(text(row, column)?))?)
}

fn run_key(run: &str) -> String {
    format!("run {run}")
}

fn found(rows: u64, message: &'static str, run: &str) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::new(Code::NotFound, message).detail(run).hint("`trib runs` lists them")) }
}
