//! The entry of a connector in the registry.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::destination::Destination;
use crate::error::{Code, Error, Result, closest};
use crate::named::Named;
use crate::source::Source;

/// Where a connection's settings stand, for errors and for relative paths.
#[derive(Clone, Debug)]
pub struct Context {
    /// The user's name for the connection.
    pub connection: String,
    /// Relative paths in settings start here.
    pub project_dir: PathBuf,
    /// Connections to the system that may be open at once for reading, and as many for loading.
    pub threads: usize,
}

/// How far a connector was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// Against the vendor's own service.
    Live,
    /// Against the real software, run locally.
    RealSystem,
    /// Against somebody else's emulator of it.
    Emulator,
    /// Against a stand-in of ours that talks the documented protocol.
    StandIn,
    /// By nobody but its author: a project's own.
    Unverified,
}

/// Which edition of a manifest a connector is, where the manifest ships with Tributary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edition {
    pub version: String,
    /// Of the manifest's text, in hex.
    pub sha256: String,
    /// As SPDX names it.
    pub licence: String,
    /// The day on which it was last held against what [`Connector::verified`] names: `2026-11-22`.
    pub verified_on: String,
    /// The vendor's own documentation, from which it was written.
    pub documentation: String,
    /// What the vendor publishes for programs, and the test holds requests and answers against: a package with its version, and what it is made from.
    pub held_against: Option<String>,
    /// What users have to know: limits, and what an incremental read cannot see.
    pub notes: Vec<String>,
}

pub type MakeSource = Arc<dyn Fn(&Value, &Context) -> Result<Arc<dyn Source>> + Send + Sync>;
pub type MakeDestination = Arc<dyn Fn(&Value, &Context) -> Result<Arc<dyn Destination>> + Send + Sync>;

/// A connector as a value: what it is, the JSON Schema of its settings, and how to make both ends of it. A Rust config
/// type makes one ([`Connector::of`]); so does a manifest read at run time.
#[derive(Clone)]
pub struct Connector {
    /// What stands behind `connector:` in a project.
    pub name: String,
    /// As the vendor writes it: `PostgreSQL`.
    pub title: String,
    /// One sentence.
    pub description: String,
    pub verified: Verified,
    /// Of a manifest that ships with Tributary.
    pub edition: Option<Edition>,
    /// The source evaluates [`crate::StreamRead::filter`] itself.
    pub pushes_filter: bool,
    pub schema: Schema,
    pub source: Option<MakeSource>,
    pub destination: Option<MakeDestination>,
    /// The settings that a URL or path on the command line stands for; `None` when it is not this connector's.
    pub from_url: Option<fn(&str) -> Option<Value>>,
}

/// Settings of a connector as a Rust type. Doc comments on the fields are the labels of the form and the documentation.
/// Implementations derive `Deserialize` with `deny_unknown_fields`, and `JsonSchema`.
pub trait ConnectorConfig: DeserializeOwned + JsonSchema + Sized + 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    const DESCRIPTION: &'static str;
    const VERIFIED: Verified;
    const PUSHES_FILTER: bool = false;

    /// Pure: checks what can be checked without I/O.
    fn source(self, _context: &Context) -> Option<Result<Arc<dyn Source>>> {
        None
    }

    /// Pure: checks what can be checked without I/O.
    fn destination(self, _context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        None
    }

    /// See [`Connector::from_url`].
    fn from_url(_url: &str) -> Option<Value> {
        None
    }
}

/// Which ends a connector has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Source,
    Destination,
    Both,
}

impl Connector {
    pub fn of<C: ConnectorConfig>(ends: Ends) -> Self {
        let source: MakeSource = Arc::new(|settings, context| {
            parse::<C>(settings, context)?.source(context).unwrap_or_else(|| Err(no_such_end(C::NAME, "read from")))
        });
        let destination: MakeDestination = Arc::new(|settings, context| {
            parse::<C>(settings, context)?.destination(context).unwrap_or_else(|| Err(no_such_end(C::NAME, "loaded into")))
        });
        Self {
            name: C::NAME.to_owned(),
            title: C::TITLE.to_owned(),
            description: C::DESCRIPTION.to_owned(),
            verified: C::VERIFIED,
            edition: None,
            pushes_filter: C::PUSHES_FILTER,
            schema: schema_for!(C),
            source: (ends != Ends::Destination).then_some(source),
            destination: (ends != Ends::Source).then_some(destination),
            from_url: Some(C::from_url),
        }
    }

    /// A source whose errors name the connection.
    pub fn make_source(&self, settings: &Value, context: &Context) -> Result<Arc<dyn Source>> {
        let make = self.source.as_ref().ok_or_else(|| no_such_end(&self.name, "read from"))?;
        let source = make(settings, context).map_err(|e| e.connection(&context.connection))?;
        Ok(Arc::new(Named::new(source, &context.connection)))
    }

    /// A destination whose errors name the connection.
    pub fn make_destination(&self, settings: &Value, context: &Context) -> Result<Arc<dyn Destination>> {
        let make = self.destination.as_ref().ok_or_else(|| no_such_end(&self.name, "loaded into"))?;
        let destination = make(settings, context).map_err(|e| e.connection(&context.connection))?;
        Ok(Arc::new(Named::new(destination, &context.connection)))
    }

    /// Names of the settings, for suggestions.
    pub fn settings(&self) -> Vec<&str> {
        let properties = self.schema.get("properties").and_then(Value::as_object);
        properties.map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

fn no_such_end(name: &str, what: &str) -> Error {
    Error::new(Code::Unsupported, "the connector has no such end").detail(format!("{name} cannot be {what}"))
}

fn parse<C: ConnectorConfig>(settings: &Value, context: &Context) -> Result<C> {
    C::deserialize(settings).map_err(|e| {
        let text = e.to_string();
        let error = Error::new(Code::ConfigInvalid, "the connection's settings are not right")
            .detail(without_value(&text))
            .connection(&context.connection);
        match unknown_field(&text).and_then(|(wrong, known)| Some((wrong, closest(wrong, known)?))) {
            Some((wrong, near)) => error.setting(wrong).hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("`trib connectors show {}` lists its settings", C::NAME)),
        }
    })
}

/// Serde's text without the value that it shows: a password that stands in the wrong place, or that looks like a number.
fn without_value(text: &str) -> &str {
    match text.rfind("expected ") {
        Some(at) if text.starts_with("invalid ") => &text[at..],
        _ => text,
    }
}

/// Takes serde's "unknown field" message apart: the wrong key, and those that are known.
pub fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (wrong, rest) = rest.split_once('`')?;
    Some((wrong, rest.split('`').skip(1).step_by(2).collect()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn serde_messages_are_understood() {
        let (wrong, known) = super::unknown_field("unknown field `curser`, expected one of `cursor`, `key`").unwrap();
        assert_eq!((wrong, known), ("curser", vec!["cursor", "key"]));
        assert_eq!(super::without_value("invalid type: string \"hunter2\", expected u16"), "expected u16");
        assert_eq!(super::without_value("missing field `url`"), "missing field `url`");
    }
}
