//! A project that was read and is right as far as that can be said offline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::Schema;
use serde_json::Value;
use trib_core::error::closest;
use trib_core::{Code, Context, Error, Result, Secret};

use crate::coerce;
use crate::command::Command;
use crate::config::connection::ConnectionSpec;
use crate::config::job::JobSpec;
use crate::config::project::{NotifySpec, OpenLineageSpec};
use crate::config::unit_test::UnitTestSpec;
use crate::environment::Environment;
use crate::interpolate::Missing;
use crate::model::Model;
use crate::place::At;
use crate::seed::Seed;
use crate::sync::Sync;
use crate::yaml::Node;

/// Connections to one system that may be open at once, where nothing else is said.
const USUAL_THREADS: usize = 4;

pub struct Project {
    pub dir: PathBuf,
    pub name: String,
    pub description: Option<String>,
    pub environment: Environment,
    /// The control database: a path relative to the project, or a URL.
    pub state: Secret,
    pub threads: Option<usize>,
    pub notify: Vec<NotifySpec>,
    pub openlineage: Option<OpenLineageSpec>,
    pub jobs: Vec<Job>,
    pub unit_tests: Vec<UnitTest>,
    pub(crate) connections: BTreeMap<String, Declared>,
    pub(crate) syncs: Vec<Sync>,
    pub(crate) models: Vec<Model>,
    pub(crate) seeds: Vec<Seed>,
    pub(crate) commands: Vec<Command>,
    /// Variables of `notify` and `openlineage` that have no value.
    pub(crate) missing: Vec<Missing>,
}

/// A connection as it stands in the files, its environment's changes made.
pub(crate) struct Declared {
    pub spec: ConnectionSpec,
    /// The settings alone, filled in as far as that was possible.
    pub settings: Node,
    pub at: At,
    pub missing: Vec<Missing>,
}

/// A connection with all its settings. They hold secrets: it is not printed.
#[derive(Clone)]
pub struct Connection {
    pub name: String,
    pub connector: String,
    /// For the connector; see [`Connection::settings_for`].
    pub settings: Value,
    /// Connections to the system that may be open at once.
    pub threads: usize,
    pub enabled: bool,
    pub place: At,
}

impl Connection {
    /// The settings, with texts read as numbers and truth values where the connector's schema wants such, since
    /// variables are always text.
    pub fn settings_for(&self, schema: &Schema) -> Value {
        coerce::to_schema(&self.settings, schema)
    }

    pub fn context(&self, project: &Project) -> Context {
        Context { connection: self.name.clone(), project_dir: project.dir.clone(), threads: self.threads }
    }
}

pub struct Job {
    pub name: String,
    pub spec: JobSpec,
    pub at: At,
}

pub struct UnitTest {
    pub name: String,
    pub spec: UnitTestSpec,
    pub at: At,
}

impl Project {
    /// The connection in this environment, or an error that suggests the one that was meant, or that names the variable
    /// without a value.
    pub fn connection(&self, name: &str) -> Result<Connection> {
        let declared = self.connections.get(name).ok_or_else(|| self.no_such_connection(name))?;
        if let Some(missing) = declared.missing.first() {
            return Err(missing.error().connection(name));
        }
        Ok(declared.connection(name))
    }

    /// The same, with `${VARIABLE}` left in its place where it has no value: for what needs no credentials.
    pub fn connection_as_written(&self, name: &str) -> Result<Connection> {
        let declared = self.connections.get(name).ok_or_else(|| self.no_such_connection(name))?;
        Ok(declared.connection(name))
    }

    /// Settings of a connection that have become others since they were written, on top of those that stand in the files.
    pub fn overlay(&mut self, connection: &str, settings: &Value) {
        if let Some(declared) = self.connections.get_mut(connection) {
            let over = Node::of_json(&declared.at, settings);
            declared.settings = declared.settings.overlaid(&over);
        }
    }

    /// Whether a connection is there and not switched off.
    pub(crate) fn is_enabled(&self, connection: &str) -> bool {
        self.connections.get(connection).is_some_and(|c| c.spec.enabled)
    }

    pub(crate) fn no_such_connection(&self, name: &str) -> Error {
        let error = Error::new(Code::NotFound, "the project has no such connection").detail(format!("`{name}`"));
        match closest(name, self.connection_names()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("declare it in connections.yaml"),
        }
    }

    /// In the order of their names; `warehouse` is always among them.
    pub fn connection_names(&self) -> impl Iterator<Item = &str> {
        self.connections.keys().map(String::as_str)
    }

    /// In the order of their names, those that are not enabled included.
    pub fn syncs(&self) -> &[Sync] {
        &self.syncs
    }

    pub fn sync(&self, name: &str) -> Result<&Sync> {
        self.syncs.iter().find(|s| s.name == name).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "the project has no such sync").detail(format!("`{name}`"));
            match closest(name, self.syncs.iter().map(|s| s.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`trib ls` lists what there is"),
            }
        })
    }

    /// In the order of their names, those that are not enabled included.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model or an error that suggests the one that was meant.
    pub fn model(&self, name: &str) -> Result<&Model> {
        self.models.iter().find(|m| m.name == name).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "the project has no such model").detail(format!("`{name}`"));
            match closest(name, self.models.iter().map(|m| m.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`trib ls` lists what there is"),
            }
        })
    }

    /// In the order of their names.
    pub fn seeds(&self) -> &[Seed] {
        &self.seeds
    }

    /// In the order of their names, those that are not enabled included.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// A hash of each sync, seed, command and model as it is written (variables not filled in), for `state:modified` and for the log of runs.
    pub fn manifest(&self) -> BTreeMap<String, String> {
        let syncs = self.syncs.iter().map(|s| (s.name.clone(), s.hash.clone()));
        let seeds = self.seeds.iter().map(|s| (s.name.clone(), s.hash.clone()));
        let commands = self.commands.iter().map(|c| (c.name.clone(), c.hash.clone()));
        syncs.chain(seeds).chain(commands).chain(self.models.iter().map(|m| (m.name.clone(), m.hash.clone()))).collect()
    }

    /// Variables without a value, in parts of the project that are not disabled. Each fails only what needs it.
    pub fn missing(&self) -> Vec<Error> {
        let connections = self.connections.iter().filter(|(_, c)| c.spec.enabled);
        let mut errors: Vec<Error> =
            connections.flat_map(|(name, c)| c.missing.iter().map(|m| m.error().connection(name.clone()))).collect();
        errors.extend(self.syncs.iter().filter(|s| s.spec.enabled).flat_map(|s| s.missing.iter().map(Missing::error)));
        errors.extend(self.models.iter().filter(|m| m.spec.enabled).flat_map(|m| m.missing.iter().map(Missing::error)));
        errors.extend(self.commands.iter().filter(|c| c.spec.enabled).flat_map(|c| c.missing.iter().map(Missing::error)));
        errors.extend(self.missing.iter().map(Missing::error));
        errors
    }
}

impl Declared {
    pub(crate) fn connection(&self, name: &str) -> Connection {
        Connection {
            name: name.to_owned(),
            connector: self.spec.connector.clone(),
            settings: self.settings.to_json(),
            threads: self.spec.threads.unwrap_or(USUAL_THREADS),
            enabled: self.spec.enabled,
            place: self.at.clone(),
        }
    }
}
