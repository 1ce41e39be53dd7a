//! Airbyte destinations: one from a package, one made with the Python CDK, and one that misbehaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::trib::Folder;

/// Packages of the tests that need the Python CDK. They share an environment.
pub fn venv() -> PathBuf {
    trib_testkit::python_venv::bin("airbyte", &["airbyte-source-faker==7.2.1", "airbyte-destination-ailake==0.1.16", "ailake==0.1.18"])
        .unwrap()
}

const ORDERS: &str = "{\"id\": 1, \"note\": \"a\", \"total\": 10.25}\n{\"id\": 2, \"note\": \"b \\\"c\\\"\", \"total\": null}\n";
const MORE: &str = "{\"id\": 2, \"note\": \"later\", \"total\": 3.5}\n{\"id\": 2, \"note\": \"last\", \"total\": 4.5}\n{\"id\": 3, \"note\": null, \"total\": 1}\n";

/// A folder with files to load, and a connection `out`.
fn project(out: &Value, streams: &str) -> Folder {
    let sync = format!("from: in\nto: out\ninto: raw.{{table}}\nstreams:\n{streams}");
    Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", &json!({"in": {"connector": "files", "path": "in"}, "out": out}).to_string()),
        ("syncs/s.yaml", &sync),
        ("in/orders.jsonl", ORDERS),
    ])
}

/// An embedding destination that people use, with a program of ours in place of a model: its tables are folders of Parquet.
#[test]
fn a_destination_of_a_package() {
    let embed = "import json, sys\nprint(json.dumps([[float(len(t)), 1.0] for t in json.load(sys.stdin)]))\n";
    let command = json!([venv().join("airbyte-destination-ailake")]);
    let folder = project(&json!({}), "  orders: {read: incremental, write: append}\n");
    folder.write("embed.py", embed);
    let config = json!({
        "table_base_path": folder.path().join("tables"), "embed_mode": "cmd", "embed_cmd": format!("python3 {}", folder.path().join("embed.py").display()),
        "embedding_dim": 2, "text_field": "note",
    });
    let parquet = json!({"connector": "files", "path": "tables/orders/data"});
    let connections = json!({
        "in": {"connector": "files", "path": "in"}, "out": {"connector": "airbyte", "command": command, "config": config}, "parquet": parquet,
    });
    folder.write("connections.yaml", &connections.to_string());
    folder.ok(&["check", "out"]);
    folder.ok(&["run", "s"]);
    folder.write("syncs/back.yaml", "from: parquet\ninto: raw.back\nstreams: {'*': {select: [id, total], write: replace}}\n");
    folder.ok(&["run", "back"]);
    assert_eq!(folder.query("warehouse", "select id, total from raw.back order by id"), "1,10.25;2,");
}

/// The Python CDK's own class for destinations, into SQLite. Lines are kept as they came.
const OWN: &str = r#"
import json, sqlite3, sys
from airbyte_cdk.destinations import Destination
from airbyte_cdk.models import AirbyteConnectionStatus, ConnectorSpecification, DestinationSyncMode, Status, Type

class Own(Destination):
    def spec(self, *args):
        modes = [DestinationSyncMode.append, DestinationSyncMode.overwrite, DestinationSyncMode.append_dedup]
        properties = {"path": {"type": "string"}, "pin": {"type": "string", "airbyte_secret": True}}
        schema = {"type": "object", "properties": properties, "required": ["path"]}
        return ConnectorSpecification(connectionSpecification=schema, supported_destination_sync_modes=modes)

    def check(self, logger, config):
        return AirbyteConnectionStatus(status=Status.SUCCEEDED)

    def _parse_input_stream(self, lines):
        with open("lines", "a") as kept:
            for line in lines:
                kept.write(line)
                yield from super()._parse_input_stream([line])

    def write(self, config, configured_catalog, input_messages):
        db = sqlite3.connect(config["path"])
        keys = {}
        for stream in configured_catalog.streams:
            name = stream.stream.namespace + "_" + stream.stream.name
            keys[name] = stream.destination_sync_mode == DestinationSyncMode.append_dedup and stream.primary_key[0][0]
            if stream.destination_sync_mode == DestinationSyncMode.overwrite:
                assert stream.generation_id == stream.minimum_generation_id > 0
                db.execute(f"drop table if exists {name}")
            else:
                assert stream.minimum_generation_id == 0
            db.execute(f"create table if not exists {name} (id, record)")
        for message in input_messages:
            if message.type == Type.RECORD:
                record = message.record
                name = record.namespace + "_" + record.stream
                if keys[name]:
                    db.execute(f"delete from {name} where id = ?", [record.data[keys[name]]])
                db.execute(f"insert into {name} values (?, ?)", [record.data["id"], json.dumps(record.data)])
            elif message.type == Type.STATE:
                db.commit()
                yield message
        db.commit()

if __name__ == "__main__":
    Own().run(sys.argv[1:])
"#;

fn own(write: &str) -> Folder {
    let out =
        json!({"connector": "airbyte", "command": [venv().join("python"), "own.py"], "config": {"path": "out.db", "pin": "swordfish"}});
    let folder = project(&out, &format!("  orders: {{key: [id], write: {write}, columns: {{total: {{cast: \"decimal(20, 2)\"}}}}}}\n"));
    folder.write("own.py", OWN);
    folder
}

fn held(folder: &Folder) -> Vec<Value> {
    let query =
        "import sqlite3\nfor (r,) in sqlite3.connect('out.db').execute('select record from raw_orders order by id, rowid'): print(r)";
    let said = std::process::Command::new("python3").args(["-c", query]).current_dir(folder.path()).output().unwrap();
    String::from_utf8(said.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn notes(folder: &Folder) -> Vec<(i64, Value)> {
    held(folder).into_iter().map(|mut r| (r["id"].as_i64().unwrap(), r["note"].take())).collect()
}

/// What a table holds after each way to write, as the destination was told to.
#[test]
fn each_way_to_write() {
    let first = || vec![(1, json!("a")), (2, json!("b \"c\""))];
    let second = || vec![(2, json!("later")), (2, json!("last")), (3, Value::Null)];
    for (write, expected) in [
        ("replace", second()),
        ("append, duplicates: allow", [first(), second()].concat()),
        ("upsert", vec![(1, json!("a")), (2, json!("last")), (3, Value::Null)]),
    ] {
        let folder = own(write);
        folder.ok(&["run"]);
        assert_eq!(notes(&folder), first(), "{write}");
        folder.write("in/orders.jsonl", MORE);
        folder.ok(&["run"]);
        let mut held = notes(&folder);
        held.sort_by_key(|(id, _)| *id);
        let mut expected = expected;
        expected.sort_by_key(|(id, _)| *id);
        assert_eq!(held, expected, "{write}");
        let lines = fs::read_to_string(folder.path().join("lines")).unwrap();
        assert!(lines.contains(r#""total":10.25,"#) && lines.contains(r#""status":"COMPLETE""#), "{lines}");
        // The last row of a key is the only one that is handed over.
        assert_eq!(lines.contains("later"), write != "upsert", "{lines}");
    }
    // No rows empty the table.
    let folder = own("replace, where: \"id > 0\"");
    folder.ok(&["check", "out"]);
    folder.ok(&["run"]);
    folder.write("in/orders.jsonl", "{\"id\": 0, \"note\": \"a\", \"total\": 10.25}\n");
    let said = folder.trib(&["run", "--allow-empty"]);
    assert_eq!((said.status, held(&folder).len()), (Some(0), 0), "{}", said.all());
}

/// A destination in plain Python that does what its settings say. It notes what it was given.
const ODD: &str = r#"
import glob, json, os, signal, subprocess, sys, time
args = dict(zip(sys.argv[2::2], sys.argv[3::2]))
config = json.load(open(args["--config"])) if "--config" in args else {}
how = config.get("how", "")
def say(**message): print(json.dumps(message), flush=True)
def trace(kind, text): say(type="TRACE", trace={"type": "ERROR", "emitted_at": 1, "error": {"message": text, "failure_type": kind}})
if sys.argv[1] == "spec":
    say(type="SPEC", spec={"connectionSpecification": {"properties": {"pin": {"airbyte_secret": True}}}, "supported_destination_sync_modes": config.get("modes", ["append"])})
    sys.exit()
if sys.argv[1] == "check":
    say(type="CONNECTION_STATUS", connectionStatus={"status": "FAILED", "message": "wrong pin: " + config["pin"]})
    sys.exit()
with open("files", "a") as files: files.write(oct(os.stat(args["--config"]).st_mode)[-3:] + " " + args["--config"] + "\n")
# Nothing stops what it has started when `trib` is killed with -9.
if how != "kills":
  with open("pids", "a") as pids: pids.write(str(subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL).pid) + "\n")
if how == "hangs": time.sleep(1000)
if how == "reads_no_more": os.close(0); time.sleep(1000)
if how == "dies": print("no room for", config["pin"], file=sys.stderr); sys.exit(4)
if how == "is_killed": os.kill(os.getpid(), signal.SIGKILL)
states = 0
for line in sys.stdin:
    open("lines", "a").write(line)
    message = json.loads(line)
    if message["type"] != "STATE" or how == "forgets": continue
    states += 1
    if how == "half" and states == 2: trace("transient_error", "full of " + config["pin"]); sys.exit(1)
    while how == "kills" and states == 2:
        # The first state has to be noted before.
        if glob.glob(".tributary/airbyte/out/stage/*/*/confirmed.json"): os.kill(os.getppid(), signal.SIGKILL); sys.exit()
    say(**message)
if how == "never_ends": time.sleep(1000)
if how == "config": trace("config_error", "no such table for " + config["pin"])
if how == "fails_late": sys.exit(7)
"#;

/// A source of two streams, whose rows are loaded together.
const TAP: &str = r#"
import json, sys
def say(**message): print(json.dumps(message))
rows = {"orders": [1, 2], "users": [7]}
if sys.argv[1] == "spec": say(type="SPEC", spec={"connectionSpecification": {}})
if sys.argv[1] == "discover":
    def stream(name): return {"name": name, "json_schema": {"properties": {"id": {"type": "integer"}}}, "supported_sync_modes": ["incremental"], "source_defined_cursor": True}
    say(type="CATALOG", catalog={"streams": [stream(name) for name in rows]})
if sys.argv[1] == "read":
    for name in rows:
        for id in [] if "--state" in sys.argv else rows[name]:
            say(type="RECORD", record={"stream": name, "data": {"id": id}, "emitted_at": 1})
        say(type="STATE", state={"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": {"done": True}}})
"#;

fn odd(how: &str) -> Folder {
    let folder = project(&json!({}), "  '*': {read: incremental, cursor: _source_state, write: append}\n");
    connect(&folder, json!({"command": ["python3", "odd.py"], "config": {"how": how, "pin": "swordfish"}, "stall_timeout": 2}));
    folder.write("tap.py", TAP);
    folder.write("odd.py", ODD);
    folder
}

fn connect(folder: &Folder, mut out: Value) {
    out["connector"] = "airbyte".into();
    let tap = json!({"connector": "airbyte", "command": ["python3", "tap.py"]});
    folder.write("connections.yaml", &json!({"in": tap, "out": out}).to_string());
}

fn behave(folder: &Folder, how: &str) {
    let text = fs::read_to_string(folder.path().join("connections.yaml")).unwrap();
    let mut connections: Value = serde_json::from_str(&text).unwrap();
    connections["out"]["config"]["how"] = how.into();
    folder.write("connections.yaml", &connections.to_string());
}

/// Ids of the records that a destination got, in their order.
fn given(folder: &Folder) -> Vec<i64> {
    let lines = fs::read_to_string(folder.path().join("lines")).unwrap_or_default();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|m| m.pointer("/record/data/id")?.as_i64()).collect()
}

fn nothing_is_left(folder: &Folder) {
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    for line in read("files").lines() {
        let path = line.strip_prefix("600 ").unwrap_or_else(|| panic!("readable by others: {line}"));
        assert!(!Path::new(path).exists(), "{path}");
    }
    for pid in read("pids").lines() {
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::yield_now();
        }
    }
    for file in folder.files().into_iter().filter(|f| !f.ends_with("connections.yaml")) {
        assert!(!fs::read(&file).unwrap().windows(9).any(|w| w == b"swordfish"), "{} holds the secret", file.display());
    }
}

/// Whatever a destination does, it is said clearly; nothing is taken for loaded, and the next run hands it over.
#[test]
fn destinations_that_misbehave() {
    for (how, code, part) in [
        ("hangs", "stalled", "it does not end"),
        ("reads_no_more", "stalled", "it does not end"),
        ("never_ends", "stalled", "it does not end"),
        ("dies", "system_error", "no room for ***"),
        ("is_killed", "system_error", "signal: 9"),
        ("fails_late", "system_error", "exit status: 7"),
        ("forgets", "system_error", "without giving the STATE back"),
        ("config", "config_invalid", "no such table for ***"),
    ] {
        let folder = odd(how);
        let said = folder.trib(&["run", "--json"]);
        assert_ne!(said.status, Some(0), "{how}: {}", said.all());
        assert!(said.all().contains(code) && said.all().contains(part), "{how}: {}", said.all());
        assert!(!said.all().contains("swordfish"), "{how}: {}", said.all());
        nothing_is_left(&folder);
        let before = given(&folder).len();
        behave(&folder, "");
        folder.ok(&["run"]);
        let mut after = given(&folder).split_off(before);
        after.sort_unstable();
        // What was confirmed before it failed is not handed over again.
        let again = if matches!(how, "config" | "fails_late" | "never_ends") { vec![] } else { vec![1, 2, 7] };
        assert_eq!(after, again, "{how}");
        nothing_is_left(&folder);
    }
    let said = odd("").trib(&["check", "out"]);
    assert!(said.status != Some(0) && said.all().contains("wrong pin: ***"), "{}", said.all());
    let folder = odd("");
    folder
        .write("syncs/s.yaml", "from: in\nto: out\nstreams: {'*': {key: [id], read: incremental, cursor: _source_state, write: upsert}}\n");
    let said = folder.trib(&["run"]);
    assert!(said.status != Some(0) && said.all().contains("append_dedup") && given(&folder).is_empty(), "{}", said.all());
}

/// Half of a load is confirmed, then the destination fails, or takes `trib` with it: the rest is handed over by the next run, and nothing twice.
#[test]
fn what_is_confirmed_is_not_handed_over_again() {
    for how in ["half", "kills"] {
        let folder = odd(how);
        let said = folder.trib(&["run"]);
        assert_ne!(said.status, Some(0), "{how}: {}", said.all());
        assert!(how == "kills" || said.all().contains("full of ***"), "{}", said.all());
        let first = given(&folder);
        behave(&folder, "");
        folder.ok(&["run"]);
        // The tables' order is the sync's affair: what the first of them had is not there again.
        let again = given(&folder).split_off(first.len());
        let expected = if first[0] == 7 { vec![1, 2] } else { vec![7] };
        assert_eq!(again, expected, "{how}: {first:?}");
        let total = given(&folder).len();
        folder.ok(&["run"]);
        assert_eq!(given(&folder).len(), total, "all of it is loaded");
    }
}

/// An image reads what it is given; here a stand-in for Docker runs the program itself.
#[test]
fn an_image() {
    let mut folder = odd("");
    folder.write(
        "bin/docker",
        "#!/bin/sh\necho \"$@\" >> calls\n[ $1 = run ] || exit 0\nwhile [ $1 != own/image:1 ]; do shift; done\nshift\nexec python3 odd.py \"$@\"\n",
    );
    fs::set_permissions(folder.path().join("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
    connect(&folder, json!({"image": "own/image:1", "config": {"how": "", "pin": "swordfish"}}));
    folder.set("PATH", &format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap()));
    folder.ok(&["run"]);
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
    let interactive = calls.lines().filter(|call| call.starts_with("run --interactive --rm"));
    assert!(interactive.count() == 1 && given(&folder).len() == 3, "{calls}");
}
