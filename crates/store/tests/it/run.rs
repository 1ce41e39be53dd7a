//! Every run can be explained later.

use serde_json::json;
use trib_core::{Code, Error, Secret};
use trib_store::{Counts, Level, RunEnd, RunStart, Status, StreamEnd};

use crate::place::{Place, cases, state};

pub mod cases {
    super::cases![
        a_run_from_start_to_end,
        a_run_that_died_is_seen,
        what_is_read_again_makes_nothing_fresh,
        people_ask_and_runs_listen,
        logs_go_on_where_they_were,
        nodes_are_paused
    ];
}

fn start(id: &str) -> RunStart {
    RunStart {
        id: id.into(),
        command: "trib run shop+".into(),
        selection: vec!["shop".into()],
        holder: "host".into(),
        ..RunStart::default()
    }
}

async fn a_run_from_start_to_end(place: &Place) {
    let store = place.open().await;
    store.start_run(&start("r1")).await.unwrap();
    store.stream_progress("r1", "shop", "orders", &Counts { read: 10, ..Counts::default() }).await.unwrap();
    store.stream_progress("r1", "shop", "orders", &Counts { read: 20, bytes: 99, ..Counts::default() }).await.unwrap();
    let streams = store.run_streams("r1").await.unwrap();
    assert_eq!((streams[0].status, streams[0].counts.read, streams[0].counts.bytes), (Status::Running, 20, 99));

    let error = Error::new(Code::DataInvalid, "no").to_json();
    let end = StreamEnd {
        status: Status::Failed,
        counts: Counts { read: 20, written: 7, updated: 1, deleted: 2, rejected: 3, bytes: 99 },
        from_state: None,
        to_state: Some(state(json!(1))),
        schema_changes: vec!["add column x".into()],
        error: Some(error.clone()),
    };
    store.finish_stream("r1", "shop", "orders", &end).await.unwrap();
    store.finish_run("r1", &RunEnd { status: Status::Partial, error: Some(error.clone()) }).await.unwrap();

    let run = place.open().await.run("r1").await.unwrap().unwrap();
    assert_eq!((run.status, run.selection, run.error, run.project_version), (Status::Partial, vec!["shop".to_owned()], Some(error), None));
    assert!(run.finished_at.unwrap() >= run.started_at);
    let stream = store.run_streams("r1").await.unwrap().remove(0);
    assert_eq!((stream.status, stream.counts, stream.to_state), (Status::Failed, end.counts, end.to_state));
    assert_eq!((stream.schema_changes, stream.finished_at.is_some()), (end.schema_changes, true));

    store.start_run(&start("r2")).await.unwrap();
    let ids: Vec<String> = store.runs(10).await.unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(ids, ["r2", "r1"]);
    assert_eq!(store.runs(1).await.unwrap().len(), 1);
}

async fn a_run_that_died_is_seen(place: &Place) {
    let died = place.open().await;
    died.start_run(&start("r1")).await.unwrap();
    let other = place.open().await;
    assert_eq!(other.run("r1").await.unwrap().unwrap().status, Status::Running);
    drop(died);
    assert_eq!(other.run("r1").await.unwrap().unwrap().status, Status::Interrupted);
}

async fn what_is_read_again_makes_nothing_fresh(place: &Place) {
    let store = place.open().await;
    let end = |status, from_state, to_state| StreamEnd {
        status,
        counts: Counts::default(),
        from_state,
        to_state,
        schema_changes: Vec::new(),
        error: None,
    };
    let stands = || Some(state(json!(1)));
    store.finish_stream("r1", "shop", "orders", &end(Status::Succeeded, stands(), stands())).await.unwrap();
    // One that has found nothing new is as fresh.
    store.finish_stream("r1", "shop", "people", &end(Status::Succeeded, stands(), None)).await.unwrap();
    store.finish_stream("r1", "shop", "filled", &end(Status::Succeeded, None, None)).await.unwrap();
    store.finish_stream("r1", "shop", "failed", &end(Status::Failed, stands(), None)).await.unwrap();
    let first = store.fresh().await.unwrap();
    assert_eq!(first.keys().map(|(_, stream)| stream.as_str()).collect::<Vec<_>>(), ["orders", "people"]);
    store.finish_stream("r2", "shop", "orders", &end(Status::Succeeded, None, None)).await.unwrap();
    store.finish_stream("r2", "shop", "people", &end(Status::Succeeded, stands(), stands())).await.unwrap();
    let then = store.fresh().await.unwrap();
    let of = |stream: &str| ("shop".to_owned(), stream.to_owned());
    assert_eq!(then[&of("orders")], first[&of("orders")]);
    assert!(then[&of("people")] > first[&of("people")]);
}

async fn people_ask_and_runs_listen(place: &Place) {
    let (run, person) = (place.open().await, place.open().await);
    run.start_run(&start("r1")).await.unwrap();
    assert!(!run.cancel_requested("r1").await.unwrap());
    assert_eq!(person.approve("r1", "me").await.unwrap_err().code(), Code::NotFound);
    person.request_cancel("r1").await.unwrap();
    assert!(run.cancel_requested("r1").await.unwrap());
    run.finish_run("r1", &RunEnd { status: Status::Held, error: None }).await.unwrap();
    assert_eq!(person.request_cancel("r1").await.unwrap_err().code(), Code::NotFound);
    person.approve("r1", "me").await.unwrap();
    assert_eq!(run.run("r1").await.unwrap().unwrap().approved_by.as_deref(), Some("me"));
    assert_eq!(run.approve("r1", "you").await.unwrap_err().code(), Code::UsageInvalid);
}

async fn logs_go_on_where_they_were(place: &Place) {
    let store = place.open().await;
    store.log("r1", Level::Info, None, None, "begun", None).await.unwrap();
    let secret = json!({"url": Secret::new("hunter2")});
    store.log("r1", Level::Warn, Some("shop"), Some("orders"), "odd\0text", Some(&secret)).await.unwrap();
    store.log("r2", Level::Info, None, None, "another run", None).await.unwrap();
    let lines = store.logs("r1", 0).await.unwrap();
    assert_eq!(lines.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), ["begun", "odd\u{fffd}text"]);
    assert_eq!((lines[1].level, lines[1].stream.as_deref()), (Level::Warn, Some("orders")));
    assert_eq!(lines[1].fields, Some(json!({"url": "***"})));
    assert_eq!(store.logs("r1", lines[0].id).await.unwrap().len(), 1);
}

async fn nodes_are_paused(place: &Place) {
    let store = place.open().await;
    store.pause("shop", "me", Some("moving house")).await.unwrap();
    store.pause("shop", "you", None).await.unwrap();
    let paused = store.paused().await.unwrap();
    assert_eq!((paused.len(), paused[0].by.as_str(), paused[0].reason.as_deref()), (1, "you", None));
    assert!(store.resume("shop").await.unwrap());
    assert!(!store.resume("shop").await.unwrap());
}
