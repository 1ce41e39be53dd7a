//! A Sling replication: `replication.yaml` and, where it is there, the `env.yaml` beside it.

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};

use super::system::{Found, by_variable, no_place, slug, system, tap};
use super::yaml_text::text;
use super::{Imported, ReadFile};
use crate::yaml;

/// The project that does the same. `name` is what it is called.
pub fn import(replication: &str, file: &str, name: &str, read: ReadFile<'_>) -> Result<Imported> {
    let root = yaml::parse(file, replication, 1)?.to_json();
    let (Some(source), Some(target), Some(streams)) = (
        root.get("source").and_then(Value::as_str),
        root.get("target").and_then(Value::as_str),
        root.get("streams").and_then(Value::as_object),
    ) else {
        return Err(Error::new(Code::ConfigInvalid, "this is no replication of Sling")
            .detail("`source`, `target` and `streams` are needed")
            .file(file, None, None));
    };
    let known = read("env.yaml").and_then(|text| yaml::parse("env.yaml", &text, 1).ok()).map(|tree| tree.to_json());
    let mut out = Imported::default();
    let mut connections = Map::new();
    let from = connection(source, known.as_ref(), true, &mut connections, &mut out)?;
    let to = connection(target, known.as_ref(), false, &mut connections, &mut out)?;
    let none = Map::new();
    let defaults = root.get("defaults").and_then(Value::as_object).unwrap_or(&none);
    let (mut all, mut exclude) = (Map::new(), Vec::new());
    for (stream, said) in streams {
        let mut merged = defaults.clone();
        merged.extend(said.as_object().cloned().unwrap_or_default());
        let stream = stream.replace('"', "");
        if merged.get("disabled") == Some(&json!(true)) {
            exclude.push(json!(stream));
            continue;
        }
        if stream.contains("://") {
            out.note(format!("{stream}: a file is a stream of a connection of its own here, and is not carried over"));
            continue;
        }
        let spec = stream_of(&stream, &merged, &mut out);
        all.insert(stream, Value::Object(spec));
    }
    let mut sync = Map::from_iter([
        ("from".to_owned(), json!(from)),
        ("to".to_owned(), json!(to)),
        (
            "into".to_owned(),
            json!(object(defaults.get("object").and_then(Value::as_str).unwrap_or("{stream_schema}.{stream_table}"), "defaults", &mut out)),
        ),
    ]);
    if let Some(threads) = root.pointer("/env/SLING_THREADS").and_then(|t| t.as_u64().or_else(|| t.as_str()?.parse().ok())) {
        sync.insert("threads".to_owned(), json!(threads));
    }
    if !exclude.is_empty() {
        sync.insert("exclude".to_owned(), Value::Array(exclude));
    }
    sync.insert("streams".to_owned(), Value::Object(all));
    for key in root
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .filter(|k| !matches!(k.as_str(), "source" | "target" | "streams" | "defaults" | "env"))
    {
        out.note(format!("`{key}` is not carried over"));
    }
    for key in root.get("env").and_then(Value::as_object).into_iter().flat_map(Map::keys).filter(|k| *k != "SLING_THREADS") {
        out.note(format!("env: {key} is not carried over"));
    }
    out.note("Sling keeps no state: it asks the target's tables how far it has come; here the first run reads everything, and upserts leave one row for each key");
    out.files.insert("tributary.yaml".to_owned(), text(&json!({"name": slug(name)})));
    out.files.insert("connections.yaml".to_owned(), text(&Value::Object(connections)));
    out.files.insert(format!("syncs/{from}-to-{to}.yaml"), text(&Value::Object(sync)));
    Ok(out)
}

/// The connection of a name in `env.yaml`, or in a variable that holds its URL.
fn connection(name: &str, known: Option<&Value>, source: bool, connections: &mut Map<String, Value>, out: &mut Imported) -> Result<String> {
    let own = slug(name);
    let said = known.and_then(|k| k.pointer("/connections")?.get(name));
    let found = match said.and_then(|s| s.get("type")).and_then(Value::as_str) {
        Some(kind) => system(&own, kind, said, source)?,
        // Without env.yaml, a connection is a variable of this name that holds a URL, and only the name says of what.
        None => match by_variable(name)? {
            Some(connection) => {
                let note = format!("{own}: its name is all that says what it is: look at its connector, and set {name}");
                Found::Connection(connection, vec![note])
            }
            None if source => tap(&own, &own),
            None => Found::Warehouse(no_place(name, "what nothing says the kind of")),
        },
    };
    Ok(found.kept(own, connections, out))
}

fn stream_of(stream: &str, said: &Map<String, Value>, out: &mut Imported) -> Map<String, Value> {
    let text = |key: &str| said.get(key).and_then(Value::as_str);
    let names = |key: &str| -> Vec<String> {
        match said.get(key) {
            Some(Value::String(one)) => one.split(',').map(|p| p.trim().to_owned()).collect(),
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    };
    let (key, cursor) = (names("primary_key"), text("update_key"));
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| drop(spec.insert(key.to_owned(), value));
    match (text("mode").unwrap_or("full-refresh"), cursor) {
        ("incremental" | "backfill", Some(cursor)) => {
            put("read", json!("incremental"));
            put("cursor", json!(cursor));
            put("write", json!(if key.is_empty() { "append" } else { "upsert" }));
        }
        // Without a column to go by, all is read and merged.
        ("incremental" | "backfill", None) => {
            put("read", json!("full"));
            put("write", json!("upsert"));
        }
        ("snapshot", _) => {
            put("read", json!("full"));
            put("write", json!("append"));
            put("duplicates", json!("allow"));
        }
        (mode, _) => {
            if !matches!(mode, "full-refresh" | "truncate") {
                out.note(format!("{stream}: the mode {mode} is not known, and taken for full-refresh"));
            }
            put("read", json!("full"));
            put("write", json!("replace"));
        }
    }
    if text("mode") == Some("backfill") {
        out.note(format!("{stream}: a backfill is `trib backfill` here; the stream is read incrementally"));
    }
    if !key.is_empty() {
        put("key", json!(key));
    }
    if let Some(filter) = text("where") {
        put("where", json!(filter));
    }
    let (out_of, kept): (Vec<String>, Vec<String>) = names("select").into_iter().partition(|c| c.starts_with('-'));
    if !kept.is_empty() && !kept.iter().any(|c| c == "*") {
        put("select", json!(kept));
    }
    let mut columns: Map<String, Value> = out_of.iter().map(|c| (c[1..].to_owned(), json!({"drop": true}))).collect();
    for (column, wanted) in said.get("columns").and_then(Value::as_object).into_iter().flatten() {
        let wanted = wanted.as_str().unwrap_or_default().to_lowercase();
        let cast = match wanted.split('(').next().unwrap_or_default() {
            "bigint" | "integer" | "int" => Some("bigint".to_owned()),
            "decimal" | "numeric" => Some(if wanted.contains('(') { wanted.clone() } else { "decimal(38, 9)".to_owned() }),
            "string" | "text" => Some("text".to_owned()),
            "bool" | "boolean" => Some("boolean".to_owned()),
            "date" => Some("date".to_owned()),
            "datetime" | "timestamp" => Some("timestamp".to_owned()),
            _ => None,
        };
        match cast {
            Some(cast) => drop(columns.insert(column.clone(), json!({"cast": cast}))),
            None => out.note(format!("{stream}.{column}: the type {wanted} is not carried over")),
        }
    }
    if !columns.is_empty() {
        put("columns", Value::Object(columns));
    }
    match text("sql") {
        Some(sql) if sql.trim_start().to_lowercase().starts_with("select") => {
            out.note(format!("{stream}: its SQL ran at the source, and is not carried over: read its tables, and write the rest as `sql:` of the stream or as a model"));
        }
        Some(file) => out.note(format!("{stream}: {file} is not carried over")),
        None => {}
    }
    if let Some(target) = text("object") {
        put("into", json!(object(target, stream, out)));
    }
    if let Some(description) = text("description") {
        put("description", json!(description));
    }
    for key in ["source_options", "target_options", "hooks", "transforms", "single"] {
        if said.get(key).is_some_and(|v| !v.is_null()) {
            out.note(format!("{stream}: {key} is not carried over"));
        }
    }
    spec
}

/// Where a stream goes, in our words for its parts.
fn object(target: &str, place: &str, out: &mut Imported) -> String {
    let words = [
        ("{target_schema}.", ""),
        ("{stream_schema}", "{schema}"),
        ("{stream_table}", "{table}"),
        ("{stream_name}", "{stream}"),
        ("{source_name}", "{connection}"),
        ("\"", ""),
    ];
    let into = words.iter().fold(target.to_owned(), |text, (word, ours)| text.replace(word, ours));
    let ours = ["{schema}", "{table}", "{stream}", "{connection}"];
    let rest = ours.iter().fold(into.clone(), |text, word| text.replace(word, ""));
    if rest.contains('{') || rest.contains("://") {
        out.note(format!("{place}: {target} has parts that have no meaning here: the table is called after the stream"));
        return "{schema}.{table}".to_owned();
    }
    if !into.contains('.') {
        return format!("public.{into}");
    }
    into
}
