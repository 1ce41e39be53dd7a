//! A run may die between any two steps, and another may have taken its place: the table ends as if nothing had happened.

use serde_json::json;
use trib_core::load::TableLoad;
use trib_core::{Code, Destination, Lease, Load, LoadId, Receipt, State, Table, TableName, WriteMode};

use crate::harness::{Bench, context, counts, staged, stream, table};

fn share(table: &Table, receipts: Vec<Receipt>) -> TableLoad {
    TableLoad { table: table.clone(), changes: vec![], receipts }
}

async fn number(bench: &Bench, lease: &Lease) -> Option<u64> {
    bench.lake.open(lease, &[]).await.unwrap().iter().map(|m| m.number).max()
}

#[tokio::test(flavor = "multi_thread")]
async fn committing_twice_is_committing_once() {
    for write in WriteMode::ALL {
        let bench = Bench::new().await;
        let table = table(*write);
        bench.rows(&table, &[(1, "a"), (2, "b")]).await;
        let receipt = bench.stage(&table, vec![bench.batch(&table, &[(2, "B"), (3, "c")], None)]).await;
        let load = bench.load(vec![share(&table, vec![receipt])]);
        // The store's copy of the load is what another process would have.
        let again: Load = serde_json::from_value(serde_json::to_value(&load).unwrap()).unwrap();
        assert!(!bench.commit(&load).await.unwrap().already_committed);
        let content = bench.content().await;

        let next = Lease { generation: 2, ..bench.lease.clone() };
        let lake = trib_lake::open(&json!({"path": "lake"}), &context(bench.dir.path())).unwrap();
        let markers = lake.open(&next, &[]).await.unwrap();
        assert_eq!((markers.len(), markers[0].number, markers[0].load.clone()), (1, 2, load.id.clone()));
        assert_eq!(markers[0].state, State::default().with_stream("orders", json!({"at": 2})));
        assert!(lake.commit(&again, &next).await.unwrap().already_committed);
        assert_eq!(bench.content().await, content, "{write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_rows_are_seen_by_nobody_and_swept() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Upsert);
    bench.rows(&table, &[(1, "a")]).await;
    let kept = bench.stage(&table, vec![bench.batch(&table, &[(2, "b")], None)]).await;
    let lost = bench.stage_part(&table, 99, 0, vec![bench.batch(&table, &[(3, "c")], None)]).await.unwrap();
    assert_eq!(lost.rows, 1);
    assert_eq!((bench.content().await, bench.loose().len()), (vec!["1=a".to_owned()], 2));

    // The next run keeps the load that its store knows to be staged.
    let next = Lease { generation: 2, ..bench.lease.clone() };
    bench.lake.open(&next, &[]).await.unwrap();
    bench.lake.sweep(&next, std::slice::from_ref(&kept.part.load)).await.unwrap();
    assert_eq!(bench.loose().len(), 1);
    let load = bench.load(vec![share(&table, vec![kept])]);
    assert_eq!(counts(&bench.lake.commit(&load, &next).await.unwrap()), (1, 0, 0));
    bench.lake.sweep(&next, &[]).await.unwrap();
    assert_eq!((bench.content().await, bench.loose().len()), (vec!["1=a".to_owned(), "2=b".to_owned()], 0));
    // Aborting what was committed, or never was, takes nothing away.
    bench.lake.abort(&load.id).await.unwrap();
    bench.lake.abort(&LoadId("never".into())).await.unwrap();
    assert_eq!(bench.content().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_works_before_the_table_is_there_and_abort_leaves_nothing() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Replace);
    let receipt = bench.stage(&table, vec![bench.batch(&table, &[(1, "a")], None)]).await;
    assert!(bench.lake.inspect(&table.name).await.unwrap().is_none());
    bench.lake.abort(&receipt.part.load).await.unwrap();
    assert_eq!(bench.loose(), Vec::<String>::new());
    let load = bench.load(vec![share(&table, vec![receipt])]);
    let error = bench.lake.commit(&load, &bench.lease).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error:?}");
    assert!(bench.lake.inspect(&table.name).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_rows_stages_nothing() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Append);
    let part = trib_core::Part { load: LoadId("load0001".into()), sync: bench.lease.sync.clone(), split: 0, attempt: 0 };
    let batch = staged(&table.staging_schema(), &[(1, "a")], None, 1);
    let rows = vec![Ok(batch), Err(trib_core::Error::new(Code::ConnectionLost, "the connection broke"))];
    let error = bench.lake.stage(&part, &table, Box::pin(futures::stream::iter(rows))).await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionLost);
    bench.lake.abort(&part.load).await.unwrap();
    assert_eq!(bench.loose(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rivals_one_commits() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Append);
    bench.rows(&table, &[(1, "a")]).await;
    let load = |id: &str, receipt: Receipt| Load { id: LoadId(id.into()), ..bench.load(vec![share(&table, vec![receipt])]) };
    let mut loads = Vec::new();
    for rival in 0..6 {
        let part = trib_core::Part { load: LoadId(format!("rival{rival}")), sync: bench.lease.sync.clone(), split: 0, attempt: 0 };
        let rows = vec![staged(&table.staging_schema(), &[(rival, "rival")], None, 2)];
        loads.push(load(&part.load.0.clone(), bench.lake.stage(&part, &table, stream(rows)).await.unwrap()));
    }
    let done = futures::future::join_all(loads.iter().map(|l| bench.lake.commit(l, &bench.lease))).await;
    let (won, lost): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 5));
    for error in lost {
        assert_eq!(error.unwrap_err().code(), Code::LeaseLost);
    }
    assert_eq!(bench.content().await.len(), 2);
    assert_eq!(number(&bench, &bench.lease).await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_lease_cannot_commit() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Append);
    let receipt = bench.stage(&table, vec![bench.batch(&table, &[(1, "a")], None)]).await;
    let next = Lease { generation: 2, holder: "other".into(), ..bench.lease.clone() };
    bench.lake.open(&next, &[]).await.unwrap();
    let load = bench.load(vec![share(&table, vec![receipt])]);
    assert_eq!(bench.lake.commit(&load, &bench.lease).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(bench.lake.open(&bench.lease, &[]).await.unwrap_err().code(), Code::LeaseLost);
    // Of two that claim one generation, one has it.
    let third = Lease { holder: "third".into(), ..next.clone() };
    assert_eq!(bench.lake.open(&third, &[]).await.unwrap_err().code(), Code::LeaseLost);
    assert!(bench.lake.open(&next, &[]).await.is_ok());
}

/// Loads of other syncs into the same table go on side by side, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn many_syncs_into_one_table() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Upsert);
    bench.rows(&table, &[(0, "first")]).await;
    let one = |sync: i64| {
        let (lake, table) = (bench.lake.clone(), table.clone());
        async move {
            let lease = Lease { sync: format!("sync{sync}"), generation: 1, holder: "test".into() };
            lake.open(&lease, &[]).await.unwrap();
            for number in 1..=4u64 {
                let id = LoadId(format!("s{sync}-{number}"));
                let part = trib_core::Part { load: id.clone(), sync: lease.sync.clone(), split: 0, attempt: 0 };
                let rows = vec![staged(&table.staging_schema(), &[(sync * 100 + number as i64, "x"), (0, "all")], None, 1)];
                let receipt = lake.stage(&part, &table, stream(rows)).await.unwrap();
                let load = Load {
                    id,
                    scope: "s".into(),
                    number,
                    tables: vec![share(&table, vec![receipt])],
                    state: State::default(),
                    filled: Vec::new(),
                    made_from: None,
                    loaded_at: chrono::DateTime::UNIX_EPOCH,
                };
                lake.commit(&load, &lease).await.unwrap();
            }
        }
    };
    futures::future::join_all((1..=4).map(one)).await;
    assert_eq!(bench.query("select count(*), count(distinct id) from orders").await, ["17=17"]);
    assert_eq!(bench.loose(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_rows_moves_only_the_marker() {
    let bench = Bench::new().await;
    // Even before there is a table.
    let empty = bench.load(vec![]);
    bench.commit(&empty).await.unwrap();
    assert_eq!(number(&bench, &bench.lease).await, Some(1));
    bench.rows(&table(WriteMode::Append), &[(1, "a")]).await;
    assert_eq!(number(&bench, &bench.lease).await, Some(2));
    let load = bench.load(vec![share(&table(WriteMode::Append), vec![])]);
    bench.commit(&load).await.unwrap();
    assert_eq!(number(&bench, &bench.lease).await, Some(3));
    assert_eq!(bench.content().await, ["1=a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_takes_its_marker_along() {
    let bench = Bench::new().await;
    bench.rows(&table(WriteMode::Append), &[(1, "a")]).await;
    std::fs::remove_dir_all(bench.folder("main.orders")).unwrap();
    assert_eq!(number(&bench, &bench.lease).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scopes_begin_anew() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Replace);
    bench.rows(&table, &[(1, "a")]).await;
    bench.lake.forget(&bench.lease, &["orders".into()], &[TableName::parse("main.orders")]).await.unwrap();
    assert_eq!(number(&bench, &bench.lease).await, None);
    let receipt = bench.stage_part(&table, 50, 0, vec![bench.batch(&table, &[(2, "b")], None)]).await.unwrap();
    let load = Load { id: receipt.part.load.clone(), number: 1, ..bench.load(vec![share(&table, vec![receipt])]) };
    bench.lake.commit(&load, &bench.lease).await.unwrap();
    assert_eq!((bench.content().await, number(&bench, &bench.lease).await), (vec!["2=b".to_owned()], Some(1)));
}

/// Names of all scripts, and of syncs and scopes that no file system would take.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names() {
    let bench = Bench::new().await;
    let name = TableName::new(Some("Läden & co".replace(" &", "").as_str()), "größe 日本");
    let table = Table { name: name.clone(), ..table(WriteMode::Upsert) };
    let lease = Lease { sync: "a/b:*?\"%41".into(), ..bench.lease.clone() };
    bench.lake.open(&lease, &[]).await.unwrap();
    for number in 1..=2 {
        let part = trib_core::Part { load: LoadId(format!("odd{number}")), sync: lease.sync.clone(), split: 0, attempt: 0 };
        let rows = vec![staged(&table.staging_schema(), &[(1, "a")], None, 1)];
        let receipt = bench.lake.stage(&part, &table, stream(rows)).await.unwrap();
        let load = Load { id: part.load, number, scope: "public.\"x/y\"".into(), ..bench.load(vec![share(&table, vec![receipt])]) };
        bench.lake.commit(&load, &lease).await.unwrap();
    }
    assert_eq!(number(&bench, &lease).await, Some(2));
    assert_eq!(bench.lake.tables().await.unwrap(), [name]);
    assert_eq!(bench.query("select id, name from \"Läden co\".\"größe 日本\"").await, ["1=a"]);
    bench.lake.sweep(&lease, &[]).await.unwrap();
}

/// The markers are still there when the log has become checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn markers_outlive_the_log() {
    let bench = Bench::with(json!({"checkpoint_every": 2})).await;
    let table = table(WriteMode::Append);
    for n in 0..7 {
        bench.rows(&table, &[(n, "x")]).await;
    }
    let log = bench.folder("main.orders").join("_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    for version in 0..6 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    assert_eq!(number(&bench, &bench.lease).await, Some(7));
    assert_eq!(bench.rows(&table, &[(9, "y")]).await, (1, 0, 0));
    assert_eq!(bench.content().await.len(), 8);
}
