//! The syncs, seeds, models and commands of a project, and which of them need which: by the tables that they write and read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use trib_core::{Code, Error, TableName};

use crate::command::Command;
use crate::pattern::Pattern;
use crate::place::At;
use crate::project::Project;
use crate::sync::{Sync, hash};
use crate::table_template::TableTemplate;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    Sync,
    Model,
    Seed,
    Command,
}

impl NodeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeKind::Sync => "sync",
            NodeKind::Model => "model",
            NodeKind::Seed => "seed",
            NodeKind::Command => "command",
        }
    }
}

/// One node, as far as selections and lists need it.
#[derive(Clone, Debug)]
pub struct GraphNode {
    pub name: String,
    pub kind: NodeKind,
    pub tags: Vec<String>,
    pub enabled: bool,
    /// A model that is a program.
    pub is_script: bool,
    pub at: At,
    /// Of the node as it is written, for `state:modified`.
    pub hash: String,
}

/// Nodes in the order of their names, and the edges between them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<GraphNode>,
    /// By node, the nodes whose tables it reads.
    parents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn of(project: &Project) -> Self {
        let mut nodes: Vec<GraphNode> = Vec::new();
        let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sync in project.syncs() {
            nodes.push(GraphNode {
                name: sync.name.clone(),
                kind: NodeKind::Sync,
                tags: sync.spec.tags.clone(),
                enabled: sync.spec.enabled && sync.spec.from.0.iter().chain([&sync.spec.to]).all(|c| project.is_enabled(c)),
                is_script: false,
                at: sync.at.clone(),
                hash: sync.hash.clone(),
            });
            let models = project.models().iter().filter(|m| sync.spec.from.0.contains(&m.spec.connection));
            let read = models.filter(|m| sync.takes(&m.name) || sync.takes(&m.table.to_string()));
            let own = parents.entry(sync.name.clone()).or_default();
            own.extend(read.map(|m| m.name.clone()));
            let writers = project.syncs().iter().filter(|w| sync.spec.from.0.contains(&w.spec.to) && w.name != sync.name);
            let named = |w: &&Sync| sync.patterns().iter().any(|p| !p.is_glob() && writes(w, p.text()));
            own.extend(writers.filter(named).map(|w| w.name.clone()));
            let commands = project.commands().iter().filter(|c| sync.spec.from.0.contains(&c.spec.connection));
            let made =
                |c: &&Command| sync.patterns().iter().any(|p| !p.is_glob() && c.makes(&c.spec.connection, &TableName::parse(p.text())));
            own.extend(commands.filter(made).map(|c| c.name.clone()));
        }
        for seed in project.seeds() {
            nodes.push(GraphNode {
                name: seed.name.clone(),
                kind: NodeKind::Seed,
                tags: Vec::new(),
                enabled: project.is_enabled(&seed.connection),
                is_script: false,
                at: seed.at.clone(),
                hash: seed.hash.clone(),
            });
        }
        for model in project.models() {
            nodes.push(GraphNode {
                name: model.name.clone(),
                kind: NodeKind::Model,
                tags: model.spec.tags.clone(),
                enabled: model.spec.enabled && project.is_enabled(&model.spec.connection),
                is_script: model.is_script,
                at: model.at.clone(),
                hash: model.hash.clone(),
            });
            let own = parents.entry(model.name.clone()).or_default();
            own.extend(model.spec.after.iter().cloned());
            let home = &model.spec.connection;
            let reads = model.reads.iter().map(|table| (home, table)).chain(model.elsewhere.iter().map(|(place, table)| (place, table)));
            own.extend(reads.flat_map(|(place, table)| makers(project, place, table)));
        }
        for command in project.commands() {
            nodes.push(GraphNode {
                name: command.name.clone(),
                kind: NodeKind::Command,
                tags: command.spec.tags.clone(),
                enabled: command.spec.enabled && project.is_enabled(&command.spec.connection),
                is_script: false,
                at: command.at.clone(),
                hash: command.hash.clone(),
            });
            let own = parents.entry(command.name.clone()).or_default();
            own.extend(command.spec.after.iter().cloned());
            let reads = command.spec.reads.iter().map(|name| TableName::parse(name));
            own.extend(reads.flat_map(|table| makers(project, &command.spec.connection, &table)));
            own.remove(&command.name);
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Self { nodes, parents }
    }

    #[cfg(test)]
    pub(crate) fn given(nodes: Vec<GraphNode>, edges: &[(&str, &str)]) -> Self {
        let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (parent, child) in edges {
            parents.entry((*child).to_owned()).or_default().insert((*parent).to_owned());
        }
        Self { nodes, parents }
    }

    /// In the order of their names.
    pub fn nodes(&self) -> &[GraphNode] {
        &self.nodes
    }

    /// The nodes whose tables this one reads.
    pub fn parents(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parents.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The nodes that read this one's tables.
    pub fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parents.iter().filter(move |(_, parents)| parents.contains(name)).map(|(child, _)| child.as_str())
    }

    /// Everything that `name` needs, or that needs it, at most `depth` edges away; itself left out.
    pub fn reach(&self, name: &str, upstream: bool, depth: usize) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut edge: BTreeSet<String> = BTreeSet::from([name.to_owned()]);
        let mut left = depth;
        while left > 0 && !edge.is_empty() {
            let next = |n: &String| -> Vec<String> {
                if upstream { self.parents(n).map(str::to_owned).collect() } else { self.children(n).map(str::to_owned).collect() }
            };
            edge = edge.iter().flat_map(next).filter(|n| reached.insert(n.clone())).collect();
            left -= 1;
        }
        reached.remove(name);
        reached
    }

    /// What a model's or seed's rows are made from: itself and, on the way to the tables of syncs and commands, all models and seeds that it reads, as they are
    /// written. `None` for a node of another kind.
    pub fn fingerprint(&self, name: &str) -> Option<String> {
        let made = |name: &str| self.nodes.iter().find(|n| n.name == name && matches!(n.kind, NodeKind::Model | NodeKind::Seed));
        let node = made(name)?;
        let above = self.reach(name, true, usize::MAX);
        let parts: Vec<&str> = above.iter().filter_map(|n| made(n)).flat_map(|n| [n.name.as_str(), &n.hash]).collect();
        Some(hash(&[&[node.hash.as_str()], parts.as_slice()].concat()))
    }

    /// The nodes in an order in which each comes after its parents; ties by name.
    pub fn order(&self) -> Vec<&GraphNode> {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut order = Vec::new();
        while order.len() < self.nodes.len() {
            let ready = |n: &&GraphNode| {
                !done.contains(n.name.as_str())
                    && self.parents(&n.name).all(|p| done.contains(p) || !self.nodes.iter().any(|n| n.name == p))
            };
            let Some(next) = self.nodes.iter().find(ready) else { break };
            done.insert(&next.name);
            order.push(next);
        }
        order
    }

    /// The first circle, if there is one: its nodes could never run.
    pub fn cycle(&self) -> Option<Error> {
        let (node, mut path) = self.nodes.iter().find_map(|n| {
            let back = self.way(&n.name, &n.name, &mut BTreeSet::new())?;
            Some((n, back))
        })?;
        path.insert(0, node.name.clone());
        let error = Error::new(Code::ConfigInvalid, "nodes need each other in a circle")
            .detail(path.join(" → "))
            .hint("each reads a table that the one before it writes: take one of these edges away");
        Some(node.at.mark(error))
    }

    /// The nodes after `from` on a way to `to` along the edges.
    fn way(&self, from: &str, to: &str, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
        let children: Vec<String> = self.children(from).map(str::to_owned).collect();
        for child in children {
            if child == to {
                return Some(vec![child]);
            }
            if seen.insert(child.clone())
                && let Some(mut rest) = self.way(&child, to, seen)
            {
                rest.insert(0, child);
                return Some(rest);
            }
        }
        None
    }
}

/// The nodes that make a table of a connection.
pub fn makers(project: &Project, connection: &str, table: &TableName) -> Vec<String> {
    let name = table.to_string();
    let models = project.models().iter().filter(|m| m.spec.connection == connection && m.is_called(table)).map(|m| &m.name);
    let seeds = project.seeds().iter().filter(|s| s.connection == connection && s.is_called(table)).map(|s| &s.name);
    let syncs = project.syncs().iter().filter(|s| s.spec.to == connection && writes(s, &name)).map(|s| &s.name);
    let commands = project.commands().iter().filter(|c| c.makes(connection, table)).map(|c| &c.name);
    models.chain(seeds).chain(syncs).chain(commands).cloned().collect()
}

/// Whether a sync may write a table of this name. Without the source's catalog that is all that can be said.
pub fn writes(sync: &Sync, table: &str) -> bool {
    let own = std::iter::once(sync.spec.into.as_str());
    let streams = sync.spec.streams.iter().flat_map(|s| &s.0).filter_map(|(_, spec)| spec.into.as_deref());
    own.chain(streams).filter_map(|t| TableTemplate::parse(t).ok()).any(|into| {
        let pattern = |connection: &String| Pattern::new(&into.pattern(connection, sync.spec.naming));
        sync.spec.from.0.iter().any(|connection| pattern(connection).is_ok_and(|p| p.takes(table)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let node = |name: &str| GraphNode {
            name: name.to_owned(),
            kind: NodeKind::Model,
            tags: vec![],
            enabled: true,
            is_script: false,
            at: At::start_of(&format!("models/{name}.sql")),
            hash: String::new(),
        };
        Graph::given(names.into_iter().map(node).collect(), edges)
    }

    #[test]
    fn order_and_reach() {
        let graph = graph(&[("c", "b"), ("b", "a"), ("c", "a"), ("a", "d")]);
        let order: Vec<&str> = graph.order().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(order, ["c", "b", "a", "d"]);
        let reach = |name, up, depth| graph.reach(name, up, depth).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(reach("a", true, 9), "b c");
        assert_eq!(reach("d", true, 2), "a b c");
        assert_eq!(reach("c", false, 1), "a b");
        assert!(graph.cycle().is_none());
    }

    /// A change is one of everything that is made from it, and of nothing else.
    #[test]
    fn fingerprints() {
        let edges = [("raw", "a"), ("a", "b"), ("a", "c"), ("d", "c")];
        let with = |changed: &str| {
            let mut graph = graph(&edges);
            graph.nodes.iter_mut().find(|n| n.name == "raw").unwrap().kind = NodeKind::Sync;
            graph.nodes.iter_mut().find(|n| n.name == changed).unwrap().hash = "other".to_owned();
            graph
        };
        let before = with("raw");
        let changed = |name: &'static str| {
            let after = with(name);
            let other = |n: &&str| before.fingerprint(n) != after.fingerprint(n);
            ["raw", "a", "b", "c", "d"].into_iter().filter(other).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([changed("a"), changed("b"), changed("d"), changed("raw")], ["a b c", "b", "c d", ""]);
        assert_eq!(before.fingerprint("raw"), None);
    }

    #[test]
    fn circles_are_named() {
        let error = graph(&[("a", "b"), ("b", "c"), ("c", "b")]).cycle().unwrap();
        assert_eq!(error.detail_text(), Some("b → c → b"));
    }
}
