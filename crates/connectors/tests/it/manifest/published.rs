//! The table of components beside the schema that is published with airbyte-cdk, and beside what the code reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PUBLISHED: &str = "airbyte-cdk==7.39.1";
/// Ours, for destinations.
const OURS: [&str; 10] = [
    "ApiObject",
    "ApiOperation",
    "BulkJob",
    "CheckRequest",
    "FieldDiscovery",
    "JobResults",
    "ObjectDiscovery",
    "RecordAnswers",
    "RecordBatching",
    "RecordLookUp",
];
/// Where ours takes more than what is published.
const MORE: [(&str, &str); 2] =
    [("(GET/POST)", "(GET/POST/PUT/PATCH/DELETE)"), ("CheckStream|CheckDynamicStream", "CheckStream|CheckDynamicStream|CheckRequest")];
/// Fields that nothing has to be done about: this one is always on.
const NOTHING_TO_DO: [&str; 1] = ["use_tcp_keepalive"];

/// Fields with their rules, by component.
type Table = BTreeMap<String, BTreeMap<String, String>>;

fn table(text: &str) -> Table {
    let mut table = Table::new();
    let mut current = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ").and_then(|field| field.split_once(": ")) {
            None => current = line.to_owned(),
            Some((name, rule)) => {
                table.entry(current.clone()).or_default().insert(name.to_owned(), rule.to_owned());
            }
        }
        table.entry(current.clone()).or_default();
    }
    table
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifest")
}

fn ours() -> Table {
    table(&fs::read_to_string(source().join("components.txt")).unwrap())
}

/// Alternatives in one order.
fn sorted(rule: &str) -> String {
    let mut parts: Vec<&str> = rule.split('|').collect();
    parts.sort_unstable();
    parts.join("|")
}

#[test]
fn every_published_component_and_field_is_known() {
    let bin = trib_testkit::python_venv::bin("low-code-schema", &["--no-deps", PUBLISHED, "pyyaml==6.0.3"]).unwrap();
    let home = bin.parent().unwrap().join("lib");
    let python = fs::read_dir(&home).unwrap().next().unwrap().unwrap().path();
    let schema = python.join("site-packages/airbyte_cdk/sources/declarative/declarative_component_schema.yaml");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifest/published.py");
    let output = Command::new(bin.join("python")).arg(script).arg(schema).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let published = table(&String::from_utf8(output.stdout).unwrap());
    assert!(published.len() > 100, "{} components", published.len());
    let (ours, mut differences) = (ours(), Vec::new());
    for (name, fields) in &published {
        let Some(own) = ours.get(name) else {
            differences.push(format!("there is no {name}"));
            continue;
        };
        for (field, rule) in fields {
            let more = MORE.iter().find(|(less, _)| less == rule).map_or(rule.as_str(), |(_, more)| more);
            match own.get(field) {
                Some(own) if [rule.as_str(), more].iter().any(|r| sorted(r) == sorted(own)) => {}
                other => differences.push(format!("{name}.{field} is {rule}, and here {other:?}")),
            }
        }
        differences.extend(
            own.keys().filter(|f| !fields.contains_key(*f) && (name != "DeclarativeSource")).map(|f| format!("{name}.{f} is only here")),
        );
    }
    differences
        .extend(ours.keys().filter(|n| !published.contains_key(*n) && !OURS.contains(&n.as_str())).map(|n| format!("{n} is only here")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A field that the code never names does nothing, whatever the table says.
#[test]
fn every_field_is_read_somewhere() {
    fn collect(folder: &Path, code: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, code);
            } else if path.extension().is_some_and(|e| e == "rs") {
                code.push_str(fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap());
            }
        }
    }
    let mut code = String::new();
    collect(&source(), &mut code);
    // Names also stand in JSON pointers.
    let named =
        |field: &str| ["\"", "/"].iter().any(|end| code.contains(&format!("\"{field}{end}")) || code.contains(&format!("/{field}{end}")));
    let unread: Vec<String> = ours()
        .into_iter()
        .flat_map(|(name, fields)| fields.into_keys().map(move |field| (name.clone(), field.trim_end_matches('!').to_owned())))
        .filter(|(_, field)| !named(field) && !NOTHING_TO_DO.contains(&field.as_str()))
        .map(|(name, field)| format!("{name}.{field}"))
        .collect();
    assert!(unread.is_empty(), "nothing is done with {unread:?}");
}
