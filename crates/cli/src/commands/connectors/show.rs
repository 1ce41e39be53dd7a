//! `trib connectors list` and `show`

use serde_json::{Value, json};
use trib_core::Connector;
use trib_core::connector::{Edition, Verified};
use trib_project::{Lock, Pin};

use super::add::licence;
use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::output;
use crate::render::table::{left, render};

/// Every connector that is there
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors list")]
pub struct ListArgs {}

/// One connector: what it can do, its settings, how it was verified
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors show postgres")]
pub struct ShowArgs {
    name: String,
}

pub fn list(session: &Session) -> Exit {
    let registry = session.registry();
    let columns = [left("connector"), left("ends"), left("verified"), left("what it is")];
    let row = |c: &Connector| vec![c.name.clone(), ends(c).to_owned(), verified(c).to_owned(), c.description.clone()];
    let rows: Vec<Vec<String>> = registry.all().iter().map(row).collect();
    session.output.either(|| registry.all().iter().map(summary).collect(), || render(&columns, &rows, output::width()));
    Exit::Success
}

pub fn show(args: &ShowArgs, session: &Session) -> Result<Exit> {
    let connector = session.registry().get(&args.name)?;
    let mut lock = session.project_dir().ok().map_or_else(|| Ok(Lock::default()), |dir| Lock::read(&dir))?;
    let pin = lock.connectors.remove(&args.name);
    session.output.either(
        || {
            let mut all = summary(connector);
            all["settings"] = connector.schema.as_value().clone();
            all["pinned"] = json!(pin);
            all
        },
        || text(connector, pin.as_ref(), output::width()),
    );
    Ok(Exit::Success)
}

fn ends(connector: &Connector) -> &'static str {
    match (connector.source.is_some(), connector.destination.is_some()) {
        (true, true) => "source, destination",
        (true, false) => "source",
        (false, _) => "destination",
    }
}

fn verified(connector: &Connector) -> &'static str {
    match connector.verified {
        Verified::Live => "verified against the vendor's own service",
        Verified::RealSystem => "verified against the real system",
        Verified::Emulator => "verified against an emulator",
        Verified::StandIn => "verified against a stand-in of ours",
        Verified::Unverified => "not verified by us",
    }
}

fn summary(connector: &Connector) -> Value {
    json!({
        "name": connector.name, "title": connector.title, "description": connector.description,
        "source": connector.source.is_some(), "destination": connector.destination.is_some(), "verified": connector.verified,
        "evaluates_where": connector.pushes_filter, "edition": connector.edition,
    })
}

fn text(connector: &Connector, pin: Option<&Pin>, width: Option<usize>) -> String {
    let pinned = pin.map(|p| format!("\nversion {}, {}, from {}", p.version, licence(&p.licence), p.origin)).unwrap_or_default();
    let schema = connector.schema.as_value();
    let properties = schema.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let columns = [left("setting"), left("type"), left("default"), left("meaning")];
    let row = |(name, property): (&String, &Value)| {
        let default = match property.get("default") {
            Some(Value::Null) | None if required.contains(&name.as_str()) => "required".to_owned(),
            Some(Value::Null) | None => String::new(),
            Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        let meaning = property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        vec![name.clone(), kind(property, schema), default, meaning]
    };
    let rows: Vec<Vec<String>> = properties.into_iter().flatten().map(row).collect();
    format!(
        "{} ({})\n{}\n{}; {}{}{pinned}\n\n{}",
        connector.title,
        connector.name,
        connector.description,
        ends(connector),
        verified(connector),
        connector.edition.as_ref().map(edition).unwrap_or_default(),
        render(&columns, &rows, width)
    )
}

fn edition(edition: &Edition) -> String {
    let Edition { version, sha256, licence: spdx, verified_on, documentation, held_against, notes } = edition;
    let held_against = held_against.as_ref().map(|source| format!(", requests and answers held against {source}")).unwrap_or_default();
    let notes: String = notes.iter().map(|note| format!("\n- {note}")).collect();
    format!(" on {verified_on}{held_against}\nmanifest {version}, {}, sha256 {sha256}\nwritten from {documentation}{notes}", licence(spdx))
}

/// A setting's type in a word or two; the choices, where there are only a few.
fn kind(property: &Value, root: &Value) -> String {
    let pointed = property.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?));
    let property = pointed.unwrap_or(property);
    if property.get("format").and_then(Value::as_str) == Some("password") {
        return "secret".to_owned();
    }
    if let Some(choices) = property.get("enum").and_then(Value::as_array) {
        return choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|k| property.get(*k)).and_then(Value::as_array);
    if let Some(alternatives) = alternatives {
        let constant = |a: &Value| a.get("const").and_then(Value::as_str).map(str::to_owned);
        let texts = alternatives.iter().filter(|a| a.get("type").and_then(Value::as_str) != Some("null"));
        return texts.map(|a| constant(a).unwrap_or_else(|| kind(a, root))).collect::<Vec<_>>().join(" | ");
    }
    match property.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect::<Vec<_>>().join(" | "),
        _ => String::new(),
    }
}
