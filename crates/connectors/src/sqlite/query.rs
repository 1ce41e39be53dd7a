//! SQL of the user's, read-only.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};
use tokio::sync::mpsc::Sender;
use trib_core::{Code, Error, Result};

use super::database::{At, Database};
use super::decode::{Decoder, excerpt};
use super::error::words;
use super::kind::Kind;

const BATCH_ROWS: usize = 8192;
/// Rows that are looked at to find out what an expression gives.
const SAMPLE: usize = 1000;

/// A column's name, and how the table that it comes from declares it.
type Declared = (String, Option<String>);

fn prepared<'c>(connection: &'c Connection, sql: &str) -> Result<(Statement<'c>, Vec<Declared>)> {
    let statement = connection.prepare(sql).map_err(|e| {
        Error::new(Code::UsageInvalid, "SQLite refuses the query")
            .detail(words(&e))
            .hint("tables of `schema.table` are named `schema__table` here")
    })?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Error::new(Code::UsageInvalid, "only queries that return rows can be run here").detail(sql));
    }
    let declared = statement.columns().iter().map(|c| (c.name().to_owned(), c.decl_type().map(str::to_owned))).collect();
    Ok((statement, declared))
}

fn schema(declared: &[Declared], kinds: &[Kind]) -> SchemaRef {
    let field = |((name, declared), kind): (&Declared, &Kind)| kind.field(name, true, declared.as_deref().unwrap_or(""));
    Arc::new(Schema::new(declared.iter().zip(kinds).map(field).collect::<Vec<_>>()))
}

/// The columns of a query's result. On a blocking thread.
pub fn describe(database: &Database, sql: &str) -> Result<SchemaRef> {
    let connection = database.recovering_reader()?;
    let (mut statement, declared) = prepared(&connection, sql)?;
    let kinds = kinds(&mut statement, &declared, database)?;
    Ok(schema(&declared, &kinds))
}

/// Runs the query and sends its batches, of which there is at least one. On a blocking thread.
pub fn run(database: &Database, sql: &str, out: &Sender<Result<RecordBatch>>) -> Result<()> {
    let connection = database.recovering_reader()?;
    let (mut statement, declared) = prepared(&connection, sql)?;
    let kinds = kinds(&mut statement, &declared, database)?;
    let schema = schema(&declared, &kinds);
    let mut decoders: Vec<Decoder> = kinds.iter().map(Decoder::new).collect();
    let take = |decoders: &mut Vec<Decoder>| -> Result<RecordBatch> {
        let arrays = decoders.iter_mut().map(Decoder::finish).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(schema.clone(), arrays)?)
    };
    let mut rows = statement.query([]).at(&database.path)?;
    let (mut buffered, mut sent) = (0, false);
    while let Some(row) = rows.next().at(&database.path)? {
        append(row, &mut decoders, &declared)?;
        buffered += 1;
        if buffered == BATCH_ROWS {
            buffered = 0;
            sent = true;
            if out.blocking_send(take(&mut decoders)).is_err() {
                return Ok(());
            }
        }
    }
    if buffered > 0 || !sent {
        // Nobody listening is no failure of the query.
        let _ = out.blocking_send(take(&mut decoders));
    }
    Ok(())
}

fn append(row: &Row<'_>, decoders: &mut [Decoder], declared: &[Declared]) -> Result<()> {
    for (i, decoder) in decoders.iter_mut().enumerate() {
        let value = row.get_ref(i).map_err(|e| Error::internal("a selected column cannot be read").source(e))?;
        decoder.append(value).map_err(|contradiction| {
            let (name, declared) = &declared[i];
            Error::new(Code::DataInvalid, "a value contradicts its column's declaration")
                .detail(format!(
                    "{name} is {} and holds {}; expected {}",
                    declared.as_deref().unwrap_or("an expression"),
                    excerpt(value),
                    contradiction.0
                ))
                .hint("select `CAST(… AS TEXT)` to see it")
        })?;
    }
    Ok(())
}

/// Columns of a table are what they are declared as; of expressions the first rows tell.
fn kinds(statement: &mut Statement<'_>, declared: &[Declared], database: &Database) -> Result<Vec<Kind>> {
    let mut kinds: Vec<Option<Kind>> = declared.iter().map(|(_, declared)| declared.as_deref().map(Kind::of_declaration)).collect();
    if kinds.iter().all(Option::is_some) {
        return Ok(kinds.into_iter().flatten().collect());
    }
    let mut seen = vec![Seen::default(); kinds.len()];
    let mut rows = statement.query([]).at(&database.path)?;
    let mut left = SAMPLE;
    while let Some(row) = rows.next().at(&database.path)? {
        for (i, seen) in seen.iter_mut().enumerate() {
            seen.add(&row.get_ref(i).map_err(|e| Error::internal("a selected column cannot be read").source(e))?);
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    for (kind, seen) in kinds.iter_mut().zip(&seen) {
        kind.get_or_insert_with(|| seen.kind());
    }
    Ok(kinds.into_iter().flatten().collect())
}

/// Storage classes of the values of one column.
#[derive(Clone, Default)]
struct Seen {
    integer: bool,
    real: bool,
    text: bool,
    blob: bool,
}

impl Seen {
    fn add(&mut self, value: &ValueRef<'_>) {
        match value {
            ValueRef::Null => {}
            ValueRef::Integer(_) => self.integer = true,
            ValueRef::Real(_) => self.real = true,
            ValueRef::Text(_) => self.text = true,
            ValueRef::Blob(_) => self.blob = true,
        }
    }

    fn kind(&self) -> Kind {
        match (self.integer, self.real, self.text, self.blob) {
            (true, false, false, false) => Kind::Integer(DataType::Int64),
            (_, true, false, false) => Kind::Float64,
            (false, false, false, true) => Kind::Blob,
            _ => Kind::Text { numbers: true },
        }
    }
}
