//! Singer's messages, as far as a line has to be looked at to know what it is: records stay the text that they are.

use std::borrow::Cow;

use serde::Deserialize;
use trib_core::{Code, Error, Result};
use trib_kit::records::Value;
use trib_kit::tape::{Kind, Tape};

pub enum Message<'a> {
    Schema(SchemaMessage),
    Record {
        stream: Cow<'a, str>,
        record: Value<'a>,
        /// Of the table that the row belongs to; see [`super::version`].
        version: Option<i64>,
    },
    /// The value's own text.
    State(&'a str),
    ActivateVersion {
        stream: String,
        version: Option<i64>,
    },
    Batch(BatchMessage),
    /// A type of message that nothing here needs.
    Other,
}

#[derive(Debug, Deserialize)]
pub struct SchemaMessage {
    pub stream: String,
    pub schema: serde_json::Value,
    #[serde(default)]
    pub key_properties: Option<Vec<String>>,
    #[serde(default)]
    pub bookmark_properties: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub struct BatchMessage {
    pub stream: String,
    pub encoding: Encoding,
    pub manifest: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Encoding {
    pub format: String,
    #[serde(default)]
    pub compression: Option<String>,
}

/// Takes a line for what its `type` says. The tape is used anew.
pub fn parse<'a>(line: &'a [u8], tape: &'a mut Tape) -> Result<Message<'a>> {
    tape.clear();
    let node = tape.parse(line, 0, line.len()).map_err(|reason| Error::new(Code::DataInvalid, "this is no message").detail(reason))?;
    let message = Value::new(tape, line, node);
    let (mut kind, mut stream, mut record, mut value, mut version) = (None, None, None, None, None);
    if message.kind() == Kind::Object {
        for (name, found) in message.entries() {
            match name.as_ref() {
                b"type" => kind = found.string(),
                b"stream" => stream = found.string(),
                b"record" => record = Some(found),
                b"value" => value = Some(found),
                b"version" => version = found.raw().and_then(|text| text.parse().ok()),
                _ => {}
            }
        }
    }
    let lacks = |what: &str| Error::new(Code::DataInvalid, "a message lacks a part").detail(what.to_owned());
    match kind.ok_or_else(|| lacks("`type`"))?.as_ref() {
        "RECORD" => {
            let stream = stream.ok_or_else(|| lacks("`stream` of a RECORD"))?;
            let record = record.filter(|r| r.kind() == Kind::Object).ok_or_else(|| lacks("`record` of a RECORD"))?;
            Ok(Message::Record { stream, record, version })
        }
        "STATE" => Ok(Message::State(value.and_then(Value::raw).ok_or_else(|| lacks("`value` of a STATE"))?)),
        "SCHEMA" => Ok(Message::Schema(whole(line, "SCHEMA")?)),
        "BATCH" => Ok(Message::Batch(whole(line, "BATCH")?)),
        "ACTIVATE_VERSION" => {
            let stream = stream.ok_or_else(|| lacks("`stream` of an ACTIVATE_VERSION"))?;
            Ok(Message::ActivateVersion { stream: stream.into_owned(), version })
        }
        _ => Ok(Message::Other),
    }
}

fn whole<T: for<'de> Deserialize<'de>>(line: &[u8], kind: &str) -> Result<T> {
    serde_json::from_slice(line).map_err(|e| Error::new(Code::DataInvalid, "a message is not as it must be").detail(format!("{kind}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message() {
        let cases = [
            ("", "no message"),
            ("INFO starting", "no message"),
            ("[1]", "`type`"),
            (r#"{"a": 1}"#, "`type`"),
            (r#"{"type": "RECORD", "record": {}}"#, "`stream`"),
            (r#"{"type": "RECORD", "stream": "a", "record": 3}"#, "`record`"),
            (r#"{"type": "STATE"}"#, "`value`"),
            (r#"{"type": "SCHEMA", "stream": "a"}"#, "schema"),
            (r#"{"type": "RECORD", "stream": "a", "record": {"a": tru}}"#, "no message"),
        ];
        for (line, expected) in cases {
            let error = parse(line.as_bytes(), &mut Tape::default()).err().unwrap().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn parts_in_any_order() {
        let (mut tape, mut other) = (Tape::default(), Tape::default());
        let line = br#"{"record": {"a": 1.10}, "stream": "s", "version": 1700000000000, "type": "RECORD"}"#;
        let Message::Record { stream, record, version } = parse(line, &mut tape).unwrap() else { panic!("a record") };
        assert_eq!((stream.as_ref(), record.raw(), version), ("s", Some(r#"{"a": 1.10}"#), Some(1_700_000_000_000)));
        assert!(matches!(parse(br#"{"type": "STATE", "value": null}"#, &mut other).unwrap(), Message::State("null")));
    }
}
