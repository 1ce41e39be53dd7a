//! From an answer's values to a stream's records: extract, filter, transform, normalise.

use std::sync::Arc;

use serde_json::Value;
use trib_core::Result;

use super::dpath;
use super::env::Env;
use super::expander::Expander;
use super::node::{Expr, Node};
use super::normalize::normalize;
use super::parameters::truthy;
use super::records::{Records, Writer};
use super::slice::Slice;
use super::transform::Transform;

pub(super) struct Selector {
    pub(super) extractor: Extractor,
    pub(super) expander: Option<Expander>,
    filter: Option<Expr>,
    transforms: Vec<Transform>,
    transform_first: bool,
    normalizes: bool,
    client_side: bool,
}

/// What an answer holds, before the manifest does anything with it.
pub(super) enum Found {
    Texts(Records),
    Trees(Vec<Value>),
}

impl Found {
    pub(super) fn len(&self) -> usize {
        match self {
            Found::Texts(records) => records.len(),
            Found::Trees(records) => records.len(),
        }
    }

    /// Each record as a tree, one at a time.
    fn try_each(self, mut each: impl FnMut(Value) -> Result<()>) -> Result<()> {
        match self {
            Found::Texts(records) => records.iter().try_for_each(|r| each(r.value())),
            Found::Trees(records) => records.into_iter().try_for_each(each),
        }
    }
}

pub(super) enum Extractor {
    Dpath(Vec<Expr>),
    Combined { parts: Vec<Extractor>, first_match: bool, skip_empty: bool },
}

impl Extractor {
    /// One that expands no records, which only a stream's selector can.
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        node.get("record_expander").map_or_else(|| Self::build_path(node), |expander| Err(expander.unsupported()))
    }

    fn build_path(node: &Node<'_>) -> Result<Self> {
        match node.kind() {
            "DpathExtractor" => Ok(Extractor::Dpath(node.exprs("field_path")?)),
            "CombinedExtractor" => Ok(Extractor::Combined {
                parts: node.items("extractors").iter().map(Self::build).collect::<Result<_>>()?,
                first_match: node.text("mode") == Some("first_match"),
                skip_empty: node.flag("skip_empty_records"),
            }),
            _ => Err(node.unsupported()),
        }
    }

    /// The answer itself.
    pub(super) fn whole() -> Self {
        Extractor::Dpath(Vec::new())
    }

    /// Names under which records stand in the answer, as far as they are written out. Without any, the answer is itself the records.
    pub(super) fn names(&self) -> Option<Vec<&str>> {
        match self {
            Extractor::Dpath(path) => {
                let last = path.iter().rev().map(|p| p.constant().and_then(Value::as_str)).find(|p| *p != Some("*"))??;
                Some(vec![last])
            }
            Extractor::Combined { .. } => None,
        }
    }

    /// The way to the records, where it is one that needs no search.
    pub(super) fn plain_path(&self, env: &Env) -> Result<Option<Vec<String>>> {
        let Extractor::Dpath(path) = self else { return Ok(None) };
        let path = path.iter().map(|p| p.text(&env.scope())).collect::<Result<Vec<_>>>()?;
        Ok((!path.iter().any(|p| p == "*")).then_some(path))
    }

    /// The records in these values; `keep` leaves the values whole, at the price of a copy.
    pub(super) fn extract(&self, env: &Env, values: &mut Vec<Value>, keep: bool) -> Result<Vec<Value>> {
        match self {
            Extractor::Combined { parts, first_match, skip_empty } => {
                let mut records = Vec::new();
                for part in parts {
                    let mut found = part.extract(env, values, true)?;
                    if *skip_empty {
                        found.retain(truthy);
                    }
                    let done = *first_match && !found.is_empty();
                    records.append(&mut found);
                    if done {
                        break;
                    }
                }
                Ok(records)
            }
            Extractor::Dpath(path) => {
                let scope = env.scope();
                let path = path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
                let mut records = Vec::new();
                if path.is_empty() && !values.iter().any(Value::is_array) {
                    let found = if keep { values.clone() } else { std::mem::take(values) };
                    return Ok(found.into_iter().filter(truthy).collect());
                }
                for value in values {
                    if path.iter().any(|p| p == "*") {
                        records.extend(dpath::values(value, &path));
                        continue;
                    }
                    let found = match dpath::get_mut(value, &path) {
                        Some(found) if keep => found.clone(),
                        Some(found) => found.take(),
                        None => continue,
                    };
                    match found {
                        Value::Array(mut items) if records.is_empty() => std::mem::swap(&mut records, &mut items),
                        Value::Array(items) => records.extend(items),
                        other if truthy(&other) => records.push(other),
                        _ => {}
                    }
                }
                Ok(records)
            }
        }
    }
}

impl Selector {
    /// `client_side` is that records are filtered by the cursor, which needs them transformed unless the manifest says otherwise.
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, transforms: &[Node<'_>], client_side: bool) -> Result<Self> {
        let extractor = node.need("extractor")?;
        let filter = match node.get("record_filter") {
            None => None,
            Some(filter) if filter.kind() == "RecordFilter" => filter.expr("condition")?.filter(|c| !c.source().is_empty()),
            Some(filter) => return Err(filter.unsupported()),
        };
        let normalizes = match node.get("schema_normalization") {
            None => false,
            Some(part) if part.value.is_string() => part.value == "Default",
            Some(part) => return Err(part.unsupported()),
        };
        Ok(Self {
            expander: extractor.get("record_expander").map(|e| Expander::build(env, &e)).transpose()?,
            extractor: Extractor::build_path(&extractor)?,
            filter,
            transforms: transforms.iter().map(Transform::build).collect::<Result<_>>()?,
            transform_first: node.get("transform_before_filtering").map_or(client_side, |t| t.value == &Value::Bool(true)),
            normalizes,
            client_side,
        })
    }

    /// Only what is extracted.
    pub(super) fn plain(extractor: Extractor) -> Self {
        Self {
            extractor,
            expander: None,
            filter: None,
            transforms: Vec::new(),
            transform_first: false,
            normalizes: false,
            client_side: false,
        }
    }

    /// Whether the cursor filters records.
    pub(super) fn is_client_side(&self) -> bool {
        self.client_side
    }

    pub(super) fn normalizes(&self) -> bool {
        self.normalizes
    }

    /// `wanted` is what the cursor says about a record; `schema` is only looked at when the selector normalises.
    pub(super) fn select(
        &self,
        env: &Env,
        slice: &Slice,
        found: Found,
        schema: Option<&Value>,
        wanted: Option<&dyn Fn(&Value) -> bool>,
    ) -> Result<Records> {
        if self.filter.is_none() && self.transforms.is_empty() && wanted.is_none() && !self.normalizes {
            return match found {
                Found::Texts(records) => Ok(records),
                Found::Trees(records) => Records::of(&records),
            };
        }
        let mut kept = Writer::default();
        found.try_each(|mut record| {
            let passes = |record: &Value| -> Result<bool> {
                if wanted.is_some_and(|wanted| !wanted(record)) {
                    return Ok(false);
                }
                let Some(filter) = &self.filter else { return Ok(true) };
                let scope = slice.record_scope(env.scope()).with("record", record);
                filter.truthy(&scope.with("next_page_token", &Value::Null))
            };
            let transform = |record: &mut Value| self.transforms.iter().try_for_each(|t| t.apply(env, slice, record));
            if self.transform_first {
                transform(&mut record)?;
                if !passes(&record)? {
                    return Ok(());
                }
            } else {
                if !passes(&record)? {
                    return Ok(());
                }
                transform(&mut record)?;
            }
            if let (true, Some(schema)) = (self.normalizes, schema) {
                normalize(&mut record, schema);
            }
            kept.push(&record)
        })?;
        Ok(kept.finish())
    }
}
