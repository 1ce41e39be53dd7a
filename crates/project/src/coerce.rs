//! Texts where a schema wants a number or a truth value.

use schemars::Schema;
use serde_json::Value;

/// `value` with texts read as whole numbers, numbers or truth values where the schema takes those and no text. What cannot be
/// read so stays as it is, for the schema's owner to refuse.
pub fn to_schema(value: &Value, schema: &Schema) -> Value {
    coerce(value, schema.as_value(), schema.as_value())
}

/// What the schema expects of a setting, when the value is of no type that it takes even after [`to_schema`].
pub fn misfit(value: &Value, setting: &str, schema: &Schema) -> Option<String> {
    let root = schema.as_value();
    let wanted = followed(root.get("properties")?.get(setting)?, root);
    let types = types(wanted, root);
    let is = |t: &str| match coerce(value, wanted, root) {
        Value::Null => t == "null",
        Value::Bool(_) => t == "boolean",
        Value::Number(n) => t == "number" || t == "integer" && !n.is_f64(),
        Value::String(_) => t == "string",
        Value::Array(_) => t == "array",
        Value::Object(_) => t == "object",
    };
    // An alternative that names no type may take anything.
    if types.is_empty() || wanted.get("enum").is_some() || types.iter().any(|t| is(t)) {
        return None;
    }
    let words = types.iter().filter(|t| **t != "null").map(|t| match *t {
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "string" => "text",
        "array" => "a list",
        _ => "a map",
    });
    Some(words.collect::<Vec<_>>().join(" or "))
}

fn coerce(value: &Value, schema: &Value, root: &Value) -> Value {
    let schema = followed(schema, root);
    match value {
        Value::String(text) => read(text, &types(schema, root)).unwrap_or_else(|| value.clone()),
        Value::Object(map) => {
            let of = |key: &str| schema.pointer("/properties").and_then(|p| p.get(key)).or_else(|| schema.get("additionalProperties"));
            map.iter().map(|(k, v)| (k.clone(), of(k).map_or_else(|| v.clone(), |s| coerce(v, s, root)))).collect()
        }
        Value::Array(items) => match schema.get("items") {
            Some(of) => items.iter().map(|item| coerce(item, of, root)).collect(),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

/// The schema itself, or the one that its `$ref` or its only alternative beside null leads to.
fn followed<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let mut schema = schema;
    // A chain of references in a schema of ours is short; the bound is against circles.
    for _ in 0..16 {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?));
        let only = || {
            let alternatives = schema.get("anyOf")?.as_array()?;
            let mut real = alternatives.iter().filter(|a| a.get("type").and_then(Value::as_str) != Some("null"));
            real.next().filter(|_| real.next().is_none())
        };
        match target.or_else(only) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

/// The types that a schema takes; empty when it does not say.
fn types<'a>(schema: &'a Value, root: &'a Value) -> Vec<&'a str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => {
            let alternatives = schema.get("anyOf").and_then(Value::as_array);
            alternatives.into_iter().flatten().flat_map(|a| types(followed(a, root), root)).collect()
        }
    }
}

fn read(text: &str, types: &[&str]) -> Option<Value> {
    if types.contains(&"string") {
        return None;
    }
    let text = text.trim();
    types.iter().find_map(|t| match *t {
        "integer" => text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok(),
        "number" => text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Value::from),
        "boolean" => text.parse::<bool>().map(Value::from).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_become_what_the_schema_wants() {
        let schema: Schema = serde_json::from_value(json!({
            "properties": {
                "port": {"type": ["integer", "null"]}, "password": {"type": "string"}, "tls": {"type": "boolean"},
                "pool": {"$ref": "#/$defs/Pool"}, "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "maybe": {"anyOf": [{"$ref": "#/$defs/Pool"}, {"type": "null"}]}, "list": {"items": {"type": "number"}},
            },
            "$defs": {"Pool": {"type": "object", "properties": {"size": {"type": "integer"}}}},
        }))
        .unwrap();
        let settings = json!({
            "port": "5432", "password": "007", "tls": "true", "pool": {"size": "2"}, "either": "1", "maybe": {"size": "3"},
            "list": ["1.5", "x"], "unknown": "1",
        });
        let expected = json!({
            "port": 5432, "password": "007", "tls": true, "pool": {"size": 2}, "either": "1", "maybe": {"size": 3},
            "list": [1.5, "x"], "unknown": "1",
        });
        assert_eq!(to_schema(&settings, &schema), expected);
    }
}
