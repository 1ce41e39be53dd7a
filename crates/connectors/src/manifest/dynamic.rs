//! Streams made from a template: one for each entry of the configuration, of a list, or of an API's answer.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::parameters;
use super::retriever::{PageState, Place, Retriever};
use super::router::{Router, Walk};
use super::slice::Slice;
use super::stream::Context;
use super::template::{LiteralType, python_str};
use super::transform::value_type;
use super::yaml;

/// More streams than this are a mistake.
const MOST_STREAMS: usize = 10_000;

struct Mapping {
    path: Vec<Expr>,
    value: Expr,
    valid: Option<[LiteralType; 1]>,
    create: bool,
    condition: Option<Expr>,
    /// A text that is YAML stands for what it says.
    reads_yaml: bool,
}

/// The streams of one `DynamicDeclarativeStream`.
pub(super) async fn streams(env: &Arc<Env>, node: &Node<'_>, dir: &Path) -> Result<Vec<Value>> {
    let resolver = node.need("components_resolver")?;
    let template = node.need("stream_template")?.value;
    let http = resolver.kind() == "HttpComponentsResolver";
    let mappings = resolver.items("components_mapping").iter().map(|m| Mapping::build(m, !http)).collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for (values, slice) in values(env, &resolver, dir).await? {
        let mut stream = template.clone();
        for mapping in &mappings {
            mapping.apply(env, &values, &slice, template, &mut stream)?;
        }
        let Value::Object(map) = stream else { return Err(node.wrong("the template of a stream is no map")) };
        let outer_wins = node.get("use_parent_parameters").is_none_or(|u| u.value != &Value::Bool(false));
        found.push(Value::Object(parameters::propagate_stream(map, outer_wins)));
        if found.len() > MOST_STREAMS {
            return Err(node.wrong("the template makes too many streams"));
        }
    }
    Ok(found)
}

/// What each stream is made from.
async fn values(env: &Arc<Env>, resolver: &Node<'_>, dir: &Path) -> Result<Vec<(Value, Slice)>> {
    match resolver.kind() {
        "ConfigComponentsResolver" => {
            let mut combined = vec![Map::new()];
            for (index, config) in resolver.items("stream_config").iter().enumerate() {
                let path = config.exprs("configs_pointer")?.iter().map(|p| p.text(&env.scope())).collect::<Result<Vec<_>>>()?;
                let mut items = match dpath::get(&env.config, &path) {
                    Some(Value::Array(items)) => items.clone(),
                    Some(one) => vec![one.clone()],
                    None => Vec::new(),
                };
                items.extend(config.items("default_values").iter().map(|d| d.value.clone()));
                combined = combine(&combined, index, &items);
            }
            Ok(combined.into_iter().map(|map| (Value::Object(map), Slice::default())).collect())
        }
        "ParametrizedComponentsResolver" => {
            let list = resolver.need("stream_parameters")?.items("list_of_parameters_for_stream");
            Ok(list.iter().map(|p| (p.value.clone(), Slice::default())).collect())
        }
        "HttpComponentsResolver" => {
            let node = resolver.need("retriever")?;
            let state = Map::new();
            let context = Context { state: &state, cursor_field: None, wanted: None, is_parent: true, dir, files: None };
            let router = Router::of_retriever(env, &node, &context)?;
            let mut place = Place { use_cache: true, ..Place::default() };
            if let Some(router) = router.clone() {
                place.injections.push(Box::new(move |env, slice, options| router.inject(env, slice, options)));
            }
            let retriever = Retriever::build(env, &node, &[], place)?;
            let mut walk = router.as_ref().map_or_else(|| Walk::Ready([Slice::default()].into()), Walk::new);
            let mut found = Vec::new();
            while let Some(slice) = walk.next(env).await? {
                let mut pages = PageState::new(slice.clone(), &retriever);
                while let Some(records) = retriever.next_page(env, &mut pages, None, None).await? {
                    found.extend(records.into_iter().map(|r| (r, slice.clone())));
                }
            }
            Ok(found)
        }
        _ => Err(resolver.unsupported()),
    }
}

/// Every combination of what was there with each item; what is no map goes under a name of its own.
fn combine(before: &[Map<String, Value>], index: usize, items: &[Value]) -> Vec<Map<String, Value>> {
    let mut combined = Vec::with_capacity(before.len() * items.len());
    for known in before {
        for (at, item) in items.iter().enumerate() {
            let mut both = known.clone();
            match item {
                Value::Object(map) => both.extend(map.clone()),
                other => {
                    both.entry(format!("source_config_{index}")).or_insert_with(|| Value::Array(vec![at.into(), other.clone()]));
                }
            }
            combined.push(both);
        }
    }
    combined
}

impl Mapping {
    fn build(node: &Node<'_>, reads_yaml: bool) -> Result<Self> {
        Ok(Self {
            path: node.exprs("field_path")?,
            value: node.need_expr("value")?,
            valid: value_type(node),
            create: node.flag("create_or_update"),
            condition: node.expr("condition")?.filter(|c| !c.source().is_empty()),
            reads_yaml: reads_yaml && node.text("value_type") != Some("string"),
        })
    }

    fn apply(&self, env: &Env, values: &Value, slice: &Slice, template: &Value, stream: &mut Value) -> Result<()> {
        let scope = slice.record_scope(env.scope()).with("components_values", values).with("stream_template_config", template);
        if let Some(condition) = &self.condition
            && !condition.truthy(&scope)?
        {
            return Ok(());
        }
        let mut value = self.value.eval_as(&scope, self.valid.as_ref().map(<[_; 1]>::as_slice))?;
        if let (true, Value::String(text)) = (self.reads_yaml, &value) {
            value = yaml::parse("components_mapping", text).unwrap_or_else(|_| Value::String(text.clone()));
        }
        let path = self.path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
        if !dpath::replace(stream, &path, &value) && self.create && parameters::truthy(&value) {
            dpath::set(stream, &path, value);
        }
        Ok(())
    }
}

/// Streams of dynamic definitions must not share a name.
pub(super) fn unique(streams: &[Value]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for stream in streams {
        let name = stream.get("name").map(python_str).unwrap_or_default();
        if !seen.insert(name.clone()) {
            return Err(Error::new(Code::ConfigInvalid, "two streams that are made from a template have the same name").detail(name));
        }
    }
    Ok(())
}
