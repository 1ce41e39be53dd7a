//! Where parts are staged: a database file of its own for each, beside the target.
//!
//! `shop.db-trib-<sync>-<load>-<split>-<attempt>-<table>.db`; sync and table are hashes. A part is written without a journal and
//! synced to disk before its receipt is given, so a file without a receipt may be torn and a file with one is whole.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Receiver;
use trib_core::load::{Durability, RejectedRow};
use trib_core::name::system;
use trib_core::{Code, Error, LoadId, Part, Receipt, Result, Table, TableName};
use trib_kit::sift;

use super::database::{At, quoted, quoted_all};
use super::encode::Encoder;
use super::kind::Kind;

/// The one table of a side file.
pub const ROWS: &str = "rows";

/// [`Receipt::staged`] of this destination; `None` stands for no rows, and no file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    pub file: Option<String>,
}

/// What a stage is given, in order.
pub enum Piece {
    Batch(RecordBatch),
    /// The source has failed: nothing of the part is kept.
    Failed(Error),
    /// All rows are there. A channel that closes without it belongs to a stage that was given up.
    End,
}

fn short_hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..6])
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the names of all side files of a sync begin with.
fn prefix(target: &Path, sync: &str) -> String {
    format!("{}-trib-{}-", file_name(target), short_hash(sync))
}

/// The file of a part.
pub fn of_part(target: &Path, part: &Part, table: &TableName) -> PathBuf {
    let table = short_hash(&table.to_string());
    target.with_file_name(format!("{}{}-{}-{}-{table}.db", prefix(target, &part.sync), part.load, part.split, part.attempt))
}

/// The file that a commit gathers parts in.
pub fn of_gathered(target: &Path, sync: &str, load: &LoadId) -> PathBuf {
    target.with_file_name(format!("{}{load}-all-0-all.db", prefix(target, sync)))
}

/// The load that a file name belongs to, when it is a side file of this target; with its sync's prefix where that is known.
fn load_of(name: &str, target: &Path, sync: Option<&str>) -> Option<LoadId> {
    let rest = match sync {
        Some(sync) => name.strip_prefix(&prefix(target, sync))?,
        None => name.strip_prefix(&format!("{}-trib-", file_name(target)))?.split_once('-')?.1,
    };
    // SQLite may have put a journal beside a gathered file.
    let rest = rest.strip_suffix("-journal").unwrap_or(rest).strip_suffix(".db")?;
    // The load's id may have dashes of its own.
    let mut parts = rest.rsplitn(4, '-');
    let (_table, _attempt, _split) = (parts.next()?, parts.next()?, parts.next()?);
    Some(LoadId(parts.next()?.to_owned()))
}

/// Removes the side files of the loads that `gone` picks. Of all syncs when `sync` is `None`.
pub fn remove(target: &Path, sync: Option<&str>, gone: impl Fn(&LoadId) -> bool) -> Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(load) = name.to_str().and_then(|name| load_of(name, target, sync)) else {
            continue;
        };
        if gone(&load) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Not finding it is no error.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).detail(path.display().to_string())),
        _ => Ok(()),
    }
}

/// A new side file, in a transaction. Nothing protects it against a crash until [`seal`].
pub fn create(path: &Path) -> Result<Connection> {
    remove_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -16384; BEGIN;",
        )
        .at(path)?;
    Ok(connection)
}

/// The statement that makes a table of staged rows, with the declarations that the target gives them: values are converted
/// here, and not under the target's lock.
pub fn create_rows(name: &str, table: &Table) -> Result<String> {
    let schema = table.staging_schema();
    let columns: Result<Vec<String>> =
        schema.fields().iter().map(|f| Ok(format!("{} {}", quoted(f.name()), Kind::of_field(f)?.declaration()))).collect();
    Ok(format!("CREATE TABLE {name} ({});", columns?.join(", ")))
}

/// The statement that makes the index by which merging finds the last row of a key; empty where none is needed.
pub fn index_rows(name: &str, table: &Table) -> String {
    if !table.write.needs_sequence() || table.key.is_empty() {
        return String::new();
    }
    let columns = quoted_all(table.key.iter().map(String::as_str).chain([system::SEQ]));
    format!("CREATE INDEX {name}_key ON {name} ({columns});")
}

/// Ends the file.
pub fn finish(connection: Connection, path: &Path) -> Result<()> {
    connection.execute_batch("COMMIT;").at(path)?;
    connection.close().map_err(|(_, e)| e).at(path)
}

/// Ends the file and brings it to the disk.
fn seal(connection: Connection, path: &Path) -> Result<()> {
    finish(connection, path)?;
    sync(path)
}

/// What else a file that was filled elsewhere needs: its index, and to be on the disk.
pub fn index_and_sync(path: &Path, table: &Table) -> Result<()> {
    let index = index_rows(ROWS, table);
    if !index.is_empty() {
        Connection::open(path)
            .at(path)?
            .execute_batch(&format!("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {index}"))
            .at(path)?;
    }
    sync(path)
}

fn sync(path: &Path) -> Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    sync_folder(path)
}

/// The file's name must outlive a crash as its bytes do.
fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Writes one part, on a blocking thread.
pub fn write(target: &Path, part: &Part, table: &Table, pieces: Receiver<Piece>) -> Result<Receipt> {
    let path = of_part(target, part, &table.name);
    let written = write_file(&path, part, table, pieces);
    if written.is_err() {
        // Its error is the one that counts; what stays is swept later.
        let _ = remove_file(&path);
    }
    written
}

fn write_file(path: &Path, part: &Part, table: &Table, mut pieces: Receiver<Piece>) -> Result<Receipt> {
    let schema = table.staging_schema();
    let kinds: Vec<Kind> = schema.fields().iter().map(|f| Kind::of_field(f)).collect::<Result<_>>()?;
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let marks = vec!["?"; names.len()].join(", ");
    let insert = format!("INSERT INTO {ROWS} ({}) VALUES ({marks})", quoted_all(names.iter().copied()));
    let mut receipt = Receipt {
        part: part.clone(),
        table: table.name.clone(),
        rows: 0,
        bytes: 0,
        durability: Durability::Durable,
        staged: Value::Null,
        rejected: Vec::new(),
    };
    let mut file: Option<Connection> = None;
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Batch(batch)) if batch.num_rows() > 0 => {
                if file.is_none() {
                    let connection = create(path)?;
                    connection.execute_batch(&create_rows(ROWS, table)?).at(path)?;
                    file = Some(connection);
                }
                let connection = file.as_ref().ok_or_else(|| Error::internal("the side file is gone"))?;
                receipt.bytes += batch.get_array_memory_size() as u64;
                receipt.rows += insert_batch(connection, path, &insert, &kinds, (&batch, &table.key), &mut receipt.rejected)?;
            }
            Some(Piece::Batch(_)) => {}
            Some(Piece::Failed(e)) => return Err(e),
            Some(Piece::End) => break,
            None => return Err(Error::new(Code::Cancelled, "the stage was given up")),
        }
    }
    let mut staged = Staged { file: None };
    if let Some(connection) = file {
        connection.execute_batch(&index_rows(ROWS, table)).at(path)?;
        seal(connection, path)?;
        staged.file = Some(file_name(path));
    }
    receipt.staged = serde_json::to_value(staged)?;
    Ok(receipt)
}

fn insert_batch(
    connection: &Connection,
    path: &Path,
    insert: &str,
    kinds: &[Kind],
    (batch, key): (&RecordBatch, &[String]),
    rejected: &mut Vec<RejectedRow>,
) -> Result<u64> {
    let mut statement = connection.prepare_cached(insert).at(path)?;
    let mut columns = kinds.iter().zip(batch.columns()).map(|(kind, array)| Encoder::new(kind, array)).collect::<Result<Vec<_>>>()?;
    let mut rows = 0;
    'rows: for row in 0..batch.num_rows() {
        for (i, column) in columns.iter_mut().enumerate() {
            if let Some(unfit) = column.bind(&mut statement, i + 1, row).at(path)? {
                let name = batch.schema_ref().field(i).name();
                sift::keep(rejected, vec![sift::rejected(batch, row, key, format!("column {name} holds {}", unfit.0))])?;
                continue 'rows;
            }
        }
        statement.raw_execute().at(path)?;
        rows += 1;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_load() {
        let target = Path::new("/data/shop.db");
        let part = Part { load: LoadId("0198-ab-c".into()), sync: "shop → warehouse".into(), split: 12, attempt: 3 };
        let table = TableName::parse("raw.orders");
        for path in [of_part(target, &part, &table), of_gathered(target, &part.sync, &part.load)] {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(load_of(name, target, None), Some(part.load.clone()));
            assert_eq!(load_of(name, target, Some(&part.sync)), Some(part.load.clone()));
            assert_eq!(load_of(name, target, Some("another sync")), None);
            assert_eq!(load_of(name, Path::new("/data/other.db"), None), None);
        }
        for name in ["shop.db", "shop.db-wal", "shop.db-journal", "shop.db-trib-notes.txt"] {
            assert_eq!(load_of(name, target, None), None);
        }
    }
}
