//! Our own tables at the destination: who may commit, how far each sync has come, and what is staged.

use chrono::{DateTime, Utc};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};
use trib_core::{Error, Lease, Load, LoadId, Marker, Part, Result, State};
use trib_kit::sql::literal;

use super::connect::Session;
use super::error;
use super::layout::Place;

/// Schema or table is not there.
const NOT_THERE: [&str; 2] = ["3F000", "42P01"];
/// A table of an earlier version lacks a column.
const NO_COLUMN: &str = "42703";

/// The state of a load is kept as `json`, not `jsonb`: it comes back to the letter.
///
/// `parts` says which transaction has written a part's rows. That is how rows of an attempt whose receipt never came are told from the
/// others in one staging table: a row's `xmin` is the transaction that wrote it.
const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS _trib;
CREATE TABLE IF NOT EXISTS _trib.leases (sync text PRIMARY KEY, generation bigint NOT NULL, holder text NOT NULL, taken_at timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS _trib.markers (sync text, scope text, number bigint NOT NULL, load text NOT NULL, generation bigint NOT NULL,
  state json NOT NULL, committed_at timestamptz NOT NULL, filled json, PRIMARY KEY (sync, scope));
CREATE TABLE IF NOT EXISTS _trib.staged (schema_name text, table_name text, sync text NOT NULL, load text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (schema_name, table_name));
CREATE TABLE IF NOT EXISTS _trib.parts (schema_name text, table_name text, split bigint, attempt bigint, xid bigint NOT NULL, rows bigint NOT NULL,
  PRIMARY KEY (schema_name, table_name, split, attempt));
COMMENT ON SCHEMA _trib IS 'Tributary: leases, markers and staged parts of its syncs'";

/// What markers of earlier versions lack.
const UPGRADE: &str = "ALTER TABLE _trib.markers ADD COLUMN IF NOT EXISTS filled json";

/// A part as the destination remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedPart {
    pub split: u32,
    pub attempt: u32,
    pub xid: i64,
    pub rows: u64,
}

/// Raises the sync's generation, and gives the markers. Two statements, since the second must see what a commit did that the first
/// has waited for.
pub async fn open(session: &Session, lease: &Lease) -> Result<Vec<Marker>> {
    let sql = format!(
        "INSERT INTO _trib.leases AS l VALUES ({sync}, {generation}, {holder}, now()) ON CONFLICT (sync) DO UPDATE \
         SET generation = excluded.generation, holder = excluded.holder, taken_at = excluded.taken_at \
         WHERE l.generation <= excluded.generation; {markers}",
        sync = literal(&lease.sync),
        generation = lease.generation,
        holder = literal(&lease.holder),
        markers = select_markers(&lease.sync, None),
    );
    let rows = match session.client.simple_query(&sql).await {
        Err(e) if error::is_state(&e, &NOT_THERE) => {
            create(session).await?;
            session.rows(&sql).await?
        }
        Err(e) if error::is_state(&e, &[NO_COLUMN]) => {
            session.run(UPGRADE).await.map_err(|e| e.hint("let the owner of the table `_trib.markers` run Tributary once"))?;
            session.rows(&sql).await?
        }
        Err(e) => return Err(error::driver(e)),
        Ok(messages) => messages.into_iter().filter_map(row).collect(),
    };
    rows.iter().map(marker).collect()
}

/// The markers, with nothing raised and nothing made; `None` where an earlier version has made their table.
pub async fn markers(session: &Session, sync: &str) -> Result<Option<Vec<Marker>>> {
    match session.client.simple_query(&select_markers(sync, None)).await {
        Err(e) if error::is_state(&e, &NOT_THERE) => Ok(Some(Vec::new())),
        Err(e) if error::is_state(&e, &[NO_COLUMN]) => Ok(None),
        Err(e) => Err(error::driver(e)),
        Ok(messages) => messages.into_iter().filter_map(row).map(|row| marker(&row)).collect::<Result<_>>().map(Some),
    }
}

fn row(message: SimpleQueryMessage) -> Option<SimpleQueryRow> {
    if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
}

/// `CREATE … IF NOT EXISTS` is no protection against somebody who does the same at the same moment; the lock is.
async fn create(session: &Session) -> Result<()> {
    session.run(&format!("BEGIN; SELECT pg_advisory_xact_lock(hashtext('_trib')); {CREATE}; COMMIT")).await.map_err(|e| {
        let hint = "GRANT CREATE ON DATABASE … TO …, or let the owner run `CREATE SCHEMA _trib AUTHORIZATION …` once";
        if e.code() == trib_core::Code::PermissionDenied { e.hint(hint) } else { e }
    })
}

/// The statements of a commit's beginning; their rows are for [`gate_rows`].
///
/// The lease is locked against a later holder, but not against other loads of the same sync; against a second commit of the
/// same scope there is a lock of its own, since before the first load there is no marker to lock.
pub fn lock(load: &Load, lease: &Lease) -> String {
    format!(
        "SELECT pg_advisory_xact_lock(hashtextextended({}, 0)); SELECT generation FROM _trib.leases WHERE sync = {} FOR SHARE; {}",
        literal(&format!("_trib {} {}", lease.sync, load.scope)),
        literal(&lease.sync),
        select_markers(&lease.sync, Some(&load.scope))
    )
}

fn select_markers(sync: &str, scope: Option<&str>) -> String {
    let scope = scope.map(|scope| format!(" AND scope = {}", literal(scope))).unwrap_or_default();
    format!(
        "SELECT scope, number, load, generation AS marked_by, state, to_char(committed_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS committed_at, filled \
         FROM _trib.markers WHERE sync = {}{scope} ORDER BY scope",
        literal(sync)
    )
}

/// The greatest generation and the marker, out of the rows of [`lock`].
pub fn gate_rows(rows: &[SimpleQueryRow]) -> Result<(u64, Option<Marker>)> {
    let generation = rows.iter().find_map(|row| row.try_get("generation").ok().flatten()).and_then(|g| g.parse().ok());
    let marked = rows.iter().find(|row| row.try_get("marked_by").is_ok()).map(marker).transpose()?;
    Ok((generation.unwrap_or(0), marked))
}

fn marker(row: &SimpleQueryRow) -> Result<Marker> {
    let text = |column: &str| row.try_get(column).ok().flatten().ok_or_else(|| Error::internal("a marker is not complete"));
    let number = |column: &str| text(column)?.parse::<u64>().map_err(|_| Error::internal("a marker's number is none"));
    let state: State = serde_json::from_str(text("state")?)?;
    let committed_at: DateTime<Utc> = text("committed_at")?.parse().map_err(|_| Error::internal("a marker's time is none"))?;
    let filled = row.try_get("filled").ok().flatten().map(serde_json::from_str).transpose()?.unwrap_or_default();
    Ok(Marker {
        scope: text("scope")?.to_owned(),
        number: number("number")?,
        load: LoadId(text("load")?.to_owned()),
        generation: number("marked_by")?,
        state,
        filled,
        committed_at,
    })
}

pub fn write_marker(load: &Load, lease: &Lease) -> Result<String> {
    Ok(format!(
        "INSERT INTO _trib.markers (sync, scope, number, load, generation, state, committed_at, filled) \
         VALUES ({sync}, {scope}, {number}, {load}, {generation}, {state}, clock_timestamp(), {filled}) \
         ON CONFLICT (sync, scope) DO UPDATE SET number = excluded.number, load = excluded.load, generation = excluded.generation, \
         state = excluded.state, committed_at = excluded.committed_at, filled = excluded.filled",
        sync = literal(&lease.sync),
        scope = literal(&load.scope),
        number = load.number,
        load = literal(&load.id.0),
        generation = lease.generation,
        state = literal(&serde_json::to_string(&load.state)?),
        filled = literal(&serde_json::to_string(&load.filled)?),
    ))
}

pub fn forget(sync: &str, scopes: &[String]) -> String {
    let scopes: Vec<String> = scopes.iter().map(|s| literal(s)).collect();
    format!("DELETE FROM _trib.markers WHERE sync = {} AND scope IN ({})", literal(sync), scopes.join(", "))
}

/// Registers a staging table. Whoever comes second waits here until the first has made the table.
pub fn register_table(part: &Part, place: &Place) -> String {
    format!(
        "INSERT INTO _trib.staged (schema_name, table_name, sync, load) VALUES ({}, {}, {}, {}) ON CONFLICT DO NOTHING",
        literal(&place.schema),
        literal(&place.name),
        literal(&part.sync),
        literal(&part.load.0)
    )
}

/// Registers a part in the transaction that has written its rows.
pub fn register_part(part: &Part, place: &Place, rows: u64) -> String {
    format!(
        "INSERT INTO _trib.parts VALUES ({}, {}, {}, {}, txid_current() & 4294967295, {rows})",
        literal(&place.schema),
        literal(&place.name),
        part.split,
        part.attempt
    )
}

pub async fn parts(session: &Session, place: &Place) -> Result<Vec<StagedPart>> {
    let sql = format!(
        "SELECT split, attempt, xid, rows FROM _trib.parts WHERE schema_name = {} AND table_name = {}",
        literal(&place.schema),
        literal(&place.name)
    );
    let number = |row: &SimpleQueryRow, i: usize| row.get(i).and_then(|n| n.parse::<i64>().ok()).unwrap_or_default();
    let rows = session.rows(&sql).await?;
    Ok(rows
        .iter()
        .map(|row| StagedPart {
            split: number(row, 0) as u32,
            attempt: number(row, 1) as u32,
            xid: number(row, 2),
            rows: number(row, 3).unsigned_abs(),
        })
        .collect())
}

/// The staging tables of a sync's loads: of one load, or of all but some.
pub async fn staged(session: &Session, loads: Loads<'_>) -> Result<Vec<Place>> {
    let condition = match loads {
        Loads::One(load) => format!("load = {}", literal(&load.0)),
        Loads::AllBut { sync, keep } => {
            let keep: Vec<String> = keep.iter().map(|load| literal(&load.0)).collect();
            let but = if keep.is_empty() { String::new() } else { format!(" AND load NOT IN ({})", keep.join(", ")) };
            format!("sync = {}{but}", literal(sync))
        }
    };
    let sql = format!("SELECT schema_name, table_name FROM _trib.staged WHERE {condition}");
    let messages = match session.client.simple_query(&sql).await {
        // Nothing was ever loaded here.
        Err(e) if error::is_state(&e, &NOT_THERE) => return Ok(Vec::new()),
        Err(e) => return Err(error::driver(e)),
        Ok(messages) => messages,
    };
    Ok(messages
        .iter()
        .filter_map(|message| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
            Some(Place { schema: row.get(0)?.to_owned(), name: row.get(1)?.to_owned() })
        })
        .collect())
}

#[derive(Clone, Copy)]
pub enum Loads<'a> {
    One(&'a LoadId),
    AllBut { sync: &'a str, keep: &'a [LoadId] },
}

/// Drops a staging table with its registration.
pub fn drop_staged(place: &Place) -> String {
    format!("DROP TABLE IF EXISTS {}; {}", place.sql(), forget_staged(place))
}

/// Removes the registration of a staging table that is one no longer.
pub fn forget_staged(place: &Place) -> String {
    let which = format!("schema_name = {} AND table_name = {}", literal(&place.schema), literal(&place.name));
    format!("DELETE FROM _trib.parts WHERE {which}; DELETE FROM _trib.staged WHERE {which}")
}
