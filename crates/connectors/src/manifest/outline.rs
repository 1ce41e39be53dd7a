//! What a manifest promises, as far as it stands in the file: streams with their fields, keys and cursors, and settings. Two versions of a
//! connector are told apart by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::manifest::Manifest;
use super::node::Node;
use super::template::python_str;

/// Fields in fields end here.
const DEEPEST: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outline {
    pub streams: BTreeMap<String, StreamOutline>,
    /// Of a connection, with whether they are required.
    pub settings: BTreeMap<String, bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamOutline {
    /// Paths with dots.
    pub key: Vec<String>,
    pub cursor: Option<String>,
    /// Types by dotted paths; `None` where the schema is only known when it is asked for.
    pub fields: Option<BTreeMap<String, String>>,
    /// The Python class that the stream needs, so that it does not run here.
    pub needs: Option<String>,
}

/// One difference between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    pub what: String,
    /// Tables, queries or connections that fit the old version may not fit the new one.
    pub breaking: bool,
}

impl Manifest {
    pub fn outline(&self) -> Outline {
        let mut streams = BTreeMap::new();
        for stream in self.root().items("streams") {
            match stream.kind() {
                "ConditionalStreams" => streams.extend(stream.items("streams").iter().filter_map(of_stream)),
                _ => streams.extend(of_stream(&stream)),
            }
        }
        let schema = self.connection_schema();
        let required: BTreeSet<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let settings = properties.into_iter().flatten().map(|(name, _)| (name.clone(), required.contains(name.as_str()))).collect();
        Outline { streams, settings }
    }
}

fn of_stream(stream: &Node<'_>) -> Option<(String, StreamOutline)> {
    let path = |path: &Value| match path {
        Value::Array(parts) => parts.iter().map(python_str).collect::<Vec<_>>().join("."),
        other => python_str(other),
    };
    let key = match stream.value.get("primary_key") {
        Some(Value::Array(paths)) => paths.iter().map(path).collect(),
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        _ => Vec::new(),
    };
    let cursor = stream.value.pointer("/incremental_sync/cursor_field").map(python_str);
    let outline = StreamOutline { key, cursor, fields: fields(stream), needs: custom(stream.value) };
    Some((stream.text("name")?.to_owned(), outline))
}

fn fields(stream: &Node<'_>) -> Option<BTreeMap<String, String>> {
    let loader = stream.value.get("schema_loader")?;
    let loaders = loader.as_array().map_or_else(|| std::slice::from_ref(loader), Vec::as_slice);
    let mut found = BTreeMap::new();
    for loader in loaders {
        if loader.get("type").and_then(Value::as_str) != Some("InlineSchemaLoader") {
            return None;
        }
        collect(loader.get("schema")?, "", 0, &mut found);
    }
    Some(found)
}

fn collect(schema: &Value, prefix: &str, depth: usize, found: &mut BTreeMap<String, String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten().filter(|(name, _)| *name != super::parameters::PARAMETERS) {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if depth < DEEPEST {
            collect(schema, &path, depth + 1, found);
            if let Some(items) = schema.get("items") {
                collect(items, &path, depth + 1, found);
            }
        }
        found.insert(path, type_of(schema));
    }
}

/// A type in words: that a value may be null changes no table.
fn type_of(schema: &Value) -> String {
    let names = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => vec!["any"],
    };
    let format = schema.get("format").and_then(Value::as_str).map(|f| format!(" ({f})")).unwrap_or_default();
    format!("{}{format}", names.join(" or "))
}

/// The class of the first component that is Python.
fn custom(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => {
            let is_custom = map.get("type").and_then(Value::as_str).is_some_and(|t| t.starts_with("Custom"));
            let class = map.get("class_name").and_then(Value::as_str).filter(|_| is_custom).map(str::to_owned);
            class.or_else(|| map.iter().filter(|(k, _)| *k != super::parameters::PARAMETERS).find_map(|(_, v)| custom(v)))
        }
        Value::Array(items) => items.iter().find_map(custom),
        _ => None,
    }
}

impl Outline {
    /// What a later version has changed, what breaks first.
    pub fn changes(&self, later: &Outline) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut note =
            |stream: Option<&str>, breaking, what: String| changes.push(Change { stream: stream.map(str::to_owned), what, breaking });
        for (name, required) in &later.settings {
            match self.settings.get(name) {
                None if *required => note(None, true, format!("needs a new setting, `{name}`")),
                None => note(None, false, format!("takes a new setting, `{name}`")),
                Some(false) if *required => note(None, true, format!("the setting `{name}` is required now")),
                Some(_) => {}
            }
        }
        for name in self.settings.keys().filter(|n| !later.settings.contains_key(*n)) {
            note(None, true, format!("the setting `{name}` is gone"));
        }
        for name in self.streams.keys().filter(|n| !later.streams.contains_key(*n)) {
            note(Some(name), true, "the stream is gone".to_owned());
        }
        for (name, new) in &later.streams {
            match self.streams.get(name) {
                None => note(Some(name), false, "a new stream".to_owned()),
                Some(old) => stream_changes(old, new, |breaking, what| note(Some(name), breaking, what)),
            }
        }
        changes.sort_by_key(|c| !c.breaking);
        changes
    }
}

fn stream_changes(old: &StreamOutline, new: &StreamOutline, mut note: impl FnMut(bool, String)) {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if old.key != new.key {
        note(true, format!("the key is {}, it was {}", list(&new.key), list(&old.key)));
    }
    if old.cursor != new.cursor {
        let text = |cursor: &Option<String>| cursor.clone().unwrap_or_else(|| "none".to_owned());
        note(old.cursor.is_some(), format!("the cursor is {}, it was {}", text(&new.cursor), text(&old.cursor)));
    }
    match (&old.needs, &new.needs) {
        (None, Some(class)) => note(true, format!("needs Python code now, {class}, and does not run here")),
        (Some(_), None) => note(false, "runs without Python code now".to_owned()),
        _ => {}
    }
    let (Some(old), Some(new)) = (&old.fields, &new.fields) else {
        if old.fields.is_some() != new.fields.is_some() {
            note(false, "the way in which the schema is found has changed: its fields cannot be compared".to_owned());
        }
        return;
    };
    for field in old.keys().filter(|f| !new.contains_key(*f)) {
        note(true, format!("the field {field} is gone"));
    }
    for (field, kind) in new {
        match old.get(field) {
            None => note(false, format!("a new field, {field}: {kind}")),
            Some(before) if before != kind => note(true, format!("the field {field} is {kind}, it was {before}")),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn outline(streams: &str, spec: &str) -> Outline {
        let text = format!(
            "version: 7.0.0\ncheck: {{type: CheckStream, stream_names: [a]}}\nstreams:\n{streams}spec: {{type: Spec, connection_specification: {spec}}}\n"
        );
        Manifest::parse(Path::new("m.yaml"), &text).unwrap().outline()
    }

    fn stream(name: &str, rest: &str, properties: &str) -> String {
        format!(
            "  - {{name: {name}, {rest} retriever: {{requester: {{url_base: \"https://a.example\", path: a}}, record_selector: {{extractor: {{field_path: []}}}}}}, \
             schema_loader: {{type: InlineSchemaLoader, schema: {{properties: {properties}}}}}}}\n"
        )
    }

    #[test]
    fn what_changes_between_versions() {
        let old = outline(
            &(stream("a", "primary_key: id,", "{id: {type: integer}, n: {type: [number, 'null']}, o: {properties: {x: {type: string}}}}")
                + &stream("gone", "", "{}")),
            "{type: object, properties: {key: {type: string}, old: {}}}",
        );
        let new = outline(
            &(stream(
                "a",
                "primary_key: [id, day],",
                "{id: {type: integer}, n: {type: string}, o: {properties: {y: {type: string, format: date}}}}",
            ) + &stream("b", "", "{}")),
            "{type: object, required: [key, more], properties: {key: {type: string}, more: {}, extra: {}}}",
        );
        let changes = old.changes(&new);
        let text: Vec<String> = changes
            .iter()
            .map(|c| format!("{}{}: {}", if c.breaking { "!" } else { "" }, c.stream.as_deref().unwrap_or_default(), c.what))
            .collect();
        assert_eq!(
            text,
            [
                "!: the setting `key` is required now",
                "!: needs a new setting, `more`",
                "!: the setting `old` is gone",
                "!gone: the stream is gone",
                "!a: the key is id, day, it was id",
                "!a: the field o.x is gone",
                "!a: the field n is string, it was number",
                ": takes a new setting, `extra`",
                "a: a new field, o.y: string (date)",
                "b: a new stream",
            ]
        );
        assert!(old.changes(&old).is_empty());
    }

    #[test]
    fn python_is_named() {
        let text = stream("a", "incremental_sync: {type: CustomIncrementalSync, class_name: x.Y, cursor_field: c},", "{}");
        assert_eq!(outline(&text, "{}").streams["a"].needs.as_deref(), Some("x.Y"));
    }
}
