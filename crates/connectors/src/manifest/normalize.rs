//! A record's values made to fit its JSON schema, where they can be.

use serde_json::{Number, Value};

use super::template::python_str;

const SIMPLE: [&str; 5] = ["string", "number", "integer", "boolean", "null"];

/// Converts properties and items to the one type that their schema names. What cannot be converted stays as it is.
pub(super) fn normalize(value: &mut Value, schema: &Value) {
    if let (Value::Object(map), Some(properties)) = (&mut *value, schema.get("properties").and_then(Value::as_object)) {
        for (name, schema) in properties {
            if let Some(value) = map.get_mut(name) {
                convert(value, schema);
                normalize(value, schema);
            }
        }
    }
    if let (Value::Array(items), Some(schema)) = (&mut *value, schema.get("items").filter(|s| s.is_object())) {
        for item in items {
            convert(item, schema);
            normalize(item, schema);
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        schema.get(keyword).and_then(Value::as_array).into_iter().flatten().for_each(|schema| normalize(value, schema));
    }
}

fn convert(value: &mut Value, schema: &Value) {
    let target = match schema.get("type") {
        Some(Value::String(target)) => target.as_str(),
        Some(Value::Array(types)) => {
            if value.is_null() && types.iter().any(|t| t == "null") {
                return;
            }
            let mut others = types.iter().filter_map(Value::as_str).filter(|t| *t != "null");
            match (others.next(), others.next()) {
                (Some(only), None) => only,
                _ => return,
            }
        }
        _ => return,
    };
    let converted = match target {
        "string" if !value.is_string() => Some(Value::String(python_str(value))),
        "number" => float(value),
        "integer" => integer(value),
        "boolean" => boolean(value),
        "array" if items_are_simple(schema) && !value.is_array() && !value.is_object() => Some(Value::Array(vec![value.clone()])),
        _ => None,
    };
    if let Some(converted) = converted {
        *value = converted;
    }
}

/// As the reference reads it: a list of simple types, or none at all; a type that is one text does not count.
fn items_are_simple(schema: &Value) -> bool {
    match schema.get("items").and_then(|i| i.get("type")) {
        None => true,
        Some(Value::Array(types)) => types.iter().all(|t| t.as_str().is_some_and(|t| SIMPLE.contains(&t))),
        Some(_) => false,
    }
}

fn float(value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(n) => n.as_f64()?,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Number::from_f64(number).map(Value::Number)
}

fn integer(value: &Value) -> Option<Value> {
    match value {
        Value::Number(n) if n.is_f64() => {
            let whole = n.as_f64()?.trunc();
            (whole.abs() < 9.2e18).then(|| (whole as i64).into())
        }
        Value::Bool(b) => Some(i64::from(*b).into()),
        Value::String(text) => text.trim().parse::<i64>().ok().map(Value::from),
        _ => None,
    }
}

fn boolean(value: &Value) -> Option<Value> {
    Some(Value::Bool(match value {
        Value::String(text) => match text.to_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => true,
            "n" | "no" | "f" | "false" | "off" | "0" => false,
            _ => return None,
        },
        other => super::parameters::truthy(other),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_fit_their_types() {
        let cases = [
            (json!({"type": "integer"}), json!("1"), json!(1)),
            (json!({"type": "integer"}), json!(2.9), json!(2)),
            (json!({"type": "integer"}), json!("2.9"), json!("2.9")),
            (json!({"type": ["null", "string"]}), json!(null), json!(null)),
            (json!({"type": "string"}), json!(null), json!("None")),
            (json!({"type": ["null", "string"]}), json!({"k": true}), json!("{'k': True}")),
            (json!({"type": "number"}), json!(3), json!(3.0)),
            (json!({"type": "number"}), json!("abc"), json!("abc")),
            (json!({"type": "boolean"}), json!("yes"), json!(true)),
            (json!({"type": "boolean"}), json!("maybe"), json!("maybe")),
            (json!({"type": "boolean"}), json!(0), json!(false)),
            (json!({"type": ["string", "integer"]}), json!("7"), json!("7")),
            (json!({"type": "array", "items": {"type": "string"}}), json!("x"), json!("x")),
            (json!({"type": "array", "items": {"type": ["string"]}}), json!("x"), json!(["x"])),
            (json!({"type": "array", "items": {"type": "string"}}), json!([1, null]), json!(["1", "None"])),
            (json!({"type": "object", "properties": {"x": {"type": "string"}}}), json!({"x": 3}), json!({"x": "3"})),
        ];
        for (schema, value, expected) in cases {
            let mut record = json!({"v": value});
            normalize(&mut record, &json!({"type": "object", "properties": {"v": schema}}));
            assert_eq!(record["v"], expected, "{schema}");
        }
    }
}
