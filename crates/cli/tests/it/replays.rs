//! Recordings: what the reference implementation has made of a manifest and an API's answers is what comes out here.
//!
//! A recording is a file of `tests/recordings`: a manifest and a configuration of ours, and for each phase what was exchanged with a made-up API, and what came of it when the Python CDK
//! (airbyte-cdk 7.39.1) ran the manifest. Hosts are the first part of paths there, so that one server stands in for all of them. `TRIB_RECORDINGS` names a folder
//! with more of them; a recording that depends on the time says which it was (`now`), and needs a library `clock.so` beside it that makes the clock stand still.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use serde_json::{Map, Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::{Folder, Said};

/// Headers that differ between clients and say nothing.
const NOISE: [&str; 6] = ["host", "user-agent", "accept-encoding", "connection", "content-length", "accept-language"];

/// JSON text with keys in order.
fn canon(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let parts: Vec<String> = sorted.iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canon(v))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canon).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// What was asked, in the recordings' form.
fn request(asked: &Asked) -> String {
    let telling = |(name, value): &&(String, String)| !(NOISE.contains(&name.as_str()) || name == "accept" && value == "*/*");
    let headers: Map<String, Value> = asked.headers.iter().filter(telling).map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    let content_type = asked.header("content-type").unwrap_or_default();
    let body = if asked.body.is_empty() {
        Value::Null
    } else if content_type.contains("json") {
        serde_json::from_str(&asked.body).unwrap()
    } else if content_type.contains("form") {
        json!(sorted(asked.fields()))
    } else {
        asked.body.as_str().into()
    };
    canon(
        &json!({"method": asked.method, "url": asked.path.trim_start_matches('/'), "query": sorted(asked.params()), "headers": headers, "body": body}),
    )
}

fn sorted(mut pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.sort();
    pairs
}

fn answer(exchange: &Value) -> Answer {
    let body = match (&exchange["text"], &exchange["base64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        _ => Vec::new(),
    };
    let headers = exchange["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
    Answer { status: exchange["status"].as_u64().unwrap() as u16, headers, body }
}

/// Answers as recorded: the same request again gets the next answer, and the last one for good.
struct Api {
    server: StandIn,
    recorded: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
    unknown: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn start() -> Self {
        let (recorded, unknown): (Arc<Mutex<HashMap<String, Vec<Answer>>>>, Arc<Mutex<Vec<String>>>) = Default::default();
        let (answers, strange) = (recorded.clone(), unknown.clone());
        let server = StandIn::start(move |asked| {
            let request = request(asked);
            match answers.lock().unwrap().get_mut(&request) {
                Some(left) if left.len() > 1 => left.remove(0),
                Some(last) => last[0].clone(),
                None => {
                    strange.lock().unwrap().push(request);
                    Answer::status(400)
                }
            }
        });
        Self { server, recorded, unknown }
    }

    /// The text with the made-up hosts' addresses in it.
    fn here(&self, text: &str) -> String {
        text.replace("http://MOCK", &self.server.url())
    }

    fn begin(&self, exchanges: &[Value]) {
        let mut recorded = self.recorded.lock().unwrap();
        recorded.clear();
        for exchange in exchanges {
            recorded.entry(canon(&exchange["request"])).or_default().push(answer(exchange));
        }
        self.server.take();
        self.unknown.lock().unwrap().clear();
    }
}

/// What came out, in the recordings' form.
fn seen(said: &Said) -> Value {
    let (mut records, mut states, mut statuses) =
        (BTreeMap::<String, Vec<String>>::new(), Map::new(), BTreeMap::<String, Vec<String>>::new());
    let (mut errors, mut seen) = (BTreeSet::new(), Map::new());
    for line in said.out.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("/type").as_str() {
            "RECORD" => records.entry(text("/record/stream")).or_default().push(record(&message["record"]["data"])),
            "STATE" => {
                states.insert(text("/state/stream/stream_descriptor/name"), steady(&message["state"]["stream"]["stream_state"]));
            }
            "TRACE" if text("/trace/type") == "STREAM_STATUS" => {
                let all = statuses.entry(text("/trace/stream_status/stream_descriptor/name")).or_default();
                let status = text("/trace/stream_status/status");
                if !all.contains(&status) {
                    all.push(status);
                }
            }
            "TRACE" => {
                errors.insert(format!("{} {}", text("/trace/error/stream_descriptor/name"), text("/trace/error/failure_type")));
            }
            "CONNECTION_STATUS" => {
                seen.insert("check".into(), text("/connectionStatus/status").into());
            }
            "CATALOG" => {
                let streams = message["catalog"]["streams"].as_array().unwrap().iter();
                seen.insert("catalog".into(), json!(streams.map(entry).collect::<BTreeSet<_>>()));
            }
            _ => {}
        }
    }
    records.values_mut().for_each(|all| all.sort());
    seen.extend(parts(json!({"records": records, "states": states, "statuses": statuses, "errors": errors})));
    Value::Object(seen)
}

fn parts(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("no object") };
    map.into_iter().filter(|(_, v)| v.as_object().is_none_or(|m| !m.is_empty()) && v.as_array().is_none_or(|a| !a.is_empty())).collect()
}

/// The reference leaves out what is null at the top of a record.
fn record(data: &Value) -> String {
    let fields = data.as_object().unwrap().iter().filter(|(_, v)| !v.is_null());
    canon(&Value::Object(fields.map(|(k, v)| (k.clone(), v.clone())).collect()))
}

fn entry(stream: &Value) -> String {
    let shown =
        ["name", "supported_sync_modes", "source_defined_cursor", "default_cursor_field", "source_defined_primary_key", "is_resumable"];
    canon(&Value::Object(shown.iter().filter_map(|n| Some(((*n).to_owned(), stream.get(*n).filter(|v| !v.is_null())?.clone()))).collect()))
}

/// A state without what the time of the read has put into it, and in one order.
fn steady(state: &Value) -> Value {
    match state {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(name, value)| {
                    (
                        name.clone(),
                        match (name.as_str(), value) {
                            ("lookback_window", Value::Number(_)) => json!(1),
                            ("states", Value::Array(states)) => {
                                let mut states: Vec<Value> = states.iter().map(steady).collect();
                                states.sort_by_key(canon);
                                Value::Array(states)
                            }
                            _ => steady(value),
                        },
                    )
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(steady).collect()),
        other => other.clone(),
    }
}

/// The same of what was recorded.
fn wanted(want: &Value) -> Value {
    let lists = |part: &str, of: &dyn Fn(&Value) -> String| -> BTreeMap<String, Vec<String>> {
        let streams = want[part].as_object().into_iter().flatten();
        streams.map(|(name, all)| (name.clone(), all.as_array().unwrap().iter().map(of).collect())).collect()
    };
    let mut records = lists("records", &record);
    records.values_mut().for_each(|all| all.sort());
    let statuses = lists("statuses", &|status| status.as_str().unwrap().to_owned());
    let states = want["final_state"].as_object().into_iter().flatten();
    let states: Map<String, Value> = states.map(|(name, state)| (name.clone(), steady(&state["stream"]["stream_state"]))).collect();
    let errors = want["errors"].as_array().into_iter().flatten();
    let errors: BTreeSet<String> = errors.map(|e| format!("{} {}", e[0].as_str().unwrap_or_default(), e[1].as_str().unwrap())).collect();
    let mut wanted = parts(json!({"records": records, "states": states, "statuses": statuses, "errors": errors}));
    if let Some(status) = want.get("check") {
        wanted.insert("check".into(), status.clone());
    }
    if let Some(Value::Array(streams)) = want.get("catalog") {
        wanted.insert("catalog".into(), json!(streams.iter().map(entry).collect::<BTreeSet<_>>()));
    }
    Value::Object(wanted)
}

/// Each place where two values differ.
fn differences(path: &str, want: &Value, got: &Value, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                differences(&format!("{path}.{name}"), &want[name], &got[name], found);
            }
        }
        _ if canon(want) == canon(got) => {}
        _ => found.push(format!("{path}: recorded {}, got {}", canon(want), canon(got))),
    }
}

/// Replays a recording. Gives how many phases, records and requests there were.
fn replay(file: &Path) -> (usize, usize, usize) {
    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
    let api = Api::start();
    let recording: Value = serde_json::from_str(&api.here(&fs::read_to_string(file).unwrap())).unwrap();
    let manifest = recording["manifest"].to_string().replace("https://", &format!("{}/", api.server.url()));
    let mut folder = Folder::with(&[
        ("m.json", &manifest),
        ("config.json", &recording["config"].to_string()),
        ("catalog.json", &recording["catalog"].to_string()),
    ]);
    let (mut differing, mut counts) = (Vec::new(), (0, 0, 0));
    for (phase, recorded) in recording["phases"].as_object().unwrap() {
        if let Some(now) = recorded["now"].as_i64() {
            let clock = file.with_file_name("clock.so");
            folder.set("LD_PRELOAD", &clock.display().to_string());
            folder.set("ORACLE_EPOCH", &now.to_string());
        }
        let operation = recorded["operation"].as_str().unwrap();
        let mut args = vec!["airbyte", operation, "--manifest", "m.json", "--config", "config.json"];
        if operation == "read" {
            args.extend(["--catalog", "catalog.json"]);
            if !recorded["state"].is_null() {
                folder.write("state.json", &recorded["state"].to_string());
                args.extend(["--state", "state.json"]);
            }
        }
        let exchanges = recorded["exchanges"].as_array().unwrap();
        api.begin(exchanges);
        let said = folder.trib(&args);
        let mut found = Vec::new();
        differences(&format!("{name} {phase}"), &wanted(&recorded["want"]), &seen(&said), &mut found);
        found.extend(api.unknown.lock().unwrap().iter().map(|r| format!("{name} {phase}: nobody asked before for {r}")));
        let asked: BTreeSet<String> = api.server.take().iter().map(request).collect();
        let never = exchanges.iter().map(|e| canon(&e["request"])).filter(|r| !asked.contains(r)).collect::<BTreeSet<_>>();
        found.extend(never.iter().map(|r| format!("{name} {phase}: nobody asks now for {r}")));
        differing.extend(found);
        counts.0 += 1;
        counts.1 += said.out.matches("\"type\":\"RECORD\"").count();
        counts.2 += asked.len();
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    counts
}

fn recordings(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files
}

fn replay_all(folder: &Path) {
    let files = recordings(folder);
    assert!(!files.is_empty(), "{} holds no recordings", folder.display());
    let threads: Vec<_> = files.into_iter().map(|file| (file.clone(), std::thread::spawn(move || replay(&file)))).collect();
    for (file, thread) in threads {
        let (phases, records, requests) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("{}: {phases} phases, {records} records, {requests} requests", file.display());
        assert!(requests > 0, "{} shows nothing", file.display());
    }
}

#[test]
fn the_reference_and_this_make_the_same_of_an_api() {
    replay_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings"));
}

#[test]
fn recordings_from_elsewhere_are_replayed() {
    match std::env::var_os("TRIB_RECORDINGS") {
        Some(folder) => replay_all(Path::new(&folder)),
        None => eprintln!("SKIPPED: TRIB_RECORDINGS names no folder with more recordings"),
    }
}
