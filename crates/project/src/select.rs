//! Which nodes a command is about, in dbt's words: names, globs, `sync/stream`, `tag:x`, `+model`, `sync+`, `2+model`, `@node`,
//! `state:modified`; blanks unite, commas intersect.

use std::collections::BTreeMap;

use trib_core::error::closest;
use trib_core::{Code, Error, Result};

use crate::graph::{Graph, GraphNode, NodeKind};
use crate::pattern::Pattern;

/// Selected nodes, and of each sync the streams.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    pub nodes: BTreeMap<String, Pick>,
}

/// Which streams of a sync are selected. A model is always [`Pick::All`].
#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    All,
    /// Streams that the glob takes.
    Named(Pattern),
    Both(Box<Pick>, Box<Pick>),
    Either(Box<Pick>, Box<Pick>),
    Not(Box<Pick>),
}

impl Pick {
    pub fn takes(&self, stream: &str) -> bool {
        match self {
            Pick::All => true,
            Pick::Named(pattern) => pattern.takes(stream),
            Pick::Both(a, b) => a.takes(stream) && b.takes(stream),
            Pick::Either(a, b) => a.takes(stream) || b.takes(stream),
            Pick::Not(a) => !a.takes(stream),
        }
    }
}

/// Hashes of the nodes at an earlier time: [`crate::Project::manifest`].
pub type Manifest = BTreeMap<String, String>;

/// Nodes that `include` selects and `exclude` does not; nodes that are not enabled are left out. Nothing included means all.
///
/// A term that selects nothing is an error that suggests what was meant. `before` is what `state:` compares with.
pub fn select(graph: &Graph, include: &[String], exclude: &[String], before: Option<&Manifest>) -> Result<Selection> {
    let words = |terms: &[String]| -> Vec<String> { terms.iter().flat_map(|t| t.split_whitespace().map(str::to_owned)).collect() };
    let include = words(include);
    let mut selected = if include.is_empty() { all(graph) } else { Selection::default() };
    for term in include {
        selected = selected.united(intersection(graph, &term, before)?);
    }
    for term in words(exclude) {
        selected = selected.without(&intersection(graph, &term, before)?);
    }
    selected.nodes.retain(|name, _| graph.nodes().iter().any(|n| &n.name == name && n.enabled));
    Ok(selected)
}

impl Selection {
    pub fn contains(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Whether a stream of a sync is selected.
    pub fn takes(&self, sync: &str, stream: &str) -> bool {
        self.nodes.get(sync).is_some_and(|pick| pick.takes(stream))
    }

    fn united(mut self, other: Selection) -> Selection {
        for (name, pick) in other.nodes {
            let both = match self.nodes.remove(&name) {
                None => pick,
                Some(Pick::All) => Pick::All,
                Some(_) if pick == Pick::All => Pick::All,
                Some(known) => Pick::Either(Box::new(known), Box::new(pick)),
            };
            self.nodes.insert(name, both);
        }
        self
    }

    fn intersected(mut self, mut other: Selection) -> Selection {
        let mut nodes = BTreeMap::new();
        while let Some((name, pick)) = self.nodes.pop_first() {
            match (other.nodes.remove(&name), pick) {
                (None, _) => {}
                (Some(Pick::All), pick) | (Some(pick), Pick::All) => drop(nodes.insert(name, pick)),
                (Some(a), b) => drop(nodes.insert(name, Pick::Both(Box::new(a), Box::new(b)))),
            }
        }
        Selection { nodes }
    }

    fn without(mut self, other: &Selection) -> Selection {
        for (name, pick) in &other.nodes {
            let Some(known) = self.nodes.remove(name) else { continue };
            if *pick != Pick::All {
                let rest = Pick::Not(Box::new(pick.clone()));
                let left = if known == Pick::All { rest } else { Pick::Both(Box::new(known), Box::new(rest)) };
                self.nodes.insert(name.clone(), left);
            }
        }
        self
    }
}

fn all(graph: &Graph) -> Selection {
    Selection { nodes: graph.nodes().iter().map(|n| (n.name.clone(), Pick::All)).collect() }
}

fn intersection(graph: &Graph, term: &str, before: Option<&Manifest>) -> Result<Selection> {
    let mut parts = term.split(',').map(|part| atom(graph, part, before));
    let first = parts.next().unwrap_or_else(|| Ok(Selection::default()))?;
    parts.try_fold(first, |selected, part| Ok(selected.intersected(part?)))
}

/// `+`, `2+` or `@` before; what is meant; `+` or `+2` after.
struct Atom<'a> {
    /// How many edges upstream, and downstream.
    up: usize,
    down: usize,
    /// With everything that the downstream nodes need.
    whole: bool,
    body: &'a str,
}

/// As far as the edges lead.
const ALL: usize = usize::MAX;

fn parts(text: &str) -> Atom<'_> {
    let mut atom = Atom { up: 0, down: 0, whole: false, body: text };
    if let Some(rest) = text.strip_prefix('@') {
        return Atom { whole: true, body: rest, ..atom };
    }
    if let Some((count, rest)) = atom.body.split_once('+')
        && count.chars().all(|c| c.is_ascii_digit())
        && !rest.is_empty()
    {
        atom.up = count.parse().unwrap_or(ALL);
        atom.body = rest;
    }
    if let Some((rest, count)) = atom.body.rsplit_once('+')
        && count.chars().all(|c| c.is_ascii_digit())
        && !rest.is_empty()
    {
        atom.down = count.parse().unwrap_or(ALL);
        atom.body = rest;
    }
    atom
}

fn atom(graph: &Graph, text: &str, before: Option<&Manifest>) -> Result<Selection> {
    let atom = parts(text);
    let found = body(graph, atom.body, before)?;
    let mut result = found.clone();
    let mut reach = |name: &str, upstream: bool, depth: usize| -> Vec<String> {
        let reached: Vec<String> = graph.reach(name, upstream, depth).into_iter().collect();
        for name in &reached {
            result.nodes.insert(name.clone(), Pick::All);
        }
        reached
    };
    for name in found.nodes.keys() {
        reach(name, true, atom.up);
        reach(name, false, atom.down);
        if atom.whole {
            reach(name, true, ALL);
            for child in reach(name, false, ALL) {
                reach(&child, true, ALL);
            }
        }
    }
    // What was named keeps its streams, though it may also be reached from another that was.
    for (name, pick) in found.nodes {
        result.nodes.insert(name, pick);
    }
    Ok(result)
}

fn body(graph: &Graph, text: &str, before: Option<&Manifest>) -> Result<Selection> {
    let choose = |test: &dyn Fn(&GraphNode) -> bool, pick: &Pick| Selection {
        nodes: graph.nodes().iter().filter(|n| test(n)).map(|n| (n.name.clone(), pick.clone())).collect(),
    };
    match text.split_once(':') {
        Some(("tag", tag)) => {
            let tags = graph.nodes().iter().flat_map(|n| n.tags.iter().map(String::as_str)).collect();
            let pattern = Pattern::new(tag)?;
            found(choose(&|n| n.tags.iter().any(|t| pattern.takes(t)), &Pick::All), text, tag, tags)
        }
        Some(("state", "modified")) => {
            let before = before.ok_or_else(|| {
                Error::new(Code::UsageInvalid, "there is no earlier run to compare with")
                    .detail(text)
                    .hint("`state:modified` compares with the last run in this environment")
            })?;
            // That nothing was changed is an answer.
            Ok(choose(&|n| before.get(&n.name) != Some(&n.hash), &Pick::All))
        }
        Some(("kind", kind @ ("sync" | "model" | "seed" | "command"))) => {
            let wanted = match kind {
                "sync" => NodeKind::Sync,
                "model" => NodeKind::Model,
                "command" => NodeKind::Command,
                _ => NodeKind::Seed,
            };
            Ok(choose(&|n| n.kind == wanted, &Pick::All))
        }
        Some(("path", path)) => {
            let pattern = Pattern::new(path)?;
            let folder = format!("{}/", path.trim_end_matches('/'));
            let under = |n: &GraphNode| pattern.takes(&n.at.file) || n.at.file.starts_with(&folder);
            found(choose(&under, &Pick::All), text, path, graph.nodes().iter().map(|n| &*n.at.file).collect())
        }
        Some((method, _)) => {
            let error = Error::new(Code::UsageInvalid, "there is no such way to select").detail(format!("`{text}`"));
            Err(match closest(method, ["tag", "state", "path", "kind"]) {
                Some(near) => error.hint(format!("did you mean `{near}:`?")),
                None => error.hint("names, globs, `sync/stream`, `tag:x`, `kind:model`, `path:x`, `state:modified`, `+` on either side"),
            })
        }
        None => {
            let (name, pick) = match text.split_once('/') {
                Some((name, stream)) => (name, Pick::Named(Pattern::new(stream)?)),
                None => (text, Pick::All),
            };
            let pattern = Pattern::new(name)?;
            let fits = |n: &GraphNode| pattern.takes(&n.name) && (pick == Pick::All || n.kind == NodeKind::Sync);
            found(choose(&fits, &pick), text, name, graph.nodes().iter().map(|n| n.name.as_str()).collect())
        }
    }
}

fn found(selection: Selection, term: &str, wanted: &str, known: Vec<&str>) -> Result<Selection> {
    if !selection.nodes.is_empty() {
        return Ok(selection);
    }
    let error = Error::new(Code::NotFound, "nothing in the project is selected by this").detail(format!("`{term}`"));
    Err(match closest(wanted, known) {
        Some(near) => error.hint(format!("did you mean `{}`?", term.replacen(wanted, near, 1))),
        None => error.hint("`trib ls` lists what there is"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::At;

    /// shop → orders → revenue → crm; events → revenue; lonely is not enabled.
    fn graph() -> Graph {
        use NodeKind::{Model, Sync};
        let node = |name: &str, kind, tags: &[&str], enabled| GraphNode {
            name: name.to_owned(),
            kind,
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            enabled,
            is_script: false,
            at: At::start_of(&format!("{}/{name}", if kind == NodeKind::Sync { "syncs" } else { "models" })),
            hash: format!("hash of {name}"),
        };
        Graph::given(
            vec![
                node("crm", Sync, &["out"], true),
                node("events", Sync, &["hourly"], true),
                node("lonely", Sync, &["hourly"], false),
                node("orders", Model, &[], true),
                node("revenue", Model, &["hourly", "finance"], true),
                node("shop", Sync, &["hourly"], true),
            ],
            &[("shop", "orders"), ("orders", "revenue"), ("events", "revenue"), ("revenue", "crm")],
        )
    }

    fn names(include: &str, exclude: &str) -> String {
        let list = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        let before = BTreeMap::from([("shop".to_owned(), "hash of shop".to_owned()), ("crm".to_owned(), "old".to_owned())]);
        let selection = select(&graph(), &list(include), &list(exclude), Some(&before)).unwrap();
        selection.nodes.into_keys().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn terms() {
        let cases = [
            ("", "", "crm events orders revenue shop"),
            ("shop", "", "shop"),
            ("*o*", "", "orders shop"),
            ("shop+", "", "crm orders revenue shop"),
            ("shop+1", "", "orders shop"),
            ("+revenue", "", "events orders revenue shop"),
            ("1+revenue", "", "events orders revenue"),
            ("+orders+", "", "crm orders revenue shop"),
            ("@shop", "", "crm events orders revenue shop"),
            ("tag:hourly", "", "events revenue shop"),
            ("tag:hourly,tag:finance", "", "revenue"),
            ("shop events", "", "events shop"),
            ("shop+,tag:hourly", "", "revenue shop"),
            ("kind:model", "", "orders revenue"),
            ("path:models", "", "orders revenue"),
            ("state:modified", "", "crm events orders revenue"),
            ("shop/public.*", "", "shop"),
            ("", "tag:hourly", "crm orders"),
            ("shop+", "revenue+", "orders shop"),
        ];
        for (include, exclude, expected) in cases {
            assert_eq!(names(include, exclude), expected, "{include:?} without {exclude:?}");
        }
    }

    #[test]
    fn streams() {
        let cases = [
            ("shop", "", "ab"),
            ("shop/a", "", "a"),
            ("shop/a shop/b", "", "ab"),
            ("shop/a,shop/b", "", ""),
            ("shop/a,tag:hourly", "", "a"),
            ("shop", "shop/a", "b"),
            ("+orders", "", "ab"),
            ("shop/a+", "", "a"),
        ];
        for (include, exclude, expected) in cases {
            let list = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
            let selection = select(&graph(), &list(include), &list(exclude), None).unwrap();
            let taken: String = ["a", "b"].into_iter().filter(|s| selection.takes("shop", s)).collect();
            assert_eq!(taken, expected, "{include:?} without {exclude:?}");
        }
    }

    #[test]
    fn what_selects_nothing() {
        let cases = [
            ("shp", Code::NotFound, "did you mean `shop`?"),
            ("orders/a", Code::NotFound, "did you mean `orders/a`?"),
            ("tag:hurly", Code::NotFound, "did you mean `tag:hourly`?"),
            ("tags:hourly", Code::UsageInvalid, "did you mean `tag:`?"),
            ("zzzzzz", Code::NotFound, "`trib ls` lists what there is"),
            ("state:modified", Code::UsageInvalid, "`state:modified` compares with the last run in this environment"),
        ];
        for (term, code, hint) in cases {
            let error = select(&graph(), &[term.to_owned()], &[], None).unwrap_err();
            assert_eq!((error.code(), error.hint_text()), (code, Some(hint)), "{term}");
        }
    }
}
