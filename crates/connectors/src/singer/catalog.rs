//! A tap's catalog: what of it the product's catalog is made of, and how streams, fields and ways of reading are chosen in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use globset::Glob;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trib_core::catalog::propose_cursors;
use trib_core::{Catalog, Code, Error, Read, ReadMode, Result, Stream, StreamRead};
use trib_kit::records::schema;

/// The name under which a tap's own way to tell what is new stands among the cursors. It is no column.
pub const OWN_CURSOR: &str = "_tap_state";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TapCatalog {
    pub streams: Vec<Entry>,
}

/// One stream. What nothing here needs is passed through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub tap_stream_id: String,
    /// What messages call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    pub schema: Value,
    #[serde(default)]
    pub metadata: Vec<Metadata>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metadata {
    pub breadcrumb: Vec<String>,
    pub metadata: Map<String, Value>,
}

impl TapCatalog {
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| {
            Error::new(Code::DataInvalid, "the tap's catalog is not as it must be")
                .detail(e.to_string())
                .hint("`--discover` must print `{\"streams\": [{\"tap_stream_id\": …, \"schema\": …}]}` and nothing else")
        })
    }

    /// Puts settings of the connection in place of what the tap says.
    pub fn overridden(
        mut self,
        schemas: &BTreeMap<String, Map<String, Value>>,
        metadata: &BTreeMap<String, Map<String, Value>>,
    ) -> Result<Self> {
        for (pattern, columns) in schemas {
            let streams = self.matching(pattern, "schema")?;
            for at in streams {
                if let Some(properties) = self.streams[at].schema.get_mut("properties").and_then(Value::as_object_mut) {
                    properties.extend(columns.clone());
                }
            }
        }
        for (pattern, entries) in metadata {
            match self.matching(pattern, "metadata") {
                Ok(streams) => streams.into_iter().for_each(|at| self.streams[at].set(&[], entries.clone())),
                // The name's last part is a column.
                Err(error) => {
                    let (stream, column) = pattern.rsplit_once('.').ok_or(error)?;
                    for at in self.matching(stream, "metadata")? {
                        self.streams[at].set(&["properties", column], entries.clone());
                    }
                }
            }
        }
        Ok(self)
    }

    fn matching(&self, pattern: &str, setting: &str) -> Result<Vec<usize>> {
        let invalid = |e| Error::new(Code::ConfigInvalid, "this is no pattern").detail(pattern).setting(setting).source(e);
        let glob = Glob::new(pattern).map_err(invalid)?.compile_matcher();
        let found: Vec<usize> = (0..self.streams.len()).filter(|at| glob.is_match(&self.streams[*at].tap_stream_id)).collect();
        if found.is_empty() {
            return Err(Error::new(Code::NotFound, "the tap has no such stream").detail(pattern).setting(setting));
        }
        Ok(found)
    }

    /// What the tap offers. A stream whose schema cannot be understood is left out.
    pub fn offered(&self) -> Catalog {
        Catalog { streams: self.streams.iter().filter_map(|e| e.offered().ok()).collect() }
    }

    /// The catalog with exactly these streams and columns selected, read as they are to be.
    pub fn selected(&self, reads: &[StreamRead]) -> Self {
        let mut catalog = self.clone();
        for entry in &mut catalog.streams {
            let read = reads.iter().find(|r| r.stream == entry.tap_stream_id);
            entry.select(read);
        }
        catalog
    }
}

impl Entry {
    /// The root's metadata, or a column's.
    fn metadata(&self, breadcrumb: &[&str]) -> Option<&Map<String, Value>> {
        self.metadata.iter().find(|m| m.breadcrumb == breadcrumb).map(|m| &m.metadata)
    }

    fn set(&mut self, breadcrumb: &[&str], entries: Map<String, Value>) {
        match self.metadata.iter_mut().find(|m| m.breadcrumb == breadcrumb) {
            Some(found) => found.metadata.extend(entries),
            None => self.metadata.push(Metadata { breadcrumb: breadcrumb.iter().map(|b| (*b).to_owned()).collect(), metadata: entries }),
        }
    }

    /// A text that stands in the root's metadata or, as older taps have it, in the entry itself.
    fn said(&self, metadata: &str, entry: &str) -> Option<&str> {
        let found = self.metadata(&[]).and_then(|m| m.get(metadata)).or_else(|| self.rest.get(entry));
        found.and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn names(&self, metadata: &str, entry: &str) -> Vec<String> {
        let found = self.metadata(&[]).and_then(|m| m.get(metadata)).or_else(|| self.rest.get(entry));
        found.and_then(|v| Vec::<String>::deserialize(v).ok()).unwrap_or_default()
    }

    /// The columns that can be read at all.
    pub fn columns(&self) -> Result<SchemaRef> {
        let all = schema::columns(&self.schema, true)?;
        let readable = |name: &str| {
            let inclusion = self.metadata(&["properties", name]).and_then(|m| m.get("inclusion")).and_then(Value::as_str);
            inclusion != Some("unsupported")
        };
        let fields: Vec<Field> = all.fields().iter().filter(|f| readable(f.name())).map(|f| f.as_ref().clone()).collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    fn offered(&self) -> Result<Stream> {
        let schema = self.columns()?;
        let mut key = self.names("table-key-properties", "key_properties");
        if key.is_empty() {
            key = self.names("view-key-properties", "key_properties");
        }
        key.retain(|k| schema.field_with_name(k).is_ok());
        let schema_name = self.said("schema-name", "schema_name").map(str::to_owned);
        let named = self.said("table-name", "table_name").or(self.stream.as_deref()).unwrap_or(&self.tap_stream_id);
        let without_schema = schema_name.as_ref().and_then(|s| named.strip_prefix(s.as_str())?.strip_prefix('-'));
        let forced = self.said("forced-replication-method", "replication_method");
        let mut cursors = self.names("valid-replication-keys", "valid_replication_keys");
        cursors.extend(self.said("replication-key", "replication_key").map(str::to_owned));
        if cursors.is_empty() && forced.is_none() {
            cursors = propose_cursors(&schema, &key);
        }
        cursors.retain(|c| schema.field_with_name(c).is_ok());
        cursors.dedup();
        // A tap that says how it reads, or what by, needs nobody to name a column.
        let own = forced.is_some_and(|m| m != "FULL_TABLE") || self.said("replication-key", "replication_key").is_some();
        let place = if own { 0 } else { cursors.len() };
        cursors.insert(place, OWN_CURSOR.to_owned());
        Ok(Stream {
            schema_name: schema_name.clone(),
            primary_key: key,
            read_modes: vec![ReadMode::Full, ReadMode::Incremental],
            cursors,
            rows: self.metadata(&[]).and_then(|m| m.get("row-count")).and_then(Value::as_u64),
            ..Stream::new(&self.tap_stream_id, without_schema.unwrap_or(named), schema)
        })
    }

    /// Whether somebody has chosen the stream.
    pub fn is_selected(&self) -> bool {
        let root = self.metadata(&[]);
        let said = root.and_then(|m| m.get("selected")).or_else(|| self.schema.get("selected"));
        let by_default = || root.and_then(|m| m.get("selected-by-default"));
        said.or_else(by_default).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether a column is to be read, of a stream that is.
    pub fn selects(&self, column: &str) -> bool {
        let Some(metadata) = self.metadata(&["properties", column]) else {
            return true;
        };
        let said = metadata.get("selected").or_else(|| metadata.get("selected-by-default")).and_then(Value::as_bool);
        metadata.get("inclusion").and_then(Value::as_str) == Some("automatic") || said.unwrap_or(true)
    }

    /// The column that an incremental read goes by, when one was chosen.
    pub fn replication_key(&self) -> Option<String> {
        let incremental = self.said("replication-method", "replication_method") == Some("INCREMENTAL");
        self.said("replication-key", "replication_key").filter(|_| incremental).map(str::to_owned)
    }

    fn select(&mut self, read: Option<&StreamRead>) {
        let selected = |yes: bool| Map::from_iter([("selected".to_owned(), json!(yes))]);
        self.set(&[], selected(read.is_some()));
        // Taps that are older than metadata look here.
        if let Some(schema) = self.schema.as_object_mut() {
            schema.insert("selected".to_owned(), json!(read.is_some()));
        }
        let Some(read) = read else { return };
        let properties: Vec<String> =
            self.schema.get("properties").and_then(Value::as_object).map(|p| p.keys().cloned().collect()).unwrap_or_default();
        for name in &properties {
            let wanted = read.columns.as_ref().is_none_or(|columns| columns.contains(name));
            self.set(&["properties", name], selected(wanted));
        }
        let (method, key) = match &read.read {
            Read::Incremental(cursor) if cursor.column != OWN_CURSOR => (Some("INCREMENTAL"), Some(cursor.column.as_str())),
            Read::Incremental(_) => (None, None),
            _ => (Some("FULL_TABLE"), None),
        };
        for (name, older, value) in [("replication-method", "replication_method", method), ("replication-key", "replication_key", key)] {
            if let Some(value) = value {
                self.set(&[], Map::from_iter([(name.to_owned(), json!(value))]));
                self.rest.insert(older.to_owned(), json!(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> TapCatalog {
        let orders = json!({
            "tap_stream_id": "public-orders", "stream": "orders", "table_name": "orders", "custom": 1,
            "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}, "x": {}}},
            "metadata": [
                {"breadcrumb": [], "metadata": {"table-key-properties": ["id"], "schema-name": "public", "row-count": -1}},
                {"breadcrumb": ["properties", "x"], "metadata": {"inclusion": "unsupported"}},
            ],
        });
        let users = json!({
            "tap_stream_id": "users", "replication_key": "since", "key_properties": ["id"], "replication_method": "INCREMENTAL",
            "schema": {"properties": {"id": {"type": "integer"}, "since": {"type": "string"}}},
        });
        TapCatalog::parse(json!({"streams": [orders, users]}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_offered() {
        let offered = catalog().offered();
        let [orders, users] = offered.streams.as_slice() else { panic!("two streams") };
        assert_eq!((orders.schema_name.as_deref(), orders.table.as_str()), (Some("public"), "orders"));
        assert_eq!(
            (orders.primary_key.as_slice(), orders.cursors.as_slice()),
            (&["id".to_owned()][..], &["at".to_owned(), "id".to_owned(), OWN_CURSOR.to_owned()][..])
        );
        assert_eq!(orders.schema.fields().len(), 2);
        assert_eq!(orders.rows, None);
        assert_eq!(users.cursors, [OWN_CURSOR, "since"]);
    }

    #[test]
    fn what_is_selected() {
        let read = StreamRead {
            stream: "public-orders".into(),
            columns: Some(vec!["id".into()]),
            filter: None,
            key: vec![],
            read: Read::Full,
            split_by: None,
            parallelism: 1,
            may_stop: true,
            exactly_once: false,
        };
        let schemas = BTreeMap::from([("public-*".to_owned(), Map::from_iter([("id".to_owned(), json!({"type": "string"}))]))]);
        let metadata = BTreeMap::from([
            ("users".to_owned(), Map::from_iter([("replication-method".to_owned(), json!("LOG_BASED"))])),
            ("users.id".to_owned(), Map::from_iter([("note".to_owned(), json!(1))])),
        ]);
        let selected = serde_json::to_value(catalog().overridden(&schemas, &metadata).unwrap().selected(&[read])).unwrap();
        let orders = &selected["streams"][0];
        assert_eq!(orders["metadata"][0]["metadata"]["selected"], true);
        assert_eq!(orders["metadata"][0]["metadata"]["replication-method"], "FULL_TABLE");
        assert_eq!(orders["schema"]["properties"]["id"], json!({"type": "string"}));
        assert_eq!(orders["custom"], 1);
        let fields: Vec<(&str, bool)> = orders["metadata"].as_array().unwrap()[1..]
            .iter()
            .map(|m| (m["breadcrumb"][1].as_str().unwrap(), m["metadata"]["selected"].as_bool().unwrap()))
            .collect();
        assert_eq!(fields, [("x", false), ("id", true), ("at", false)]);
        let users = &selected["streams"][1];
        assert_eq!(users["schema"]["selected"], false);
        assert_eq!(users["metadata"][0]["metadata"], json!({"replication-method": "LOG_BASED", "selected": false}));
        assert_eq!(users["metadata"][1]["metadata"]["note"], 1);
        let unknown = BTreeMap::from([("nobody".to_owned(), Map::new())]);
        assert_eq!(catalog().overridden(&unknown, &BTreeMap::new()).unwrap_err().code(), Code::NotFound);
    }
}
