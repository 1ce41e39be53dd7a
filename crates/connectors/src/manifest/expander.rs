//! Records that hold a list of others, which are the ones that are wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::parameters::truthy;
use super::retriever::{PageState, Place, Retriever};
use super::slice::Slice;

pub(super) struct Expander {
    list: Vec<Expr>,
    /// Whole parents go into their items, under a name of their own.
    keep_original: bool,
    /// What is copied from the parent, and where to.
    copies: Vec<(Vec<Expr>, Vec<Expr>)>,
    /// Items are laid over their parent.
    merge: bool,
    emit_parent: bool,
    /// True in a record whose list is not whole.
    truncated: Option<Vec<Expr>>,
    /// Where the whole list comes from.
    retriever: Option<Box<Retriever>>,
    warned: AtomicBool,
}

impl Expander {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let retriever = match node.get("truncated_list_retriever") {
            None => None,
            Some(own) => Some(Box::new(Retriever::build(env, &own, &[], Place::default())?)),
        };
        let truncated = node.get("truncation_indicator_path").is_some().then(|| node.exprs("truncation_indicator_path")).transpose()?;
        if retriever.is_some() && truncated.is_none() {
            return Err(node.wrong("`truncated_list_retriever` needs a `truncation_indicator_path`"));
        }
        let copies =
            node.items("parent_fields").iter().map(|f| Ok((f.exprs("parent_path")?, f.exprs("record_path")?))).collect::<Result<_>>()?;
        Ok(Self {
            list: node.exprs("expand_records_from_field")?,
            keep_original: node.flag("remain_original_record"),
            copies,
            merge: node.flag("merge_parent"),
            emit_parent: node.text("on_no_records") == Some("emit_parent"),
            truncated,
            retriever,
            warned: AtomicBool::new(false),
        })
    }

    pub(super) async fn expand(&self, env: &Env, records: Vec<Value>) -> Result<Vec<Value>> {
        let path = |exprs: &[Expr]| exprs.iter().map(|e| e.text(&env.scope())).collect::<Result<Vec<_>>>();
        let list = path(&self.list)?;
        let truncated = self.truncated.as_deref().map(path).transpose()?;
        let copies = self.copies.iter().map(|(from, to)| Ok((path(from)?, path(to)?))).collect::<Result<Vec<_>>>()?;
        let mut expanded = Vec::new();
        for parent in records {
            if !parent.is_object() || list.is_empty() {
                expanded.push(parent);
                continue;
            }
            let base = self.merge.then(|| without_lists(&parent, &list));
            let is_truncated = truncated.as_ref().is_some_and(|p| dpath::get(&parent, p).is_some_and(truthy));
            let embedded: Vec<Value> = dpath::values(&parent, &list).into_iter().filter_map(into_list).flatten().collect();
            let items = match self.retriever.as_ref().filter(|_| is_truncated) {
                None => embedded,
                Some(retriever) => {
                    let fetched = fetch(env, retriever, &parent).await?;
                    if fetched.is_empty() { embedded } else { fetched }
                }
            };
            if is_truncated && self.retriever.is_none() && !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    items = items.len(),
                    "a list within a record is not whole, and the manifest does not say where the rest comes from"
                );
            }
            if items.is_empty() && self.emit_parent {
                expanded.push(parent);
                continue;
            }
            for item in items {
                expanded.push(self.with_parent(item, &parent, base.as_ref(), &copies)?);
            }
        }
        Ok(expanded)
    }

    fn with_parent(&self, item: Value, parent: &Value, base: Option<&Value>, copies: &[(Vec<String>, Vec<String>)]) -> Result<Value> {
        let mut item = match item {
            Value::Object(map) => map,
            // What is no object becomes one only where something is put beside it.
            other if self.keep_original || self.merge || !copies.is_empty() => Map::from_iter([("value".to_owned(), other)]),
            other => return Ok(other),
        };
        if let Some(Value::Object(base)) = base {
            let own = std::mem::replace(&mut item, base.clone());
            item.extend(own);
        }
        let mut item = Value::Object(item);
        for (from, to) in copies {
            let on_the_way = (1..to.len()).filter_map(|n| dpath::get(&item, &to[..n])).find(|v| !v.is_object());
            if on_the_way.is_some() {
                return Err(Error::new(Code::ConfigInvalid, "a parent's field cannot be put into its items: something else stands there")
                    .detail(to.join(".")));
            }
            dpath::set(&mut item, to, dpath::get(parent, from).cloned().unwrap_or(Value::Null));
        }
        if let (true, Value::Object(map)) = (self.keep_original, &mut item) {
            map.insert("original_record".to_owned(), parent.clone());
        }
        Ok(item)
    }
}

async fn fetch(env: &Env, retriever: &Retriever, parent: &Value) -> Result<Vec<Value>> {
    let slice = Slice::of_partition(Map::from_iter([("parent_record".to_owned(), parent.clone())]));
    let mut pages = PageState::new(slice, retriever);
    let mut found = Vec::new();
    while let Some(records) = retriever.next_page(env, &mut pages, None, None).await? {
        found.extend(records);
    }
    Ok(found)
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

/// The parent without the lists that are expanded; what stands at the path and is no list stays.
fn without_lists(parent: &Value, path: &[String]) -> Value {
    let mut rest = parent.clone();
    dpath::delete_lists(&mut rest, path);
    rest
}
