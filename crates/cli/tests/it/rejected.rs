//! Rows that are not taken: how long they wait, and where they are shown.

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const REJECT: &str = "from: drop\ninto: hr.{table}\ncontract: {type_changes: reject_row}\nstreams: {people: {write: replace}}\n";

fn people(csv: &str, sync: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: hr\n"),
        ("connections.yaml", "drop: {connector: files, path: data, streams: {people: {path: people.csv}}}\n"),
        ("data/people.csv", csv),
        ("syncs/hr.yaml", sync),
    ])
}

fn waiting(folder: &Folder) -> Vec<Value> {
    serde_json::from_str(&folder.ok(&["rejected", "list", "--json"]).out).unwrap()
}

/// What is read as a whole says all there is to say about its rows, those that are not taken included.
#[test]
fn a_table_that_is_replaced_keeps_no_rejected_rows_of_before() {
    let folder = people("id,n\n1,10\n2,20\n", REJECT);
    folder.ok(&["run"]);
    folder.write("data/people.csv", "id,n\n1,10\n2,many\n");
    folder.ok(&["run"]);
    folder.ok(&["run"]);
    assert_eq!(waiting(&folder).len(), 1, "the row waits once, however often it is rejected");
    folder.write("data/people.csv", "id,n\n1,10\n2,21\n");
    folder.ok(&["run"]);
    assert!(waiting(&folder).is_empty());
    assert!(folder.ok(&["rejected", "retry"]).out.contains("no rows wait"));
    assert_eq!(folder.query("warehouse", "select id, n from hr.people order by id"), "1,10;2,21");
    assert_eq!(folder.query("warehouse", "select count(*) from _trib.rejected"), "2", "what was rejected is not forgotten");
}

#[test]
fn a_load_that_could_take_no_row_says_why_and_empties_nothing() {
    let folder = people("id,n\n1,10\n", REJECT);
    folder.ok(&["run"]);
    folder.write("data/people.csv", "id,n\n1\n2\n3\n");
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(5), "{}", said.all());
    assert!(said.all().contains("3 rejected, the first people.csv:2: "), "{}", said.all());
    assert!(!said.all().contains("--allow-empty") && !said.all().contains("trib rejected list"), "{}", said.all());
    assert_eq!(folder.query("warehouse", "select n from hr.people"), "10");
}

#[test]
fn a_copy_shows_what_it_did_not_take() {
    let lines: String = (0..9).map(|i| format!("{i}\n")).collect();
    let folder = Folder::with(&[("ragged.csv", &format!("id,name\n1,a\n{lines}")), ("empty.csv", "")]);
    let said = folder.ok(&["copy", "./ragged.csv", "./out.jsonl"]);
    assert!(said.all().contains("9 rows rejected:\n  ragged.csv:3: ") && said.all().contains("… and 4 more"), "{}", said.all());
    assert!(!said.all().contains("trib rejected"), "{}", said.all());
    let said = folder.ok(&["copy", "./ragged.csv", "./out.jsonl", "--json"]);
    let summary: Value = serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap();
    assert_eq!(summary["rejected"][0]["place"], "ragged.csv:3");
    let said = folder.trib(&["copy", "./empty.csv", "./empty.jsonl"]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert!(said.all().contains("no columns") && !said.all().contains("partition"), "{}", said.all());
}

/// An error is no value.
#[test]
fn dates_and_times_that_only_postgres_has_are_written_as_they_are() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let rows = "(1, '23:59', '9999-12-31', '2024-01-01'), (2, '24:00', null, null), (3, null, '5874897-12-31', null), (4, null, null, '290000-01-01')";
    server
        .sql(&database, &format!("create table t (id int primary key, t time, y date, ts timestamp); insert into t values {rows}"))
        .unwrap();
    let folder = Folder::new();
    for to in ["./t.csv", "./t.jsonl"] {
        folder.ok(&["copy", &server.url(&database), to, "--streams", "public.t"]);
        let text = std::fs::read_to_string(folder.path().join(to)).unwrap();
        for part in ["23:59:00", "24:00:00", "5874897-12-31", "290000-01-01"] {
            assert!(text.contains(part) && !text.contains("rror"), "{part}: {text}");
        }
    }
}

#[test]
fn a_state_is_set_when_its_source_could_have_written_it() {
    let folder =
        people("id,n\n1,10\n2,20\n", "from: drop\ninto: hr.{table}\nstreams: {people: {write: append, read: incremental, cursor: id}}\n");
    folder.ok(&["run"]);
    let set = |state: &str| folder.trib(&["state", "set", "hr/people", state]);
    let whole = folder.ok(&["state", "get", "hr"]).out;
    for wrong in [
        whole.as_str(),
        "[]",
        "null",
        "{\"garbage\": 1}",
        "{\"cursr\": \"id\", \"value\": \"1\"}",
        "{\"value\": \"1\"}",
        "{\"cursor\": \"n\", \"value\": \"1\"}",
    ] {
        let said = set(wrong);
        assert_ne!(said.status, Some(0), "{wrong}: {}", said.all());
        assert!(said.all().contains("hint:"), "{wrong}: {}", said.all());
    }
    assert_ne!(folder.trib(&["state", "set", "hr/nobody", "{}"]).status, Some(0));
    assert_eq!(folder.ok(&["state", "get", "hr"]).out, whole);
    let ours = folder.ok(&["state", "get", "hr/people"]).out;
    assert_eq!(set(&ours).status, Some(0), "{}", set(&ours).all());
    folder.ok(&["run"]);
    assert_eq!(folder.query("warehouse", "select count(*) from hr.people"), "2");
    assert_eq!(set("{\"cursor\": \"id\", \"value\": \"1\"}").status, Some(0));
    folder.ok(&["run"]);
    assert_eq!(folder.query("warehouse", "select count(*) from hr.people"), "4", "from the value on, and with it");
}

#[test]
fn a_query_is_told_what_is_wrong_with_it_and_shows_what_has_no_type() {
    let folder = people("id,n\n1,10\n", REJECT);
    folder.ok(&["run"]);
    assert_eq!(folder.ok(&["query", "--json", "select null as b, n from hr.people"]).out, "[\n{\"b\":null,\"n\":10}\n]\n");
    for sql in ["select sum(cast(n as text)) from hr.people", "select n / 0 from hr.people", "select cast('x' as int) from hr.people"] {
        let said = folder.trib(&["query", sql]);
        assert!(said.err.contains("blame: yours") && !said.err.contains("datafusion"), "{}", said.err);
    }
    let said = folder.ok(&["query", "select repeat('x', 3000000) as long from hr.people"]);
    assert!(said.out.contains('…') && said.out.len() < 2000, "{}", said.out.len());
    assert!(folder.ok(&["query", "--format", "csv", "select repeat('x', 3000000) as long from hr.people"]).out.len() > 3_000_000);
}
