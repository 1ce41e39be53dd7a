//! From an answer's values to a stream's records: extract, filter, transform, normalise.

use serde_json::Value;
use trib_core::Result;

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::normalize::normalize;
use super::parameters::truthy;
use super::slice::Slice;
use super::transform::Transform;

pub(super) struct Selector {
    pub(super) extractor: Extractor,
    filter: Option<Expr>,
    transforms: Vec<Transform>,
    transform_first: bool,
    normalizes: bool,
    client_side: bool,
}

pub(super) enum Extractor {
    Dpath(Vec<Expr>),
    Combined { parts: Vec<Extractor>, first_match: bool, skip_empty: bool },
}

impl Extractor {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        match node.kind() {
            "DpathExtractor" => match node.get("record_expander") {
                Some(expander) => Err(expander.unsupported()),
                None => Ok(Extractor::Dpath(node.exprs("field_path")?)),
            },
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
    pub(super) fn build(node: &Node<'_>, transforms: &[Node<'_>], client_side: bool) -> Result<Self> {
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
            extractor: Extractor::build(&node.need("extractor")?)?,
            filter,
            transforms: transforms.iter().map(Transform::build).collect::<Result<_>>()?,
            transform_first: node.get("transform_before_filtering").map_or(client_side, |t| t.value == &Value::Bool(true)),
            normalizes,
            client_side,
        })
    }

    /// Only what is extracted.
    pub(super) fn plain(extractor: Extractor) -> Self {
        Self { extractor, filter: None, transforms: Vec::new(), transform_first: false, normalizes: false, client_side: false }
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
        records: Vec<Value>,
        schema: Option<&Value>,
        wanted: Option<&dyn Fn(&Value) -> bool>,
    ) -> Result<Vec<Value>> {
        if self.filter.is_none() && self.transforms.is_empty() && wanted.is_none() && !self.normalizes {
            return Ok(records);
        }
        let mut kept = Vec::with_capacity(records.len());
        for mut record in records {
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
                    continue;
                }
            } else {
                if !passes(&record)? {
                    continue;
                }
                transform(&mut record)?;
            }
            if let (true, Some(schema)) = (self.normalizes, schema) {
                normalize(&mut record, schema);
            }
            kept.push(record);
        }
        Ok(kept)
    }
}
