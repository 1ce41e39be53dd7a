//! Rows that belong to rows: replaced with them, in one commit.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::load::Parent;
use trib_core::name::system;
use trib_core::{TableName, WriteMode};

use super::bench::{Bench, Place, Wanted};
use super::{Check, Failure, Report};

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    for mode in [WriteMode::Replace, WriteMode::Append, WriteMode::Upsert].into_iter().filter(|m| at.modes().contains(m)) {
        report.check(&format!("children::{}", mode.as_str()), children_follow_their_parents(at, mode)).await;
    }
}

/// Orders with so many items each.
fn orders(table: &TableName, items: &TableName, mode: WriteMode, lengths: &[(i64, usize)]) -> Result<[Wanted; 2], Failure> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(lengths.iter().map(|l| l.0)));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(lengths.iter().map(|l| format!("{} items", l.1))));
    let children: Vec<(i64, i64)> = lengths.iter().flat_map(|(id, n)| (0..*n as i64).map(move |i| (*id, i))).collect();
    let of: ArrayRef = Arc::new(Int64Array::from_iter_values(children.iter().map(|c| c.0)));
    let index: ArrayRef = Arc::new(Int64Array::from_iter_values(children.iter().map(|c| c.1)));
    let what: ArrayRef = Arc::new(StringArray::from_iter_values(children.iter().map(|(id, i)| format!("item {i} of {id}"))));
    let parent = batch(vec![("id", ids), ("note", notes)])?;
    let child = batch(vec![("id", of), (system::INDEX, index), ("what", what)])?;
    let mut child = Wanted::new(items.clone(), mode, child);
    if mode.needs_key() {
        child.key = vec!["id".to_owned(), system::INDEX.to_owned()];
    }
    child.parent = Some(Parent { table: table.clone(), columns: vec![("id".to_owned(), "id".to_owned())] });
    Ok([Wanted::new(table.clone(), mode, parent), child])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Failure> {
    let nullable = |t: &DataType| !t.is_integer();
    let fields: Vec<Field> = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), nullable(c.data_type()))).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).map_err(Failure::new)
}

async fn children_follow_their_parents(at: &Place<'_>, mode: WriteMode) -> Check {
    let (table, items) = (at.table(&format!("conf_orders_{}", mode.as_str())), at.table(&format!("conf_orders_{}__items", mode.as_str())));
    let mut bench = Bench::open(at, &format!("children_{}", mode.as_str()), &[table.clone(), items.clone()]).await?;
    // Then: a list that became shorter, one that became empty, one that was not read, one that is new.
    for lengths in [vec![(1, 3), (2, 2), (3, 1)], vec![(1, 1), (2, 0), (4, 2)], vec![(3, 0)]] {
        bench.load("s", &orders(&table, &items, mode, &lengths)?).await?;
        bench.verify(&table).await?;
        bench.verify(&items).await?;
    }
    Ok(())
}
