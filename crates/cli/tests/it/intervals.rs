//! Incremental models by time range and by partition: what a run computes, and what it leaves alone, on the lake and inside databases.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

/// A project whose events lie in a database or are loaded from one, and who changes them.
struct Bench {
    folder: Folder,
    connection: &'static str,
    /// The models' schema, with what comes between it and the table's name.
    schema: &'static str,
    execute: Box<dyn Fn(&str)>,
}

const EVENTS: &str = "(1, '2024-02-28 10:00:00', 'de', 1), (2, '2024-02-29 11:00:00', 'de', 2), (3, '2024-02-29 23:59:59', 'fr', 3), \
                      (4, '2024-03-01 00:00:00', 'us', 4)";

fn models(events: &str, day: &str) -> [(&'static str, String); 2] {
    [
        (
            "models/daily.sql",
            format!(
                "/*---\nmaterialized: incremental\ncursor: day\nbatch_size: day\ncolumns: {{total: {{tests: [{{range: {{min: 0}}}}]}}}}\n---*/
                 select {day} as day, count(*) as events, sum(amount) as total from {events} group by 1"
            ),
        ),
        (
            "models/last.sql",
            format!(
                "/*---\nmaterialized: incremental\npartition_by: country\n---*/
                 select country, id, amount from {events} where id > (select max(id) - 2 from {events})"
            ),
        ),
    ]
}

fn project(connections: &str, defaults: &str, models: &[(&'static str, String)]) -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", &format!("name: intervals\ndefaults: {{model: {defaults}}}\n")),
        ("connections.yaml", connections),
    ]);
    for (name, text) in models {
        folder.write(name, text);
    }
    folder
}

fn sqlite(file: &Path, kind: &str) -> Box<dyn Fn(&str)> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let table = format!(
        "create table events (id integer primary key, at {kind}, country text, amount integer); insert into events values {EVENTS};"
    );
    connection.execute_batch(&table).unwrap();
    Box::new(move |sql| connection.execute_batch(sql).unwrap())
}

fn lake() -> Bench {
    let folder = project(
        "shop: {connector: sqlite, path: shop.db}\n",
        "{schema: marts}",
        &models("shop.events", "cast(date_trunc('day', at) as date)"),
    );
    folder.write("syncs/shop.yaml", "from: shop\ninto: shop.{table}\nstreams:\n  events: {read: full, write: replace}\n");
    let execute = sqlite(&folder.path().join("shop.db"), "timestamp");
    Bench { folder, connection: "warehouse", schema: "marts.", execute }
}

fn inside_sqlite() -> Bench {
    let folder = project("db: {connector: sqlite, path: shop.db}\n", "{connection: db, schema: marts}", &models("events", "date(at)"));
    let execute = sqlite(&folder.path().join("shop.db"), "timestamp");
    Bench { folder, connection: "db", schema: "marts__", execute }
}

fn inside_postgres() -> Bench {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let table =
        format!("create table events (id int primary key, at timestamptz, country text, amount int); insert into events values {EVENTS};");
    server.sql(&database, &format!("set timezone = 'UTC'; {table}")).unwrap();
    let connections = format!("db: {{connector: postgres, url: \"{}\"}}\n", server.url(&database));
    let folder = project(&connections, "{connection: db, schema: marts}", &models("public.events", "date_trunc('day', at)::date"));
    let execute = move |sql: &str| drop(server.sql(&database, &format!("set timezone = 'UTC'; {sql}")).unwrap());
    Bench { folder, connection: "db", schema: "marts.", execute: Box::new(execute) }
}

impl Bench {
    fn run(&self, args: &[&str], status: i32) -> String {
        let said = self.folder.trib(args);
        assert_eq!(said.status, Some(status), "{args:?}\n{}", said.all());
        said.all()
    }

    fn rows(&self, sql: &str) -> String {
        let sql = sql.replace("marts.", self.schema);
        let said = self.folder.trib(&["query", "-c", self.connection, "--format", "csv", &sql]);
        assert_eq!(said.status, Some(0), "{sql}\n{}", said.all());
        said.out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ")
    }

    fn daily(&self) -> String {
        self.rows("select cast(day as text) || ':' || cast(events as text) as d from marts.daily order by 1")
    }

    fn last(&self) -> String {
        self.rows("select country || cast(id as text) as d from marts.last order by 1")
    }

    /// Which load each day is of.
    fn loads(&self) -> Vec<String> {
        self.rows("select _trib_load_id from marts.daily order by day").split(' ').map(str::to_owned).collect()
    }
}

fn only_what_is_due(bench: &Bench) {
    bench.run(&["run"], 0);
    assert_eq!(bench.daily(), "2024-02-28:1 2024-02-29:2 2024-03-01:1");
    assert_eq!(bench.last(), "fr3 us4");
    let first = bench.loads();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "each interval is a load of its own: {first:?}");

    // A row comes late, one for the last day, and one two days on: only the last day and what follows are computed.
    (bench.execute)(
        "insert into events values (5, '2024-02-28 12:00:00', 'de', 5), (6, '2024-03-01 12:00:00', 'us', 6), (7, '2024-03-03 12:00:00', 'us', 7)",
    );
    bench.run(&["run"], 0);
    assert_eq!(bench.daily(), "2024-02-28:1 2024-02-29:2 2024-03-01:2 2024-03-03:1");
    assert_eq!(bench.loads()[..2], first[..2]);
    // The partitions that the query gives are replaced: us is; fr stays.
    assert_eq!(bench.last(), "fr3 us6 us7");

    // A range again, and nothing but that.
    let before = bench.loads();
    bench.run(&["backfill", "daily", "--since", "2024-02-28", "--until", "2024-02-29"], 0);
    assert_eq!(bench.daily(), "2024-02-28:2 2024-02-29:2 2024-03-01:2 2024-03-03:1");
    assert_eq!(bench.loads()[1..], before[1..]);

    // With a lookback the late row is seen; what was deleted in an interval goes with it.
    let text = std::fs::read_to_string(bench.folder.path().join("models/daily.sql")).unwrap();
    bench.folder.write("models/daily.sql", &text.replace("batch_size: day", "batch_size: day\nlookback: 3d"));
    (bench.execute)("insert into events values (8, '2024-02-29 12:00:00', 'de', 8); delete from events where id = 4");
    bench.run(&["run"], 0);
    assert_eq!(bench.daily(), "2024-02-28:2 2024-02-29:3 2024-03-01:1 2024-03-03:1");
    let state = bench.run(&["state", "get", "daily"], 0);
    assert!(state.contains("2024-02-28T00:00:00") && state.contains("2024-03-04T00:00:00"), "{state}");

    (bench.execute)("delete from events where id in (1, 5)");
    bench.run(&["run", "--full-refresh"], 0);
    assert_eq!(bench.daily(), "2024-02-29:3 2024-03-01:1 2024-03-03:1");
}

/// What was published before the bad interval stays, the bad one is not seen, and the next run goes on with it.
fn an_audit_blocks_an_interval(bench: &Bench) {
    (bench.execute)(
        "insert into events values (9, '2024-03-04 12:00:00', 'us', 1), (10, '2024-03-05 12:00:00', 'us', -1), (11, '2024-03-06 12:00:00', 'us', 1)",
    );
    let said = bench.run(&["run", "+daily"], 4);
    assert!(said.contains("range(total"), "{said}");
    assert_eq!(bench.daily(), "2024-02-29:3 2024-03-01:1 2024-03-03:1 2024-03-04:1");
    (bench.execute)("update events set amount = 1 where id = 10");
    bench.run(&["run", "+daily"], 0);
    assert_eq!(bench.daily(), "2024-02-29:3 2024-03-01:1 2024-03-03:1 2024-03-04:1 2024-03-05:1 2024-03-06:1");
}

#[test]
fn on_the_lake() {
    let bench = lake();
    only_what_is_due(&bench);
    an_audit_blocks_an_interval(&bench);
    let said = bench.run(&["backfill", "last", "--since", "2024-01-01"], 2);
    assert!(said.contains("only a model with a cursor has ranges"), "{said}");
}

#[test]
fn inside_a_postgres() {
    let bench = inside_postgres();
    only_what_is_due(&bench);
    an_audit_blocks_an_interval(&bench);
}

#[test]
fn inside_a_sqlite() {
    only_what_is_due(&inside_sqlite());
}

/// The files of a lake table, by name.
fn data_files(folder: &Path) -> BTreeSet<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "parquet")).collect()
}

/// Cost follows the increment: of twenty days that are there, a run for one more opens and writes none again but the last.
#[test]
fn files_of_other_intervals_are_neither_read_nor_written() {
    let bench = lake();
    bench
        .folder
        .write("syncs/shop.yaml", "from: shop\ninto: shop.{table}\nstreams:\n  events: {read: incremental, cursor: id, write: append}\n");
    std::fs::remove_file(bench.folder.path().join("models/last.sql")).unwrap();
    (bench.execute)("delete from events");
    for day in 1..=20 {
        (bench.execute)(&format!("insert into events values ({day}, '2024-01-{day:02} 12:00:00', 'de', 1)"));
        bench.run(&["run"], 0);
    }
    let (source, table) =
        (bench.folder.path().join(".tributary/warehouse/shop/events"), bench.folder.path().join(".tributary/warehouse/marts/daily"));
    let (source_files, before) = (data_files(&source), data_files(&table));
    assert_eq!(source_files.len(), 20);
    (bench.execute)("insert into events values (21, '2024-01-21 12:00:00', 'de', 1)");
    bench.run(&["run", "shop"], 0);
    // Whoever opened a file of an old day now would fail.
    let (old_events, old_days) = (oldest(&source_files, &source, 18), oldest(&before, &table, before.len() - 1));
    for file in old_events.iter().chain(&old_days) {
        std::fs::write(file, "not Parquet").unwrap();
    }
    bench.run(&["run", "daily"], 0);
    let added: Vec<PathBuf> = data_files(&table).difference(&before).cloned().collect();
    assert_eq!(added.len(), 2, "the last day again, and the new one: {added:?}");
}

/// The files that a table's log has added first.
fn oldest(files: &BTreeSet<PathBuf>, table: &Path, number: usize) -> Vec<PathBuf> {
    let log = table.join("_delta_log");
    let mut named = Vec::new();
    for version in 0.. {
        let Ok(text) = std::fs::read_to_string(log.join(format!("{version:020}.json"))) else { break };
        for line in text.lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                let path = table.join(path);
                if files.contains(&path) && !named.contains(&path) {
                    named.push(path);
                }
            }
        }
    }
    named.truncate(number);
    named
}
