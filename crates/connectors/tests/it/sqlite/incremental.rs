//! Cursors: ties, lookback, NULLs, cut reads, and forms of times.

use serde_json::json;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Read, State, StreamRead};

use super::{Place, read, stream_read};

fn cursor(column: &str) -> Cursor {
    Cursor { column: column.into(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None }
}

fn by(cursor: Cursor) -> StreamRead {
    StreamRead { key: vec!["id".into()], ..stream_read("t", Read::Incremental(cursor)) }
}

#[tokio::test]
async fn ties_at_the_boundary_come_once() {
    for times in ["'2024-01-0' || n || ' 00:00:00'", "'2024-01-0' || n || 'T00:00:00.000Z'"] {
        let declared = if times.contains('Z') { "TIMESTAMPTZ" } else { "TIMESTAMP" };
        let place = Place::with(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, at {declared}, n INT)"));
        let insert = |rows: &str| {
            let sql = format!("WITH r(id, n) AS (VALUES {rows}) INSERT INTO t SELECT id, {times}, n FROM r");
            place.connect().execute_batch(&sql).unwrap();
        };
        let ids = |got: &super::Got| got.rows().iter().map(|r| r.split('|').next().unwrap().to_owned()).collect::<Vec<_>>().join(",");
        let mut step = by(cursor("at"));
        insert("(3, 1), (1, 2), (2, 2)");
        let got = read(&place.source(), &step, &State::default(), false).await.unwrap();
        assert_eq!(ids(&got), "3,1,2");
        // A row at the boundary's very time, and one before it, which no cursor sees.
        insert("(4, 2), (5, 1)");
        let got = read(&place.source(), &step, &got.state, false).await.unwrap();
        assert_eq!(ids(&got), "4");
        let got = read(&place.source(), &step, &got.state, false).await.unwrap();
        assert_eq!(ids(&got), "");
        insert("(6, 4), (7, 3)");
        // Without the cursor among the columns.
        step.columns = Some(vec!["id".into()]);
        let got = read(&place.source(), &step, &got.state, false).await.unwrap();
        assert!(ids(&got).ends_with("7,6"), "{}", ids(&got));
        // The state is what is stored, readable by a person.
        assert!(got.state.stream("t").unwrap()["value"].as_str().unwrap().starts_with("2024-01-04"));
    }
}

#[tokio::test]
async fn lookback_start_end_and_null_cursors() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at INTEGER);
         INSERT INTO t VALUES (1, 100), (2, 200), (3, 300), (4, NULL), (5, 400);",
    );
    let ids = |got: &super::Got| got.rows().iter().map(|r| r.split('|').next().unwrap().to_owned()).collect::<Vec<_>>();
    let bounded = Cursor { start: Some("200".into()), end: Some("400".into()), ..cursor("at") };
    let got = read(&place.source(), &by(bounded.clone()), &State::default(), false).await.unwrap();
    assert_eq!(ids(&got), ["2", "3"]);
    let looking_back = Cursor { lookback: Some(100), ..bounded };
    let again = read(&place.source(), &by(looking_back), &got.state, false).await.unwrap();
    assert_eq!(ids(&again), ["2"], "the row at the boundary was read before");
    let including = Cursor { null_cursor: NullCursor::Include, ..cursor("at") };
    let got = read(&place.source(), &by(including.clone()), &State::default(), false).await.unwrap();
    assert_eq!(ids(&got), ["4", "1", "2", "3", "5"]);
    let got = read(&place.source(), &by(including), &got.state, false).await.unwrap();
    assert_eq!(ids(&got), ["4"]);
    let failing = Cursor { null_cursor: NullCursor::Fail, ..cursor("at") };
    let error = read(&place.source(), &by(failing), &State::default(), false).await.err().unwrap();
    assert_eq!(error.code(), Code::DataInvalid);

    // In seconds, for times however they are stored.
    let source = place.source_with(json!({"columns": {"t.at": "timestamp unix"}}));
    let got = read(&source, &by(cursor("at")), &State::default(), false).await.unwrap();
    assert_eq!(got.state.stream("t").unwrap()["value"], "400");
    let looking_back = Cursor { lookback: Some(150), start: Some("1970-01-01 00:03:20".into()), ..cursor("at") };
    let source = place.source_with(json!({"columns": {"t.at": "timestamp unix"}}));
    assert_eq!(ids(&read(&source, &by(looking_back.clone()), &State::default(), false).await.unwrap()), ["2", "3", "5"]);
    let source = place.source_with(json!({"columns": {"t.at": "timestamp unix"}}));
    assert_eq!(ids(&read(&source, &by(looking_back), &got.state, false).await.unwrap()), ["3"]);
}

#[tokio::test]
async fn a_cut_read_goes_on_where_it_stopped() {
    // Many rows at few cursor values, so that batches end within them; keys are text and awkward.
    let rows = 150_000;
    let place = Place::with(&format!(
        "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, at INTEGER, pad TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t SELECT CASE i % 2 WHEN 0 THEN 'k' ELSE 'J' END || i, i / 40000, 'x' FROM n;"
    ));
    let no_key = StreamRead { key: vec![], ..by(cursor("at")) };
    let full = StreamRead { key: vec!["id".into()], ..stream_read("t", Read::Full) };
    for mut step in [by(cursor("at")), no_key, full] {
        step.may_stop = true;
        let mut state = State::default();
        let mut seen = std::collections::HashSet::new();
        let mut cuts = 0;
        loop {
            let got = read(&place.source(), &step, &state, true).await.unwrap();
            for row in got.rows() {
                assert!(seen.insert(row.clone()), "{row} came twice");
            }
            state = got.state;
            if got.ends.iter().all(|end| end.rest.is_none()) {
                break;
            }
            cuts += 1;
        }
        assert_eq!(seen.len(), rows, "after {cuts} cuts");
        assert!(cuts >= 1);
    }
}

#[tokio::test]
async fn cursors_that_would_pass_over_rows_are_refused() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, odd, d DECIMAL(10,2), flag BOOLEAN);
         INSERT INTO t VALUES (1, '2024-01-01T10:00:00', 1, 9.5, 0), (2, '2024-01-01 12:00:00', 2, 10, 1);",
    );
    let error = read(&place.source(), &by(cursor("at")), &State::default(), false).await.err().unwrap();
    assert_eq!((error.code(), error.detail_text()), (Code::DataInvalid, Some("at")));
    for column in ["odd", "flag"] {
        let error = read(&place.source(), &by(cursor(column)), &State::default(), false).await.err().unwrap();
        assert_eq!(error.code(), Code::Unsupported);
    }
    assert_eq!(read(&place.source(), &by(cursor("d")), &State::default(), false).await.unwrap().rows().len(), 2);
    let error = read(&place.source(), &by(cursor("att")), &State::default(), false).await.err().unwrap();
    assert_eq!(error.hint_text(), Some("did you mean \"at\"?"));
    place.connect().execute_batch("INSERT INTO t VALUES (3, 'tomorrow', 1, 1, 1)").unwrap();
    let error = read(&place.source(), &by(cursor("at")), &State::default(), false).await.err().unwrap();
    assert!(error.detail_text().unwrap().contains("TEXT 'tomorrow'"), "{error:?}");
}
