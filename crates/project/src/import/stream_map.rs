//! Stream maps of the Singer SDK, as settings of a sync's streams.

use serde_json::{Map, Value, json};

use super::Imported;
use super::expression::to_sql;

/// Lays what `stream_maps` says over the streams of a sync.
pub fn apply(maps: &Map<String, Value>, sync: &str, streams: &mut Map<String, Value>, exclude: &mut Vec<Value>, imported: &mut Imported) {
    for (name, map) in maps {
        let place = format!("{sync}/{name}");
        let map = match map {
            // `__else__: null`: only the streams that are named.
            Value::Null | Value::String(_) if name == "__else__" => {
                streams.retain(|pattern, _| !pattern.contains(['*', '?']));
                continue;
            }
            Value::Null => {
                exclude.push(json!(name));
                continue;
            }
            Value::String(text) if text == "__NULL__" => {
                exclude.push(json!(name));
                continue;
            }
            Value::Object(map) => map,
            _ => {
                imported.note(format!("{place}: the stream map is not understood"));
                continue;
            }
        };
        let mut stream = streams.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        one(map, &place, &mut stream, imported);
        streams.insert(name.clone(), Value::Object(stream));
    }
}

fn one(map: &Map<String, Value>, place: &str, stream: &mut Map<String, Value>, imported: &mut Imported) {
    let mut columns = stream.get("columns").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut add = Map::new();
    let mut kept: Vec<Value> = Vec::new();
    let mut only = false;
    for (property, value) in map {
        let said = value.as_str().unwrap_or_default();
        match (property.as_str(), value) {
            ("__filter__", Value::String(python)) => match to_sql(python, None) {
                Some(sql) => drop(stream.insert("where".to_owned(), json!(sql))),
                None => imported.note(format!("{place}: the filter is not understood, all rows are loaded: {python}")),
            },
            ("__alias__", Value::String(alias)) => drop(stream.insert("into".to_owned(), json!(format!("{{connection}}.{alias}")))),
            ("__key_properties__", Value::Array(key)) => drop(stream.insert("key".to_owned(), json!(key))),
            ("__else__", _) => only = value.is_null() || said == "__NULL__",
            (other, _) if other.starts_with("__") => imported.note(format!("{place}: {other} is not carried over")),
            (_, Value::Null) => drop(columns.insert(property.clone(), json!({"drop": true}))),
            _ if said == "__NULL__" => drop(columns.insert(property.clone(), json!({"drop": true}))),
            _ if said == property => kept.push(json!(property)),
            _ if is_name(said) && !map.contains_key(said) => {
                // Under its new name only; with `__else__` left out the SDK keeps the old one too.
                kept.push(json!(said));
                add.insert(property.clone(), json!(format!("\"{said}\"")));
            }
            (_, Value::String(python)) => match to_sql(python, Some(property)) {
                Some(sql) => drop(add.insert(property.clone(), json!(sql))),
                None => imported.note(format!("{place}: {property} is not carried over, its expression is not understood: {python}")),
            },
            (_, constant) => drop(add.insert(property.clone(), constant_sql(constant))),
        }
    }
    // A new value under an old name: the old column goes out of the way.
    for name in add.keys() {
        let python = map.get(name).and_then(Value::as_str).unwrap_or_default();
        if python.contains("self") || python.contains(name.as_str()) {
            columns.insert(name.clone(), json!({"drop": true}));
        }
    }
    if only {
        if add.is_empty() {
            stream.insert("select".to_owned(), Value::Array(kept));
        } else {
            imported.note(format!("{place}: `__else__: null` with computed properties: name the columns under `select`"));
        }
    }
    for (key, value) in [("columns", columns), ("add", add)] {
        if !value.is_empty() {
            stream.insert(key.to_owned(), Value::Object(value));
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn constant_sql(value: &Value) -> Value {
    match value {
        Value::Bool(_) | Value::Number(_) => json!(value.to_string()),
        other => json!(format!("'{}'", other.to_string().replace('\'', "''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        let maps = json!({
            "users": {"email": null, "email_hash": "md5(email)", "domain": "email.split('@')[-1]", "__filter__": "active == True", "__key_properties__": ["id"]},
            "secrets": null,
            "orders": {"id": "id", "total": "total", "__else__": null, "__alias__": "sales"},
        });
        let (mut streams, mut exclude, mut imported) = (Map::from_iter([("*".to_owned(), json!({}))]), Vec::new(), Imported::default());
        apply(maps.as_object().unwrap(), "s", &mut streams, &mut exclude, &mut imported);
        let users = json!({"where": "\"active\" = true", "key": ["id"], "columns": {"email": {"drop": true}}, "add": {"email_hash": "md5(\"email\")"}});
        assert_eq!(streams["users"], users);
        assert_eq!(streams["orders"], json!({"into": "{connection}.sales", "select": ["id", "total"]}));
        assert_eq!(exclude, [json!("secrets")]);
        assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    }
}
