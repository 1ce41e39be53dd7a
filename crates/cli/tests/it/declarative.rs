//! A manifest of the project as a connector, and the same one for somebody else's pipeline.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, StandIn};

use crate::trib::Folder;

/// Orders, changed on the second day.
fn shop() -> (StandIn, Arc<AtomicBool>) {
    let later = Arc::new(AtomicBool::new(false));
    let day = later.clone();
    let api = StandIn::start(move |asked| {
        if asked.header("authorization") != Some("Bearer hunter2") {
            return Answer::status(401);
        }
        let mut rows = vec![(1, "2026-01-02T00:00:00Z", 10.5), (2, "2026-01-03T00:00:00Z", 20.0)];
        if day.load(Ordering::SeqCst) {
            rows.extend([(2, "2026-01-05T00:00:00Z", 25.0), (3, "2026-01-06T00:00:00Z", 30.0)]);
        }
        let since = asked.param("since").unwrap();
        let row = |(id, at, total): (i64, &str, f64)| json!({"id": id, "updated_at": at, "total": total});
        let rows: Vec<Value> = rows.into_iter().filter(|(_, at, _)| *at >= since.as_str()).map(row).collect();
        Answer::json(&json!({"orders": rows}))
    });
    (api, later)
}

fn manifest(url: &str) -> String {
    format!(
        r#"
version: 7.0.0
check: {{type: CheckStream, stream_names: [orders]}}
streams:
  - type: DeclarativeStream
    name: orders
    primary_key: id
    incremental_sync:
      type: DatetimeBasedCursor
      cursor_field: updated_at
      datetime_format: "%Y-%m-%dT%H:%M:%SZ"
      start_datetime: "{{{{ config['start'] }}}}"
      start_time_option: {{type: RequestOption, inject_into: request_parameter, field_name: since}}
    retriever:
      type: SimpleRetriever
      requester:
        type: HttpRequester
        url_base: {url}
        path: orders
        authenticator: {{type: BearerAuthenticator, api_token: "{{{{ config['token'] }}}}"}}
      record_selector: {{type: RecordSelector, extractor: {{type: DpathExtractor, field_path: [orders]}}}}
    schema_loader:
      type: InlineSchemaLoader
      schema:
        properties:
          id: {{type: integer}}
          updated_at: {{type: string, format: date-time}}
          total: {{type: [number, "null"]}}
spec:
  type: Spec
  connection_specification:
    type: object
    required: [token, start]
    properties: {{token: {{type: string, airbyte_secret: true}}, start: {{type: string}}}}
"#
    )
}

fn project(api: &StandIn) -> Folder {
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: shop\n"),
        ("connections.yaml", "shop: {connector: shop, token: \"${TOKEN}\", start: \"2026-01-01T00:00:00Z\"}\n"),
        ("syncs/shop.yaml", "from: shop\ninto: raw.{table}\nstreams:\n  orders: {read: incremental, cursor: updated_at, write: upsert}\n"),
    ]);
    folder.write("connectors/shop.yaml", &manifest(&api.url()));
    folder.set("TOKEN", "hunter2");
    folder
}

fn orders(folder: &Folder) -> Value {
    let said = folder.trib(&["query", "select id, total from raw.orders order by id", "--json"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn a_manifest_of_the_project_is_loaded_twice() {
    let (api, later) = shop();
    let folder = project(&api);
    for args in [&["validate"][..], &["check", "shop"], &["discover", "shop"], &["run"]] {
        let said = folder.trib(args);
        assert_eq!(said.status, Some(0), "trib {}: {}", args.join(" "), said.all());
    }
    assert_eq!(orders(&folder).as_array().unwrap().len(), 2);
    api.take();
    later.store(true, Ordering::SeqCst);
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    let since: Vec<_> = api.take().iter().map(|a| a.param("since").unwrap()).collect();
    assert_eq!(since, ["2026-01-03T00:00:00Z"], "the second run goes on from the first");
    let rows = orders(&folder).to_string();
    for row in ["25.0", "30.0", "10.5"] {
        assert!(rows.contains(row), "{rows}");
    }
    assert_eq!(orders(&folder).as_array().unwrap().len(), 3, "an order that changed stays one row");
    for file in folder.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds the token", file.display());
    }
}

#[test]
fn a_manifest_that_is_wrong_is_found_offline() {
    let (api, _) = shop();
    let folder = project(&api);
    folder.write("connectors/shop.yaml", &manifest(&api.url()).replace("type: BearerAuthenticator", "type: BearerAuthenticatr"));
    let said = folder.trib(&["validate"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    for part in ["connectors/shop.yaml", "streams[0].retriever.requester.authenticator", "did you mean BearerAuthenticator?"] {
        assert!(said.all().contains(part), "{part}: {}", said.all());
    }
    assert!(api.take().is_empty());
}

fn messages(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Two tickets, each with a file, and the file of the first is another one on the second day.
#[test]
fn files_of_records_lie_in_the_project() {
    let changed = Arc::new(AtomicBool::new(false));
    let day = changed.clone();
    let api = StandIn::start(move |asked| match asked.path.as_str() {
        "/tickets" => Answer::json(&json!([{"id": 1, "file": "/f/1"}, {"id": 2, "file": "/f/2"}])),
        "/f/1" if day.load(Ordering::SeqCst) => Answer::text(200, "another text"),
        _ => Answer::text(200, "text"),
    });
    let manifest = json!({
        "version": "7.0.0", "check": {"type": "CheckStream", "stream_names": ["tickets"]},
        "streams": [{
            "type": "DeclarativeStream", "name": "tickets", "primary_key": "id",
            "retriever": {"type": "SimpleRetriever", "requester": {"type": "HttpRequester", "url_base": api.url(), "path": "tickets"},
                "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": []}}},
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"properties": {"id": {"type": "integer"}, "file": {"type": "string"}}}},
            "file_uploader": {"type": "FileUploader", "requester": {"type": "HttpRequester", "url_base": api.url(), "path": "{{ download_target }}"},
                "download_target_extractor": {"type": "DpathExtractor", "field_path": ["file"]}, "filename_extractor": "{{ record['id'] }}.txt"},
        }],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    });
    let sync = "from: desk\ninto: raw.{table}\nstreams:\n  tickets: {read: full, write: replace}\n";
    let folder = Folder::with(&[
        ("tributary.yaml", "name: desk\n"),
        ("connections.yaml", "desk: {connector: desk}\n"),
        ("connectors/desk.yaml", &manifest.to_string()),
        ("syncs/desk.yaml", sync),
        ("config.json", "{}"),
        ("catalog.json", "{\"streams\": [{\"stream\": {\"name\": \"tickets\"}, \"sync_mode\": \"full_refresh\"}]}"),
    ]);
    folder.ok(&["check", "desk"]);
    assert!(api.take().iter().all(|asked| asked.path == "/tickets"), "nothing is downloaded for a look");
    folder.ok(&["run"]);
    let rows = || -> Value {
        let sql =
            "select id, source_file_relative_path as path, staging_file_url as url, file_size_bytes as size from raw.tickets order by id";
        serde_json::from_str(&folder.ok(&["query", sql, "--json"]).out).unwrap()
    };
    let first = rows();
    assert_eq!((&first[0]["path"], &first[0]["size"], &first[1]["path"]), (&json!("tickets/1.txt"), &json!(4), &json!("tickets/2.txt")));
    let file = folder.path().join(".tributary/files/desk/tickets/1.txt");
    assert_eq!(
        (first[0]["url"].as_str().map(std::path::Path::new), std::fs::read(&file).unwrap()),
        (Some(file.as_path()), b"text".to_vec())
    );
    changed.store(true, Ordering::SeqCst);
    folder.ok(&["run"]);
    assert_eq!((rows()[0]["size"].as_i64(), std::fs::read(&file).unwrap()), (Some(12), b"another text".to_vec()));

    // For somebody else's pipeline they lie where that says.
    let staging = folder.path().join("staging");
    std::fs::create_dir(&staging).unwrap();
    let read = |catalog: &str| {
        let args = ["airbyte", "read", "--manifest", "connectors/desk.yaml", "--config", "config.json", "--catalog", catalog];
        let output = folder.command(&args).env("AIRBYTE_STAGING_DIRECTORY", &staging).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let all = messages(&String::from_utf8(output.stdout).unwrap());
        all.into_iter().filter(|m| m["type"] == "RECORD").collect::<Vec<_>>()
    };
    let expected =
        json!({"staging_file_url": staging.join("tickets/2.txt"), "source_file_relative_path": "tickets/2.txt", "file_size_bytes": 4});
    assert_eq!(read("catalog.json")[1]["record"]["file_reference"], expected);
    assert_eq!(std::fs::read(staging.join("tickets/2.txt")).unwrap(), b"text");
    let without = "{\"streams\": [{\"stream\": {\"name\": \"tickets\"}, \"sync_mode\": \"full_refresh\", \"include_files\": false}]}";
    folder.write("without.json", without);
    api.take();
    assert!(read("without.json").iter().all(|m| m["record"].get("file_reference").is_none()));
    assert_eq!(api.take().len(), 1);

    // A sync that wants none of it downloads nothing.
    folder.write("syncs/desk.yaml", &sync.replace("read: full", "select: [id, file], read: full"));
    folder.ok(&["run"]);
    assert!(api.take().iter().all(|asked| asked.path == "/tickets"));
}

#[test]
fn a_manifest_speaks_the_airbyte_protocol() {
    let (api, _) = shop();
    let folder = Folder::with(&[
        ("m.yaml", &manifest(&api.url())),
        ("config.json", "{\"token\": \"hunter2\", \"start\": \"2026-01-01T00:00:00Z\"}"),
        ("wrong.json", "{\"token\": \"other\", \"start\": \"2026-01-01T00:00:00Z\"}"),
        ("catalog.json", "{\"streams\": [{\"stream\": {\"name\": \"orders\"}, \"sync_mode\": \"incremental\"}]}"),
    ]);
    let airbyte = |args: &[&str]| {
        let mut all = vec!["airbyte", args[0], "--manifest", "m.yaml"];
        all.extend(&args[1..]);
        let said = folder.trib(&all);
        (said.status, messages(&said.out))
    };
    let (status, said) = airbyte(&["spec"]);
    assert_eq!((status, &said[0]["spec"]["connectionSpecification"]["required"]), (Some(0), &json!(["token", "start"])));
    let (_, said) = airbyte(&["check", "--config", "config.json"]);
    assert_eq!(said[0]["connectionStatus"]["status"], "SUCCEEDED");
    let (status, said) = airbyte(&["check", "--config", "wrong.json"]);
    assert_eq!((status, &said[0]["connectionStatus"]["status"]), (Some(0), &json!("FAILED")));
    let (_, said) = airbyte(&["discover", "--config", "config.json"]);
    let stream = &said[0]["catalog"]["streams"][0];
    assert_eq!((&stream["name"], &stream["source_defined_primary_key"]), (&json!("orders"), &json!([["id"]])));

    let read = |config: &str, state: &[&str]| {
        let mut args = vec!["read", "--config", config, "--catalog", "catalog.json"];
        args.extend(state);
        airbyte(&args)
    };
    let (status, said) = read("config.json", &[]);
    let kinds: Vec<&str> = said.iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!((status, kinds.iter().filter(|k| **k == "RECORD").count()), (Some(0), 2));
    let last = said.iter().rfind(|m| m["type"] == "STATE").unwrap();
    assert_eq!(last["state"]["stream"]["stream_state"], json!({"updated_at": "2026-01-03T00:00:00Z"}));
    folder.write("state.json", &json!([last["state"]]).to_string());
    api.take();
    read("config.json", &["--state", "state.json"]);
    assert_eq!(api.take()[0].param("since").as_deref(), Some("2026-01-03T00:00:00Z"));
    let (status, said) = read("wrong.json", &[]);
    assert_eq!(status, Some(1));
    let error = said.iter().find(|m| m["trace"]["type"] == "ERROR").unwrap();
    assert_eq!(error["trace"]["error"]["failure_type"], "config_error");
}

/// Days of a month, each with so many orders; the last day is answered only when it may be.
fn ledger(rows: usize) -> (StandIn, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (asked_for_last, may_answer) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, free) = (asked_for_last.clone(), may_answer.clone());
    let api = StandIn::start(move |asked| {
        let day: usize = asked.param("since").unwrap()[8..10].parse().unwrap();
        if day == 20 {
            seen.store(true, Ordering::SeqCst);
            while !free.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let row = |n| json!({"id": day * 10_000 + n, "updated_at": format!("2026-01-{day:02}T00:00:00Z"), "total": 1.5});
        Answer::json(&json!({"orders": (0..rows).map(row).collect::<Vec<_>>()}))
    });
    (api, asked_for_last, may_answer)
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 600;
    let (api, asked_for_last, may_answer) = ledger(ROWS);
    let folder = project(&api);
    let by_day = "      step: P1D\n      cursor_granularity: PT1S\n      end_datetime: \"2026-01-20T23:59:59Z\"\n      start_time_option:";
    let text = manifest(&api.url()).replacen("      start_time_option:", by_day, 1);
    folder.write("connectors/shop.yaml", &format!("{text}concurrency_level: {{type: ConcurrencyLevel, default_concurrency: 1}}\n"));
    folder.write(
        "syncs/shop.yaml",
        "from: shop\ninto: raw.{table}\nload: {rows: 1000}\nstreams:\n  orders: {read: incremental, cursor: updated_at, write: upsert}\n",
    );
    let mut run = folder.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !asked_for_last.load(Ordering::SeqCst) {
        assert!(run.try_wait().unwrap().is_none(), "the run ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let before = api.take().len();
    may_answer.store(true, Ordering::SeqCst);
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    let again = api.take().len();
    assert!(before >= 19 && again < 20, "{before} days were asked for, then {again}");
    let counted = folder.trib(&["query", "select count(*) as n, count(distinct id) as ids from raw.orders", "--json"]);
    let counted: Value = serde_json::from_str(&counted.out).unwrap();
    assert_eq!((&counted[0]["n"], &counted[0]["ids"]), (&json!(20 * ROWS), &json!(20 * ROWS)));
}

#[test]
fn a_refresh_token_that_is_good_for_one_use_is_kept_for_the_next_run() {
    let renewals = Arc::new(AtomicUsize::new(0));
    let counter = renewals.clone();
    let api = StandIn::start(move |asked| {
        if asked.path == "/token" {
            let n = counter.load(Ordering::SeqCst);
            if asked.field("refresh_token") != Some(format!("refresh-{n}-secret")) {
                return Answer::text(400, "{\"error\": \"invalid_grant\"}");
            }
            counter.store(n + 1, Ordering::SeqCst);
            let next = format!("refresh-{}-secret", n + 1);
            return Answer::json(&json!({"access_token": format!("access-{n}-secret"), "refresh_token": next, "expires_in": 0}));
        }
        if asked.header("authorization").is_none_or(|a| !a.starts_with("Bearer access-")) {
            return Answer::status(401);
        }
        Answer::json(&json!({"orders": [{"id": 1, "updated_at": "2026-01-02T00:00:00Z", "total": 1.0}]}))
    });
    let mut folder = project(&api);
    let oauth = format!(
        "authenticator: {{type: OAuthAuthenticator, client_id: c, client_secret: s, refresh_token: \"{{{{ config['token'] }}}}\", \
         token_refresh_endpoint: \"{}/token\", refresh_token_updater: {{refresh_token_config_path: [token], access_token_config_path: [access], \
         token_expiry_date_config_path: [expiry]}}}}",
        api.url()
    );
    let text: Vec<String> = manifest(&api.url())
        .lines()
        .map(|line| if line.trim_start().starts_with("authenticator:") { format!("        {oauth}") } else { line.to_owned() })
        .collect();
    folder.write("connectors/shop.yaml", &text.join("\n"));
    folder.set("TOKEN", "refresh-0-secret");
    for run in 1..=2 {
        let said = folder.trib(&["run"]);
        assert_eq!(said.status, Some(0), "run {run}: {}", said.all());
        assert!(!said.all().contains("-secret"), "{}", said.all());
    }
    assert!(renewals.load(Ordering::SeqCst) >= 2);
    let holds = |file: &std::path::PathBuf| std::fs::read(file).unwrap().windows(7).any(|w| w == b"-secret");
    let kept: Vec<_> = folder.files().into_iter().filter(holds).collect();
    assert!(kept.is_empty(), "it is sealed: {kept:?}");
}
