//! Opening the database file, and running blocking work on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use trib_core::{Code, Error, Result};

use super::error::error;
use super::kind::Kind;

/// A connection's settings, resolved.
#[derive(Debug)]
pub struct Database {
    pub path: PathBuf,
    pub busy_timeout: Duration,
    /// Kinds that the user declares, by `table.column`.
    pub columns: BTreeMap<String, Kind>,
    pub threads: usize,
}

impl Database {
    /// A connection that cannot write, not even by mistake.
    pub fn reader(&self) -> Result<Connection> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// A connection for reading a database that is ours to write: what a crash has left half done is rolled back first.
    pub fn recovering_reader(&self) -> Result<Connection> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA query_only = ON").at(&self.path)?;
        Ok(connection)
    }

    /// A connection to the database, which must be there.
    pub fn writer(&self) -> Result<Connection> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.prepare_writer(&connection)?;
        Ok(connection)
    }

    /// A connection to the database, which is made when it is not there.
    pub fn creator(&self) -> Result<Connection> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::from(e).detail(folder.display().to_string()))?;
        }
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        self.prepare_writer(&connection)?;
        Ok(connection)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).at(&self.path)?;
        connection.busy_timeout(self.busy_timeout).at(&self.path)?;
        // Opening reads nothing; this tells a database from another file.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).at(&self.path)?;
        Ok(connection)
    }

    fn prepare_writer(&self, connection: &Connection) -> Result<()> {
        // Loads come table by table, so rows that refer to each other cannot all be there at once; and replacing a table must not
        // cascade into others. Renaming a rebuilt table must leave the views that name it alone.
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; PRAGMA cache_size = -65536;").at(&self.path)
    }
}

/// Gives SQLite's errors their meaning and place.
pub trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|e| error(e, path))
    }
}

/// Runs blocking work where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        if e.is_cancelled() {
            Error::new(Code::Cancelled, "the run was stopped")
        } else {
            Error::internal("work on the database has panicked").source(e)
        }
    })?
}

/// An identifier as it stands in SQL.
pub fn quoted(name: &str) -> String {
    trib_kit::sql::ANSI.identifier(name)
}

/// Identifiers as they stand in SQL, separated by commas.
pub fn quoted_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    trib_kit::sql::ANSI.identifiers(names)
}
