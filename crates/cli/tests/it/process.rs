//! Connectors that are programs: ours, those of a wheel, and one that misbehaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, StandIn};

use crate::airbyte_destination::venv;
use crate::trib::Folder;

fn query(folder: &Folder, sql: &str) -> String {
    let said = folder.ok(&["query", sql, "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let cells = |row: &Value| {
        row.as_object().unwrap().values().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
    };
    rows.iter().map(cells).collect::<Vec<_>>().join(";")
}

/// Orders of an API, five at first.
fn api() -> StandIn {
    StandIn::start(|asked| {
        let since = asked.param("since").unwrap_or_default();
        let order = |id: i64| json!({"id": id, "total": id as f64 * 1.5, "at": format!("2026-01-0{id}T00:00:00Z"), "who": {"name": "x"}});
        Answer::json(&(1..=5).map(order).filter(|o| o["at"].as_str().unwrap() >= since.as_str()).collect::<Vec<_>>().into())
    })
}

fn manifest(url: &str) -> Value {
    json!({
        "version": "6.0.0", "type": "DeclarativeSource", "check": {"type": "CheckStream", "stream_names": ["orders"]},
        "streams": [{
            "type": "DeclarativeStream", "name": "orders", "primary_key": ["id"],
            "incremental_sync": {
                "type": "DatetimeBasedCursor", "cursor_field": "at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ", "start_datetime": "2026-01-01T00:00:00Z",
                "start_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "since"},
            },
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {"type": "HttpRequester", "url_base": url, "path": "orders", "http_method": "GET"},
                "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": []}},
            },
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {
                "id": {"type": "integer"}, "total": {"type": ["number", "null"]}, "at": {"type": "string", "format": "date-time"},
                "who": {"type": "object", "properties": {"name": {"type": "string"}}},
            }}},
        }],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    })
}

const SYNC: &str = "from: orders\ninto: raw.{table}\nstreams:\n  orders: {read: incremental, cursor: at, write: upsert}\n";

fn twice(folder: &Folder, api: &StandIn) {
    folder.ok(&["check", "orders"]);
    folder.ok(&["run"]);
    assert_eq!(query(folder, "select count(*) as n, sum(total) as t, max(at) as at from raw.orders"), "5,22.5,2026-01-05T00:00:00Z");
    api.take();
    folder.ok(&["run"]);
    let since = api.take()[0].param("since");
    assert_eq!(since.as_deref(), Some("2026-01-05T00:00:00Z"), "the second run goes on from the first");
    assert_eq!(query(folder, "select count(*) as n from raw.orders"), "5");
}

/// `trib airbyte` is an Airbyte connector: a program that this very product can call.
#[test]
fn being_both_ends() {
    let api = api();
    let trib = env!("CARGO_BIN_EXE_trib");
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        ("connections.yaml", "orders: {connector: airbyte, command: [./orders.sh]}\n"),
        ("syncs/s.yaml", SYNC),
        ("m.yaml", &manifest(&api.url()).to_string()),
        ("orders.sh", &format!("#!/bin/sh\nverb=$1; shift\nexec {trib} airbyte $verb --manifest m.yaml \"$@\"\n")),
    ]);
    fs::set_permissions(folder.path().join("orders.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    twice(&folder, &api);
    assert_eq!(query(&folder, "select distinct who from raw.orders").replace(' ', ""), "{\"name\":\"x\"}");
}

/// The Python CDK's own runner for manifests.
#[test]
fn a_manifest_in_the_python_cdk() {
    let api = api();
    let connection = json!({"orders": {
        "connector": "airbyte", "command": [venv().join("source-declarative-manifest")],
        "config": {"__injected_declarative_manifest": manifest(&api.url())},
    }});
    // In JSON, braces of a template are no variables.
    let folder = Folder::with(&[("tributary.yaml", "name: t\n"), ("connections.yaml", &connection.to_string()), ("syncs/s.yaml", SYNC)]);
    twice(&folder, &api);
}

/// A connector that people use, with a state for each stream. Its rows are the same for the same seed.
#[test]
fn a_connector_of_a_wheel() {
    let command = venv().join("source-faker");
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        (
            "connections.yaml",
            &format!(
                "faker: {{connector: airbyte, command: [{}], config: {{count: 3000, seed: 7, always_updated: false, parallelism: 2}}}}\n",
                command.display()
            ),
        ),
        ("syncs/s.yaml", "from: faker\ninto: raw.{table}\ndefaults: {read: incremental, write: upsert}\nstreams: {'*': {}}\n"),
    ]);
    folder.ok(&["check", "faker"]);
    folder.ok(&["run"]);
    let counts = "select (select count(*) from raw.users) as u, (select count(distinct id) from raw.users) as d, (select count(*) from raw.products) as p, \
                  (select count(*) from raw.purchases where user_id is null or product_id is null) as n, (select min(age) > 0 from raw.users) as a";
    assert_eq!(query(&folder, counts), "3000,3000,100,0,true");
    let again: Value = serde_json::from_str(folder.ok(&["run", "--json"]).out.lines().last().unwrap()).unwrap();
    assert_eq!(query(&folder, counts), "3000,3000,100,0,true");
    let state = folder.ok(&["state", "get", "s", "--json"]).out;
    for stream in ["users", "products", "purchases"] {
        assert!(state.contains(&format!("\"name\":\"{stream}\"")) || state.contains(&format!("\"name\": \"{stream}\"")), "{state}");
    }
    assert!(!again.to_string().contains("3000"), "nothing is new: {again}");
}

/// A connector in a few lines of shell. `record` and `say` write messages; `$file` holds the settings, and `$state` the state.
fn script(body: &str) -> Folder {
    let catalog = json!({"type": "CATALOG", "catalog": {"streams": [{
        "name": "s", "json_schema": {"properties": {"id": {"type": "integer"}, "v": {"type": "string"}}},
        "supported_sync_modes": ["full_refresh", "incremental"], "source_defined_cursor": true, "source_defined_primary_key": [["id"]],
    }]}});
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", "tap: {connector: airbyte, command: [./c.sh], config: {token: hunter2-first, pat: swordfish, other: 1}}\n"),
        ("syncs/s.yaml", "from: tap\ninto: raw.{table}\nstreams: {s: {read: incremental, cursor: _source_state, write: upsert}}\n"),
        (
            "c.sh",
            &format!(
                r#"#!/bin/sh
verb=$1; shift
while [ $# -gt 0 ]; do case $1 in --config) file=$2;; --state) state=$2;; esac; shift; done
record() {{ echo '{{"type": "RECORD", "record": {{"stream": "s", "data": {{"id": '$1', "v": "'$2'"}}, "emitted_at": 1}}}}'; }}
say() {{ echo '{{"type": "STATE", "state": {{"type": "STREAM", "stream": {{"stream_descriptor": {{"name": "s"}}, "stream_state": {{"n": '$1'}}}}}}}}'; }}
failed() {{ echo '{{"type": "TRACE", "trace": {{"type": "ERROR", "emitted_at": 1, "error": {{"message": "'"$2"'", "failure_type": "'$1'"}}}}}}'; }}
incomplete() {{ echo '{{"type": "TRACE", "trace": {{"type": "STREAM_STATUS", "emitted_at": 1, "stream_status": {{"stream_descriptor": {{"name": "s"}}, "status": "INCOMPLETE"}}}}}}'; }}
[ $verb = spec ] && echo '{{"type": "SPEC", "spec": {{"connectionSpecification": {{"properties": {{"pat": {{"airbyte_secret": true}}}}}}}}}}' && exit 0
[ $verb = discover ] && echo '{catalog}' && exit 0
[ $verb = check ] && echo '{{"type": "CONNECTION_STATUS", "connectionStatus": {{"status": "FAILED", "message": "no luck with hunter2-first"}}}}' && exit 0
{body}
"#
            ),
        ),
    ]);
    fs::set_permissions(folder.path().join("c.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn what_a_connector_says_of_its_failure() {
    for (body, code, part) in [
        ("record 1 a; failed config_error 'no such account'; exit 1", "config_invalid", "no such account"),
        ("failed transient_error later; exit 1", "unavailable", "later"),
        ("failed system_error 'broken with hunter2-first and swordfish'", "system_error", "broken with *** and ***"),
        ("record 1 a; incomplete; failed system_error why; exit 1", "system_error", "why"),
        ("record 1 a; incomplete", "system_error", "not come to the stream's end"),
        ("echo 'Traceback: no' >&2; exit 3", "system_error", "exit status: 3"),
        ("echo '{\"type\": \"RECORD\", \"record\": {\"stream\": \"s\"}}'", "data_invalid", "`data` of a RECORD"),
        ("kill -9 $$", "system_error", "signal: 9"),
    ] {
        let folder = script(body);
        let said = folder.trib(&["run", "--json"]);
        assert_ne!(said.status, Some(0), "{body}: {}", said.all());
        assert!(said.all().contains(code) && said.all().contains(part), "{body}: {}", said.all());
        assert!(!said.all().contains("hunter2") && !said.all().contains("swordfish"), "{}", said.all());
        let none = folder.trib(&["query", "select count(*) as n from raw.s", "--json"]);
        assert!(none.status != Some(0) || none.out.contains('0'), "rows of a read that has failed are not there: {}", none.all());
    }
    let said = script("").trib(&["check", "tap"]);
    assert!(said.all().contains("no luck with ***"), "{}", said.all());
}

/// Lines that are no messages are for people; rows that do not fit are set aside; state goes in and out.
#[test]
fn odd_output_is_taken_as_it_is_meant() {
    let folder = script(
        r#"echo 'Starting up, with hunter2-first'
echo '{"type": "LOG", "log": {"level": "WARN", "message": "slow with hunter2-first"}}'
echo '{"type": "TRACE", "trace": {"type": "STREAM_STATUS", "stream_status": {"status": "STARTED"}}}'
echo '{"type": "SOMETHING", "new": 1}'
if [ -z "$state" ]; then record 1 a; record '"x"' b; say 1; record 2 c; say 2; else grep -q '"n":2' $state && record 3 d; say 3; fi
printf '{"type": "RECORD", "record": {"stream": "nobody_asked", "data": {"id": 9}}}'"#,
    );
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    assert_eq!(query(&folder, "select id, v from raw.s order by 1"), "1,a;2,c");
    assert!(folder.ok(&["rejected", "list", "--json"]).out.contains("is no integer"));
    folder.ok(&["run"]);
    assert_eq!(query(&folder, "select id, v from raw.s order by 1"), "1,a;2,c;3,d");
    assert!(
        folder.ok(&["state", "get", "s"]).out.contains("\"n\": 3") || folder.ok(&["state", "get", "s", "--json"]).out.contains("\"n\":3")
    );
    for file in folder.files().into_iter().filter(|f| !f.ends_with("connections.yaml")) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2") || file.ends_with("c.sh"), "{} holds the token", file.display());
    }
}

/// A refresh token that is good for one use: the new one is kept, sealed, and used by the next run.
#[test]
fn new_settings_are_kept() {
    let folder = script(
        r#"n=$(sed 's/.*"token":"\([^"]*\)".*/\1/' $file); echo "$n" >> used
echo '{"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", "emitted_at": 1, "connectorConfig": {"config": {"token": "'$n+'", "pat": "swordfish", "other": 1}}}}'
record 1 a; say 1"#,
    );
    for _ in 0..3 {
        folder.ok(&["run"]);
    }
    let used = fs::read_to_string(folder.path().join("used")).unwrap();
    assert_eq!(used.lines().collect::<Vec<_>>(), ["hunter2-first", "hunter2-first+", "hunter2-first++"]);
    for file in folder.files().into_iter().filter(|f| f.components().any(|c| c.as_os_str() == ".tributary")) {
        assert!(!fs::read(&file).unwrap().windows(7).any(|w| w == b"hunter2"), "{} holds the token", file.display());
    }
    // What the user writes anew counts.
    let text = fs::read_to_string(folder.path().join("connections.yaml")).unwrap();
    folder.write("connections.yaml", &text.replace("hunter2-first", "hunter2-new"));
    folder.ok(&["run"]);
    assert!(fs::read_to_string(folder.path().join("used")).unwrap().ends_with("hunter2-new\n"));
}

/// One state for all streams goes back as it came.
#[test]
fn a_state_of_all_streams() {
    let folder = script(
        r#"[ -z "$state" ] || cp $state given
record 1 a
echo '{"type": "STATE", "state": {"type": "GLOBAL", "global": {"shared_state": {"lsn": 7}, "stream_states": [{"stream_descriptor": {"name": "s"}, "stream_state": {"n": 1}}]}, "sourceStats": {"recordCount": 1}}}'"#,
    );
    folder.ok(&["run"]);
    assert!(!folder.path().join("given").exists());
    folder.ok(&["run"]);
    let given: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("given")).unwrap()).unwrap();
    let states = json!([{"stream_descriptor": {"name": "s"}, "stream_state": {"n": 1}}]);
    assert_eq!(given, json!([{"type": "GLOBAL", "global": {"shared_state": {"lsn": 7}, "stream_states": states}}]));
}

/// What a connector was given, and what it has started, is gone when the run is over, well or not.
#[test]
fn nothing_is_left_behind() {
    for (end, status) in [("exit 0", 0), ("exit 3", 1)] {
        let folder =
            script(&format!("stat -c '%a %n' $file >> files; sleep 1000 >/dev/null 2>&1 & echo $! >> pids; record 1 a; say 1; {end}"));
        assert_eq!(folder.trib(&["run"]).status, Some(status));
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for line in read("files").lines() {
            let path = line.strip_prefix("600 ").unwrap_or_else(|| panic!("readable by others: {line}"));
            assert!(!PathBuf::from(path).exists(), "{path}");
        }
        for pid in read("pids").lines() {
            let alive = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            assert!(!alive, "{pid} still runs");
        }
    }
}

/// An image is run by Docker; here by a stand-in for it that runs the program itself.
#[test]
fn an_image() {
    let mut folder = script("env | grep '^KEY=' > key; record 1 a; say 1");
    folder.write(
        "bin/docker",
        "#!/bin/sh\necho \"$@\" >> calls\n[ $1 = run ] || exit 0\nwhile [ $1 != own/image:1 ]; do shift; done\nshift\nexec ./c.sh \"$@\"\n",
    );
    fs::set_permissions(folder.path().join("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
    folder.write(
        "connections.yaml",
        "tap: {connector: airbyte, image: 'own/image:1', config: {token: hunter2-first}, env: {KEY: hunter2-env}}\n",
    );
    folder.set("PATH", &format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap()));
    folder.ok(&["run"]);
    assert_eq!(query(&folder, "select id, v from raw.s"), "1,a");
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
    assert!(
        calls
            .lines()
            .filter(|call| !call.starts_with("ps "))
            .all(|call| call.starts_with("run --rm --init --name trib-") && call.contains("--env KEY own/image:1")),
        "{calls}"
    );
    assert!(!calls.contains("hunter2"), "{calls}");
    assert_eq!(fs::read_to_string(folder.path().join("key")).unwrap(), "KEY=hunter2-env\n");
}
