//! A part that SQLite computes itself: the side file is attached to the database, and filled by one statement.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use chrono::{DateTime, Utc};
use trib_core::load::Durability;
use trib_core::name::system;
use trib_core::{Error, Part, Receipt, Result, Table};
use trib_kit::sql::literal;

use super::database::{At, Database, quoted, quoted_all};
use super::encode::Encoder;
use super::kind::Kind;
use super::side_file::{self, ROWS, Staged};

/// The side file among the attached databases.
const PART: &str = "trib_part";

/// Writes one part, on a blocking thread.
pub fn write(database: &Database, part: &Part, table: &Table, sql: &str, loaded_at: DateTime<Utc>) -> Result<Receipt> {
    let path = side_file::of_part(&database.path, part, &table.name);
    let written = write_file(database, &path, table, sql, &part.load.0, loaded_at);
    let rows = match written {
        Ok(rows) => rows,
        Err(e) => {
            // Its error is the one that counts; what stays is swept later.
            let _ = side_file::remove_file(&path);
            return Err(e);
        }
    };
    let file = if rows > 0 { path.file_name().map(|n| n.to_string_lossy().into_owned()) } else { None };
    if file.is_none() {
        side_file::remove_file(&path)?;
    }
    Ok(Receipt {
        part: part.clone(),
        table: table.name.clone(),
        rows,
        bytes: 0,
        durability: Durability::Durable,
        staged: serde_json::to_value(Staged { file })?,
        rejected: Vec::new(),
    })
}

fn write_file(database: &Database, path: &std::path::Path, table: &Table, sql: &str, load: &str, loaded_at: DateTime<Utc>) -> Result<u64> {
    let making = side_file::create(path)?;
    making.execute_batch(&side_file::create_rows(ROWS, table)?).at(path)?;
    side_file::finish(making, path)?;

    let schema = table.staging_schema();
    let mut values = Vec::new();
    let mut time: Option<usize> = None;
    for (i, field) in schema.fields().iter().enumerate() {
        values.push(match field.name().as_str() {
            system::LOAD_ID => literal(load),
            system::LOADED_AT => {
                time = Some(i);
                "?1".to_owned()
            }
            system::SEQ => "row_number() OVER ()".to_owned(),
            name => format!("q.{}", quoted(name)),
        });
    }
    let names = quoted_all(schema.fields().iter().map(|f| f.name().as_str()));
    let insert = format!("INSERT INTO {PART}.{ROWS} ({names}) SELECT {} FROM ({sql}) AS q", values.join(", "));

    let connection = database.writer()?;
    connection.execute(&format!("ATTACH ?1 AS {PART}"), [path.to_string_lossy()]).at(path)?;
    connection.execute_batch(&format!("PRAGMA {PART}.journal_mode = OFF; PRAGMA {PART}.synchronous = OFF;")).at(path)?;
    let mut statement = connection.prepare(&insert).at(&database.path)?;
    if let Some(at) = time {
        let now: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![loaded_at.timestamp_micros()]).with_timezone("UTC"));
        let mut encoder = Encoder::new(&Kind::of_field(schema.field(at))?, &now)?;
        if encoder.bind(&mut statement, 1, 0).at(&database.path)?.is_some() {
            return Err(Error::internal("the time of a load cannot be stored"));
        }
    }
    let rows = statement.raw_execute().at(&database.path)?;
    drop(statement);
    connection.execute_batch(&format!("DETACH {PART}")).at(path)?;
    side_file::index_and_sync(path, table)?;
    Ok(rows as u64)
}
