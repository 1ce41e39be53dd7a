//! As many connections as the user allows, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::future::{join_all, try_join_all};
use futures::{SinkExt, StreamExt, stream};
use serde_json::json;
use trib_connectors::postgres::connector;
use trib_core::{Context, Destination, Part, Source, State, StreamRead, WriteMode};
use trib_testkit::emit;

use super::faults::{fields, many};
use super::{Database, Sync, context, table};

/// Both ends with so many threads.
fn ends(db: &Database, threads: usize) -> (Arc<dyn Source>, Arc<dyn Destination>) {
    let (settings, context) = (json!({ "url": db.server.url(&db.name) }), Context { threads, ..context() });
    (connector().make_source(&settings, &context).unwrap(), connector().make_destination(&settings, &context).unwrap())
}

/// Counts connections of ours to the database.
fn counter(db: &Database) -> impl Fn() -> u64 + Send + 'static {
    let (server, name) = (db.server.clone(), db.name.clone());
    let ours = "application_name = 'tributary' and datname = current_database()";
    move || server.sql(&name, &format!("select count(*) from pg_stat_activity where {ours}")).unwrap().parse().unwrap()
}

/// What must come to an end, and would wait for ever if one waited for another in a circle.
async fn ends_soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(2), work).await.expect("nothing goes on")
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_with_snapshots_share_the_connections() {
    let db = Database::new();
    for t in 0..4 {
        db.sql(&format!("create table big{t} (id int primary key, pad text); alter table big{t} alter pad set storage plain"));
        db.sql(&format!("insert into big{t} select i, repeat('x', 1000) from generate_series(1, 20000) i"));
        db.sql(&format!("vacuum analyze big{t}"));
    }
    for threads in [1, 2] {
        let (source, _) = ends(&db, threads);
        let (open, most) = (counter(&db), AtomicU64::new(0));
        let read = async |t: u32| {
            let read = StreamRead { parallelism: 2, ..emit::full(&format!("public.big{t}")) };
            let splits = source.plan(&[read], &State::default()).await.unwrap();
            assert_eq!(splits.len(), 2);
            let rows = async |split| {
                let emitted = emit::collect(source.as_ref(), split).await?;
                most.fetch_max(open(), Ordering::SeqCst);
                Ok::<usize, trib_core::Error>(emitted.batches.iter().map(RecordBatch::num_rows).sum())
            };
            try_join_all(splits.iter().map(rows)).await.unwrap().iter().sum::<usize>()
        };
        let rows = ends_soon(join_all((0..4).map(read))).await;
        assert_eq!(rows, [20_000; 4]);
        assert!(most.load(Ordering::SeqCst) <= threads as u64, "{most:?} connections with {threads} threads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_gives_its_connections_back() {
    let db = Database::new();
    db.sql("create table big (id int primary key, pad text); alter table big alter pad set storage plain");
    db.sql("insert into big select i, repeat('x', 1000) from generate_series(1, 20000) i");
    db.sql("vacuum analyze big");
    let (source, _) = ends(&db, 1);
    let read = StreamRead { parallelism: 2, ..emit::full("public.big") };
    for _ in 0..2 {
        let splits = source.plan(std::slice::from_ref(&read), &State::default()).await.unwrap();
        // Nobody takes what is read.
        let (mut out, receiver) = trib_core::Emitter::channel(1, Arc::default());
        drop(receiver);
        source.read(&splits[0], &mut out).await.unwrap_err();
    }
    let (emitted, _) = ends_soon(emit::read(source.as_ref(), &read, &State::default())).await.unwrap();
    assert_eq!(emitted.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_share_the_connections() {
    let db = Database::new();
    let (_, destination) = ends(&db, 2);
    let mut sync = Sync::begin(destination.clone(), "s").await;
    let wanted = table("t", fields(), &["id"], WriteMode::Append);
    let most = Arc::new(AtomicU64::new(0));
    let stage = |split: u32| {
        let part = Part { load: sync.next_id(), sync: "s".into(), split, attempt: 0 };
        let batches = sync.stamped(&wanted, &vec![many(i64::from(split) * 1000, 1000); 5].concat(), 0);
        let (open, most) = (counter(&db), most.clone());
        let rows = stream::iter(batches).map(move |batch| {
            most.fetch_max(open(), Ordering::SeqCst);
            Ok(batch)
        });
        let (destination, wanted) = (&destination, &wanted);
        async move { destination.stage(&part, wanted, rows.boxed()).await }
    };
    let receipts = ends_soon(try_join_all((0..6).map(stage))).await.unwrap();
    assert_eq!(receipts.iter().map(|r| r.rows).sum::<u64>(), 30_000);
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
    let load = sync.load_of(vec![(&wanted, receipts)]);
    sync.commit(&load).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_fed_side_by_side_do_not_wait_for_each_other() {
    let db = Database::new();
    let (_, destination) = ends(&db, 1);
    let sync = Sync::begin(destination.clone(), "s").await;
    let part = Part { load: sync.next_id(), sync: "s".into(), split: 0, attempt: 0 };
    let tables = ["parent", "child"].map(|name| table(name, fields(), &["id"], WriteMode::Append));
    let (mut senders, mut stages) = (Vec::new(), Vec::new());
    for wanted in &tables {
        let (sender, receiver) = futures::channel::mpsc::channel(1);
        senders.push(sender);
        stages.push(destination.stage(&part, wanted, receiver.boxed()));
    }
    let feeding = async {
        for _ in 0..5 {
            for (sender, wanted) in senders.iter_mut().zip(&tables) {
                for batch in sync.stamped(wanted, &many(0, 10), 0) {
                    sender.send(Ok(batch)).await.unwrap();
                }
            }
        }
        drop(senders);
    };
    let (receipts, ()) = ends_soon(async { tokio::join!(join_all(stages), feeding) }).await;
    assert!(receipts.iter().all(|r| r.as_ref().is_ok_and(|r| r.rows == 50)), "{receipts:?}");
}
