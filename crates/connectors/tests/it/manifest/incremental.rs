//! Reads that go on from where the last one ended.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Context, Read, State};
use trib_testkit::emit;
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use super::{manifest_of, queries, read_stream};

fn cursor(more: Value) -> Value {
    let option = |name: &str| json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": name});
    let mut cursor = json!({"type": "DatetimeBasedCursor", "cursor_field": "at", "datetime_format": "%Y-%m-%d",
        "start_datetime": "{{ config['start'] }}", "end_datetime": "2026-01-10",
        "start_time_option": option("from"), "end_time_option": option("to")});
    cursor.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"incremental_sync": cursor})
}

/// A row for each of some days, within what is asked for.
fn days(asked: &Asked) -> Answer {
    let (from, to) = (asked.param("from").unwrap_or_default(), asked.param("to").unwrap_or_default());
    let rows = [2, 4, 7, 9].map(|d| (d, format!("2026-01-{d:02}")));
    let rows: Vec<Value> = rows.iter().filter(|(_, at)| *at >= from && *at <= to).map(|(id, at)| json!({"id": id, "at": at})).collect();
    Answer::json(&json!({"rows": rows}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_read_goes_on_from_the_state() {
    let api = StandIn::start(days);
    let manifest = manifest_of(&api, json!({}), json!({}), cursor(json!({"step": "P4D", "cursor_granularity": "P1D"})));
    let config = json!({"start": "2026-01-01"});
    let first = read_stream(&manifest, "items", config.clone(), json!({})).await;
    assert_eq!((first.records.len(), &first.state), (4, &json!({"at": "2026-01-09"})));
    let mut asked = queries(&api.take());
    asked.sort();
    assert_eq!(asked, ["from=2026-01-01&to=2026-01-04", "from=2026-01-05&to=2026-01-08", "from=2026-01-09&to=2026-01-10"]);
    let second = read_stream(&manifest, "items", config, first.state).await;
    assert_eq!((second.ids(), &second.state), (vec![json!(9)], &json!({"at": "2026-01-09"})));
    assert_eq!(queries(&api.take()), ["from=2026-01-09&to=2026-01-10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_breaks_keeps_what_came_before() {
    let api = StandIn::start(|asked| if asked.param("from").unwrap() == "2026-01-05" { Answer::status(400) } else { days(asked) });
    let mut manifest = manifest_of(&api, json!({}), json!({}), cursor(json!({"step": "P4D", "cursor_granularity": "P1D"})));
    manifest["concurrency_level"] = json!({"type": "ConcurrencyLevel", "default_concurrency": 1});
    let given = read_stream(&manifest, "items", json!({"start": "2026-01-01"}), json!({})).await;
    assert_eq!(given.errors.len(), 1);
    assert_eq!(given.state, json!({"at": "2026-01-04"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_have_cursors_of_their_own() {
    let api = StandIn::start(|asked| {
        let row =
            json!({"id": asked.param("kind"), "at": if asked.param("kind").as_deref() == Some("x") { "2026-01-03" } else { "2026-01-08" }});
        Answer::json(&json!({"rows": [row]}))
    });
    let router = json!({"partition_router": {"type": "ListPartitionRouter", "cursor_field": "kind", "values": ["x", "y"],
        "request_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "kind"}}});
    let manifest = manifest_of(&api, json!({}), router, cursor(json!({})));
    let config = json!({"start": "2026-01-01"});
    let first = read_stream(&manifest, "items", config.clone(), json!({})).await;
    assert_eq!(first.state["state"], json!({"at": "2026-01-08"}));
    api.take();
    read_stream(&manifest, "items", config, first.state).await;
    let mut asked = queries(&api.take());
    asked.sort();
    assert_eq!(asked, ["from=2026-01-03&kind=x&to=2026-01-10", "from=2026-01-08&kind=y&to=2026-01-10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_a_table_with_a_state() {
    let api = StandIn::start(days);
    let schema = json!({"type": "object", "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date"}}});
    let mut stream = cursor(json!({}));
    stream["schema_loader"] = json!({"type": "InlineSchemaLoader", "schema": schema});
    let manifest = manifest_of(&api, json!({}), json!({}), stream);
    let connector = trib_connectors::manifest::connector("api", "connectors/api.yaml".as_ref(), &manifest.to_string());
    let context = Context { connection: "api".into(), project_dir: ".".into(), threads: 2 };
    let source = connector.make_source(&json!({"start": "2026-01-01"}), &context).unwrap();
    source.check().await.unwrap();
    let catalog = source.discover(&[]).await.unwrap();
    let items = catalog.stream("items").unwrap();
    assert_eq!((&items.primary_key, &items.cursors), (&vec!["id".to_owned()], &vec!["at".to_owned()]));
    let incremental = Cursor { column: "at".into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
    let read = trib_core::StreamRead { read: Read::Incremental(incremental), ..emit::full("items") };
    let (emitted, state) = emit::read(source.as_ref(), &read, &State::default()).await.unwrap();
    assert_eq!(emitted.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 4);
    assert_eq!(state.stream("items"), Some(&json!({"at": "2026-01-09"})));
    let (emitted, _) = emit::read(source.as_ref(), &read, &state).await.unwrap();
    assert_eq!(emitted.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
    // Nobody takes the rows: the read ends, and does not hang.
    let (mut out, receiver) = trib_core::Emitter::channel(1, Arc::new(AtomicBool::new(false)));
    drop(receiver);
    let split = source.plan(&[read], &State::default()).await.unwrap().remove(0);
    assert_eq!(source.read(&split, &mut out).await.unwrap_err().code(), trib_core::Code::Cancelled);
}
