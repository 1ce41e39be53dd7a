//! Which properties a request asks for, and how they are split over several requests whose records are merged again.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use trib_core::Result;

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::retriever::{PageState, Retriever};
use super::slice::Slice;
use super::template::python_str;
use super::transform::Transform;

/// Under this name a slice carries the properties of one request.
pub(super) const EXTRA: &str = "query_properties";

pub(super) struct QueryProperties {
    source: Source,
    always: Vec<String>,
    /// Those that are wanted, where only they are asked for.
    wanted: Option<HashSet<String>>,
    pub(super) chunking: Option<Chunking>,
}

enum Source {
    List(Vec<String>),
    Endpoint { path: Vec<Expr>, retriever: Box<Retriever>, known: OnceCell<Vec<String>> },
}

pub(super) struct Chunking {
    by_characters: bool,
    limit: Option<usize>,
    key: Vec<String>,
}

/// The query's key whose value is a list of properties.
pub(super) fn key_in_parameters(requester: &Node<'_>) -> Option<String> {
    let parameters = requester.get("request_parameters")?;
    parameters.entries().into_iter().find(|(_, v)| v.kind() == "QueryProperties").map(|(k, _)| k.clone())
}

impl QueryProperties {
    /// What a requester says about properties, wherever it says it.
    /// `wanted` are the properties of the stream's schema that somebody wants; `None` for all.
    pub(super) fn build(env: &Arc<Env>, requester: &Node<'_>, wanted: Option<&Map<String, Value>>) -> Result<Option<Self>> {
        let in_parameters = requester
            .get("request_parameters")
            .and_then(|p| p.entries().into_iter().map(|(_, v)| v).find(|v| v.kind() == "QueryProperties"));
        if let Some(endpoint) = requester.get("fetch_properties_from_endpoint") {
            return Ok(Some(Self { source: Source::build(env, &endpoint)?, always: Vec::new(), wanted: None, chunking: None }));
        }
        let Some(node) = in_parameters.or_else(|| requester.get("query_properties")) else { return Ok(None) };
        let list = node.need("property_list")?;
        let source = if list.value.is_array() {
            Source::List(node.items("property_list").iter().map(|p| python_str(p.value)).collect())
        } else {
            Source::build(env, &list)?
        };
        let always = node.items("always_include_properties").iter().map(|p| python_str(p.value)).collect();
        let wanted = match (node.get("property_selector"), wanted) {
            (Some(selector), Some(wanted)) => Some(names(env, &selector, wanted)?),
            _ => None,
        };
        Ok(Some(Self { source, always, wanted, chunking: node.get("property_chunking").map(|c| Chunking::build(&c)) }))
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(name))
    }

    /// The properties of each request.
    pub(super) async fn chunks(&self, env: &Env) -> Result<Vec<Vec<String>>> {
        let all = match &self.source {
            Source::List(list) => list,
            Source::Endpoint { path, retriever, known } => known.get_or_try_init(|| fetch(env, path, retriever)).await?,
        };
        Ok(match &self.chunking {
            None => vec![self.always.iter().chain(all.iter().filter(|name| self.wants(name))).cloned().collect()],
            // As in the reference: without a limit, everything is asked for.
            Some(chunking) if chunking.limit.is_none() => chunking.split(all, &self.always),
            Some(chunking) => chunking.split(&all.iter().filter(|name| self.wants(name)).cloned().collect::<Vec<_>>(), &self.always),
        })
    }
}

/// The names that the API has for the wanted properties: what is done to records is done to a record that holds them.
fn names(env: &Arc<Env>, selector: &Node<'_>, wanted: &Map<String, Value>) -> Result<HashSet<String>> {
    if selector.kind() != "JsonSchemaPropertySelector" {
        return Err(selector.unsupported());
    }
    let mut properties = Value::Object(wanted.clone());
    for transform in selector.items("transformations") {
        Transform::build(&transform)?.apply(env, &Slice::default(), &mut properties)?;
    }
    Ok(properties.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect())
}

impl Source {
    fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let retriever =
            Retriever::build(env, &node.need("retriever")?, &[], super::retriever::Place { use_cache: true, ..Default::default() })?;
        Ok(Source::Endpoint { path: node.exprs("property_field_path")?, retriever: Box::new(retriever), known: OnceCell::new() })
    }
}

async fn fetch(env: &Env, path: &[Expr], retriever: &Retriever) -> Result<Vec<String>> {
    let scope_path = path.iter().map(|p| p.text(&env.scope())).collect::<Result<Vec<_>>>()?;
    let mut names = Vec::new();
    let mut state = PageState::new(Slice::default(), retriever);
    while let Some(records) = Box::pin(retriever.next_page(env, &mut state, None, None)).await? {
        names.extend(records.iter().filter_map(|r| dpath::get(&r.value(), &scope_path).map(python_str)));
    }
    Ok(names)
}

impl Chunking {
    fn build(node: &Node<'_>) -> Self {
        let key = node.get("record_merge_strategy").map(|s| s.items("key").iter().map(|k| python_str(k.value)).collect());
        Self {
            by_characters: node.text("property_limit_type") == Some("characters"),
            limit: node.integer("property_limit").and_then(|l| usize::try_from(l).ok()).filter(|l| *l > 0),
            key: key.unwrap_or_else(|| vec!["id".to_owned()]),
        }
    }

    fn split(&self, all: &[String], always: &[String]) -> Vec<Vec<String>> {
        let Some(limit) = self.limit else { return vec![all.iter().chain(always).cloned().collect()] };
        let mut chunks = Vec::new();
        let (mut chunk, mut size) = (always.to_vec(), 0);
        for name in all {
            // As the reference counts: a comma in its URL-encoded form for each name.
            let own = if self.by_characters { name.chars().count() + 3 } else { 1 };
            if size + own > limit {
                chunks.push(std::mem::replace(&mut chunk, always.to_vec()));
                size = 0;
            }
            chunk.push(name.clone());
            size += own;
        }
        chunks.push(chunk);
        chunks
    }

    /// What records of several requests are the same by.
    pub(super) fn key_of(&self, record: &Value) -> Option<String> {
        let parts: Option<Vec<String>> = self.key.iter().map(|k| record.get(k).filter(|v| !v.is_null()).map(python_str)).collect();
        parts.map(|p| p.join(","))
    }
}

/// Lays one part of a record over another, object by object.
pub(super) fn deep_merge(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Object(target), Value::Object(source)) => {
            for (key, value) in source {
                match target.get_mut(&key) {
                    Some(known) if known.is_object() && value.is_object() => deep_merge(known, value),
                    _ => {
                        target.insert(key, value);
                    }
                }
            }
        }
        (target, source) => *target = source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_split_by_the_limit() {
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(|s| (*s).to_owned()).collect() };
        let chunking = |by_characters, limit| Chunking { by_characters, limit, key: names(&["id"]) };
        let (all, always) = (names(&["aa", "bb", "c"]), names(&["id"]));
        assert_eq!(chunking(false, Some(2)).split(&all, &always), [names(&["id", "aa", "bb"]), names(&["id", "c"])]);
        assert_eq!(chunking(true, Some(10)).split(&all, &always), [names(&["id", "aa", "bb"]), names(&["id", "c"])]);
        assert_eq!(chunking(true, None).split(&all, &always), [names(&["aa", "bb", "c", "id"])]);
    }
}
