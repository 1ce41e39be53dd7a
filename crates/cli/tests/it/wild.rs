//! CSV as it is found, through a whole run: what cannot be read is a rejected row with file and line, and the rest arrives.

use std::fs;

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

struct Case {
    name: &'static str,
    content: &'static [u8],
    rows: u64,
    /// Line and reason of each rejected row.
    rejected: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 7] = [
    Case {
        name: "ragged",
        content: b"id,name\n1,a\n2\n3,c,d\n4,e\n",
        rows: 2,
        rejected: &[("ragged.csv:3", "1 field, where the header has 2"), ("ragged.csv:4", "3 fields, where the header has 2")],
    },
    Case { name: "bad_utf8", content: b"id,name\n1,caf\xe9\n2,ok\n", rows: 1, rejected: &[("bad_utf8.csv:2", "not valid UTF-8")] },
    Case { name: "open_quote", content: b"id,name\n1,\"open\n2,b\n3,c\n", rows: 2, rejected: &[("open_quote.csv:2", "never closes")] },
    Case { name: "nul_bytes", content: b"id,name\n1,a\0b\n2,c\n", rows: 2, rejected: &[] },
    Case { name: "only_header", content: b"id,name\n", rows: 0, rejected: &[] },
    Case { name: "no_line_end", content: b"id,name\n1,a", rows: 1, rejected: &[] },
    Case {
        name: "only_bad",
        content: b"id,name\n1\n2\n",
        rows: 0,
        rejected: &[("only_bad.csv:2", "1 field"), ("only_bad.csv:3", "1 field")],
    },
];

fn json(folder: &Folder, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let said = folder.trib(&args);
    assert_eq!(said.status, Some(0), "trib {}: {}", args.join(" "), said.all());
    serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap_or_else(|_| serde_json::from_str(&said.out).unwrap())
}

#[test]
fn files_that_are_not_quite_csv() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: wild\n"),
        ("connections.yaml", "drop: {connector: files, path: data}\n"),
        ("syncs/wild.yaml", "from: drop\ninto: raw.{table}\n"),
    ]);
    fs::create_dir(folder.path().join("data")).unwrap();
    for case in &CASES {
        fs::write(folder.path().join(format!("data/{}.csv", case.name)), case.content).unwrap();
    }
    let summary = json(&folder, &["run"]);
    let waiting = json(&folder, &["rejected", "list"]);
    for case in &CASES {
        let stream = summary["streams"].as_array().unwrap().iter().find(|s| s["stream"] == case.name).unwrap();
        assert_eq!(
            (stream["inserted"].as_u64(), stream["rejected"].as_u64()),
            (Some(case.rows), Some(case.rejected.len() as u64)),
            "{stream}"
        );
        let count = json(&folder, &["query", &format!("select count(*) as n from raw.{}", case.name)]);
        assert_eq!(count[0]["n"], case.rows, "{}", case.name);
        let of_case: Vec<&Value> = waiting.as_array().unwrap().iter().filter(|r| r["stream"] == case.name).collect();
        for (place, reason) in case.rejected {
            let found = of_case.iter().any(|r| r["place"] == *place && r["reason"].as_str().is_some_and(|text| text.contains(reason)));
            assert!(found, "{place}: {reason} is not among {of_case:?}");
        }
    }
}

/// A file without even a header has no columns and no rows, and is no reason to fail.
#[test]
fn an_empty_file_is_an_empty_table() {
    let folder = Folder::with(&[("empty.csv", "")]);
    let copied = json(&folder, &["copy", "empty.csv", "lake:out"]);
    let stream = &copied["streams"][0];
    assert_eq!((stream["inserted"].as_u64(), stream["rejected"].as_u64()), (Some(0), Some(0)), "{copied}");
}

#[test]
fn ten_thousand_columns() {
    let folder = Folder::new();
    let line = |cell: &dyn Fn(usize) -> String| (0..10_000).map(cell).collect::<Vec<_>>().join(",");
    let row = line(&|i| i.to_string());
    folder.write("wide.csv", &format!("{}\n{row}\n{row}\n1,2\n", line(&|i| format!("c{i}"))));
    let copied = json(&folder, &["copy", "wide.csv", "lake:out"]);
    assert_eq!((copied["streams"][0]["inserted"].as_u64(), copied["streams"][0]["rejected"].as_u64()), (Some(2), Some(1)), "{copied}");
    // Where so many cannot be held, that is said before anything is made.
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let said = folder.trib(&["copy", "wide.csv", &server.url(&database)]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    assert!(said.all().contains("1600") && said.all().contains("hint:"), "{}", said.all());
    assert_eq!(server.sql(&database, "select count(*) from pg_class where relname like '%wide%'").unwrap(), "0");
}

/// The limit counts what we add, in the table and where rows are staged.
#[test]
fn as_many_columns_as_postgresql_holds() {
    let server = PostgresServer::shared().unwrap();
    let folder = Folder::new();
    for (columns, status) in [(1595, 0), (1600, 2)] {
        let database = server.create_database().unwrap();
        let line = |cell: &dyn Fn(usize) -> String| (0..columns).map(cell).collect::<Vec<_>>().join(",");
        folder.write("wide.csv", &format!("{}\n{}\n", line(&|i| format!("c{i}")), line(&|i| (i % 2 == 0).to_string())));
        let said = folder.trib(&["copy", "wide.csv", &server.url(&database), "--system-columns"]);
        assert_eq!(said.status, Some(status), "{columns} columns: {}", said.all());
    }
}
