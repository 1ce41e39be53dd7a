//! Records that the API has already, found by what identifies them.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use trib_core::Result;

use super::super::dpath;
use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::retriever::{PageState, Place, Retriever};
use super::super::slice::Slice;
use super::record::Names;

/// How an object's records are looked up.
pub(super) struct LookUp {
    retriever: Retriever,
    /// What a result and the record that is looked for have in common.
    result_key: Expr,
    record_key: Expr,
    id: Expr,
    /// Where a result's fields stand.
    fields: Vec<String>,
    /// Records that one request asks after.
    most: usize,
    /// What was made a moment ago may not be found yet.
    pub(super) lags: bool,
    /// Identifiers are places, which other records take when one goes: each time they are asked for anew.
    pub(super) moves: bool,
}

/// A record as the API has it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    fields: Value,
}

impl Found {
    /// Whether the API has a value there.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !value.is_null() && value != "")
    }
}

#[derive(Clone, Debug)]
pub(super) enum Match {
    None,
    One(Found),
    Several(usize),
}

impl LookUp {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let most = node.integer("max_records").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        Ok(Self {
            retriever: Retriever::build(env, &node.need("retriever")?, &[], Place::default())?,
            result_key: node.need_expr("result_key")?,
            record_key: node.need_expr("record_key")?,
            id: node.need_expr("id")?,
            fields: node.items("fields").iter().filter_map(|f| f.value.as_str()).map(str::to_owned).collect(),
            most: most.unwrap_or(1),
            lags: node.flag("lags"),
            moves: node.flag("moves"),
        })
    }

    /// As many matches as records. `fields` are those whose values somebody wants to know.
    pub(super) async fn ask(&self, env: &Env, names: &Names, records: &[Value], fields: &[String]) -> Result<Vec<Match>> {
        let mut matches = Vec::with_capacity(records.len());
        for records in records.chunks(self.most) {
            let key = |record: &Value| self.record_key.text(&env.scope().with("record", record).with("key", &names.key));
            let keys = records.iter().map(key).collect::<Result<Vec<_>>>()?;
            let about = [
                ("values", json!(keys)),
                ("records", json!(records)),
                ("record", records.first().cloned().unwrap_or_default()),
                ("fields", json!(fields)),
                ("object", names.object.clone()),
                ("key", names.key.clone()),
            ];
            let slice = about.into_iter().fold(Slice::default(), |slice, (name, value)| slice.with_extra(name, value));
            let found = self.found(env, slice, names).await?;
            matches.extend(keys.iter().map(|key| match found.get(key).map(Vec::as_slice) {
                None | Some([]) => Match::None,
                Some([one]) => Match::One(one.clone()),
                Some(several) => Match::Several(several.len()),
            }));
        }
        Ok(matches)
    }

    /// What one request and its further pages give, by key.
    async fn found(&self, env: &Env, slice: Slice, names: &Names) -> Result<HashMap<String, Vec<Found>>> {
        let mut found: HashMap<String, Vec<Found>> = HashMap::new();
        let mut pages = PageState::new(slice, &self.retriever);
        let mut number = 0_u64;
        while let Some(page) = self.retriever.next_page(env, &mut pages, None, None).await? {
            for result in page.iter() {
                let result = result.value();
                let place = Value::from(number);
                number += 1;
                let scope = env.scope().with("result", &result).with("number", &place).with("key", &names.key);
                let (key, id) = (self.result_key.text(&scope)?, self.id.text(&scope)?);
                let fields = if self.fields.is_empty() { Some(&result) } else { dpath::get(&result, &self.fields) };
                let fields = fields.cloned().unwrap_or_default();
                let same_key = found.entry(key).or_default();
                // A record that moves from one page to the next is one all the same.
                if !same_key.iter().any(|f| f.id == id) {
                    same_key.push(Found { id, fields });
                }
            }
        }
        Ok(found)
    }
}
