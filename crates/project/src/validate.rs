//! What can be said about a project without reaching any system.

use std::collections::BTreeSet;

use serde_json::Value;
use trib_core::error::closest;
use trib_core::mode::{Fit, fit};
use trib_core::{Code, Connector, Error};

use crate::coerce;
use crate::config::delivery::{Key, Write};
use crate::graph::Graph;
use crate::pattern::Pattern;
use crate::place::At;
use crate::project::{Declared, Project};
use crate::resolve::scope_value;
use crate::sql_tables;
use crate::sync::Sync;
use crate::table_template::TableTemplate;
use crate::yaml::{Content, Node};

/// A sync by itself: patterns, templates, modes that contradict each other.
pub(crate) fn sync_alone(sync: &Sync) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |at: &At, error: Error, setting: &str| errors.push(at.mark(error.setting(setting)));
    if sync.spec.from.0.is_empty() {
        let error = Error::new(Code::ConfigInvalid, "a sync needs a connection to read from");
        note(sync.node.place(&["from"]), error, "from");
    }
    let empty = |node: &Node| match &node.content {
        Content::Null => true,
        Content::List(items) => items.is_empty(),
        _ => node.entries().is_empty(),
    };
    if let Some(streams) = sync.node.entry("streams").filter(|e| empty(&e.value)) {
        let error = Error::new(Code::ConfigInvalid, "the sync names no streams").hint("write `\"*\": {}` to take all of them");
        note(&streams.at, error, "streams");
    }
    let templates = |node: &Node, path: &str| {
        let into = node.get("into")?;
        let text = into.to_json();
        Some((into.at.clone(), text.as_str()?.to_owned(), path.to_owned()))
    };
    let own = templates(&sync.node, "into");
    let default = sync.node.get("defaults").and_then(|d| templates(d, "defaults.into"));
    let streams = sync.node.get("streams").map(Node::entries).unwrap_or_default();
    let each = streams.iter().filter_map(|e| templates(&e.value, &format!("streams.{}.into", e.key)));
    for (at, template, path) in own.into_iter().chain(default).chain(each) {
        if let Err(e) = TableTemplate::parse(&template) {
            note(&at, e, &path);
        }
    }
    if let Some(scope) = &sync.spec.scope {
        let error = match sync.spec.add.get(scope) {
            None => Some(
                Error::new(Code::ConfigInvalid, "the scope is no column that is added")
                    .hint(format!("add it: `add: {{{scope}: \"'{{connection}}'\"}}`")),
            ),
            Some(expression) if scope_value(expression).is_none() => Some(
                Error::new(Code::ConfigInvalid, "the scope's value must be a text literal")
                    .detail(expression)
                    .hint("such as \"'{connection}'\""),
            ),
            Some(_) => None,
        };
        if let Some(error) = error {
            note(sync.node.place(&["scope"]), error, "scope");
        }
    }
    for name in sync.patterns().iter().map(Pattern::text) {
        // A glob stands for itself here: what its own layers say is all that is known without the catalog.
        let Ok((spec, merged)) = sync.stream_settings(name) else { continue };
        let (Some(read), Some(write)) = (spec.read, spec.write.and_then(Write::of_table)) else { continue };
        if let Fit::No(why) = fit(read, write) {
            let error = Error::new(Code::Unsupported, "the read mode and the write mode do not go together")
                .detail(format!("`read: {}` with `write: {}`: {why}", read.as_str(), write.as_str()))
                .stream(name);
            note(merged.place(&["write"]), error, &format!("streams.{name}.write"));
        }
    }
    errors.extend(sql_of_streams(sync));
    errors
}

/// SQL that is always evaluated here. A condition may be the source's own, and names that are filled in are not known yet.
fn sql_of_streams(sync: &Sync) -> Vec<Error> {
    let mut errors: Vec<Error> = Vec::new();
    for name in sync.patterns().iter().map(Pattern::text) {
        let Ok((spec, merged)) = sync.stream_settings(name) else { continue };
        let query = spec.sql.iter().map(|sql| sql_tables::tables(sql).map(drop).map_err(|e| e.setting("sql")));
        let added = spec.add.iter().filter(|(_, sql)| !sql.contains('{')).map(|(column, sql)| (format!("add.{column}"), sql));
        let mapped = spec.map.iter().flatten().map(|(field, mapped)| {
            let inner = if merged.at_path(&["map", field, "value"]).is_some() { ".value" } else { "" };
            (format!("map.{field}{inner}"), &mapped.0.value)
        });
        let keys = match &spec.key {
            Some(Key::Fields(fields)) => fields.as_slice(),
            _ => &[],
        };
        let keys = keys.iter().map(|(field, sql)| (format!("key.{field}"), sql));
        let expressions =
            added.chain(mapped).chain(keys).map(|(setting, sql)| sql_tables::check_expression(sql).map_err(|e| e.setting(setting)));
        for error in query.chain(expressions).filter_map(Result::err).map(|e| merged.mark(e)) {
            // What is said of all streams is wrong once.
            if !errors.iter().any(|known| known.place() == error.place()) {
                errors.push(error);
            }
        }
    }
    errors
}

/// Names that stand for other parts of the project.
pub(crate) fn references(project: &Project) -> Vec<Error> {
    let mut errors = Vec::new();
    for sync in project.syncs().iter().filter(|s| s.spec.enabled) {
        let ends = sync.spec.from.0.iter().map(|name| (name, "from")).chain([(&sync.spec.to, "to")]);
        for (name, setting) in ends.filter(|(name, _)| !project.connections.contains_key(*name)) {
            errors.push(sync.node.place(&[setting]).mark(project.no_such_connection(name).setting(setting)));
        }
    }
    let graph = Graph::of(project);
    let known: BTreeSet<&str> = graph.nodes().iter().map(|n| n.name.as_str()).collect();
    for model in project.models().iter().filter(|m| m.spec.enabled) {
        if !project.connections.contains_key(&model.spec.connection) {
            errors.push(model.at.mark(project.no_such_connection(&model.spec.connection).setting("connection")));
        }
        for mention in &model.mentions {
            if let Some(name) = mention.connection.as_ref().filter(|name| !project.connections.contains_key(*name)) {
                let error = project.no_such_connection(name).file("", Some(mention.line), Some(mention.column));
                errors.push(model.within(error));
            }
        }
        errors.extend(unknown(&known, &model.spec.after, &model.at));
    }
    for command in project.commands().iter().filter(|c| c.spec.enabled) {
        if !project.connections.contains_key(&command.spec.connection) {
            errors.push(command.at.mark(project.no_such_connection(&command.spec.connection).setting("connection")));
        }
        errors.extend(unknown(&known, &command.spec.after, &command.at));
    }
    errors
}

/// Nodes that a node names and that are not there.
fn unknown(known: &BTreeSet<&str>, after: &[String], at: &At) -> Vec<Error> {
    let missing = after.iter().filter(|name| !known.contains(name.as_str())).map(|name| {
        let error = Error::new(Code::NotFound, "the project has no such node").detail(format!("`{name}`")).setting("after");
        at.mark(match closest(name, known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`trib ls` lists what there is"),
        })
    });
    missing.collect()
}

impl Project {
    /// Checks the project against the connectors that there are: that they exist, that their settings are right, that
    /// each end of a sync can do what is asked of it. No I/O: making a source or a destination does none.
    pub fn validate_offline(&self, connectors: &[Connector]) -> Vec<Error> {
        let mut errors = self.missing();
        let enabled = || self.syncs().iter().filter(|s| s.spec.enabled);
        let read: BTreeSet<&str> = enabled().flat_map(|s| s.spec.from.0.iter().map(String::as_str)).collect();
        let written: BTreeSet<&str> = enabled().map(|s| s.spec.to.as_str()).collect();
        for (name, declared) in self.connections.iter().filter(|(_, c)| c.spec.enabled) {
            match connectors.iter().find(|c| c.name == declared.spec.connector) {
                None => errors.push(no_such_connector(name, declared, connectors)),
                Some(connector) => {
                    let ends = (read.contains(name.as_str()), written.contains(name.as_str()));
                    errors.extend(self.check_connection(name, declared, connector, ends));
                }
            }
        }
        errors
    }

    fn check_connection(&self, name: &str, declared: &Declared, connector: &Connector, ends: (bool, bool)) -> Vec<Error> {
        let known = connector.settings();
        let open = connector.schema.get("additionalProperties").is_none_or(|a| a.as_bool() != Some(false));
        let mut errors: Vec<Error> = Vec::new();
        let mut meant: Vec<&str> = Vec::new();
        for entry in declared.settings.entries().iter().filter(|e| !open && !known.contains(&e.key.as_str())) {
            let error = Error::new(Code::ConfigInvalid, "the connector has no such setting")
                .detail(format!("`{}`", entry.key))
                .connection(name)
                .setting(format!("{name}.{}", entry.key));
            let near = closest(&entry.key, known.iter().copied());
            meant.extend(near);
            errors.push(entry.at.mark(match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("`trib connectors show {}` lists its settings", connector.name)),
            }));
        }
        for entry in declared.settings.entries() {
            if let Some(expected) = coerce::misfit(&entry.value.to_json(), &entry.key, &connector.schema) {
                // The value itself may be a secret that stands in the wrong place.
                let error = Error::new(Code::ConfigInvalid, "the value is of the wrong kind")
                    .detail(format!("found {}, expected {expected}", entry.value.kind()))
                    .connection(name)
                    .setting(format!("{name}.{}", entry.key));
                errors.push(entry.value.at.mark(error));
            }
        }
        let required = connector.schema.get("required").and_then(Value::as_array);
        let absent = |key: &&str| declared.settings.get(key).is_none() && !meant.contains(key);
        for key in required.into_iter().flatten().filter_map(Value::as_str).filter(absent) {
            let error = Error::new(Code::ConfigInvalid, "a setting is missing").detail(format!("`{key}`")).connection(name);
            errors.push(declared.at.mark(error.setting(format!("{name}.{key}"))));
        }
        // Settings that are not complete cannot be judged as a whole.
        if !errors.is_empty() || !declared.missing.is_empty() {
            return errors;
        }
        let connection = declared.connection(name);
        let (settings, context) = (connection.settings_for(&connector.schema), connection.context(self));
        let source = || connector.make_source(&settings, &context).err();
        let destination = || connector.make_destination(&settings, &context).err();
        let (source, destination) = match ends {
            // A connection that no sync uses is still checked: one of its ends must be right.
            (false, false) if connector.source.is_none() => (None, destination()),
            (false, false) => (source().filter(|_| connector.destination.is_none() || destination().is_some()), None),
            (reads, writes) => (reads.then(source).flatten(), writes.then(destination).flatten()),
        };
        // One mistake in the settings is found from both ends.
        errors.extend(source.or(destination).map(|e| declared.at.mark(e.connection(name))));
        errors
    }
}

fn no_such_connector(name: &str, declared: &Declared, connectors: &[Connector]) -> Error {
    let wanted = &declared.spec.connector;
    let error = Error::new(Code::NotFound, "there is no such connector")
        .detail(format!("`{wanted}`"))
        .connection(name)
        .setting(format!("{name}.connector"));
    declared.at.mark(match closest(wanted, connectors.iter().map(|c| c.name.as_str())) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`trib connectors list` names them"),
    })
}
