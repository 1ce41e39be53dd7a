//! Discovery, decoding and what contradicts a declaration.

use std::sync::Arc;

use serde_json::json;
use trib_core::{Code, Read, ReadMode, State};

use super::{Place, read, read_full, stream_read};

#[tokio::test]
async fn discovery_tells_what_is_there() {
    let place = Place::with(
        "CREATE TABLE \"Odd \"\"name\"\"; DROP\" (\"a b\" INTEGER PRIMARY KEY, \"select\" TEXT NOT NULL, ünïcode DECIMAL(10,2));
         CREATE TABLE pair (b TEXT, a INT, updated_at TIMESTAMP, PRIMARY KEY (a, b)) WITHOUT ROWID;
         CREATE TABLE strict (id INTEGER PRIMARY KEY, x ANY, n INT NOT NULL UNIQUE) STRICT;
         CREATE TABLE gen (a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL, c INTEGER AS (a + 1) STORED);
         CREATE TABLE _trib_markers (x);
         CREATE VIRTUAL TABLE words USING fts5(body);
         CREATE VIEW v AS SELECT a, b, a + 1 AS expression FROM pair;
         CREATE TABLE gone (x); CREATE VIEW broken AS SELECT x FROM gone; DROP TABLE gone;
         INSERT INTO gen (a) VALUES (1), (2); ANALYZE gen;",
    );
    let catalog = place.source().discover(&[]).await.unwrap();
    let names: Vec<&str> = catalog.streams.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Odd \"name\"; DROP", "gen", "pair", "strict", "v", "words"]);
    let text = |name: &str| {
        let stream = catalog.stream(name).unwrap();
        let fields: Vec<String> = stream
            .schema
            .fields()
            .iter()
            .map(|f| format!("{}:{}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }))
            .collect();
        format!("{} key={:?} cursors={:?}", fields.join(" "), stream.primary_key, stream.cursors)
    };
    assert_eq!(text("Odd \"name\"; DROP"), "a b:Int64 select:Utf8 ünïcode:Decimal128(10, 2)? key=[\"a b\"] cursors=[\"a b\"]");
    assert_eq!(text("pair"), "b:Utf8 a:Int64 updated_at:Timestamp(µs)? key=[\"a\", \"b\"] cursors=[\"updated_at\"]");
    assert_eq!(text("strict"), "id:Int64 x:Utf8? n:Int64 key=[\"id\"] cursors=[\"id\", \"n\"]");
    assert_eq!(text("v"), "a:Int64? b:Utf8? expression:Utf8? key=[] cursors=[]");
    assert_eq!(catalog.stream("gen").unwrap().rows, Some(2));
    assert_eq!(catalog.stream("gen").unwrap().read_modes, [ReadMode::Full, ReadMode::Incremental]);
    assert_eq!(read_full(&place.source(), "gen").await.rows(), ["1|2|2", "2|4|3"]);
}

#[tokio::test]
async fn values_are_exact() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, big BIGINT, d DECIMAL(10,2), dt DECIMAL_TEXT(38,10), r REAL, s TEXT, b BLOB, day DATE, at DATETIME, z TIMESTAMPTZ, flag BOOLEAN);
         INSERT INTO t VALUES
           (1, 9223372036854775807, 12.3, '1234567890123456789012345678.0123456789', 0.1, '', x'', '2024-02-29', '2024-02-29T01:02:03.000004', '2024-02-29 01:02:03+01:00', 1),
           (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
           (3, -9223372036854775808, -0.01, '-0.5', 1e300, 'ä' || char(0) || '𝄞', x'00ff', '0001-01-01', '1969-12-31 23:59:59', '2024-02-29 01:02:03Z', 0);",
    );
    let got = read_full(&place.source(), "t").await;
    assert!(got.rejected.is_empty(), "{:?}", got.rejected);
    assert_eq!(
        got.rows(),
        [
            "1|9223372036854775807|12.30|1234567890123456789012345678.0123456789|0.1|||2024-02-29|2024-02-29T01:02:03.000004|2024-02-29T00:02:03Z|true",
            "2|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅",
            "3|-9223372036854775808|-0.01|-0.5000000000|1e300|ä\0𝄞|00ff|0001-01-01|1969-12-31T23:59:59|2024-02-29T01:02:03Z|false",
        ]
    );
}

#[tokio::test]
async fn a_contradiction_is_said_and_the_other_rows_arrive() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT NOT NULL, at DATETIME);
         INSERT INTO t VALUES (1, 5, 'ok', NULL), (2, 'five', 'x', NULL), (3, 7, x'ff00', NULL), (4, 8, 'ok', 1700000000), (5, 9, 'ok', '2024-01-01 00:00:00');",
    );
    let got = read_full(&place.source(), "t").await;
    assert_eq!(got.rows(), ["1|5|ok|∅", "5|9|ok|2024-01-01T00:00:00"]);
    let places: Vec<&str> = got.rejected.iter().map(|r| r.place.as_str()).collect();
    assert_eq!(places, ["id=2", "id=3", "id=4"]);
    assert!(got.rejected[0].reason.starts_with("column n is declared INTEGER and holds TEXT 'five'"), "{}", got.rejected[0].reason);
    assert!(got.rejected[1].reason.contains("holds BLOB of 2 bytes x'ff00'"), "{}", got.rejected[1].reason);
    assert_eq!(got.rejected[2].row, json!({"id": 4, "n": 8, "s": "ok", "at": 1_700_000_000}));

    // What the user declares counts.
    let source = place.source_with(json!({"columns": {"t.at": "timestamptz unix", "t.n": "text"}}));
    let got = read_full(&source, "t").await;
    assert_eq!(got.rows(), ["1|5|ok|∅", "2|five|x|∅", "4|8|ok|2023-11-14T22:13:20Z"]);
    // A declaration of a column that is not there is a mistake.
    let error = place.source_with(json!({"columns": {"t.att": "date"}})).check().await.unwrap_err();
    assert_eq!((error.code(), error.hint_text()), (Code::ConfigInvalid, Some("did you mean \"t.at\"?")));
}

#[tokio::test]
async fn projection_filter_range_and_keys() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, name TEXT);
         INSERT INTO t VALUES (1, '2024-01-01', 'a'), (2, '2024-01-02', 'b'), (3, '2024-01-03', 'c'), (4, NULL, 'd');",
    );
    let source = place.source();
    let rows = |r: trib_core::StreamRead| {
        let source = source.clone();
        async move { read(&source, &r, &State::default(), false).await.map(|got| got.rows()) }
    };
    let mut full = stream_read("t", Read::Full);
    full.columns = Some(vec!["name".into(), "id".into()]);
    full.filter = Some("id > 2 -- the last".into());
    assert_eq!(rows(full.clone()).await.unwrap(), ["c|3", "d|4"]);
    full.filter = Some("nme = 'a'".into());
    let error = rows(full).await.unwrap_err();
    assert_eq!((error.code(), error.place().setting.as_deref()), (Code::ConfigInvalid, Some("where")));

    let range = Read::Range { column: "day".into(), since: Some("2024-01-02".into()), until: Some("2024-01-03".into()) };
    assert_eq!(rows(stream_read("t", range)).await.unwrap(), ["2|2024-01-02|b"]);
    let mut keys = stream_read("t", Read::Keys);
    keys.key = vec!["id".into()];
    assert_eq!(rows(keys).await.unwrap(), ["1", "2", "3", "4"]);
    let misspelt = trib_core::StreamRead { key: vec!["ids".into()], may_stop: true, ..stream_read("t", Read::Full) };
    assert_eq!(rows(misspelt).await.unwrap_err().hint_text(), Some("did you mean \"id\"?"));
    let error = rows(stream_read("tt", Read::Full)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn all_splits_of_a_run_see_one_state() {
    let place = Place::with(
        "PRAGMA journal_mode = WAL; CREATE TABLE a (id INTEGER PRIMARY KEY, pad TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000) INSERT INTO a SELECT i, 'x' FROM n;",
    );
    let source = place.source();
    let full = stream_read("a", Read::Full);
    let splits = source.plan(std::slice::from_ref(&full), &State::default()).await.unwrap();
    assert_eq!(splits.len(), 3);
    place.connect().execute_batch("INSERT INTO a VALUES (-1, 'late'); INSERT INTO b VALUES (1); DELETE FROM a WHERE id = 7").unwrap();
    let mut rows = 0;
    for split in splits {
        let (mut emitter, mut receiver) = trib_core::Emitter::channel(100, Arc::default());
        let end = source.read(&split, &mut emitter).await.unwrap();
        drop(emitter);
        assert!(end.rest.is_none());
        while let Some(message) = receiver.recv().await {
            if let trib_core::emitter::Message::Batch { batch, .. } = message {
                rows += batch.num_rows();
            }
        }
    }
    assert_eq!(rows, 250_000);
    // Another stream of the same run sees the same state, and a new run the new one.
    assert!(read_full(&source, "b").await.batches.is_empty());
    assert_eq!(read_full(&place.source(), "b").await.rows(), ["1"]);
    // Without a write-ahead log there is nothing to hold: one split, in a transaction of its own.
    place.connect().execute_batch("PRAGMA journal_mode = DELETE").unwrap_err();
    drop(source);
    place.connect().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    assert_eq!(place.source().plan(std::slice::from_ref(&full), &State::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_planned_again_leaves_the_reads_of_others_alone() {
    let place = Place::with(
        "PRAGMA journal_mode = WAL; CREATE TABLE a (id INTEGER PRIMARY KEY, pad TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY);
         INSERT INTO a VALUES (1, 'x'), (300000, 'moves')",
    );
    let source = place.source();
    let plan = async |stream: &str| source.plan(&[stream_read(stream, Read::Full)], &State::default()).await.unwrap();
    let splits = plan("a").await;
    assert!(splits.len() > 1);
    plan("b").await;
    let mut rows = 0;
    for split in &splits {
        rows += trib_testkit::emit::collect(source.as_ref(), split).await.unwrap().batches.iter().map(|b| b.num_rows()).sum::<usize>();
        // A row goes from a slice that is not read yet to one that was; the other stream begins its next load.
        place.connect().execute_batch("UPDATE a SET id = 2 WHERE id = 300000").unwrap();
        plan("b").await;
    }
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn files_that_are_no_databases() {
    let place = Place::new();
    let code = |place: &Place| {
        let source = place.source();
        async move { source.check().await.unwrap_err() }
    };
    let error = code(&place).await;
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.hint_text().is_some());
    std::fs::write(place.path(), "a text file that is long enough to be looked at by SQLite: ".repeat(50)).unwrap();
    let error = code(&place).await;
    assert_eq!((error.code(), error.message()), (Code::DataInvalid, "the file is not a SQLite database"));
    std::fs::remove_file(place.path()).unwrap();
    place.connect().execute_batch("CREATE TABLE t (x); INSERT INTO t SELECT zeroblob(100000)").unwrap();
    let bytes = std::fs::read(place.path()).unwrap();
    let mut broken = bytes.clone();
    broken[4096..12288].fill(0xaa);
    std::fs::write(place.path(), broken).unwrap();
    let error = read(&place.source(), &stream_read("t", Read::Full), &State::default(), false).await.err().unwrap();
    assert_eq!((error.code(), error.message()), (Code::DataInvalid, "the database file is damaged"));
}
