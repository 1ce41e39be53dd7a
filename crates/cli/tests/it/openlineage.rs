//! Events of OpenLineage: as its own client knows them, in a file and at an endpoint, and without harm to a run that cannot deliver them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::trib::Folder;

const KEY: &str = "0pen-l1neage-key";

/// The official JSON Schemas are in no package. The classes of the official client are made from them, one for each facet, with the address of the
/// schema, all fields and their types: every event is read into them, and nothing may be left over or missing.
const CHECK: &str = r#"
import importlib, inspect, json, pkgutil, sys, types, typing, uuid
import attr
from dateutil import parser
import openlineage.client.generated as generated
from openlineage.client.generated import base

modules = [importlib.import_module(f"{generated.__name__}.{m.name}") for m in pkgutil.iter_modules(generated.__path__)]
facets = {}
for module in modules:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if issubclass(cls, base.BaseFacet) and cls.__module__ == module.__name__:
            facets[cls._get_schema()] = cls

def hints(cls):
    return typing.get_type_hints(cls)

def fits(value, kind, where):
    origin = typing.get_origin(kind)
    if kind is typing.Any:
        return
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None:
            assert type(None) in options, where
            return
        for option in options:
            if option is not type(None):
                fits(value, option, where)
                return
    if origin is list:
        assert isinstance(value, list), (where, value)
        for i, item in enumerate(value):
            fits(item, typing.get_args(kind)[0], f"{where}[{i}]")
    elif origin is dict:
        assert isinstance(value, dict), (where, value)
        of = typing.get_args(kind)[1]
        for key, item in value.items():
            if inspect.isclass(of) and issubclass(of, base.BaseFacet):
                cls = facets.get(item["_schemaURL"])
                assert cls is not None, (where, key, item["_schemaURL"])
                assert issubclass(cls, of), (where, key, cls, of)
                seen.add(key)
                fits(item, cls, f"{where}.{key}")
            else:
                fits(item, of, f"{where}.{key}")
    elif attr.has(kind):
        known = hints(kind)
        for a in attr.fields(kind):
            if a.default is attr.NOTHING:
                assert a.name in value, (where, "misses", a.name)
        for key, item in value.items():
            assert key in known, (where, "does not know", key)
            fits(item, known[key], f"{where}.{key}")
    elif inspect.isclass(kind) and issubclass(kind, base.EventType):
        kind(value)
    else:
        assert isinstance(value, kind) and not (kind is int and isinstance(value, bool)), (where, kind, value)

seen = set()
count = 0
for line in open(sys.argv[1]):
    event = json.loads(line)
    assert event["schemaURL"] == base.RunEvent._get_schema(), event["schemaURL"]
    fits(event, base.RunEvent, "event")
    uuid.UUID(event["run"]["runId"])
    assert parser.isoparse(event["eventTime"]).tzinfo is not None
    count += 1
print(count, *sorted(seen))
"#;

/// Takes what is posted, and answers with a status.
fn endpoint(status: u16) -> (u16, Arc<Mutex<Vec<(String, String)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let into = taken.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            let into = into.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                loop {
                    let mut head = String::new();
                    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
                    if head.trim().is_empty() {
                        return;
                    }
                    let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    reader.read_exact(&mut body).unwrap();
                    into.lock().unwrap().push((head, String::from_utf8(body).unwrap()));
                    // A client that is gone needs no answer.
                    let _ = client.write_all(format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\n\r\n").as_bytes());
                }
            });
        }
    });
    (port, taken)
}

fn folder(url: &str) -> Folder {
    let mut folder = Folder::with(&[
        (
            "tributary.yaml",
            "name: tell\nopenlineage: {file: .tributary/openlineage.jsonl, url: \"${LINEAGE_URL}\", api_key: \"${LINEAGE_KEY}\", namespace: here}\n",
        ),
        ("connections.yaml", "drop: {connector: files, path: data}\n"),
        (
            "syncs/drop.yaml",
            "description: What is dropped\nowner: data team\nfrom: drop\ninto: raw.{table}\nstreams: {people: {columns: {id: {tests: [unique]}}}}\n",
        ),
        ("data/people/1.csv", "id,name\n1,ann\n2,bob\n"),
        (
            "models/names.sql",
            "/*---\ndescription: Names\ncolumns: {name: {tests: [not_null, {accepted_values: [ANN], severity: warn}]}}\n---*/\nselect id, upper(name) as name from raw.people",
        ),
        ("models/counted.sql", "select count(id) as people from names"),
        ("models/said.py", "# ---\n# reads: [counted]\n# format: json\n# ---\nprint('{\"word\": \"x\"}')\n"),
    ]);
    folder.set("LINEAGE_URL", url);
    folder.set("LINEAGE_KEY", KEY);
    folder
}

fn events(folder: &Folder) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join(".tributary/openlineage.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last event of a job.
fn last<'a>(events: &'a [Value], job: &str) -> &'a Value {
    events.iter().rfind(|e| e["job"]["name"] == job).unwrap_or_else(|| panic!("nothing of {job}"))
}

fn kinds(events: &[Value], job: &str) -> Vec<String> {
    events.iter().filter(|e| e["job"]["name"] == job).map(|e| e["eventType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_is_told_as_the_specification_says() {
    let (port, taken) = endpoint(201);
    let folder = folder(&format!("http://127.0.0.1:{port}/api/v1/lineage"));
    folder.ok(&["run"]);
    let told = events(&folder);
    for (job, expected) in [
        ("tell", &["START", "COMPLETE"][..]),
        ("tell.drop", &["START", "RUNNING", "COMPLETE"]),
        ("tell.drop.tests", &["START", "COMPLETE"]),
        ("tell.names", &["START", "RUNNING", "COMPLETE"]),
        ("tell.said", &["START", "RUNNING", "COMPLETE"]),
    ] {
        assert_eq!(kinds(&told, job), expected, "{job}");
    }
    let names = last(&told, "tell.names");
    assert_eq!(names["job"]["namespace"], "here");
    assert_eq!(names["run"]["facets"]["parent"]["run"]["runId"], last(&told, "tell")["run"]["runId"]);
    assert!(names["job"]["facets"]["sql"]["query"].as_str().unwrap().starts_with("select id, upper(name)"));
    let output = &names["outputs"][0];
    assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 2);
    assert_eq!(output["facets"]["schema"]["fields"][1]["name"], "name");
    let from = &output["facets"]["columnLineage"]["fields"]["name"]["inputFields"][0];
    assert_eq!((&from["field"], &from["name"]), (&Value::from("name"), &names["inputs"][0]["name"]));
    assert_eq!(from["transformations"][0]["subtype"], "TRANSFORMATION");
    let counted = last(&told, "tell.counted");
    let from = &counted["outputs"][0]["facets"]["columnLineage"]["fields"]["people"]["inputFields"][0];
    assert_eq!(from["transformations"][0]["subtype"], "AGGREGATION");
    // What one writes and another reads has one name.
    assert_eq!(counted["inputs"][0]["name"], output["name"]);
    assert_eq!(last(&told, "tell.said")["job"]["facets"]["sourceCode"]["language"], "PYTHON");
    let tests = last(&told, "tell.names.tests");
    let assertions = tests["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"].as_array().unwrap();
    let found: Vec<String> =
        assertions.iter().map(|a| format!("{} {} {} {}", a["assertion"], a["column"], a["success"], a["severity"])).collect();
    assert_eq!(found, [r#""not_null" "name" true "error""#, r#""accepted_values" "name" false "warn""#]);

    // Something is wrong with a model: what has failed says so, and what it says is known to the client too.
    folder.write("models/counted.sql", "select cast(name as bigint) as people from names");
    assert_ne!(folder.trib(&["run"]).status, Some(0));
    let told = events(&folder);
    let failed = last(&told, "tell.counted");
    assert_eq!(failed["eventType"], "FAIL");
    assert!(failed["run"]["facets"]["errorMessage"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{failed}");
    assert_eq!(last(&told, "tell")["eventType"], "FAIL");

    let posted = taken.lock().unwrap();
    let bodies: Vec<Value> = posted.iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(bodies, told);
    assert!(posted.iter().all(|(head, _)| head.contains(&format!("authorization: Bearer {KEY}"))));
    assert!(!fs::read_to_string(folder.path().join(".tributary/openlineage.jsonl")).unwrap().contains(KEY));

    let python = trib_testkit::python_venv::bin("openlineage", &["openlineage-python==1.54.0"]).unwrap().join("python");
    folder.write("check.py", CHECK);
    let checked = Command::new(python).arg("check.py").arg(".tributary/openlineage.jsonl").current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[0], told.len().to_string());
    for facet in ["columnLineage", "dataQualityAssertions", "errorMessage", "jobType", "ownership", "parent", "schema", "sourceCode", "sql"]
    {
        assert!(words.contains(&facet), "{facet} was not seen: {said}");
    }
}

/// Refused, never answered, not there, no address: the run goes on, and says once what became of its events.
#[test]
fn what_cannot_be_delivered_fails_no_run() {
    let (refusing, _) = endpoint(503);
    let urls = [format!("http://user:{KEY}@127.0.0.1:{refusing}/lineage?token={KEY}"), format!("http://127.0.0.1:1/{KEY}"), KEY.to_owned()];
    for url in urls {
        let folder = folder(&url);
        let said = folder.ok(&["run"]);
        let all = format!("{}{}", said.all(), folder.ok(&["logs"]).all());
        let name = url.replace(KEY, "…");
        assert!(all.contains("could not be delivered"), "{name}: {all}");
        assert!(!all.contains(KEY), "{name}: {all}");
        assert!(!events(&folder).is_empty(), "the file has them all the same");
    }
}
