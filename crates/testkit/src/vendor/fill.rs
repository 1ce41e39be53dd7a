//! Answers and records with their variables filled in.

use std::sync::LazyLock;

use chrono::{DateTime, Duration, NaiveDate};
use regex::{Captures, Regex};
use serde_json::{Map, Value};

use super::Variables;

/// A variable within a text.
static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$([a-z][a-z_]*)").expect("a pattern"));

/// As a value stands in a URL or a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A text that is a variable's name becomes its value; within other text, its text. A key that ends in `?` goes away with a variable that is null.
pub(super) fn fill(value: &Value, variables: &Variables) -> Value {
    match value {
        Value::String(template) => match template.strip_prefix('$').and_then(|name| variables.get(name)) {
            Some(value) => value.clone(),
            None => Value::from(within(template, variables)),
        },
        Value::Array(items) => items.iter().map(|item| fill(item, variables)).collect(),
        Value::Object(map) => {
            let mut filled = Map::new();
            for (key, value) in map {
                match key.strip_suffix('?') {
                    None => _ = filled.insert(key.clone(), fill(value, variables)),
                    Some(key) if !names_nothing(value, variables) => _ = filled.insert(key.to_owned(), fill(value, variables)),
                    Some(_) => {}
                }
            }
            Value::Object(filled)
        }
        other => other.clone(),
    }
}

fn within(template: &str, variables: &Variables) -> String {
    let value = |found: &Captures<'_>| variables.get(&found[1]).map_or_else(|| found[0].to_owned(), text);
    NAME.replace_all(template, value).into_owned()
}

fn names_nothing(value: &Value, variables: &Variables) -> bool {
    let text = value.to_string();
    NAME.captures_iter(&text).any(|found| variables.get(&found[1]).is_some_and(Value::is_null))
}

/// The records that a list stands for: `{of: 3, each: {…}}` is three.
pub(super) fn records(list: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for item in list {
        match item["of"].as_u64() {
            None => all.push(item.clone()),
            Some(count) => all.extend((1..=count).map(|n| numbered(&item["each"], n))),
        }
    }
    all
}

/// `$n` is the number from 1; `{from, step}` counts on from a number, or from a time in seconds, or from a day in days.
fn numbered(value: &Value, n: u64) -> Value {
    match value {
        Value::Object(map) if map.len() == 2 && map.contains_key("from") && map.contains_key("step") => {
            stepped(&map["from"], map["step"].as_i64().unwrap_or(1) * (n as i64 - 1))
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), numbered(value, n))).collect(),
        Value::Array(items) => items.iter().map(|item| numbered(item, n)).collect(),
        other => fill(other, &Variables::from_iter([("n".to_owned(), Value::from(n))])),
    }
}

fn stepped(from: &Value, by: i64) -> Value {
    let Some(from) = from.as_str() else { return Value::from(from.as_i64().unwrap_or(0) + by) };
    if let Ok(day) = NaiveDate::parse_from_str(from, "%Y-%m-%d") {
        return Value::from((day + Duration::days(by)).to_string());
    }
    let time = DateTime::parse_from_rfc3339(from).expect("a number, a day or a time to count on from") + Duration::seconds(by);
    let fraction = if from.contains('.') { chrono::SecondsFormat::Millis } else { chrono::SecondsFormat::Secs };
    Value::from(time.to_rfc3339_opts(fraction, from.ends_with('Z')))
}
