//! The protocol's messages, as far as a line has to be looked at to know what it is: records stay the text that they are.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value as Json;
use trib_core::{Code, Error, Level, Result};
use trib_kit::records::Value;
use trib_kit::tape::{Kind, Tape};

/// What a connector says on a line of its standard output.
pub enum Message<'a> {
    Record {
        stream: StreamName<'a>,
        data: Value<'a>,
    },
    State(Json),
    Log(Level, String),
    /// The connector, or one of its streams, has failed.
    Failed(Failure),
    /// One of its streams has not come to its end. Mostly it has said why before.
    Incomplete(Failure),
    /// The configuration as the connector wants it to be from now on.
    NewConfig(Json),
    Specification(Json),
    Status(ConnectionStatus),
    Catalog(Json),
    /// A kind of message that nothing here needs.
    Other,
}

/// A stream as messages name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamName<'a> {
    pub namespace: Option<Cow<'a, str>>,
    pub name: Cow<'a, str>,
}

impl StreamName<'_> {
    /// What a project calls the stream.
    pub fn full(&self) -> String {
        match self.namespace.as_deref().filter(|n| !n.is_empty()) {
            Some(namespace) => format!("{namespace}.{}", self.name),
            None => self.name.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct ConnectionStatus {
    pub status: String,
    #[serde(default)]
    pub message: Option<String>,
}

/// A TRACE of an error.
#[derive(Debug, Default, Deserialize)]
pub struct Failure {
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub internal_message: Option<String>,
    /// `system_error`, `config_error` or `transient_error`.
    #[serde(default)]
    pub failure_type: Option<String>,
    #[serde(default)]
    pub stream_descriptor: Option<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub struct Descriptor {
    pub name: String,
}

impl Failure {
    /// Our error: whose fault it is, as the connector says. The texts are its own, and may hold what it was given.
    pub fn error(&self) -> Error {
        let (code, message) = match self.failure_type.as_deref() {
            Some("config_error") => (Code::ConfigInvalid, "the connector says that its configuration is not right"),
            Some("transient_error") => (Code::Unavailable, "the connector says that trying again later may help"),
            _ => (Code::SystemError, "the connector has failed"),
        };
        let told = self.message.as_deref().or(self.internal_message.as_deref()).unwrap_or("it does not say why");
        let error = Error::new(code, message).detail(told);
        match &self.stream_descriptor {
            Some(stream) => error.stream(&stream.name),
            None => error,
        }
    }
}

/// Takes a line for what its `type` says; `None` when it is no message at all. The tape is used anew.
pub fn parse<'a>(line: &'a [u8], tape: &'a mut Tape) -> Result<Option<Message<'a>>> {
    tape.clear();
    let Ok(node) = tape.parse(line, 0, line.len()) else { return Ok(None) };
    let message = Value::new(tape, line, node);
    if message.kind() != Kind::Object {
        return Ok(None);
    }
    let (mut kind, mut record) = (None, None);
    for (name, found) in message.entries() {
        match name.as_ref() {
            b"type" => kind = found.string(),
            b"record" => record = Some(found),
            _ => {}
        }
    }
    let Some(kind) = kind else { return Ok(None) };
    let kind = kind.as_ref();
    Ok(Some(match (kind, record) {
        ("RECORD", Some(record)) => of_record(record)?,
        ("RECORD", None) => return Err(lacks("`record` of a RECORD")),
        ("STATE", _) => Message::State(part(line, "state")?),
        ("LOG", _) => {
            let log: Log = part(line, "log")?;
            Message::Log(log.level(), log.message)
        }
        ("TRACE", _) => match part::<Trace>(line, "trace")? {
            Trace { kind, error: Some(error), .. } if kind == "ERROR" => Message::Failed(error),
            Trace { stream_status: Some(StreamStatus { status, stream_descriptor }), .. } if status == "INCOMPLETE" => {
                let message = Some("it has not come to the stream's end".to_owned());
                Message::Incomplete(Failure { message, stream_descriptor, ..Failure::default() })
            }
            _ => Message::Other,
        },
        ("CONTROL", _) => {
            let mut control: Json = part(line, "control")?;
            match control.pointer_mut("/connectorConfig/config") {
                Some(config) => Message::NewConfig(config.take()),
                None => Message::Other,
            }
        }
        ("SPEC", _) => Message::Specification(part(line, "spec")?),
        ("CONNECTION_STATUS", _) => Message::Status(part(line, "connectionStatus")?),
        ("CATALOG", _) => Message::Catalog(part(line, "catalog")?),
        _ => Message::Other,
    }))
}

fn of_record(record: Value<'_>) -> Result<Message<'_>> {
    let (mut name, mut namespace, mut data) = (None, None, None);
    if record.kind() == Kind::Object {
        for (key, found) in record.entries() {
            match key.as_ref() {
                b"stream" => name = found.string(),
                b"namespace" => namespace = found.string(),
                b"data" => data = Some(found),
                _ => {}
            }
        }
    }
    let name = name.ok_or_else(|| lacks("`stream` of a RECORD"))?;
    let data = data.filter(|d| d.kind() == Kind::Object).ok_or_else(|| lacks("`data` of a RECORD"))?;
    Ok(Message::Record { stream: StreamName { namespace, name }, data })
}

#[derive(Deserialize)]
struct Log {
    level: String,
    #[serde(default)]
    message: String,
}

impl Log {
    fn level(&self) -> Level {
        match self.level.as_str() {
            "FATAL" | "ERROR" => Level::Error,
            "WARN" => Level::Warn,
            "DEBUG" | "TRACE" => Level::Debug,
            _ => Level::Info,
        }
    }
}

#[derive(Deserialize)]
struct Trace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    error: Option<Failure>,
    #[serde(default)]
    stream_status: Option<StreamStatus>,
}

#[derive(Deserialize)]
struct StreamStatus {
    status: String,
    #[serde(default)]
    stream_descriptor: Option<Descriptor>,
}

fn lacks(what: &str) -> Error {
    Error::new(Code::DataInvalid, "a message lacks a part").detail(what.to_owned())
}

/// One part of a message, which is small.
fn part<T: for<'de> Deserialize<'de>>(line: &[u8], name: &'static str) -> Result<T> {
    let wrong = |e: serde_json::Error| Error::new(Code::DataInvalid, "a message is not as it must be").detail(format!("`{name}`: {e}"));
    let mut whole: serde_json::Map<String, Json> = serde_json::from_slice(line).map_err(wrong)?;
    let part = whole.remove(name).ok_or_else(|| lacks(&format!("`{name}`")))?;
    serde_json::from_value(part).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let (mut a, mut b, mut c, mut d) = (Tape::default(), Tape::default(), Tape::default(), Tape::default());
        let line = br#"{"type": "RECORD", "record": {"emitted_at": 1, "data": {"x": 1.10}, "namespace": "n", "stream": "s"}}"#;
        let Some(Message::Record { stream, data }) = parse(line, &mut a).unwrap() else { panic!("a record") };
        assert_eq!((stream.name.as_ref(), stream.namespace.as_deref(), data.raw()), ("s", Some("n"), Some(r#"{"x": 1.10}"#)));
        let line = br#"{"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": 1.5, "error": {"message": "no", "failure_type": "config_error", "stream_descriptor": {"name": "s"}}}}"#;
        let Some(Message::Failed(failure)) = parse(line, &mut b).unwrap() else { panic!("a failure") };
        assert_eq!((failure.error().code(), failure.error().place().stream.as_deref()), (Code::ConfigInvalid, Some("s")));
        let line = br#"{"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", "connectorConfig": {"config": {"a": 1}}}}"#;
        assert!(matches!(parse(line, &mut c).unwrap(), Some(Message::NewConfig(config)) if config == serde_json::json!({"a": 1})));
        for no_message in ["", "starting", "[1]", r#"{"a": 1}"#, r#"{"type": "RECORD", "record": {"data": {"a": tru}}}"#] {
            assert!(parse(no_message.as_bytes(), &mut d).unwrap().is_none(), "{no_message}");
        }
    }

    #[test]
    fn messages_that_lack_a_part() {
        for (line, part) in [
            (r#"{"type": "RECORD", "record": {"data": {}}}"#, "`stream`"),
            (r#"{"type": "RECORD", "record": {"stream": "s", "data": 3}}"#, "`data`"),
            (r#"{"type": "RECORD"}"#, "`record`"),
            (r#"{"type": "STATE"}"#, "`state`"),
            (r#"{"type": "LOG", "log": 3}"#, "`log`"),
        ] {
            let error = parse(line.as_bytes(), &mut Tape::default()).err().unwrap().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
