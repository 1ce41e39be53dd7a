//! The user's configuration: what the spec makes of it before anything else happens, and whether it is right.

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::dpath;
use super::json_schema;
use super::node::{Expr, Node};
use super::template::{Scope, python_str};
use super::transform::value_type;

/// A configuration in the form that the manifest's components expect.
pub(super) struct Prepared {
    pub(super) config: Value,
    /// A migration has changed it: the user's own should be replaced by this.
    pub(super) migrated: Option<Value>,
}

/// Migrates and transforms a configuration.
pub(super) fn prepare(spec: Option<&Node<'_>>, given: &Value) -> Result<Prepared> {
    let mut config = given.clone();
    let rules = spec.and_then(|s| s.get("config_normalization_rules"));
    let Some(rules) = rules else { return Ok(Prepared { config, migrated: None }) };
    for migration in rules.items("config_migrations") {
        migration.items("transformations").iter().try_for_each(|t| transform(t, &mut config))?;
    }
    let migrated = (config != *given).then(|| config.clone());
    rules.items("transformations").iter().try_for_each(|t| transform(t, &mut config))?;
    Ok(Prepared { config, migrated })
}

/// Holds a configuration against the spec. Nothing of its values is shown: they may be secrets.
pub(super) fn validate(spec: Option<&Node<'_>>, config: &Value) -> Result<()> {
    let Some(spec) = spec else { return Ok(()) };
    if let Some(schema) = spec.value.get("connection_specification") {
        refused(&json_schema::problems(schema, config))?;
    }
    Ok(())
}

/// The manifest's own checks on parts of the configuration.
pub(super) fn validate_parts(spec: Option<&Node<'_>>, config: &Value) -> Result<()> {
    let Some(rules) = spec.and_then(|s| s.get("config_normalization_rules")) else { return Ok(()) };
    for validation in rules.items("validations") {
        let strategy = validation.need("validation_strategy")?;
        if strategy.kind() != "ValidateAdheresToSchema" {
            return Err(strategy.unsupported());
        }
        let schema = match strategy.need("base_schema")?.value {
            Value::String(_) => strategy.need_expr("base_schema")?.eval(&Scope::new().with("config", config))?,
            other => other.clone(),
        };
        let values = if validation.kind() == "DpathValidator" {
            let path: Vec<String> = validation.items("field_path").iter().map(|p| python_str(p.value)).collect();
            if path.iter().any(|p| p == "*") {
                dpath::values(config, &path)
            } else {
                dpath::get(config, &path).cloned().into_iter().collect()
            }
        } else {
            vec![validation.value.get("value").cloned().unwrap_or_default()]
        };
        for value in values {
            refused(&json_schema::problems(&schema, &value))?;
        }
    }
    Ok(())
}

fn refused(problems: &[json_schema::Problem]) -> Result<()> {
    match problems.first() {
        None => Ok(()),
        Some(first) => {
            let error = Error::new(Code::ConfigInvalid, "the configuration is not what the connector's specification asks for");
            let all: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
            let error = error.detail(all.join("; "));
            Err(if first.path.is_empty() { error } else { error.setting(first.path.clone()) })
        }
    }
}

fn transform(node: &Node<'_>, config: &mut Value) -> Result<()> {
    let no_parameters = || std::sync::Arc::new(Value::Object(Map::new()));
    let condition = match node.text("condition").filter(|c| !c.is_empty()) {
        None => None,
        Some(text) => Some(Expr::new(text, no_parameters())?),
    };
    let texts = |node: &Node<'_>| -> Vec<String> { node.value.as_array().into_iter().flatten().map(python_str).collect() };
    match node.kind() {
        "ConfigAddFields" => {
            for field in node.items("fields") {
                let path = field.get("path").map(|p| texts(&p)).unwrap_or_default();
                let value = field.value.get("value").map(python_str).unwrap_or_default();
                let value = {
                    let scope = Scope::new().with("config", config);
                    let valid = value_type(&field);
                    let value = Expr::new(&value, no_parameters())?.eval_as(&scope, valid.as_ref().map(<[_; 1]>::as_slice))?;
                    let as_value = Value::from(path.clone());
                    if let Some(condition) = &condition
                        && !condition.truthy(&scope.with("value", &value).with("path", &as_value))?
                    {
                        continue;
                    }
                    value
                };
                dpath::set(config, &path, value);
            }
        }
        "ConfigRemoveFields" => {
            for pointer in node.items("field_pointers") {
                let path = texts(&pointer);
                let removes = match &condition {
                    None => true,
                    Some(condition) => {
                        let property = dpath::get(config, &path).cloned().unwrap_or_default();
                        condition.truthy(&Scope::new().with("config", config).with("property", &property))?
                    }
                };
                if removes {
                    dpath::delete(config, &path);
                }
            }
        }
        "ConfigRemapField" => {
            let path = node.get("field_path").map(|p| texts(&p)).unwrap_or_default();
            let map = match node.need("map")?.value {
                Value::String(text) => Expr::new(text, no_parameters())?.eval(&Scope::new().with("config", config))?,
                other => other.clone(),
            };
            let new = dpath::get(config, &path).and_then(|old| map.get(python_str(old))).cloned();
            if let Some(new) = new {
                let new = match &new {
                    Value::String(text) => Expr::new(text, no_parameters())?.entry(&Scope::new().with("config", config), None)?,
                    other => other.clone(),
                };
                dpath::set(config, &path, new);
            }
        }
        _ => return Err(node.unsupported()),
    }
    Ok(())
}

/// The values of the configuration that the spec calls secret.
pub(super) fn secrets(spec: Option<&Node<'_>>, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = spec.and_then(|s| s.value.get("connection_specification")) {
        collect(schema, config, &mut found);
    }
    // Longer first: one secret may stand within another.
    found.sort_by_key(|s| std::cmp::Reverse(s.len()));
    found
}

fn collect(schema: &Value, value: &Value, found: &mut Vec<String>) {
    if schema.get("airbyte_secret").and_then(Value::as_bool) == Some(true) {
        let text = python_str(value);
        if text.len() > 2 && !value.is_null() {
            found.push(text);
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        if let Some(value) = value.get(name) {
            collect(schema, value, found);
        }
    }
    for keyword in ["oneOf", "anyOf", "allOf"] {
        schema.get(keyword).and_then(Value::as_array).into_iter().flatten().for_each(|s| collect(s, value, found));
    }
    if let (Some(schema), Some(items)) = (schema.get("items"), value.as_array()) {
        items.iter().for_each(|item| collect(schema, item, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_found_wherever_they_are() {
        let spec = json!({"connection_specification": {"properties": {
            "key": {"type": "string", "airbyte_secret": true}, "open": {"type": "string"},
            "credentials": {"oneOf": [{"properties": {"token": {"airbyte_secret": true}}}, {"properties": {"user": {}}}]}}}});
        let config = json!({"key": "hunter2", "open": "plain", "credentials": {"token": "hunter2-long", "user": "me"}});
        assert_eq!(secrets(Some(&Node::new(&spec, "spec")), &config), ["hunter2-long", "hunter2"]);
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let spec = json!({"connection_specification": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}});
        let node = Node::new(&spec, "spec");
        assert!(validate(Some(&node), &json!({"key": "x"})).is_ok());
        let error = validate(Some(&node), &json!({"key": {"hunter2": 1}})).unwrap_err();
        assert_eq!(error.place().setting.as_deref(), Some("key"));
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
