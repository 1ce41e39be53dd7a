//! `trib backfill --columns`: history gets a column that was added later, and nothing else is touched.

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::{Folder, Said};

const SELECTED: &str = "select: [id, v, at]";
const ADDED: &str = "select: [id, v, at, note, size]";

fn folder(out: &str, stream: &str) -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: fill\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", &format!("shop: {{connector: sqlite, path: shop.db}}\nout: {out}\n")),
    ]);
    sync(&folder, SELECTED, stream);
    sql(
        &folder,
        "create table orders (id integer primary key, v text, at integer, note text, size integer);
         insert into orders values (1, 'a', 10, 'one', 1), (2, 'b', 20, null, 2), (3, 'c', 30, 'three', null)",
    );
    folder
}

fn sync(folder: &Folder, select: &str, stream: &str) {
    folder.write("syncs/go.yaml", &format!("from: shop\nto: out\ninto: orders_copy\nstreams:\n  orders: {{{select}, {stream}}}\n"));
}

fn sql(folder: &Folder, sql: &str) {
    rusqlite::Connection::open(folder.path().join("shop.db")).unwrap().execute_batch(sql).unwrap();
}

fn fill(folder: &Folder, columns: &str) -> Said {
    folder.ok(&["backfill", "go/orders", "--columns", columns])
}

/// What became of the one stream, by `--json`.
fn filled(folder: &Folder, more: &[&str]) -> Value {
    let said = folder.ok(&[&["backfill", "go/orders", "--json"], more].concat());
    let last: Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    last["streams"][0].clone()
}

#[test]
fn what_is_read_again_makes_nothing_fresh() {
    let folder = folder("{connector: sqlite, path: out.db}", "read: incremental, cursor: at, write: upsert");
    let fresh = || {
        let status: Value = serde_json::from_str(&folder.ok(&["status", "--json"]).out).unwrap();
        status["streams"][0]["fresh_at"].as_str().unwrap_or_default().to_owned()
    };
    folder.ok(&["run"]);
    let ran = fresh();
    assert!(!ran.is_empty());
    folder.ok(&["backfill", "go/orders", "--since", "15"]);
    fill(&folder, "v");
    assert_eq!(fresh(), ran);
    // That there is nothing new is news.
    folder.ok(&["run"]);
    assert!(fresh() > ran);
}

/// Dies at three points of the load; then ends as if nothing had happened, and once more changes nothing.
fn into(out: &str) {
    let upsert = "read: incremental, cursor: at, write: upsert";
    let folder = folder(out, upsert);
    folder.ok(&["run"]);
    sync(&folder, ADDED, upsert);
    // What a backfill of other columns must not bring, and a row that is not loaded yet.
    sql(&folder, "update orders set v = 'not read' where id = 1; insert into orders values (4, 'd', 5, 'four', 4)");
    let all = "select id, v, note, size from orders_copy order by id";
    for point in ["staged", "recorded", "committed"] {
        let died = folder.command(&["backfill", "go/orders", "--columns", "note"]).env("TRIB_FAULT", point).output().unwrap();
        assert!(!died.status.success(), "did not die at {point}");
    }
    let said = fill(&folder, "note").all();
    assert!(said.contains("1 row that was read is not in"), "{said}");
    assert_eq!(folder.query("out", "select id, v, note from orders_copy order by id"), "1,a,one;2,b,;3,c,three");
    // A row is the last load's that has changed it.
    for (id, command) in [("1", "trib backfill go/orders --columns note"), ("2", "trib run")] {
        let why: Value = serde_json::from_str(&folder.ok(&["why", "orders_copy", id, "--json"]).out).unwrap();
        assert_eq!(why["row"]["loads"][0]["command"], command, "{why}");
    }

    let first = filled(&folder, &["--columns", "note,size", "--since", "15"]);
    assert_eq!((&first["read"], &first["write"], &first["updated"]), (&"range".into(), &"update".into(), &1.into()), "{first}");
    assert_eq!(folder.query("out", all), "1,a,one,;2,b,,2;3,c,three,");
    let loads = "select id, _trib_load_id, _trib_loaded_at from orders_copy order by id";
    let before = folder.query("out", loads);
    let again = filled(&folder, &["--columns", "note,size", "--since", "15"]);
    assert_eq!((&again["inserted"], &again["updated"], &again["deleted"]), (&0.into(), &0.into(), &0.into()), "{again}");
    assert_eq!(folder.query("out", loads), before, "rows that hold these values already keep their load");

    // State has not moved, and a run goes on from it, with all columns.
    sql(&folder, "insert into orders values (5, 'e', 50, 'five', 5)");
    folder.ok(&["run"]);
    assert_eq!(folder.query("out", all), "1,a,one,;2,b,,2;3,c,three,;5,e,five,5");
}

#[test]
fn into_sqlite() {
    into("{connector: sqlite, path: out.db}");
}

#[test]
fn into_the_lake() {
    into("{connector: lake, path: lake}");
}

#[test]
fn into_postgres() {
    let server = PostgresServer::shared().unwrap();
    into(&format!("{{connector: postgres, url: \"{}\"}}", server.url(&server.create_database().unwrap())));
}

/// Only the current version of a row knows the column, and no new version begins because of it.
#[test]
fn into_a_history() {
    let history = "read: incremental, cursor: at, write: history";
    let folder = folder("{connector: sqlite, path: out.db}", history);
    folder.ok(&["run"]);
    sql(&folder, "update orders set v = 'A', at = 40 where id = 1");
    folder.ok(&["run"]);
    sync(&folder, ADDED, history);
    fill(&folder, "note,size");
    let all = "select id, v, note, _trib_valid_to is null as current from orders_copy order by id, v";
    let expected = "1,A,one,1;1,a,,0;2,b,,1;3,c,three,1";
    assert_eq!(folder.query("out", all), expected);
    sql(&folder, "update orders set at = 60");
    folder.ok(&["run"]);
    assert_eq!(folder.query("out", "select count(*) as n from orders_copy where _trib_valid_to is null"), "3");
}

/// Columns go the way of all values: renamed, computed, hashed; and blocking tests look at the table as it will be.
#[test]
fn values_go_the_way_of_a_run() {
    let stream = "read: full, write: upsert, columns: {note: {rename: remark, hash: true}, v: {tests: [not_null]}}";
    let folder = folder("{connector: sqlite, path: out.db}", stream);
    folder.ok(&["run"]);
    folder.write(
        "syncs/go.yaml",
        &format!("from: shop\nto: out\ninto: orders_copy\nadd: {{twice: at * 2}}\nstreams:\n  orders: {{{ADDED}, {stream}}}\n"),
    );
    assert!(fill(&folder, "note,twice").all().contains("tests: 1 passed"));
    let found = folder.query("out", "select id, v, length(remark) as l, twice from orders_copy order by id");
    assert_eq!(found, "1,a,64,20;2,b,,40;3,c,64,60");
}

#[test]
fn refused() {
    let upsert = "read: incremental, cursor: at, write: upsert";
    let cases = [
        (upsert, "{connector: sqlite, path: out.db}", "nte", "did you mean \"note\"?"),
        (upsert, "{connector: sqlite, path: out.db}", "id", "the key says which row a value belongs to"),
        (upsert, "{connector: sqlite, path: out.db}", "note", "there is no table yet"),
        ("read: full, write: replace", "{connector: files, path: out, format: jsonl}", "note", "cannot change single columns"),
        ("read: full, write: replace, key: []", "{connector: sqlite, path: out.db}", "note", "without a key"),
    ];
    for (stream, out, columns, expected) in cases {
        let folder = folder(out, stream);
        sync(&folder, ADDED, stream);
        let said = folder.trib(&["backfill", "go", "--columns", columns]);
        assert!(said.status == Some(2) && said.all().contains(expected), "{expected}: {:?} {}", said.status, said.all());
    }
}

/// What the contract keeps out of the table is not brought in by the back door.
#[test]
fn the_contract_holds() {
    let upsert = "read: full, write: upsert, contract: {new_columns: ignore}";
    let folder = folder("{connector: sqlite, path: out.db}", upsert);
    folder.ok(&["run"]);
    sync(&folder, ADDED, upsert);
    let said = folder.trib(&["backfill", "go", "--columns", "note"]);
    assert!(said.all().contains("the contract leaves this column out"), "{}", said.all());
    // Columns that were not read are not taken for dropped ones.
    let frozen = "read: full, write: upsert, contract: {dropped_columns: freeze}";
    sync(&folder, ADDED, frozen);
    fill(&folder, "note");
    assert_eq!(folder.query("out", "select id, v, note from orders_copy order by id"), "1,a,one;2,b,;3,c,three");
}
