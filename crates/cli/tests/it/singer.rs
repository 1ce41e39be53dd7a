//! Taps as sources and targets as destinations: real ones from PyPI, and scripts that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::{Folder, ok};

/// A tap whose catalog has one stream, and that otherwise does what the script says. `$state` is the file of the state, if there is one.
fn tap(script: &str) -> Folder {
    tap_with(script, "append")
}

fn tap_with(script: &str, write: &str) -> Folder {
    let head = r#"#!/bin/sh
case "$*" in *--discover*) cat catalog.json; exit 0;; esac
while [ $# -gt 0 ]; do case "$1" in --state) state=$2;; --config) config=$2;; --catalog) catalog=$2;; esac; shift; done
schema() { echo '{"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}}}, "key_properties": ["id"]}'; }
record() { echo '{"type": "RECORD", "stream": "s", "record": {"id": '$1', "v": "'$2'"}}'; }
state() { echo '{"type": "STATE", "value": {"at": '$1'}}'; }
"#;
    let sync = format!("from: tap\nstreams: {{s: {{read: incremental, write: {write}}}}}\n");
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}, stall_timeout: 10s}}\n"),
        ("connections.yaml", "tap: {connector: singer, tap: t, command: [./tap.sh], config: {password: hunter2-hunter2}}\n"),
        ("syncs/s.yaml", &sync),
        (
            "catalog.json",
            r#"{"streams": [{"tap_stream_id": "s", "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}}}, "key_properties": ["id"], "replication_method": "INCREMENTAL", "replication_key": "id"}]}"#,
        ),
    ]);
    say(&folder, head, script);
    folder
}

fn say(folder: &Folder, head: &str, script: &str) {
    folder.write("tap.sh", &format!("{head}\n{script}\n"));
    fs::set_permissions(folder.path().join("tap.sh"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn query(folder: &Folder, sql: &str) -> String {
    folder.query("warehouse", sql)
}

/// Processes whose command line holds this text.
fn running(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|e| fs::read(e.ok()?.path().join("cmdline")).ok());
    processes.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

#[test]
fn state_goes_on_and_secrets_stay() {
    let folder = tap(r#"
at=0; [ -n "$state" ] && at=$(sed 's/[^0-9]//g' "$state")
echo "INFO at $at with $(cat "$config")" >&2
echo '{"level": "error", "message": "something odd"}' >&2
stat -c %a "$config" > mode; echo "$config" > where
grep -q '"selected":true' "$catalog" || exit 9
state $at
schema; record $((at+1)) a; record $((at+2)) b; state $((at+2))
"#);
    ok(&folder.trib(&["run"]));
    ok(&folder.trib(&["run"]));
    assert_eq!(query(&folder, "select id from tap.s order by 1"), "1;2;3;4");
    let state = folder.trib(&["state", "get", "s"]).out;
    assert!(state.contains(r#""at": 4"#), "{state}");
    assert_eq!(fs::read_to_string(folder.path().join("mode")).unwrap(), "600\n");
    let config = fs::read_to_string(folder.path().join("where")).unwrap();
    assert!(!fs::exists(config.trim()).unwrap());
    let logs = folder.trib(&["query", "--format", "csv", "select level, message from _trib.logs"]).out;
    assert!(logs.contains("INFO at 2 with") && logs.contains("***") && logs.contains("error,something odd"), "{logs}");
    for file in folder.files() {
        let planted = file.ends_with("connections.yaml");
        let bytes = fs::read(&file).unwrap();
        assert!(planted || !bytes.windows(15).any(|w| w == b"hunter2-hunter2"), "{}", file.display());
    }
}

/// What a tap can do wrong: its script, the exit status, and what is said about it.
#[test]
fn taps_that_misbehave() {
    let cases: &[(&str, i32, &str)] = &[
        ("schema; record 1 a; state 1; echo boom hunter2-hunter2 >&2; exit 3", 1, "boom ***"),
        ("schema; record 1 a; echo Loading...; record 2 b", 1, "Loading..."),
        ("schema; record 1 a; echo '{\"type\": \"RECORD\", \"stream\": \"s\", \"record\": {\"id\": 1'", 1, "line 3"),
        ("schema; record 1 a; kill -9 $$", 1, "signal: 9"),
        ("schema; record 1 a; sleep 4321 & sleep 4321", 1, "stall_timeout"),
        ("exit 0", 0, ""),
        ("schema; state 0", 0, ""),
    ];
    for (script, status, expected) in cases {
        let folder = tap(script);
        let began = Instant::now();
        let said = folder.trib(&["run"]);
        assert_eq!(said.status, Some(*status), "{script}: {}", said.all());
        assert!(said.all().contains(expected), "{script}: {}", said.all());
        assert!(!said.all().contains("hunter2"), "{script}");
        assert_eq!(folder.trib(&["query", "select * from tap.s"]).status, Some(2), "{script}: nothing is visible");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    while running("sleep\x004321") > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn much_of_everything() {
    let folder = tap(r#"
(yes 'DEBUG a long line that says nothing at all, again and again' | head -n 300000) >&2
schema
printf '{"type": "RECORD", "stream": "s", "record": {"id": 1, "v": "'; head -c 50000000 /dev/zero | tr '\0' x; echo '"}}'
record 2 b; state 2
"#);
    ok(&folder.trib(&["run"]));
    assert_eq!(query(&folder, "select id, length(v) from tap.s order by 1"), "1,50000000;2,1");
}

/// A column that comes while the tap runs is loaded as the contract says.
#[test]
fn a_schema_changes_in_mid_stream() {
    let folder = tap_with(
        r#"
schema; record 1 a; state 1
echo '{"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}, "w": {"type": "number"}}}, "key_properties": ["id"]}'
echo '{"type": "RECORD", "stream": "s", "record": {"id": 2, "v": "b", "w": 1.5}}'; state 2
"#,
        "upsert",
    );
    ok(&folder.trib(&["run"]));
    assert_eq!(query(&folder, "select id, v, w from tap.s order by 1"), "1,a,;2,b,1.5");
}

/// A tap of the SDK reads a real database, in full and by its own bookmark; what arrives is what is there.
#[test]
fn a_real_tap() {
    let bin = trib_testkit::python_venv::bin("tap-postgres", &["meltanolabs-tap-postgres==0.10.0"]).unwrap();
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let rows = "select i, i * 1.01, 'n\"' || i, '2024-01-01T00:00:00Z'::timestamptz + i * interval '1 minute', i % 2 = 0, jsonb_build_object('a', i), array['x', 'y'] from generate_series";
    server
        .sql(
            &database,
            &format!(
                "create table orders (id bigint primary key, amount numeric(12, 2), note text, at timestamptz, ok boolean, j jsonb, tags text[]);
                 create table customers (id int primary key, name text);
                 insert into customers select i, 'c' || i from generate_series(1, 50) i;
                 insert into orders {rows}(1, 1000) i"
            ),
        )
        .unwrap();
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        (
            "connections.yaml",
            &format!(
                "tap:\n  connector: singer\n  tap: tap-postgres\n  command: [{}]\n  config: {{sqlalchemy_url: \"${{URL}}\", filter_schemas: [public]}}\n  \
                 schema: {{public-orders: {{amount: {{type: [number, \"null\"], multipleOf: 0.01}}}}}}\n",
                bin.join("tap-postgres").display()
            ),
        ),
        ("syncs/s.yaml", "from: tap\ninto: raw.{table}\nstreams:\n  public-orders: {cursor: id}\n  public-customers: {}\n"),
    ]);
    folder.set("URL", &server.url(&database).replace("postgres://", "postgresql://"));
    let sums = "select count(*), sum(amount), sum(length(note)), max(at), count(j), count(tags) from raw.orders";
    ok(&folder.trib(&["run"]));
    assert_eq!(query(&folder, sums), "1000,505505.00,4893,2024-01-01T16:40:00Z,1000,1000");
    server.sql(&database, &format!("insert into orders {rows}(1001, 1010) i; delete from customers where id > 10")).unwrap();
    let said = folder.trib(&["run", "--json"]);
    ok(&said);
    let summary: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    let orders = summary["streams"].as_array().unwrap().iter().find(|s| s["stream"] == "public-orders").unwrap();
    // The bookmark's own row comes again.
    assert_eq!((&orders["rows_read"], &orders["inserted"]), (&11.into(), &10.into()), "{orders}");
    assert_eq!(query(&folder, sums), "1010,515660.55,4953,2024-01-01T16:50:00Z,1010,1010");
    assert_eq!(query(&folder, "select count(*) from raw.customers"), "10");
}

/// A target gets SCHEMA, RECORD and STATE, and what it does not confirm is not done.
#[test]
fn a_target() {
    let bin = trib_testkit::python_venv::bin("target-jsonl", &["target-jsonl==0.1.4"]).unwrap();
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        (
            "connections.yaml",
            &format!(
                "in: {{connector: files, path: in}}\nout: {{connector: singer, target: target-jsonl, command: [{}], config: {{destination_path: .}}}}\n\
                 dies: {{connector: singer, target: dies, command: [./dies.sh]}}\nsilent: {{connector: singer, target: silent, command: [./silent.sh]}}\n\
                 hangs: {{connector: singer, target: hangs, command: [./hangs.sh], stall_timeout: 1}}\n",
                bin.join("target-jsonl").display()
            ),
        ),
        ("in/orders.jsonl", "{\"id\": 1, \"amount\": 10.25, \"tags\": [\"a\"]}\n{\"id\": 2, \"amount\": null, \"tags\": []}\n"),
        (
            "syncs/out.yaml",
            "from: in\nto: out\ninto: raw.{table}\nstreams: {\"*\": {read: incremental, write: append, columns: {amount: {cast: \"decimal(10, 2)\"}}}}\n",
        ),
        ("syncs/dies.yaml", "from: in\nto: dies\nstreams: {\"*\": {read: incremental, write: append}}\n"),
        ("syncs/silent.yaml", "from: in\nto: silent\nstreams: {\"*\": {read: incremental, write: append}}\n"),
        ("syncs/hangs.yaml", "from: in\nto: hangs\nstreams: {\"*\": {read: incremental, write: append}}\n"),
    ]);
    for (name, script) in
        [("dies", "head -n 1 >/dev/null; echo no room >&2; exit 4"), ("silent", "cat >/dev/null"), ("hangs", "sleep 8765")]
    {
        folder.write(&format!("{name}.sh"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(folder.path().join(format!("{name}.sh")), fs::Permissions::from_mode(0o755)).unwrap();
    }
    ok(&folder.trib(&["run", "out"]));
    ok(&folder.trib(&["run", "out"]));
    let written = folder.files().into_iter().find(|f| f.to_string_lossy().contains("raw-orders")).unwrap();
    let lines: Vec<serde_json::Value> = fs::read_to_string(written).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["id"], &lines[0]["amount"], &lines[0]["tags"]), (&1.into(), &10.25.into(), &serde_json::json!(["a"])));
    for (name, expected) in [("dies", "no room"), ("silent", "without giving the STATE back"), ("hangs", "stopped working")] {
        let said = folder.trib(&["run", name]);
        assert_eq!(said.status, Some(1), "{name}: {}", said.all());
        assert!(said.all().contains(expected), "{name}: {}", said.all());
    }
    while running("sleep\x008765") > 0 {
        std::thread::yield_now();
    }
}

/// Our tap into our target: what comes out is what went in.
#[test]
fn being_both() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        ("connections.yaml", "in: {connector: files, path: in}\n"),
        ("in/orders.csv", "id,amount,note\n1,10.25,a\n2,,\"b\n\"\"c\"\"\"\n"),
    ]);
    let catalog = folder.trib(&["tap", "in", "--discover"]);
    ok(&catalog);
    let mut catalog: serde_json::Value = serde_json::from_str(&catalog.out).unwrap();
    catalog["streams"][0]["metadata"][0]["metadata"]["selected"] = true.into();
    folder.write("catalog.json", &catalog.to_string());
    let messages = folder.trib(&["tap", "in", "--catalog", "catalog.json"]);
    ok(&messages);
    folder.write("messages", &messages.out);
    let mut target = folder.command(&["target", "--to", "warehouse", "--schema", "raw"]);
    let loaded = crate::trib::said(target.stdin(fs::File::open(folder.path().join("messages")).unwrap()).output().unwrap());
    ok(&loaded);
    assert!(loaded.out.contains("bookmarks"), "{}", loaded.out);
    let table = catalog["streams"][0]["tap_stream_id"].as_str().unwrap().replace('-', "_");
    assert_eq!(query(&folder, &format!("select count(*), sum(amount), sum(length(note)) from raw.{table}")), "2,10.25,6");
}
