//! Meltano: a project of it carried over with its state, and Meltano itself running us as its tap and its target.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::singer_pairs::{cache, lines};
use crate::trib::{Folder, ok};

const TABLES: &str = "create table orders (id bigint primary key, amount numeric(12, 2), updated_at timestamptz not null);
    create table customers (id int primary key, name text, email text, updated_at timestamptz not null);
    create table secrets (id int primary key);
    insert into orders select i, i * 1.01, '2024-01-01Z'::timestamptz + i * interval '1 second' from generate_series(1, 500) i;
    insert into customers select i, 'c' || i, i || '@x.y', '2024-01-01Z'::timestamptz + i * interval '1 second' from generate_series(1, 40) i";

/// Two taps, one inheriting, a mapping, a job, a schedule, environments and utilities: what a project has after a year.
fn meltano_yml(url: &str) -> String {
    let ours = url.replace("postgresql://", "postgres://");
    format!(
        r#"version: 1
send_anonymous_usage_stats: false
project_id: shop
default_environment: dev
environments:
  - name: dev
  - name: prod
    config: {{plugins: {{extractors: [{{name: tap-shop, config: {{max_record_count: 5000}}}}]}}}}
plugins:
  extractors:
    - name: tap-postgres
      namespace: tap_postgres
      pip_url: meltanolabs-tap-postgres==0.10.0
      executable: tap-postgres
      capabilities: [catalog, discover, state]
      settings: [{{name: sqlalchemy_url, kind: password}}, {{name: filter_schemas, kind: array}}]
      config: {{filter_schemas: [public]}}
    - name: tap-shop
      inherit_from: tap-postgres
      config: {{sqlalchemy_url: "{url}"}}
      select: ["public-orders.*", "public-customers.*", "!public-customers.email", "!public-secrets.*"]
      metadata:
        "public-*": {{replication-method: INCREMENTAL, replication-key: updated_at}}
      schema:
        public-orders: {{amount: {{type: [number, "null"], multipleOf: 0.01}}}}
    - name: tap-github
      namespace: tap_github
      pip_url: meltanolabs-tap-github
      config: {{repositories: [acme/anvils], auth_token: $GITHUB_TOKEN}}
    - name: tap-trib
      namespace: tap_trib
      executable: ./bin/tap-trib
      capabilities: [catalog, discover, state]
      settings: [{{name: connection, kind: password}}]
      config: {{connection: "{ours}"}}
      select: ["public-orders.*"]
      metadata:
        public-orders: {{replication-method: INCREMENTAL, replication-key: updated_at}}
  loaders:
    - name: target-jsonl
      namespace: target_jsonl
      pip_url: target-jsonl==0.1.4
      executable: target-jsonl
      settings: [{{name: destination_path}}]
      config: {{destination_path: out}}
    - name: target-trib
      namespace: target_trib
      executable: ./bin/target-trib
      settings: [{{name: to}}, {{name: schema}}]
      config: {{to: "lake:./warehouse", schema: raw}}
  mappers:
    - name: meltano-map-transformer
      namespace: meltano_map_transformer
      executable: meltano-map-transform
      pip_url: meltano-map-transform
      mappings:
        - name: shout
          config: {{stream_maps: {{public-customers: {{name: name.upper()}}}}}}
  utilities: [{{name: dbt-postgres, namespace: dbt_postgres, pip_url: dbt-postgres}}]
jobs:
  - {{name: load, tasks: [tap-shop shout target-jsonl, dbt-postgres:run]}}
  - {{name: issues, tasks: [tap-github target-jsonl]}}
schedules:
  - {{name: hourly, interval: "@hourly", job: load}}
"#
    )
}

fn source() -> (std::sync::Arc<PostgresServer>, String, String) {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server.sql(&database, TABLES).unwrap();
    let url = server.url(&database).replace("postgres://", "postgresql://");
    (server, database, url)
}

/// What `meltano state get` prints.
const STATE: &str = r#"{"singer_state": {"bookmarks": {
    "public-orders": {"replication_key": "updated_at", "replication_key_value": "2024-01-01T00:08:20+00:00"},
    "public-customers": {"replication_key": "updated_at", "replication_key_value": "2024-01-01T00:00:40+00:00"}}}}"#;

const MORE: &str = "insert into orders select i, i * 1.01, '2024-02-01Z' from generate_series(501, 510) i; update customers set name = 'new', updated_at = '2024-02-01Z' where id = 7";

fn rows_read(folder: &Folder, sync: &str) -> Vec<(String, u64)> {
    let said = folder.trib(&["run", sync, "--json", "--project-dir", "shop"]);
    ok(&said);
    let summary: Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    let stream = |s: &Value| (s["stream"].as_str().unwrap().to_owned(), s["rows_read"].as_u64().unwrap());
    let mut streams: Vec<_> = summary["streams"].as_array().unwrap().iter().map(stream).collect();
    streams.sort();
    streams
}

/// The bookmark's own rows come again, and nothing else that was loaded before.
fn goes_on(folder: &Folder, sync: &str) {
    let streams = rows_read(folder, sync);
    assert_eq!(streams, [("public-customers".to_owned(), 2), ("public-orders".to_owned(), 11)]);
}

#[test]
fn a_project_goes_on_where_meltano_has_stopped() {
    let (server, database, url) = source();
    server.sql(&database, MORE).unwrap();
    let mut folder = Folder::with(&[("meltano.yml", &meltano_yml(&url)), ("state.json", STATE)]);
    folder.set("XDG_CACHE_HOME", &cache().display().to_string());
    folder.set("GITHUB_TOKEN", "x");
    let state = "dev:tap-shop-to-target-jsonl=state.json";
    let imported = folder.trib(&["import", "meltano.yml", "--into", "shop", "--state", state]);
    ok(&imported);
    for note in ["dbt-postgres", "tap-trib", "goes on from where it was"] {
        assert!(imported.out.contains(note), "{note} in {}", imported.out);
    }
    let validated = folder.trib(&["validate", "--project-dir", "shop"]);
    ok(&validated);
    fs::create_dir_all(folder.path().join("shop/out")).unwrap();
    goes_on(&folder, "tap-shop-to-target-jsonl");
    let written: Vec<Value> = folder
        .files()
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "jsonl"))
        .flat_map(|f| lines(&fs::read_to_string(f).unwrap()))
        .collect();
    let customers: Vec<&Value> = written.iter().filter(|row| !row["name"].is_null()).collect();
    assert_eq!((written.len(), customers.len()), (13, 2));
    assert!(customers.iter().any(|row| row["name"] == "NEW" && row["email"].is_null()), "{customers:?}");
    assert_eq!(rows_read(&folder, "tap-shop-to-target-jsonl").iter().map(|(_, n)| n).sum::<u64>(), 11, "the bookmarks' own rows");
    let unknown = folder.trib(&["import", "meltano.yml", "--into", "other", "--state", "dev:tap-x-to-target-y=state.json"]);
    assert_eq!(unknown.status, Some(2), "{}", unknown.all());
    assert!(!folder.path().join("other").exists());
}

fn meltano(bin: &Path, folder: &Folder, args: &[&str]) -> String {
    let mut command = Command::new(bin.join("meltano"));
    command.args(args).current_dir(folder.path()).env("MELTANO_SEND_ANONYMOUS_USAGE_STATS", "false");
    let output = command.env("XDG_DATA_HOME", folder.path().join("data-home")).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `meltano run` with a real tap into us, with us into a real target, and what it remembers carried over to a project of ours.
#[test]
#[ignore = "long: `make soak` runs it"]
fn soak_meltano_itself() {
    let bin = trib_testkit::python_venv::bin("meltano", &["meltano==4.4.1"]).unwrap();
    let (server, database, url) = source();
    let mut folder = Folder::with(&[("meltano.yml", &meltano_yml(&url)), ("out/.keep", ""), ("bin/.keep", "")]);
    for name in ["tap-trib", "target-trib"] {
        symlink(env!("CARGO_BIN_EXE_trib"), folder.path().join("bin").join(name)).unwrap();
    }
    meltano(&bin, &folder, &["install", "tap-shop", "target-jsonl"]);
    meltano(&bin, &folder, &["run", "tap-shop", "target-trib"]);
    meltano(&bin, &folder, &["run", "tap-trib", "target-jsonl"]);
    let jsonl = || -> usize {
        let files = folder
            .files()
            .into_iter()
            .filter(|f| f.parent().is_some_and(|p| p.ends_with("out")) && f.extension().is_some_and(|e| e == "jsonl"));
        files.map(|f| fs::read_to_string(f).unwrap().lines().count()).sum()
    };
    assert_eq!(jsonl(), 500);
    let target = Folder::with(&[("tributary.yaml", "name: t\n")]);
    target.write("connections.yaml", &format!("raw: {{connector: lake, path: {}}}\n", folder.path().join("warehouse").display()));
    assert_eq!(target.query("raw", "select count(*), sum(amount) from raw.public_orders"), "500,126502.50");
    server.sql(&database, MORE).unwrap();
    meltano(&bin, &folder, &["run", "tap-trib", "target-jsonl"]);
    assert_eq!(jsonl(), 510, "only what is new");
    let state = meltano(&bin, &folder, &["state", "get", "dev:tap-shop-to-target-trib"]);
    folder.write("state.json", &state);
    folder.set("XDG_CACHE_HOME", &cache().display().to_string());
    folder.set("GITHUB_TOKEN", "x");
    ok(&folder.trib(&["import", "meltano.yml", "--into", "shop", "--state", "dev:tap-shop-to-target-jsonl=state.json"]));
    fs::create_dir_all(folder.path().join("shop/out")).unwrap();
    goes_on(&folder, "tap-shop-to-target-jsonl");
}
