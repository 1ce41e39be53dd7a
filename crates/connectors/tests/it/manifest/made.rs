//! Streams, schemas and answers that are not there before somebody asks for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{manifest_of, parse, read, read_stream};

fn mapping(path: Value, value: &str) -> Value {
    json!({"type": "ComponentMappingDefinition", "field_path": path, "value": value})
}

fn requester(api: &StandIn, method: &str, path: &str) -> Value {
    json!({"type": "HttpRequester", "url_base": api.url(), "path": path, "http_method": method})
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_of_an_answer() {
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/tables" => Answer::json(&json!({"rows": [{"id": 7, "name": "A"}, {"id": 8, "name": "B"}]})),
        path => Answer::json(&json!({"rows": [{"id": path}]})),
    });
    let template = manifest_of(&api, json!({}), json!({}), json!({}))["streams"][0].clone();
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    let retriever = manifest_of(&api, json!({"path": "tables"}), json!({}), json!({}))["streams"][0]["retriever"].clone();
    manifest["dynamic_streams"] = json!([{"type": "DynamicDeclarativeStream", "stream_template": template, "components_resolver": {
        "type": "HttpComponentsResolver", "retriever": retriever,
        "components_mapping": [mapping(json!(["name"]), "t_{{ components_values['name'] }}"),
            mapping(json!(["retriever", "requester", "path"]), "tables/{{ components_values['id'] }}")]}}]);
    assert_eq!(read_stream(&manifest, "t_B", json!({}), json!({})).await.ids(), ["/tables/8"]);
    let opened = parse(&manifest).unwrap().open(&json!({})).unwrap();
    let (found, missing) = opened.discover(&[]).await.unwrap();
    let names: Vec<_> = found.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, missing.len()), (vec!["items", "t_A", "t_B"], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_of_parameters() {
    let api = StandIn::start(|asked| Answer::json(&json!({"rows": [{"id": asked.path}]})));
    let template = manifest_of(&api, json!({}), json!({}), json!({}))["streams"][0].clone();
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    manifest["dynamic_streams"] = json!([{"type": "DynamicDeclarativeStream", "stream_template": template, "components_resolver": {
        "type": "ParametrizedComponentsResolver",
        "stream_parameters": {"type": "StreamParametersDefinition", "list_of_parameters_for_stream": [{"n": "one"}, {"n": "two"}]},
        "components_mapping": [mapping(json!(["name"]), "{{ components_values['n'] }}"),
            mapping(json!(["retriever", "requester", "path"]), "by/{{ components_values['n'] }}")]}}]);
    let given = read_stream(&manifest, "two", json!({}), json!({})).await;
    assert_eq!(given.ids(), ["/by/two"], "{:?}", given.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_asked_of_the_api() {
    let fields = |kind: &'static str| {
        StandIn::start(move |_| {
            Answer::json(&json!({"rows": [{"fields": [{"name": "id", "type": "num"}, {"name": "at", "type": kind}, {"name": "note"}]}]}))
        })
    };
    let manifest = |api: &StandIn| {
        let retriever = manifest_of(api, json!({"path": "fields"}), json!({}), json!({}))["streams"][0]["retriever"].clone();
        let identifier = json!({"type": "SchemaTypeIdentifier", "schema_pointer": ["fields"], "key_pointer": ["name"], "type_pointer": ["type"],
            "types_mapping": [{"type": "TypesMap", "current_type": "num", "target_type": "integer"},
                {"type": "TypesMap", "current_type": "when", "target_type": "timestamp_with_timezone"}]});
        manifest_of(
            api,
            json!({}),
            json!({}),
            json!({"schema_loader": {"type": "DynamicSchemaLoader", "retriever": retriever, "schema_type_identifier": identifier}}),
        )
    };
    let api = fields("when");
    let opened = parse(&manifest(&api)).unwrap().open(&json!({})).unwrap();
    let (found, _) = opened.discover(&[]).await.unwrap();
    let properties = &found[0].json_schema["properties"];
    assert_eq!(properties["id"]["type"], json!(["null", "integer"]));
    assert_eq!((&properties["at"]["format"], &properties["note"]["type"]), (&json!("date-time"), &json!(["null", "string"])));
    // A type that nobody mapped is no type.
    let other = fields("colour");
    let opened = parse(&manifest(&other)).unwrap().open(&json!({})).unwrap();
    let (found, missing) = opened.discover(&[]).await.unwrap();
    assert_eq!((found.len(), missing.len()), (0, 1));
    assert!(missing[0].to_string().contains("colour"), "{}", missing[0]);
}

/// A report that is made on demand: the first job fails, the second gives two files.
fn reports() -> StandIn {
    let jobs = AtomicUsize::new(0);
    StandIn::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/jobs") => Answer::json(&json!({"job": jobs.fetch_add(1, Ordering::SeqCst) + 1})),
        ("GET", "/jobs/1") => Answer::json(&json!({"status": "broken"})),
        ("GET", "/jobs/2") => Answer::json(&json!({"status": "done", "files": ["a", "b"]})),
        ("GET", "/files/a") => Answer::text(200, "id,note\n1,x\n2,\n"),
        ("GET", "/files/b") => Answer::text(200, "id,note\n3,z\n"),
        ("POST", "/jobs/2/delete") => Answer::status(200),
        other => Answer::text(400, &format!("{other:?}")),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_ordered_waited_for_and_fetched() {
    let api = reports();
    let extractor = |path: Value| json!({"type": "DpathExtractor", "field_path": path});
    let statuses = |broken: &str| {
        let mut statuses = json!({"type": "AsyncJobStatusMap", "running": [], "completed": ["done"], "failed": [], "timeout": []});
        statuses[broken] = json!(["broken"]);
        statuses
    };
    let retriever = |api: &StandIn, broken: &str| {
        json!({"type": "AsyncRetriever", "record_selector": {"type": "RecordSelector", "extractor": extractor(json!([]))},
            "status_mapping": statuses(broken), "status_extractor": extractor(json!(["status"])), "download_target_extractor": extractor(json!(["files"])),
            "creation_requester": requester(api, "POST", "jobs"),
            "polling_requester": requester(api, "GET", "jobs/{{ creation_response['job'] }}"),
            "download_requester": requester(api, "GET", "files/{{ download_target }}"),
            "delete_requester": requester(api, "POST", "jobs/{{ creation_response['job'] }}/delete"),
            "download_decoder": {"type": "CsvDecoder"}})
    };
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    manifest["streams"][0]["retriever"] = retriever(&api, "failed");
    let given = read(&manifest, json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let notes: Vec<_> = given.records.iter().map(|r| (r["id"].as_str().unwrap(), r["note"].as_str().unwrap_or_default())).collect();
    assert_eq!(notes, [("1", "x"), ("2", ""), ("3", "z")]);
    let asked: Vec<_> = api.take().iter().map(|a| format!("{} {}", a.method, a.path)).collect();
    assert_eq!(asked, ["POST /jobs", "GET /jobs/1", "POST /jobs", "GET /jobs/2", "GET /files/a", "GET /files/b", "POST /jobs/2/delete"]);
    // What the API has nothing for is no failure; a status that nobody mapped is one.
    let empty = reports();
    manifest["streams"][0]["retriever"] = retriever(&empty, "skipped");
    let given = read(&manifest, json!({})).await;
    assert_eq!((given.records.len(), given.errors.len(), empty.take().len()), (0, 0, 2));
    let unknown = reports();
    manifest["streams"][0]["retriever"] = retriever(&unknown, "running");
    manifest["streams"][0]["retriever"]["status_mapping"]["running"] = json!([]);
    let given = read(&manifest, json!({})).await;
    assert_eq!(given.errors[0].code(), Code::SystemError);
    assert!(given.errors[0].to_string().contains("broken"), "{}", given.errors[0]);
}
