//! Whether the table fits the load: it has what was loaded before, and is not emptied without a yes.

use futures::TryStreamExt;
use trib_core::name::system;
use trib_core::protocol::may_add;
use trib_core::{Code, Destination, Error, RejectedRow, Result, Table, TableName};
use trib_engine::plan::SharedPlan;
use trib_kit::sql::{ANSI, literal};

use crate::task::{StreamTask, SyncTask};
use crate::wanted::Wanted;

/// Refuses to go on from a state whose rows are elsewhere, or nowhere any more.
/// `filled` is the marker's.
pub fn check_tables(task: &SyncTask, filled: &[TableName], wanted: &Wanted, plans: &[SharedPlan]) -> Result<()> {
    for plan in plans {
        let stream = &plan.spec.stream;
        if !wanted.builds_on_state(stream) || task.source.remembered_elsewhere() {
            continue;
        }
        for planned in &plan.tables {
            let table = &planned.table().name;
            // A child table may come later than its parent.
            let alone = planned.table().parent.is_none() && !task.source.streams_together();
            may_add(filled, table, planned.exists, alone).map_err(|disagreement| {
                let before: Vec<String> = filled.iter().filter(|t| *t != table).map(ToString::to_string).collect();
                let what = if filled.contains(table) { "is gone".to_owned() } else { format!("now, {} before", before.join(", ")) };
                disagreement.error(stream).detail(format!("{table} {what}"))
            })?;
        }
    }
    Ok(())
}

/// Nothing was read where something must have been: a table is not emptied without a yes. `rejected` is how many rows of the load were, and the first of the
/// stream's.
pub async fn check_not_emptied(
    destination: &dyn Destination,
    stream: &StreamTask,
    plan: &SharedPlan,
    rows: u64,
    rejected: (u64, Option<&RejectedRow>),
) -> Result<()> {
    let Some(root) = plan.tables.first() else {
        return Ok(());
    };
    if rows > 0 || stream.allow_empty || !root.exists || !holds_rows(destination, root.table()).await? {
        return Ok(());
    }
    let table = &stream.spec.table;
    let error = match rejected {
        (count, Some(first)) => {
            let place = if first.place.is_empty() { String::new() } else { format!("{}: ", first.place) };
            Error::new(Code::Held, "no row of the source could be taken, and this load would empty the table")
                .detail(format!("{table}; {count} rejected, the first {place}{}", first.reason))
                .hint("mend the rows at the source, or the settings that they are read by; the table stays as it is until then")
        }
        _ => Error::new(Code::Held, "the source gave no rows, and this load would empty the table")
            .detail(table.to_string())
            .hint("if that is right, run with `--allow-empty`, or set `allow_empty: true` in the sync"),
    };
    Err(error.stream(&stream.spec.stream))
}

/// Whether the table has rows that a load could take away: those of its scope, without the marked ones and the past versions. Where the destination cannot be
/// asked, a table that is there has some.
async fn holds_rows(destination: &dyn Destination, table: &Table) -> Result<bool> {
    let Some(there) = destination.inspect(&table.name).await? else {
        return Ok(false);
    };
    let Some(engine) = destination.sql() else {
        return Ok(true);
    };
    let has = |column: &str| there.columns.iter().any(|c| c.field.name() == column);
    let mut conditions = Vec::new();
    if let Some(scope) = &table.scope {
        let column = &scope.column;
        // A part of a table without rows leaves the other parts.
        let Some(value) = scope.value() else { return Ok(false) };
        if !has(column) {
            return Ok(false);
        }
        conditions.push(format!("{} = {}", ANSI.identifier(column), literal(value)));
    }
    let marks = [system::DELETED_AT, system::VALID_TO].into_iter().filter(|mark| has(mark));
    conditions.extend(marks.map(|mark| format!("{} is null", ANSI.identifier(mark))));
    let condition = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    let mut found = engine.query(&format!("select 1 as one from {}{condition} limit 1", engine.table(&table.name))).await?;
    while let Some(batch) = found.try_next().await? {
        if batch.num_rows() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
