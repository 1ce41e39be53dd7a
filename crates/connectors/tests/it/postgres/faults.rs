//! What goes wrong, and that nothing of it is seen.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, stream};
use serde_json::json;
use trib_connectors::postgres::connector;
use trib_core::{Code, Error, LoadId, Part, State, WriteMode};
use trib_testkit::emit;

use super::{Database, Sync, context, table};

pub(super) fn fields() -> Vec<Field> {
    vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]
}

pub(super) fn many(from: i64, count: i64) -> Vec<RecordBatch> {
    let ids = Int64Array::from_iter_values(from..from + count);
    let values = StringArray::from_iter_values((0..count).map(|i| format!("value {i}")));
    vec![RecordBatch::try_new(Arc::new(Schema::new(fields())), vec![Arc::new(ids) as ArrayRef, Arc::new(values)]).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_made() {
    let db = Database::new();
    let port = db.server.port();
    let password = db.server.password();
    let cases = [
        (json!({"url": "postgres://u:p@no-such-host.invalid/x"}), Code::HostUnknown),
        (json!({"url": "postgres://u:p@127.0.0.1:1/x"}), Code::ConnectionRefused),
        (json!({"url": format!("postgres://trib:hunter2@127.0.0.1:{port}/{}", db.name)}), Code::AuthFailed),
        (json!({"host": "127.0.0.1", "port": port, "user": "trib", "database": db.name}), Code::AuthFailed),
        (json!({"url": format!("postgres://trib:{password}@127.0.0.1:{port}/nowhere")}), Code::NotFound),
        (json!({"url": format!("{}?sslmode=require", db.server.url(&db.name))}), Code::TlsFailed),
        (json!({"url": "nonsense"}), Code::ConfigInvalid),
        (json!({"urll": "x"}), Code::ConfigInvalid),
        (json!({}), Code::ConfigInvalid),
    ];
    for (settings, code) in cases {
        let error = match connector().make_source(&settings, &context()) {
            Ok(source) => source.discover(&[]).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.code(), code, "{settings}: {error:?}");
        assert!(error.hint_text().is_some(), "{error:?}");
        assert!(!format!("{error:?}{}", error.to_json()).contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_grants_come_with_the_statement() {
    let db = Database::new();
    db.sql("create table t (id int); create role limited login password 'pw'; grant connect on database template1 to limited");
    let url = format!("postgres://limited:pw@127.0.0.1:{}/{}", db.server.port(), db.name);
    let settings = json!({ "url": url });
    let source = connector().make_source(&settings, &context()).unwrap();
    let error = source.check().await.unwrap_err();
    assert_eq!((error.code(), error.hint_text()), (Code::PermissionDenied, Some("GRANT SELECT ON public.t TO limited;")));
    assert!(source.discover(&[]).await.unwrap().streams.is_empty());
    let destination = connector().make_destination(&settings, &context()).unwrap();
    let error = destination.check().await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("GRANT CREATE ON DATABASE"), "{error:?}");
    db.sql("drop owned by limited; drop role limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_part_leaves_nothing_and_is_tried_again() {
    let db = Database::new();
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let wanted = table("t", fields(), &["id"], WriteMode::Replace);
    let good = sync.stage_part(&wanted, 0, 0, &many(0, 1000), 0).await.unwrap();
    // The source breaks in the middle of the second part.
    let part = Part { load: sync.next_id(), sync: "s".into(), split: 1, attempt: 0 };
    let half = sync.stamped(&wanted, &many(1000, 50_000), 0).into_iter().map(Ok);
    let broken = half.chain([Err(Error::new(Code::ConnectionLost, "cut"))]);
    let error = db.destination.stage(&part, &wanted, Box::pin(stream::iter(broken))).await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionLost);
    // Staged whole, but its receipt got lost: these rows may not be published either.
    sync.stage_part(&wanted, 1, 1, &many(5000, 10), 0).await.unwrap();
    let again = sync.stage_part(&wanted, 1, 2, &many(1000, 10), 0).await.unwrap();
    assert_eq!(db.sql("select to_regclass('t') is null"), "t");
    let load = sync.load_of(vec![(&wanted, vec![good, again])]);
    assert_eq!(sync.commit(&load).await.unwrap().tables[0].inserted, 1010);
    assert_eq!(db.sql("select count(*), max(id) from t"), "1010|1009");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_connection_and_shows_no_row() {
    let db = Database::new();
    db.sql("create table t (id bigint, v text unique)");
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let wanted = table("t", fields(), &[], WriteMode::Append);
    let error = sync.load(&wanted, vec![many(7, 1), many(8, 1)]).await.unwrap_err();
    assert_eq!((error.code(), error.place().connection.as_deref()), (Code::DataInvalid, Some("shop")));
    let shown = error.to_json().to_string();
    assert!(shown.contains("t_v_key") && !shown.contains("value 0"), "{shown}");
    let error = db.source.plan(&[emit::full("public.nowhere")], &State::default()).await.unwrap_err();
    assert_eq!(error.place().connection.as_deref(), Some("shop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_is_a_lost_connection() {
    let db = Database::new();
    let sync = Sync::begin(db.destination.clone(), "s").await;
    let wanted = table("t", fields(), &["id"], WriteMode::Append);
    let part = Part { load: sync.next_id(), sync: "s".into(), split: 0, attempt: 0 };
    let (server, name) = (db.server.clone(), db.name.clone());
    let kill = move || {
        let mine = "application_name = 'tributary' and datname = current_database()";
        server.sql(&name, &format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where {mine}")).unwrap()
    };
    let kill_in_stream = kill.clone();
    let batches = sync.stamped(&wanted, &many(0, 10_000), 0);
    let endless = stream::iter(std::iter::repeat(batches[0].clone())).enumerate().map(move |(i, batch)| {
        if i == 20 {
            kill_in_stream();
        }
        Ok(batch)
    });
    let error = db.destination.stage(&part, &wanted, Box::pin(endless)).await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionLost, "{error:?}");
    assert_eq!(error.code().retry(), trib_core::error::Retry::Backoff);

    db.sql("create table big as select i as id, repeat('x', 100) as pad from generate_series(1, 300000) i");
    let read = emit::full("public.big");
    let splits = db.source.plan(std::slice::from_ref(&read), &State::default()).await.unwrap();
    let (mut out, mut receiver) = trib_core::Emitter::channel(1, Arc::default());
    let reading = async {
        let end = db.source.read(&splits[0], &mut out).await;
        drop(out);
        end
    };
    let killing = async {
        receiver.recv().await;
        kill();
        while receiver.recv().await.is_some() {}
    };
    let (end, ()) = tokio::join!(reading, killing);
    assert_eq!(end.unwrap_err().code(), Code::ConnectionLost);
    // The next attempt finds a new connection by itself.
    assert!(!db.read("public.big").await.batches.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rivals_the_later_lease_commits() {
    let db = Database::new();
    let wanted = table("t", fields(), &["id"], WriteMode::Upsert);
    let mut old = Sync::begin_at(db.destination.clone(), "s", 1).await;
    let staged = old.stage(&wanted, vec![many(0, 3)]).await.unwrap();
    let mut new = Sync::begin_at(db.destination.clone(), "s", 2).await;
    new.number = 0;
    assert_eq!(old.commit(&staged).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(db.sql("select to_regclass('t') is null"), "t");
    // Staged durably, so the new holder may commit it.
    new.commit(&staged).await.unwrap();
    assert_eq!(db.sql("select count(*) from t"), "3");
    let markers = db.destination.open(&new.lease, &[]).await.unwrap();
    assert_eq!((markers[0].number, &markers[0].load, &markers[0].state), (1, &staged.id, &staged.state));
    // A load whose number does not follow is not taken.
    let stale = trib_core::Load { id: LoadId("x".into()), number: 1, ..staged };
    assert_eq!(db.destination.commit(&stale, &new.lease).await.unwrap_err().code(), Code::LeaseLost);
    db.destination.forget(&new.lease, &["stream".to_owned()], &[]).await.unwrap();
    assert!(db.destination.open(&new.lease, &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_swept() {
    let db = Database::new();
    let wanted = table("t", fields(), &["id"], WriteMode::Append);
    let mine = Sync::begin(db.destination.clone(), "mine").await;
    let theirs = Sync::begin(db.destination.clone(), "theirs").await;
    let staged = || db.sql("select count(*) from pg_class where relname like '\\_trib\\_s\\_%'");
    mine.stage(&wanted, vec![many(0, 3)]).await.unwrap();
    theirs.stage(&wanted, vec![many(0, 3)]).await.unwrap();
    db.destination.sweep(&mine.lease, &[mine.next_id()]).await.unwrap();
    assert_eq!(staged(), "2");
    db.destination.sweep(&mine.lease, &[]).await.unwrap();
    assert_eq!(staged(), "1");
    // What was swept can be staged again by the same process.
    mine.stage(&wanted, vec![many(0, 3)]).await.unwrap();
    db.destination.abort(&theirs.next_id()).await.unwrap();
    assert_eq!(staged(), "0");
    db.destination.abort(&LoadId("never".into())).await.unwrap();
}
