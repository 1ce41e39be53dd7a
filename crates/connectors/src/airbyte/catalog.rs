//! A connector's catalog: what of it the product's catalog is made of, and the one that says what to read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use globset::Glob;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trib_core::catalog::propose_cursors;
use trib_core::{Catalog, Code, Error, Read, ReadMode, Result, Stream, StreamRead};
use trib_kit::records::schema;

use super::message::StreamName;

/// The name under which a connector's own way to tell what is new stands among the cursors. It is no column.
pub const OWN_CURSOR: &str = "_source_state";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AirbyteCatalog {
    pub streams: Vec<Entry>,
}

/// One stream. What nothing here needs is passed through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub json_schema: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_sync_modes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_defined_cursor: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_cursor_field: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_defined_primary_key: Option<Vec<Vec<String>>>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl AirbyteCatalog {
    pub fn parse(value: Value) -> Result<Self> {
        serde_json::from_value(value).map_err(|e| {
            Error::new(Code::DataInvalid, "the connector's catalog is not as it must be")
                .detail(e.to_string())
                .hint("`discover` must give `{\"streams\": [{\"name\": …, \"json_schema\": …}]}`")
        })
    }

    /// Puts columns of the connection's settings in place of what the connector says.
    pub fn overridden(mut self, schemas: &BTreeMap<String, Map<String, Value>>) -> Result<Self> {
        for (pattern, columns) in schemas {
            let wrong = |e| Error::new(Code::ConfigInvalid, "this is no pattern").detail(pattern).setting("schema").source(e);
            let glob = Glob::new(pattern).map_err(wrong)?.compile_matcher();
            let mut found = false;
            for entry in self.streams.iter_mut().filter(|e| glob.is_match(e.full_name())) {
                found = true;
                if let Some(Value::Object(properties)) = entry.json_schema.get_mut("properties") {
                    properties.extend(columns.clone());
                }
            }
            if !found {
                return Err(Error::new(Code::NotFound, "the connector has no such stream").detail(pattern).setting("schema"));
            }
        }
        Ok(self)
    }

    pub fn entry(&self, stream: &str) -> Result<&Entry> {
        let missing = || Error::new(Code::NotFound, "the connector has no such stream").stream(stream);
        self.streams.iter().find(|e| e.full_name() == stream).ok_or_else(missing)
    }

    /// What the connector offers. A stream whose schema cannot be understood is left out.
    pub fn offered(&self) -> Catalog {
        let offered = |entry: &Entry| {
            let failed = |error: &Error| tracing::warn!(stream = entry.full_name(), error = ?error, "the stream cannot be described");
            entry.offered().inspect_err(failed).ok()
        };
        Catalog { streams: self.streams.iter().filter_map(offered).collect() }
    }

    /// The catalog that says what is to be read, and how.
    pub fn configured(&self, reads: &[StreamRead]) -> Result<Value> {
        let stream = |read: &StreamRead| {
            let entry = self.entry(&read.stream)?;
            let (mode, cursor) = match &read.read {
                Read::Incremental(cursor) if cursor.column != OWN_CURSOR => ("incremental", Some(vec![cursor.column.clone()])),
                Read::Incremental(_) => ("incremental", entry.default_cursor_field.clone()),
                _ => ("full_refresh", None),
            };
            let key: Vec<[&String; 1]> = read.key.iter().map(|column| [column]).collect();
            Ok::<_, Error>(json!({
                "stream": entry, "sync_mode": mode, "cursor_field": cursor.unwrap_or_default(), "destination_sync_mode": "append", "primary_key": key,
            }))
        };
        Ok(json!({"streams": reads.iter().map(stream).collect::<Result<Vec<_>>>()?}))
    }
}

impl Entry {
    pub fn full_name(&self) -> String {
        self.stream_name().full()
    }

    /// As messages have it.
    pub fn stream_name(&self) -> StreamName<'static> {
        StreamName { namespace: self.namespace.clone().map(Into::into), name: self.name.clone().into() }
    }

    pub fn columns(&self) -> Result<SchemaRef> {
        schema::columns(&self.json_schema, true).map_err(|e| e.stream(self.full_name()))
    }

    fn offered(&self) -> Result<Stream> {
        let schema = self.columns()?;
        let has = |column: &String| schema.field_with_name(column).is_ok();
        let one = |path: &Vec<String>| match path.as_slice() {
            [column] if has(column) => Some(column.clone()),
            _ => None,
        };
        // A key of which a part is no column is no key.
        let key: Option<Vec<String>> = self.source_defined_primary_key.iter().flatten().map(one).collect();
        let key = key.unwrap_or_default();
        let incremental = self.supported_sync_modes.iter().flatten().any(|m| m == "incremental");
        let default = self.default_cursor_field.as_ref().and_then(one);
        let mut cursors: Vec<String> = default.into_iter().collect();
        if self.source_defined_cursor != Some(true) && cursors.is_empty() {
            cursors = propose_cursors(&schema, &key);
        }
        // One that tells what is new by itself needs nobody to name a column.
        let place = if self.source_defined_cursor == Some(true) { 0 } else { cursors.len() };
        cursors.insert(place, OWN_CURSOR.to_owned());
        let (cursors, read_modes) =
            if incremental { (cursors, vec![ReadMode::Full, ReadMode::Incremental]) } else { (Vec::new(), vec![ReadMode::Full]) };
        Ok(Stream {
            schema_name: self.namespace.clone(),
            primary_key: key,
            cursors,
            read_modes,
            ..Stream::new(self.full_name(), &self.name, Arc::clone(&schema))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> AirbyteCatalog {
        AirbyteCatalog::parse(json!({"streams": [
            {"name": "orders", "namespace": "shop", "json_schema": {"properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}},
             "supported_sync_modes": ["full_refresh", "incremental"], "source_defined_cursor": true, "default_cursor_field": ["at"],
             "source_defined_primary_key": [["id"]], "is_resumable": true},
            {"name": "users", "json_schema": {"type": "object", "properties": {"a": {"properties": {"b": {}}}}}, "supported_sync_modes": ["full_refresh"],
             "source_defined_primary_key": [["a", "b"]]},
        ]}))
        .unwrap()
    }

    #[test]
    fn what_is_offered() {
        let offered = catalog().offered();
        let (orders, users) = (&offered.streams[0], &offered.streams[1]);
        assert_eq!((orders.name.as_str(), orders.table.as_str(), orders.schema_name.as_deref()), ("shop.orders", "orders", Some("shop")));
        assert_eq!((&orders.primary_key, &orders.cursors), (&vec!["id".to_owned()], &vec![OWN_CURSOR.to_owned(), "at".to_owned()]));
        assert_eq!((users.primary_key.is_empty(), users.cursors.is_empty(), users.read_modes.len()), (true, true, 1));
    }

    #[test]
    fn what_is_to_be_read() {
        let read: StreamRead = serde_json::from_value(json!({
            "stream": "shop.orders", "columns": null, "filter": null, "key": ["id"], "split_by": null, "parallelism": 1, "may_stop": true, "exactly_once": false,
            "read": {"mode": "incremental", "column": OWN_CURSOR, "lookback": null, "start": null, "end": null},
        }))
        .unwrap();
        let configured = catalog().configured(&[read]).unwrap();
        let stream = &configured["streams"][0];
        assert_eq!(
            (&stream["sync_mode"], &stream["cursor_field"], &stream["primary_key"]),
            (&json!("incremental"), &json!(["at"]), &json!([["id"]]))
        );
        assert_eq!((&stream["stream"]["namespace"], &stream["stream"]["is_resumable"]), (&json!("shop"), &json!(true)));
    }

    #[test]
    fn columns_are_overridden() {
        let schemas = BTreeMap::from([("shop.*".to_owned(), Map::from_iter([("id".to_owned(), json!({"type": "string"}))]))]);
        let changed = catalog().overridden(&schemas).unwrap();
        assert_eq!(changed.streams[0].json_schema["properties"]["id"]["type"], "string");
        let none = BTreeMap::from([("nothing".to_owned(), Map::new())]);
        assert_eq!(catalog().overridden(&none).unwrap_err().code(), Code::NotFound);
    }
}
