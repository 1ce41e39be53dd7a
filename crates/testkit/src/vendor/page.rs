//! Which records a request gets.

use std::cmp::Ordering;

use chrono::DateTime;
use serde_json::{Value, json};

use super::demand::at;
use super::fill::{fill, records, text};
use super::{Kept, Refusal, Variables, list};

/// Chooses the records that are asked for, and says where the next page is.
pub(super) fn fill_in(route: &Value, later: bool, kept: &Kept, variables: &mut Variables) -> Result<(), Refusal> {
    if !route["records"].is_array() {
        return Ok(());
    }
    let (kept_ones, given): (Vec<Value>, Vec<Value>) = list(&route["records"]).iter().cloned().partition(|r| r["kept"].is_string());
    let mut all = records(&given);
    for rule in &kept_ones {
        let there = kept.records.get(&text(&fill(&rule["kept"], variables))).into_iter().flatten();
        all.extend(there.map(|(key, record)| {
            fill(&rule["each"], &Variables::from_iter([("key".to_owned(), key.as_str().into()), ("record".to_owned(), record.clone())]))
        }));
    }
    if later {
        all.extend(records(list(&route["later"])));
    }
    for rule in list(&route["keep"]) {
        all.retain(|record| keeps(rule, record, variables));
    }
    if let Some(field) = route["order"].as_str() {
        let (field, newest_first) = field.strip_prefix('-').map_or((field, false), |f| (f, true));
        let value = |record: &Value| at(record, field).map(text).unwrap_or_default();
        all.sort_by(|a, b| compare(&value(a), &value(b)));
        if newest_first {
            all.reverse();
        }
    }
    let total = all.len();
    let pages = &route["pages"];
    let number = |name: &str| pages[name].as_str().and_then(|n| variables.get(n)).map(text).and_then(|t| t.parse::<usize>().ok());
    let default = pages["default"].as_u64().map_or(total.max(1), |d| d as usize);
    let size = number("size").unwrap_or(default).max(1);
    let first = pages["first"].as_u64().unwrap_or(1) as usize;
    let token = ["after", "token"].iter().find_map(|k| pages[*k].as_str()).and_then(|name| variables.get(name)).map(text);
    let start = match (&token, pages["by"].as_str()) {
        (Some(token), Some(by)) => match all.iter().position(|r| at(r, by).map(text).as_ref() == Some(token)) {
            Some(position) => position + 1,
            None => return Err(Refusal::new(format!("no record is after {token}"))),
        },
        (Some(token), None) if token.is_empty() => 0,
        (Some(token), None) => {
            let place = token.strip_prefix("page-at-").and_then(|t| t.parse().ok());
            place.ok_or_else(|| Refusal::new(format!("the token {token} was never given")))?
        }
        _ if pages["number"].is_string() => (number("number").unwrap_or(first) - first) * size,
        _ => number("offset").unwrap_or(0),
    };
    let page: Vec<Value> = all.into_iter().skip(start).take(size).collect();
    let more = start + page.len() < total;
    let last = pages["by"].as_str().and_then(|by| at(page.last()?, by)).cloned().unwrap_or_default();
    let next = match more {
        false => Value::Null,
        true if pages["by"].is_string() => last.clone(),
        true if pages["token"].is_string() => json!(format!("page-at-{}", start + size)),
        true if pages["number"].is_string() => json!(start / size + first + 1),
        true => json!(start + size),
    };
    let columns: Vec<&str> = list(&route["columns"]).iter().filter_map(Value::as_str).collect();
    let row = |record: &Value| columns.iter().map(|c| record.get(*c).map(text).unwrap_or_default()).collect::<Vec<_>>().join(",") + "\n";
    let rows: String = page.iter().map(row).collect();
    let shown: Vec<Value> = page.into_iter().map(without_hidden).collect();
    let facts = [
        ("count", json!(shown.len())),
        ("first", shown.first().cloned().unwrap_or_default()),
        ("records", Value::Array(shown)),
        ("rows", json!(rows)),
        ("total", json!(total)),
        ("more", json!(more)),
        ("is_last", json!(!more)),
        ("next", next),
        ("last", last),
        ("size", json!(size)),
        ("start", json!(start)),
        ("page", json!(start / size + first)),
        ("pages", json!(total.div_ceil(size))),
    ];
    variables.extend(facts.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(())
}

/// `[field, operator, parameter]`; without the parameter the rule is silent.
fn keeps(rule: &Value, record: &Value, variables: &Variables) -> bool {
    let part = |i: usize| rule[i].as_str().unwrap_or_default();
    let Some(wanted) = variables.get(part(2)).map(text) else { return true };
    let given = at(record, part(0)).map(text).unwrap_or_default();
    match (part(1), compare(&given, &wanted)) {
        (">=", order) => order != Ordering::Less,
        (">", order) => order == Ordering::Greater,
        ("<=", order) => order != Ordering::Greater,
        ("<", order) => order == Ordering::Less,
        ("=", order) => order == Ordering::Equal,
        // In a list of a query language or in JSON.
        ("quoted in", _) => {
            [format!("'{given}'"), format!("\"{given}\"")].iter().any(|quoted| wanted.to_lowercase().contains(&quoted.to_lowercase()))
        }
        ("in", _) => wanted.split([',', ';', '+']).any(|w| w == given) || wanted.is_empty(),
        (other, _) => panic!("there is no operator {other}"),
    }
}

/// Numbers as numbers, times as times, the rest as text.
fn compare(a: &str, b: &str) -> Ordering {
    if let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) {
        return a.total_cmp(&b);
    }
    if let (Ok(a), Ok(b)) = (DateTime::parse_from_rfc3339(a), DateTime::parse_from_rfc3339(b)) {
        return a.cmp(&b);
    }
    a.cmp(b)
}

fn without_hidden(mut record: Value) -> Value {
    if let Value::Object(map) = &mut record {
        map.retain(|key, _| !key.starts_with('~'));
    }
    record
}
