//! What a sample answer shows: where its records stand, what tells them apart, and what tells old from new.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::Value;
use trib_core::{Code, Error, Result};

use super::CursorDraft;

/// Records further down are found by who knows where they are.
const DEEPEST: usize = 6;
/// As many records are looked at.
const MOST: usize = 1000;

pub(super) struct Found {
    pub(super) path: Vec<String>,
    pub(super) items: Vec<Value>,
}

/// The records: at the path that was given, or the longest list of objects, or else the answer itself.
pub(super) fn records(body: &Value, path: Option<Vec<String>>) -> Result<Found> {
    let path = match path {
        Some(path) => path,
        None => longest(body),
    };
    let mut at = body;
    for key in &path {
        at = at.get(key).ok_or_else(|| {
            Error::new(Code::NotFound, "the answer has no such part")
                .detail(path.join("."))
                .hint("`--records` is a path of names, such as data.items")
        })?;
    }
    let items = match at {
        Value::Array(items) => items.iter().filter(|i| i.is_object()).take(MOST).cloned().collect(),
        Value::Object(_) => vec![at.clone()],
        _ => Vec::new(),
    };
    Ok(Found { path, items })
}

fn longest(body: &Value) -> Vec<String> {
    let mut best: (usize, Vec<String>) = (0, Vec::new());
    let mut empty = None;
    let mut waiting = VecDeque::from([(body, Vec::new())]);
    while let Some((value, path)) = waiting.pop_front() {
        match value {
            // Of two lists of one length, the one nearer to the top was seen first.
            Value::Array(items) if items.len() > best.0 && items.iter().any(Value::is_object) => best = (items.len(), path),
            Value::Array(items) if items.is_empty() && !path.is_empty() => {
                empty.get_or_insert(path);
            }
            Value::Object(map) if path.len() < DEEPEST => {
                waiting.extend(map.iter().map(|(key, value)| (value, [path.as_slice(), std::slice::from_ref(key)].concat())));
            }
            _ => {}
        }
    }
    if best.0 > 0 { best.1 } else { empty.unwrap_or_default() }
}

/// A field that every record has, and no two the same.
pub(super) fn key(items: &[Value], stream: &str) -> Option<String> {
    let first = items.first()?.as_object()?;
    let singular = stream.trim_end_matches('s');
    let usual = |name: &str| -> Option<usize> {
        let lower = name.to_lowercase();
        let own = [format!("{singular}_id"), format!("{singular}id"), format!("{stream}_id")];
        match lower.as_str() {
            "id" | "_id" => Some(0),
            "uuid" | "guid" | "gid" => Some(1),
            _ if own.contains(&lower) => Some(2),
            "key" | "code" | "number" | "slug" => Some(4),
            _ if lower.ends_with("_id") || name.ends_with("Id") || lower.ends_with("uuid") => Some(3),
            _ => None,
        }
    };
    let unique = |name: &String| {
        let mut seen = HashSet::new();
        items.iter().all(|i| i.get(name).is_some_and(|v| (v.is_string() || v.is_i64() || v.is_u64()) && seen.insert(v.to_string())))
    };
    let mut named: Vec<(usize, &String)> = first.keys().filter_map(|name| Some((usual(name)?, name))).collect();
    named.sort_by_key(|(rank, _)| *rank);
    named.into_iter().map(|(_, name)| name).find(|name| unique(name)).cloned()
}

/// A field that says when a record was changed last, or at least made.
pub(super) fn cursor(items: &[Value]) -> Option<CursorDraft> {
    let first = items.first()?.as_object()?;
    let rank = |name: &str| {
        let plain: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let says = |words: &[&str]| words.iter().any(|w| plain.contains(w));
        if says(&["updated", "modified", "lastupdate", "changed", "lastedit", "updatetime"]) {
            Some(0)
        } else if says(&["created", "createtime", "timestamp", "occurred", "inserted"])
            || matches!(plain.as_str(), "date" | "time" | "datetime" | "ts")
        {
            Some(1)
        } else {
            None
        }
    };
    let mut named: Vec<(usize, &String)> = first.keys().filter_map(|name| Some((rank(name)?, name))).collect();
    named.sort_by_key(|(rank, _)| *rank);
    named.into_iter().find_map(|(_, name)| {
        let mut formats: Vec<String> = Vec::new();
        for item in items {
            let format = format(item.get(name)?)?.to_owned();
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        Some(CursorDraft { field: name.clone(), formats })
    })
}

/// How a point in time is written.
pub(super) fn format(value: &Value) -> Option<&'static str> {
    match value {
        Value::Number(n) => match n.as_i64()? {
            100_000_000..=9_999_999_999 => Some("%s"),
            100_000_000_000..=9_999_999_999_999 => Some("%ms"),
            _ => None,
        },
        Value::String(text) => {
            let fraction = text.contains('.');
            if DateTime::parse_from_rfc3339(text).is_ok() && text.contains('T') {
                return Some(match (text.ends_with('Z'), fraction) {
                    (true, false) => "%Y-%m-%dT%H:%M:%SZ",
                    (true, true) => "%Y-%m-%dT%H:%M:%S.%fZ",
                    (false, false) => "%Y-%m-%dT%H:%M:%S%z",
                    (false, true) => "%Y-%m-%dT%H:%M:%S.%f%z",
                });
            }
            let plain = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"];
            if let Some(found) = plain.into_iter().find(|f| NaiveDateTime::parse_from_str(text, f).is_ok()) {
                return Some(found);
            }
            NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok().then_some("%Y-%m-%d")
        }
        _ => None,
    }
}
