//! JSON values as YAML that a person would have written.

use std::fmt::Write;

use serde_json::Value;

/// Maps as blocks, lists of plain values in brackets.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(map) = value else {
        let _ = writeln!(out, "{}{}", " ".repeat(indent), flow(value));
        return;
    };
    for (key, value) in map {
        let key = scalar(key);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{}{key}:", " ".repeat(indent));
                block(value, indent + 2, out);
            }
            _ => {
                let _ = writeln!(out, "{}{key}: {}", " ".repeat(indent), flow(value));
            }
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Without quotes where nothing else could be meant.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let word = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && text.chars().all(plain);
    if word && !matches!(text, "true" | "false" | "null") { text.to_owned() } else { Value::from(text).to_string() }
}
