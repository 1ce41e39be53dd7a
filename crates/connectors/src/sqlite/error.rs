//! What SQLite's errors mean.

use std::path::Path;

use rusqlite::ErrorCode;
use trib_core::{Code, Error};

/// SQLite's code, whether the statement could not be prepared or not be carried out.
fn code(e: &rusqlite::Error) -> Option<ErrorCode> {
    match e {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        e => e.sqlite_error_code(),
    }
}

/// The statement itself is wrong: it names what is not there, or is not SQL.
pub fn is_mistaken(e: &rusqlite::Error) -> bool {
    code(e) == Some(ErrorCode::Unknown)
}

/// SQLite's own words, without the statement around them.
pub fn words(e: &rusqlite::Error) -> String {
    match e {
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => msg.clone(),
        e => e.to_string(),
    }
}

/// The error of a statement on the database at `path`.
pub fn error(e: rusqlite::Error, path: &Path) -> Error {
    let (code, message, hint) = match code(&e) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Code::Timeout, "another process has the database locked", "wait for it to finish, or give it longer with `busy_timeout`")
        }
        Some(ErrorCode::DiskFull) => (Code::ResourceExhausted, "the disk is full", "make room beside the database and run again"),
        Some(ErrorCode::NotADatabase) => {
            (Code::DataInvalid, "the file is not a SQLite database", "check `path`; an encrypted database cannot be read")
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            Code::DataInvalid,
            "the database file is damaged",
            "`sqlite3 FILE .recover` saves what can be read; restoring a backup may be better",
        ),
        Some(ErrorCode::CannotOpen) if !path.exists() => {
            (Code::NotFound, "there is no such database file", "check `path`, which is relative to the project")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => (
            Code::PermissionDenied,
            "the database file cannot be opened",
            "give this user permission on the file and its folder; a database in WAL mode also needs its `-wal` and `-shm` files",
        ),
        Some(ErrorCode::ReadOnly) => (
            Code::PermissionDenied,
            "the database may not be written",
            "give this user permission to write the file and its folder; if another process died while writing, \
             `sqlite3 FILE 'select 1'` rolls its transaction back",
        ),
        Some(ErrorCode::OutOfMemory) => (Code::ResourceExhausted, "SQLite is out of memory", "run fewer things at once"),
        Some(ErrorCode::SystemIoFailure) => {
            (Code::Io, "the database file could not be read or written", "check the disk and the free space beside the database")
        }
        Some(ErrorCode::OperationInterrupted) => (Code::Cancelled, "the statement was stopped", "run again"),
        Some(ErrorCode::ConstraintViolation) => (
            Code::DataInvalid,
            "the rows break a constraint of the table",
            "name a key that identifies rows, or take the constraint off the table",
        ),
        Some(ErrorCode::TooBig) => (Code::Unsupported, "a value is larger than SQLite can hold", "leave the column out with `select:`"),
        Some(ErrorCode::SchemaChanged) => (Code::TransactionAborted, "the tables were changed at the same time", "run again"),
        _ => (Code::SystemError, "SQLite refuses the statement", "the text above is SQLite's own"),
    };
    Error::new(code, message).detail(path.display().to_string()).hint(hint).source(e)
}
