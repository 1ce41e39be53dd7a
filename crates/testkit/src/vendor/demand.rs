//! What a request must look like.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;

use super::{Refusal, Variables};
use crate::stand_in::{Asked, pairs};

/// The headers that a rule asks for, each as a pattern.
pub(super) fn headers(rule: &Value, asked: &Asked) -> Result<(), Refusal> {
    for (name, pattern) in rule["header"].as_object().into_iter().flatten() {
        let given = asked.header(name).unwrap_or_default();
        if !whole(pattern.as_str().unwrap_or_default()).is_match(given) {
            let docs = rule["docs"].as_str().unwrap_or("no page of documentation");
            let mut refusal = Refusal::new(format!("the header {name} is not as {docs} says"));
            if !rule["else"].is_null() {
                refusal.answer = rule["else"].clone();
            }
            return Err(refusal);
        }
    }
    Ok(())
}

/// The parts of the path that have names, if the route is the one that is asked for.
pub(super) fn path(route: &Value, asked: &Asked) -> Option<Variables> {
    let pattern = route["path"].as_str().unwrap_or_default();
    let (method, pattern) = pattern.split_once(' ').unwrap_or(("GET", pattern));
    let (wanted, given): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), asked.path.split('/').collect());
    if method != asked.method || wanted.len() != given.len() {
        return None;
    }
    let mut variables = Variables::new();
    for (wanted, given) in wanted.iter().zip(given) {
        match wanted.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
            Some(name) => _ = variables.insert(name.to_owned(), Value::from(decoded(given))),
            None if *wanted == given => {}
            None => return None,
        }
    }
    let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let is_meant = |(name, pattern): (&String, &Value)| {
        let given = at(&body, name).map(super::fill::text).or_else(|| asked.param(name)).or_else(|| asked.field(name)).unwrap_or_default();
        Regex::new(pattern.as_str().unwrap_or_default()).expect("a pattern").is_match(&given)
    };
    route["when"].as_object().into_iter().flatten().all(is_meant).then_some(variables)
}

/// Query, form and JSON body, each value held against its rule. What has named groups gives those too.
pub(super) fn parameters(route: &Value, asked: &Asked, variables: &mut Variables) -> Result<(), Refusal> {
    check(&route["query"], pairs(&asked.query), variables)?;
    if route["takes"].is_object() {
        return Ok(());
    }
    if route["form"].is_object() {
        return check(&route["form"], pairs(&asked.body), variables);
    }
    let mut leaves = Vec::new();
    if !asked.body.is_empty() {
        let body = serde_json::from_str(&asked.body).map_err(|_| Refusal::new("the body is not JSON"))?;
        flatten("", &body, &mut leaves);
    }
    check(&route["body"], leaves, variables)
}

pub(super) fn check(rules: &Value, given: Vec<(String, String)>, variables: &mut Variables) -> Result<(), Refusal> {
    let rules: Vec<(&str, bool, &Value)> =
        rules.as_object().into_iter().flatten().map(|(n, rule)| (n.trim_end_matches('?'), n.ends_with('?'), rule)).collect();
    for (name, optional, _) in &rules {
        if !optional && !given.iter().any(|(n, _)| n == name) {
            return Err(Refusal::new(format!("{name} is missing")));
        }
    }
    for (name, value) in given {
        let Some((_, _, rule)) = rules.iter().find(|(n, ..)| *n == name) else {
            return Err(Refusal::new(format!("nobody knows {name}={value}")));
        };
        let rule = super::fill::text(rule);
        if !fits(&rule, &value, variables) {
            return Err(Refusal::new(format!("{name}={value} is not {rule}")));
        }
        variables.insert(name, Value::from(value));
    }
    Ok(())
}

/// A range of whole numbers, or a pattern for the whole text.
fn fits(rule: &str, value: &str, variables: &mut Variables) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    if let Some((least, most)) = rule.split_once("..").filter(|(a, b)| number(a).is_some() && (b.is_empty() || number(b).is_some())) {
        return number(value).is_some_and(|v| number(least).is_none_or(|l| v >= l) && number(most).is_none_or(|m| v <= m));
    }
    let pattern = whole(rule);
    let Some(found) = pattern.captures(value) else { return false };
    for name in pattern.capture_names().flatten() {
        if let Some(part) = found.name(name) {
            variables.insert(name.to_owned(), Value::from(part.as_str()));
        }
    }
    true
}

/// For the whole text. Compiled once, since thousands of records are held against the same few patterns.
fn whole(pattern: &str) -> Arc<Regex> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = || Arc::new(Regex::new(&format!("^(?s:{pattern})$")).expect("a pattern"));
    known.entry(pattern.to_owned()).or_insert_with(compiled).clone()
}

/// Leaves by their paths; a list is a leaf.
pub(super) fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        leaf => leaves.push((path.to_owned(), super::fill::text(leaf))),
    }
}

/// A form as an object, its names as they stand.
pub(super) fn form_object(body: &str) -> Value {
    Value::Object(pairs(body).into_iter().map(|(name, value)| (name, Value::from(value))).collect())
}

/// A value by its dotted path.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

fn decoded(part: &str) -> String {
    pairs(&format!("x={}", part.replace('+', "%2B"))).pop().map(|(_, v)| v).unwrap_or_default()
}
