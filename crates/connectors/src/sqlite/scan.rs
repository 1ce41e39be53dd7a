//! Reads one split, on a blocking thread.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, kernels::cmp};
use arrow::datatypes::{Schema, SchemaRef};
use rusqlite::{Connection, Row};
use serde_json::{Map, Value};
use trib_core::load::RejectedRow;
use trib_core::{Code, Emitter, Error, Result, Split, SplitEnd};
use trib_kit::cursor::{self, Boundary};

use super::bound::Bound;
use super::database::{At, Database};
use super::decode::{Decoder, as_text, excerpt, json};
use super::error::{error, is_mistaken, words};
use super::split::{Edge, Spec};
use super::table::{Table, describe};

const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 4 << 20;

/// Reads the split to its end, or to where it may stop.
pub fn scan(connection: &Connection, database: &Database, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
    let mut spec = Spec::of(split)?;
    let table = describe(connection, &spec.table).at(&database.path)?.ok_or_else(|| no_such_table(&spec.table))?;
    let wanted = spec.columns.len();
    // The boundary looks at the cursor, wanted or not.
    if let Some((cursor, _)) = spec.cursor()
        && !spec.columns.iter().any(|c| c == cursor)
    {
        let cursor = cursor.to_owned();
        spec.columns.push(cursor);
    }
    let mut batches = Batches::new(&table, database, &spec)?;
    let mut edge = spec.boundary.as_ref().map(|edge| Watch::new(&spec, edge, &batches)).transpose()?;
    let (sql, parameters) = spec.query(&batches.place, |column| Some(table.kind(database, table.column(column)?)));
    let mut statement = connection.prepare(&sql).map_err(|e| refused(e, database, &spec))?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters)).at(&database.path)?;

    let stream = &split.streams[0];
    let send = |batches: &mut Batches, edge: &mut Option<Watch>, out: &mut Emitter| -> Result<()> {
        let mut batch = batches.take()?;
        if let Some(edge) = edge {
            batch = edge.filter(batch)?;
        }
        if batch.num_columns() > wanted {
            batch = batch.project(&(0..wanted).collect::<Vec<_>>())?;
        }
        out.batch_blocking(stream, batch)
    };
    let mut stop_behind: Option<Vec<Bound>> = None;
    while let Some(row) = rows.next().at(&database.path)? {
        // Rows that stand at one place in the order belong together: reading goes on behind the place.
        if let Some(place) = &stop_behind
            && batches.order_of(row)?.as_ref() != Some(place)
        {
            send(&mut batches, &mut edge, out)?;
            spec.columns.truncate(wanted);
            let rest = Spec { after: stop_behind, snapshot: None, ..spec }.split(stream)?;
            return Ok(SplitEnd::stopped(split, rest, edge.map_or(Ok(Value::Null), |e| e.facts())?));
        }
        if let Some(rejected) = batches.append(row)? {
            out.reject_blocking(stream, rejected)?;
        }
        if batches.is_full() {
            if spec.may_stop && stop_behind.is_none() && out.should_stop() {
                // A place with a NULL in it cannot be compared with; the next one may.
                stop_behind = batches.order_of(row)?;
            }
            send(&mut batches, &mut edge, out)?;
        }
    }
    send(&mut batches, &mut edge, out)?;
    Ok(SplitEnd::finished(split, edge.map_or(Ok(Value::Null), |e| e.facts())?))
}

pub fn no_such_table(name: &str) -> Error {
    Error::new(Code::NotFound, "there is no such table or view").detail(name).hint("`trib discover` lists the streams")
}

/// What a query that cannot be prepared means: nearly always the user's condition.
pub fn refused(e: rusqlite::Error, database: &Database, spec: &Spec) -> Error {
    match &spec.filter {
        Some(filter) if is_mistaken(&e) => Error::new(Code::ConfigInvalid, "SQLite refuses the condition")
            .detail(format!("{filter}: {}", words(&e)))
            .setting("where")
            .stream(&spec.table)
            .hint("`where` is a condition in SQLite's own SQL over the columns of the table"),
        _ => error(e, &database.path).stream(&spec.table),
    }
}

/// Rows on their way into a batch.
struct Batches {
    schema: SchemaRef,
    columns: Vec<(String, String, Decoder)>,
    /// Columns behind those of the batch that name a row to a person: the primary key, or the rowid.
    place: Vec<String>,
    order: usize,
    rows: usize,
    bytes: usize,
    total: u64,
    /// Rows of this batch that are rejected.
    contradictions: Vec<usize>,
}

impl Batches {
    fn new(table: &Table, database: &Database, spec: &Spec) -> Result<Self> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for name in &spec.columns {
            let column = table.column(name).ok_or_else(|| {
                Error::new(Code::NotFound, "the table has no such column")
                    .detail(name)
                    .stream(&spec.table)
                    .hint("`trib discover` lists the columns")
            })?;
            let kind = table.kind(database, column);
            fields.push(kind.field(&column.name, table.is_nullable(column), &column.declared));
            columns.push((column.name.clone(), column.declared.clone(), Decoder::new(&kind)));
        }
        let key = table.key();
        let place = if key.is_empty() { table.rowid().map(str::to_owned).into_iter().collect() } else { key };
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { schema, columns, place, order: spec.order.len(), rows: 0, bytes: 0, total: 0, contradictions: Vec::new() })
    }

    fn append(&mut self, row: &Row<'_>) -> Result<Option<RejectedRow>> {
        let mut wrong = None;
        for (i, (_, _, decoder)) in self.columns.iter_mut().enumerate() {
            let value = row.get_ref(i).map_err(unread)?;
            if wrong.is_some() {
                decoder.append_null();
                continue;
            }
            match decoder.append(value) {
                Ok(bytes) => self.bytes += bytes,
                Err(contradiction) => wrong = Some((i, contradiction)),
            }
        }
        self.rows += 1;
        self.total += 1;
        let Some((i, contradiction)) = wrong else {
            return Ok(None);
        };
        self.contradictions.push(self.rows - 1);
        let (name, declared, _) = &self.columns[i];
        let declared = if declared.is_empty() { "without a type".to_owned() } else { declared.clone() };
        let value = excerpt(row.get_ref(i).map_err(unread)?);
        let reason = format!(
            "column {name} is declared {declared} and holds {value}; expected {}. Declare what it holds in the connection's `columns:`, or mend the row",
            contradiction.0
        );
        Ok(Some(RejectedRow { place: self.place_of(row)?, reason, row: self.object(row)? }))
    }

    /// `id=42`; the row's number where nothing names it.
    fn place_of(&self, row: &Row<'_>) -> Result<String> {
        let mut parts = Vec::new();
        for (i, name) in self.place.iter().enumerate() {
            let value = match json(row.get_ref(self.columns.len() + i).map_err(unread)?) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            parts.push(format!("{name}={value}"));
        }
        Ok(if parts.is_empty() { format!("row {}", self.total) } else { parts.join(", ") })
    }

    fn object(&self, row: &Row<'_>) -> Result<Value> {
        let mut object = Map::new();
        for (i, (name, ..)) in self.columns.iter().enumerate() {
            object.insert(name.clone(), json(row.get_ref(i).map_err(unread)?));
        }
        Ok(Value::Object(object))
    }

    /// The row's place in the order; `None` when there is no order, or a NULL in it.
    fn order_of(&self, row: &Row<'_>) -> Result<Option<Vec<Bound>>> {
        let first = self.columns.len() + self.place.len();
        let mut place = Vec::with_capacity(self.order);
        for i in first..first + self.order {
            match Bound::of(row.get_ref(i).map_err(unread)?) {
                Some(bound) => place.push(bound),
                None => return Ok(None),
            }
        }
        Ok((!place.is_empty()).then_some(place))
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(|(_, _, decoder)| decoder.finish()).collect::<Result<Vec<ArrayRef>>>()?;
        let rejected = std::mem::take(&mut self.contradictions);
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rejected.is_empty() {
            return Ok(RecordBatch::try_new(self.schema.clone(), arrays)?);
        }
        // A rejected row holds NULLs where the schema may not allow them, until it is taken out.
        let loose: Vec<_> = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let mut keep = vec![true; rows];
        for row in rejected {
            keep[row] = false;
        }
        let kept = filter_record_batch(&RecordBatch::try_new(Arc::new(Schema::new(loose)), arrays)?, &BooleanArray::from(keep))?;
        Ok(RecordBatch::try_new(self.schema.clone(), kept.columns().to_vec())?)
    }
}

fn unread(e: rusqlite::Error) -> Error {
    Error::internal("a selected column cannot be read").source(e)
}

/// The ends of an incremental read.
struct Watch {
    boundary: Boundary,
    column: usize,
    upper: Bound,
    last: Option<ArrayRef>,
    name: String,
}

impl Watch {
    fn new(spec: &Spec, edge: &Edge, batches: &Batches) -> Result<Self> {
        let (name, upper) = spec.cursor().ok_or_else(|| Error::internal("a boundary without a cursor"))?;
        let column = batches.schema.index_of(name).map_err(|e| Error::internal("the cursor is not read").source(e))?;
        let declared = &batches.columns[column].2;
        let text = |bound: &Bound| -> Result<String> {
            let text = bound.with_value(|value| as_text(declared.kind(), value))??;
            text.ok_or_else(|| Error::internal("a bound that is NULL"))
        };
        let reached = edge.reached.as_ref().map(text).transpose()?;
        let data_type = batches.schema.field(column).data_type();
        let boundary = Boundary::new((column, data_type), reached.as_deref(), &text(upper)?, edge.seen.clone(), edge.exactly_once)?;
        Ok(Self { boundary, column, upper: upper.clone(), last: None, name: name.to_owned() })
    }

    fn filter(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        if batch.num_rows() == 0 {
            return Ok(batch);
        }
        self.check_order(batch.column(self.column))?;
        self.boundary.filter(batch)
    }

    /// Rows come in the order of what is stored. Where that is not the order of what it means, as with times written in several
    /// ways, a cursor would pass over rows.
    fn check_order(&mut self, cursor: &ArrayRef) -> Result<()> {
        let rows = cursor.len();
        let falls = cmp::lt(&cursor.slice(1, rows - 1), &cursor.slice(0, rows - 1))?.true_count() > 0
            || match &self.last {
                Some(last) => cmp::lt(&cursor.slice(0, 1), last)?.true_count() > 0,
                None => false,
            };
        self.last = Some(cursor.slice(rows - 1, 1));
        if falls {
            return Err(Error::new(Code::DataInvalid, "the cursor's values do not sort as they are stored, so rows would be passed over")
                .detail(&self.name)
                .hint("write all its times in one way (same separator, digits and zone), or choose another cursor"));
        }
        Ok(())
    }

    fn facts(&self) -> Result<Value> {
        let mut bound: cursor::Bound = serde_json::from_value(self.boundary.facts()?)?;
        // The state keeps what is stored, so that the next read compares with that.
        bound.value = Some(self.upper.to_state());
        Ok(serde_json::to_value(bound)?)
    }
}
