//! `$ref`, and every text that begins with `#/`: each stands for another part of the manifest.

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

const REF: &str = "$ref";
/// What stands there are values of the connector's configuration, which may look like references and are none.
const NO_REFERENCES_IN: &str = "config_overrides";
/// References unfold, so a small file can describe a huge manifest.
const MOST_NODES: usize = 5_000_000;
const DEEPEST: usize = 400;

/// The manifest with every reference replaced by what it stands for. Keys beside a `$ref` win over what it brings; the merge is
/// shallow.
pub(super) fn resolve(manifest: &Value) -> Result<Value> {
    Resolver { manifest, open: Vec::new(), nodes: 0 }.value(manifest, 0)
}

struct Resolver<'a> {
    manifest: &'a Value,
    /// The references that are being followed right now.
    open: Vec<String>,
    nodes: usize,
}

impl Resolver<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<Value> {
        self.nodes += 1;
        if self.nodes > MOST_NODES || depth > DEEPEST {
            return Err(wrong("the manifest's references unfold into too many values", self.open.last().map_or("", |r| r)));
        }
        Ok(match value {
            Value::Object(map) => self.object(map, depth)?,
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(item, depth + 1)).collect::<Result<_>>()?),
            Value::String(text) if text.starts_with("#/") => self.follow(text, depth)?,
            other => other.clone(),
        })
    }

    fn object(&mut self, map: &Map<String, Value>, depth: usize) -> Result<Value> {
        let mut own = Map::with_capacity(map.len());
        for (key, value) in map.iter().filter(|(key, _)| *key != REF) {
            let value = if key == NO_REFERENCES_IN { value.clone() } else { self.value(value, depth + 1)? };
            own.insert(key.clone(), value);
        }
        let Some(reference) = map.get(REF) else { return Ok(Value::Object(own)) };
        match self.value(reference, depth + 1)? {
            Value::Object(mut brought) => {
                brought.extend(own);
                Ok(Value::Object(brought))
            }
            other => Ok(other),
        }
    }

    fn follow(&mut self, reference: &str, depth: usize) -> Result<Value> {
        if self.open.iter().any(|open| open == reference) {
            return Err(wrong("the reference leads back to itself", reference));
        }
        let target = lookup(self.manifest, &reference[2..]).ok_or_else(|| wrong("the reference points at nothing", reference))?;
        self.open.push(reference.to_owned());
        let value = self.value(target, depth + 1);
        self.open.pop();
        value
    }
}

fn wrong(what: &'static str, reference: &str) -> Error {
    Error::new(Code::ConfigInvalid, what).detail(reference)
}

/// A key may itself hold a `/`, so at each step the whole rest is tried before its first part.
fn lookup<'a>(mut at: &'a Value, path: &str) -> Option<&'a Value> {
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(found) = at.get(rest) {
            return Some(found);
        }
        let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
        at = match at {
            Value::Array(items) => {
                let index: i64 = head.parse().ok()?;
                let index = if index < 0 { items.len().checked_sub(index.unsigned_abs() as usize)? } else { index as usize };
                items.get(index)?
            }
            other => other.get(head)?,
        };
        rest = tail;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_and_what_stands_beside_them() {
        let manifest = json!({
            "definitions": {"a": {"x": 1, "y": {"p": 1}}, "l": [10, {"z": 5}], "b/c": "whole key", "b": {"c": "split"}},
            "one": {"$ref": "#/definitions/a", "y": {"q": 2}},
            "two": "#/definitions/l/1/z",
            "three": {"$ref": "#/definitions/b/c"},
            "four": {"$ref": "#/one", "w": 0},
            "config_overrides": {"url": "#/not/a/reference"},
        });
        let resolved = resolve(&manifest).unwrap();
        assert_eq!(resolved["one"], json!({"x": 1, "y": {"q": 2}}));
        assert_eq!((&resolved["two"], &resolved["three"]), (&json!(5), &json!("whole key")));
        assert_eq!(resolved["four"], json!({"x": 1, "y": {"q": 2}, "w": 0}));
        assert_eq!(resolved["config_overrides"]["url"], "#/not/a/reference");
    }

    #[test]
    fn circles_and_dead_ends_are_named() {
        for (manifest, named) in [
            (json!({"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}), "#/"),
            (json!({"a": "#/a"}), "#/a"),
            (json!({"a": {"$ref": "#/nothing/here"}}), "#/nothing/here"),
        ] {
            let error = resolve(&manifest).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid);
            assert!(error.detail_text().unwrap().starts_with(named), "{error}");
        }
    }

    #[test]
    fn unfolding_is_bounded() {
        let mut map = Map::new();
        map.insert("a0".into(), json!(vec!["x"; 10]));
        for i in 1..9 {
            let reference = json!({"$ref": format!("#/a{}", i - 1)});
            map.insert(format!("a{i}"), Value::Array(vec![reference; 10]));
        }
        assert_eq!(resolve(&Value::Object(map)).unwrap_err().code(), Code::ConfigInvalid);
    }
}
