//! Tables that are read anew under a new version: ACTIVATE_VERSION, into `trib target` and from a tap of a sync. And records in files: BATCH.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::trib::{Folder, Said, ok, said};

const KEYED: &str = r#"{"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}}}, "key_properties": ["id"]}"#;

fn row(id: u32, v: &str, version: u32) -> String {
    format!(r#"{{"type": "RECORD", "stream": "s", "record": {{"id": {id}, "v": "{v}"}}, "version": {version}}}"#)
}

fn activate(version: u32) -> String {
    format!(r#"{{"type": "ACTIVATE_VERSION", "stream": "s", "version": {version}}}"#)
}

fn state(at: u32) -> String {
    format!(r#"{{"type": "STATE", "value": {at}}}"#)
}

fn target(folder: &Folder, settings: &str, messages: &[String]) -> Said {
    folder.write("target.json", settings);
    let mut command = folder.command(&["target", "--config", "target.json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all((messages.join("\n") + "\n").as_bytes()).unwrap();
    said(child.wait_with_output().unwrap())
}

fn project() -> Folder {
    Folder::with(&[("tributary.yaml", "name: t\n"), ("connections.yaml", "db: {connector: sqlite, path: ./raw.db}\n")])
}

const LAKE: &str = r#"{"to": "warehouse", "schema": "raw"}"#;
const ROWS: &str = "select id, v from raw.s order by 1";

/// Full table, then full table again: what is gone goes with the activation, in one step with the rows that take its place.
#[test]
fn a_newer_version_takes_the_place_of_the_older() {
    for (settings, connection, sql) in
        [(LAKE, "warehouse", ROWS), (r#"{"to": "db", "schema": "raw"}"#, "db", "select id, v from raw__s order by 1")]
    {
        let folder = project();
        let first = [KEYED.to_owned(), activate(1), row(1, "a", 1), row(2, "b", 1), activate(1), state(1)];
        ok(&target(&folder, settings, &first));
        let second = [KEYED.to_owned(), row(2, "B", 2), row(3, "c", 2), activate(2), state(2)];
        let loaded = target(&folder, settings, &second);
        assert_eq!((loaded.status, loaded.out.as_str()), (Some(0), "2\n"), "{}", loaded.err);
        assert_eq!(folder.query(connection, sql), "2,B;3,c");
        // An incremental read goes on with the version that it has.
        ok(&target(&folder, settings, &[KEYED.to_owned(), activate(2), row(4, "d", 2), state(3)]));
        assert_eq!(folder.query(connection, sql), "2,B;3,c;4,d");
        // A table that has become empty.
        ok(&target(&folder, settings, &[KEYED.to_owned(), activate(3), state(4)]));
        assert_eq!(folder.query(connection, sql), "");
    }
}

#[test]
fn a_version_that_is_not_finished_changes_nothing() {
    let folder = project();
    ok(&target(&folder, LAKE, &[KEYED.to_owned(), row(1, "a", 1), activate(1), state(1)]));
    let cut = target(&folder, LAKE, &[KEYED.to_owned(), row(2, "b", 2), state(2)]);
    assert_eq!((cut.status, cut.out.as_str()), (Some(1), ""), "{}", cut.all());
    assert!(cut.err.contains("a new version of the table was begun and not activated"), "{}", cut.err);
    assert_eq!(folder.query("warehouse", ROWS), "1,a");
    ok(&target(&folder, LAKE, &[KEYED.to_owned(), row(2, "b", 3), activate(3), state(3)]));
    assert_eq!(folder.query("warehouse", ROWS), "2,b");
}

/// In one input: what came before, and what comes after, of this and of another stream.
#[test]
fn in_the_middle_of_other_messages() {
    let folder = project();
    let other =
        r#"{"type": "SCHEMA", "stream": "t", "schema": {"properties": {"x": {"type": "integer"}}}, "key_properties": []}"#.to_owned();
    let more = r#"{"type": "RECORD", "stream": "t", "record": {"x": 1}}"#.to_owned();
    let messages = [
        vec![KEYED.to_owned(), other, more.clone(), row(1, "a", 1), row(2, "b", 1), state(1)],
        vec![more.clone(), row(3, "c", 2), more.clone(), activate(2), row(4, "d", 2), more, state(2)],
    ]
    .concat();
    let loaded = target(&folder, LAKE, &messages);
    assert_eq!((loaded.status, loaded.out.as_str()), (Some(0), "1\n2\n"), "{}", loaded.err);
    assert_eq!(folder.query("warehouse", ROWS), "3,c;4,d");
    assert_eq!(folder.query("warehouse", "select count(*) from raw.t"), "4");
}

#[test]
fn without_a_key_by_a_flag_or_not_at_all() {
    let unkeyed = KEYED.replace(r#"["id"]"#, "[]");
    let (first, second) = ([row(1, "a", 1), activate(1)], [row(2, "b", 2), activate(2)]);
    let cases = [
        (unkeyed.as_str(), "", ROWS, "2,b"),
        (KEYED, r#", "hard_delete": false"#, "select id, _trib_deleted_at is null from raw.s order by 1", "1,false;2,true"),
        (KEYED, r#", "process_activate_version_messages": false"#, ROWS, "1,a;2,b"),
    ];
    for (schema, setting, sql, expected) in cases {
        let folder = project();
        let settings = LAKE.replace('}', &format!("{setting}}}"));
        ok(&target(&folder, &settings, &[vec![schema.to_owned()], first.to_vec()].concat()));
        ok(&target(&folder, &settings, &[vec![schema.to_owned()], second.to_vec()].concat()));
        assert_eq!(folder.query("warehouse", sql), expected, "{setting}");
    }
}

/// A tap that decides by itself to read a table anew.
fn tap(sync: &str) -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        (
            "connections.yaml",
            "tap: {connector: singer, tap: t, command: [./tap.sh]}\nout: {connector: singer, target: t, command: [./target.sh]}\n",
        ),
        ("syncs/s.yaml", sync),
        (
            "catalog.json",
            r#"{"streams": [{"tap_stream_id": "s", "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}}}, "key_properties": ["id"], "replication_method": "INCREMENTAL", "replication_key": "id"}]}"#,
        ),
        ("1", &[KEYED.to_owned(), activate(1), row(1, "a", 1), row(2, "b", 1), state(1)].join("\n")),
        ("2", &[KEYED.to_owned(), row(3, "c", 2), activate(2), state(2)].join("\n")),
        ("tap.sh", "#!/bin/sh\ncase \"$*\" in *--discover*) cat catalog.json;; *--state*) cat 2;; *) cat 1;; esac\n"),
        ("target.sh", "#!/bin/sh\ntee -a taken | sed -n 's/^{\"type\":\"STATE\",\"value\":\\(.*\\)}$/\\1/p'\n"),
    ]);
    for script in ["tap.sh", "target.sh"] {
        fs::set_permissions(folder.path().join(script), fs::Permissions::from_mode(0o755)).unwrap();
    }
    ok(&folder.trib(&["run"]));
    folder
}

fn says_that_older_rows_stay(folder: &Folder) -> bool {
    folder.trib(&["query", "--format", "csv", "select message from _trib.logs"]).out.contains("rows of the older one stay")
}

#[test]
fn a_tap_in_a_sync() {
    for (write, expected) in [("upsert", "3,c"), ("append", "1,a;2,b;3,c"), ("replace", "3,c")] {
        let read = if write == "replace" { "full" } else { "incremental" };
        let folder = tap(&format!("from: tap\ninto: raw.{{table}}\nstreams: {{s: {{read: {read}, write: {write}}}}}\n"));
        assert_eq!(folder.query("warehouse", ROWS), "1,a;2,b");
        let second = folder.trib(&["run"]);
        ok(&second);
        assert_eq!(folder.query("warehouse", ROWS), expected, "{write}: {}", second.all());
        assert_eq!(says_that_older_rows_stay(&folder), write == "append", "{write}");
    }
}

/// A target can be told of no deletion.
#[test]
fn a_tap_into_a_target() {
    let folder = tap("from: tap\nto: out\nstreams: {s: {read: incremental, write: upsert}}\n");
    ok(&folder.trib(&["run"]));
    assert_eq!(fs::read_to_string(folder.path().join("taken")).unwrap().matches("RECORD").count(), 3);
    assert!(says_that_older_rows_stay(&folder));
}

/// Records in files beside the messages: JSON Lines plain and with gzip, Parquet.
#[test]
fn batches() {
    let folder = project();
    let python = trib_testkit::python_venv::bin("lake", &["deltalake", "duckdb", "pyarrow", "moto[server]"]).unwrap().join("python");
    let write = r#"
import gzip, pyarrow as pa, pyarrow.parquet as pq
gzip.open('a.jsonl.gz', 'wt').write('{"id": 1, "v": "a", "more": 1}\n\n{"id": 2, "v": "b"}\n')
open('b.jsonl', 'w').write('{"id": 3, "v": "c"}\n{"id": "x"}\n')
pq.write_table(pa.table({'v': ['d', None], 'id': pa.array([4, 5], pa.int32()), 'more': [1.5, 2.5]}), 'c.parquet')
"#;
    let made = std::process::Command::new(python).args(["-c", write]).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let batch = |encoding: &str, file: &str| {
        let path = folder.path().join(file);
        format!(r#"{{"type": "BATCH", "stream": "s", "encoding": {encoding}, "manifest": ["file://{}"]}}"#, path.display())
    };
    let messages = [
        KEYED.to_owned(),
        batch(r#"{"format": "jsonl", "compression": "gzip"}"#, "a.jsonl.gz"),
        batch(r#"{"format": "jsonl"}"#, "b.jsonl"),
        batch(r#"{"format": "parquet", "compression": "snappy"}"#, "c.parquet"),
        row(6, "f", 1),
        state(1),
    ];
    let loaded = target(&folder, LAKE, &messages);
    assert_eq!((loaded.status, loaded.out.as_str()), (Some(0), "1\n"), "{}", loaded.err);
    assert_eq!(folder.query("warehouse", "select id, coalesce(v, '-') from raw.s order by 1"), "1,a;2,b;3,c;4,d;5,-;6,f");
    assert!(loaded.err.contains("1 row rejected"), "{}", loaded.err);
    let avro = target(&folder, LAKE, &[KEYED.to_owned(), batch(r#"{"format": "avro"}"#, "b.jsonl")]);
    assert!(avro.status != Some(0) && avro.err.contains("the encoding of a BATCH message is not known"), "{}", avro.err);
    let missing = target(&folder, LAKE, &[KEYED.to_owned(), batch(r#"{"format": "jsonl"}"#, "missing.jsonl")]);
    assert!(missing.status != Some(0) && missing.err.contains("missing.jsonl"), "{}", missing.err);
}
