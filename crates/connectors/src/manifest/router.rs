//! Partitions: a list's values, a parent stream's records, and combinations of them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;
use url::Url;

use super::cursor::Observed;
use super::dpath;
use super::env::Env;
use super::fetch::FetchState;
use super::node::{Expr, Node};
use super::options::{Options, RequestOption};
use super::parameters::truthy;
use super::records::Records;
use super::slice::Slice;
use super::stream::{Context, Stream};
use super::template::python_str;

pub(super) enum Router {
    List {
        field: String,
        values: Vec<Value>,
        option: Option<RequestOption>,
    },
    Substream(Vec<Parent>),
    /// Every combination.
    Product(Vec<Arc<Router>>),
    Group {
        inner: Arc<Router>,
        size: usize,
        deduplicate: bool,
    },
    /// All partitions of all routers, each value once.
    Union {
        routers: Vec<Arc<Router>>,
        field: String,
    },
}

pub(super) struct Parent {
    stream: Stream,
    key: Vec<String>,
    field: String,
    option: Option<RequestOption>,
    incremental: bool,
    extra_fields: Vec<Vec<Expr>>,
    /// Where a record holds the first page of its children.
    lazy: Option<Vec<Expr>>,
}

impl Router {
    /// `None` where a stream has no partitions.
    pub(super) fn of_retriever(env: &Arc<Env>, retriever: &Node<'_>, context: &Context<'_>) -> Result<Option<Arc<Self>>> {
        let Some(node) = retriever.get("partition_router") else { return Ok(None) };
        if !node.value.is_array() {
            return Self::build(env, &node, context).map(Some);
        }
        let routers = retriever.items("partition_router").iter().map(|r| Self::build(env, r, context)).collect::<Result<Vec<_>>>()?;
        Ok((!routers.is_empty()).then(|| Arc::new(Router::Product(routers))))
    }

    fn build(env: &Arc<Env>, node: &Node<'_>, context: &Context<'_>) -> Result<Arc<Self>> {
        let scope = env.scope();
        Ok(Arc::new(match node.kind() {
            "ListPartitionRouter" => {
                let values = node.need("values")?;
                let values = if values.value.is_array() { values.value.clone() } else { node.need_expr("values")?.eval(&scope)? };
                let values = match values {
                    Value::Array(values) => values,
                    // As in the reference, a text is the list of its letters.
                    Value::String(text) => text.chars().map(|c| Value::from(c.to_string())).collect(),
                    _ => return Err(node.wrong("`values` does not give a list")),
                };
                let field = node.need_expr("cursor_field")?.text(&scope)?;
                Router::List { field, values, option: RequestOption::optional(node, "request_option")? }
            }
            "SubstreamPartitionRouter" => {
                let parents = node.items("parent_stream_configs");
                Router::Substream(parents.iter().map(|p| Parent::build(env, p, context)).collect::<Result<_>>()?)
            }
            "GroupingPartitionRouter" => Router::Group {
                inner: Self::build(env, &node.need("underlying_partition_router")?, context)?,
                size: node.integer("group_size").and_then(|s| usize::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(1),
                deduplicate: node.get("deduplicate").is_none_or(|d| d.value != &Value::Bool(false)),
            },
            "UnionPartitionRouter" => Router::Union {
                routers: node.items("partition_routers").iter().map(|r| Self::build(env, r, context)).collect::<Result<_>>()?,
                field: node.text("partition_field").unwrap_or_default().to_owned(),
            },
            _ => return Err(node.unsupported()),
        }))
    }

    /// Whether many values share a slice, so that a cursor for each makes no sense.
    pub(super) fn groups(&self) -> bool {
        matches!(self, Router::Group { .. })
    }

    /// What a slice puts into requests.
    pub(super) fn inject(&self, env: &Env, slice: &Slice, options: &mut Options) -> Result<()> {
        match self {
            Router::List { field, option: Some(option), .. } => inject(env, option, slice.get(field), options),
            Router::Substream(parents) => parents.iter().try_for_each(|parent| match &parent.option {
                Some(option) => inject(env, option, slice.get(&parent.field), options),
                None => Ok(()),
            }),
            Router::Product(routers) => routers.iter().rev().try_for_each(|r| r.inject(env, slice, options)),
            Router::List { .. } | Router::Group { .. } | Router::Union { .. } => Ok(()),
        }
    }

    /// How far parents were read, for children that only want what is new there. `None` where there are no parents.
    pub(super) fn parent_state(&self) -> Option<Value> {
        match self {
            Router::Substream(parents) => {
                let incremental = parents.iter().filter(|p| p.incremental);
                Some(Value::Object(incremental.map(|p| (p.stream.name().to_owned(), p.stream.state())).collect()))
            }
            Router::Group { inner, .. } => inner.parent_state(),
            Router::Union { routers, .. } => {
                let states = routers.iter().filter_map(|r| r.parent_state());
                Some(Value::Object(states.filter_map(|s| if let Value::Object(m) = s { Some(m) } else { None }).flatten().collect()))
            }
            Router::List { .. } | Router::Product(_) => None,
        }
    }
}

fn inject(env: &Env, option: &RequestOption, value: Option<&Value>, options: &mut Options) -> Result<()> {
    match value.filter(|v| truthy(v)) {
        Some(value) => option.inject(env, options, value.clone()),
        None => Ok(()),
    }
}

impl Parent {
    fn build(env: &Arc<Env>, node: &Node<'_>, context: &Context<'_>) -> Result<Self> {
        let scope = env.scope();
        // Later reads want what is new, and ask for it themselves.
        let lazy = node.get("lazy_read_pointer").filter(|p| truthy(p.value) && context.state.is_empty());
        let stream = node.need("stream")?;
        let incremental = node.flag("incremental_dependency");
        let state = if incremental { parent_state(&stream, context.state, env)? } else { Map::new() };
        let fields = |list: &Node<'_>| {
            let parts = list.value.as_array().into_iter().flatten();
            parts.map(|p| node.compile(p)).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            stream: Stream::build(
                env,
                &stream,
                &Context { state: &state, cursor_field: None, wanted: None, is_parent: true, dir: context.dir, files: None },
            )?,
            key: dpath::split(&node.need_expr("parent_key")?.text(&scope)?),
            field: node.need_expr("partition_field")?.text(&scope)?,
            option: RequestOption::optional(node, "request_option")?,
            incremental,
            extra_fields: node.items("extra_fields").iter().map(fields).collect::<Result<_>>()?,
            lazy: lazy.map(|_| node.exprs("lazy_read_pointer")).transpose()?,
        })
    }

    fn slice_of(&self, env: &Env, record: &Value, parent: &Slice) -> Result<Option<Slice>> {
        let Some(value) = dpath::get(record, &self.key).filter(|v| !v.is_null()) else { return Ok(None) };
        let partition =
            Map::from_iter([(self.field.clone(), value.clone()), ("parent_slice".to_owned(), Value::Object(parent.partition().clone()))]);
        let scope = env.scope();
        let mut extra = Map::new();
        for path in &self.extra_fields {
            let path = path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
            extra.insert(path.join("."), dpath::get(record, &path).cloned().unwrap_or(Value::Null));
        }
        let slice = Slice::new(partition, Map::new(), extra);
        let Some(pointer) = &self.lazy else { return Ok(Some(slice)) };
        let path = pointer.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
        let children = dpath::get(record, &path).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        let url = Url::parse("about:blank").map_err(|e| Error::internal("no address").source(e))?;
        let body = serde_json::to_vec(&children)?.into();
        Ok(Some(slice.with_given(Response { status: 200, headers: Vec::new(), url, body })))
    }
}

/// The parent's part of a child's state; what the child reached, when it was never kept apart.
fn parent_state(parent: &Node<'_>, child: &Map<String, Value>, env: &Env) -> Result<Map<String, Value>> {
    let name = parent.text("name").unwrap_or_default();
    let own = child.get("parent_state").and_then(|p| p.get(name)).or_else(|| child.get("state")).and_then(Value::as_object);
    if let Some(own) = own {
        return Ok(own.clone());
    }
    let mut plain = child.values().filter(|v| v.is_string() || v.is_number());
    match (plain.next(), child.len(), parent.get("incremental_sync")) {
        (Some(value), 1, Some(cursor)) => {
            let field = cursor.need_expr("cursor_field")?.text(&env.scope())?;
            Ok(Map::from_iter([(field, value.clone())]))
        }
        _ => Ok(Map::new()),
    }
}

/// The way through a router's partitions, one at a time.
pub(super) enum Walk {
    Ready(VecDeque<Slice>),
    Substream { router: Arc<Router>, at: usize, current: Option<Current> },
    Group { inner: Box<Walk>, size: usize, seen: Option<HashSet<String>>, done: bool },
    Union { left: VecDeque<Walk>, field: String, seen: HashSet<String> },
    Product(Vec<Arc<Router>>),
}

/// A parent's slice that is being read.
pub(super) struct Current {
    slice: Slice,
    pages: FetchState,
    observed: Observed,
    records: Records,
    /// How many of them were taken.
    taken: usize,
}

impl Walk {
    pub(super) fn new(router: &Arc<Router>) -> Self {
        match &**router {
            Router::List { field, values, .. } => {
                let slice = |value: &Value| Slice::of_partition(Map::from_iter([(field.clone(), value.clone())]));
                Walk::Ready(values.iter().map(slice).collect())
            }
            Router::Substream(_) => Walk::Substream { router: router.clone(), at: 0, current: None },
            Router::Product(routers) => Walk::Product(routers.clone()),
            Router::Group { inner, size, deduplicate } => {
                Walk::Group { inner: Box::new(Walk::new(inner)), size: *size, seen: deduplicate.then(HashSet::new), done: false }
            }
            Router::Union { routers, field } => {
                Walk::Union { left: routers.iter().map(Walk::new).collect(), field: field.clone(), seen: HashSet::new() }
            }
        }
    }

    pub(super) fn next<'a>(&'a mut self, env: &'a Env) -> BoxFuture<'a, Result<Option<Slice>>> {
        async move {
            if let Walk::Product(routers) = self {
                let product = product(env, routers).await?;
                *self = Walk::Ready(product);
            }
            match self {
                Walk::Ready(slices) => Ok(slices.pop_front()),
                Walk::Product(_) => Ok(None),
                Walk::Substream { router, at, current } => {
                    let Router::Substream(parents) = &**router else { return Ok(None) };
                    while let Some(parent) = parents.get(*at) {
                        match next_of_parent(env, parent, current).await? {
                            Some(slice) => return Ok(Some(slice)),
                            None => *at += 1,
                        }
                    }
                    Ok(None)
                }
                Walk::Group { inner, size, seen, done } => {
                    let mut group = Vec::new();
                    while !*done && group.len() < *size {
                        match inner.next(env).await? {
                            None => *done = true,
                            Some(slice) => {
                                let key = single_value(slice.partition())?;
                                if seen.as_mut().is_none_or(|seen| seen.insert(key)) {
                                    group.push(slice);
                                }
                            }
                        }
                    }
                    Ok((!group.is_empty()).then(|| grouped(&group)))
                }
                Walk::Union { left, field, seen } => {
                    while let Some(walk) = left.front_mut() {
                        match walk.next(env).await? {
                            None => {
                                left.pop_front();
                            }
                            Some(slice) => {
                                if let Some(united) = united(&slice, field, seen)? {
                                    return Ok(Some(united));
                                }
                            }
                        }
                    }
                    Ok(None)
                }
            }
        }
        .boxed()
    }
}

async fn next_of_parent(env: &Env, parent: &Parent, current: &mut Option<Current>) -> Result<Option<Slice>> {
    loop {
        let Some(reading) = current else {
            let Some(slice) = parent.stream.next_slice().await? else {
                parent.stream.finish();
                return Ok(None);
            };
            let pages = parent.stream.pages(&slice);
            *current = Some(Current { slice, pages, observed: Observed::default(), records: Records::default(), taken: 0 });
            continue;
        };
        if let Some(record) = reading.records.get(reading.taken) {
            reading.taken += 1;
            match parent.slice_of(env, &record.value(), &reading.slice)? {
                Some(slice) => return Ok(Some(slice)),
                None => continue,
            }
        }
        match parent.stream.next_page(&reading.slice, &mut reading.pages, &mut reading.observed).await? {
            Some(records) => (reading.records, reading.taken) = (records, 0),
            None => {
                let done = current.take();
                if let Some(done) = done {
                    parent.stream.close(&done.slice, done.observed);
                }
            }
        }
    }
}

async fn product(env: &Env, routers: &[Arc<Router>]) -> Result<VecDeque<Slice>> {
    let mut combined = vec![(Map::new(), Map::new())];
    for router in routers {
        let mut walk = Walk::new(router);
        let mut slices = Vec::new();
        while let Some(slice) = walk.next(env).await? {
            slices.push(slice);
        }
        let mut next = Vec::with_capacity(combined.len() * slices.len());
        for (partition, extra) in &combined {
            for slice in &slices {
                // What an earlier router says wins.
                let mut both = slice.partition().clone();
                both.extend(partition.clone());
                let mut both_extra = slice.extra.clone();
                both_extra.extend(extra.clone());
                next.push((both, both_extra));
            }
        }
        combined = next;
    }
    Ok(combined.into_iter().map(|(partition, extra)| Slice::new(partition, Map::new(), extra)).collect())
}

fn single_value(partition: &Map<String, Value>) -> Result<String> {
    let mut own = partition.iter().filter(|(k, _)| k.as_str() != "parent_slice");
    match (own.next(), own.next()) {
        (Some((_, value)), None) => Ok(value.to_string()),
        _ => Err(Error::new(Code::ConfigInvalid, "only partitions of one value can be grouped")),
    }
}

fn grouped(group: &[Slice]) -> Slice {
    let keys: Vec<&String> = group.first().map(|s| s.partition().keys().collect()).unwrap_or_default();
    let list =
        |key: &String, of: &dyn Fn(&Slice) -> Option<Value>| (key.clone(), group.iter().map(|s| of(s).unwrap_or(Value::Null)).collect());
    let partition = keys.iter().map(|k| list(k, &|s| s.partition().get(*k).cloned())).collect();
    let extra_keys: HashSet<&String> = group.iter().flat_map(|s| s.extra.keys()).collect();
    let extra = extra_keys.into_iter().map(|k| list(k, &|s| s.extra.get(k).cloned())).collect();
    Slice::new(partition, Map::new(), extra)
}

fn united(slice: &Slice, field: &str, seen: &mut HashSet<String>) -> Result<Option<Slice>> {
    let missing = || Error::new(Code::ConfigInvalid, "a router of a union does not give its field").detail(field.to_owned());
    let value = slice.partition().get(field).ok_or_else(missing)?;
    if !seen.insert(value.to_string()) {
        return Ok(None);
    }
    let mut extra = slice.extra.clone();
    extra.extend(slice.partition().iter().filter(|(k, _)| *k != field).map(|(k, v)| (k.clone(), v.clone())));
    Ok(Some(Slice::new(Map::from_iter([(field.to_owned(), value.clone())]), Map::new(), extra)))
}

/// Names of the streams whose records make another stream's partitions, wherever they stand in a router.
pub(super) fn parent_names(router: &Value, names: &mut HashSet<String>) {
    match router {
        Value::Array(routers) => routers.iter().for_each(|r| parent_names(r, names)),
        Value::Object(map) => {
            for config in map.get("parent_stream_configs").and_then(Value::as_array).into_iter().flatten() {
                names.extend(config.get("stream").and_then(|s| s.get("name")).map(python_str));
            }
            for inner in ["partition_routers", "underlying_partition_router"] {
                if let Some(inner) = map.get(inner) {
                    parent_names(inner, names);
                }
            }
        }
        _ => {}
    }
}
