//! Only what is new: by file, and by the value of a column.

use serde_json::json;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Read, Source, State, StreamRead};
use trib_testkit::emit;

use super::{Folder, lines};

fn by(column: &str) -> StreamRead {
    let cursor = Cursor { column: column.to_owned(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
    StreamRead { read: Read::Incremental(cursor), ..emit::full("logs") }
}

async fn step(source: &dyn Source, read: &StreamRead, state: &mut State) -> Vec<String> {
    let (emitted, after) = emit::read(source, read, state).await.unwrap();
    *state = serde_json::from_str(&serde_json::to_string(&after).unwrap()).unwrap();
    lines(&emitted)
}

#[tokio::test]
async fn new_files_are_read_once() {
    for track in ["name", "mtime", "etag"] {
        let folder = Folder::new();
        let settings = json!({"path": "logs", "track": track, "add_file_name": true, "streams": {"logs": {"path": "*.csv"}}});
        let mut state = State::default();
        folder.write("logs/b.csv", "n\n2\n");
        folder.write("logs/a.csv", "n\n1\n");
        assert_eq!(step(folder.source(&settings).as_ref(), &by("_file"), &mut state).await, ["1|a.csv", "2|b.csv"], "{track}");
        assert!(step(folder.source(&settings).as_ref(), &by("_file"), &mut state).await.is_empty());
        folder.write("logs/c.csv", "n\n3\n");
        assert_eq!(step(folder.source(&settings).as_ref(), &by("_file"), &mut state).await, ["3|c.csv"], "{track}");
        // What is gone is forgotten with the next file that is read.
        std::fs::remove_file(folder.path().join("logs/a.csv")).unwrap();
        folder.write("logs/d.csv", "n\n4\n");
        step(folder.source(&settings).as_ref(), &by("_file"), &mut state).await;
        let known = state.streams["logs"]["files"].as_object().unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["b.csv", "c.csv", "d.csv"]);
    }
}

#[tokio::test]
async fn a_changed_file_is_read_again_where_that_repeats_nothing() {
    let folder = Folder::new();
    let settings = json!({"path": ".", "streams": {"logs": {"path": "*.csv"}}});
    let mut state = State::default();
    folder.write("a.csv", "n\n1\n");
    step(folder.source(&settings).as_ref(), &by("_file"), &mut state).await;
    folder.write("a.csv", "n\n1\n2\n");
    let absorbs = StreamRead { exactly_once: false, ..by("_file") };
    let e = emit::read(folder.source(&settings).as_ref(), &by("_file"), &state).await.unwrap_err();
    assert_eq!(e.code(), Code::DataInvalid);
    assert_eq!(step(folder.source(&settings).as_ref(), &absorbs, &mut state).await, ["1", "2"]);
    assert!(step(folder.source(&settings).as_ref(), &absorbs, &mut state).await.is_empty());
}

#[tokio::test]
async fn a_read_that_is_stopped_goes_on_with_the_next_file() {
    let folder = Folder::new();
    let settings = json!({"path": ".", "streams": {"logs": {"path": "*.jsonl"}}});
    for i in 0..5 {
        folder.write(&format!("{i}.jsonl"), format!("{{\"n\":{i}}}\n"));
    }
    let (mut state, mut all, mut steps) = (State::default(), Vec::new(), 0);
    loop {
        let source = folder.source(&settings);
        let (emitted, after) =
            emit::read_until(source.as_ref(), &StreamRead { may_stop: true, ..by("_file") }, &state, true).await.unwrap();
        if emitted.ends.is_empty() {
            break;
        }
        all.extend(lines(&emitted));
        state = after;
        steps += 1;
    }
    assert_eq!(all, ["0", "1", "2", "3", "4"]);
    assert!(steps > 1, "the read was never stopped");
}

#[tokio::test]
async fn rows_by_the_value_of_a_column() {
    let folder = Folder::new();
    let settings = json!({"path": ".", "streams": {"logs": {"path": "*.csv"}}});
    folder.write("a.csv", "id,at\n1,2024-01-01\n2,2024-01-02\n3,\n");
    let mut state = State::default();
    assert_eq!(step(folder.source(&settings).as_ref(), &by("at"), &mut state).await, ["1|2024-01-01", "2|2024-01-02"]);
    // A tie and a later row, in a file and in an old one.
    folder.write("a.csv", "id,at\n1,2024-01-01\n2,2024-01-02\n3,\n4,2024-01-02\n");
    folder.write("b.csv", "id,at\n5,2024-01-03\n");
    assert_eq!(step(folder.source(&settings).as_ref(), &by("at"), &mut state).await, ["4|2024-01-02", "5|2024-01-03"]);
    assert!(step(folder.source(&settings).as_ref(), &by("at"), &mut state).await.is_empty());

    let range = |since: &str, until: &str| StreamRead {
        read: Read::Range { column: "at".into(), since: Some(since.into()), until: Some(until.into()) },
        ..emit::full("logs")
    };
    let before = state.clone();
    assert_eq!(
        step(folder.source(&settings).as_ref(), &range("2024-01-02", "2024-01-03"), &mut state).await,
        ["2|2024-01-02", "4|2024-01-02"]
    );
    assert_eq!(state, before, "a range moves no state");

    let mut back = by("at");
    if let Read::Incremental(cursor) = &mut back.read {
        (cursor.lookback, cursor.null_cursor) = (Some(86_400), NullCursor::Include);
    }
    let rows = step(folder.source(&settings).as_ref(), &back, &mut state).await;
    assert_eq!(rows, ["2|2024-01-02", "3|-", "4|2024-01-02"]);
    let e = emit::read(folder.source(&settings).as_ref(), &by("_file"), &state).await.unwrap_err();
    assert_eq!(e.code(), Code::ConfigInvalid);
}
