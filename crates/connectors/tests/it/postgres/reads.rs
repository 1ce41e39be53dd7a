//! Discovery and reading.

use arrow::array::{Array, RecordBatch, cast::AsArray};
use trib_core::logical::FieldExt;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Read, State, StreamRead};
use trib_testkit::emit;

use super::Database;

fn ids(batches: &[RecordBatch]) -> Vec<i32> {
    let mut ids: Vec<i32> = batches
        .iter()
        .flat_map(|b| b.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int32Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_found() {
    let db = Database::new();
    db.sql(
        "create schema \"Odd \"\"schema\"; create table \"Odd \"\"schema\".\"sel.ect\" (\"Id x\" int primary key, \"ümläut\" text not null); \
         insert into \"Odd \"\"schema\".\"sel.ect\" values (1, 'a')",
    );
    db.sql(
        "create table parts (id int, at date not null, primary key (at, id)) partition by range (at); \
         create table parts_a partition of parts for values from ('2024-01-01') to ('2025-01-01'); \
         create table parts_b partition of parts for values from ('2025-01-01') to ('2026-01-01'); \
         insert into parts values (1, '2024-05-05'), (2, '2025-05-05')",
    );
    db.sql("create view v as select id, at from parts; create materialized view m as select 3 as id; comment on view v is 'seen'");
    db.sql("create table orders (id int primary key, updated_at timestamptz, email text); create table gone (a int, b int); alter table gone drop column a");
    let catalog = db.source.discover(&[]).await.unwrap();
    let names: Vec<&str> = catalog.streams.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Odd \"schema.sel.ect", "public.gone", "public.m", "public.orders", "public.parts", "public.v"]);
    assert_eq!(catalog.stream("public.parts").unwrap().primary_key, ["at", "id"]);
    assert_eq!(catalog.stream("public.orders").unwrap().cursors, ["updated_at", "id"]);
    assert_eq!(catalog.stream("public.v").unwrap().description.as_deref(), Some("seen"));
    assert_eq!(catalog.stream("public.gone").unwrap().schema.fields().len(), 1);
    let odd = catalog.stream("Odd \"schema.sel.ect").unwrap();
    assert!(!odd.field("ümläut").unwrap().is_nullable());
    assert_eq!(odd.field("ümläut").unwrap().native("postgres"), Some("text"));
    assert_eq!(db.read("Odd \"schema.sel.ect").await.batches[0].num_rows(), 1);
    for stream in ["public.parts", "public.v"] {
        assert_eq!(ids(&db.read(stream).await.batches), [1, 2], "{stream}");
    }
    let only = db.source.discover(&["public.m".to_owned()]).await.unwrap();
    assert_eq!(only.streams.len(), 1);
    let error = db.source.plan(&[emit::full("public.order")], &State::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_share_one_snapshot() {
    let db = Database::new();
    db.sql("create table big (id int primary key, pad text); alter table big alter pad set storage plain");
    db.sql("insert into big select i, repeat('x', 1000) from generate_series(1, 40000) i");
    db.sql("vacuum analyze big");
    let read = StreamRead { parallelism: 4, ..emit::full("public.big") };
    let splits = db.source.plan(&[read], &State::default()).await.unwrap();
    assert_eq!(splits.len(), 4);
    assert_eq!(splits[0].rows, Some(10_000));
    // What changes now is not seen by any of them, in whatever order they are read.
    db.sql("delete from big where id % 2 = 0; insert into big select i, '' from generate_series(50001, 50010) i");
    let mut all = Vec::new();
    for split in splits.iter().rev() {
        all.extend(emit::collect(db.source.as_ref(), split).await.unwrap().batches);
    }
    assert_eq!(ids(&all), (1..=40000).collect::<Vec<_>>());

    let by_key = StreamRead { parallelism: 3, split_by: Some("id".into()), ..emit::full("public.big") };
    let splits = db.source.plan(std::slice::from_ref(&by_key), &State::default()).await.unwrap();
    assert_eq!(splits.len(), 3);
    let (emitted, _) = emit::read(db.source.as_ref(), &by_key, &State::default()).await.unwrap();
    assert_eq!(ids(&emitted.batches).len(), 20_010);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_conditions_are_pushed_down() {
    let db = Database::new();
    db.sql("create table t (id int primary key, a text, b int); insert into t select i, 'a' || i, i % 3 from generate_series(1, 9) i");
    let read =
        StreamRead { columns: Some(vec!["b".into(), "id".into()]), filter: Some("b = 1 -- only these".into()), ..emit::full("public.t") };
    let (emitted, _) = emit::read(db.source.as_ref(), &read, &State::default()).await.unwrap();
    let names: Vec<_> = emitted.batches[0].schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!((names, ids(&emitted.batches)), (vec!["b".to_owned(), "id".to_owned()], vec![1, 4, 7]));
    let keys = StreamRead { read: Read::Keys, key: vec!["id".into()], ..emit::full("public.t") };
    let (emitted, _) = emit::read(db.source.as_ref(), &keys, &State::default()).await.unwrap();
    assert_eq!((emitted.batches[0].num_columns(), ids(&emitted.batches).len()), (1, 9));
    let range = Read::Range { column: "id".into(), since: Some("3".into()), until: Some("5".into()) };
    let (emitted, state) =
        emit::read(db.source.as_ref(), &StreamRead { read: range, ..emit::full("public.t") }, &State::default()).await.unwrap();
    assert_eq!((ids(&emitted.batches), state), (vec![3, 4], State::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_read_stops_and_goes_on() {
    let db = Database::new();
    db.sql("create table t (a text, id int, pad text, primary key (a, id))");
    db.sql("insert into t select 'k' || i % 7, i, repeat('x', 100) from generate_series(1, 150000) i");
    let read =
        StreamRead { may_stop: true, key: vec!["a".into(), "id".into()], columns: Some(vec!["id".into()]), ..emit::full("public.t") };
    let (mut state, mut all, mut loads) = (State::default(), Vec::new(), 0);
    loop {
        let (emitted, next) = emit::read_until(db.source.as_ref(), &read, &state, true).await.unwrap();
        all.extend(emitted.batches);
        loads += 1;
        state = next;
        if emitted.ends.iter().all(|end| end.rest.is_none()) {
            break;
        }
    }
    assert!(loads > 2, "{loads}");
    assert_eq!(ids(&all), (1..=150_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_goes_on_finds_rows_without_a_key() {
    let db = Database::new();
    db.sql("create table t (a int not null, b text, id int)");
    // Within each `a`, the rows without `b` come last.
    db.sql("insert into t select i / 50000, case when i % 3 > 0 then 'k' || i end, i from generate_series(1, 150000) i");
    db.sql("create view v as select * from t");
    // What is declared to be the key is none: each is there three times, and somewhere in the middle of three a batch ends.
    db.sql("create view repeated as select id / 3 as a, id / 3 as b, id from t");
    for stream in ["public.t", "public.v", "public.repeated"] {
        let read = StreamRead { may_stop: true, key: vec!["a".into(), "b".into()], columns: Some(vec!["id".into()]), ..emit::full(stream) };
        let (mut state, mut all, mut loads) = (State::default(), Vec::new(), 0);
        loop {
            let (emitted, next) = emit::read_until(db.source.as_ref(), &read, &state, true).await.unwrap();
            all.extend(emitted.batches);
            loads += 1;
            state = next;
            if emitted.ends.iter().all(|end| end.rest.is_none()) {
                break;
            }
        }
        assert!(loads > 2, "{stream}: {loads}");
        assert_eq!(ids(&all), (1..=150_000).collect::<Vec<_>>(), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_each_type_find_what_is_new() {
    let db = Database::new();
    let cases = [
        ("timestamptz", "'2024-01-01 00:00:00.123456+00'", "'2024-01-02 00:00:00+00'", "'2024-01-03 00:00:00+00'"),
        ("timestamp", "'2024-01-01 00:00:00.1'", "'2024-01-02'", "'2024-01-03'"),
        ("date", "'2024-01-01'", "'2024-01-02'", "'2024-01-03'"),
        ("bigint", "1", "2", "3"),
        ("numeric(20,3)", "1.5", "2.25", "10"),
        ("text", "'a'", "'b'", "'c'"),
    ];
    for (i, (t, first, second, third)) in cases.iter().enumerate() {
        db.sql(&format!(
            "create table t{i} (id int, c {t}); insert into t{i} values (1, {first}), (2, {second}), (3, {second}), (9, null)"
        ));
        let cursor = Cursor { column: "c".into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
        let read = StreamRead { read: Read::Incremental(cursor), may_stop: true, ..emit::full(&format!("public.t{i}")) };
        let (emitted, state) = emit::read(db.source.as_ref(), &read, &State::default()).await.unwrap();
        assert_eq!(ids(&emitted.batches), [1, 2, 3], "{t}");
        // A tie at the boundary that came late, and a greater one.
        db.sql(&format!("insert into t{i} values (4, {second}), (5, {third})"));
        let (emitted, state) = emit::read(db.source.as_ref(), &read, &state).await.unwrap();
        assert_eq!(ids(&emitted.batches), [4, 5], "{t}");
        let (emitted, state) = emit::read(db.source.as_ref(), &read, &state).await.unwrap();
        assert_eq!(ids(&emitted.batches), Vec::<i32>::new(), "{t}");
        // What is gone does not move the cursor back.
        db.sql(&format!("delete from t{i} where id = 5; insert into t{i} values (6, {second})"));
        let (emitted, state) = emit::read(db.source.as_ref(), &read, &state).await.unwrap();
        assert_eq!((ids(&emitted.batches), state.stream(&read.stream).unwrap()["value"].is_string()), (vec![], true), "{t}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_options() {
    let db = Database::new();
    db.sql("create table t (id int primary key, at timestamptz)");
    db.sql("insert into t select i, '2024-01-01'::timestamptz + i * interval '1 hour' from generate_series(1, 10) i");
    db.sql("insert into t values (100, null), (101, 'infinity')");
    let cursor = |change: &dyn Fn(&mut Cursor)| {
        let mut cursor = Cursor { column: "at".into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
        change(&mut cursor);
        StreamRead {
            read: Read::Incremental(cursor),
            exactly_once: false,
            key: vec!["id".into()],
            may_stop: true,
            ..emit::full("public.t")
        }
    };
    let run = async |read: &StreamRead, state: &State| emit::read(db.source.as_ref(), read, state).await;
    let (emitted, state) = run(&cursor(&|_| {}), &State::default()).await.unwrap();
    assert_eq!(ids(&emitted.batches), (1..=10).collect::<Vec<_>>());
    let (emitted, _) = run(&cursor(&|c| c.lookback = Some(7200)), &state).await.unwrap();
    // Rows at the boundary itself were loaded; the older ones are read again.
    assert_eq!(ids(&emitted.batches), [8, 9]);
    let (emitted, _) = run(&cursor(&|c| c.null_cursor = NullCursor::Include), &state).await.unwrap();
    assert_eq!(ids(&emitted.batches), [100]);
    let error = run(&cursor(&|c| c.null_cursor = NullCursor::Fail), &state).await.unwrap_err();
    assert_eq!(error.code(), Code::DataInvalid);
    let bounded = |c: &mut Cursor| {
        c.start = Some("2024-01-01 03:00+00".into());
        c.end = Some("2024-01-01 05:00+00".into());
    };
    let (emitted, _) = run(&cursor(&bounded), &State::default()).await.unwrap();
    assert_eq!(ids(&emitted.batches), [3, 4]);
    let (emitted, _) = run(&StreamRead { columns: Some(vec!["id".into()]), ..cursor(&|_| {}) }, &State::default()).await.unwrap();
    assert_eq!(emitted.batches[0].num_columns(), 1);
    let error = run(&cursor(&|c| c.column = "att".into()), &State::default()).await.unwrap_err();
    assert_eq!(error.hint_text(), Some("did you mean \"at\"?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_read_stops_and_goes_on() {
    let db = Database::new();
    db.sql("create table t (id int primary key, at timestamptz, pad text)");
    // Many ties, so that the place to go on from lies inside of one.
    db.sql("insert into t select i, '2024-01-01'::timestamptz + (i / 40000) * interval '1 hour', repeat('x', 50) from generate_series(1, 200000) i");
    let cursor = Cursor { column: "at".into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
    let read = StreamRead {
        read: Read::Incremental(cursor),
        key: vec!["id".into()],
        may_stop: true,
        exactly_once: false,
        ..emit::full("public.t")
    };
    let (mut state, mut all) = (State::default(), Vec::new());
    for round in 0.. {
        let (emitted, next) = emit::read_until(db.source.as_ref(), &read, &state, true).await.unwrap();
        all.extend(emitted.batches);
        state = next;
        if emitted.ends.iter().all(|end| end.rest.is_none()) {
            assert!(round > 1);
            break;
        }
    }
    assert_eq!(ids(&all), (1..=200_000).collect::<Vec<_>>());
    assert!(all.iter().all(|b| b.column(0).null_count() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_people() {
    use futures::TryStreamExt;
    let db = Database::new();
    let sql = db.destination.sql().unwrap();
    let batches: Vec<RecordBatch> =
        sql.query("select 1 as a, 2 as a, 1.50::numeric(10,2), '10.0.0.1'::inet;").await.unwrap().try_collect().await.unwrap();
    assert_eq!(trib_testkit::rows::canonical(&batches).len(), 1);
    assert_eq!(batches[0].num_columns(), 4);
    assert_eq!(sql.query("create table x (a int)").await.err().unwrap().code(), Code::UsageInvalid);
    assert_eq!(sql.query("selec").await.err().unwrap().code(), Code::SystemError);
}
