//! Which tables and columns a query needs in the end, and which of them it holds against each other.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlan;
use trib_core::{Result, TableName};

use crate::catalog::Queries;
use crate::failure::query_error;
use crate::lineage::{Origin, Step, input_of, table_name};

/// Stored tables, views looked through, each with the columns that are needed, those that only filter or join rows included; none where rows are only counted.
pub type Needed = BTreeMap<TableName, BTreeSet<String>>;

#[derive(Debug, Default)]
pub struct Reads {
    pub tables: Needed,
    /// Columns that a join wants to be equal.
    pub equal: Vec<(Origin, Origin)>,
}

impl Reads {
    pub async fn of(queries: &Queries, sql: &str) -> Result<Self> {
        let plan = optimized(&queries.frame(sql).await?)?;
        Ok(Self { tables: tables(&plan)?, equal: equal(&plan)? })
    }
}

/// What a query needs.
pub fn needed(frame: &DataFrame) -> Result<Needed> {
    tables(&optimized(frame)?)
}

fn optimized(frame: &DataFrame) -> Result<LogicalPlan> {
    let (state, plan) = frame.clone().into_parts();
    state.optimize(&plan).map_err(query_error)
}

fn tables(plan: &LogicalPlan) -> Result<Needed> {
    let mut tables = Needed::new();
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let columns = tables.entry(table_name(&scan.table_name)).or_default();
            columns.extend(scan.projected_schema.fields().iter().map(|f| f.name().clone()));
            columns.extend(scan.filters.iter().flat_map(|f| f.column_refs().into_iter().map(|c| c.name().to_owned())));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(query_error)?;
    Ok(tables)
}

fn equal(plan: &LogicalPlan) -> Result<Vec<(Origin, Origin)>> {
    let mut joins = Vec::new();
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node {
            joins.push(join.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(query_error)?;
    let mut equal = Vec::new();
    for join in &joins {
        let (left, right) = (input_of(&join.left)?, input_of(&join.right)?);
        for (l, r) in &join.on {
            let same = |(origin, step): (Origin, Step)| (step == Step::Identity).then_some(origin);
            let (l, r) = (left.expression(l)?, right.expression(r)?);
            if let (Some(l), Some(r)) = (l.into_iter().find_map(same), r.into_iter().find_map(same)) {
                equal.push((l, r));
            }
        }
    }
    Ok(equal)
}
