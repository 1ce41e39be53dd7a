//! The fate of each record, read out of an answer.

use std::collections::HashMap;

use serde_json::{Map, Value};
use trib_core::Result;
use trib_core::delivery::Fate;
use trib_kit::http::Response;

use super::super::dpath;
use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::template::Scope;

/// Where an answer tells what became of its records. Without any of it, an answer that is a success has taken them all.
#[derive(Default)]
pub(super) struct Answers {
    /// The list of results, one for each record.
    path: Option<Vec<String>>,
    /// A list of those that were refused alone.
    refused: Option<Vec<String>>,
    /// What a result (`result`) and its record (`record`, `number`) have in common. Without it results come in the order of the records.
    matching: Option<(Expr, Expr)>,
    /// Templates over `result` (of one record, the whole answer) and `response`.
    failed: Option<Expr>,
    message: Option<Expr>,
    id: Option<Expr>,
}

/// A call's records as templates see them.
pub(super) type Seen<'a> = &'a [Value];

impl Answers {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let path = |name: &str| {
            let keys = || node.items(name).iter().filter_map(|p| p.value.as_str()).map(str::to_owned).collect::<Vec<_>>();
            node.get(name).map(|_| keys())
        };
        let matching = match (node.expr("result_key")?, node.expr("record_key")?) {
            (Some(result), Some(record)) => Some((result, record)),
            (None, None) => None,
            _ => return Err(node.wrong("`result_key` and `record_key` go together: a result belongs to the record with the same text")),
        };
        let refused = path("refused");
        if refused.is_some() && matching.is_none() {
            return Err(node.wrong("a list of refused records needs `result_key` and `record_key`, which tell whose results they are"));
        }
        Ok(Self {
            path: path("path"),
            refused,
            matching,
            failed: node.expr("failed")?,
            message: node.expr("message")?,
            id: node.expr("id")?,
        })
    }

    /// As many fates as records. What an answer does not tell is refused where the record may be sent again, and unknown otherwise.
    pub(super) fn fates(&self, env: &Env, response: &Response, records: Seen<'_>, repeatable: bool) -> Result<Vec<Fate>> {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| Value::Object(Map::new()));
        let untold = |why: String| if repeatable { Fate::Rejected(why) } else { Fate::Unknown(why) };
        if let Some(matching) = &self.matching {
            return self.matched(env, &body, records, matching, untold);
        }
        let Some(path) = &self.path else {
            return records.iter().map(|_| self.fate(env, &body, &body)).collect();
        };
        match list(&body, path) {
            Some(results) if results.len() == records.len() => results.iter().map(|result| self.fate(env, result, &body)).collect(),
            found => {
                let (told, sent) = (found.map_or(0, Vec::len), records.len());
                let why = format!("the API's answer has {told} results for {sent} records, so that nobody can tell which were taken");
                Ok(vec![untold(why); sent])
            }
        }
    }

    fn matched(
        &self,
        env: &Env,
        body: &Value,
        records: Seen<'_>,
        (result_key, record_key): &(Expr, Expr),
        untold: impl Fn(String) -> Fate,
    ) -> Result<Vec<Fate>> {
        let mut told: HashMap<String, Fate> = HashMap::new();
        for result in self.path.iter().filter_map(|path| list(body, path)).flatten() {
            told.insert(result_key.text(&scope(env, result, body))?, self.fate(env, result, body)?);
        }
        for result in self.refused.iter().filter_map(|path| list(body, path)).flatten() {
            told.insert(result_key.text(&scope(env, result, body))?, self.refusal(env, result, body)?);
        }
        let key =
            |(number, record): (usize, &Value)| record_key.text(&env.scope().with("record", record).with("number", &Value::from(number)));
        let keys: Vec<String> = records.iter().enumerate().map(key).collect::<Result<_>>()?;
        let astray = told.iter().any(|(key, fate)| matches!(fate, Fate::Rejected(_)) && !keys.contains(key));
        let fate = |key: &String| match told.get(key) {
            Some(fate) => fate.clone(),
            // Only those that were refused are told.
            None if self.path.is_none() && !astray => Fate::Delivered(None),
            None if astray => untold(
                "the API refuses a record by a name that none of those sent has, so that nobody can tell which were taken".to_owned(),
            ),
            None => untold("the API's answer does not say what became of the record".to_owned()),
        };
        Ok(keys.iter().map(fate).collect())
    }

    fn fate(&self, env: &Env, result: &Value, response: &Value) -> Result<Fate> {
        let failed = self.failed.as_ref().map(|f| f.truthy(&scope(env, result, response))).transpose()?.unwrap_or(false);
        if failed { self.refusal(env, result, response) } else { Ok(Fate::Delivered(text(self.id.as_ref(), env, result, response)?)) }
    }

    fn refusal(&self, env: &Env, result: &Value, response: &Value) -> Result<Fate> {
        let reason = text(self.message.as_ref(), env, result, response)?;
        let reason = reason.unwrap_or_else(|| "the API refuses the record and gives no reason".to_owned());
        Ok(Fate::Rejected(env.without_secrets(&reason)))
    }
}

fn scope<'a>(env: &'a Env, result: &'a Value, response: &'a Value) -> Scope<'a> {
    env.scope().with("response", response).with("result", result)
}

fn text(expr: Option<&Expr>, env: &Env, result: &Value, response: &Value) -> Result<Option<String>> {
    let text = expr.map(|e| e.text(&scope(env, result, response))).transpose()?;
    Ok(text.filter(|t| !t.is_empty() && t != "None"))
}

fn list<'a>(body: &'a Value, path: &[String]) -> Option<&'a Vec<Value>> {
    let found = if path.is_empty() { Some(body) } else { dpath::get(body, path) };
    found.and_then(Value::as_array)
}
