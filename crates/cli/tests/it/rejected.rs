//! Rows that are not taken: how long they wait, and where they are shown.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::ipc::writer::FileWriter;
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

/// What is read as a whole into a table that keeps its rows meets the same bad row at every run.
#[test]
fn a_row_that_is_rejected_at_every_run_waits_once() {
    let upsert = REJECT.replace("write: replace", "write: upsert, key: [id]");
    let folder = people("id,n\n1,10\n2,20\n", &upsert);
    folder.ok(&["run"]);
    folder.write("data/people.csv", "id,n\n1,10\n2,many\n3,few\n");
    folder.ok(&["run"]);
    folder.ok(&["run"]);
    assert_eq!(waiting(&folder).len(), 2, "each row waits once");
    folder.write("data/people.csv", "id,n\n1,10\n2,more\n3,few\n");
    folder.ok(&["run"]);
    let waiting: Vec<String> = waiting(&folder).iter().map(|r| r["row"].to_string()).collect();
    assert!(waiting.len() == 3 && waiting.iter().any(|row| row.contains("many")), "another value is another row: {waiting:?}");
    assert_eq!(
        folder.query("warehouse", "select status, count(*) as n from _trib.rejected group by 1 order by 1"),
        "superseded,3;waiting,3"
    );
}

/// Whoever rejects a row of a file: its line is told.
#[test]
fn a_row_that_the_contract_or_a_cast_rejects_is_found_in_its_file() {
    let folder = people("id,n,note\n1,10,a\n", REJECT);
    folder.ok(&["run"]);
    let places = || -> Vec<String> { waiting(&folder).iter().map(|r| r["place"].as_str().unwrap().to_owned()).collect() };
    folder.write("data/people.csv", "id,n,note\n1,10,a\n2,many,b\n3,30,c\n4,few,d\n");
    folder.ok(&["run"]);
    assert_eq!(places(), ["people.csv:3", "people.csv:5"]);
    // A record over two lines, an empty line, a line that cannot be read.
    folder.write("data/people.csv", "id,n,note\n1,10,\"a\nb\"\n\n2,many,b\n3\n4,few,d\n5,50,e");
    folder.ok(&["run"]);
    assert_eq!(places(), ["people.csv:6", "people.csv:5", "people.csv:7"]);
    // Which rows a condition has left out is not known here.
    let cast = "from: drop\ninto: hr.{table}\nstreams: {people: {write: upsert, key: [id], columns: {n: {cast: int}}}}\n";
    folder.write("data/people.csv", "id,n,note\n1,10,a\n2,many,b\n3,30,c\n");
    folder.write("syncs/hr.yaml", cast);
    folder.ok(&["run", "--full-refresh"]);
    assert_eq!(places(), ["people.csv:3, id=2"]);
    folder.write("syncs/hr.yaml", &cast.replace("columns:", "where: \"id > 1\", columns:"));
    folder.ok(&["run", "--full-refresh"]);
    assert_eq!(places(), ["people.csv, id=2"]);
    // One object on each line, and an empty line.
    folder.write("data/people.jsonl", "{\"id\": 1, \"n\": \"1\"}\n\n{\"id\": 2, \"n\": \"many\"}\n");
    folder.write("connections.yaml", "drop: {connector: files, path: data, streams: {people: {path: people.jsonl}}}\n");
    folder.write("syncs/hr.yaml", cast);
    folder.ok(&["run", "--full-refresh"]);
    assert_eq!(places(), ["people.jsonl:3, id=2"]);
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

/// One value that a step or a destination cannot hold is one row's, and not its stream's.
#[test]
fn a_date_that_does_not_fit_is_one_rejected_row() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let rows =
        "(1, '2024-01-01', '2024-01-01', '12:00'), (2, '5874897-12-31', '290000-01-01', '24:00'), (3, '2024-01-03', '2024-01-03', null)";
    server
        .sql(&database, &format!("create table t (id int primary key, d date, ts timestamp, t time); insert into t values {rows}"))
        .unwrap();
    let streams = "t: {columns: {d: {cast: text}, ts: {cast: date}}}";
    let folder = Folder::with(&[
        ("tributary.yaml", "name: far\n"),
        ("connections.yaml", &format!("shop: {{connector: postgres, url: \"{}\"}}\n", server.url(&database))),
        ("syncs/cast.yaml", &format!("from: shop\ninto: far.cast\nstreams: {{public.{streams}}}\n")),
        ("syncs/masked.yaml", "from: shop\ninto: far.masked\nstreams: {public.t: {columns: {ts: {mask: {keep_last: 8}}}}}\n"),
    ]);
    folder.ok(&["run"]);
    assert_eq!(folder.query("warehouse", "select id, d, ts from far.cast order by id"), "1,2024-01-01,2024-01-01;3,2024-01-03,2024-01-03");
    let waiting = waiting(&folder);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!((&waiting[0]["place"], &waiting[0]["row"]["ts"]), (&"id=2".into(), &"+290000-01-01T00:00:00".into()));
    assert!(waiting[0]["reason"].as_str().unwrap().starts_with("column ts: "), "{waiting:?}");
    let far =
        "select d = cast(2145042905 as int) as d, ts, t from (select arrow_cast(d, 'Int32') as d, ts, t from far.masked where id = 2) as m";
    assert_eq!(folder.query("warehouse", far), "true,***00:00:00,24:00:00");
    // What the lake has taken comes back as it was.
    folder.write("syncs/back.yaml", "from: warehouse\nto: shop\ninto: public.back\nstreams: {far.masked: {}}\n");
    folder.ok(&["run", "back"]);
    assert_eq!(server.sql(&database, "select d, t from back where id = 2").unwrap(), "5874897-12-31|24:00:00");
}

/// A destination that counts time more finely than its source does not reach as far.
#[test]
fn a_time_beyond_the_reach_of_a_destination_is_one_rejected_row() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..100))),
        ("at", Arc::new(TimestampSecondArray::from_iter_values((0..100).map(|i| if i == 41 { i64::MAX } else { i })))),
        ("note", Arc::new(StringArray::from(vec!["n"; 100]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let connections = format!(
        "far: {{connector: files, path: data}}\ndwh: {{connector: postgres, url: \"{}\"}}\nlite: {{connector: sqlite, path: lite.db}}\n",
        server.url(&database)
    );
    let folder = Folder::with(&[("tributary.yaml", "name: far\n"), ("connections.yaml", &connections), ("data/none.txt", "")]);
    let mut writer = FileWriter::try_new(std::fs::File::create(folder.path().join("data/far.arrow")).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    for to in ["warehouse", "dwh", "lite"] {
        folder.write(
            "syncs/far.yaml",
            &format!("from: far\nto: {to}\ninto: far.{{table}}\nstreams: {{far: {{write: upsert, key: [id]}}}}\n"),
        );
        folder.ok(&["run", "--full-refresh"]);
        let waiting = waiting(&folder);
        // SQLite's times are texts.
        let expected = if to == "lite" { 0 } else { 1 };
        assert_eq!(waiting.len(), expected, "{to}: {waiting:?}");
        for row in &waiting {
            assert_eq!(row["place"], "id=41");
            let reason = row["reason"].as_str().unwrap();
            assert!(reason.starts_with("column at: the value does not fit timestamp"), "{to}: {reason}");
        }
        let table = if to == "lite" { "far__far" } else { "far.far" };
        assert_eq!(folder.query(to, &format!("select count(*) from {table}")), (100 - expected).to_string());
        std::fs::remove_file(folder.path().join(".tributary/control.db")).unwrap();
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

/// Rows that nothing is done to travel in another form than others, and those that must be rejected are, in either.
#[test]
fn from_postgres_to_postgres_the_same_rows_are_rejected_whatever_is_done_to_them() {
    let server = PostgresServer::shared().unwrap();
    let (shop, out) = (server.create_database().unwrap(), server.create_database().unwrap());
    let sql = |database: &str, sql: &str| server.sql(database, sql).unwrap();
    sql(&shop, "create table prices (id int primary key, price numeric(10,2), day date, note text)");
    sql(&shop, "insert into prices select i, i / 3.0, '2024-01-01', repeat('n', 100) from generate_series(1, 20000) i");
    sql(&shop, "insert into prices values (0, 'NaN', null, 'a'), (20001, 1, 'infinity', 'b'), (20002, 2, null, null)");
    let sync = |rule: &str, into: &str| {
        format!("from: shop\nto: out\ninto: {into}.{{table}}\nstreams: {{public.prices: {{read: full, write: replace{rule}}}}}\n")
    };
    let connection = |database: &str| format!("{{connector: postgres, url: \"{}\"}}", server.url(database));
    let folder = Folder::with(&[
        ("tributary.yaml", "name: prices\n"),
        ("connections.yaml", &format!("shop: {}\nout: {}\n", connection(&shop), connection(&out))),
        ("syncs/plain.yaml", &sync("", "plain")),
        ("syncs/cast.yaml", &sync(", columns: {id: {cast: bigint}}", "cast")),
        ("syncs/named.yaml", &sync(", columns: {note: {rename: Remark}}", "named")),
    ]);
    folder.ok(&["run"]);
    let both = |a: &str, b: &str| format!("select id, price, day, {a} from plain.prices except select id, price, day, {b} from");
    assert_eq!(sql(&out, &format!("{} \"cast\".prices", both("note", "note"))), "");
    assert_eq!(sql(&out, &format!("{} named.prices", both("note", "\"Remark\""))), "");
    let count = |schema: &str| {
        sql(&out, &format!("select count(*), count(distinct _trib_load_id), count(_trib_loaded_at) from \"{schema}\".prices"))
    };
    assert_eq!([count("plain"), count("cast"), count("named")].map(|c| c.trim().to_owned()), ["20001|1|20001"; 3]);
    let rejected: Vec<Value> = serde_json::from_str(&folder.ok(&["rejected", "list", "--json"]).out).unwrap();
    for place in ["id=0", "id=20001"] {
        let of_place: Vec<_> = rejected.iter().filter(|r| r["place"] == place).map(|r| (&r["reason"], &r["row"])).collect();
        assert_eq!(of_place.len(), 3, "{rejected:?}");
        assert!(of_place.iter().all(|r| r.0 == of_place[0].0), "{of_place:?}");
    }
}
