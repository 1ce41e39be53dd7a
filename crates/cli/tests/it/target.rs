//! `trib target`: Singer's messages on standard input, the SDK's own test streams among them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::{Folder, Said, said};

/// The streams that the SDK tests its targets with. They are read where its package has them.
fn streams() -> PathBuf {
    let bin = trib_testkit::python_venv::bin("singer", &["singer-sdk==0.54.9"]).unwrap();
    let lib = bin.parent().unwrap().join("lib");
    let python = std::fs::read_dir(lib).unwrap().next().unwrap().unwrap().path();
    python.join("site-packages/singer_sdk/testing/target_test_streams")
}

fn project(to: &str) -> Folder {
    Folder::with(&[("tributary.yaml", "name: shop\n"), ("connections.yaml", to)])
}

fn load(folder: &Folder, to: &str, input: impl Into<Stdio>) -> Said {
    let mut command = folder.command(&["target", "--to", to, "--schema", "raw"]);
    said(command.stdin(input).output().unwrap())
}

fn piped(folder: &Folder, args: &[&str]) -> Child {
    let mut command = folder.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn load_text(folder: &Folder, text: &str) -> Said {
    let mut child = piped(folder, &["target", "--to", "warehouse", "--schema", "raw"]);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    said(child.wait_with_output().unwrap())
}

/// What each of the SDK's streams leaves behind: a query, and its rows.
const LOADED: &[(&str, &str, &str)] = &[
    ("array_data", "select count(*), sum(id) from raw.test_array_data", "4,10"),
    ("camelcase", "select id, client_name from raw.test_camelcase order by 1", "1,Gitter Windows Desktop App;2,Gitter iOS App"),
    // Only SCHEMA messages: a table is made with its first rows.
    ("camelcase_complex_schema", "select 1", "1"),
    ("duplicate_records", "select id, metric from raw.test_duplicate_records order by 1", "1,100;2,20"),
    ("multiple_state_messages", "select count(*), sum(metric) from raw.test_multiple_state_messages_a", "6,2100"),
    ("no_primary_keys", "select count(*), sum(metric) from raw.test_no_pk", "3,66"),
    ("no_primary_keys_append", "select count(*), sum(metric) from raw.test_no_pk", "8,1581"),
    (
        "optional_attributes",
        "select id, coalesce(optional, 'none') from raw.test_optional_attributes order by 1",
        "1,This is optional;2,none;3,Also optional;4,none",
    ),
    ("pk_updates", "select id, email from raw.example_stream order by 1", "1,alice@example.com;2,bob@example.com"),
    ("record_missing_fields", "select id, coalesce(optional, 'none') from raw.record_missing_fields order by 1", "1,now you see me;2,none"),
    ("record_missing_required_property", "select coalesce(id, 0), metric from raw.test_record_missing_required_property", "0,3215"),
    ("schema_no_properties", "select count(*) from raw.test_object_schema_no_properties", "2"),
    ("schema_updates", "select count(*), count(a3), count(a4), count(a6), sum(a1) from raw.test_schema_updates", "6,5,4,2,621.0"),
    ("special_chars_in_attributes", "select _id from raw.test_special_chars_in_attributes", "a2e98886"),
    ("user_location_data", "select id, name from raw.test_users order by 1", "1,Yannis;2,Micael;3,Jacob;4,Josh;5,Thomas"),
    (
        "user_location_upsert_data",
        "select id, name from raw.test_users order by 1",
        "1,Johny;2,George;3,Jacob;4,Josh;5,Jim;8,Thomas;12,Paul;13,Mary",
    ),
];

const REFUSED: &[(&str, &str)] = &[
    ("invalid_schema", "the stream's schema declares no properties"),
    ("record_before_schema", "a record came before the SCHEMA message of its stream"),
    ("record_missing_key_property", "a record has no value for a key property"),
];

/// `schema` is how the destination writes it before a table.
fn all_streams(folder: &Folder, to: &str, schema: &str) {
    let query = |sql: &str| folder.query(to, &sql.replace("raw.", schema));
    let streams = streams();
    let open = |name: &str| File::open(streams.join(format!("{name}.singer"))).unwrap();
    for (name, sql, expected) in LOADED {
        let result = load(folder, to, open(name));
        assert_eq!(result.status, Some(0), "{name}: {}", result.all());
        // Databases differ in how they show a double.
        let got = query(sql);
        assert_eq!(got.replace("621.0", "621"), expected.replace("621.0", "621"), "{name}");
        if *name == "multiple_state_messages" {
            let states: Vec<serde_json::Value> = result.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            let pairs: Vec<(i64, i64)> = states
                .iter()
                .map(|s| (s["test_multiple_state_messages_a"].as_i64().unwrap(), s["test_multiple_state_messages_b"].as_i64().unwrap()))
                .collect();
            assert_eq!(pairs, [(1, 0), (3, 2), (5, 6)]);
        }
    }
    for (name, expected) in REFUSED {
        let result = load(folder, to, open(name));
        assert_eq!(result.status, Some(1), "{name}: {}", result.all());
        assert!(result.err.contains(expected), "{name}: {}", result.err);
        assert_eq!(result.out, "", "{name}");
    }
    // NUL is text to JSON, and to few databases.
    let result = load(folder, to, open("encoded_string_data"));
    assert_eq!(result.status, Some(0), "{}", result.all());
    let kept = if result.err.contains("rejected") { "10,10" } else { "11,11" };
    assert_eq!(query("select count(*), count(info) from raw.test_strings"), kept, "{}", result.err);
    assert_eq!(query("select info from raw.test_strings where id = 2"), "απλή συμβολοσειρά");
}

#[test]
fn the_sdks_streams_into_the_lake() {
    all_streams(&project("other: {connector: files, path: ./x}\n"), "warehouse", "raw.");
}

#[test]
fn the_sdks_streams_into_sqlite() {
    all_streams(&project("db: {connector: sqlite, path: ./raw.db}\n"), "db", "raw__");
}

#[test]
fn the_sdks_streams_into_postgres() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let mut folder = project("db: {connector: postgres, url: \"${URL}\"}\n");
    folder.set("URL", &server.url(&database));
    all_streams(&folder, "db", "raw.");
}

/// A STATE comes back while the pipe is still open, when what came before it can be seen.
#[test]
fn states_follow_commits() {
    let folder = project("{}\n");
    folder.write("target.json", r#"{"to": "warehouse", "schema": "raw", "load_rows": 1}"#);
    let mut child = piped(&folder, &["target", "--config", "target.json"]);
    let mut input = child.stdin.take().unwrap();
    let mut states = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"type": "STATE", "value": {{"at": 0}}}}"#).unwrap();
    writeln!(
        input,
        r#"{{"type": "SCHEMA", "stream": "s", "schema": {{"properties": {{"id": {{"type": "integer"}}}}}}, "key_properties": ["id"]}}"#
    )
    .unwrap();
    for at in 1..4 {
        writeln!(input, r#"{{"type": "RECORD", "stream": "s", "record": {{"id": {at}}}}}"#).unwrap();
        writeln!(input, r#"{{"type": "STATE", "value": {{"at":{at}}}}}"#).unwrap();
    }
    // Nothing is committed before the budget was looked at; a record more and a schema more are reasons to.
    writeln!(
        input,
        r#"{{"type": "SCHEMA", "stream": "t", "schema": {{"properties": {{"x": {{"type": "string"}}}}}}, "key_properties": []}}"#
    )
    .unwrap();
    writeln!(input, r#"{{"type": "RECORD", "stream": "t", "record": {{"x": "y"}}}}"#).unwrap();
    input.flush().unwrap();
    assert_eq!(states.next().unwrap().unwrap(), r#"{"at": 0}"#);
    for at in 1..4 {
        assert_eq!(states.next().unwrap().unwrap(), format!(r#"{{"at":{at}}}"#));
    }
    assert_eq!(folder.query("warehouse", "select count(*) from raw.s"), "3");
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(folder.query("warehouse", "select x from raw.t"), "y");
}

#[test]
fn values_and_what_is_no_value() {
    let folder = project("{}\n");
    let schema = r#"{"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}, "amount": {"type": "number", "multipleOf": 0.0000000001}, "o": {"type": "object", "properties": {"a": {"type": "integer"}}}}}, "key_properties": ["id"]}"#;
    let text = format!(
        "{schema}\n{}\n{}\n{}\n",
        r#"{"type": "RECORD", "stream": "s", "record": {"id": 9007199254740993, "amount": 1234567890123456.0123456789, "o": {"a": 1, "b": 2}}}"#,
        r#"{"type": "RECORD", "stream": "s", "record": {"id": 2, "amount": "many"}}"#,
        r#"{"type": "STATE", "value": 1}"#
    );
    let result = load_text(&folder, &text);
    assert_eq!((result.status, result.out.as_str()), (Some(0), "1\n"), "{}", result.err);
    assert!(result.err.contains("1 row rejected"), "{}", result.err);
    assert_eq!(folder.query("warehouse", "select id, amount, o['a'] from raw.s"), "9007199254740993,1234567890123456.0123456789,1");
    let rejected = folder.trib(&["query", "--format", "csv", "select scope, place, reason from _trib.rejected"]).out;
    assert!(rejected.contains("s,line 3,") && rejected.contains("is no decimal number"), "{rejected}");
}

/// What was committed before stays; what came after the last STATE is not acknowledged.
#[test]
fn garbage_ends_the_load() {
    let folder = project("{}\n");
    let schema = r#"{"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}}}, "key_properties": ["id"]}"#;
    let record = r#"{"type": "RECORD", "stream": "s", "record": {"id": 1}}"#;
    let result = load_text(&folder, &format!("{schema}\n{record}\n{{\"type\": \"STATE\", \"value\": 1}}\nTraceback: no\n"));
    assert_eq!((result.status, result.out.as_str()), (Some(1), ""), "{}", result.err);
    assert!(result.err.contains("row line 4") && result.err.contains("Traceback: no"), "{}", result.err);
    assert_eq!(folder.trib(&["query", "select * from raw.s"]).status, Some(2));
    let result = load_text(&folder, &format!("{schema}\n{record}\n"));
    assert_eq!(result.status, Some(0), "{}", result.err);
}

/// More streams at once than the destination stages at once.
#[test]
fn many_interleaved_streams() {
    let folder = project("{}\n");
    let mut text = String::new();
    for s in 0..20 {
        text += &format!(
            "{{\"type\": \"SCHEMA\", \"stream\": \"s{s}\", \"schema\": {{\"properties\": {{\"id\": {{\"type\": \"integer\"}}}}}}, \"key_properties\": [\"id\"]}}\n"
        );
    }
    for id in 0..9000 {
        for s in 0..20 {
            if id < 3 || s % 7 == 0 {
                text += &format!("{{\"type\": \"RECORD\", \"stream\": \"s{s}\", \"record\": {{\"id\": {id}}}}}\n");
            }
        }
    }
    let result = load_text(&folder, &text);
    assert_eq!(result.status, Some(0), "{}", result.err);
    for (s, expected) in [(0, "9000"), (7, "9000"), (19, "3")] {
        assert_eq!(folder.query("warehouse", &format!("select count(*) from raw.s{s}")), expected);
    }
}

/// Far more streams than are staged side by side, all of them growing at the same time: what waits does so on disk, and nothing of it is lost or mixed up.
#[test]
fn what_waits_under_load() {
    const STREAMS: u64 = 30;
    const ROWS: u64 = 3000;
    let folder = project("{}\n");
    let mut child = piped(&folder, &["target", "--to", "warehouse", "--schema", "raw"]);
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    for s in 0..STREAMS {
        let properties = r#"{"id": {"type": "integer"}, "s": {"type": "integer"}, "t": {"type": "string"}}"#;
        writeln!(input, r#"{{"type": "SCHEMA", "stream": "s{s}", "schema": {{"properties": {properties}}}, "key_properties": ["id"]}}"#)
            .unwrap();
    }
    for id in 0..ROWS {
        for s in 0..STREAMS {
            let text = format!("{s}-{id}-").repeat(40);
            writeln!(input, r#"{{"type": "RECORD", "stream": "s{s}", "record": {{"id": {id}, "s": {s}, "t": "{text}"}}}}"#).unwrap();
        }
    }
    writeln!(input, r#"{{"type": "STATE", "value": 1}}"#).unwrap();
    drop(input);
    let result = said(child.wait_with_output().unwrap());
    assert_eq!((result.status, result.out.as_str()), (Some(0), "1\n"), "{}", result.err);
    let right = "id between 0 and 2999 and t = repeat(concat(s, '-', id, '-'), 40)";
    let of = |s: u64| format!("select count(distinct id) n, sum(case when s = {s} and {right} then 1 else 0 end) r from raw.s{s}");
    let all: Vec<String> = (0..STREAMS).map(of).collect();
    let sums = format!("select count(*), sum(n), sum(r) from ({}) x", all.join(" union all "));
    assert_eq!(folder.query("warehouse", &sums), format!("{STREAMS},{},{}", STREAMS * ROWS, STREAMS * ROWS));
}
