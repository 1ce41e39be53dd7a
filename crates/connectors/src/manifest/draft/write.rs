//! YAML as a person would write it: block style, quotes only where they are needed.

use std::fmt::Write;

use serde_json::Value;

pub(super) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                entry(&scalar(key), value, depth, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    // The first key stands behind the dash.
                    Value::Object(map) if !map.is_empty() => {
                        let mut lines = String::new();
                        block(item, depth + 1, &mut lines);
                        let _ = write!(out, "{indent}- {}", lines.trim_start());
                    }
                    other => {
                        let _ = writeln!(out, "{indent}- {}", flow(other));
                    }
                }
            }
        }
        other => {
            let _ = writeln!(out, "{indent}{}", flow(other));
        }
    }
}

fn entry(key: &str, value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() && !is_small(value) => {
            let _ = writeln!(out, "{key}:");
            block(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() && !is_small(value) => {
            let _ = writeln!(out, "{key}:");
            block(value, depth + 1, out);
        }
        other => {
            let _ = writeln!(out, "{key}: {}", flow(other));
        }
    }
}

/// Fits on a line: nothing but scalars in it, and short.
fn is_small(value: &Value) -> bool {
    const LONGEST: usize = 90;
    let leaves = match value {
        Value::Object(map) => map.values().all(|v| !v.is_object()),
        Value::Array(items) => items.iter().all(|v| !v.is_object() && !v.is_array()),
        _ => true,
    };
    leaves && flow(value).len() < LONGEST
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            format!("{{{}}}", map.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v))).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A text; in quotes unless it is plainly one, in the older YAML too.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    let word = text.to_lowercase();
    let is_value = matches!(word.as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "none" | "nan" | "inf");
    // A text in JSON is the same text in YAML.
    if plain && !is_value { text.to_owned() } else { Value::from(text).to_string() }
}
