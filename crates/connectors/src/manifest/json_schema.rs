//! A value held against a JSON schema (draft 7, as far as connectors' specifications use it). Problems name places, never values.

use std::fmt;

use regex::Regex;
use serde_json::Value;

/// Where a value does not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Dotted; empty for the whole.
    pub(super) path: String,
    pub(super) what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

pub(super) fn problems(schema: &Value, value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    check(schema, value, "", 0, &mut problems);
    problems
}

fn check(schema: &Value, value: &Value, path: &str, depth: usize, problems: &mut Vec<Problem>) {
    if depth > 100 {
        return;
    }
    let mut wrong = |what: String| problems.push(Problem { path: path.to_owned(), what });
    let Some(rules) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            wrong("nothing may stand here".to_owned());
        }
        return;
    };
    if let Some(types) = rules.get("type") {
        let named: Vec<&str> = match types {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !named.is_empty() && !named.iter().any(|t| is(value, t)) {
            wrong(format!("expected {}", named.join(" or ")));
            return;
        }
    }
    if rules.get("const").is_some_and(|c| c != value) {
        wrong("is not the one value that it may have".to_owned());
    }
    if let Some(Value::Array(allowed)) = rules.get("enum")
        && !allowed.contains(value)
    {
        wrong(format!("expected one of {}", allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    bounds(rules, value, &mut wrong);
    if let Value::Object(map) = value {
        for name in rules.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                wrong(format!("`{name}` is missing"));
            }
        }
        let properties = rules.get("properties").and_then(Value::as_object);
        for (name, value) in map {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (properties.and_then(|p| p.get(name)), rules.get("additionalProperties")) {
                (Some(schema), _) => check(schema, value, &path, depth + 1, problems),
                (None, Some(Value::Bool(false))) => problems.push(Problem { path, what: "there is no such property".to_owned() }),
                (None, Some(schema)) => check(schema, value, &path, depth + 1, problems),
                (None, None) => {}
            }
        }
    }
    if let (Value::Array(items), Some(schema)) = (value, rules.get("items")) {
        items.iter().enumerate().for_each(|(i, item)| check(schema, item, &format!("{path}[{i}]"), depth + 1, problems));
    }
    combined(rules, value, path, depth, problems);
}

fn combined(rules: &serde_json::Map<String, Value>, value: &Value, path: &str, depth: usize, problems: &mut Vec<Problem>) {
    let list = |name: &str| rules.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list("allOf").iter().for_each(|schema| check(schema, value, path, depth + 1, problems));
    let tried = |schema: &Value| {
        let mut own = Vec::new();
        check(schema, value, path, depth + 1, &mut own);
        own
    };
    let any = list("anyOf");
    if !any.is_empty() && !any.iter().any(|s| tried(s).is_empty()) {
        problems.push(Problem { path: path.to_owned(), what: "fits none of the forms that it may have".to_owned() });
    }
    let one = list("oneOf");
    let fitting = one.iter().filter(|s| tried(s).is_empty()).count();
    if !one.is_empty() && fitting != 1 {
        let what = if fitting == 0 { "fits none of the forms that it may have" } else { "fits more than one form" };
        problems.push(Problem { path: path.to_owned(), what: what.to_owned() });
    }
    if rules.get("not").is_some_and(|schema| tried(schema).is_empty()) {
        problems.push(Problem { path: path.to_owned(), what: "has a form that it may not have".to_owned() });
    }
}

fn bounds(rules: &serde_json::Map<String, Value>, value: &Value, wrong: &mut dyn FnMut(String)) {
    let limit = |name: &str| rules.get(name).and_then(Value::as_f64);
    if let Some(number) = value.as_f64() {
        if limit("minimum").is_some_and(|m| number < m) || limit("exclusiveMinimum").is_some_and(|m| number <= m) {
            wrong("is too small".to_owned());
        }
        if limit("maximum").is_some_and(|m| number > m) || limit("exclusiveMaximum").is_some_and(|m| number >= m) {
            wrong("is too large".to_owned());
        }
    }
    let size = match value {
        Value::String(text) => {
            if let Some(pattern) = rules.get("pattern").and_then(Value::as_str)
                // A pattern that this engine cannot read is no reason to refuse a configuration.
                && Regex::new(pattern).is_ok_and(|p| !p.is_match(text))
            {
                wrong(format!("does not match {pattern}"));
            }
            Some((text.chars().count(), "minLength", "maxLength"))
        }
        Value::Array(items) => Some((items.len(), "minItems", "maxItems")),
        _ => None,
    };
    if let Some((size, least, most)) = size {
        if limit(least).is_some_and(|l| (size as f64) < l) {
            wrong("is too short".to_owned());
        }
        if limit(most).is_some_and(|m| size as f64 > m) {
            wrong("is too long".to_owned());
        }
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_schemas() {
        let cases = [
            (json!({"type": "object", "required": ["a"]}), json!({}), vec!["`a` is missing"]),
            (json!({"properties": {"a": {"type": "integer", "minimum": 2}}}), json!({"a": 1}), vec!["a: is too small"]),
            (json!({"properties": {"a": {"type": ["null", "string"]}}}), json!({"a": 1}), vec!["a: expected null or string"]),
            (json!({"properties": {"a": {"pattern": "^[0-9]{4}$"}}}), json!({"a": "20"}), vec!["a: does not match ^[0-9]{4}$"]),
            (json!({"additionalProperties": false}), json!({"b": 1}), vec!["b: there is no such property"]),
            (json!({"items": {"enum": ["x"]}}), json!(["x", "y"]), vec!["[1]: expected one of \"x\""]),
            (json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}), json!({"a": 1, "b": 2}), vec!["fits more than one form"]),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!(1), vec!["fits none of the forms that it may have"]),
            (json!({"type": "number"}), json!(1.5), vec![]),
        ];
        for (schema, value, expected) in cases {
            let found: Vec<String> = problems(&schema, &value).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{schema}");
        }
    }
}
