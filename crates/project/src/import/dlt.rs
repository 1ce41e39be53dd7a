//! A schema that dlt has exported (`schemas/export/NAME.schema.yaml`): its tables with keys, cursors and write dispositions. The pipeline itself is Python.

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};

use super::Imported;
use super::system::{slug, system};
use super::yaml_text::text;
use crate::yaml;

/// The project that loads the same tables.
pub fn import(schema: &str, file: &str) -> Result<Imported> {
    let root = yaml::parse(file, schema, 1)?.to_json();
    let (Some(name), Some(tables)) = (root.get("name").and_then(Value::as_str), root.get("tables").and_then(Value::as_object)) else {
        return Err(Error::new(Code::ConfigInvalid, "this is no schema of dlt")
            .detail("`name` and `tables` are needed")
            .file(file, None, None)
            .hint("set `export_schema_path` of the pipeline, and give the file that it writes"));
    };
    let mut out = Imported::default();
    let from = slug(name);
    let mut streams = Map::new();
    for (table, said) in tables.iter().filter(|(name, _)| !name.starts_with("_dlt")) {
        // Rows of lists inside of rows: they come with their parents.
        if said.get("parent").is_some() {
            continue;
        }
        let resource = said.get("resource").and_then(Value::as_str).unwrap_or(table);
        streams.insert(resource.to_owned(), Value::Object(stream_of(table, said, &mut out)));
    }
    let mut connections = Map::new();
    let from = system(&from, name, None, true)?.kept(from, &mut connections, &mut out);
    let sync = json!({"from": from, "to": "warehouse", "into": format!("{from}.{{table}}"), "streams": streams});
    out.note("a schema does not say where dlt loads to: `to:` is the project's lake");
    out.note("the pipeline's Python (resources, transformers, maps) is not carried over, nor is its state: the first run reads everything");
    out.files.insert("tributary.yaml".to_owned(), text(&json!({"name": from})));
    out.files.insert("connections.yaml".to_owned(), text(&Value::Object(connections)));
    out.files.insert(format!("syncs/{from}.yaml"), text(&sync));
    Ok(out)
}

fn stream_of(table: &str, said: &Value, out: &mut Imported) -> Map<String, Value> {
    let none = Map::new();
    let columns = said.get("columns").and_then(Value::as_object).unwrap_or(&none);
    let hinted = |hint: &str| -> Vec<String> {
        columns.iter().filter(|(name, c)| !name.starts_with("_dlt") && c.get(hint) == Some(&json!(true))).map(|(n, _)| n.clone()).collect()
    };
    let (mut key, cursor) = (hinted("primary_key"), hinted("incremental").pop().or_else(|| hinted("cursor").pop()));
    if key.is_empty() {
        key = hinted("merge_key");
    }
    let disposition = said.get("write_disposition").and_then(Value::as_str).unwrap_or("append");
    let write = match (disposition, said.get("x-merge-strategy").and_then(Value::as_str)) {
        ("replace", _) => "replace",
        ("merge", Some("scd2")) => "history",
        ("merge", Some("insert-only")) => "insert",
        ("merge", _) => "upsert",
        ("skip", _) => {
            out.note(format!("{table}: write_disposition skip is taken for append"));
            "append"
        }
        _ => "append",
    };
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| drop(spec.insert(key.to_owned(), value));
    match cursor.filter(|_| write != "replace") {
        Some(cursor) => {
            put("read", json!("incremental"));
            put("cursor", json!(cursor));
        }
        None => {
            put("read", json!("full"));
            if write == "append" {
                put("duplicates", json!("allow"));
                out.note(format!("{table}: no column says what is new, so that each run appends all rows: name a `cursor:`"));
            }
        }
    }
    put("write", json!(write));
    if !key.is_empty() {
        put("key", json!(key));
    }
    let contract = said.get("schema_contract").and_then(Value::as_object);
    let ours = |mode: &Value| match mode.as_str() {
        Some("freeze") => Some("freeze"),
        Some("discard_row") => Some("reject_row"),
        Some("discard_value") => Some("discard_value"),
        _ => None,
    };
    if let Some(mode) = contract.and_then(|c| c.get("columns")).and_then(ours) {
        put("contract", json!({"new_columns": mode}));
    }
    spec
}
