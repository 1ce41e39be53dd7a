//! What a person sees of recovery: a load that cannot be published, or whose staged rows are gone, blocks nothing.

use std::sync::Arc;

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::{Folder, Said};

/// A PostgreSQL table with two rows, and a project that loads it.
struct Bench {
    server: Arc<PostgresServer>,
    database: String,
    folder: Folder,
}

impl Bench {
    /// `to` is the destination's YAML, where `URL` stands for the source's database.
    fn new(to: &str, into: &str, stream: &str) -> Self {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        let url = server.url(&database);
        let folder = Folder::with(&[
            ("tributary.yaml", "name: recovery\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
            ("connections.yaml", &format!("shop: {{connector: postgres, url: \"{url}\"}}\nout: {}\n", to.replace("URL", &url))),
            ("syncs/go.yaml", &format!("from: shop\nto: out\ninto: {into}\nstreams:\n  public.src: {stream}\n")),
        ]);
        let bench = Self { server, database, folder };
        bench.sql("create table src (id int primary key, v text); insert into src values (1, 'a'), (2, 'b')");
        bench
    }

    fn sql(&self, sql: &str) {
        self.server.sql(&self.database, sql).unwrap();
    }

    fn runs(&self, args: &[&str]) -> Said {
        let said = self.folder.trib(&[&["run"], args].concat());
        assert_eq!(said.status, Some(0), "{}", said.all());
        said
    }

    /// Dies between staging and commit.
    fn dies(&self) {
        let out = self.folder.command(&["run"]).env("TRIB_FAULT", "recorded").output().unwrap();
        assert!(!out.status.success());
    }

    fn unfinished(&self) -> bool {
        let said = self.folder.trib(&["plan", "--json"]);
        let plan: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()));
        plan.to_string().contains("\"unfinished\":{")
    }

    fn rows(&self, table: &str) -> Vec<String> {
        let said = self.folder.trib(&["query", "--json", "-c", "out", &format!("select id, v from {table} order by id")]);
        let rows: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()));
        rows.iter().map(|r| format!("{}{}", r["id"], r["v"].as_str().unwrap())).collect()
    }
}

/// A unique index of the user's on a table that is only appended to.
#[test]
fn a_load_that_the_table_does_not_take_is_read_again() {
    let bench = Bench::new("{connector: postgres, url: \"URL\"}", "raw.copied", "{read: incremental, cursor: id, write: append}");
    bench.runs(&[]);
    bench.sql("create unique index on raw.copied (v); insert into src values (3, 'a')");
    let said = bench.folder.trib(&["run"]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert!(said.all().contains("copied_v_idx"), "{}", said.all());
    assert!(!bench.unfinished(), "the load is kept");
    // Mended at the source, which is read again.
    bench.sql("update src set v = 'c' where id = 3");
    bench.runs(&[]);
    assert_eq!(bench.rows("raw.copied"), ["1a", "2b", "3c"]);
}

/// What was staged is removed by somebody else before it is published.
fn staged_rows_are_gone(to: &str, into: &str, is_staged: impl Fn(&str) -> bool) {
    let bench = Bench::new(to, into, "{read: incremental, cursor: id, write: append}");
    bench.runs(&[]);
    let before = bench.folder.files();
    bench.sql("insert into src values (3, 'c')");
    bench.dies();
    assert!(bench.unfinished());
    let staged: Vec<_> =
        bench.folder.files().into_iter().filter(|f| !before.contains(f) && is_staged(&f.to_string_lossy().replace('\\', "/"))).collect();
    assert!(!staged.is_empty(), "nothing is staged");
    staged.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let said = bench.runs(&[]);
    assert!(said.all().contains("could not be published"), "{}", said.all());
    assert_eq!(bench.rows(into), ["1a", "2b", "3c"]);
    assert!(!bench.unfinished());
}

#[test]
fn a_side_file_of_sqlite_is_gone() {
    staged_rows_are_gone("{connector: sqlite, path: out.db}", "copied", |file| file.contains("out.db-trib-"));
}

#[test]
fn a_staged_file_of_the_lake_is_gone() {
    staged_rows_are_gone("{connector: lake, path: lake}", "raw.copied", |file| file.ends_with(".parquet"));
}

#[test]
fn a_staging_table_of_postgres_is_gone() {
    let bench = Bench::new("{connector: postgres, url: \"URL\"}", "raw.copied", "{read: incremental, cursor: id, write: append}");
    bench.runs(&[]);
    bench.sql("insert into src values (3, 'c')");
    bench.dies();
    bench.sql(
        "do $$ declare t record; begin for t in select * from _trib.staged loop
         execute format('drop table %I.%I', t.schema_name, t.table_name); end loop; end $$",
    );
    bench.runs(&[]);
    assert_eq!(bench.rows("raw.copied"), ["1a", "2b", "3c"]);
}

/// The cursor sees no change of an old row; a refresh does, whatever an earlier run has left.
#[test]
fn a_full_refresh_after_a_crash_reads_everything() {
    let bench = Bench::new("{connector: lake, path: lake}", "raw.copied", "{read: incremental, cursor: id, write: upsert}");
    bench.runs(&[]);
    bench.sql("insert into src values (3, 'c')");
    bench.dies();
    bench.sql("update src set v = 'new' where id = 1");
    bench.runs(&["--full-refresh"]);
    assert_eq!(bench.rows("raw.copied"), ["1new", "2b", "3c"]);
}

const INCREMENTAL: &str = "{read: incremental, cursor: id, write: upsert}";

fn destinations() -> [(&'static str, &'static str); 3] {
    [
        ("{connector: postgres, url: \"URL\"}", "raw.copied"),
        ("{connector: sqlite, path: out.db}", "copied"),
        ("{connector: lake, path: lake}", "raw.copied"),
    ]
}

impl Bench {
    /// Refused, and nothing was loaded.
    fn refuses(&self, detail: &str) {
        let said = self.folder.trib(&["run"]);
        assert_eq!(said.status, Some(1), "{}", said.all());
        assert!(said.all().contains(detail) && said.all().contains("--full-refresh"), "{}", said.all());
    }
}

#[test]
fn a_stream_that_is_loaded_into_another_table_begins_again_or_not_at_all() {
    for (to, into) in destinations() {
        let bench = Bench::new(to, into, INCREMENTAL);
        bench.runs(&[]);
        bench.sql("insert into src values (3, 'c')");
        let other = format!("{into}_2");
        bench.folder.write("syncs/go.yaml", &format!("from: shop\nto: out\ninto: {other}\nstreams:\n  public.src: {INCREMENTAL}\n"));
        bench.refuses("before");
        bench.runs(&["--full-refresh"]);
        assert_eq!(bench.rows(&other), ["1a", "2b", "3c"], "{to}");
        bench.sql("insert into src values (4, 'd')");
        bench.runs(&[]);
        assert_eq!(bench.rows(&other).len(), 4, "{to}");
    }
}

#[test]
fn a_table_that_was_dropped_is_not_made_anew_from_an_increment() {
    for (to, into) in &destinations()[..2] {
        let bench = Bench::new(to, into, INCREMENTAL);
        bench.runs(&[]);
        bench.sql("insert into src values (3, 'c')");
        match *into {
            "copied" => rusqlite::Connection::open(bench.folder.path().join("out.db")).unwrap().execute_batch("drop table copied").unwrap(),
            _ => bench.sql("drop table raw.copied"),
        }
        bench.refuses("is gone");
        bench.runs(&["--full-refresh"]);
        assert_eq!(bench.rows(into), ["1a", "2b", "3c"], "{to}");
    }
}

#[test]
fn a_child_table_that_was_dropped_is_not_made_anew_from_an_increment() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: recovery\n"),
        ("connections.yaml", "drop: {connector: files, path: \"drop/*.jsonl\"}\nout: {connector: sqlite, path: out.db}\n"),
        (
            "syncs/go.yaml",
            "from: drop\nto: out\nstreams:\n  \"*\": {into: orders, key: id, read: incremental, write: upsert, nested: table}\n",
        ),
        ("drop/1.jsonl", "{\"id\": 1, \"lines\": [{\"sku\": \"a\"}]}\n"),
    ]);
    let first = folder.trib(&["run"]);
    assert_eq!(first.status, Some(0), "{}", first.all());
    let sqlite = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    sqlite.execute_batch("drop table orders__lines").unwrap();
    folder.write("drop/2.jsonl", "{\"id\": 2, \"lines\": [{\"sku\": \"b\"}]}\n");
    let refused = folder.trib(&["run"]);
    assert_eq!(refused.status, Some(1), "{}", refused.all());
    assert!(refused.all().contains("orders__lines is gone"), "{}", refused.all());
    let again = folder.trib(&["run", "--full-refresh"]);
    assert_eq!(again.status, Some(0), "{}", again.all());
    assert_eq!(sqlite.query_row("select group_concat(sku) from orders__lines", [], |r| r.get::<_, String>(0)).unwrap(), "a,b");
}

#[test]
fn markers_of_an_earlier_version_are_read() {
    for (to, into) in &destinations()[..2] {
        let bench = Bench::new(to, into, INCREMENTAL);
        bench.runs(&[]);
        match *into {
            "copied" => rusqlite::Connection::open(bench.folder.path().join("out.db"))
                .unwrap()
                .execute_batch("alter table _trib_markers drop column filled")
                .unwrap(),
            _ => bench.sql("alter table _trib.markers drop column filled"),
        }
        bench.sql("insert into src values (3, 'c')");
        bench.runs(&[]);
        assert_eq!(bench.rows(into), ["1a", "2b", "3c"], "{to}");
    }
}

#[test]
fn an_empty_source_empties_no_table_after_a_reset() {
    for (to, into) in destinations() {
        let bench = Bench::new(to, into, "{read: full, write: replace}");
        bench.runs(&[]);
        bench.sql("delete from src");
        let reset = bench.folder.trib(&["state", "reset", "go", "--yes"]);
        assert_eq!(reset.status, Some(0), "{}", reset.all());
        let held = bench.folder.trib(&["run"]);
        assert_eq!(held.status, Some(5), "{}", held.all());
        assert_eq!(bench.rows(into), ["1a", "2b"], "{to}");
        bench.runs(&["--allow-empty"]);
        // An empty table has nothing to lose.
        bench.runs(&[]);
        assert!(bench.rows(into).is_empty(), "{to}");
    }
}

/// Tables that become visible one after the other: the children's rows are there when the parents' turn out to be lost.
#[test]
fn a_load_that_is_visible_in_part_and_never_will_be_whole_is_taken_back() {
    let stream = "{into: orders, read: incremental, write: append, nested: table}";
    let folder = Folder::with(&[
        ("tributary.yaml", "name: recovery\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", "drop: {connector: files, path: \"drop/*.jsonl\"}\nout: {connector: lake, path: lake}\n"),
        ("syncs/go.yaml", &format!("from: drop\nto: out\nstreams:\n  \"*\": {stream}\n")),
        ("drop/1.jsonl", "{\"id\": 1, \"lines\": [{\"sku\": \"a\"}]}\n"),
    ]);
    folder.ok(&["run"]);
    let before = folder.files();
    folder.write("drop/2.jsonl", "{\"id\": 2, \"lines\": [{\"sku\": \"b\"}, {\"sku\": \"c\"}]}\n");
    assert!(!folder.command(&["run"]).env("TRIB_FAULT", "recorded").output().unwrap().status.success());
    let name = |file: &std::path::Path| file.to_string_lossy().replace('\\', "/");
    let parents =
        |file: &&std::path::PathBuf| name(file).contains("/orders/") && name(file).ends_with(".parquet") && !before.contains(file);
    let staged: Vec<_> = folder.files().iter().filter(parents).cloned().collect();
    assert_eq!(staged.len(), 1, "{staged:?}");
    std::fs::remove_file(&staged[0]).unwrap();
    for _ in 0..2 {
        folder.ok(&["run"]);
        assert_eq!(folder.query("out", "select id from orders order by id"), "1;2");
        assert_eq!(folder.query("out", "select sku from orders__lines order by sku"), "a;b;c");
    }
}
