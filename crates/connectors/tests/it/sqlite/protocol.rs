//! Crash points, rivals, sweeping, locks.

use futures::StreamExt;
use serde_json::json;
use trib_core::contract::SchemaChange;
use trib_core::load::Deletes;
use trib_core::{Code, Error, Lease, LoadId, TableLoad, WriteMode};

use super::{Place, TestRow, counts, lease, load, load_rows, part, stage, staged, table};

const ROWS: &[TestRow] = &[(1, Some("a"), "i"), (2, Some("b"), "i")];

async fn staged_load(place: &Place, number: u64) -> trib_core::Load {
    let destination = place.destination();
    let table = table(WriteMode::Append, Deletes::Hard);
    let id = format!("l{number}");
    let receipt = stage(&destination, &part(&id, 0), &table, vec![staged(&table, &id, 0, 0, ROWS)]).await.unwrap();
    load(number, vec![TableLoad { table, changes: vec![SchemaChange::CreateTable], receipts: vec![receipt] }])
}

#[tokio::test]
async fn a_staged_load_outlives_its_process_and_is_committed_once() {
    let place = Place::new();
    place.destination().open(&lease(1), &[]).await.unwrap();
    let staged = staged_load(&place, 1).await;
    // The store keeps it as JSON; another process, under a later lease, commits it.
    let staged: trib_core::Load = serde_json::from_str(&serde_json::to_string(&staged).unwrap()).unwrap();
    assert!(place.destination().inspect(&staged.tables[0].table.name).await.unwrap().is_none(), "staged is not visible");
    assert!(place.destination().open(&lease(2), &[]).await.unwrap().is_empty());
    let outcome = place.destination().commit(&staged, &lease(2)).await.unwrap();
    assert_eq!(counts(&outcome), (2, 0, 0));
    assert!(place.side_files().is_empty());
    let again = place.destination().commit(&staged, &lease(2)).await.unwrap();
    assert!(again.already_committed);
    assert_eq!(place.rows("SELECT count(*) FROM t"), ["2"]);
    let markers = place.destination().open(&lease(3), &[]).await.unwrap();
    assert_eq!(markers.len(), 1);
    assert_eq!((markers[0].number, &markers[0].load, &markers[0].state, markers[0].generation), (1, &staged.id, &staged.state, 2));
}

#[tokio::test]
async fn of_two_rivals_the_later_commits() {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let ours = staged_load(&place, 1).await;
    destination.open(&lease(2), &[]).await.unwrap();
    let error = destination.commit(&ours, &lease(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::LeaseLost);
    assert_eq!(destination.open(&lease(1), &[]).await.unwrap_err().code(), Code::LeaseLost);
    let skipping = load(2, ours.tables.clone());
    assert_eq!(destination.commit(&skipping, &lease(2)).await.unwrap_err().code(), Code::LeaseLost);
    assert!(place.rows("SELECT name FROM sqlite_schema WHERE name = 't'").is_empty());
}

#[tokio::test]
async fn only_the_attempt_with_a_receipt_is_published_and_the_rest_is_swept() {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let table = table(WriteMode::Append, Deletes::Hard);
    let batch = || staged(&table, "l1", 0, 0, ROWS);
    // The first attempt fails in the middle, the second is forgotten, the third gives the receipt.
    let failing = futures::stream::iter([Ok(batch()), Err(Error::new(Code::ConnectionLost, "gone"))]).boxed();
    assert_eq!(destination.stage(&part("l1", 0), &table, failing).await.unwrap_err().code(), Code::ConnectionLost);
    assert!(place.side_files().is_empty());
    let attempt = |n| trib_core::Part { attempt: n, ..part("l1", 0) };
    stage(&destination, &attempt(1), &table, vec![batch()]).await.unwrap();
    let receipt = stage(&destination, &attempt(2), &table, vec![batch()]).await.unwrap();
    stage(&destination, &part("l0", 0), &table, vec![batch()]).await.unwrap();
    stage(&destination, &part("l9", 0), &table, vec![batch()]).await.unwrap();
    let other = trib_core::Part { sync: "other".into(), ..part("l7", 0) };
    stage(&destination, &other, &table, vec![batch()]).await.unwrap();
    let outcome = destination
        .commit(
            &load(1, vec![TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts: vec![receipt] }]),
            &lease(1),
        )
        .await
        .unwrap();
    assert_eq!(counts(&outcome), (2, 0, 0));
    assert_eq!(place.side_files().len(), 3);
    destination.sweep(&lease(1), &[LoadId("l9".into())]).await.unwrap();
    assert_eq!(place.side_files().len(), 2, "the kept load's and the other sync's");
    destination.abort(&LoadId("l7".into())).await.unwrap();
    destination.abort(&LoadId("never".into())).await.unwrap();
    assert_eq!(place.side_files().len(), 1);
}

#[tokio::test]
async fn parts_that_are_gone_or_torn_are_not_published() {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let ours = staged_load(&place, 1).await;
    let file = place.folder().join(&place.side_files()[0]);
    rusqlite::Connection::open(&file).unwrap().execute_batch("DELETE FROM rows WHERE id = 2").unwrap();
    assert_eq!(destination.commit(&ours, &lease(1)).await.unwrap_err().code(), Code::DataInvalid);
    std::fs::remove_file(&file).unwrap();
    let error = destination.commit(&ours, &lease(1)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "a staged part is no longer there"));
    assert!(place.side_files().is_empty(), "no empty database was made in its place");
}

#[tokio::test]
async fn a_load_without_rows_or_receipts() {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    // Only the marker moves.
    destination.commit(&load(1, vec![]), &lease(1)).await.unwrap();
    let table = table(WriteMode::Replace, Deletes::Hard);
    let unread = TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts: vec![] };
    destination.commit(&load(2, vec![unread]), &lease(1)).await.unwrap();
    assert!(destination.inspect(&table.name).await.unwrap().is_none());
    load_rows(&destination, &table, 3, &[&[]]).await.unwrap();
    assert!(destination.inspect(&table.name).await.unwrap().is_some(), "an empty table is a table");
    assert_eq!(destination.open(&lease(1), &[]).await.unwrap()[0].number, 3);
    destination.forget(&lease(1), &["t".into()], &[]).await.unwrap();
    assert!(destination.open(&lease(1), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_parts_are_published_together() {
    for (write, parts) in [(WriteMode::Append, 25), (WriteMode::Replace, 25), (WriteMode::Upsert, 25), (WriteMode::Append, 8)] {
        let place = Place::new();
        let rows: Vec<TestRow> = (0..100).map(|i| (i, Some("x"), "i")).collect();
        let parts: Vec<&[TestRow]> = rows.chunks(100 / parts).collect();
        let outcome = load_rows(&place.destination(), &table(write, Deletes::Hard), 1, &parts).await.unwrap();
        assert_eq!(counts(&outcome), (100, 0, 0));
        assert_eq!(place.rows("SELECT count(*), count(DISTINCT id) FROM t"), ["100|100"]);
        assert!(place.side_files().is_empty());
    }
}

#[tokio::test]
async fn a_locked_database_is_waited_for_and_then_said() {
    let place = Place::new();
    let destination = place.destination_with(json!({"busy_timeout": "50ms"}));
    destination.open(&lease(1), &[]).await.unwrap();
    let ours = staged_load(&place, 1).await;
    let rival = place.connect();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = destination.commit(&ours, &lease(1)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Timeout, "another process has the database locked"));
    assert!(error.hint_text().unwrap().contains("busy_timeout"));
    rival.execute_batch("ROLLBACK").unwrap();
    assert_eq!(counts(&destination.commit(&ours, &lease(1)).await.unwrap()), (2, 0, 0));
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_half_done() {
    let Some(disk) = trib_testkit::tiny_disk::TinyDisk::mount(4).unwrap() else { return };
    let place = Place::at(disk.path());
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let long: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    let rows = |n: i64| (0..n).map(|i| (i, Some(long), "i")).collect::<Vec<TestRow>>();
    let table = table(WriteMode::Append, Deletes::Hard);
    let batch = |n| vec![staged(&table, "l1", 0, 0, &rows(n))];
    // Staging does not fit.
    let error = stage(&destination, &part("l1", 0), &table, batch(60)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "the disk is full"));
    assert!(place.side_files().is_empty());
    // Staging fits, and committing does not until there is room.
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1_000_000]).unwrap();
    let receipt = stage(&destination, &part("l1", 1), &table, batch(18)).await.unwrap();
    let ours = load(1, vec![TableLoad { table: table.clone(), changes: vec![SchemaChange::CreateTable], receipts: vec![receipt] }]);
    let error = destination.commit(&ours, &lease(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(place.rows("SELECT name FROM sqlite_schema WHERE name = 't'").is_empty());
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(counts(&destination.commit(&ours, &lease(1)).await.unwrap()), (18, 0, 0));
}

#[tokio::test]
async fn a_transaction_that_a_crash_left_behind_is_rolled_back() {
    let place = Place::with("CREATE TABLE t (id INTEGER PRIMARY KEY, pad BLOB); INSERT INTO t VALUES (1, zeroblob(5000000));");
    let crashed = Place::new();
    // A copy of the files in the middle of a transaction is what a crash leaves.
    let writer = place.connect();
    writer.execute_batch("PRAGMA cache_size = 10; BEGIN; UPDATE t SET pad = randomblob(5000000); INSERT INTO t VALUES (2, NULL);").unwrap();
    for entry in std::fs::read_dir(place.folder()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), crashed.folder().join(entry.file_name())).unwrap();
    }
    assert!(crashed.folder().join("shop.db-journal").exists());
    // A source never writes, and says who can.
    let error = crashed.source().check().await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.hint_text().unwrap().contains("rolls its transaction back"), "{error:?}");
    let table = trib_core::TableName::parse("t");
    assert!(crashed.destination().inspect(&table).await.unwrap().is_some());
    assert_eq!(crashed.rows("SELECT id, pad = zeroblob(5000000) FROM t"), ["1|1"]);
    crashed.source().check().await.unwrap();
}

#[tokio::test]
async fn syncs_do_not_know_each_other() {
    let place = Place::new();
    let destination = place.destination();
    destination.open(&lease(5), &[]).await.unwrap();
    let other = Lease { sync: "other".into(), ..lease(1) };
    assert!(destination.open(&other, &[]).await.unwrap().is_empty());
    destination.commit(&load(1, vec![]), &other).await.unwrap();
    assert!(destination.open(&lease(5), &[]).await.unwrap().is_empty());
    destination.check().await.unwrap();
}
