//! Columns of the project, and which come from which: through syncs by their mappings, through models by their SQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::MemTable;
use serde::Serialize;
use trib_core::{Error, TableName};
use trib_engine::catalog::Over;
use trib_engine::lineage::{Origins, Step, origins};
use trib_engine::session::query_error;
use trib_project::{Graph, Model, NodeKind, StreamPlan, Sync};

use crate::app::Session;
use crate::assemble::Ask;
use crate::exit::Result;
use crate::prepare::{self, Wanted};

/// A column as the project knows it: of a table, or of a stream of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ColumnName {
    /// The table as the project names it, or `connection: stream`.
    pub table: String,
    pub column: String,
}

/// One column goes into another.
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    pub from: ColumnName,
    pub to: ColumnName,
    pub how: Step,
    /// The sync or model that does it.
    pub node: String,
}

#[derive(Default)]
pub struct Lineage {
    pub edges: Vec<Edge>,
    /// All columns that are known, in the order of their tables.
    pub columns: Vec<ColumnName>,
    /// What could not be traced, and why.
    pub unknown: Vec<Error>,
}

impl Lineage {
    /// Everything that can be traced without reading a row. Sources are asked what they offer.
    pub async fn of(session: &Session) -> Result<Self> {
        let project = session.project()?;
        let graph = Graph::of(project);
        let selection = session.select(&crate::args::Select::default()).await?;
        let mut lineage = Self::default();
        let mut over: Vec<(TableName, Over)> = Vec::new();
        for node in graph.order().into_iter().filter(|n| selection.contains(&n.name)) {
            match node.kind {
                NodeKind::Sync => {
                    let sync = project.sync(&node.name)?;
                    let wanted = Wanted { selection: &selection, ask: &Ask::default(), paused: &[] };
                    for prepared in prepare::sync(session, sync, &wanted).await {
                        match prepared {
                            Err(failure) => lineage.unknown.extend(failure.0),
                            Ok(prepared) => {
                                for plan in &prepared.plans {
                                    let task = prepared.task.streams.iter().find(|t| t.spec.stream == plan.stream);
                                    lineage.sync(sync, plan, task.map(|t| &t.spec.schema));
                                }
                            }
                        }
                    }
                }
                NodeKind::Model => {
                    let model = project.model(&node.name)?;
                    if model.is_script {
                        // What a program does with its columns cannot be seen.
                        continue;
                    }
                    match lineage.model(session, model, &over).await {
                        Ok(schema) => over.extend(hidden(model, schema)?),
                        Err(failure) => lineage.unknown.extend(failure.0.into_iter().map(|e| model.mark(e))),
                    }
                }
                NodeKind::Seed => {}
            }
        }
        Ok(lineage)
    }

    /// A column of a stream lands under the name that its rule or the sync's naming gives it. What a query makes of a stream comes
    /// from the whole of it.
    fn sync(&mut self, sync: &Sync, plan: &StreamPlan, schema: Option<&SchemaRef>) {
        let source = format!("{}: {}", plan.connection, plan.stream);
        let (Some(schema), None) = (schema, &plan.transform.sql) else { return };
        for field in schema.fields() {
            let rule = plan.transform.columns.get(field.name());
            if rule.is_some_and(|r| r.drop) {
                continue;
            }
            let name = rule.and_then(|r| r.rename.clone()).unwrap_or_else(|| sync.spec.naming.apply(field.name()));
            let touched = rule.is_some_and(|r| r.hash || r.hmac.is_some() || r.mask.is_some() || r.cast.is_some());
            let to = ColumnName { table: plan.logical.to_string(), column: name };
            self.columns.push(to.clone());
            self.edges.push(Edge {
                from: ColumnName { table: source.clone(), column: field.name().clone() },
                to,
                how: if touched { Step::Transformed } else { Step::Identity },
                node: sync.name.clone(),
            });
        }
    }

    async fn model(&mut self, session: &Session, model: &Model, over: &[(TableName, Over)]) -> Result<SchemaRef> {
        let queries = crate::models::queries(session, model).await?.with(over.to_vec());
        let frame = queries.frame(&model.sql).await?;
        let found: Vec<Origins> = origins(frame.logical_plan())?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let project = session.project()?;
        let logical = |table: &TableName| project.models().iter().find(|m| m.is_called(table)).map_or(table.clone(), |m| m.table.clone());
        for (field, origins) in schema.fields().iter().zip(found) {
            let to = ColumnName { table: model.table.to_string(), column: field.name().clone() };
            self.columns.push(to.clone());
            for ((table, column), how) in origins {
                let from = ColumnName { table: logical(&table).to_string(), column };
                self.edges.push(Edge { from, to: to.clone(), how, node: model.name.clone() });
            }
        }
        Ok(schema)
    }

    /// Every edge on the way from or to a column, nearest first, with its distance from 1.
    pub fn reach(&self, column: &ColumnName, upstream: bool) -> Vec<(usize, &Edge)> {
        let mut found = Vec::new();
        self.walk(column, upstream, 1, &mut BTreeSet::new(), &mut found);
        found
    }

    fn walk<'a>(
        &'a self,
        column: &ColumnName,
        upstream: bool,
        depth: usize,
        seen: &mut BTreeSet<ColumnName>,
        found: &mut Vec<(usize, &'a Edge)>,
    ) {
        if !seen.insert(column.clone()) {
            return;
        }
        let next: Vec<&Edge> = self.edges.iter().filter(|e| if upstream { e.to == *column } else { e.from == *column }).collect();
        for edge in next {
            found.push((depth, edge));
            self.walk(if upstream { &edge.from } else { &edge.to }, upstream, depth + 1, seen, found);
        }
    }
}

/// The model's table as those that read it see it: its columns, whatever they are made of.
fn hidden(model: &Model, schema: SchemaRef) -> trib_core::Result<Vec<(TableName, Over)>> {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let table = MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]]).map_err(query_error)?;
    let table = Arc::new(table);
    Ok([model.table.clone(), TableName::new(None, &model.name)].map(|name| (name, Over::Table(table.clone()))).into())
}
