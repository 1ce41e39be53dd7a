//! What a connector's specification says about its settings: which of them are secret, whatever their names are.

use serde_json::Value;
use trib_kit::settings::collect;

/// Schemas that refer to themselves in a circle are not written; one that is nested deeper is not read on.
const DEEPEST: usize = 32;

/// The secrets among these settings.
pub fn secrets(specification: &Value, settings: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["connectionSpecification", "connection_specification"] {
        if let Some(schema) = specification.get(name) {
            marked(schema, settings, 0, &mut found);
        }
    }
    found
}

fn marked(schema: &Value, settings: &Value, depth: usize, found: &mut Vec<String>) {
    if depth > DEEPEST || settings.is_null() {
        return;
    }
    if schema.get("airbyte_secret") == Some(&Value::Bool(true)) {
        return collect(settings, true, found);
    }
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        marked(schema, &settings[name], depth + 1, found);
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        schema.get(key).and_then(Value::as_array).into_iter().flatten().for_each(|part| marked(part, settings, depth + 1, found));
    }
    if let (Some(items), Value::Array(values)) = (schema.get("items"), settings) {
        values.iter().for_each(|value| marked(items, value, depth + 1, found));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_marked() {
        let pat = json!({"properties": {"pat": {"type": "string", "airbyte_secret": true}, "user": {"type": "string"}}});
        let all = json!({"properties": {"login": {"oneOf": [{"properties": {"kind": {"const": "none"}}}, pat]}, "list": {"items": pat}}});
        let settings = json!({"login": {"pat": "first", "user": "me", "kind": "x"}, "list": [{"pat": "second"}], "other": 1});
        let found: BTreeSet<String> = secrets(&json!({"connectionSpecification": all}), &settings).into_iter().collect();
        assert_eq!(found, BTreeSet::from(["first".to_owned(), "second".to_owned()]));
        assert!(secrets(&json!({}), &settings).is_empty());
    }
}
