//! What a change of the project does to others: who reads what has changed, which columns go away, which intervals are due.

use std::fmt;

use arrow::datatypes::Schema;
use serde::Serialize;
use trib_core::load::{RowScope, Rows};
use trib_core::name::system;
use trib_core::{Split, State, TableName};
use trib_engine::reads::needed;
use trib_project::graph::GraphNode;
use trib_project::select::Manifest;
use trib_project::{Graph, Model, Project};
use trib_runtime::{StreamTask, SyncTask};

use crate::app::Session;
use crate::commands::plan::SyncOutline;
use crate::exit::Result;
use crate::tables::logical;

/// What became of a node since the last run, and which nodes come after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: &'static str,
    pub read_by: Vec<String>,
}

impl Change {
    pub fn of(before: Option<&Manifest>, node: &GraphNode, graph: &Graph) -> Option<Self> {
        let kind = match before?.get(&node.name) {
            None => "new",
            Some(hash) if *hash != node.hash => "changed",
            Some(_) => return None,
        };
        Some(Self { kind, read_by: graph.reach(&node.name, false, usize::MAX).into_iter().collect() })
    }

    pub fn removed() -> Self {
        Self { kind: "removed", read_by: Vec::new() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            "removed" => f.write_str("is no longer part of the project; what it made stays")?,
            kind => write!(f, "{kind} since the last run")?,
        }
        if self.read_by.is_empty() { Ok(()) } else { write!(f, "; read by {}", self.read_by.join(", ")) }
    }
}

/// A column that the table has and will not have, and the nodes that read it as they are written now.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    pub table: String,
    pub column: String,
    pub read_by: Vec<String>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: column {} goes away", self.table, self.column)?;
        if self.read_by.is_empty() { f.write_str("; no node reads it") } else { write!(f, "; read by {}", self.read_by.join(", ")) }
    }
}

/// The columns that a model's table loses. Models are looked at as the tables are now: one that no longer fits them has been changed along with it.
pub async fn losses(session: &Session, graph: &Graph, model: &Model, new: &Schema) -> Result<Vec<Loss>> {
    let project = session.project()?;
    let there = session.destination(&model.spec.connection)?.inspect(&project.environment.physical(&model.table)).await?;
    let gone = |name: &str| !name.starts_with(system::PREFIX) && new.field_with_name(name).is_err();
    let names = there.iter().flat_map(|t| &t.columns).map(|c| c.field.name()).filter(|name| gone(name));
    let loss = |name: &String| Loss { table: model.table.to_string(), column: name.clone(), read_by: Vec::new() };
    let mut losses: Vec<Loss> = names.map(loss).collect();
    if losses.is_empty() {
        return Ok(losses);
    }
    for child in graph.children(&model.name) {
        let Ok(child) = project.model(child) else { continue };
        let columns = reads(session, child, model).await;
        for loss in &mut losses {
            if columns.as_ref().is_some_and(|columns| columns.contains(&loss.column)) {
                loss.read_by.push(child.name.clone());
            }
        }
    }
    Ok(losses)
}

/// The columns of a parent's table, as it is, that a model needs; `None` where that cannot be said.
async fn reads(session: &Session, child: &Model, parent: &Model) -> Option<Vec<String>> {
    if child.is_script {
        return None;
    }
    let queries = session.queries(&child.spec.connection).await.ok()??;
    let frame = queries.frame(&child.sql).await.ok()?;
    let found = needed(&frame).ok()?;
    Some(found.into_iter().filter(|(table, _)| parent.is_called(table)).flat_map(|(_, columns)| columns).collect())
}

/// Syncs that read a column which a model loses: of each it is known which columns it asks for.
pub fn read_by_syncs(project: &Project, plans: &mut [SyncOutline]) {
    let mut taken: Vec<(String, TableName, Vec<String>)> = Vec::new();
    for plan in plans.iter().filter(|p| project.sync(&p.sync).is_ok()) {
        for stream in &plan.streams {
            taken.push((plan.sync.clone(), logical(&project.environment, TableName::parse(&stream.stream)), stream.columns.clone()));
        }
    }
    for plan in plans {
        for loss in &mut plan.loses {
            let readers = taken.iter().filter(|(_, table, columns)| table.to_string() == loss.table && columns.contains(&loss.column));
            loss.read_by.extend(readers.map(|(sync, ..)| sync.clone()));
        }
    }
}

/// The intervals that a run would compute, as the tables are now.
pub async fn intervals(task: &SyncTask, stream: &StreamTask, state: &State) -> Option<String> {
    if !stream.in_parts() {
        return None;
    }
    // What cannot be asked yet, since a table is not there, is not known yet.
    let splits = task.source.plan(&[stream.stream_read(task.limits.splits)], state).await.ok()?;
    let range = |split: &Split| match &split.covers {
        Some(RowScope { rows: Rows::Between { from, until }, .. }) => Some((from.clone(), until.clone())),
        _ => None,
    };
    let ranges: Vec<(String, String)> = splits.iter().filter_map(range).collect();
    let (first, last) = (ranges.first()?, ranges.last()?);
    let many = if ranges.len() == 1 { "1 interval is due".to_owned() } else { format!("{} intervals are due", ranges.len()) };
    Some(format!("{many}, from {} and before {}", first.0, last.1))
}
