//! Real taps into real destinations, installed by `pip:`. What has arrived is what was there, by hash, and a second run moves only what is new.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trib_testkit::mariadb_server::MariadbServer;
use trib_testkit::postgres_server::PostgresServer;
use trib_testkit::stand_in::{Answer, StandIn};

use crate::trib::{Folder, ok};

const ROWS: u64 = 1000;
/// Ten new rows and five changed ones; the bookmark's own row comes again.
const SECOND: u64 = 16;

/// A tap over a source of its own.
struct Tap {
    /// Its connection, without what `connector: singer` says.
    settings: String,
    stream: &'static str,
    /// All rows that the source has.
    rows: Box<dyn Fn() -> Vec<Value>>,
    change: Box<dyn Fn()>,
}

const TAPS: [(&str, fn() -> Tap); 4] = [
    ("meltanolabs-tap-postgres==0.10.0", meltanolabs_postgres),
    ("pipelinewise-tap-postgres==1.8.4", pipelinewise_postgres),
    ("pipelinewise-tap-mysql==1.6.0", pipelinewise_mysql),
    ("tap-rest-api-msdk==1.4.2", rest),
];

const FILL: &str = r#"insert into orders select i, i * 1.01, case when i % 7 = 0 then null else 'n"é\' || i || E'\n' end,
    '2024-01-01T00:00:00.123456Z'::timestamptz + i * interval '1 minute', i % 2 = 0, jsonb_build_object('a', i),
    '2024-01-01T00:00:00Z'::timestamptz + i * interval '1 second' from generate_series(1, 1000) i"#;

fn postgres() -> (Arc<PostgresServer>, String) {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let table = "create table orders (id bigint primary key, amount numeric(12, 2), note text, at timestamptz, ok boolean, j jsonb, updated_at timestamptz not null)";
    server.sql(&database, &format!("{table}; {FILL}")).unwrap();
    (server, database)
}

fn postgres_tap(server: Arc<PostgresServer>, database: String, settings: String) -> Tap {
    let change = "insert into orders select i, i * 1.01, 'new', '2024-03-03Z', null, '{}', '2024-02-01Z'::timestamptz + i * interval '1 second' from generate_series(1001, 1010) i;
        update orders set amount = -amount, updated_at = '2024-02-02Z' where id <= 5";
    let (rows, changed) = ((server.clone(), database.clone()), (server, database));
    Tap {
        settings,
        stream: "public-orders",
        rows: Box::new(move || lines(&rows.0.sql(&rows.1, "select row_to_json(o) from orders o").unwrap())),
        change: Box::new(move || drop(changed.0.sql(&changed.1, change).unwrap())),
    }
}

fn meltanolabs_postgres() -> Tap {
    let (server, database) = postgres();
    let url = server.url(&database).replace("postgres://", "postgresql://");
    let settings = format!(
        "tap: tap-postgres\n  config: {{sqlalchemy_url: \"{url}\", filter_schemas: [public]}}\n  \
         schema: {{public-orders: {{amount: {{type: [number, \"null\"], multipleOf: 0.01}}}}}}"
    );
    postgres_tap(server, database, settings)
}

fn pipelinewise_postgres() -> Tap {
    let (server, database) = postgres();
    let settings = format!(
        "tap: tap-postgres\n  properties: true\n  config: {{host: 127.0.0.1, port: {}, user: trib, password: {}, dbname: {database}, filter_schemas: public}}",
        server.port(),
        server.password()
    );
    postgres_tap(server, database, settings)
}

fn pipelinewise_mysql() -> Tap {
    let server = MariadbServer::shared().unwrap();
    // The stream's name has the database's in it.
    const DATABASE: &str = "shop";
    let table = "create or replace table orders (id bigint primary key, amount decimal(12, 2), note text, at datetime(6), ok tinyint(1), j json, updated_at datetime not null)";
    let fill = r#"insert into orders select seq, seq * 1.01, if(seq % 7 = 0, null, concat('n"é\\', seq, '\n')), '2024-01-01 00:00:00.123456' + interval seq minute,
        seq % 2 = 0, json_object('a', seq), '2024-01-01' + interval seq second from seq_1_to_1000"#;
    let change = "insert into orders select seq, seq * 1.01, 'new', '2024-03-03', null, '{}', '2024-02-01' + interval seq second from seq_1001_to_1010;
        update orders set amount = -amount, updated_at = '2024-02-02' where id <= 5";
    let rows = "select json_object('id', id, 'amount', amount, 'note', note, 'at', date_format(at, '%Y-%m-%dT%H:%i:%s.%f'),
        'ok', ok, 'j', json_compact(j), 'updated_at', date_format(updated_at, '%Y-%m-%dT%H:%i:%s')) from orders";
    server.sql("", &format!("create database if not exists {DATABASE}")).unwrap();
    server.sql(DATABASE, &format!("{table}; {fill}")).unwrap();
    let settings = format!(
        "tap: tap-mysql\n  properties: true\n  config: {{host: 127.0.0.1, port: \"{}\", user: {}, password: {}, filter_dbs: {DATABASE}, engine: mariadb}}",
        server.port(),
        server.user(),
        server.password()
    );
    let changed = server.clone();
    Tap {
        settings,
        stream: "shop-orders",
        rows: Box::new(move || lines(&server.sql(DATABASE, rows).unwrap())),
        change: Box::new(move || drop(changed.sql(DATABASE, change).unwrap())),
    }
}

fn rest() -> Tap {
    fn row(id: u64, updated_at: &str) -> Value {
        let note = if id.is_multiple_of(7) { Value::Null } else { json!(format!("n\"é\\{id}\n")) };
        json!({"id": id, "amount": (id * 101) as f64 / 100.0, "note": note, "at": "2024-01-01T00:00:00Z", "ok": id.is_multiple_of(2), "updated_at": updated_at})
    }
    let at = |id: u64| format!("2024-01-01T{:02}:{:02}:{:02}Z", id / 3600, id / 60 % 60, id % 60);
    let rows: Arc<Mutex<Vec<Value>>> = Arc::new(Mutex::new((1..=ROWS).map(|id| row(id, &at(id))).collect()));
    let served = rows.clone();
    let server = StandIn::start(move |asked| {
        let since = asked.param("since").unwrap_or_default();
        let page: usize = asked.param("page").map_or(1, |p| p.parse().unwrap());
        let rows = served.lock().unwrap();
        let found: Vec<&Value> = rows.iter().filter(|r| r["updated_at"].as_str().unwrap() >= since.as_str()).collect();
        let items: Vec<&Value> = found.iter().skip((page - 1) * 100).take(100).copied().collect();
        Answer::json(&json!({"items": items, "next_page": (found.len() > page * 100).then_some(page + 1)}))
    });
    let settings = format!(
        "tap: tap-rest-api-msdk\n  config:\n    api_url: {}\n    streams: [{{name: orders, path: /orders, primary_keys: [id], records_path: \"$.items[*]\", \
         replication_key: updated_at, source_search_field: since, source_search_query: \"$last_run_date\"}}]\n  \
         schema: {{orders: {{amount: {{type: [number, \"null\"], multipleOf: 0.01}}}}}}",
        server.url()
    );
    let changed = rows.clone();
    Tap {
        settings,
        stream: "orders",
        rows: Box::new(move || {
            let _keep = &server;
            rows.lock().unwrap().clone()
        }),
        change: Box::new(move || {
            let mut rows = changed.lock().unwrap();
            rows.extend((1..=10).map(|i| row(ROWS + i, &format!("2024-02-01T00:00:{i:02}Z"))));
            for id in 1..=5 {
                let i = id as usize - 1;
                rows[i] = row(id, "2024-02-02T00:00:00Z");
                rows[i]["amount"] = json!(-(id as f64));
            }
        }),
    }
}

/// Somewhere to load into, that can be read back by others than us.
struct Place {
    /// Its connection; empty for the one that every project has.
    settings: String,
    rows: Box<dyn Fn(&Folder) -> Vec<Value>>,
}

const PLACES: [(&str, fn() -> Place); 5] = [
    ("the lake", || Place { settings: String::new(), rows: Box::new(|folder| queried(folder, "warehouse")) }),
    ("postgres", || {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        let settings = format!("connector: postgres\n  url: \"{}\"", server.url(&database));
        Place { settings, rows: Box::new(move |_| lines(&server.sql(&database, "select row_to_json(o) from raw.orders o").unwrap())) }
    }),
    ("target-jsonl==0.1.4", || Place {
        settings: "connector: singer\n  target: target-jsonl\n  config: {destination_path: .}".to_owned(),
        rows: Box::new(|folder| {
            // A file for each run, to which it appends: the last row of each key is the one that holds.
            let mut files = folder.files();
            files.retain(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("raw-orders")));
            files.sort();
            let rows = files.iter().flat_map(|file| lines(&fs::read_to_string(file).unwrap()));
            rows.map(|row| (row["id"].as_u64(), row)).collect::<BTreeMap<_, _>>().into_values().collect()
        }),
    }),
    ("target-duckdb==0.8.0 duckdb==1.1.3", || Place {
        settings: "connector: singer\n  target: target-duckdb\n  config: {path: out.duckdb, default_target_schema: raw, hard_delete: true}"
            .to_owned(),
        rows: Box::new(|folder| {
            let program = "import duckdb; [print(r[0]) for r in duckdb.connect('out.duckdb').execute('select to_json(o) from raw.orders o').fetchall()]";
            let output = std::process::Command::new(environment("target-duckdb").join("bin/python"))
                .args(["-c", program])
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            lines(&String::from_utf8_lossy(&output.stdout))
        }),
    }),
    ("meltanolabs-target-postgres==0.8.1", || {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        let settings = format!(
            "connector: singer\n  target: target-postgres\n  \
             config: {{host: 127.0.0.1, port: {}, user: trib, password: {}, database: {database}, default_target_schema: raw}}",
            server.port(),
            server.password()
        );
        Place { settings, rows: Box::new(move |_| lines(&server.sql(&database, "select row_to_json(o) from raw.orders o").unwrap())) }
    }),
];

fn queried(folder: &Folder, connection: &str) -> Vec<Value> {
    let said = folder.trib(&["query", "-c", connection, "--format", "json", "select * from raw.orders"]);
    ok(&said);
    serde_json::from_str(&said.out).unwrap()
}

pub fn lines(text: &str) -> Vec<Value> {
    text.lines().filter(|l| !l.is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Environments are kept between runs of the tests.
pub fn cache() -> PathBuf {
    std::env::temp_dir().join("trib-test-cache")
}

fn environment(program: &str) -> PathBuf {
    let made = fs::read_dir(cache().join("tributary/programs")).unwrap().map(|e| e.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    made.into_iter().find(|p| name(p).starts_with(&format!("{program}-")) && p.is_dir()).unwrap()
}

/// Rows as one hash, whatever form their values have: JSON has more than one for a decimal, a time and a truth value.
fn hash(rows: &[Value]) -> String {
    let time = |text: &str| {
        let zoned = DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_micros());
        let plain =
            || NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S%.f").map(|t| t.and_utc().timestamp_micros());
        zoned.or_else(|_| plain()).unwrap_or_else(|e| panic!("{text}: {e}"))
    };
    let shown = |row: &Value, name: &str| -> String {
        match (name, &row[name]) {
            (_, Value::Null) => "null".to_owned(),
            ("at" | "updated_at", Value::String(text)) => time(text).to_string(),
            ("amount", Value::String(text)) => format!("{:.2}", text.parse::<f64>().unwrap()),
            ("amount", number) => format!("{:.2}", number.as_f64().unwrap()),
            ("ok", value) => (value == &json!(true) || value == &json!(1)).to_string(),
            ("j", Value::String(text)) => serde_json::from_str::<Value>(text).unwrap().to_string(),
            (_, value) => value.to_string(),
        }
    };
    let columns = ["id", "amount", "note", "at", "ok", "j", "updated_at"];
    let mut all: Vec<String> = rows.iter().map(|row| columns.map(|c| shown(row, c)).join("\t")).collect();
    all.sort();
    hex::encode(Sha256::digest(all.join("\n")))
}

/// One tap into one place, twice.
fn pair(package: &str, tap: &Tap, name: &str, place: &Place) {
    let pip = |package: &str| if package.contains("==") { format!("\n  pip: {package}") } else { String::new() };
    let to = if place.settings.is_empty() { "warehouse" } else { "place" };
    let connection = if place.settings.is_empty() { String::new() } else { format!("place:\n  {}{}\n", place.settings, pip(name)) };
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: t\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", &format!("tap:\n  connector: singer\n  {}{}\n{connection}", tap.settings, pip(package))),
        (
            "syncs/s.yaml",
            &format!(
                "from: tap\nto: {to}\ninto: raw.orders\nstreams:\n  {}: {{read: incremental, cursor: updated_at, write: upsert, key: [id]}}\n",
                tap.stream
            ),
        ),
    ]);
    folder.set("XDG_CACHE_HOME", &cache().display().to_string());
    let mut read = Vec::new();
    for expected in [ROWS, SECOND] {
        let said = folder.trib(&["run", "--json"]);
        assert_eq!(said.status, Some(0), "{package} into {name}: {}", said.all());
        let summary: Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        read.push(summary["streams"][0]["rows_read"].as_u64().unwrap());
        let (there, arrived) = ((tap.rows)(), (place.rows)(&folder));
        assert_eq!(
            (arrived.len(), hash(&arrived)),
            (there.len(), hash(&there)),
            "{package} into {name}: {:?} {:?}",
            arrived.first(),
            there.first()
        );
        assert_eq!(read.last(), Some(&expected), "{package} into {name}");
        if expected == ROWS {
            (tap.change)();
        }
    }
    println!("{package} into {name}: {read:?} rows read, {}", &hash(&(tap.rows)())[..12]);
}

fn pairs(package: &str, places: usize) {
    let (_, tap) = TAPS.iter().find(|(p, _)| *p == package).unwrap();
    for (name, place) in &PLACES[..places] {
        pair(package, &tap(), name, &place());
    }
}

#[test]
fn a_tap_of_the_sdk() {
    pairs("meltanolabs-tap-postgres==0.10.0", 3);
}

#[test]
fn a_tap_of_the_older_kind() {
    pairs("pipelinewise-tap-mysql==1.6.0", 3);
}

/// Every tap into every place: minutes, most of them for installing.
#[test]
#[ignore = "long: `make soak` runs it"]
fn soak_every_pair() {
    for (package, _) in TAPS {
        pairs(package, PLACES.len());
    }
}
