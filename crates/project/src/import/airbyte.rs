//! An Airbyte connection: what its API gives for one (`/connections/{id}`, or the web application's with source and destination in it), or octavia's YAML.

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};

use super::Imported;
use super::system::{slug, system};
use super::yaml_text::text;
use crate::yaml;

/// The project that does the same.
pub fn import(export: &str, file: &str) -> Result<Imported> {
    let root = yaml::parse(file, export, 1)?.to_json();
    // Octavia keeps all but the name one level below.
    let body = Reader(root.get("configuration").filter(|c| c.is_object()).unwrap_or(&root));
    let streams = body.streams();
    if streams.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, "this is no export of an Airbyte connection")
            .detail("it names no streams")
            .file(file, None, None)
            .hint("what `GET /connections/{id}` answers, or octavia's configuration.yaml of a connection"));
    }
    let mut out = Imported::default();
    let name = Reader(&root).text("name").or_else(|| Reader(&root).text("resource_name")).unwrap_or("airbyte");
    let mut connections = Map::new();
    let from = end(&root, "source", &mut connections, &mut out)?;
    let to = end(&root, "destination", &mut connections, &mut out)?;
    let sync = format!("{from}-to-{to}");
    let mut all = Map::new();
    for stream in streams {
        stream_of(&stream, &mut all, &mut out);
    }
    let mut spec = Map::from_iter([
        ("from".to_owned(), json!(from)),
        ("to".to_owned(), json!(to)),
        ("into".to_owned(), json!(into(&body, &mut out))),
        ("streams".to_owned(), Value::Object(all)),
    ]);
    spec.insert("description".to_owned(), json!(name));
    if body.text("status").is_some_and(|s| s != "active") {
        spec.insert("enabled".to_owned(), json!(false));
    }
    match body.text("nonBreakingSchemaUpdatesBehavior").or_else(|| body.text("nonBreakingChangesPreference")) {
        Some("ignore" | "disable" | "disable_connection") => {
            spec.insert("contract".to_owned(), json!({"new_streams": "ignore", "new_columns": "discard_value"}));
        }
        Some("propagate_fully") => drop(spec.insert("contract".to_owned(), json!({"new_columns": "evolve"}))),
        _ => {}
    }
    out.files.insert("tributary.yaml".to_owned(), text(&json!({"name": slug(name)})));
    out.files.insert("connections.yaml".to_owned(), text(&Value::Object(connections)));
    out.files.insert(format!("syncs/{sync}.yaml"), text(&Value::Object(spec)));
    schedule(&body, &sync, &mut out);
    for key in ["tags", "notifySchemaChanges", "resourceRequirements", "operationIds", "operations"] {
        if body.get(key).is_some_and(|v| v.as_array().is_none_or(|list| !list.is_empty()) && !v.is_null() && *v != json!(false)) {
            out.note(format!("{key} is not carried over"));
        }
    }
    out.note("Airbyte's state has a form of each connector's own and is not carried over: the first run reads everything, upserts leave one row for each key");
    Ok(out)
}

/// An object whose keys are written `likeThis` by the API and `like_this` by octavia.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Value);

impl<'a> Reader<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        let snake: String =
            key.chars().flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect();
        self.0.get(key).or_else(|| self.0.get(&snake))
    }

    fn text(self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn below(self, key: &str) -> Option<Reader<'a>> {
        self.get(key).filter(|v| v.is_object()).map(Reader)
    }

    /// The streams with what is chosen for them, in one form: the public API has both in one object, the others apart.
    fn streams(self) -> Vec<Map<String, Value>> {
        let public = self.below("configurations").and_then(|c| c.get("streams"));
        let other = self.below("syncCatalog").and_then(|c| c.get("streams"));
        let list = public.or(other).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let merged = |entry: &Value| {
            let entry = Reader(entry);
            let mut all = entry.0.as_object().cloned().unwrap_or_default();
            for part in ["stream", "config"] {
                all.extend(entry.get(part).and_then(Value::as_object).cloned().unwrap_or_default());
            }
            all
        };
        list.iter().map(merged).collect()
    }
}

/// One end's connection; its name.
fn end(root: &Value, end: &str, connections: &mut Map<String, Value>, out: &mut Imported) -> Result<String> {
    let root = Reader(root);
    let described = root.below(end);
    let kind = described.and_then(|d| d.text(&format!("{end}Name")).or_else(|| d.text("definitionType")).or_else(|| d.text("type")));
    let path = root.text(&format!("{end}ConfigurationPath"));
    let of_path = path.and_then(|p| p.trim_end_matches("/configuration.yaml").rsplit('/').next());
    let title = described.and_then(|d| d.text("name")).or(of_path).unwrap_or(end);
    let name = slug(title);
    let config = described.and_then(|d| d.get("connectionConfiguration").or_else(|| d.get("configuration")));
    let found = system(&name, kind.unwrap_or(title), config, end == "source")?;
    Ok(found.kept(name, connections, out))
}

fn into(body: &Reader<'_>, out: &mut Imported) -> String {
    let prefix = body.text("prefix").unwrap_or_default();
    let schema = match body.text("namespaceDefinition") {
        Some("custom_format" | "customformat") => {
            let format = body.text("namespaceFormat").unwrap_or("{schema}");
            format.replace("${SOURCE_NAMESPACE}", "{schema}")
        }
        Some("source") => "{schema}".to_owned(),
        _ => {
            out.note("the destination's own schema was loaded into: the tables are in airbyte.*, say another in `into:`");
            "airbyte".to_owned()
        }
    };
    format!("{schema}.{prefix}{{table}}")
}

fn stream_of(stream: &Map<String, Value>, all: &mut Map<String, Value>, out: &mut Imported) {
    let value = Value::Object(stream.clone());
    let reader = Reader(&value);
    let Some(table) = reader.text("name") else { return };
    let name = reader.text("namespace").filter(|n| !n.is_empty()).map_or_else(|| table.to_owned(), |n| format!("{n}.{table}"));
    if reader.get("selected") == Some(&json!(false)) {
        return;
    }
    let mode = match (reader.text("syncMode").unwrap_or_default(), reader.text("destinationSyncMode")) {
        (read, Some(write)) => format!("{}_{write}", if read == "incremental" { "incremental" } else { "full_refresh" }),
        (mode, None) => mode.to_owned(),
    };
    let (read, write, keyed) = match mode.as_str() {
        "full_refresh_append" => ("full", "append", false),
        "incremental_append" => ("incremental", "append", false),
        "incremental_deduped_history" | "incremental_append_dedup" | "incremental_deduped" => ("incremental", "upsert", true),
        "full_refresh_overwrite_deduped" | "full_refresh_overwrite_dedup" => ("full", "mirror", true),
        "full_refresh_overwrite" | "" => ("full", "replace", false),
        other => {
            out.note(format!("{name}: the mode {other} is not known, and taken for full_refresh_overwrite"));
            ("full", "replace", false)
        }
    };
    let mut spec = Map::from_iter([("read".to_owned(), json!(read)), ("write".to_owned(), json!(write))]);
    if (read, write) == ("full", "append") {
        spec.insert("duplicates".to_owned(), json!("allow"));
    }
    let path = |value: &Value| -> Option<String> {
        let parts: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
        (parts.len() == 1).then(|| parts[0].to_owned())
    };
    if read == "incremental" {
        match reader.get("cursorField").map(|c| (c, path(c))) {
            Some((_, Some(cursor))) => drop(spec.insert("cursor".to_owned(), json!(cursor))),
            Some((given, None)) if given.as_array().is_some_and(|a| a.len() > 1) => {
                out.note(format!("{name}: the cursor {given} is inside of a column, which a sync cannot go by: choose another"));
            }
            _ => {}
        }
    }
    if keyed && let Some(parts) = reader.get("primaryKey").and_then(Value::as_array).filter(|parts| !parts.is_empty()) {
        let key: Option<Vec<String>> = parts.iter().map(path).collect();
        match key {
            Some(key) => drop(spec.insert("key".to_owned(), json!(key))),
            None => out.note(format!("{name}: a part of its key is inside of a column: choose other columns")),
        }
    }
    if let Some(fields) = reader.get("selectedFields").and_then(Value::as_array).filter(|f| !f.is_empty()) {
        let column = |field: &Value| Reader(field).get("fieldPath").and_then(Value::as_array)?.first()?.as_str().map(str::to_owned);
        let mut columns: Vec<String> = Vec::new();
        for column in fields.iter().filter_map(column) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        spec.insert("select".to_owned(), json!(columns));
    }
    mappers(&name, reader, &mut spec, out);
    all.insert(name, Value::Object(spec));
}

/// Airbyte's mappings of columns.
fn mappers(stream: &str, reader: Reader<'_>, spec: &mut Map<String, Value>, out: &mut Imported) {
    let mut columns = Map::new();
    for mapper in reader.get("mappers").and_then(Value::as_array).into_iter().flatten() {
        let (mapper, config) = (Reader(mapper), Reader(mapper.get("mapperConfiguration").unwrap_or(&Value::Null)));
        let kind = mapper.text("type").unwrap_or("?");
        match (kind, config.text("targetField").or_else(|| config.text("originalFieldName"))) {
            ("field-renaming", Some(column)) => {
                columns.insert(column.to_owned(), json!({"rename": config.text("newFieldName").unwrap_or(column)}));
            }
            ("hashing", Some(column)) => {
                out.note(format!(
                    "{stream}: {column} was hashed with {}: here it is a keyed hash, set PII_KEY",
                    config.text("method").unwrap_or("a hash")
                ));
                columns.insert(column.to_owned(), json!({"hmac": "${PII_KEY}"}));
            }
            _ => out.note(format!("{stream}: the mapping {kind} is not carried over")),
        }
    }
    if !columns.is_empty() {
        spec.insert("columns".to_owned(), Value::Object(columns));
    }
}

fn schedule(body: &Reader<'_>, sync: &str, out: &mut Imported) {
    let given = body.below("schedule");
    let data = body.below("scheduleData");
    let cron = given
        .and_then(|s| s.text("cronExpression"))
        .or_else(|| data.and_then(|d| d.below("cron")).and_then(|c| c.text("cronExpression")))
        .map(|cron| cron.to_owned());
    let zone = data.and_then(|d| d.below("cron")).and_then(|c| c.text("cronTimeZone")).unwrap_or("UTC").to_owned();
    let basic = data.and_then(|d| d.below("basicSchedule")).or(given.filter(|s| s.get("units").is_some()));
    let every = basic.and_then(|b| Some((b.get("units")?.as_u64()?, b.text("timeUnit")?.to_owned())));
    let cron = match (cron, every) {
        (Some(quartz), _) => standard_cron(&quartz),
        (None, Some((n, unit))) => match unit.trim_end_matches('s') {
            "minute" if n > 0 && 60 % n == 0 => Some(format!("*/{n} * * * *")),
            "hour" if n == 1 => Some("0 * * * *".to_owned()),
            "hour" if n > 0 && 24 % n == 0 => Some(format!("0 */{n} * * *")),
            "day" if n == 1 => Some("0 0 * * *".to_owned()),
            "week" if n == 1 => Some("0 0 * * 0".to_owned()),
            _ => None,
        },
        (None, None) => return,
    };
    match cron {
        Some(cron) => {
            let job = json!({"select": [sync], "schedule": {"cron": cron, "timezone": zone}});
            // Syncs and jobs share their names.
            out.files.insert(format!("jobs/{sync}-scheduled.yaml"), text(&job));
        }
        None => out.note("its schedule has no form as a cron expression of five fields, and is not carried over"),
    }
}

/// Quartz has seconds first, a year last, and `?` for either day.
fn standard_cron(quartz: &str) -> Option<String> {
    let fields: Vec<&str> = quartz.split_whitespace().collect();
    let five = match fields.as_slice() {
        five @ [_, _, _, _, _] => five,
        ["0", five @ ..] if five.len() == 5 => five,
        ["0", five @ .., "*"] if five.len() == 5 => five,
        _ => return None,
    };
    // `L`, `15W`, `2#1`: last, nearest and nth days. In names of days and months these letters mean nothing.
    let has_digit = |field: &str| field.contains(|c: char| c.is_ascii_digit());
    let plain =
        |field: &&str| !(field.contains('#') || matches!(*field, "L" | "W" | "LW") || has_digit(field) && field.contains(['L', 'W']));
    // Days of the week are counted from 1 on there; names mean the same in both.
    let weekday = five[4];
    if !five.iter().all(plain) || fields.len() > 5 && weekday.chars().any(|c| c.is_ascii_digit()) {
        return None;
    }
    Some(five.join(" ").replace('?', "*"))
}

#[cfg(test)]
mod tests {
    use super::standard_cron;

    #[test]
    fn schedules() {
        let cases = [
            ("0 0 12 * * ?", Some("0 12 * * *")),
            ("0 30 6 ? * MON-FRI *", Some("30 6 * * MON-FRI")),
            ("15 3 * * *", Some("15 3 * * *")),
            ("0 0 9 ? JUL WED", Some("0 9 * JUL WED")),
            ("0 0 9 15W * ?", None),
            ("30 0 12 * * ?", None),
            ("0 0 12 L * ?", None),
            ("0 0 12 ? * 2", None),
        ];
        for (quartz, expected) in cases {
            assert_eq!(standard_cron(quartz).as_deref(), expected, "{quartz}");
        }
    }
}
