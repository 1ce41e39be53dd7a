//! Tables change as the contract allows, in the same step as the rows that need it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::contract::SchemaChange;
use trib_core::{TableName, WriteMode};

use super::bench::{Bench, Place, Wanted};
use super::{Check, Failure, Report, ensure};

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    for mode in [WriteMode::Append, WriteMode::Upsert, WriteMode::History].into_iter().filter(|m| at.modes().contains(m)) {
        report.check(&format!("evolution::{}", mode.as_str()), a_table_grows(at, mode)).await;
    }
    if at.modes().contains(&WriteMode::Replace) {
        report.check("evolution::replace_makes_the_table_anew", replace_makes_the_table_anew(at)).await;
    }
    report.check("evolution::changes_come_with_their_rows", changes_come_with_their_rows(at)).await;
}

fn rows(columns: Vec<(&str, ArrayRef, bool)>) -> Result<RecordBatch, Failure> {
    let fields: Vec<Field> = columns.iter().map(|(n, c, nullable)| Field::new(*n, c.data_type().clone(), *nullable)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).map_err(Failure::new)
}

fn ids(from: i64, to: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(from..to))
}

/// A narrow table, then rows with a wider number, a NULL where none was, and a new column.
fn before_and_after() -> Result<[RecordBatch; 2], Failure> {
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, i32::MAX, i32::MIN]));
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 2, 3]));
    let full: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let holes: ArrayRef = Arc::new(StringArray::from(vec![None, Some("d"), None]));
    Ok([
        rows(vec![("id", ids(0, 3), false), ("number", narrow, true), ("required", full.clone(), false)])?,
        rows(vec![("id", ids(2, 5), false), ("number", wide, true), ("required", holes, true), ("added", full, true)])?,
    ])
}

async fn a_table_grows(at: &Place<'_>, mode: WriteMode) -> Check {
    let table = at.table(&format!("conf_evolve_{}", mode.as_str()));
    let mut bench = Bench::open(at, &format!("evolve_{}", mode.as_str()), std::slice::from_ref(&table)).await?;
    let [before, after] = before_and_after()?;
    bench.load("s", &[Wanted::new(table.clone(), mode, before)]).await?;
    let load = bench.stage("s", &[Wanted::new(table.clone(), mode, after.clone())]).await?;
    let planned = &load.tables[0].changes;
    ensure!(planned.iter().any(|c| matches!(c, SchemaChange::AddColumn { .. })), "no column is added: {planned:?}");
    bench.commit(&load).await?;
    bench.verify(&table).await?;
    let (_, changes) = bench.plan(&Wanted::new(table.clone(), mode, after)).await?;
    ensure!(changes.is_empty(), "the changes have not been made: {changes:?}");
    // A column that is gone at the source stays, and is NULL in new rows.
    let last = rows(vec![("id", ids(10, 12), false)])?;
    bench.load("s", &[Wanted::new(table.clone(), mode, last)]).await?;
    bench.verify(&table).await?;
    in_order(&bench, &table).await
}

async fn in_order(bench: &Bench<'_>, table: &TableName) -> Check {
    let existing = bench.destination.inspect(table).await?.ok_or_else(|| Failure::new("inspect does not find the table"))?;
    let data: Vec<&str> = existing.columns.iter().map(|c| c.field.name().as_str()).filter(|n| !n.starts_with('_')).collect();
    ensure!(data == ["id", "number", "required", "added"], "columns stand in another order: {data:?}");
    let number = existing.columns.iter().find(|c| c.field.name() == "number").map(|c| c.field.data_type().clone());
    ensure!(number == Some(DataType::Int64), "the wider column is found as {number:?}");
    Ok(())
}

/// Replacing asks for no change: whatever the table was, it is what the load says.
async fn replace_makes_the_table_anew(at: &Place<'_>) -> Check {
    let table = at.table("conf_evolve_replace");
    let mut bench = Bench::open(at, "evolve_replace", std::slice::from_ref(&table)).await?;
    let [before, after] = before_and_after()?;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["not", "a", "number"]));
    let other = rows(vec![("number", texts, true), ("id", ids(0, 3), false)])?;
    for rows in [before, after.clone(), other, after] {
        let shape: Vec<String> = rows.schema_ref().fields().iter().map(|f| f.name().clone()).collect();
        bench.load("s", &[Wanted::new(table.clone(), WriteMode::Replace, rows)]).await?;
        bench.verify(&table).await?;
        let existing = bench.destination.inspect(&table).await?.ok_or_else(|| Failure::new("inspect does not find the table"))?;
        let found: Vec<&str> = existing.columns.iter().map(|c| c.field.name().as_str()).filter(|n| !n.starts_with('_')).collect();
        ensure!(found == shape, "columns {shape:?} were asked for, and {found:?} are there");
    }
    Ok(())
}

async fn changes_come_with_their_rows(at: &Place<'_>) -> Check {
    let table = at.table("conf_evolve_unseen");
    let mut bench = Bench::open(at, "evolve_unseen", std::slice::from_ref(&table)).await?;
    let [before, after] = before_and_after()?;
    let mode = at.plain_mode();
    bench.load("s", &[Wanted::new(table.clone(), mode, before)]).await?;
    let shape = bench.destination.inspect(&table).await?;
    ensure!(shape.is_some(), "inspect does not find the table");
    let load = bench.stage("s", &[Wanted::new(table.clone(), mode, after)]).await?;
    ensure!(bench.destination.inspect(&table).await? == shape, "staging has changed the table");
    bench.destination.abort(&load.id).await?;
    ensure!(bench.destination.inspect(&table).await? == shape, "a load that was aborted has changed the table");
    bench.verify(&table).await
}
