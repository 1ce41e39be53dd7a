//! Columns of the project, and which come from which: through syncs by what they do to rows, through models by their SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use serde::Serialize;
use trib_core::name::system;
use trib_core::{Destination, Error, TableName};
use trib_engine::catalog::Over;
use trib_engine::failure::query_error;
use trib_engine::lineage::{Origins, Step, landed, origins};
use trib_engine::{Queries, Relation, StreamPlan, Tables};
use trib_project::graph::{GraphNode, writes};
use trib_project::{DeliveryPlan, Environment, Model, NodeKind, Sync};
use trib_runtime::{StreamTask, SyncTask};

use crate::app::Session;
use crate::assemble::Ask;
use crate::delivered::Delivered;
use crate::exit::Result;
use crate::models;
use crate::prepare::{self, Wanted};
use crate::tables::logical;

/// A column as the project knows it: of a table, or of a stream of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ColumnName {
    /// The table as the project names it, or `connection: stream`.
    pub table: String,
    pub column: String,
}

impl ColumnName {
    fn new(table: &str, column: &str) -> Self {
        Self { table: table.to_owned(), column: column.to_owned() }
    }
}

/// One column goes into another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    pub from: ColumnName,
    pub to: ColumnName,
    pub how: Step,
    /// The sync, seed or model that does it.
    pub node: String,
}

/// A table that a node makes, or an object of an API that is delivered to.
#[derive(Clone, Debug)]
pub struct KnownTable {
    /// As edges name it.
    pub name: String,
    /// As the project names it; the same name may stand in two connections.
    pub logical: TableName,
    pub connection: String,
    pub node: String,
    /// The stream of a sync.
    pub stream: Option<String>,
    /// What the sync says of it.
    pub declared: Option<Arc<trib_project::StreamPlan>>,
    /// Of an object: what goes there.
    pub delivered: Vec<Delivered>,
    /// Our own columns left out.
    pub columns: Vec<(String, DataType)>,
    /// The tables that it is made from; of a sync the stream, as `connection: stream`.
    pub reads: BTreeSet<String>,
}

impl KnownTable {
    pub fn is_made_by(&self, node: &str) -> bool {
        self.node == node || self.delivered.iter().any(|d| d.plan.sync == node)
    }
}

#[derive(Default)]
pub struct Lineage {
    pub edges: Vec<Edge>,
    /// In the order in which they are made.
    pub tables: Vec<KnownTable>,
    /// What could not be traced, and why.
    pub unknown: Vec<Error>,
    /// By connection: tables as those see them that read them, be they made or not.
    over: BTreeMap<String, Vec<(TableName, Over)>>,
}

impl Lineage {
    /// Everything that can be traced without reading a row. Sources are asked what they offer, destinations what they have.
    pub async fn of(session: &Session) -> Result<Self> {
        let project = session.project()?;
        let graph = session.graph()?;
        let selection = session.select(&crate::args::Select::default()).await?;
        let mut lineage = Self::default();
        for node in graph.order().into_iter().filter(|n| selection.contains(&n.name)) {
            let wanted = Wanted { selection: &selection, ask: &Ask::default(), paused: &[] };
            let traced = match node.kind {
                NodeKind::Sync => lineage.sync(session, node, &wanted).await,
                NodeKind::Seed => lineage.seed(session, node).await,
                NodeKind::Command => Ok(()),
                NodeKind::Model => lineage.model(session, project.model(&node.name)?).await,
            };
            if let Err(failure) = traced {
                lineage.unknown.extend(failure.0);
            }
        }
        Ok(lineage)
    }

    async fn sync(&mut self, session: &Session, node: &GraphNode, wanted: &Wanted<'_>) -> Result<()> {
        let sync = session.project()?.sync(&node.name)?;
        if session.destination(&sync.spec.to).is_ok_and(|to| to.deliveries().is_some()) {
            return self.deliveries(session, sync, wanted).await;
        }
        for prepared in prepare::sync(session, sync, wanted).await {
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(failure) => {
                    self.unknown.extend(failure.0);
                    continue;
                }
            };
            self.unknown.extend(prepared.errors);
            for plan in prepared.plans.into_iter().map(Arc::new) {
                let source = self.stream_name(&session.project()?.environment, &plan.connection, &plan.stream);
                self.stream(session, &prepared.task, (&source, &plan.to, &plan.logical), &sync.name, Some(&plan)).await?;
            }
        }
        Ok(())
    }

    /// The objects that a sync delivers to. They are not asked: what is sent is what the project says.
    async fn deliveries(&mut self, session: &Session, sync: &Sync, wanted: &Wanted<'_>) -> Result<()> {
        sync.ready()?;
        let (plans, errors) = sync.deliveries();
        self.unknown.extend(errors);
        for from in &sync.spec.from.0 {
            for plan in plans.iter().filter(|p| wanted.selection.takes(&sync.name, &p.stream)) {
                if let Err(failure) = self.delivery(session, from, &sync.spec.to, plan).await {
                    self.unknown.extend(failure.0.into_iter().map(|e| plan.at.mark(e.stream(&plan.stream))));
                }
            }
        }
        Ok(())
    }

    async fn delivery(&mut self, session: &Session, from: &str, to: &str, plan: &DeliveryPlan) -> Result<()> {
        let queries = self.queries(session, from, false).await?;
        let delivered = Delivered::of(&queries, from, plan.clone()).await?;
        let frame = queries.frame(&delivered.sql()).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let found: Vec<Origins> = origins(frame.logical_plan())?;
        let name = self.object(to, delivered, &schema, self.table_name(session, from, &plan.table)?);
        self.come_from(session, from, (&name, &plan.sync), &schema, found)
    }

    async fn seed(&mut self, session: &Session, node: &GraphNode) -> Result<()> {
        let Some(seed) = session.project()?.seeds().iter().find(|s| s.name == node.name) else { return Ok(()) };
        let task = models::seed(session, seed).await?;
        self.stream(session, &task, (&seed.file, &seed.connection, &seed.table), &seed.name, None).await?;
        self.also_called(&seed.connection, &seed.table, &seed.name);
        Ok(())
    }

    /// A stream's columns into the tables that it becomes. `source` is what the stream is called, `to` and `table` where its rows go.
    async fn stream(
        &mut self,
        session: &Session,
        task: &SyncTask,
        (source, to, table): (&str, &str, &TableName),
        node: &str,
        declared: Option<&Arc<trib_project::StreamPlan>>,
    ) -> Result<()> {
        let is_meant = |t: &&StreamTask| declared.is_none_or(|d| t.spec.stream == d.stream);
        let Some(one) = task.streams.iter().find(is_meant) else { return Ok(()) };
        let plan = match StreamPlan::compile(&session.engine()?, one.spec.clone(), task.destination.as_ref()).await {
            Ok(plan) => plan,
            Err(e) => {
                self.unknown.push(e.connection(to));
                return Ok(());
            }
        };
        let found = landed(&plan).await?;
        for made in &plan.tables {
            let physical = &made.table().name;
            // Child tables are named after their root.
            let suffix = physical.name.strip_prefix(&one.spec.table.name).unwrap_or(&physical.name);
            let logical = TableName::new(table.schema.as_deref(), &format!("{}{suffix}", table.name));
            let own = declared.filter(|_| suffix.is_empty()).cloned();
            let (name, reads) = (self.make(to, logical, node, &made.table().schema)?, source.to_owned());
            if let Some(known) = self.tables.iter_mut().find(|t| t.name == name) {
                known.declared = known.declared.take().or(own);
                known.reads.insert(reads);
                known.stream = known.stream.take().or(declared.map(|d| d.stream.clone()));
            }
            for column in found.iter().filter(|l| l.table == *physical) {
                for (from, how) in &column.from {
                    let (from, to) = (ColumnName::new(source, from), ColumnName::new(&name, &column.column));
                    self.edges.push(Edge { from, to, how: *how, node: node.to_owned() });
                }
            }
        }
        Ok(())
    }

    async fn model(&mut self, session: &Session, model: &Model) -> Result<()> {
        let connection = &model.spec.connection;
        let queries = self.queries(session, connection, !model.elsewhere.is_empty()).await?;
        // What a program does with its columns cannot be seen; which columns it has made can.
        let sql =
            if model.is_script { format!("select * from {}", trib_project::data_test::quoted(&model.table)) } else { model.sql.clone() };
        let frame = queries.frame(&sql).await.map_err(|e| if model.is_script { e } else { model.mark(e) })?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let found: Vec<Origins> = origins(frame.logical_plan())?;
        let name = self.make(connection, model.table.clone(), &model.name, &schema)?;
        self.also_called(connection, &model.table, &model.name);
        let elsewhere = model.elsewhere.iter().map(|(other, table)| TableName::new(Some(other.as_str()), &table.to_string()));
        let tables = model.reads.iter().cloned().chain(elsewhere);
        let reads: Result<BTreeSet<String>> = tables.map(|table| self.table_name(session, connection, &table)).collect();
        let reads = reads?;
        if let Some(known) = self.tables.iter_mut().find(|t| t.name == name) {
            known.reads = reads;
        }
        if model.is_script {
            return Ok(());
        }
        self.come_from(session, connection, (&name, &model.name), &schema, found)
    }

    /// Edges from the columns that a query in a connection reads to those of the table that a node makes of it.
    fn come_from(
        &mut self,
        session: &Session,
        connection: &str,
        (name, node): (&str, &str),
        schema: &Schema,
        found: Vec<Origins>,
    ) -> Result<()> {
        for (field, origins) in schema.fields().iter().zip(found) {
            let to = ColumnName::new(name, field.name());
            for ((table, column), how) in origins {
                let from = ColumnName::new(&self.table_name(session, connection, &table)?, &column);
                self.edges.push(Edge { from, to: to.clone(), how, node: node.to_owned() });
            }
        }
        Ok(())
    }

    /// Queries over what a model of a connection may read, in which the tables that were traced stand as they will be. `across`: it reads other
    /// connections too.
    async fn queries(&self, session: &Session, home: &str, across: bool) -> Result<Queries> {
        let mut over = self.over.get(home).cloned().unwrap_or_default();
        if session.native(home)?.is_none() && !across {
            let (destination, environment) = (session.destination(home)?, session.project()?.environment.clone());
            return Ok(Queries::new(session.engine()?, Arc::new(Inside { destination, environment })).with(over));
        }
        for (connection, tables) in self.over.iter().filter(|(connection, _)| connection.as_str() != home) {
            for (table, made) in tables {
                over.push((TableName::new(Some(connection.as_str()), &table.to_string()), made.clone()));
                if !over.iter().any(|(known, _)| known == table) {
                    over.push((table.clone(), made.clone()));
                }
            }
        }
        Ok(session.queries_across(home).await?.with(over))
    }

    /// Adds a table, and gives the name that edges have for it: its connection stands before it where another has the same.
    fn make(&mut self, connection: &str, logical: TableName, node: &str, schema: &Schema) -> Result<String> {
        if let Some(known) = self.tables.iter().find(|t| t.connection == connection && t.logical == logical) {
            // Several sources fill it.
            return Ok(known.name.clone());
        }
        let name = self.free_name(connection, &logical);
        let over = self.over.entry(connection.to_owned()).or_default();
        over.push((logical.clone(), Over::Table(empty(schema)?)));
        let ours = |name: &str| name.starts_with(system::PREFIX);
        let columns = schema.fields().iter().filter(|f| !ours(f.name())).map(|f| (f.name().clone(), f.data_type().clone())).collect();
        self.tables.push(KnownTable {
            name: name.clone(),
            logical,
            connection: connection.to_owned(),
            node: node.to_owned(),
            stream: None,
            declared: None,
            delivered: Vec::new(),
            columns,
            reads: BTreeSet::new(),
        });
        Ok(name)
    }

    /// Adds what goes to an object. Several tables may, each with fields of its own.
    fn object(&mut self, connection: &str, delivered: Delivered, schema: &Schema, reads: String) -> String {
        let logical = TableName::new(None, &delivered.plan.object);
        let known = self.tables.iter().position(|t| t.connection == connection && t.logical == logical);
        let at = known.unwrap_or_else(|| {
            self.tables.push(KnownTable {
                name: self.free_name(connection, &logical),
                logical,
                connection: connection.to_owned(),
                node: delivered.plan.sync.clone(),
                stream: Some(delivered.plan.stream.clone()),
                declared: None,
                delivered: Vec::new(),
                columns: Vec::new(),
                reads: BTreeSet::new(),
            });
            self.tables.len() - 1
        });
        let object = &mut self.tables[at];
        for field in schema.fields() {
            if object.columns.iter().all(|(name, _)| name != field.name()) {
                object.columns.push((field.name().clone(), field.data_type().clone()));
            }
        }
        object.delivered.push(delivered);
        object.reads.insert(reads);
        object.name.clone()
    }

    /// A table's own name; its connection stands before it where another has the same.
    fn free_name(&self, connection: &str, logical: &TableName) -> String {
        let plain = logical.to_string();
        if self.tables.iter().any(|t| t.name == plain) { format!("{connection}: {plain}") } else { plain }
    }

    /// A model or seed may be read by its name alone.
    fn also_called(&mut self, connection: &str, table: &TableName, name: &str) {
        let Some(over) = self.over.get_mut(connection) else { return };
        if let Some((_, made)) = over.iter().find(|(known, _)| known == table).cloned() {
            over.push((TableName::new(None, name), made));
        }
    }

    /// What edges call a table that a query of this connection names.
    fn table_name(&self, session: &Session, connection: &str, table: &TableName) -> Result<String> {
        let project = session.project()?;
        if let Some((other, there)) = project.elsewhere(connection, None, table) {
            let there = TableName::parse(&there.to_string());
            let known = self.tables.iter().find(|t| t.connection == other && t.logical == there);
            return Ok(known.map_or_else(|| format!("{other}: {there}"), |t| t.name.clone()));
        }
        let model = project.models().iter().find(|m| m.is_called(table)).map(|m| &m.table);
        let seed = || project.seeds().iter().find(|s| s.is_called(table)).map(|s| &s.table);
        let logical = model.or_else(seed).unwrap_or(table);
        let known = self.tables.iter().find(|t| t.connection == connection && t.logical == *logical);
        // One that nobody here makes is called as the stream that it could be; one whose sync could not be asked, as it will be.
        let made = || project.syncs().iter().any(|s| s.spec.to == connection && writes(s, &logical.to_string()));
        Ok(match known {
            Some(known) => known.name.clone(),
            None if model.is_some() || made() => logical.to_string(),
            None => format!("{connection}: {logical}"),
        })
    }

    /// What edges call a stream: a table that the project itself has made has its own name.
    fn stream_name(&self, environment: &Environment, connection: &str, stream: &str) -> String {
        let physical = TableName::parse(stream);
        let names = [logical(environment, physical.clone()), physical];
        let known = self.tables.iter().find(|t| t.connection == connection && names.contains(&t.logical));
        known.map_or_else(|| format!("{connection}: {stream}"), |t| t.name.clone())
    }

    /// The columns of a table, or of a stream, that are known.
    pub fn columns_of(&self, table: &str) -> Vec<ColumnName> {
        if let Some(known) = self.tables.iter().find(|t| t.name == table) {
            return known.columns.iter().map(|(column, _)| ColumnName::new(table, column)).collect();
        }
        let mut found: Vec<ColumnName> = Vec::new();
        for edge in self.edges.iter().filter(|e| e.from.table == table) {
            if !found.contains(&edge.from) {
                found.push(edge.from.clone());
            }
        }
        found
    }

    /// The names of all tables and streams.
    pub fn names(&self) -> BTreeSet<&str> {
        self.tables.iter().map(|t| t.name.as_str()).chain(self.edges.iter().map(|e| e.from.table.as_str())).collect()
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

/// The tables of a database that the query engine cannot scan: their columns suffice.
struct Inside {
    destination: Arc<dyn Destination>,
    environment: Environment,
}

#[async_trait]
impl Tables for Inside {
    async fn find(&self, name: &TableName) -> trib_core::Result<Option<Relation>> {
        let Some(found) = self.destination.inspect(&self.environment.physical(name)).await? else { return Ok(None) };
        let fields: Vec<_> = found.columns.iter().map(|c| c.field.clone()).collect();
        Ok(Some(Relation::Table(empty(&Schema::new(fields))?)))
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

/// A table of these columns and no rows.
fn empty(schema: &Schema) -> trib_core::Result<Arc<MemTable>> {
    let fields: Vec<_> = schema.fields().iter().cloned().collect();
    Ok(Arc::new(MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]]).map_err(query_error)?))
}
