//! The Airbyte protocol's messages, one JSON object a line, as a connector writes them on its standard output.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::Utc;
use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};

use super::error_handler::failure_type;
use super::manifest::Manifest;
use super::opened::{Opened, StreamInfo};
use super::read::{Event, Selection};
use super::records::Records;

/// Writes messages, and remembers whether anything failed.
pub struct Messages<W: Write> {
    out: W,
    /// Streams that have given records.
    running: HashMap<Arc<str>, bool>,
}

impl<W: Write> Messages<W> {
    pub fn new(out: W) -> Self {
        Self { out, running: HashMap::new() }
    }

    fn write(&mut self, message: &Value) -> Result<()> {
        serde_json::to_writer(&mut self.out, message).map_err(|e| Error::from(std::io::Error::from(e)))?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    pub fn spec(&mut self, manifest: &Arc<Manifest>) -> Result<()> {
        self.write(&json!({"type": "SPEC", "spec": manifest.spec()}))?;
        self.flush()
    }

    /// Whether the connection can be used is the answer, not an error.
    pub async fn check(&mut self, manifest: &Arc<Manifest>, config: &Value) -> Result<()> {
        let checked = match manifest.open(config) {
            Err(error) => Err(error),
            Ok(opened) => {
                self.migrated(&opened)?;
                let checked = opened.check().await;
                if let Some(config) = opened.take_changed_config() {
                    self.control(&config)?;
                }
                checked
            }
        };
        let status = match checked {
            Ok(()) => json!({"status": "SUCCEEDED"}),
            Err(error) => json!({"status": "FAILED", "message": told(&error)}),
        };
        self.write(&json!({"type": "CONNECTION_STATUS", "connectionStatus": status}))?;
        self.flush()
    }

    pub async fn discover(&mut self, manifest: &Arc<Manifest>, config: &Value) -> Result<()> {
        let opened = manifest.open(config)?;
        self.migrated(&opened)?;
        let (streams, missing) = opened.discover(&[]).await?;
        for error in &missing {
            self.log("WARN", &format!("the stream {} is left out: {}", error.place().stream.as_deref().unwrap_or_default(), told(error)))?;
        }
        let streams: Vec<Value> = streams.iter().map(catalog_entry).collect();
        self.write(&json!({"type": "CATALOG", "catalog": {"streams": streams}}))?;
        self.flush()
    }

    /// Whether every stream was read to its end.
    pub async fn read(&mut self, manifest: &Arc<Manifest>, config: &Value, catalog: &Value, state: Option<&Value>) -> Result<bool> {
        let opened = Arc::new(manifest.open(config)?);
        self.migrated(&opened)?;
        let selections = selections(catalog, state)?;
        let mut events = opened.read(selections).await?;
        let mut failed = Vec::new();
        while let Some(event) = events.recv().await {
            if let Event::Ended { stream, error: Some(_) } = &event {
                failed.push(stream.to_string());
            }
            self.event(event)?;
        }
        if !failed.is_empty() {
            let message = format!("these streams could not be read to their end: {}", failed.join(", "));
            let error = json!({"message": message, "internal_message": message, "failure_type": "config_error"});
            self.trace("ERROR", "error", error)?;
        }
        self.flush()?;
        Ok(failed.is_empty())
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Started { stream } => self.status(&stream, "STARTED"),
            Event::Records { stream, records } => {
                if !self.running.contains_key(&stream) {
                    self.status(&stream, "RUNNING")?;
                    self.running.insert(stream.clone(), true);
                }
                self.records(&stream, &records)
            }
            Event::State { stream, state } => {
                let state = json!({"stream_descriptor": {"name": &*stream}, "stream_state": state});
                self.write(&json!({"type": "STATE", "state": {"type": "STREAM", "stream": state}}))?;
                self.flush()
            }
            Event::ConfigChanged(config) => self.control(&config),
            Event::Ended { stream, error: None } => {
                self.status(&stream, "COMPLETE")?;
                self.flush()
            }
            Event::Ended { stream, error: Some(error) } => {
                self.status(&stream, "INCOMPLETE")?;
                self.error(&error, Some(&stream))?;
                self.flush()
            }
        }
    }

    fn records(&mut self, stream: &str, records: &Records) -> Result<()> {
        // By hand, since this is where the time goes: a message is a frame around the record.
        let head = format!("{{\"type\":\"RECORD\",\"record\":{{\"stream\":{},\"data\":", Value::from(stream));
        let tail = format!(",\"emitted_at\":{}}}}}\n", Utc::now().timestamp_millis());
        for (index, record) in records.iter().enumerate() {
            self.out.write_all(head.as_bytes())?;
            self.out.write_all(&record.line())?;
            if let Some(Some(file)) = records.files().get(index) {
                self.out.write_all(b",\"file_reference\":")?;
                serde_json::to_writer(&mut self.out, file).map_err(|e| Error::from(std::io::Error::from(e)))?;
            }
            self.out.write_all(tail.as_bytes())?;
        }
        Ok(())
    }

    fn status(&mut self, stream: &str, status: &str) -> Result<()> {
        let status = json!({"stream_descriptor": {"name": stream}, "status": status});
        self.trace("STREAM_STATUS", "stream_status", status)
    }

    /// An error that ended everything, or one stream.
    pub fn error(&mut self, error: &Error, stream: Option<&str>) -> Result<()> {
        let mut told = json!({"message": told(error), "internal_message": format!("{error:?}"), "failure_type": failure_type(error)});
        if let Some(stream) = stream {
            told["stream_descriptor"] = json!({"name": stream});
        }
        self.trace("ERROR", "error", told)?;
        self.flush()
    }

    fn trace(&mut self, kind: &str, field: &str, content: Value) -> Result<()> {
        let now = Utc::now().timestamp_micros() as f64 / 1000.0;
        let mut trace = Map::from_iter([("type".to_owned(), Value::from(kind)), ("emitted_at".to_owned(), now.into())]);
        trace.insert(field.to_owned(), content);
        self.write(&json!({"type": "TRACE", "trace": trace}))
    }

    fn migrated(&mut self, opened: &Opened) -> Result<()> {
        match &opened.migrated {
            Some(config) => self.control(config),
            None => Ok(()),
        }
    }

    fn control(&mut self, config: &Value) -> Result<()> {
        let now = Utc::now().timestamp_micros() as f64 / 1000.0;
        let control = json!({"type": "CONNECTOR_CONFIG", "emitted_at": now, "connectorConfig": {"config": config}});
        self.write(&json!({"type": "CONTROL", "control": control}))?;
        self.flush()
    }

    fn log(&mut self, level: &str, message: &str) -> Result<()> {
        self.write(&json!({"type": "LOG", "log": {"level": level, "message": message}}))
    }
}

/// An error as one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some(setting) = &error.place().setting {
        text.push_str(&format!(" (at {setting})"));
    }
    for cause in error.causes() {
        text.push_str(&format!("; {cause}"));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("; hint: {hint}"));
    }
    text
}

fn catalog_entry(stream: &StreamInfo) -> Value {
    let mut entry = json!({"name": stream.name, "json_schema": stream.json_schema});
    entry["supported_sync_modes"] =
        if stream.cursor_field.is_some() { json!(["full_refresh", "incremental"]) } else { json!(["full_refresh"]) };
    if let Some(field) = &stream.cursor_field {
        entry["source_defined_cursor"] = json!(!stream.cursor_is_open);
        entry["default_cursor_field"] = json!([field]);
    }
    if !stream.primary_key.is_empty() {
        entry["source_defined_primary_key"] = json!(stream.primary_key);
    }
    entry["is_resumable"] = json!(stream.cursor_field.is_some());
    entry["is_file_based"] = json!(stream.has_files);
    entry
}

/// Where files of records go: into the folder that the platform has named, if it is there.
fn staging() -> PathBuf {
    let named = std::env::var_os("AIRBYTE_STAGING_DIRECTORY").map_or_else(|| PathBuf::from("/staging/files"), PathBuf::from);
    if named.exists() { named } else { std::env::temp_dir().join("airbyte-file-transfer") }
}

/// What a configured catalog and a state ask for.
fn selections(catalog: &Value, state: Option<&Value>) -> Result<Vec<Selection>> {
    let wrong = |what: &'static str| Error::new(Code::UsageInvalid, what);
    let streams = catalog.get("streams").and_then(Value::as_array).ok_or_else(|| wrong("the catalog has no `streams`"))?;
    let states = states(state);
    let selection = |configured: &Value| -> Result<Selection> {
        let name =
            configured.pointer("/stream/name").and_then(Value::as_str).ok_or_else(|| wrong("a stream of the catalog has no name"))?;
        let chosen = configured.get("cursor_field").and_then(Value::as_array).and_then(|f| f.first()).and_then(Value::as_str);
        Ok(Selection {
            stream: name.to_owned(),
            state: states.get(name).cloned().unwrap_or_default(),
            cursor_field: chosen.map(str::to_owned),
            properties: Some(configured.pointer("/stream/json_schema/properties").and_then(Value::as_object).cloned().unwrap_or_default()),
            files: (configured.get("include_files") != Some(&Value::Bool(false))).then(staging),
        })
    };
    streams.iter().map(selection).collect()
}

/// States by stream, from a list of messages or from the older form of one object.
fn states(state: Option<&Value>) -> HashMap<String, Map<String, Value>> {
    let mut found = HashMap::new();
    match state {
        Some(Value::Array(messages)) => {
            for message in messages {
                let of_stream = |s: &Value| {
                    let name = s.pointer("/stream_descriptor/name").and_then(Value::as_str)?.to_owned();
                    Some((name, s.get("stream_state").and_then(Value::as_object).cloned().unwrap_or_default()))
                };
                found.extend(message.get("stream").and_then(of_stream));
                let global = message.pointer("/global/stream_states").and_then(Value::as_array);
                found.extend(global.into_iter().flatten().filter_map(of_stream));
            }
        }
        Some(Value::Object(by_stream)) => {
            found.extend(by_stream.iter().filter_map(|(name, s)| Some((name.clone(), s.as_object()?.clone()))));
        }
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_both_forms() {
        let messages = json!([{"type": "STREAM", "stream": {"stream_descriptor": {"name": "a"}, "stream_state": {"at": 1}}}]);
        for state in [messages, json!({"a": {"at": 1}})] {
            assert_eq!(Value::Object(states(Some(&state))["a"].clone()), json!({"at": 1}));
        }
        assert!(states(None).is_empty());
    }

    #[test]
    fn records_are_framed() {
        let mut messages = Messages::new(Vec::new());
        messages.event(Event::Records { stream: "a\"b".into(), records: Records::of(&[json!({"x": 1})]).unwrap() }).unwrap();
        let lines: Vec<Value> = std::str::from_utf8(&messages.out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0]["trace"]["stream_status"]["status"], "RUNNING");
        assert_eq!((&lines[1]["record"]["stream"], &lines[1]["record"]["data"]), (&json!("a\"b"), &json!({"x": 1})));
    }
}
