//! Write modes on rows in memory, one row per batch: slow, plain, and independent of the suite's model.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use trib_core::load::{Deletes, TableOutcome};
use trib_core::name::system;
use trib_core::{Table, WriteMode};
use trib_testkit::rows::{self, NULL};

pub fn single_rows(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| b.slice(i, 1))).collect()
}

/// The row in another schema: columns by name, NULL where it has none.
pub fn fitted(row: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    if row.schema_ref() == schema {
        return row.clone();
    }
    let column = |name: &str, t| row.column_by_name(name).map_or_else(|| new_null_array(t, row.num_rows()), |c| cast(c, t).unwrap());
    let columns = schema.fields().iter().map(|f| column(f.name(), f.data_type())).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(row.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).unwrap()
}

fn text(row: &RecordBatch, column: &str) -> String {
    let schema = row.schema_ref();
    let found = schema.index_of(column).ok().map(|i| rows::column(schema.field(i), row.column(i)).remove(0));
    found.unwrap_or_else(|| NULL.to_owned())
}

fn with(row: &RecordBatch, column: &str, at: DateTime<Utc>) -> RecordBatch {
    let index = row.schema().index_of(column).unwrap();
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![at.timestamp_micros()]).with_timezone("UTC"));
    let mut columns = row.columns().to_vec();
    columns[index] = cast(&time, row.column(index).data_type()).unwrap();
    RecordBatch::try_new(row.schema(), columns).unwrap()
}

fn key(table: &Table, row: &RecordBatch) -> Vec<String> {
    table.key.iter().map(|k| text(row, k)).collect()
}

fn in_scope(table: &Table, row: &RecordBatch) -> bool {
    table.scope.as_ref().is_none_or(|s| text(row, &s.column) == format!("{:?}", s.value().unwrap()))
}

fn is_deleted(row: &RecordBatch) -> bool {
    row.column_by_name(system::DELETED_AT).is_some_and(|c| c.is_valid(0))
}

fn delete(table: &Table, row: RecordBatch, at: DateTime<Utc>, counts: &mut TableOutcome) -> Option<RecordBatch> {
    if is_deleted(&row) || table.deletes == Deletes::Ignore {
        return Some(row);
    }
    counts.deleted += 1;
    (table.deletes == Deletes::Soft).then(|| with(&row, system::DELETED_AT, at))
}

fn seq(row: &RecordBatch) -> i64 {
    text(row, system::SEQ).parse().unwrap_or(0)
}

/// The parent's rows of this load, and those that its table held before.
pub struct Parents {
    pub staged: Vec<RecordBatch>,
    pub before: Vec<RecordBatch>,
}

/// What the table holds after the load.
pub fn merge(
    table: &Table,
    held: &[RecordBatch],
    staged: &[RecordBatch],
    parents: Option<&Parents>,
    at: DateTime<Utc>,
) -> (Vec<RecordBatch>, TableOutcome) {
    let mut counts = TableOutcome::new(table.name.clone());
    let shape = match table.write {
        WriteMode::Prune => held.first().map(RecordBatch::schema),
        // The columns that are there, and those that are new.
        WriteMode::Update => held.first().map(|row| {
            let there = row.schema();
            let new = table.schema.fields().iter().filter(|f| there.field_with_name(f.name()).is_err());
            Arc::new(arrow::datatypes::Schema::new(there.fields().iter().chain(new).cloned().collect::<Vec<_>>()))
        }),
        _ => None,
    };
    let shape = shape.unwrap_or_else(|| table.schema.clone());
    let mut held: Vec<RecordBatch> = held.iter().map(|r| fitted(r, &shape)).collect();
    if let (Some(tie), Some(parents), false) = (&table.parent, parents, matches!(table.write, WriteMode::Replace | WriteMode::Append)) {
        let (here, there) = &tie.columns[0];
        // The last version of a parent wins, or the first where what is there stays.
        let wins = |parent: &RecordBatch| {
            let rivals = parents.staged.iter().filter(|p| text(p, there) == text(parent, there)).map(seq);
            Some(seq(parent)) == if table.write == WriteMode::Insert { rivals.min() } else { rivals.max() }
        };
        let stays = |parent: &RecordBatch| {
            let one = parents.before.iter().any(|p| text(p, there) == text(parent, there));
            table.write == WriteMode::Insert && one
        };
        let winners: Vec<_> = parents.staged.iter().filter(|p| wins(p) && !stays(p)).map(|p| (text(p, there), seq(p))).collect();
        held.retain(|r| !winners.iter().any(|w| w.0 == text(r, here)));
        let taken = staged.iter().filter(|r| winners.contains(&(text(r, here), seq(r)))).map(|r| fitted(r, &shape));
        held.extend(taken);
        if table.write == WriteMode::Mirror {
            held.retain(|r| parents.staged.iter().any(|p| text(p, there) == text(r, here)));
        }
        return (held, counts);
    }
    let mut staged = staged.to_vec();
    staged.sort_by_key(seq);
    match table.write {
        WriteMode::Replace | WriteMode::Append => {
            held.retain(|r| table.write == WriteMode::Append || !in_scope(table, r));
            counts.inserted = staged.len() as u64;
            held.extend(staged.iter().map(|r| fitted(r, &shape)));
        }
        WriteMode::Insert => {
            for row in &staged {
                if !held.iter().any(|h| key(table, h) == key(table, row)) {
                    counts.inserted += 1;
                    held.push(fitted(row, &shape));
                }
            }
        }
        WriteMode::Prune | WriteMode::Upsert | WriteMode::Mirror => {
            // After a truncate, only what follows counts.
            let truncate = staged.iter().rposition(|r| text(r, system::OP) == "\"t\"");
            let last: BTreeMap<Vec<String>, &RecordBatch> =
                staged[truncate.map_or(0, |t| t + 1)..].iter().map(|r| (key(table, r), r)).collect();
            let complete = truncate.is_some() || matches!(table.write, WriteMode::Prune | WriteMode::Mirror);
            let mut result = Vec::new();
            let mut seen = Vec::new();
            for old in held {
                match last.get(&key(table, &old)) {
                    Some(new) => {
                        seen.push(key(table, &old));
                        if text(new, system::OP) == "\"d\"" {
                            result.extend(delete(table, old, at, &mut counts));
                        } else if table.write == WriteMode::Prune {
                            result.push(old);
                        } else {
                            counts.updated += 1;
                            result.push(fitted(new, &shape));
                        }
                    }
                    None if complete && in_scope(table, &old) => result.extend(delete(table, old, at, &mut counts)),
                    None => result.push(old),
                }
            }
            if table.write != WriteMode::Prune {
                for (key, new) in last.iter().filter(|(k, row)| !seen.contains(k) && text(row, system::OP) != "\"d\"") {
                    let _ = key;
                    counts.inserted += 1;
                    result.push(fitted(new, &shape));
                }
            }
            held = result;
        }
        WriteMode::Update => {
            let last: BTreeMap<Vec<String>, &RecordBatch> = staged.iter().map(|r| (key(table, r), r)).collect();
            let current = |row: &RecordBatch| row.column_by_name(system::VALID_TO).is_none_or(|to| to.is_null(0));
            let met = |its: &Vec<String>| held.iter().any(|r| current(r) && key(table, r) == *its);
            counts.unmatched = last.keys().filter(|its| !met(its)).count() as u64;
            for row in held.iter_mut().filter(|r| current(r)) {
                let Some(new) = last.get(&key(table, row)) else { continue };
                if table.data_columns().all(|c| text(row, c.name()) == text(new, c.name())) {
                    continue;
                }
                let column = |field: &std::sync::Arc<arrow::datatypes::Field>| match new.column_by_name(field.name()) {
                    Some(value) => cast(value, field.data_type()).unwrap(),
                    None => row.column_by_name(field.name()).unwrap().clone(),
                };
                let columns = row.schema_ref().fields().iter().map(column).collect();
                *row = RecordBatch::try_new(row.schema(), columns).unwrap();
                counts.updated += 1;
            }
        }
        WriteMode::History => {
            let last: BTreeMap<Vec<String>, &RecordBatch> = staged.iter().map(|r| (key(table, r), r)).collect();
            for (its, row) in last {
                let new = with(&fitted(&with_placeholder(row, &shape, at), &shape), system::VALID_FROM, at);
                let current = held.iter_mut().find(|h| key(table, h) == its && text(h, system::VALID_TO) == NULL);
                if let Some(current) = current {
                    if table.data_columns().all(|c| text(current, c.name()) == text(&new, c.name())) {
                        continue;
                    }
                    *current = with(current, system::VALID_TO, at);
                    counts.updated += 1;
                }
                held.push(new);
                counts.inserted += 1;
            }
        }
    }
    (held, counts)
}

/// A staged row has no `_trib_valid_from`, and the column takes no NULL.
fn with_placeholder(row: &RecordBatch, shape: &SchemaRef, at: DateTime<Utc>) -> RecordBatch {
    let field = shape.field_with_name(system::VALID_FROM).unwrap().clone();
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![at.timestamp_micros()]).with_timezone("UTC"));
    let fields: Vec<_> = row.schema().fields().iter().cloned().chain([Arc::new(field)]).collect();
    let columns = row.columns().iter().cloned().chain([time]).collect();
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap()
}
