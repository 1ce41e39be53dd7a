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
    let modes = [WriteMode::Replace, WriteMode::Append, WriteMode::Insert, WriteMode::Upsert, WriteMode::Mirror];
    for mode in modes.into_iter().filter(|m| at.modes().contains(m)) {
        report.check(&format!("children::{}", mode.as_str()), children_follow_their_parents(at, mode)).await;
    }
}

/// The child's column that names the parent's `id`.
const PARENT: &str = "_parent_id";

/// Orders with so many items each, read in this order.
fn orders(table: &TableName, items: &TableName, mode: WriteMode, lengths: &[(i64, usize)]) -> Result<[Wanted; 2], Failure> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(lengths.iter().map(|l| l.0)));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(lengths.iter().map(|l| format!("{} items", l.1))));
    let children: Vec<(usize, i64, i64)> =
        lengths.iter().enumerate().flat_map(|(seq, (id, n))| (0..*n as i64).map(move |i| (seq, *id, i))).collect();
    let of: ArrayRef = Arc::new(Int64Array::from_iter_values(children.iter().map(|c| c.1)));
    let index: ArrayRef = Arc::new(Int64Array::from_iter_values(children.iter().map(|c| c.2)));
    let what: ArrayRef =
        Arc::new(StringArray::from_iter_values(children.iter().map(|(seq, id, i)| format!("item {i} of {id}, read as {seq}"))));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values(children.iter().map(|c| c.0 as i64)));
    let parent = batch(vec![("id", ids), ("note", notes)])?;
    let child = batch(vec![(PARENT, of), (system::INDEX, index), ("what", what), (system::SEQ, seq)])?;
    let mut child = Wanted::new(items.clone(), mode, child);
    child.key = vec![PARENT.to_owned(), system::INDEX.to_owned()];
    child.parent = Some(Parent { table: table.clone(), columns: vec![(PARENT.to_owned(), "id".to_owned())] });
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
    let mut loads = vec![
        vec![(1, 3), (2, 2), (3, 1)],
        // A list that became shorter, one that became empty, one that was not read, one that is new.
        vec![(1, 1), (2, 0), (4, 2)],
        vec![(3, 0)],
    ];
    if mode.needs_sequence() {
        // Two versions of one row, longer first and shorter first.
        loads.push(vec![(1, 3), (5, 1), (1, 1), (5, 2)]);
    }
    for (i, lengths) in loads.iter().enumerate() {
        bench.load("s", &orders(&table, &items, mode, lengths)?).await?;
        for table in [&table, &items] {
            bench.verify(table).await.map_err(|f| Failure::new(format!("after load {}: {}", i + 1, f.0)))?;
        }
    }
    Ok(())
}
