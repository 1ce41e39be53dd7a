//! Several connections that see one state of the database.
//!
//! In WAL mode a reader keeps seeing the state in which its transaction began and disturbs no writer, so one state is held for the
//! whole run. With a rollback journal a reader keeps writers waiting, so there each split has a transaction of its own.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trib_core::{Error, Result, turn};

use super::database::{At, Database};

/// Attempts to begin all transactions without a commit in between, each a matter of microseconds.
const ATTEMPTS: usize = 50;

pub struct Snapshot {
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Connections that can be read from at once.
    pub readers: usize,
}

impl Snapshot {
    /// `None` when the database is not in WAL mode.
    pub fn begin(database: &Database) -> Result<Option<Arc<Self>>> {
        let at = &database.path;
        let watch = database.reader()?;
        let mode: String = watch.query_row("PRAGMA journal_mode", [], |r| r.get(0)).at(at)?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Ok(None);
        }
        // One more than reads, so that planning a stream never waits for another stream's read.
        let mut connections = (0..=database.threads).map(|_| database.reader()).collect::<Result<Vec<_>>>()?;
        for attempt in 1..=ATTEMPTS {
            // This number changes with each commit of another connection: https://www.sqlite.org/pragma.html#pragma_data_version
            let version = |c: &Connection| c.query_row("PRAGMA data_version", [], |r| r.get::<_, i64>(0));
            let before = version(&watch).at(at)?;
            for connection in &connections {
                begin(connection).at(at)?;
            }
            if version(&watch).at(at)? == before {
                break;
            }
            if attempt == ATTEMPTS {
                // Somebody commits without a pause. One connection sees one state in any case.
                connections.truncate(1);
                break;
            }
            for connection in &connections {
                connection.execute_batch("ROLLBACK").at(at)?;
            }
        }
        let permits = Arc::new(Semaphore::new(connections.len()));
        let readers = database.threads.min(connections.len());
        Ok(Some(Arc::new(Self { free: Mutex::new(connections), permits, readers })))
    }

    /// Waits for a connection that nobody reads from.
    pub async fn reader(self: Arc<Self>) -> Result<Reader> {
        let permit =
            turn::wait(self.permits.clone().acquire_owned()).await.map_err(|e| Error::internal("the snapshot was closed").source(e))?;
        let connection = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = connection.ok_or_else(|| Error::internal("a permit without a connection"))?;
        Ok(Reader { connection: Some(connection), home: Some((self, permit)) })
    }
}

/// Begins a transaction, and its view of the database with it.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN; SELECT count(*) FROM (SELECT 1 FROM main.sqlite_schema LIMIT 1)")
}

/// A connection inside a read transaction. Goes back to its snapshot when it is dropped.
pub struct Reader {
    connection: Option<Connection>,
    home: Option<(Arc<Snapshot>, OwnedSemaphorePermit)>,
}

impl Reader {
    /// With a transaction of its own.
    pub fn alone(database: &Database) -> Result<Self> {
        let connection = database.reader()?;
        begin(&connection).at(&database.path)?;
        Ok(Self { connection: Some(connection), home: None })
    }

    pub fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| Error::internal("the reader has given its connection back"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let (Some(connection), Some((snapshot, permit))) = (self.connection.take(), self.home.take()) {
            snapshot.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            // After the push, so that a permit always finds a connection.
            drop(permit);
        }
    }
}
