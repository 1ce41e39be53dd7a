//! Which tables and columns a query needs in the end, and which of them it holds against each other.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use trib_core::{Result, TableName};

use crate::catalog::Queries;
use crate::lineage::{Origin, Step, input_of, table_name};
use crate::session::query_error;

#[derive(Debug, Default)]
pub struct Reads {
    /// Stored tables, views looked through, each with the columns that are needed; none where rows are only counted.
    pub tables: BTreeMap<TableName, BTreeSet<String>>,
    /// Columns that a join wants to be equal.
    pub equal: Vec<(Origin, Origin)>,
}

impl Reads {
    pub async fn of(queries: &Queries, sql: &str) -> Result<Self> {
        let (state, plan) = queries.frame(sql).await?.into_parts();
        let plan = state.optimize(&plan).map_err(query_error)?;
        let mut reads = Self::default();
        let mut failed = None;
        let walked = plan.apply_with_subqueries(|node| {
            if let Err(e) = reads.take(node) {
                failed = Some(e);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(query_error)?;
        failed.map_or(Ok(reads), Err)
    }

    fn take(&mut self, node: &LogicalPlan) -> Result<()> {
        match node {
            LogicalPlan::TableScan(scan) => {
                let columns = self.tables.entry(table_name(&scan.table_name)).or_default();
                columns.extend(scan.projected_schema.fields().iter().map(|f| f.name().clone()));
            }
            LogicalPlan::Join(join) => {
                let (left, right) = (input_of(&join.left)?, input_of(&join.right)?);
                for (l, r) in &join.on {
                    let same = |(origin, step): (Origin, Step)| (step == Step::Identity).then_some(origin);
                    let (l, r) = (left.expression(l)?, right.expression(r)?);
                    if let (Some(l), Some(r)) = (l.into_iter().find_map(same), r.into_iter().find_map(same)) {
                        self.equal.push((l, r));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
