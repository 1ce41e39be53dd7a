//! A side that fails in the middle of a load: the error says what and whose fault it is, nothing is visible, and the next run heals.

// A test that cannot try something here says so.
#![allow(clippy::print_stderr)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use trib_core::{Connector, Context, TableName};
use trib_testkit::conformance;
use trib_testkit::fault::Proxy;
use trib_testkit::postgres_server::PostgresServer;
use trib_testkit::tiny_disk::TinyDisk;

use crate::trib::{Folder, Said, said};

/// Eight megabytes on the wire, and about as many in any file: the text does not compress.
const TABLE: &str = "create table t (id int primary key, pad text);
    insert into t select g, md5(g || 'a') || md5(g || 'b') || md5(g || 'c') || md5(g || 'd') from generate_series(1, 60000) g";

/// A table in PostgreSQL, and a project that copies it.
struct Bench {
    server: Arc<PostgresServer>,
    database: String,
    folder: Folder,
    to: (Connector, Value),
}

impl Bench {
    fn new(to: (Connector, Value)) -> Self {
        Self::reading("t", to, |url| url)
    }

    /// `reach` is the way to the source's server.
    fn reading(table: &str, to: (Connector, Value), reach: impl Fn(String) -> String) -> Self {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        server.sql(&database, TABLE).unwrap();
        let mut settings = to.1.clone();
        settings["connector"] = json!(to.0.name);
        let folder = Folder::with(&[
            ("tributary.yaml", "name: faults\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
            ("connections.yaml", &format!("shop: {{connector: postgres, url: \"{}\"}}\nout: {settings}\n", reach(server.url(&database)))),
            ("syncs/go.yaml", &format!("from: shop\nto: out\ninto: copied\nstreams: {{public.{table}: {{read: full, write: replace}}}}\n")),
        ]);
        Self { server, database, folder, to }
    }

    /// The error of a run that failed, with all that a person needs.
    fn failed(&self, said: &Said, code: &str, blame: &str) {
        assert_eq!(said.status, Some(1), "{}", said.all());
        let summary: Value = serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap();
        let error = &summary["streams"][0]["error"];
        assert_eq!((error["code"].as_str(), error["blame"].as_str()), (Some(code), Some(blame)), "{}: {error}", self.to.0.name);
        assert!(error["hint"].is_string(), "{error}");
        assert!(error["place"]["stream"].as_str().is_some_and(|s| s.starts_with("public.")), "{error}");
        assert!(!said.all().contains(self.server.password()), "{}", said.all());
    }

    fn fails(&self, code: &str, blame: &str) {
        self.failed(&self.folder.trib(&["run", "--json"]), code, blame);
    }

    fn runs(&self) {
        let said = self.folder.trib(&["run"]);
        assert_eq!(said.status, Some(0), "{}", said.all());
    }

    /// A run that goes on while the test does something to it.
    fn begins(&self) -> Child {
        self.folder.command(&["run", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Rows that a reader of the destination sees.
    async fn visible(&self) -> usize {
        let context = Context { connection: "out".into(), project_dir: self.folder.path().into(), threads: 1 };
        let source = self.to.0.make_source(&self.to.1, &context).unwrap();
        conformance::read_by(source, TableName::new(None, "copied")).await.iter().map(|b| b.num_rows()).sum()
    }
}

/// Destinations that are files in a folder.
fn in_folder(folder: &str) -> [(Connector, Value); 3] {
    [
        (trib_lake::connectors().remove(0), json!({ "path": format!("{folder}/lake") })),
        (trib_connectors::sqlite::connector(), json!({ "path": format!("{folder}/out.db") })),
        (trib_connectors::files::connector(), json!({ "path": format!("{folder}/out"), "format": "jsonl" })),
    ]
}

/// A database of its own for the destination; its tables stand on the disk when there is one.
fn postgres(disk: Option<&TinyDisk>) -> (Arc<PostgresServer>, String, (Connector, Value)) {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    if let Some(disk) = disk {
        let folder = disk.path().join("space");
        std::fs::create_dir(&folder).unwrap();
        assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
        server.sql(&database, &format!("create tablespace {database} location '{}'", folder.display())).unwrap();
        server.sql(&database, &format!("alter database {database} set default_tablespace = {database}")).unwrap();
    }
    let to = (trib_connectors::postgres::connector(), json!({"url": server.url(&database)}));
    (server, database, to)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_cut_in_mid_read() {
    let server = PostgresServer::shared().unwrap();
    let (_, _, postgres) = postgres(None);
    for to in in_folder(".").into_iter().chain([postgres]) {
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.unwrap();
        let there = |url: String| url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.address().port()));
        let bench = Bench::reading("t", to, there);
        // Before anything was loaded, and when there is something to be kept.
        for before in [0, 60_000] {
            proxy.cut_after(3_000_000);
            bench.fails("connection_lost", "external");
            assert!(proxy.cuts() > 0, "the fault was not hit");
            assert_eq!(bench.visible().await, before, "{}", bench.to.0.name);
            proxy.heal();
            bench.runs();
            assert_eq!(bench.visible().await, 60_000, "{}", bench.to.0.name);
        }
    }
}

/// Where there is soon no room.
enum Room {
    Disk(TinyDisk),
    /// Only root may mount a disk. For others it is files that may not grow.
    Files(TempDir),
}

impl Room {
    fn new() -> Self {
        match TinyDisk::mount(3).unwrap() {
            Some(disk) => Self::Disk(disk),
            None => {
                eprintln!("no disk can be mounted here: files that may not grow stand in for it");
                Self::Files(TempDir::new().unwrap())
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Disk(disk) => disk.path(),
            Self::Files(folder) => folder.path(),
        }
    }

    /// The command where there is no room.
    fn confines(&self, command: &Command) -> Command {
        let mut confined = Command::new("sh");
        let limit = match self {
            Self::Disk(_) => "",
            // In blocks of 512 bytes. Without the trap the process would be killed.
            Self::Files(_) => "trap '' XFSZ; ulimit -f 6000; ",
        };
        confined.args(["-c", &format!("{limit}exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
        confined.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => confined.env(name, value),
                None => confined.env_remove(name),
            };
        }
        confined
    }

    fn grows(&self) {
        if let Self::Disk(disk) = self {
            disk.grow(64).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destinations_disk_is_full() {
    for i in 0..3 {
        let room = Room::new();
        let bench = Bench::new(in_folder(room.path().to_str().unwrap())[i].clone());
        let confined = room.confines(&bench.folder.command(&["run", "--json"])).output().unwrap();
        // SQLite tells a file that may not grow from no other failed write.
        let code = if matches!(room, Room::Files(_)) && i == 1 { "io" } else { "resource_exhausted" };
        bench.failed(&said(confined), code, "external");
        assert_eq!(bench.visible().await, 0, "{}", bench.to.0.name);
        room.grows();
        bench.runs();
        assert_eq!(bench.visible().await, 60_000, "{}", bench.to.0.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_disk_is_full() {
    let Some(disk) = TinyDisk::mount(3).unwrap() else {
        eprintln!("not tried: no disk can be mounted here");
        return;
    };
    let (server, database, to) = postgres(Some(&disk));
    let bench = Bench::new(to);
    bench.fails("resource_exhausted", "external");
    assert_eq!(bench.visible().await, 0);
    disk.grow(64).unwrap();
    bench.runs();
    assert_eq!(bench.visible().await, 60_000);
    // The disk goes before the server does.
    server.sql("postgres", &format!("drop database {database} with (force)")).unwrap();
    server.sql("postgres", &format!("drop tablespace {database}")).unwrap();
}

fn until(what: impl Fn() -> bool) {
    for _ in 0..6000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it does not come to that");
}

/// Somebody at work in a database, until killed.
struct Somebody(Child);

impl Somebody {
    fn does(url: &str, sql: &str) -> Self {
        Self(Command::new("psql").args([url, "-qc", sql]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sessions of one database that do something.
struct Sessions<'a> {
    server: &'a PostgresServer,
    database: &'a str,
}

impl Sessions<'_> {
    fn there_are(&self, what: &str) -> bool {
        let sql = format!("select count(*) from pg_stat_activity where datname = '{}' and {what}", self.database);
        self.server.sql("postgres", &sql).unwrap() != "0"
    }

    fn killed(&self, what: &str) {
        let sql = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{}' and {what}", self.database);
        assert_ne!(self.server.sql("postgres", &sql).unwrap(), "0", "the fault was not hit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destinations_transaction_is_killed_while_rows_are_staged() {
    let (server, database, to) = postgres(None);
    let bench = Bench::reading("v", to, |url| url);
    // Reading goes on at the middle only when the gate is open.
    let view =
        "create view v as select id, case when id = 30000 then pg_advisory_xact_lock_shared(42)::text || pad else pad end as pad from t";
    bench.server.sql(&bench.database, view).unwrap();
    let source = Sessions { server: &bench.server, database: &bench.database };
    let gate = Somebody::does(&bench.server.url(&bench.database), "select pg_advisory_lock(42), pg_sleep(600)");
    until(|| source.there_are("wait_event = 'PgSleep'"));
    let run = bench.begins();
    let staging = Sessions { server: &server, database: &database };
    until(|| source.there_are("wait_event = 'advisory'") && staging.there_are("query ilike 'copy%' and state = 'active'"));
    staging.killed("query ilike 'copy%' and state = 'active'");
    source.killed("wait_event = 'PgSleep'");
    drop(gate);
    bench.failed(&said(run.wait_with_output().unwrap()), "connection_lost", "external");
    assert_eq!(bench.visible().await, 0);
    bench.runs();
    assert_eq!(bench.visible().await, 60_000);
    assert_eq!(
        server.sql(&database, "select count(*) from pg_class where relname like '\\_trib\\_s\\_%'").unwrap(),
        "0",
        "nothing is left over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destinations_transaction_is_killed_while_it_commits() {
    let (server, database, to) = postgres(None);
    let bench = Bench::new(to);
    bench.runs();
    bench.server.sql(&bench.database, "delete from t where id > 100").unwrap();
    let sessions = Sessions { server: &server, database: &database };
    let reader = Somebody::does(&server.url(&database), "begin; lock table copied in access share mode; select pg_sleep(600)");
    until(|| sessions.there_are("wait_event = 'PgSleep'"));
    let run = bench.begins();
    until(|| sessions.there_are("wait_event_type = 'Lock'"));
    sessions.killed("wait_event_type = 'Lock'");
    bench.failed(&said(run.wait_with_output().unwrap()), "connection_lost", "external");
    assert_eq!(bench.visible().await, 60_000, "what was there stays");
    sessions.killed("wait_event = 'PgSleep'");
    drop(reader);
    bench.runs();
    assert_eq!(bench.visible().await, 100);
}

/// What fails is named, and not what it leads to: the load is stopped when its rejected rows cannot be kept.
#[test]
fn the_control_database_fails_in_mid_load() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: faults\n"),
        ("connections.yaml", "drop: {connector: files, path: data}\n"),
        ("syncs/go.yaml", "from: drop\ninto: raw.{table}\n"),
        ("data/ragged.csv", "id,name\n1,a\n"),
    ]);
    let run = || folder.trib(&["run", "--json"]);
    assert_eq!(run().status, Some(0));
    folder.write("data/ragged.csv", &format!("id,name\n{}{}", "1\n".repeat(8000), "2,b\n".repeat(100_000)));
    let control = rusqlite::Connection::open(folder.path().join(".tributary/control.db")).unwrap();
    control.execute_batch("alter table trib_rejected rename to gone").unwrap();
    let failed = run();
    assert_eq!(failed.status, Some(1), "{}", failed.all());
    let summary: Value = serde_json::from_str(failed.out.trim_end().lines().last().unwrap()).unwrap();
    assert_eq!(summary["streams"][0]["error"]["code"], "system_error", "{}", failed.all());
    control.execute_batch("alter table gone rename to trib_rejected").unwrap();
    let healed = run();
    assert!(healed.out.contains("8000"), "{}", healed.all());
}
