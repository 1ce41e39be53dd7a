//! Settings of a connector that runs as a process.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use trib_core::connector::{ConnectorConfig, Verified};
use trib_core::{Code, Context, Destination, Error, Result, Secret, Source};
use trib_kit::settings::{Settings, secrets};

use super::destination::destination;
use super::source::AirbyteSource;

/// An Airbyte connector: any program, or image, that speaks the Airbyte protocol.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AirbyteConfig {
    /// The program with its first arguments: `[python, main.py]`.
    #[serde(default)]
    pub command: Vec<String>,
    /// A program by its name: `source-faker`. It is looked for on the PATH, unless `pip` says what to install it from.
    pub program: Option<String>,
    /// What to install the program from, as pip takes it: `airbyte-source-faker==6.2.0`. It gets a Python environment of its own, made once.
    pub pip: Option<String>,
    /// Python for that environment: a version that `uv` finds or installs, or a program.
    pub python: Option<String>,
    /// A Docker image, where Docker is there: `airbyte/source-faker:6.2.0`.
    pub image: Option<String>,
    /// The connector's own settings, as its documentation has them.
    #[serde(default)]
    pub config: Settings,
    /// A catalog file in place of what the connector discovers.
    pub catalog: Option<String>,
    /// JSON Schema of single columns in place of what the connector says, by stream or glob: `{orders: {amount: {type: number, multipleOf: 0.01}}}`.
    #[serde(default)]
    pub schema: BTreeMap<String, Map<String, Value>>,
    /// Environment variables of the program.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// Seconds without a sign of life after which a destination is given up.
    #[serde(default = "ten_minutes")]
    pub stall_timeout: u64,
}

fn ten_minutes() -> u64 {
    600
}

impl ConnectorConfig for AirbyteConfig {
    const NAME: &'static str = "airbyte";
    const TITLE: &'static str = "Airbyte";
    const DESCRIPTION: &'static str = "Any Airbyte source or destination, as a process: a program, a Python package or a Docker image.";
    const VERIFIED: Verified = Verified::RealSystem;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(self.checked().map(|config| AirbyteSource::new(config, context) as _))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        Some(self.checked().map(|config| destination(config, context)))
    }
}

impl AirbyteConfig {
    fn checked(self) -> Result<Self> {
        let ways = [("command", !self.command.is_empty()), ("program", self.program.is_some()), ("image", self.image.is_some())];
        let named: Vec<&str> = ways.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
        match (named.as_slice(), &self.pip) {
            ([], _) => Err(Error::new(Code::ConfigInvalid, "the connection does not say what to run").setting("command").hint(
                "such as `command: [python, main.py]`, `program: source-faker` with `pip: airbyte-source-faker`, or `image: airbyte/source-faker:6.2.0`",
            )),
            ([one], pip) if pip.is_none() || *one == "program" => Ok(self),
            ([_], Some(_)) => Err(Error::new(Code::ConfigInvalid, "what `pip` installs is called by its name").setting("program")),
            ([_, second, ..], _) => {
                let setting = (*second).to_owned();
                Err(Error::new(Code::ConfigInvalid, "a connector is run in one way").detail(named.join(", ")).setting(setting))
            }
            ([_], None) => Ok(self),
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        let named = self.program.as_deref().or(self.image.as_deref());
        named.or_else(|| self.command.first().map(String::as_str)).unwrap_or_default()
    }

    /// Texts that must not appear in what the program says.
    pub fn secrets(&self) -> Vec<String> {
        secrets(&self.config, self.env.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_way_to_run_it() {
        let wrong = |value: Value| {
            serde_json::from_value::<AirbyteConfig>(value).unwrap().checked().err().map(|e| e.place().setting.clone().unwrap())
        };
        for good in [json!({"command": ["x"]}), json!({"program": "x"}), json!({"program": "x", "pip": "y"}), json!({"image": "x"})] {
            assert_eq!(wrong(good), None);
        }
        assert_eq!(wrong(json!({})).as_deref(), Some("command"));
        assert_eq!(wrong(json!({"command": ["x"], "image": "y"})).as_deref(), Some("image"));
        assert_eq!(wrong(json!({"image": "x", "pip": "y"})).as_deref(), Some("program"));
    }
}
