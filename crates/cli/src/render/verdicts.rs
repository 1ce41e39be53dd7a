//! What data tests have found, as text.

use std::fmt::Write;

use serde_json::Value;
use trib_store::{Tested, Verdict};

use crate::render::amount;
use crate::render::name::node;
use crate::render::table::{left, render};

/// Failing rows that are shown of each test.
const SHOWN: usize = 5;
/// Characters of a cell that are shown.
const CELL: usize = 40;

/// Each test that did not pass with its first rows, then one line for all. Empty when there are no tests.
pub fn text(tests: &[Tested]) -> String {
    let mut out = String::new();
    for test in tests.iter().filter(|t| t.verdict != Verdict::Passed) {
        let unseen = if test.published { "" } else { ", not published" };
        let found = match test.verdict {
            Verdict::Broken => "could not be asked".to_owned(),
            _ => amount::rows(test.failures),
        };
        let _ = writeln!(out, "{} {}: {}: {found}{unseen}", test.verdict.as_str(), node(&test.node, &test.stream), test.test);
        if let Some(error) = &test.error {
            let _ = writeln!(out, "  {}: {}", error["message"].as_str().unwrap_or_default(), error["detail"].as_str().unwrap_or_default());
        }
        for line in rows(&test.rows).lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    if !tests.is_empty() {
        let count = |verdict: Verdict| tests.iter().filter(|t| t.verdict == verdict).count();
        let each = [Verdict::Passed, Verdict::Warned, Verdict::Failed, Verdict::Broken];
        let parts: Vec<String> = each.iter().filter(|v| count(**v) > 0).map(|v| format!("{} {}", count(*v), v.as_str())).collect();
        let _ = writeln!(out, "tests: {}", parts.join(", "));
    }
    out
}

fn rows(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return String::new() };
    let names: Vec<&String> = first.keys().filter(|k| !k.starts_with(trib_core::name::system::PREFIX)).collect();
    let names = if names.is_empty() { first.keys().collect() } else { names };
    let columns: Vec<_> = names.iter().map(|n| left(n)).collect();
    let lines: Vec<Vec<String>> = rows.iter().take(SHOWN).map(|row| names.iter().map(|n| cell(&row[n.as_str()])).collect()).collect();
    render(&columns, &lines, None)
}

/// A value as it is written; NULL and text can be told apart by their case.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as it is shown in a narrow place.
pub fn cell(value: &Value) -> String {
    let text = plain(value);
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
