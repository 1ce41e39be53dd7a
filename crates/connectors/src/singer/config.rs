//! Settings of a tap or a target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use trib_core::connector::{ConnectorConfig, Verified};
use trib_core::{Code, Context, Destination, Error, Result, Secret, Source};
use trib_kit::environment::Recipe;
use trib_kit::process::{PrivateFolder, Program};
use trib_kit::scrub;
use trib_kit::settings::{Settings, secrets};

use super::destination::destination;
use super::source::SingerSource;

/// A Singer tap or target: any program that writes or reads Singer's messages.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SingerConfig {
    /// The tap's program, for reading: `tap-postgres`.
    pub tap: Option<String>,
    /// The target's program, for loading: `target-jsonl`.
    pub target: Option<String>,
    /// What to install it from, as pip takes it: `meltanolabs-tap-postgres==0.10.0`, a Git URL, or several separated by spaces. It gets a Python environment of its
    /// own, made once. Without `pip`, the program is looked for on the PATH.
    pub pip: Option<String>,
    /// Python for that environment: a version that `uv` finds or installs, or a program.
    pub python: Option<String>,
    /// The program with its first arguments, in place of its name: `["docker", "run", "-i", "tap"]`.
    #[serde(default)]
    pub command: Vec<String>,
    /// The program's own settings, as its documentation has them.
    #[serde(default)]
    pub config: Settings,
    /// A catalog file in place of what the tap discovers.
    pub catalog: Option<String>,
    /// The tap is of the old kind that takes `--properties` in place of `--catalog`.
    #[serde(default)]
    pub properties: bool,
    /// Entries of the catalog's metadata, by stream or glob, and `stream.column` for a column: `{orders: {replication-key: updated_at}}`.
    #[serde(default)]
    pub metadata: BTreeMap<String, Map<String, Value>>,
    /// JSON Schema of single columns in place of what the tap says, by stream or glob: `{orders: {amount: {type: number, multipleOf: 0.01}}}`.
    #[serde(default)]
    pub schema: BTreeMap<String, Map<String, Value>>,
    /// Environment variables of the program.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// Seconds without a sign of life after which a target is given up.
    #[serde(default = "ten_minutes")]
    pub stall_timeout: u64,
}

fn ten_minutes() -> u64 {
    600
}

impl ConnectorConfig for SingerConfig {
    const NAME: &'static str = "singer";
    const TITLE: &'static str = "Singer";
    const DESCRIPTION: &'static str = "Any tap or target of the Singer ecosystem, in a Python environment of its own.";
    const VERIFIED: Verified = Verified::RealSystem;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(self.checked("tap").map(|config| SingerSource::new(config, context) as _))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        Some(self.checked("target").map(|config| destination(config, context)))
    }
}

impl SingerConfig {
    /// `end` is the setting that the wanted end needs.
    fn checked(self, end: &'static str) -> Result<Self> {
        let name = if end == "tap" { &self.tap } else { &self.target };
        let Some(name) = name.as_deref().filter(|n| !n.is_empty()) else {
            return Err(Error::new(Code::ConfigInvalid, "the connection does not name the program").setting(end).hint(format!(
                "to {} it needs `{end}:`, such as `{end}: {end}-postgres`",
                if end == "tap" { "be read" } else { "be loaded into" }
            )));
        };
        if name.contains('/') {
            let error = Error::new(Code::ConfigInvalid, "this is no name of a program").detail(name).setting(end);
            return Err(error.hint(format!("`{end}` is a name, such as {end}-postgres; a path goes under `command: [./{end}]`")));
        }
        if self.pip.is_some() && !self.command.is_empty() {
            return Err(Error::new(Code::ConfigInvalid, "a program is installed or called by a command, not both").setting("command"));
        }
        Ok(self)
    }

    /// The program, its environment made where that is needed, without any settings.
    pub async fn program(&self, name: &str, dir: &Path) -> Result<Program> {
        let recipe = Recipe {
            name: name.to_owned(),
            pip: self.pip.clone(),
            python: self.python.clone(),
            command: self.command.clone(),
            dir: dir.to_owned(),
        };
        let (program, args) = recipe.made().await?;
        let env = self.env.iter().map(|(k, v)| (k.clone(), v.expose().to_owned())).collect();
        Ok(Program { program, args, env, dir: dir.to_owned() })
    }

    pub fn settings_file(&self, folder: &PrivateFolder) -> Result<PathBuf> {
        folder.write("config.json", &serde_json::to_vec(&self.config.0)?)
    }

    /// What a program said last stands in its error, and may hold what it was given.
    pub fn without_secrets(&self, error: &Error) -> Error {
        let clean = Error::new(error.code(), error.message()).hint(error.hint_text().unwrap_or("`trib logs` shows all that it has said"));
        clean.detail(scrub::without(error.detail_text().unwrap_or_default(), self.secrets()))
    }

    /// Texts that must not appear in what the program says: everything long enough among its settings that does not look harmless.
    pub fn secrets(&self) -> Vec<String> {
        secrets(&self.config, self.env.values())
    }
}
