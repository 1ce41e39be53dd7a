//! Leases and markers: two small tables beside the user's.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row};
use trib_core::{Code, Error, Lease, LoadId, Marker, Result, State};

/// Made by the first `open`.
const CREATE: &str = "
CREATE TABLE IF NOT EXISTS main._trib_leases (sync TEXT PRIMARY KEY, generation INTEGER NOT NULL, holder TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS main._trib_markers (
    sync TEXT NOT NULL, scope TEXT NOT NULL, number INTEGER NOT NULL, load TEXT NOT NULL, generation INTEGER NOT NULL,
    state TEXT NOT NULL, committed_at TEXT NOT NULL, filled TEXT, PRIMARY KEY (sync, scope)
);";

const COLUMNS: &str = "scope, number, load, generation, state, committed_at, filled";

/// How the table of markers is.
#[derive(PartialEq)]
pub enum Made {
    Not,
    /// By an earlier version: it lacks the last column.
    Before,
    Whole,
}

pub fn made(connection: &Connection) -> rusqlite::Result<Made> {
    let columns = "SELECT count(*) > 0, coalesce(sum(name = 'filled'), 0) > 0 FROM pragma_table_info('_trib_markers', 'main')";
    connection.query_row(columns, [], |row| match (row.get(0)?, row.get(1)?) {
        (false, _) => Ok(Made::Not),
        (true, false) => Ok(Made::Before),
        (true, true) => Ok(Made::Whole),
    })
}

/// Makes the tables and raises the sync's generation. Inside a write transaction.
pub fn raise(connection: &Connection, lease: &Lease) -> rusqlite::Result<std::result::Result<(), Error>> {
    connection.execute_batch(CREATE)?;
    if made(connection)? == Made::Before {
        connection.execute_batch("ALTER TABLE main._trib_markers ADD COLUMN filled TEXT")?;
    }
    let found = generation(connection, &lease.sync)?;
    if found > lease.generation {
        return Ok(Err(Error::new(Code::LeaseLost, "another run has taken this sync over")
            .detail(format!("generation {found} is later than {}", lease.generation))
            .hint("let the other run finish; `trib runs` shows it")));
    }
    connection.execute(
        "INSERT INTO main._trib_leases (sync, generation, holder) VALUES (?1, ?2, ?3) \
         ON CONFLICT (sync) DO UPDATE SET generation = excluded.generation, holder = excluded.holder",
        (&lease.sync, lease.generation as i64, &lease.holder),
    )?;
    Ok(Ok(()))
}

/// The greatest generation that the sync was opened with.
pub fn generation(connection: &Connection, sync: &str) -> rusqlite::Result<u64> {
    let found: Option<i64> =
        connection.query_row("SELECT generation FROM main._trib_leases WHERE sync = ?1", [sync], |r| r.get(0)).optional()?;
    Ok(found.unwrap_or(0) as u64)
}

/// All markers of a sync.
pub fn all(connection: &Connection, sync: &str) -> rusqlite::Result<Vec<Result<Marker>>> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM main._trib_markers WHERE sync = ?1 ORDER BY scope"))?;
    statement.query_map([sync], |row| Stored::of(row).map(Stored::marker))?.collect()
}

pub fn one(connection: &Connection, sync: &str, scope: &str) -> rusqlite::Result<Option<Result<Marker>>> {
    connection
        .query_row(&format!("SELECT {COLUMNS} FROM main._trib_markers WHERE sync = ?1 AND scope = ?2"), [sync, scope], |row| {
            Stored::of(row).map(Stored::marker)
        })
        .optional()
}

pub fn write(connection: &Connection, sync: &str, marker: &Marker) -> Result<rusqlite::Result<usize>> {
    let (state, filled) = (serde_json::to_string(&marker.state)?, serde_json::to_string(&marker.filled)?);
    let committed_at = marker.committed_at.to_rfc3339();
    Ok(connection.execute(
        &format!("INSERT OR REPLACE INTO main._trib_markers (sync, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        (sync, &marker.scope, marker.number as i64, &marker.load.0, marker.generation as i64, state, committed_at, filled),
    ))
}

pub fn forget(connection: &Connection, sync: &str, scope: &str) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM main._trib_markers WHERE sync = ?1 AND scope = ?2", [sync, scope])
}

struct Stored {
    scope: String,
    number: i64,
    load: String,
    generation: i64,
    state: String,
    committed_at: String,
    filled: Option<String>,
}

impl Stored {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            scope: row.get(0)?,
            number: row.get(1)?,
            load: row.get(2)?,
            generation: row.get(3)?,
            state: row.get(4)?,
            committed_at: row.get(5)?,
            filled: row.get(6)?,
        })
    }

    fn marker(self) -> Result<Marker> {
        let broken = || {
            Error::new(Code::DataInvalid, "a marker in the database is not one that Tributary has written")
                .stream(&self.scope)
                .hint("`trib state reset` starts the stream again")
        };
        let state: State = serde_json::from_str(&self.state).map_err(|e| broken().source(e))?;
        let committed_at: DateTime<Utc> = self.committed_at.parse().map_err(|e: chrono::ParseError| broken().source(e))?;
        let filled = self.filled.as_deref().map_or(Ok(Vec::new()), serde_json::from_str).map_err(|e| broken().source(e))?;
        Ok(Marker {
            filled,
            number: self.number as u64,
            load: LoadId(self.load),
            generation: self.generation as u64,
            state,
            committed_at,
            scope: self.scope,
        })
    }
}
