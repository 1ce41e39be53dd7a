//! Declarative connectors against a stand-in for an API.

mod answers;
mod credentials;
mod faults;
mod files;
mod incremental;
mod made;
mod pages;
mod published;
mod refusals;
mod shared;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trib_connectors::manifest::{Event, FileReference, Manifest, Selection};
use trib_core::{Error, Result};
use trib_testkit::stand_in::{Asked, StandIn};

/// A manifest of one stream called `items`, around what matters to a test.
pub fn manifest_of(api: &StandIn, requester: Value, retriever: Value, stream: Value) -> Value {
    let mut base = json!({
        "version": "7.0.0",
        "check": {"type": "CheckStream", "stream_names": ["items"]},
        "streams": [{
            "type": "DeclarativeStream",
            "name": "items",
            "primary_key": "id",
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {"id": {"type": "integer"}}}},
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {"type": "HttpRequester", "url_base": api.url(), "path": "items"},
                "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": ["rows"]}},
            },
        }],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {
            "key": {"type": "string", "airbyte_secret": true}, "start": {"type": "string"}}}},
    });
    lay(&mut base["streams"][0], stream);
    lay(&mut base["streams"][0]["retriever"], retriever);
    lay(&mut base["streams"][0]["retriever"]["requester"], requester);
    base
}

fn lay(below: &mut Value, above: Value) {
    let (Some(below), Value::Object(above)) = (below.as_object_mut(), above) else { return };
    below.extend(above);
}

/// What a read has given.
#[derive(Debug, Default)]
pub struct Given {
    pub records: Vec<Value>,
    pub state: Value,
    pub errors: Vec<Error>,
    pub config: Option<Value>,
    pub files: Vec<Option<FileReference>>,
}

impl Given {
    pub fn ids(&self) -> Vec<Value> {
        self.records.iter().map(|r| r["id"].clone()).collect()
    }
}

pub fn parse(manifest: &Value) -> Result<Arc<Manifest>> {
    Manifest::parse(Path::new("connectors/api.yaml"), &manifest.to_string())
}

/// Reads one stream from a state.
pub async fn read_stream(manifest: &Value, stream: &str, config: Value, state: Value) -> Given {
    let state: Map<String, Value> = state.as_object().cloned().unwrap_or_default();
    read_selected(manifest, config, Selection { stream: stream.to_owned(), state, ..Selection::default() }).await
}

pub async fn read_selected(manifest: &Value, config: Value, selection: Selection) -> Given {
    read_together(manifest, config, vec![selection]).await
}

/// Reads whole streams, side by side.
pub async fn all(manifest: &Value, streams: &[&str]) -> Given {
    read_together(manifest, json!({}), streams.iter().map(|stream| Selection::of(stream)).collect()).await
}

async fn read_together(manifest: &Value, config: Value, selections: Vec<Selection>) -> Given {
    let opened = Arc::new(parse(manifest).unwrap().open(&config).unwrap());
    let mut events = opened.read(selections).await.unwrap();
    let mut given = Given::default();
    while let Some(event) = events.recv().await {
        match event {
            Event::Started { .. } => {}
            Event::Records { records, .. } => {
                given.files.extend(records.files().iter().cloned());
                given.records.extend(records);
            }
            Event::State { state, .. } => given.state = state,
            Event::ConfigChanged(config) => given.config = Some(config),
            Event::Ended { error, .. } => given.errors.extend(error),
        }
    }
    given
}

pub async fn read(manifest: &Value, config: Value) -> Given {
    read_stream(manifest, "items", config, json!({})).await
}

/// The queries that were asked, decoded and in order of their keys.
pub fn queries(asked: &[Asked]) -> Vec<String> {
    let sorted = |asked: &Asked| {
        let names: BTreeMap<&str, String> = asked
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, _)| (name, asked.param(name).unwrap_or_default()))
            .collect();
        names.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
    };
    asked.iter().map(sorted).collect()
}
