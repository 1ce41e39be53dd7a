//! `trib promote`: tables that one environment has made become those of another, whole and together, and nothing is computed again.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const PROJECT: &str = "environments:\n  dev: {schema_prefix: dev_}\n  prod: {}\n";

const ORDERS: &str = "id,day,amount,paid\n1,2024-05-01,10.50,yes\n2,2024-05-01,4.25,no\n3,2024-05-02,7.00,yes\n";

/// A project whose models are made in one system.
struct Bench {
    folder: Folder,
    connection: &'static str,
    /// Of the models' tables in prod and in dev, as a query there names them.
    prefixes: [&'static str; 2],
    /// With the database in it. It stops when nobody holds it.
    server: Option<(Arc<PostgresServer>, String)>,
}

fn bench(connections: &str, connection: &'static str, prefixes: [&'static str; 2]) -> Bench {
    let project = format!("name: shop\ndefaults: {{model: {{connection: {connection}, schema: out}}}}\n{PROJECT}");
    let folder = Folder::with(&[("tributary.yaml", &project), ("connections.yaml", connections), ("seeds/orders.csv", ORDERS)]);
    let bench = Bench { folder, connection, prefixes, server: None };
    bench.change("v1");
    bench
}

fn lake() -> Bench {
    bench("warehouse: {connector: lake}\n", "warehouse", ["out.", "out."])
}

fn inside_sqlite() -> Bench {
    bench("db: {connector: sqlite, path: shop.db}\n", "db", ["out__", "dev_out__"])
}

fn inside_postgres() -> Bench {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let connections = format!("db: {{connector: postgres, url: \"{}\"}}\n", server.url(&database));
    Bench { server: Some((server, database)), ..bench(&connections, "db", ["out.", "dev_out."]) }
}

impl Bench {
    /// Another definition of `paid`, and so of what is made from it.
    fn change(&self, version: &str) {
        let paid = format!(
            "/*---\nkey: id\ncolumns: {{id: {{tests: [not_null, unique]}}}}\n---*/\n\
             select id, day, cast(amount as decimal(10, 2)) as amount, '{version}' as version, random() as drawn\n\
             from orders where paid = 'yes'"
        );
        self.folder.write("models/paid.sql", &paid);
        let daily = "/*---\nmaterialized: incremental\nkey: day\ncursor: day\ntests: [row_count: {min: 1}]\n---*/\n\
                     select day, max(version) as version, count(*) as orders from paid group by day";
        self.folder.write("models/daily.sql", daily);
        self.folder.write("models/other.sql", "select count(*) as all_orders from orders");
    }

    fn rows(&self, environment: usize, what: &str, table: &str) -> String {
        let sql = format!("select {what} from {}{table} order by 1", self.prefixes[environment]);
        let env = ["prod", "dev"][environment];
        let said = self.folder.ok(&["query", "-c", self.connection, "--env", env, "--format", "csv", &sql]);
        said.out.lines().skip(1).collect::<Vec<_>>().join(";")
    }

    /// The versions that readers see, of both tables.
    fn versions(&self) -> String {
        ["paid", "daily"].map(|table| self.rows(0, "distinct version", table)).join(" ")
    }

    fn promote(&self, more: &[&str]) -> Value {
        let args = [&["promote", "--from", "dev", "--to", "prod", "--json"], more].concat();
        serde_json::from_str(&self.folder.ok(&args).out).unwrap()
    }

    /// v1 in prod, v2 in dev.
    fn changed(self) -> Self {
        self.folder.ok(&["run", "--env", "prod", "--quiet"]);
        self.change("v2");
        self.folder.ok(&["run", "--env", "dev", "--quiet"]);
        assert_eq!(self.versions(), "v1 v1");
        self
    }
}

fn names(found: &Value) -> Vec<&str> {
    found.as_array().unwrap().iter().map(|p| p["name"].as_str().or(p.as_str()).unwrap()).collect()
}

fn promoted_as_it_is(bench: Bench) {
    let bench = bench.changed();
    let planned = bench.promote(&["--dry-run"]);
    assert_eq!(names(&planned["promoted"]), ["paid", "daily"], "{planned}");
    assert_eq!(names(&planned["same"]), ["orders", "other"]);
    assert_eq!(bench.versions(), "v1 v1");

    let promoted = bench.promote(&[]);
    assert_eq!(names(&promoted["promoted"]), ["paid", "daily"], "{promoted}");
    assert_eq!((&promoted["promoted"][0]["rows"], bench.versions().as_str()), (&2.into(), "v2 v2"));
    // What was drawn at random is what was drawn in dev.
    let columns = "id, day, amount, version, drawn";
    assert_eq!(bench.rows(0, columns, "paid"), bench.rows(1, columns, "paid"));
    // Dev has its own still.
    assert_eq!(bench.rows(1, "count(*)", "daily"), "2");

    // The environment knows what it has: no change to be made, and the state of what is incremental.
    let state = |env: &str| bench.folder.ok(&["state", "get", "daily", "--env", env]).out;
    assert_eq!(state("prod"), state("dev"));
    let plan: Value = serde_json::from_str(&bench.folder.ok(&["plan", "--env", "prod", "--json"]).out).unwrap();
    assert!(plan.as_array().unwrap().iter().all(|node| node["change"].is_null()), "{plan}");
    let again = bench.promote(&[]);
    assert_eq!((names(&again["promoted"]).len(), names(&again["same"]).len()), (0, 4), "{again}");
    let runs = bench.folder.ok(&["runs", "--env", "prod"]).out;
    assert!(runs.contains("trib promote --from dev --to prod"), "{runs}");

    // And goes on from there by itself.
    bench.folder.write("seeds/orders.csv", &format!("{ORDERS}4,2024-05-03,1.00,yes\n"));
    let run = bench.folder.ok(&["run", "--env", "prod"]);
    assert_eq!(bench.rows(0, "count(*)", "daily"), "3", "{}", run.all());
    assert_eq!(bench.versions(), "v2 v2");
}

#[test]
fn a_change_is_promoted_as_it_is_on_the_lake() {
    promoted_as_it_is(lake());
}

#[test]
fn a_change_is_promoted_as_it_is_inside_sqlite() {
    promoted_as_it_is(inside_sqlite());
}

#[test]
fn a_change_is_promoted_as_it_is_inside_postgres() {
    promoted_as_it_is(inside_postgres());
}

/// Killed at each point, with so many tables visible; then `trib promote`, or `trib run`, ends it.
fn killed(bench: Bench, points: &[(&str, usize)]) {
    let bench = bench.changed();
    for (round, (point, visible)) in points.iter().enumerate() {
        let (before, after) = (format!("v{}", round + 1), format!("v{}", round + 2));
        if round > 0 {
            bench.change(&after);
            // Of an incremental model that has changed, rows of before would stay.
            bench.folder.ok(&["run", "--env", "dev", "--quiet", "--full-refresh"]);
        }
        let mut command = bench.folder.command(&["promote", "--from", "dev", "--to", "prod"]);
        let died = command.env("TRIB_FAULT", point).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}");
        let expected = [0, 1].map(|table| if table < *visible { after.as_str() } else { &before });
        assert_eq!(bench.versions(), expected.join(" "), "killed at {point}");
        if round % 2 == 0 {
            bench.promote(&[]);
        } else {
            bench.folder.ok(&["run", "--env", "prod", "--quiet"]);
        }
        let versions = bench.versions();
        assert!(versions.starts_with(&after), "{versions} after {point}");
        // What was begun is ended; otherwise what an incremental model has of before stays until it is promoted, or made anew.
        assert!(*visible == 0 || versions.ends_with(&after), "{versions} after {point}");
        bench.folder.ok(&["run", "--env", "dev", "--quiet"]);
        bench.promote(&[]);
        assert_eq!(bench.versions(), format!("{after} {after}"), "repaired after {point}");
    }
    let staged = |file: &PathBuf| ["-trib-", "/_trib/stage/"].iter().any(|part| file.to_string_lossy().contains(part));
    let left: Vec<PathBuf> = bench.folder.files().into_iter().filter(staged).collect();
    assert!(left.is_empty(), "{left:?}");
    if let Some((server, database)) = &bench.server {
        assert_eq!(server.sql(database, "select count(*) from _trib.staged").unwrap().trim(), "0");
    }
}

const AT_ONCE: [(&str, usize); 5] = [("leased", 0), ("staged", 0), ("recorded", 0), ("committed", 2), ("moved", 2)];

#[test]
fn killed_on_the_lake() {
    // Two commits, one after the other: whichever call comes after a death between them ends what was begun.
    let points = [("leased", 0), ("staged", 0), ("recorded", 0), ("committed", 1), ("committed", 1), ("moved", 1), ("committed:2", 2)];
    killed(lake(), &points);
}

#[test]
fn killed_inside_sqlite() {
    killed(inside_sqlite(), &AT_ONCE);
}

#[test]
fn killed_inside_postgres() {
    killed(inside_postgres(), &AT_ONCE);
}

/// Where rows keep the load that has made them, whoever asks hears of it, and everywhere of the promotion.
#[test]
fn why_a_promoted_row_is_there() {
    let (made, promoted) = (["dev", "trib run"], ["prod", "trib promote --from dev --to prod"]);
    for (bench, expected) in [(lake(), vec![made, promoted]), (inside_sqlite(), vec![promoted])] {
        let bench = bench.changed();
        bench.promote(&[]);
        bench.folder.write("seeds/orders.csv", &format!("{ORDERS}4,2024-05-03,1.00,yes\n"));
        bench.folder.ok(&["run", "--env", "prod", "--quiet"]);
        let loads = |day: &str| {
            let why: Value = serde_json::from_str(&bench.folder.ok(&["why", "daily", day, "--env", "prod", "--json"]).out).unwrap();
            let of = |load: &Value| [&load["environment"], &load["command"]].map(|word| word.as_str().unwrap().to_owned());
            why["row"]["loads"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(loads("2024-05-01"), expected);
        assert_eq!(loads("2024-05-03"), [["prod", "trib run"]], "the environment has added it itself");
        let said = bench.folder.ok(&["why", "daily", "2024-05-01", "--env", "prod"]).out;
        assert_eq!(
            (said.contains(" of daily in dev, "), said.contains("(trib promote --from dev --to prod)")),
            (expected.len() == 2, true),
            "{said}"
        );
    }
}

/// More tables than SQLite can have files attached at once.
#[test]
fn many_tables_inside_sqlite() {
    let bench = inside_sqlite();
    for n in 0..12 {
        bench.folder.write(&format!("models/m{n}.sql"), &format!("select id, {n} as n from orders"));
    }
    bench.folder.ok(&["run", "--env", "dev", "--quiet"]);
    let promoted = bench.promote(&[]);
    assert_eq!(names(&promoted["promoted"]).len(), 16, "{promoted}");
    assert_eq!((bench.rows(0, "count(*), sum(n)", "m11"), bench.versions().as_str()), ("3,33".to_owned(), "v1 v1"));
}

/// A view of a database is made again over the tables of its environment.
#[test]
fn a_view_inside_postgres() {
    let bench = inside_postgres();
    bench.folder.write("models/big.sql", "/*---\nmaterialized: view\n---*/\nselect id, version from paid where amount > 8");
    let bench = bench.changed();
    bench.folder.write("models/big.sql", "/*---\nmaterialized: view\n---*/\nselect id, version, 'new' as which from paid where amount > 8");
    bench.folder.ok(&["run", "--env", "dev", "--quiet", "big"]);
    let promoted = bench.promote(&[]);
    assert_eq!((names(&promoted["promoted"]), names(&promoted["views"])), (vec!["paid", "daily"], vec!["big"]), "{promoted}");
    assert_eq!(bench.rows(0, "id, version, which", "big"), "1,v2,new");
    assert_eq!(names(&bench.promote(&[])["same"]).len(), 5);
}

/// What a promotion refuses: what was done before, the call, the exit status, and what is said.
#[test]
fn refusals() {
    let bench = lake().changed();
    let refused = |more: &[&str], status: i32, words: &[&str]| {
        let said = bench.folder.trib(&[&["promote", "--from", "dev", "--to", "prod"], more].concat());
        assert_eq!(said.status, Some(status), "{}", said.all());
        words.iter().for_each(|word| assert!(said.err.contains(word), "{word}: {}", said.all()));
        assert_eq!(bench.versions(), "v1 v1");
    };
    // Its parent is made from another definition there.
    refused(&["daily"], 2, &["daily", "paid", "trib promote +daily"]);
    // The files have changed since dev was made.
    bench.change("v3");
    refused(&[], 2, &["the table is not made from what the project's files say now", "dev_out.paid", "trib run --env dev +paid"]);
    // A model that was made again while what it reads was not is made from nothing that stands in the files.
    bench.folder.ok(&["run", "--env", "dev", "--quiet", "daily"]);
    refused(&["+daily"], 2, &["dev_out.daily"]);
    // Prod was made again in the meantime.
    bench.change("v2");
    bench.folder.ok(&["run", "--env", "dev", "--quiet", "--full-refresh"]);
    bench.change("v1");
    bench.folder.ok(&["run", "--env", "prod", "--quiet"]);
    bench.change("v2");
    refused(&[], 5, &["older rows would take the place of newer ones", "--allow-other-data"]);
    // A test fails.
    bench.folder.write("seeds/orders.csv", &format!("{ORDERS}3,2024-05-03,1.00,yes\n"));
    assert_eq!(bench.folder.trib(&["run", "--env", "dev", "--quiet"]).status, Some(4));
    let said = bench.folder.trib(&["promote", "paid", "--from", "dev", "--to", "prod"]);
    assert_ne!(said.status, Some(0));
    assert_eq!(bench.versions(), "v1 v1");
    // The call.
    let said = bench.folder.trib(&["promote", "--from", "prod", "--to", "prod"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    let said = bench.folder.trib(&["promote", "--to", "nowhere"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    // All the same, when somebody says so.
    bench.folder.write("seeds/orders.csv", ORDERS);
    bench.folder.ok(&["run", "--env", "dev", "--quiet", "--full-refresh"]);
    bench.folder.ok(&["promote", "--to", "prod", "--allow-other-data"]);
    assert_eq!(bench.versions(), "v2 v2");
}

/// Tests that were not asked since the table was made, a source that is another system in prod, and an environment that asks first.
#[test]
fn other_data_and_tests_and_protection() {
    let project =
        "name: shop\nenvironments:\n  dev: {schema_prefix: dev_}\n  prod: {protected: true, connections: {app: {path: prod.db}}}\n";
    let folder = Folder::with(&[
        ("tributary.yaml", project),
        ("connections.yaml", "app: {connector: sqlite, path: dev.db}\n"),
        ("syncs/app.yaml", "from: app\ninto: raw.{table}\nstreams: [users]\n"),
        (
            "models/users_by_country.sql",
            "/*---\ntests: [row_count: {min: 1}]\n---*/\nselect country, count(*) as users from raw.users group by country",
        ),
    ]);
    for file in ["dev.db", "prod.db"] {
        let connection = rusqlite::Connection::open(folder.path().join(file)).unwrap();
        connection.execute_batch("create table users (id integer primary key, country text); insert into users values (1, 'DE')").unwrap();
    }
    folder.ok(&["run", "--quiet"]);
    let call = ["promote", "--from", "dev", "--to", "prod"];
    let said = folder.trib(&call);
    assert_eq!(said.status, Some(5), "{}", said.all());
    assert!(said.err.contains("app loads from app, which is another system in prod"), "{}", said.all());
    let allowed = [&call[..], &["--allow-other-data"]].concat();
    let said = folder.trib(&allowed);
    assert_eq!(said.status, Some(5), "{}", said.all());
    assert!(said.err.contains("protected") && said.err.contains("--yes"), "{}", said.all());
    // Another test, which nobody has asked yet.
    let model = "/*---\ntests: [row_count: {min: 1}, {sql: 'select * from users_by_country where users < 0'}]\n---*/\n\
                 select country, count(*) as users from raw.users group by country";
    folder.write("models/users_by_country.sql", model);
    folder.ok(&["run", "--quiet"]);
    let control = rusqlite::Connection::open(folder.path().join(".tributary/control.db")).unwrap();
    control.execute("delete from trib_tests where test = 'sql'", []).unwrap();
    drop(control);
    let said = folder.trib(&[&allowed[..], &["--yes"]].concat());
    assert_eq!(said.status, Some(4), "{}", said.all());
    assert!(said.err.contains("trib test --env dev users_by_country"), "{}", said.all());
    folder.ok(&["test", "--data", "--env", "dev"]);
    folder.ok(&[&allowed[..], &["--yes"]].concat());
    let said = folder.ok(&["query", "--env", "prod", "--format", "csv", "select country, users from analytics.users_by_country"]);
    assert!(said.out.ends_with("DE,1\n"), "{}", said.all());
}
