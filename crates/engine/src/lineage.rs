//! Where the columns of a query come from, read off its logical plan.
//!
//! A column comes from those whose values go into its own. Columns that only decide which rows there are (in a join, a filter, an
//! order) are not among them.

use std::collections::BTreeMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Subquery};
use serde::Serialize;
use trib_core::{Result, TableName};

use crate::conform::Place;
use crate::failure::query_error;
use crate::plan::StreamPlan;
use crate::session::{CATALOG, NO_SCHEMA};

/// How a value goes into another; the stronger one counts where there are several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// As it is.
    Identity,
    /// As a part of an expression.
    Transformed,
    /// Many into one: an aggregate or a window.
    Aggregated,
}

/// A column of a table.
pub type Origin = (TableName, String);

/// The origins of one column of a result.
pub type Origins = BTreeMap<Origin, Step>;

/// For each column of the plan's result, in order, the columns of tables that it comes from.
pub fn origins(plan: &LogicalPlan) -> Result<Vec<Origins>> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => {
            let table = table_name(&scan.table_name);
            let names = scan.projected_schema.fields().iter().map(|f| f.name());
            names.map(|name| Origins::from([((table.clone(), name.clone()), Step::Identity)])).collect()
        }
        LogicalPlan::Projection(projection) => {
            let input = Input::of(&projection.input)?;
            projection.expr.iter().map(|e| input.expression(e)).collect::<Result<_>>()?
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = Input::of(&aggregate.input)?;
            let mut columns: Vec<Origins> = Vec::new();
            for expr in &aggregate.group_expr {
                match expr {
                    Expr::GroupingSet(set) => {
                        for expr in set.distinct_expr() {
                            columns.push(input.expression(expr)?);
                        }
                        // Which set a row belongs to comes from no column.
                        columns.push(Origins::new());
                    }
                    expr => columns.push(input.expression(expr)?),
                }
            }
            for expr in &aggregate.aggr_expr {
                columns.push(raised(input.expression(expr)?, Step::Aggregated));
            }
            columns
        }
        LogicalPlan::Window(window) => {
            let input = Input::of(&window.input)?;
            let windows: Vec<Origins> =
                window.window_expr.iter().map(|e| Ok(raised(input.expression(e)?, Step::Aggregated))).collect::<Result<_>>()?;
            input.columns.into_iter().chain(windows).collect()
        }
        LogicalPlan::Join(join) => {
            let left = || origins(&join.left);
            let right = || origins(&join.right);
            let with_mark = |mut columns: Vec<Origins>| {
                columns.push(Origins::new());
                columns
            };
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => left()?,
                JoinType::RightSemi | JoinType::RightAnti => right()?,
                JoinType::LeftMark => with_mark(left()?),
                JoinType::RightMark => with_mark(right()?),
                _ => left()?.into_iter().chain(right()?).collect(),
            }
        }
        LogicalPlan::Union(union) => {
            let mut columns = vec![Origins::new(); plan.schema().fields().len()];
            for input in &union.inputs {
                for (column, more) in columns.iter_mut().zip(origins(input)?) {
                    unite(column, more);
                }
            }
            columns
        }
        LogicalPlan::RecursiveQuery(query) => {
            let mut columns = origins(&query.static_term)?;
            for (column, more) in columns.iter_mut().zip(origins(&query.recursive_term)?) {
                // What the query reads of itself is where the first term came from.
                let from_elsewhere = more.into_iter().filter(|((table, _), _)| table.name != query.name);
                unite(column, from_elsewhere.collect());
            }
            columns
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            let input = Input::of(&distinct.input)?;
            distinct.select_expr.iter().map(|e| input.expression(e)).collect::<Result<_>>()?
        }
        LogicalPlan::Unnest(unnest) => {
            let columns = origins(&unnest.input)?;
            unnest.dependency_indices.iter().map(|i| columns.get(*i).cloned().unwrap_or_default()).collect()
        }
        LogicalPlan::Subquery(subquery) => origins(&subquery.subquery)?,
        // What is left over passes its one input through, or has none.
        other => match other.inputs().as_slice() {
            [input] if input.schema().fields().len() == other.schema().fields().len() => origins(input)?,
            _ => vec![Origins::new(); other.schema().fields().len()],
        },
    })
}

/// A column of a table that a stream fills.
#[derive(Clone, Debug)]
pub struct Landed {
    pub table: TableName,
    pub column: String,
    /// The stream's own columns that it comes from.
    pub from: BTreeMap<String, Step>,
}

/// Where the columns of all tables of a stream come from: through its query, its rules and what is taken apart.
pub async fn landed(plan: &StreamPlan) -> Result<Vec<Landed>> {
    let stepped = plan.steps.origins(&plan.spec.schema).await?;
    let shapes = plan.shape.tables();
    let mut found = Vec::new();
    let Some(root) = plan.tables.first() else { return Ok(found) };
    for (table, shape) in plan.tables.iter().zip(&shapes) {
        for (name, place) in table.conform.places(&root.conform) {
            let column = match place {
                Place::Own(i) => &shape.columns[i],
                Place::Root(i) => &shapes[0].columns[i],
            };
            let within =
                if column.is_whole() && (shape.depth == 0 || matches!(place, Place::Root(_))) { Step::Identity } else { Step::Transformed };
            let from = stepped[column.top].iter().map(|(from, step)| (from.clone(), within.max(*step))).collect();
            found.push(Landed { table: table.table().name.clone(), column: name.to_owned(), from });
        }
    }
    Ok(found)
}

pub(crate) fn input_of(plan: &LogicalPlan) -> Result<Input<'_>> {
    Input::of(plan)
}

/// A plan below an expression.
pub(crate) struct Input<'a> {
    schema: &'a DFSchema,
    columns: Vec<Origins>,
}

impl<'a> Input<'a> {
    fn of(plan: &'a LogicalPlan) -> Result<Self> {
        Ok(Self { schema: plan.schema(), columns: origins(plan)? })
    }

    pub(crate) fn expression(&self, expr: &Expr) -> Result<Origins> {
        let step = match bare(expr) {
            Some(column) => return Ok(self.column(column)),
            None => Step::Transformed,
        };
        let mut found = Origins::new();
        let mut failed = None;
        let mut below = |subquery: &Subquery, found: &mut Origins| match origins(&subquery.subquery) {
            Ok(columns) => columns.into_iter().for_each(|c| unite(found, c)),
            Err(e) => failed = Some(e),
        };
        let walked = expr.apply(|expr| {
            match expr {
                Expr::Column(column) => unite(&mut found, self.column(column)),
                Expr::ScalarSubquery(subquery) => below(subquery, &mut found),
                Expr::InSubquery(within) => below(&within.subquery, &mut found),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(query_error)?;
        match failed {
            Some(e) => Err(e),
            None => Ok(raised(found, step)),
        }
    }

    fn column(&self, column: &Column) -> Origins {
        let at = self.schema.maybe_index_of_column(column);
        at.and_then(|at| self.columns.get(at)).cloned().unwrap_or_default()
    }
}

/// The column that an expression only gives another name.
fn bare(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => bare(&alias.expr),
        _ => None,
    }
}

fn raised(origins: Origins, step: Step) -> Origins {
    origins.into_iter().map(|(origin, known)| (origin, known.max(step))).collect()
}

fn unite(into: &mut Origins, more: Origins) {
    for (origin, step) in more {
        let known = into.entry(origin).or_insert(step);
        *known = (*known).max(step);
    }
}

pub(crate) fn table_name(table: &datafusion::common::TableReference) -> TableName {
    let schema = table.schema().filter(|s| *s != NO_SCHEMA && *s != CATALOG);
    match table.catalog().filter(|c| *c != CATALOG) {
        // Of another connection.
        Some(connection) => TableName::new(Some(connection), &TableName::new(schema, table.table()).to_string()),
        None => TableName::new(schema, table.table()),
    }
}
