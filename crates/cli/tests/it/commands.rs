//! What single commands promise, beyond what the cases show.

use std::process::Stdio;

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::{Folder, Said, said};

fn ok(folder: &Folder, args: &[&str]) -> Said {
    let said = folder.trib(args);
    assert_eq!(said.status, Some(0), "trib {}: {}", args.join(" "), said.all());
    said
}

fn json(folder: &Folder, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let said = ok(folder, &args);
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

/// The last line of a run's JSON.
fn summary(said: &Said) -> Value {
    serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap()
}

fn people(csv: &str, sync: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: hr\n"),
        ("connections.yaml", "drop: {connector: files, path: data, streams: {people: {path: people.csv, key: [id]}}}\n"),
        ("data/people.csv", csv),
        ("syncs/hr.yaml", sync),
    ])
}

/// Each table has the columns of its own loads; those of the table that it was read from come along where they are named.
#[test]
fn columns_of_tributary_stay_behind() {
    let folder = people("id,name\n1,a\n", "from: drop\ninto: hr.{table}\n");
    folder.write(
        "connections.yaml",
        "drop: {connector: files, path: data, streams: {people: {path: people.csv, key: [id]}}}\nout: {connector: sqlite, path: out.db}\n",
    );
    folder.write("syncs/out.yaml", "from: warehouse\nto: out\ninto: \"{table}\"\nstreams: [hr.people]\n");
    folder.write(
        "syncs/dated.yaml",
        "from: warehouse\nto: out\ninto: dated\nstreams:\n  hr.people: {cursor: _trib_loaded_at, columns: {_trib_load_id: {rename: brought_by}}}\n",
    );
    ok(&folder, &["run"]);
    let columns = |table: &str| folder.query("out", &format!("select name from pragma_table_info('{table}') order by cid"));
    assert_eq!(columns("people"), "id;name;_trib_load_id;_trib_loaded_at");
    assert_eq!(columns("dated"), "id;name;brought_by;_trib_load_id;_trib_loaded_at");
    assert_eq!(folder.query("out", "select p._trib_load_id = d.brought_by, d._trib_load_id = d.brought_by from people p, dated d"), "0,0");
    assert_eq!(folder.query("warehouse", "select count(*) from hr.people"), "1");
}

#[test]
fn some_streams_fail_and_others_succeed() {
    let folder = people("id,name\n1,a\n", "from: drop\nstreams: {people: {}, nobody: {}}\n");
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(3), "{}", said.all());
    assert!(said.all().contains("the source has no such stream"), "{}", said.all());
    assert_eq!(json(&folder, &["runs"])[0]["status"], "partial");
}

#[test]
fn what_a_guard_holds_goes_ahead_when_it_is_approved() {
    let folder = people("id,name\n1,a\n", "from: drop\ninto: hr.{table}\nstreams: {people: {write: replace}}\n");
    ok(&folder, &["run"]);
    folder.write("data/people.csv", "id,name\n");
    let held = folder.trib(&["run", "--json"]);
    assert_eq!(held.status, Some(5), "{}", held.all());
    let run = summary(&held)["run"].as_str().unwrap().to_owned();
    ok(&folder, &["run", "--approve", &run]);
    assert_eq!(json(&folder, &["query", "select count(*) as n from hr.people"])[0]["n"], 0);
    assert_eq!(folder.trib(&["run", "--approve", &run]).status, Some(2));
}

#[test]
fn rejected_rows_are_loaded_once_they_fit() {
    let sync =
        |contract: &str| format!("from: drop\ninto: hr.{{table}}\ncontract: {{{contract}}}\nstreams: {{people: {{write: upsert}}}}\n");
    let folder = people("id,n\n1,10\n", &sync("type_changes: reject_row"));
    ok(&folder, &["run"]);
    folder.write("data/people.csv", "id,n\n1,10\n2,many\n");
    ok(&folder, &["run"]);
    let waiting = json(&folder, &["rejected", "list"]);
    assert_eq!((waiting.as_array().unwrap().len(), &waiting[0]["row"]["n"]), (1, &Value::from("many")));
    let id = waiting[0]["id"].to_string();
    assert!(ok(&folder, &["rejected", "show", &id]).out.contains("many"));
    // It still does not fit: it is rejected once more, and waits.
    ok(&folder, &["rejected", "retry", &id]);
    assert_eq!(json(&folder, &["rejected", "list"]).as_array().unwrap().len(), 1);
    folder.write("syncs/hr.yaml", &sync("type_changes: evolve"));
    ok(&folder, &["rejected", "retry", "hr"]);
    assert_eq!(json(&folder, &["rejected", "list"]), serde_json::json!([]));
    assert_eq!(json(&folder, &["query", "select n__v_text as n from hr.people where id = 2"])[0]["n"], "many");
}

/// What a stream hides at the destination stands in no other place either, and another try does not hide it twice.
#[test]
fn rejected_rows_keep_no_more_than_their_table_gets() {
    let sync = |contract: &str| {
        let columns = "{email: {hmac: k3y}, card: {mask: {keep_last: 4}}, ssn: {drop: true}}";
        format!("from: drop\ninto: hr.{{table}}\ncontract: {{{contract}}}\nstreams: {{people: {{write: upsert, columns: {columns}}}}}\n")
    };
    let header = "id,n,email,card,ssn\n";
    let folder = people(&format!("{header}1,10,ann@example.com,4242424242421111,123-45-6789\n"), &sync("type_changes: reject_row"));
    ok(&folder, &["run"]);
    // One does not fit the table, one line is broken, one has its fields out of place.
    folder
        .write("data/people.csv", &format!("{header}2,many,bob@example.com,4242424242422222,987-65-4321\n3,30,cyd@example.com,4343,1,x\n"));
    ok(&folder, &["run"]);
    let waiting = json(&folder, &["rejected", "list"]);
    assert_eq!(waiting.as_array().unwrap().len(), 2, "{waiting}");
    ok(&folder, &["query", "select * from _trib.rejected"]);
    for file in folder.files().iter().filter(|f| !f.ends_with("data/people.csv")) {
        let bytes = std::fs::read(file).unwrap();
        for secret in ["ann@example.com", "bob@example.com", "cyd@example.com", "424242424242", "987-65-4321", "123-45-6789"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} in {}", file.display());
        }
    }
    let of_ann = |folder: &Folder, id: i64| {
        json(folder, &["query", &format!("select email, card, n__v_text as n from hr.people where id = {id}")])[0].clone()
    };
    folder.write("syncs/hr.yaml", &sync("type_changes: evolve"));
    let said = ok(&folder, &["rejected", "retry"]);
    assert!(said.all().contains("could not be decoded"), "{}", said.all());
    let retried = of_ann(&folder, 2);
    assert_eq!((retried["n"].as_str(), retried["card"].as_str()), (Some("many"), Some("***2222")));
    // As the row would have arrived by itself.
    folder.write("data/people.csv", &format!("{header}4,many,bob@example.com,4242424242422222,987-65-4321\n"));
    ok(&folder, &["run"]);
    assert_eq!(of_ann(&folder, 4), retried);
}

#[test]
fn a_row_that_was_kept_under_other_rules_is_not_loaded_as_it_is() {
    let sync = |contract: &str, columns: &str| {
        format!("from: drop\ninto: hr.{{table}}\ncontract: {{{contract}}}\nstreams: {{people: {{write: upsert, columns: {columns}}}}}\n")
    };
    let folder = people("id,n,email\n1,10,ann@example.com\n", &sync("type_changes: reject_row", "{}"));
    ok(&folder, &["run"]);
    folder.write("data/people.csv", "id,n,email\n2,many,bob@example.com\n");
    ok(&folder, &["run"]);
    folder.write("syncs/hr.yaml", &sync("type_changes: evolve", "{email: {hmac: k3y}}"));
    let said = ok(&folder, &["rejected", "retry"]);
    assert!(said.all().contains("trib backfill"), "{}", said.all());
    assert_eq!(json(&folder, &["rejected", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(json(&folder, &["query", "select count(*) as n from hr.people"])[0]["n"], 1);
}

#[test]
fn a_load_that_rejects_too_much_fails() {
    let sync =
        "from: drop\ninto: hr.{table}\nload: {rejected: 2}\ncontract: {type_changes: reject_row}\nstreams: {people: {write: upsert}}\n";
    let folder = people("id,n\n1,10\n", sync);
    ok(&folder, &["run"]);
    folder.write("data/people.csv", "id,n\n1,11\n2,x\n3,x\n");
    ok(&folder, &["run"]);
    folder.write("data/people.csv", "id,n\n1,12\n2,x\n3,x\n4,x\n");
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert!(said.all().contains("more rows were rejected") && said.all().contains("load: {rejected"), "{}", said.all());
    assert_eq!(json(&folder, &["query", "select n from hr.people"])[0]["n"], 11);
    assert_eq!(json(&folder, &["rejected", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn protected_environments_want_a_yes() {
    let folder = people("id,name\n1,a\n", "from: drop\nstreams: [people]\n");
    folder.write("tributary.yaml", "name: hr\nenvironments: {prod: {protected: true}}\n");
    ok(&folder, &["run", "--env", "prod"]);
    assert_eq!(folder.trib(&["run", "--env", "prod", "--full-refresh"]).status, Some(5));
    ok(&folder, &["run", "--env", "prod", "--full-refresh", "--yes"]);
    assert_eq!(folder.trib(&["state", "reset", "hr", "--env", "prod"]).status, Some(5));
}

#[test]
fn a_paused_sync_is_left_out() {
    let folder = people("id,name\n1,a\n", "from: drop\nstreams: [people]\n");
    ok(&folder, &["pause", "hr", "--reason", "until Tuesday"]);
    let said = ok(&folder, &["run"]);
    assert!(said.out.contains("until Tuesday"), "{}", said.all());
    ok(&folder, &["resume", "hr"]);
    assert_eq!(summary(&ok(&folder, &["run", "--json"]))["streams"][0]["rows_read"], 1);
}

#[test]
fn environments_keep_their_tables_apart() {
    let folder = people("id,name\n1,a\n", "from: drop\ninto: hr.{table}\nstreams: [people]\n");
    folder.write("tributary.yaml", "name: hr\nenvironments: {dev: {schema_prefix: dev_}, prod: {}}\n");
    ok(&folder, &["run"]);
    // The project's names are the same in each.
    assert_eq!(json(&folder, &["query", "select count(*) as n from hr.people"])[0]["n"], 1);
    assert_eq!(folder.trib(&["query", "select * from hr.people", "--env", "prod"]).status, Some(2));
}

#[test]
fn queries_change_nothing() {
    let folder = people("id,name\n1,a\n", "from: drop\ninto: hr.{table}\nstreams: [people]\n");
    ok(&folder, &["run"]);
    for sql in ["create table x as select 1", "insert into hr.people values (2, 'b')", "drop table hr.people", "set a.b = 1"] {
        assert_ne!(folder.trib(&["query", sql]).status, Some(0), "{sql}");
    }
    let csv = ok(&folder, &["query", "--format", "csv", "select id, name from hr.people"]).out;
    assert_eq!(csv, "id,name\n1,a\n");
    assert_eq!(json(&folder, &["query", "select sync, status from _trib.streams"])[0]["status"], "succeeded");
    let tables = ok(&folder, &["query", "select table_schema, table_name from information_schema.tables"]).out;
    assert!(tables.contains("people") && tables.contains("rejected"), "{tables}");
}

#[test]
fn copies_need_no_project() {
    let folder = Folder::with(&[("in/orders.csv", "id,amount\n1,1.50\n2,2.25\n")]);
    ok(&folder, &["copy", "in/orders.csv", "shop.db"]);
    ok(&folder, &["copy", "shop.db", "out/again.jsonl", "--streams", "orders"]);
    let lines = std::fs::read_to_string(folder.path().join("out/again.jsonl")).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], 1, "{lines}");
    assert!(!lines.contains("_trib"), "{lines}");
    // What was copied once and is empty now is not taken for the truth.
    folder.write("in/orders.csv", "id,amount\n");
    assert_eq!(folder.trib(&["copy", "in/orders.csv", "shop.db"]).status, Some(5));
    ok(&folder, &["copy", "in/orders.csv", "shop.db", "--allow-empty"]);
    // Nothing but the data and what it must remember.
    assert!(!folder.path().join(".tributary").exists());
    let two = Folder::with(&[("in/a.csv", "x\n1\n"), ("in/b.csv", "x\n1\n")]);
    let unnamed = two.trib(&["copy", "in/", "shop.db"]);
    assert_eq!(unnamed.status, Some(2), "{}", unnamed.all());
}

#[test]
fn an_incremental_copy_goes_on_from_where_it_was() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server
        .sql(&database, "create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 10) g")
        .unwrap();
    let folder = Folder::new();
    let url = server.url(&database);
    let args = ["copy", &url, "lake:out", "--streams", "public.t", "--cursor", "id", "--json"];
    assert_eq!(summary(&ok(&folder, &args))["streams"][0]["rows_read"], 10);
    server.sql(&database, "insert into t values (11, 'new')").unwrap();
    assert_eq!(summary(&ok(&folder, &args))["streams"][0]["inserted"], 1);
}

/// A commit cannot be left half way, so the first Ctrl-C waits for it; the second one does not.
#[test]
fn a_second_ctrl_c_ends_a_run_at_once() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let url = server.url(&database);
    let folder = Folder::with(&[
        ("tributary.yaml", "name: held\n"),
        ("data/t.csv", "id\n1\n"),
        ("connections.yaml", &format!("drop: {{connector: files, path: data}}\nshop: {{connector: postgres, url: \"{url}\"}}\n")),
        ("syncs/held.yaml", "from: drop\nto: shop\ninto: raw.{table}\nstreams: {t: {read: full, write: upsert, key: [id]}}\n"),
    ]);
    ok(&folder, &["run"]);
    // Somebody holds the table, and the commit waits.
    let holder = format!("begin; lock table raw.t; select pg_sleep(600); -- {database}");
    let mut holder =
        std::process::Command::new("psql").args([&url, "-qc", &holder]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let count = |what: &str| {
        server.sql(&database, &format!("select count(*) from pg_stat_activity where datname = '{database}' and {what}")).unwrap()
    };
    let until = |what: &str| {
        while count(what) == "0" {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    until("wait_event = 'PgSleep'");
    let mut child = folder.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("wait_event_type = 'Lock'");
    let pid = child.id().to_string();
    let interrupt = || assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    interrupt();
    // What it says before it waits on.
    let mut heard = String::new();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    while !heard.contains("once more to end at once") {
        assert_ne!(std::io::BufRead::read_line(&mut said, &mut heard).unwrap(), 0, "{heard}");
    }
    assert!(child.try_wait().unwrap().is_none(), "it did not wait for its commit");
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    server.sql("postgres", &format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'")).unwrap();
    holder.wait().unwrap();
    ok(&folder, &["run"]);
    assert_eq!(json(&folder, &["query", "-c", "shop", "select count(*)::int as n from raw.t"])[0]["n"], 1);
}

#[test]
fn ctrl_c_ends_a_run_at_a_safe_place() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    // A view that takes its time: the run is surely in the middle of it.
    let setup = "create table t (id int primary key); insert into t select generate_series(1, 100);
        create view slow as select id, pg_sleep(0.2)::text as waited from t";
    server.sql(&database, setup).unwrap();
    let folder = Folder::with(&[
        ("tributary.yaml", "name: slow\n"),
        ("connections.yaml", &format!("shop: {{connector: postgres, url: \"{}\"}}\n", server.url(&database))),
        ("syncs/slow.yaml", "from: shop\ninto: raw.{table}\nstreams: [public.slow]\n"),
    ]);
    let child = folder.command(&["run", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running =
        || server.sql(&database, "select count(*) from pg_stat_activity where query like '%slow%' and pid <> pg_backend_pid()").unwrap();
    while running() == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let said = said(child.wait_with_output().unwrap());
    assert_eq!(said.status, Some(130), "{}", said.all());
    assert_eq!(json(&folder, &["runs"])[0]["status"], "cancelled");
    assert_eq!(folder.trib(&["query", "select * from raw.slow"]).status, Some(2));
}

/// A database that starts again just when a run begins.
#[test]
fn a_source_that_is_not_there_at_first_is_asked_again() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: late\n"),
        ("connections.yaml", "shop: {connector: postgres, url: \"postgres://u:p@127.0.0.1:1/shop\"}\n"),
        ("syncs/late.yaml", "from: shop\nstreams: [public.orders]\nretry: {attempts: 2, backoff: 100ms}\n"),
    ]);
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert_eq!(said.all().matches("attempt 1 of 2, next in").count(), 1, "{}", said.all());
}

#[test]
fn a_copy_into_one_file_leaves_others_alone() {
    let folder = Folder::with(&[("r.csv", "id,name\n1,a\n")]);
    for to in ["./o/t.csv", "./o/t.jsonl", "./o/t.csv"] {
        ok(&folder, &["copy", "./r.csv", to]);
    }
    for file in ["o/t.csv", "o/t.jsonl"] {
        assert!(std::fs::read_to_string(folder.path().join(file)).unwrap().contains('a'), "{file}");
    }
}
