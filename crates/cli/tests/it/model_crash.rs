//! Models killed at random moments of a run: what readers see is whole, old or new, and the next run ends as if nothing had happened.
//!
//! Each round gives all rows of the source another version and adds some. One project has a model of each kind, so a kill meets whichever is being
//! made. `TRIB_KILLS` says how often each destination's run is killed (2 where it is not set, 20 and more in `make soak`).

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use trib_testkit::chance::Chance;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const ROWS: u32 = 3_000;

/// Name, front matter, and what must never be seen: a query over `{t}` that gives no row while the table is whole.
const KINDS: [(&str, &str, &str); 6] = [
    ("made", "materialized: table", "select v from (select count(distinct version) as v from {t}) a where v > 1"),
    (
        "keyed",
        "materialized: incremental\nkey: id",
        "select v from (select count(distinct version) as v, count(*) as n, count(distinct id) as ids from {t}) a where v > 1 or n <> ids",
    ),
    ("kept", "materialized: history\nkey: id", "select id from {t} where _trib_valid_to is null group by id having count(*) > 1"),
    (
        "ranged",
        "materialized: incremental\ncursor: day\nbatch_size: month\nlookback: 60d",
        "select substr(cast(day as text), 1, 7) as m from {t} group by 1 having count(distinct version) > 1",
    ),
    ("parted", "materialized: incremental\npartition_by: part", "select part from {t} group by part having count(distinct version) > 1"),
    (
        "added",
        "materialized: incremental\ncursor: id",
        "select n from (select count(*) as n, count(distinct id) as ids, max(id) as last from {t}) a where n <> ids or n <> last",
    ),
];

struct Bench {
    folder: Folder,
    connection: &'static str,
    schema: &'static str,
    kinds: Vec<&'static (&'static str, &'static str, &'static str)>,
    execute: Box<dyn Fn(&str)>,
}

/// `day` gives the day of a row by its id; a database does not append without a key.
fn bench(
    connections: &str,
    defaults: &str,
    source: &str,
    day: &str,
    inside: bool,
) -> (Folder, Vec<&'static (&'static str, &'static str, &'static str)>) {
    let folder =
        Folder::with(&[("tributary.yaml", &format!("name: kills\ndefaults: {{model: {defaults}}}\n")), ("connections.yaml", connections)]);
    let kinds: Vec<_> = KINDS.iter().filter(|k| !inside || k.0 != "added").collect();
    for (name, front, _) in &kinds {
        // A row at the cursor's end that came with another version would be another row.
        let version = if *name == "added" { "0 as version" } else { "version" };
        let part = "case when id % 2 = 0 then 'even' else 'odd' end as part";
        folder.write(
            &format!("models/{name}.sql"),
            &format!("/*---\n{front}\n---*/\nselect id, {version}, {day} as day, {part} from {source}"),
        );
    }
    (folder, kinds)
}

fn sqlite(folder: &Folder) -> Box<dyn Fn(&str)> {
    let file = folder.path().join("source.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch("create table src (id integer primary key, version integer, day date)").unwrap();
    Box::new(move |sql| connection.execute_batch(sql).unwrap())
}

fn lake() -> Bench {
    let (folder, kinds) = bench("source: {connector: sqlite, path: source.db}\n", "{schema: out}", "raw.src", "day", false);
    folder.write("syncs/source.yaml", "from: source\ninto: raw.{table}\nstreams:\n  src: {read: full, write: replace}\n");
    let execute = sqlite(&folder);
    Bench { folder, connection: "warehouse", schema: "out.", kinds, execute }
}

fn inside_sqlite() -> Bench {
    let (folder, kinds) = bench("db: {connector: sqlite, path: source.db}\n", "{connection: db, schema: out}", "src", "day", true);
    let execute = sqlite(&folder);
    Bench { folder, connection: "db", schema: "out__", kinds, execute }
}

fn inside_postgres() -> Bench {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server.sql(&database, "create table src (id int primary key, version int, day date)").unwrap();
    let connections = format!("db: {{connector: postgres, url: \"{}\"}}\n", server.url(&database));
    let (folder, kinds) = bench(&connections, "{connection: db, schema: out}", "public.src", "day", true);
    let execute = move |sql: &str| drop(server.sql(&database, sql).unwrap());
    Bench { folder, connection: "db", schema: "out.", kinds, execute: Box::new(execute) }
}

impl Bench {
    /// A row more for each of two months, and another version of all.
    fn change(&self, round: u32) {
        let values = |from: u32, until: u32| {
            let rows: Vec<String> =
                (from..until).map(|id| format!("({id}, {round}, '2024-{:02}-{:02}')", 1 + id % 2, 1 + id % 28)).collect();
            format!("insert into src values {}", rows.join(", "))
        };
        let first = if round == 0 { 1 } else { ROWS + round };
        (self.execute)(&format!("{}; update src set version = {round}", values(first, ROWS + round + 1)));
    }

    fn query(&self, sql: &str) -> Vec<String> {
        let said = self.folder.trib(&["query", "-c", self.connection, "--format", "csv", sql]);
        assert_eq!(said.status, Some(0), "{sql}\n{}", said.all());
        said.out.lines().skip(1).map(str::to_owned).collect()
    }

    fn check_whole(&self, what: &str) {
        for (name, _, wrong) in &self.kinds {
            let wrong = wrong.replace("{t}", &format!("{}{name}", self.schema));
            let found = self.query(&format!("select count(*) as wrong from ({wrong}) q"));
            assert_eq!(found, ["0"], "{} {name} is half made {what}", self.connection);
        }
    }

    fn check_made(&self, round: u32, what: &str) {
        let rows = ROWS + round;
        for (name, _, _) in &self.kinds {
            let current = if *name == "kept" { "where _trib_valid_to is null" } else { "" };
            let table = format!("{}{name}", self.schema);
            let found = self.query(&format!(
                "select count(*) as n, count(distinct id) as ids, min(version) as v, max(version) as w from {table} {current}"
            ));
            let version = if *name == "added" { 0 } else { round };
            assert_eq!(found, [format!("{rows},{rows},{version},{version}")], "{} {name} {what}", self.connection);
        }
    }

    fn run(&self) {
        let said = self.folder.trib(&["run", "--quiet"]);
        assert_eq!(said.status, Some(0), "{}", said.all());
    }
}

fn killed_at_random(bench: &Bench) {
    let kills: u32 = std::env::var("TRIB_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(2);
    let mut chance = Chance::new(7);
    bench.change(0);
    bench.run();
    bench.change(1);
    let began = Instant::now();
    bench.run();
    let whole = began.elapsed();
    let mut passed: BTreeMap<String, u32> = BTreeMap::new();
    for round in 2..kills + 2 {
        bench.change(round);
        let trace = bench.folder.path().join(format!("trace{round}"));
        let mut command = bench.folder.command(&["run", "--quiet"]);
        let mut child = command.env("TRIB_FAULT_TRACE", &trace).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wait = Duration::from_micros(chance.below(whole.as_micros() as u64));
        std::thread::sleep(wait);
        child.kill().unwrap();
        child.wait().unwrap();
        let last = fs::read_to_string(&trace).unwrap_or_default().lines().last().unwrap_or("start").to_owned();
        *passed.entry(last).or_default() += 1;
        bench.check_whole(&format!("after being killed after {wait:?} of {whole:?}"));
        bench.run();
        bench.check_made(round, &format!("after being killed after {wait:?} of {whole:?}"));
    }
    println!("{}: killed {kills} times, after passing {passed:?}", bench.connection);
}

#[test]
fn killed_at_random_on_the_lake() {
    killed_at_random(&lake());
}

#[test]
fn killed_at_random_inside_postgres() {
    killed_at_random(&inside_postgres());
}

#[test]
fn killed_at_random_inside_sqlite() {
    killed_at_random(&inside_sqlite());
}
