//! The engine on its own, for comparing it with the reference line by line.

use serde_json::{Value, json};

use super::{Scope, Template, TemplateError};

/// Evaluates one case: `{"kind": "string" | "bool", "template": …, "context": {name: value, …}}` gives `{"value": …}` or
/// `{"error": true, "why": …}`. The time is the system's.
pub fn interpolate(case: &Value) -> Value {
    let source = case["template"].as_str().unwrap_or_default();
    let mut scope = Scope::new();
    if let Some(context) = case["context"].as_object() {
        for (name, value) in context {
            scope = scope.with(name, value);
        }
    }
    let value: Result<Value, TemplateError> = Template::compile(source).and_then(|template| match case["kind"].as_str() {
        Some("bool") => template.truthy(&scope).map(Value::Bool),
        _ => template.eval(&scope, None),
    });
    match value {
        Ok(value) => json!({"value": value}),
        Err(error) => json!({"error": true, "why": error.to_string()}),
    }
}
