//! A manifest as it was read: references resolved, parameters handed down, held against the table of components.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trib_core::{Code, Context, Error, Result};

use super::components::{self, Problem};
use super::keepsake::Keepsake;
use super::node::Node;
use super::opened::Opened;
use super::template::Template;
use super::{parameters, reference, yaml};

/// A declarative connector that is right as far as that can be said without a configuration.
pub struct Manifest {
    document: Value,
    /// Where it stands: files that it names are looked for there.
    pub(super) dir: PathBuf,
}

impl Manifest {
    /// Reads a manifest. `file` is its path, for errors and for files beside it; nothing else is read.
    pub fn parse(file: &Path, text: &str) -> Result<Arc<Self>> {
        let shown = file.display().to_string();
        let in_file = |e: Error| e.file(shown.clone(), None, None);
        let mut raw = yaml::parse(&shown, text)?;
        let Value::Object(map) = &mut raw else {
            return Err(in_file(Error::new(Code::ConfigInvalid, "the manifest is not a map")));
        };
        map.entry("type").or_insert_with(|| Value::from("DeclarativeSource"));
        let Value::Object(resolved) = reference::resolve(&raw).map_err(in_file)? else {
            return Err(in_file(Error::new(Code::ConfigInvalid, "the manifest is not a map")));
        };
        let document = parameters::propagate(resolved);
        if let Some(error) = of_problems(&components::problems(&document)) {
            return Err(in_file(error));
        }
        let dir = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Arc::new(Self { document: Value::Object(document), dir }))
    }

    /// The same, and every template of it can be read. A template that cannot only breaks its own stream, so whoever runs a manifest of somebody else
    /// does without this.
    pub(super) fn parse_strictly(file: &Path, text: &str) -> Result<Arc<Self>> {
        let manifest = Self::parse(file, text)?;
        let mut problems = Vec::new();
        for part in ["check", "streams", "dynamic_streams", "objects", "concurrency_level", "api_budget"] {
            if let Some(value) = manifest.document.get(part) {
                templates(value, part, &mut problems);
            }
        }
        of_problems(&problems).map_or(Ok(manifest), |error| Err(error.file(file.display().to_string(), None, None)))
    }

    /// With a configuration, which is migrated and held against the specification.
    pub fn open(self: &Arc<Self>, config: &Value) -> Result<Opened> {
        Opened::new(self.clone(), config, None)
    }

    /// The same for a connection of a project, which keeps credentials that providers replace.
    pub(super) fn open_for(self: &Arc<Self>, config: &Value, context: &Context) -> Result<Opened> {
        Opened::new(self.clone(), config, Some(Keepsake::new(context)))
    }

    pub(super) fn root(&self) -> Node<'_> {
        Node::new(&self.document, "")
    }

    pub(super) fn spec_node(&self) -> Option<Node<'_>> {
        self.root().get("spec")
    }

    /// The JSON schema of the configuration.
    pub fn connection_schema(&self) -> Value {
        let schema = self.document.pointer("/spec/connection_specification").cloned();
        schema.unwrap_or_else(|| json!({"type": "object", "properties": {}}))
    }

    /// There is something to read.
    pub fn has_streams(&self) -> bool {
        ["streams", "dynamic_streams"].iter().any(|name| !self.root().items(name).is_empty())
    }

    /// There is something to write.
    pub fn has_objects(&self) -> bool {
        !self.root().items("objects").is_empty()
    }

    /// One sentence, where the manifest has one.
    pub fn description(&self) -> Option<&str> {
        self.document.get("description").and_then(Value::as_str)
    }

    /// What the manifest says about itself, under `metadata`.
    pub(super) fn metadata(&self, name: &str) -> Option<&Value> {
        self.document.get("metadata")?.get(name)
    }

    /// The protocol's description of the connector.
    pub fn spec(&self) -> Value {
        let mut spec = Map::from_iter([("connectionSpecification".to_owned(), self.connection_schema())]);
        let own = self.document.get("spec");
        if let Some(url) = own.and_then(|s| s.get("documentation_url")).filter(|u| u.is_string()) {
            spec.insert("documentationUrl".to_owned(), url.clone());
        }
        if let Some(flow) = own.and_then(|s| s.get("advanced_auth")).filter(|a| a.is_object()) {
            let mut flow = flow.clone();
            without_internals(&mut flow);
            spec.insert("advanced_auth".to_owned(), flow);
        }
        Value::Object(spec)
    }
}

/// What components carry for this interpreter, and the protocol does not know.
fn without_internals(value: &mut Value) {
    if let Value::Object(map) = value {
        map.shift_remove(parameters::PARAMETERS);
        let is_component = matches!(map.get("type").and_then(Value::as_str), Some("AuthFlow" | "OAuthConfigSpecification"));
        if is_component {
            map.shift_remove("type");
        }
        map.values_mut().for_each(without_internals);
    }
}

/// Names under which texts are data, whatever stands in them.
const NO_TEMPLATES: [&str; 4] = [parameters::PARAMETERS, "schema", "description", "metadata"];

/// Texts that are written as templates and cannot be read as such.
fn templates(value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) => {
            if let Err(error) = Template::compile(text) {
                problems.push(Problem { path: path.to_owned(), what: error.to_string() });
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| templates(item, &format!("{path}[{i}]"), problems)),
        Value::Object(map) if map.get("type").and_then(Value::as_str).is_some_and(|t| t.starts_with("Custom")) => {}
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !NO_TEMPLATES.contains(&key.as_str())) {
                templates(value, &format!("{path}.{key}"), problems);
            }
        }
        _ => {}
    }
}

fn of_problems(problems: &[Problem]) -> Option<Error> {
    let first = problems.first()?;
    let lines: Vec<String> =
        problems.iter().map(|p| if p.path.is_empty() { p.what.clone() } else { format!("{}: {}", p.path, p.what) }).collect();
    let error = Error::new(Code::ConfigInvalid, "the manifest is not right").detail(lines.join("; "));
    Some(if first.path.is_empty() { error } else { error.setting(first.path.clone()) })
}
