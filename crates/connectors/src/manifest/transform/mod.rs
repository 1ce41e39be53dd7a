//! Changes to a record, one after the other.

mod flatten;
mod keys;

use serde_json::{Map, Value};
use trib_core::Result;

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::slice::Slice;
use super::template::{LiteralType, python_str};

pub(super) enum Transform {
    AddFields { fields: Vec<AddedField>, condition: Option<Expr> },
    RemoveFields { pointers: Vec<Vec<String>>, condition: Option<Expr> },
    KeysToLower,
    KeysToSnakeCase,
    FlattenFields { lists: bool },
    DpathFlatten(DpathFlatten),
    KeysReplace { old: Expr, new: Expr },
}

pub(super) struct AddedField {
    path: Vec<String>,
    value: Expr,
    valid: Option<[LiteralType; 1]>,
}

pub(super) struct DpathFlatten {
    path: Vec<Expr>,
    delete_origin: bool,
    replace_record: bool,
    prefix: Option<Expr>,
    suffix: Option<Expr>,
}

/// The type that a value must have, where the manifest names one.
pub(super) fn value_type(node: &Node<'_>) -> Option<[LiteralType; 1]> {
    Some([match node.text("value_type")? {
        "string" => LiteralType::String,
        "number" => LiteralType::Float,
        "integer" => LiteralType::Integer,
        "boolean" => LiteralType::Boolean,
        _ => return None,
    }])
}

impl Transform {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let condition = || Ok::<_, trib_core::Error>(node.expr("condition")?.filter(|c| !c.source().is_empty()));
        Ok(match node.kind() {
            "AddFields" => Transform::AddFields { fields: added_fields(node)?, condition: condition()? },
            "RemoveFields" => Transform::RemoveFields { pointers: pointers(node), condition: condition()? },
            "KeysToLower" => Transform::KeysToLower,
            "KeysToSnakeCase" => Transform::KeysToSnakeCase,
            "FlattenFields" => Transform::FlattenFields { lists: node.get("flatten_lists").is_none_or(|f| f.value != &Value::Bool(false)) },
            "DpathFlattenFields" => {
                let keys = node.get("key_transformation");
                let part = |name: &str| keys.as_ref().map_or(Ok(None), |k| k.expr(name));
                Transform::DpathFlatten(DpathFlatten {
                    path: node.exprs("field_path")?,
                    delete_origin: node.flag("delete_origin_value"),
                    replace_record: node.flag("replace_record"),
                    prefix: part("prefix")?,
                    suffix: part("suffix")?,
                })
            }
            "KeysReplace" => Transform::KeysReplace { old: node.need_expr("old")?, new: node.need_expr("new")? },
            _ => return Err(node.unsupported()),
        })
    }

    pub(super) fn apply(&self, env: &Env, slice: &Slice, record: &mut Value) -> Result<()> {
        match self {
            Transform::AddFields { fields, condition } => {
                for field in fields {
                    let value = {
                        let scope = slice.record_scope(env.scope()).with("record", record);
                        let value = field.value.eval_as(&scope, field.valid.as_ref().map(<[_; 1]>::as_slice))?;
                        if let Some(condition) = condition {
                            let path = Value::from(field.path.clone());
                            if !condition.truthy(&scope.with("value", &value).with("path", &path))? {
                                continue;
                            }
                        }
                        value
                    };
                    dpath::set(record, &field.path, value);
                }
            }
            Transform::RemoveFields { pointers, condition: None } => pointers.iter().for_each(|p| dpath::delete(record, p)),
            Transform::RemoveFields { condition: Some(condition), .. } => {
                // With a condition the reference deletes every leaf that satisfies it, whatever the pointers say.
                dpath::delete_leaves(record, &mut |leaf| condition.truthy(&env.scope().with("property", leaf)))?;
            }
            Transform::KeysToLower => with_map(record, |map| map.into_iter().map(|(k, v)| (k.to_lowercase(), v)).collect()),
            Transform::KeysToSnakeCase => with_map(record, keys::to_snake_case),
            Transform::FlattenFields { lists } => with_map(record, |map| flatten::flatten(map, *lists)),
            Transform::DpathFlatten(part) => part.apply(env, record)?,
            Transform::KeysReplace { old, new } => {
                let (old, new) = {
                    let scope = slice.record_scope(env.scope()).with("record", record);
                    (old.text(&scope)?, new.text(&scope)?)
                };
                with_map(record, |map| keys::replace(map, &old, &new));
            }
        }
        Ok(())
    }
}

fn with_map(record: &mut Value, change: impl FnOnce(Map<String, Value>) -> Map<String, Value>) {
    if let Value::Object(map) = record {
        *map = change(std::mem::take(map));
    }
}

fn added_fields(node: &Node<'_>) -> Result<Vec<AddedField>> {
    let field = |f: &Node<'_>| {
        let path: Vec<String> = f.items("path").iter().map(|p| python_str(p.value)).collect();
        if path.is_empty() {
            return Err(f.wrong("a field that is added needs a path"));
        }
        Ok(AddedField { path, value: f.need_expr("value")?, valid: value_type(f) })
    };
    node.items("fields").iter().map(field).collect()
}

fn pointers(node: &Node<'_>) -> Vec<Vec<String>> {
    let texts = |p: &Node<'_>| p.value.as_array().into_iter().flatten().map(python_str).collect();
    node.items("field_pointers").iter().map(texts).collect()
}

impl DpathFlatten {
    fn apply(&self, env: &Env, record: &mut Value) -> Result<()> {
        let scope = env.scope();
        let path = self.path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
        let found = if path.iter().any(|p| p == "*") {
            dpath::values(record, &path).into_iter().next()
        } else {
            dpath::get(record, &path).cloned()
        };
        let Some(Value::Object(found)) = found else { return Ok(()) };
        let text = |expr: &Option<Expr>| Expr::text_or(expr.as_ref(), "", &scope);
        let (prefix, suffix) = (text(&self.prefix)?, text(&self.suffix)?);
        let renamed: Map<String, Value> = found.into_iter().map(|(k, v)| (format!("{prefix}{k}{suffix}"), v)).collect();
        if self.replace_record && !renamed.is_empty() {
            *record = Value::Object(renamed);
            return Ok(());
        }
        if record.as_object().is_some_and(|own| renamed.keys().any(|k| own.contains_key(k))) {
            return Ok(());
        }
        if self.delete_origin {
            dpath::delete(record, &path);
        }
        if let Value::Object(own) = record {
            own.extend(renamed);
        }
        Ok(())
    }
}
