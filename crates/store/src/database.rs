//! Connecting to SQLite or PostgreSQL through one interface.
//!
//! Both understand the same SQL as long as it keeps to text and 64-bit integers: times are RFC 3339 in UTC with microseconds, so
//! that they sort as text, and JSON is text too.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{Any, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection, Row, Transaction};
use trib_core::secret::redact_url;
use trib_core::{Code, Error, Result};

/// How long a statement waits for another process to finish writing.
const BUSY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

pub(crate) struct Database {
    pub(crate) pool: AnyPool,
    pub(crate) backend: Backend,
}

impl Database {
    /// Returns the database, which has answered, and the folder for signs of life beside it.
    pub(crate) async fn open(url: &str, base: &Path) -> Result<(Self, PathBuf)> {
        sqlx::any::install_default_drivers();
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = options(url)?;
            // The pool would take a refused connection for a server that is about to start, and wait.
            AnyConnection::connect_with(&options).await.map_err(failed)?.close().await.map_err(failed)?;
            let pool = pool(4).connect_lazy_with(options);
            return Ok((Self { pool, backend: Backend::Postgres }, base.join(".tributary/control.live")));
        }
        let path = match url.strip_prefix("sqlite:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if url.contains("://") => {
                return Err(Error::new(Code::ConfigInvalid, "the control database is of no kind that is known")
                    .detail(redact_url(url))
                    .setting("state")
                    .hint("use a path, `sqlite:PATH` or `postgres://…`"));
            }
            None => url,
        };
        let path = prepared(&base.join(path))?;
        let url = format!("sqlite://{}?mode=rwc", percent_encoded(&path)?);
        // One connection: SQLite has one writer anyway, and within a process the pool queues more fairly than the file lock.
        let pool = pool(1).connect_lazy_with(options(&url)?);
        // WAL with NORMAL survives the death of the process at any instant. After a power cut the last transactions may be
        // missing, in order and whole, and each of them heals: without the state after a commit, the record of the staged load and the
        // destination's marker move it on; without that record too, the marker is ahead, and the run says so rather than load twice;
        // without the record of parts that were not committed, they are swept and read again.
        let pragmas = format!("pragma busy_timeout = {}; pragma journal_mode = wal; pragma synchronous = normal", BUSY.as_millis());
        sqlx::raw_sql(AssertSqlSafe(pragmas)).execute(&pool).await.map_err(failed)?;
        let mut live = path.into_os_string();
        live.push(".live");
        Ok((Self { pool, backend: Backend::Sqlite }, live.into()))
    }

    /// A transaction that may write. SQLite takes its write lock now: a transaction that reads first and writes later could not
    /// wait for another writer, since what it has read would be outdated by then.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>> {
        let begun = match self.backend {
            Backend::Sqlite => self.pool.begin_with("begin immediate").await,
            Backend::Postgres => self.pool.begin().await,
        };
        begun.map_err(failed)
    }

    /// The time by which leases expire: one clock for all machines that share the database.
    pub(crate) async fn now(&self, tx: &mut Transaction<'static, Any>) -> Result<DateTime<Utc>> {
        match self.backend {
            Backend::Sqlite => Ok(Utc::now()),
            Backend::Postgres => {
                let sql = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
                let row = sqlx::query(sql).fetch_one(&mut **tx).await.map_err(failed)?;
                time(&row, 0)
            }
        }
    }
}

fn pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(BUSY + Duration::from_secs(5)).idle_timeout(None).max_lifetime(None)
}

fn options(url: &str) -> Result<AnyConnectOptions> {
    AnyConnectOptions::from_str(url).map_err(|e| {
        Error::new(Code::ConfigInvalid, "the control database's URL is not right").detail(redact_url(url)).setting("state").source(e)
    })
}

/// Makes the folder and resolves it, so that no `..` is left for the URL to misread.
fn prepared(path: &Path) -> Result<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Code::ConfigInvalid, "the control database needs a file name").setting("state"));
    };
    let folder = std::fs::create_dir_all(folder)
        .and_then(|()| folder.canonicalize())
        .map_err(|e| Error::from(e).detail(folder.to_string_lossy()).setting("state"))?;
    Ok(folder.join(name))
}

fn percent_encoded(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| {
        Error::new(Code::ConfigInvalid, "the control database's path is not UTF-8").detail(path.to_string_lossy()).setting("state")
    })?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    Ok(text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect())
}

/// What an error of the database means.
pub(crate) fn failed(e: sqlx::Error) -> Error {
    let (code, message, hint) = match &e {
        sqlx::Error::Database(d) => match d.code().as_deref().map(meaning) {
            Some(known) => known,
            None => (Code::SystemError, "the control database answered with an error", ""),
        },
        sqlx::Error::Io(_) => (Code::ConnectionLost, "the control database cannot be reached", "`state:` in the project names it"),
        sqlx::Error::Tls(_) => (Code::TlsFailed, "TLS with the control database could not be agreed on", ""),
        sqlx::Error::PoolTimedOut => (Code::Timeout, "the control database did not answer in time", ""),
        sqlx::Error::Configuration(_) => (Code::ConfigInvalid, "the control database's URL is not right", "see `state:` in the project"),
        _ => (Code::Internal, "the control database does not hold what was expected", ""),
    };
    let error = Error::new(code, message).source(e);
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// PostgreSQL's codes have five characters; SQLite's are numbers whose lowest byte is the kind.
fn meaning(code: &str) -> (Code, &'static str, &'static str) {
    let kind = if code.len() == 5 { None } else { code.parse::<u32>().ok().map(|n| n & 0xff) };
    match (code, kind) {
        ("28P01" | "28000", _) => (Code::AuthFailed, "the control database does not accept the credentials", ""),
        ("42501", _) | (_, Some(3 | 8)) => (
            Code::PermissionDenied,
            "the control database may not be written",
            "its user needs to create and write tables, and a file must be writable with its folder",
        ),
        ("3D000", _) => (Code::NotFound, "the control database is not there", "create it first: `createdb NAME`"),
        ("53100", _) | (_, Some(13)) => (Code::ResourceExhausted, "the disk of the control database is full", ""),
        ("40001" | "40P01", _) => (Code::TransactionAborted, "the control database gave up the transaction", ""),
        ("57P01" | "57P02" | "57P03" | "53300", _) => (Code::ConnectionLost, "the control database is not taking connections", ""),
        (_, Some(5 | 6)) => (Code::Timeout, "another process keeps the control database locked", "see whether a run hangs: `trib runs`"),
        (_, Some(11 | 26)) => (
            Code::DataInvalid,
            "the control database is damaged, or is no SQLite file",
            "move it away; `trib state recover` rebuilds the state from the destination's markers",
        ),
        (_, Some(14)) => (Code::Io, "the control database cannot be opened", "its folder must be writable"),
        _ => (Code::SystemError, "the control database answered with an error", ""),
    }
}

/// A time as it is stored.
pub(crate) fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn now() -> String {
    stamp(Utc::now())
}

/// JSON as it is stored.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("a value cannot be stored as JSON").source(e))
}

/// PostgreSQL's text has no NUL character, and rows that are rejected may hold one.
pub(crate) fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(crate) fn text(row: &AnyRow, column: usize) -> Result<String> {
    row.try_get(column).map_err(failed)
}

pub(crate) fn maybe(row: &AnyRow, column: usize) -> Result<Option<String>> {
    row.try_get(column).map_err(failed)
}

pub(crate) fn number(row: &AnyRow, column: usize) -> Result<u64> {
    row.try_get::<i64, _>(column).map(|n| n.max(0) as u64).map_err(failed)
}

pub(crate) fn time(row: &AnyRow, column: usize) -> Result<DateTime<Utc>> {
    parse_time(&text(row, column)?)
}

pub(crate) fn maybe_time(row: &AnyRow, column: usize) -> Result<Option<DateTime<Utc>>> {
    maybe(row, column)?.as_deref().map(parse_time).transpose()
}

pub(crate) fn parsed<T: DeserializeOwned>(row: &AnyRow, column: usize) -> Result<T> {
    serde_json::from_str(&text(row, column)?).map_err(unreadable)
}

pub(crate) fn maybe_parsed<T: DeserializeOwned>(row: &AnyRow, column: usize) -> Result<Option<T>> {
    maybe(row, column)?.map(|t| serde_json::from_str(&t).map_err(unreadable)).transpose()
}

fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).map_err(unreadable)?;
    Ok(time.with_timezone(&Utc))
}

fn unreadable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::DataInvalid, "the control database holds a value that cannot be read")
        .source(e)
        .hint("it was edited by hand or written by another version; `trib state recover` rebuilds the state")
}
