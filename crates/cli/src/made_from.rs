//! Which definition a model's or seed's table was made from.

use std::collections::BTreeSet;

use trib_project::{Graph, NodeKind, Project};
use trib_store::ScopeRecord;

use crate::app::Session;
use crate::assemble::identity;
use crate::exit::Result;

/// What the control database knows of a model's or seed's table. It has one scope.
pub async fn record(session: &Session, name: &str) -> Result<Option<ScopeRecord>> {
    Ok(session.store().await?.scopes(&identity(session.project()?, name, "")).await?.into_values().next())
}

/// The fingerprint under which a node's rows are stored when it is made now. `None` when a table that it reads is not made from what its own file says: the
/// rows are then of no definition that stands anywhere.
pub async fn claim(session: &Session, name: &str) -> Result<Option<String>> {
    let (graph, project) = (session.graph()?, session.project()?);
    for parent in stored_parents(graph, project, name) {
        let made_from = record(session, &parent).await?.and_then(|r| r.made_from);
        if made_from.is_none() || made_from != graph.fingerprint(&parent) {
            return Ok(None);
        }
    }
    Ok(graph.fingerprint(name))
}

/// The models and seeds whose tables a node reads, by itself or through views.
pub fn stored_parents(graph: &Graph, project: &Project, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for parent in graph.parents(name) {
        match kind(graph, parent) {
            Some(NodeKind::Model) if !is_stored(project, parent) => found.extend(stored_parents(graph, project, parent)),
            Some(NodeKind::Model | NodeKind::Seed) => _ = found.insert(parent.to_owned()),
            _ => {}
        }
    }
    found
}

fn kind(graph: &Graph, name: &str) -> Option<NodeKind> {
    graph.nodes().iter().find(|n| n.name == name).map(|n| n.kind)
}

fn is_stored(project: &Project, model: &str) -> bool {
    project.model(model).is_ok_and(|m| m.spec.materialized.is_stored())
}
