//! The systems of other tools as connections. Which ones there are is data: `systems.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use trib_core::Result;

use super::Imported;
use crate::yaml;

/// An entry of `systems.yaml`, which says what its fields mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct System {
    connector: String,
    kinds: Vec<String>,
    hints: Vec<String>,
    settings: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    defaults: Map<String, Value>,
    secret: Option<String>,
    url: Option<String>,
}

fn systems() -> Result<Vec<System>> {
    let tree = yaml::parse("systems.yaml", include_str!("systems.yaml"), 1)?;
    Ok(serde_json::from_value(tree.to_json())?)
}

/// What a source or destination has become.
pub enum Found {
    Connection(Value, Vec<String>),
    /// Nothing here loads into it: the project's own warehouse takes its place.
    Warehouse(String),
}

impl Found {
    /// Puts it among the connections; the name that a sync calls it by.
    pub fn kept(self, name: String, connections: &mut Map<String, Value>, out: &mut Imported) -> String {
        match self {
            Found::Connection(connection, notes) => {
                out.notes.extend(notes);
                connections.insert(name.clone(), connection);
                name
            }
            Found::Warehouse(note) => {
                out.note(note);
                "warehouse".to_owned()
            }
        }
    }
}

/// The connection for a system of some `kind` ("Postgres", "source-github"). Passwords are never taken: they become variables named after the connection.
pub fn system(name: &str, kind: &str, config: Option<&Value>, source: bool) -> Result<Found> {
    let kind = kind.to_lowercase().replace([' ', '_'], "-");
    let kind = kind.trim_start_matches("source-").trim_start_matches("destination-");
    let systems = systems()?;
    let Some(system) = systems.iter().find(|s| s.kinds.iter().any(|k| kind.starts_with(k.as_str()))) else {
        return Ok(if source { tap(name, kind) } else { Found::Warehouse(no_place(name, kind)) });
    };
    let mut connection = Map::from_iter([("connector".to_owned(), json!(system.connector))]);
    for (ours, theirs) in &system.settings {
        let given = theirs.iter().find_map(|key| config?.get(key)).filter(|v| v.is_number() || v.as_str().is_some_and(|t| !t.is_empty()));
        // A port in quotes is a number here.
        let number =
            |text: &str| text.parse::<u64>().ok().filter(|_| system.defaults.get(ours).is_some_and(Value::is_number)).map(Value::from);
        let given = given.map(|value| value.as_str().and_then(number).unwrap_or_else(|| value.clone()));
        if let Some(value) = given.or_else(|| system.defaults.get(ours).cloned()) {
            connection.insert(ours.clone(), value);
        }
    }
    let mut notes = left_behind(name, config);
    if let Some(secret) = &system.secret {
        let variable = format!("{}_{}", name.to_uppercase(), secret.to_uppercase());
        notes.push(format!("{name}: set {variable}, its {secret}"));
        connection.insert(secret.clone(), json!(format!("${{{variable}}}")));
    }
    Ok(Found::Connection(Value::Object(connection), notes))
}

/// The connection whose URL stands in a variable, as far as the variable's name says of what.
pub fn by_variable(variable: &str) -> Result<Option<Value>> {
    let upper = variable.to_uppercase();
    let found = systems()?.into_iter().find(|s| s.hints.iter().any(|hint| upper.contains(hint.as_str())));
    Ok(found.map(|system| {
        let mut connection = Map::from_iter([("connector".to_owned(), json!(system.connector))]);
        match system.url {
            Some(url) => drop(connection.insert(url, json!(format!("${{{variable}}}")))),
            None => connection.extend(system.defaults),
        }
        Value::Object(connection)
    }))
}

/// What a source that there is no connector for is, at best.
pub fn tap(name: &str, kind: &str) -> Found {
    let tap = format!("tap-{kind}");
    let note = format!(
        "{name}: there is no connector for {kind} to carry it over to; it is the Singer tap {tap} now: say what to install it from (`pip:`), its `config:`, and look \
         at the streams' names"
    );
    Found::Connection(json!({"connector": "singer", "tap": tap}), vec![note])
}

pub fn no_place(name: &str, kind: &str) -> String {
    format!("{name}: there is no connector that loads into {kind}: the project's own `warehouse` takes its place")
}

/// Settings that matter and have no counterpart.
fn left_behind(name: &str, config: Option<&Value>) -> Vec<String> {
    let mut notes = Vec::new();
    let given = |key: &str, harmless: &[&str]| {
        let value = config.and_then(|c| c.get(key)).map(Value::to_string).unwrap_or_default();
        !value.is_empty() && !harmless.iter().any(|h| value.contains(h))
    };
    if given("tunnel_method", &["NO_TUNNEL"]) || given("ssh_tunnel", &[]) {
        notes.push(format!("{name}: it had an SSH tunnel, which is not carried over"));
    }
    if given("ssl_mode", &["disable", "prefer", "allow"]) {
        notes.push(format!("{name}: its ssl_mode is not carried over"));
    }
    if config.and_then(|c| c.pointer("/replication_method/method")).and_then(Value::as_str).is_some_and(|m| m.eq_ignore_ascii_case("cdc")) {
        notes.push(format!("{name}: it was read from the change log: here by cursor, which does not see deletes"));
    }
    notes
}

/// A name of a project's things: small letters, digits and `_`.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('_') => slug.push('_'),
            _ => {}
        }
    }
    let slug = slug.trim_end_matches('_');
    if slug.is_empty() { "imported".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_systems_is_right() {
        assert!(!super::systems().unwrap().is_empty());
    }
}
