//! The sync that `trib discover --write` proposes.

use std::collections::HashSet;
use std::fmt::Write;

use trib_core::catalog::moves_with_changes;
use trib_core::name::Naming;
use trib_core::{Catalog, ReadMode, Stream};

/// A sync of every stream of `connection`, with modes, keys and cursors as the catalog suggests them, for a person to look at.
pub fn sync(connection: &str, catalog: &Catalog) -> String {
    let mut text = format!(
        "# Proposed by `trib discover {connection} --write`: look at the keys and cursors.\nfrom: {connection}\nto: warehouse\ninto: \"{}\"\nstreams:\n",
        template(catalog)
    );
    for stream in &catalog.streams {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {}: {{{}}}", plain_or_quoted(&stream.name), settings(stream).join(", "));
    }
    text
}

/// Tables keep their names where these are enough to tell them apart.
fn template(catalog: &Catalog) -> &'static str {
    let apart = |name: &dyn Fn(&Stream) -> String| {
        let mut seen = HashSet::new();
        catalog.streams.iter().all(|s| seen.insert(Naming::SnakeCase.apply(&name(s))))
    };
    if apart(&|s| s.table.clone()) {
        "{connection}.{table}"
    } else if apart(&|s| format!("{}_{}", s.schema_name.as_deref().unwrap_or_default(), s.table)) {
        "{connection}_{schema}.{table}"
    } else {
        "{connection}.{stream}"
    }
}

fn settings(stream: &Stream) -> Vec<String> {
    let key = (!stream.primary_key.is_empty())
        .then(|| format!("key: [{}]", stream.primary_key.iter().map(|k| scalar(k)).collect::<Vec<_>>().join(", ")));
    let own = |cursor: &str| stream.schema.field_with_name(cursor).is_err();
    // A cursor that stands still when its row changes would miss updates: only a person can say that there are none.
    let sees_changes = |cursor: &&String| own(cursor) || moves_with_changes(cursor);
    let cursor = stream.cursors.first().filter(|_| stream.read_modes.contains(&ReadMode::Incremental)).filter(sees_changes);
    let (read, write) = match (cursor, &key) {
        (None, _) => ("full", "replace"),
        (Some(_), Some(_)) => ("incremental", "upsert"),
        (Some(_), None) => ("incremental", "append"),
    };
    // What the source itself keeps track of, such as its files, is no column to be named.
    let cursor = cursor.filter(|c| !own(c)).map(|c| format!("cursor: {}", scalar(c)));
    [Some(format!("read: {read}")), Some(format!("write: {write}")), key, cursor].into_iter().flatten().collect()
}

/// A value: its `$` would be taken for a variable. Keys are never filled in.
fn scalar(text: &str) -> String {
    plain_or_quoted(&text.replace('$', "$$"))
}

/// Plain where YAML reads it back as this text, otherwise in double quotes; JSON's strings are YAML's.
fn plain_or_quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false");
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
