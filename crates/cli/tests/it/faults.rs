//! A side that fails in the middle of a load: the error says what and whose fault it is, nothing is visible, and the next run heals.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use trib_core::{Connector, Context, TableName};
use trib_testkit::conformance;
use trib_testkit::fault::Proxy;
use trib_testkit::postgres_server::PostgresServer;
use trib_testkit::tiny_disk::TinyDisk;

use crate::trib::{Folder, Said};

/// Eight megabytes on the wire, and about as many in any file: the text does not compress.
const TABLE: &str = "create table t (id int primary key, pad text);
    insert into t select g, md5(g || 'a') || md5(g || 'b') || md5(g || 'c') || md5(g || 'd') from generate_series(1, 60000) g";

/// A table in PostgreSQL, and a project that copies it.
struct Bench {
    server: Arc<PostgresServer>,
    folder: Folder,
    to: (Connector, Value),
}

impl Bench {
    fn new(to: (Connector, Value)) -> Self {
        Self::reading(to, |url| url)
    }

    /// `reach` is the way to the source's server.
    fn reading(to: (Connector, Value), reach: impl Fn(String) -> String) -> Self {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        server.sql(&database, TABLE).unwrap();
        let mut settings = to.1.clone();
        settings["connector"] = json!(to.0.name);
        let folder = Folder::with(&[
            ("tributary.yaml", "name: faults\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
            ("connections.yaml", &format!("shop: {{connector: postgres, url: \"{}\"}}\nout: {settings}\n", reach(server.url(&database)))),
            ("syncs/go.yaml", "from: shop\nto: out\ninto: copied\nstreams: {public.t: {read: full, write: replace}}\n"),
        ]);
        Self { server, folder, to }
    }

    /// The error of a run that failed, with all that a person needs.
    fn failed(&self, said: &Said, code: &str, blame: &str) {
        assert_eq!(said.status, Some(1), "{}", said.all());
        let summary: Value = serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap();
        let error = &summary["streams"][0]["error"];
        assert_eq!((error["code"].as_str(), error["blame"].as_str()), (Some(code), Some(blame)), "{error}");
        assert!(error["hint"].is_string(), "{error}");
        assert_eq!(error["place"]["stream"], "public.t", "{error}");
        assert!(!said.all().contains(self.server.password()), "{}", said.all());
    }

    fn fails(&self, code: &str, blame: &str) {
        self.failed(&self.folder.trib(&["run", "--json"]), code, blame);
    }

    fn runs(&self) {
        let said = self.folder.trib(&["run"]);
        assert_eq!(said.status, Some(0), "{}", said.all());
    }

    /// Rows that a reader of the destination sees.
    async fn visible(&self) -> usize {
        let context = Context { connection: "out".into(), project_dir: self.folder.path().into(), threads: 1 };
        let source = self.to.0.make_source(&self.to.1, &context).unwrap();
        conformance::read_by(source, TableName::new(None, "copied")).await.iter().map(|b| b.num_rows()).sum()
    }
}

fn lake(path: &str) -> (Connector, Value) {
    (trib_lake::connectors().remove(0), json!({ "path": path }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_cut_in_mid_read() {
    let server = PostgresServer::shared().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let bench = Bench::reading(lake("lake"), |url| url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.address().port())));
    // Before anything was loaded, and when there is something to be kept.
    for before in [0, 60_000] {
        proxy.cut_after(3_000_000);
        bench.fails("connection_lost", "external");
        assert!(proxy.cuts() > 0, "the fault was not hit");
        assert_eq!(bench.visible().await, before);
        proxy.heal();
        bench.runs();
        assert_eq!(bench.visible().await, 60_000);
    }
}

/// A database of its own for the destination, whose tables stand on the disk.
fn postgres(disk: &TinyDisk) -> (Arc<PostgresServer>, String, (Connector, Value)) {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let folder = disk.path().join("space");
    std::fs::create_dir(&folder).unwrap();
    assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
    server.sql(&database, &format!("create tablespace {database} location '{}'", folder.display())).unwrap();
    server.sql(&database, &format!("alter database {database} set default_tablespace = {database}")).unwrap();
    let to = (trib_connectors::postgres::connector(), json!({"url": server.url(&database)}));
    (server, database, to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_disk_is_full() {
    let Some(disk) = TinyDisk::mount(3).unwrap() else { return };
    let (server, database, to) = postgres(&disk);
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
