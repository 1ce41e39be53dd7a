//! Each write mode, with repeats within and between loads.

use trib_core::WriteMode::{Append, History, Insert, Mirror, Prune, Replace, Upsert};
use trib_core::load::{Deletes, RowScope};
use trib_core::{Table, WriteMode};

use super::{Place, TestRow, counts, load_rows, table};

type Parts<'a> = &'a [&'a [TestRow]];
/// Mode, deletes, loads, counts of the last load, rows.
type Case<'a> = (WriteMode, Deletes, Vec<Parts<'a>>, (u64, u64, u64), &'a [&'a str]);

const fn row(id: i64, name: &'static str) -> TestRow {
    (id, Some(name), "i")
}

#[tokio::test]
async fn modes() {
    const A1: TestRow = row(1, "a");
    const B2: TestRow = row(2, "b");
    const C3: TestRow = row(3, "c");
    const NULL4: TestRow = (4, None, "i");
    const X1: TestRow = row(1, "x");
    const Y1: TestRow = row(1, "y");
    const Z2: TestRow = row(2, "z");
    const LATE3: TestRow = row(3, "late");
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        (Append, Deletes::Hard, vec![&[&[A1, B2]], &[&[A1], &[C3]]], (2, 0, 0), &["1|a", "1|a", "2|b", "3|c"]),
        (Replace, Deletes::Hard, vec![&[&[A1, B2]], &[&[C3], &[X1]]], (2, 0, 2), &["1|x", "3|c"]),
        (Replace, Deletes::Hard, vec![&[&[A1, B2]], &[&[]]], (0, 0, 2), &[]),
        (Insert, Deletes::Hard, vec![&[&[A1, B2]], &[&[X1, C3], &[LATE3]]], (1, 0, 0), &["1|a", "2|b", "3|c"]),
        (Upsert, Deletes::Hard, vec![&[&[A1, B2]], &[&[X1, C3, Y1], &[NULL4]]], (2, 1, 0), &["1|y", "2|b", "3|c", "4|∅"]),
        (Upsert, Deletes::Hard, vec![&[&[]]], (0, 0, 0), &[]),
        (Mirror, Deletes::Hard, vec![&[&[A1, B2]], &[&[Z2], &[C3]]], (1, 1, 1), &["2|z", "3|c"]),
        (Mirror, Deletes::Ignore, vec![&[&[A1, B2]], &[&[Z2]]], (0, 1, 0), &["1|a", "2|z"]),
        (Mirror, Deletes::Hard, vec![&[&[A1, B2]], &[&[]]], (0, 0, 2), &[]),
    ];
    for (write, deletes, loads, expected_counts, expected) in cases {
        let place = Place::new();
        let (destination, table) = (place.destination(), table(write, deletes));
        let mut last = (0, 0, 0);
        for (i, parts) in loads.iter().enumerate() {
            last = counts(&load_rows(&destination, &table, i as u64 + 1, parts).await.unwrap());
        }
        assert_eq!(place.rows("SELECT id, name FROM t ORDER BY id, name"), expected, "{write:?} {deletes:?}");
        assert_eq!(last, expected_counts, "{write:?} {deletes:?}");
        assert!(place.side_files().is_empty());
    }
}

#[tokio::test]
async fn soft_deletes_come_and_go() {
    let place = Place::new();
    let (destination, table) = (place.destination(), table(Mirror, Deletes::Soft));
    load_rows(&destination, &table, 1, &[&[row(1, "a"), row(2, "b")]]).await.unwrap();
    assert_eq!(counts(&load_rows(&destination, &table, 2, &[&[row(2, "b")]]).await.unwrap()), (0, 1, 1));
    let sql = "SELECT id, _trib_deleted_at, _trib_load_id FROM t ORDER BY id";
    assert_eq!(place.rows(sql), ["1|1970-01-01 00:00:02.000000Z|l1", "2|∅|l2"]);
    // Gone already: not deleted again.
    assert_eq!(counts(&load_rows(&destination, &table, 3, &[&[row(2, "b")]]).await.unwrap()), (0, 1, 0));
    load_rows(&destination, &table, 4, &[&[row(1, "back"), row(2, "b")]]).await.unwrap();
    assert_eq!(place.rows(sql), ["1|∅|l4", "2|∅|l4"]);
}

#[tokio::test]
async fn history_keeps_versions() {
    let place = Place::new();
    let (destination, table) = (place.destination(), table(History, Deletes::Hard));
    load_rows(&destination, &table, 1, &[&[row(1, "a"), row(2, "b"), (3, None, "i")]]).await.unwrap();
    // Changed, unchanged, still NULL, new; of two changes in one load the last counts.
    let parts: Parts<'_> = &[&[row(1, "x"), row(2, "b"), (3, None, "i")], &[row(1, "y"), row(4, "d")]];
    assert_eq!(counts(&load_rows(&destination, &table, 2, parts).await.unwrap()), (2, 1, 0));
    // To NULL and from NULL.
    assert_eq!(counts(&load_rows(&destination, &table, 3, &[&[(1, None, "i"), row(3, "c")]]).await.unwrap()), (2, 2, 0));
    let sql = "SELECT id, name, substr(_trib_valid_from, 18, 2), substr(_trib_valid_to, 18, 2) FROM t ORDER BY id, _trib_valid_from";
    let expected = ["1|a|01|02", "1|y|02|03", "1|∅|03|∅", "2|b|01|∅", "3|∅|01|03", "3|c|03|∅", "4|d|02|∅"];
    assert_eq!(place.rows(sql), expected);
    // What is gone is closed, when a comparison of keys finds out.
    let prune = Table { write: Prune, ..table };
    assert_eq!(counts(&load_rows(&destination, &prune, 4, &[&[row(1, ""), row(2, "")], &[row(4, "")]]).await.unwrap()), (0, 0, 1));
    assert_eq!(place.rows("SELECT id FROM t WHERE _trib_valid_to IS NULL ORDER BY id"), ["1", "2", "4"]);
}

#[tokio::test]
async fn prune_deletes_only_what_is_gone() {
    for (deletes, expected) in [(Deletes::Hard, vec!["1|∅", "3|∅"]), (Deletes::Soft, vec!["1|∅", "2|1970-01-01 00:00:02.000000Z", "3|∅"])]
    {
        let place = Place::new();
        let destination = place.destination();
        let upsert = table(Upsert, Deletes::Soft);
        load_rows(&destination, &upsert, 1, &[&[row(1, "a"), row(2, "b"), row(3, "c")]]).await.unwrap();
        let prune = Table { write: Prune, deletes, ..upsert };
        assert_eq!(counts(&load_rows(&destination, &prune, 2, &[&[row(1, ""), row(3, "")]]).await.unwrap()), (0, 0, 1));
        assert_eq!(place.rows("SELECT id, _trib_deleted_at FROM t ORDER BY id"), expected);
    }
}

#[tokio::test]
async fn change_logs_are_applied_in_their_order() {
    let log: &[TestRow] = &[
        row(9, "before the truncation"),
        (0, None, "t"),
        row(1, "a"),
        row(2, "b"),
        (1, None, "d"),
        (3, None, "d"),
        (2, Some("b2"), "u"),
        row(4, "short"),
        (4, None, "d"),
        (5, None, "d"),
        row(5, "again"),
    ];
    let cases = [
        (Upsert, Deletes::Hard, vec!["2|b2|∅", "5|again|∅"]),
        (Mirror, Deletes::Hard, vec!["2|b2|∅", "5|again|∅"]),
        (Upsert, Deletes::Soft, vec!["1|old|d", "2|b2|∅", "3|old|d", "5|again|∅", "7|old|d"]),
        (Upsert, Deletes::Ignore, vec!["1|old|∅", "2|b2|∅", "3|old|∅", "5|again|∅", "7|old|∅"]),
        (History, Deletes::Hard, vec!["1|old|d", "2|b2|∅", "3|old|d", "5|again|∅", "7|old|d"]),
    ];
    for (write, deletes, expected) in cases {
        let place = Place::new();
        let destination = place.destination();
        let mut table = table(write, deletes);
        load_rows(&destination, &table, 1, &[&[row(1, "old"), row(3, "old"), row(7, "old")]]).await.unwrap();
        table.changes = true;
        load_rows(&destination, &table, 2, &[&log[..4], &log[4..]]).await.unwrap();
        let gone = match (write, deletes) {
            (History, _) => "_trib_valid_to",
            (_, Deletes::Soft) => "_trib_deleted_at",
            _ => "NULL",
        };
        let sql = format!("SELECT id, name, CASE WHEN {gone} IS NOT NULL THEN 'd' END FROM t ORDER BY id");
        assert_eq!(place.rows(&sql), expected, "{write:?} {deletes:?}");
    }
}

#[tokio::test]
async fn scopes_touch_their_own_rows_only() {
    for write in [Replace, Mirror] {
        let place = Place::new();
        let destination = place.destination();
        let of = |region: &str| {
            let mut table = table(write, Deletes::Hard);
            let mut fields: Vec<_> = table.schema.fields().iter().cloned().collect();
            fields.insert(0, std::sync::Arc::new(arrow::datatypes::Field::new("region", arrow::datatypes::DataType::Utf8, false)));
            table.schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
            table.key = vec!["region".into(), "id".into()];
            table.scope = Some(RowScope::with("region", region));
            table
        };
        load_rows(&destination, &of("us"), 1, &[&[row(1, "a"), row(2, "b")]]).await.unwrap();
        load_rows(&destination, &of("d'e"), 2, &[&[row(1, "A"), row(3, "C")]]).await.unwrap();
        load_rows(&destination, &of("us"), 3, &[&[row(2, "z")]]).await.unwrap();
        assert_eq!(place.rows("SELECT region, id, name FROM t ORDER BY 1, 2"), ["d'e|1|A", "d'e|3|C", "us|2|z"], "{write:?}");
    }
}

#[tokio::test]
async fn a_table_without_a_unique_key_is_upserted_too() {
    let place = Place::with(
        "CREATE TABLE t (id INTEGER, name VARCHAR(9), _trib_load_id TEXT, _trib_loaded_at TIMESTAMPTZ); INSERT INTO t VALUES (1, 'a', '', NULL), (1, 'a', '', NULL), (2, 'b', '', NULL);",
    );
    let destination = place.destination();
    let outcome = load_rows(&destination, &table(Upsert, Deletes::Hard), 1, &[&[row(1, "x"), row(3, "c")]]).await.unwrap();
    assert_eq!(counts(&outcome), (1, 1, 0));
    assert_eq!(place.rows("SELECT id, name FROM t ORDER BY id"), ["1|x", "2|b", "3|c"]);
}

#[tokio::test]
async fn a_key_that_does_not_identify_rows_is_said() {
    let place = Place::new();
    let error = load_rows(&place.destination(), &table(Replace, Deletes::Hard), 1, &[&[row(1, "a"), row(1, "b")]]).await.unwrap_err();
    assert_eq!(error.code(), trib_core::Code::DataInvalid);
    assert!(error.hint_text().unwrap().contains("key"));
    assert!(place.rows("SELECT name FROM sqlite_schema WHERE name = 't'").is_empty(), "nothing of it is visible");
}
