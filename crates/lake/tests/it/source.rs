//! The lake as a source.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::json;
use trib_core::emitter::Message;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Emitter, Read, ReadMode, Source, Split, SplitEnd, State, StreamRead, WriteMode};

use crate::harness::{Bench, table};

fn read(mode: Read) -> StreamRead {
    StreamRead {
        stream: "main.orders".into(),
        columns: None,
        filter: None,
        key: vec!["id".into()],
        read: mode,
        split_by: None,
        parallelism: 2,
        may_stop: true,
        exactly_once: true,
    }
}

fn by_id() -> Cursor {
    Cursor { column: "id".into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None }
}

async fn one(bench: &Bench, split: &Split, stop: bool) -> (Vec<i64>, SplitEnd) {
    let (mut out, mut messages) = Emitter::channel(1000, Arc::new(AtomicBool::new(stop)));
    let end = bench.lake.read(split, &mut out).await.unwrap();
    drop(out);
    let mut ids = Vec::new();
    while let Some(message) = messages.recv().await {
        let Message::Batch { batch, .. } = message else { panic!("not a batch") };
        ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
    }
    (ids, end)
}

/// Plans and reads; gives what came and the state after it.
async fn run(bench: &Bench, read: &StreamRead, state: &State, stop: bool) -> (Vec<i64>, State) {
    let reads = [read.clone()];
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for split in bench.lake.plan(&reads, state).await.unwrap() {
        let (more, end) = one(bench, &split, stop).await;
        ids.extend(more);
        ends.push(end);
    }
    ids.sort_unstable();
    (ids, bench.lake.advance(&reads, state, &ends).unwrap())
}

async fn bench() -> Bench {
    let bench = Bench::new().await;
    for id in 1..=5 {
        bench.rows(&table(WriteMode::Append), &[(id, "x")]).await;
    }
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery() {
    let bench = bench().await;
    let catalog = bench.lake.discover(&[]).await.unwrap();
    let stream = catalog.stream("main.orders").unwrap();
    assert_eq!((stream.rows, stream.schema_name.as_deref(), stream.table.as_str()), (Some(5), Some("main"), "orders"));
    assert_eq!(stream.read_modes, [ReadMode::Full, ReadMode::Incremental]);
    assert_eq!(
        bench.lake.plan(&[StreamRead { stream: "main.nothing".into(), ..read(Read::Full) }], &State::default()).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn full_keys_and_ranges() {
    let bench = bench().await;
    let start = State::default();
    assert_eq!(run(&bench, &read(Read::Full), &start, false).await.0, [1, 2, 3, 4, 5]);
    assert_eq!(run(&bench, &read(Read::Keys), &start, false).await.0, [1, 2, 3, 4, 5]);
    let range = Read::Range { column: "id".into(), since: Some("2".into()), until: Some("4".into()) };
    assert_eq!(run(&bench, &read(range), &start, false).await.0, [2, 3]);
    let filtered = StreamRead { filter: Some("id % 2 = 0".into()), columns: Some(vec!["id".into()]), ..read(Read::Full) };
    assert_eq!(run(&bench, &filtered, &start, false).await.0, [2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_with_ties_and_lookback() {
    let bench = bench().await;
    let incremental = read(Read::Incremental(by_id()));
    let (ids, state) = run(&bench, &incremental, &State::default(), false).await;
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_eq!(run(&bench, &incremental, &state, false).await.0, Vec::<i64>::new());
    // Another row with the greatest cursor, and one beyond.
    bench.rows(&table(WriteMode::Append), &[(5, "another"), (6, "x")]).await;
    let (ids, state) = run(&bench, &incremental, &state, false).await;
    assert_eq!(ids, [5, 6]);
    let back = read(Read::Incremental(Cursor { lookback: Some(2), ..by_id() }));
    assert_eq!(run(&bench, &back, &state, false).await.0, [4, 5, 5]);
    // The cursor need not be among the columns.
    let narrow = StreamRead { columns: Some(vec!["name".into()]), ..incremental };
    let splits = bench.lake.plan(&[narrow], &State::default()).await.unwrap();
    let (mut out, mut messages) = Emitter::channel(1000, Arc::default());
    bench.lake.read(&splits[0], &mut out).await.unwrap();
    let Some(Message::Batch { batch, .. }) = messages.recv().await else { panic!("no batch") };
    assert_eq!(batch.num_columns(), 1);
}

/// A read that is asked to stop goes on where it was, although the table has changed since.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_read_goes_on_in_the_same_version() {
    let bench = bench().await;
    let incremental = StreamRead { parallelism: 1, ..read(Read::Incremental(by_id())) };
    let (mut all, mut state) = run(&bench, &incremental, &State::default(), true).await;
    assert_eq!(all.len(), 1);
    bench.rows(&table(WriteMode::Replace), &[(7, "y")]).await;
    let mut rounds = 0;
    while state.stream("main.orders").is_some_and(|s| s.get("left").is_some()) {
        let (more, next) = run(&bench, &incremental, &state, true).await;
        all.extend(more);
        state = next;
        rounds += 1;
    }
    all.sort_unstable();
    assert_eq!((all, rounds), (vec![1, 2, 3, 4, 5], 4));
    assert_eq!(run(&bench, &incremental, &state, false).await.0, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_only_read() {
    let bench = bench().await;
    let sql = bench.lake.clone();
    for (statement, code) in
        [("drop table orders", Code::ConfigInvalid), ("selec 1", Code::ConfigInvalid), ("select nope from orders", Code::ConfigInvalid)]
    {
        let error = trib_core::SqlEngine::query(sql.as_ref(), statement).await.err().unwrap();
        assert_eq!(error.code(), code, "{statement}: {error:?}");
    }
    assert_eq!(
        bench.query("select table_schema, table_name from information_schema.tables where table_schema = 'main'").await,
        ["main=orders"]
    );
    assert_eq!(json!(bench.query("select count(*) from main.orders").await), json!(["5"]));
}
