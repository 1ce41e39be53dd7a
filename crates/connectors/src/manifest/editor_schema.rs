//! A manifest's JSON Schema, for editors: the table that manifests are held against, in the words of draft 7.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::components::{FieldRule, Rule, TABLE};

/// What an editor checks and completes a manifest by. A reference stands wherever its target may; types that go without saying may be
/// left out.
pub fn manifest_schema() -> Value {
    let components: BTreeMap<&str, &Vec<FieldRule>> = TABLE.iter().map(|(name, fields)| (*name, fields)).collect();
    let mut definitions: Map<String, Value> =
        components.into_iter().map(|(name, fields)| (name.to_owned(), component(name, fields))).collect();
    definitions.insert(
        REFERENCE.to_owned(),
        json!({
            "description": "Another place of this manifest: `#/definitions/…`. What stands beside `$ref` wins over what is there.",
            "anyOf": [
                {"type": "string", "pattern": "^#/"},
                {"type": "object", "required": ["$ref"], "properties": {"$ref": {"type": "string", "pattern": "^#/"}}}
            ]
        }),
    );
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "connectors/*.yaml: a declarative connector",
        "allOf": [pointer(ROOT)],
        "definitions": definitions
    })
}

const ROOT: &str = "DeclarativeSource";
const REFERENCE: &str = "Reference";

fn pointer(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

fn component(name: &str, fields: &[FieldRule]) -> Value {
    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({"const": name}));
    properties.insert(super::parameters::PARAMETERS.to_owned(), json!({"type": "object"}));
    for field in fields {
        properties.insert(field.name.to_owned(), place(&field.rule, !field.required));
    }
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    // Elsewhere a component may carry what only its own Python class reads.
    if name == ROOT {
        schema["additionalProperties"] = Value::Bool(false);
    }
    schema
}

/// Where a value of this rule may stand, a reference may; and nothing may, where the field need not be there.
fn place(rule: &Rule, optional: bool) -> Value {
    let mut forms = Vec::new();
    collect(rule, &mut forms);
    if matches!(rule, Rule::Any) {
        return json!({});
    }
    forms.push(pointer(REFERENCE));
    if optional {
        forms.push(json!({"type": "null"}));
    }
    json!({"anyOf": forms})
}

fn collect(rule: &Rule, forms: &mut Vec<Value>) {
    forms.push(match rule {
        Rule::Either(rules) => return rules.iter().for_each(|rule| collect(rule, forms)),
        Rule::Any => json!({}),
        Rule::Null => json!({"type": "null"}),
        Rule::Text => json!({"type": "string"}),
        Rule::Int => json!({"type": "integer"}),
        Rule::Number => json!({"type": "number"}),
        Rule::Bool => json!({"type": "boolean"}),
        Rule::Map => json!({"type": "object"}),
        Rule::List(rule) => json!({"type": "array", "items": place(rule, false)}),
        Rule::MapOf(rule) => json!({"type": "object", "additionalProperties": place(rule, false)}),
        Rule::OneOf(texts) => json!({"enum": texts}),
        Rule::Component(name) => pointer(name),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pointer_has_a_target() {
        fn pointers(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| pointers(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| pointers(value, found)),
                _ => {}
            }
        }
        let schema = manifest_schema();
        let mut found = Vec::new();
        pointers(&schema, &mut found);
        assert!(found.len() > 200, "{}", found.len());
        let missing: Vec<_> = found.iter().filter(|pointer| schema.pointer(pointer.trim_start_matches('#')).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn rules_become_forms() {
        let schema = manifest_schema();
        let at = |path: &str| schema.pointer(&format!("/definitions/{path}")).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(at("DeclarativeSource/required"), &json!(["check", "version"]));
        assert_eq!(at("DeclarativeSource/additionalProperties"), false);
        assert_eq!(at("PageIncrement/properties/type"), &json!({"const": "PageIncrement"}));
        let reference = json!({"$ref": "#/definitions/Reference"});
        assert_eq!(
            at("HttpRequester/properties/http_method"),
            &json!({"anyOf": [{"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]}, reference, {"type": "null"}]})
        );
        assert_eq!(
            at("RemoveFields/properties/field_pointers/anyOf/0/items/anyOf/0"),
            &json!({"type": "array", "items": {"anyOf": [{"type": "string"}, reference]}})
        );
        assert_eq!(at("RequestBodyUrlEncodedForm/properties/value/anyOf/0/additionalProperties/anyOf/0"), &json!({"type": "string"}));
    }
}
