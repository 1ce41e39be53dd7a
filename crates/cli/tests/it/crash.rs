//! Killed at each named point of the load protocol, and at random: the next run ends as if nothing had happened.
//!
//! The source is a PostgreSQL table that a writer keeps changing. Into each destination and in each write mode that it has, a run dies; the
//! writer stops; the next run must leave the destination equal to the source. `TRIB_KILLS` says how many random kills each
//! pair gets (3 where it is not set, 30 and more in `make soak`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trib_testkit::chance::Chance;
use trib_testkit::postgres_server::PostgresServer;

const TRIB: &str = env!("CARGO_BIN_EXE_trib");

/// The points of the protocol, in their order.
const POINTS: [&str; 8] = ["leased", "opened", "planned", "staged", "recorded", "committed", "moved", "acknowledged"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Postgres,
    Sqlite,
    Lake,
    Files,
}

struct Mode {
    write: &'static str,
    /// YAML of the stream.
    stream: &'static str,
    /// One change of the writer, in SQL.
    change: &'static str,
}

const INSERTS: &str = "insert into src (v, n) select 'new ' || g, g from generate_series(1, 3) g;";
const UPDATES: &str = "insert into src (v, n) values ('new', 1);
    update src set n = n + 1, updated_at = clock_timestamp() where id in (select id from src order by random() limit 5);";
const DELETES: &str = "insert into src (v, n) values ('new', 1);
    update src set n = n + 1, updated_at = clock_timestamp() where id in (select id from src order by random() limit 5);
    delete from src where id in (select id from src order by random() limit 1);";

const MODES: [Mode; 6] = [
    Mode { write: "replace", stream: "{read: full, write: replace}", change: DELETES },
    Mode { write: "append", stream: "{read: incremental, cursor: id, write: append}", change: INSERTS },
    Mode { write: "insert", stream: "{read: incremental, cursor: id, write: insert}", change: INSERTS },
    Mode { write: "upsert", stream: "{read: incremental, cursor: updated_at, write: upsert}", change: UPDATES },
    Mode { write: "mirror", stream: "{read: full, write: mirror}", change: DELETES },
    Mode { write: "history", stream: "{read: incremental, cursor: updated_at, write: history}", change: UPDATES },
];

/// One project over one source database.
struct Bench {
    server: std::sync::Arc<PostgresServer>,
    database: String,
    to: To,
    dir: TempDir,
}

impl Bench {
    fn new(to: To, mode: &Mode, rows: u32) -> Self {
        let server = PostgresServer::shared().unwrap();
        let database = server.create_database().unwrap();
        let setup = format!(
            "create table src (id bigint generated always as identity primary key, v text, n int, updated_at timestamptz default clock_timestamp());
             create table stop (x int);
             insert into src (v, n) select 'row ' || g || repeat('x', g % 50), g from generate_series(1, {rows}) g;"
        );
        server.sql(&database, &setup).unwrap();
        let bench = Self { server, database, to, dir: TempDir::new().unwrap() };
        let url = bench.server.url(&bench.database);
        let destination = match to {
            To::Postgres => format!("{{connector: postgres, url: \"{url}\"}}"),
            To::Sqlite => "{connector: sqlite, path: out.db}".to_owned(),
            To::Lake => "{connector: lake, path: lake}".to_owned(),
            To::Files => "{connector: files, path: out, format: jsonl}".to_owned(),
        };
        bench.write("tributary.yaml", "name: crash\ndefaults: {sync: {retry: {attempts: 1}}}\n");
        bench.write("connections.yaml", &format!("shop: {{connector: postgres, url: \"{url}\"}}\nout: {destination}\n"));
        let sync = format!("from: shop\nto: out\ninto: {}\nstreams:\n  public.src: {}\n", bench.table(), mode.stream);
        fs::create_dir_all(bench.dir.path().join("syncs")).unwrap();
        bench.write("syncs/go.yaml", &sync);
        bench
    }

    fn table(&self) -> &'static str {
        // SQLite groups tables by nothing.
        if self.to == To::Sqlite { "copied" } else { "raw.copied" }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(TRIB);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["run", "--quiet"]).env_remove("TRIB_FAULT").env("RUST_BACKTRACE", "0");
        command
    }

    fn run(&self) {
        let out = self.command().output().unwrap();
        assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }

    /// Keeps changing the source, each change a transaction of its own, until it is told to stop.
    fn writer(&self, mode: &Mode) -> Writer {
        let script = format!(
            "do $$ begin while not exists (select from stop) loop {} commit; perform pg_sleep(0.002); end loop; end $$",
            mode.change
        );
        let child = Command::new("psql")
            .args([&self.server.url(&self.database), "-qc", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Writer(child)
    }

    fn stop(&self, writer: Writer) {
        self.server.sql(&self.database, "insert into stop values (1)").unwrap();
        let out = writer.0.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.server.sql(&self.database, "delete from stop").unwrap();
    }

    fn source_rows(&self) -> Vec<String> {
        let out = self.server.sql(&self.database, "select id || '|' || v || '|' || n from src order by id").unwrap();
        out.lines().map(str::to_owned).collect()
    }

    fn destination_rows(&self, mode: &Mode) -> Vec<String> {
        if self.to == To::Files {
            return self.file_rows();
        }
        let current = if mode.write == "history" { "where _trib_valid_to is null" } else { "" };
        let query = format!("select id, v, n from {} {current} order by id", self.table());
        let mut command = Command::new(TRIB);
        command.current_dir(self.dir.path()).args(["query", "--json", &query]);
        command.args(["-c", "out"]);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let rows: Vec<BTreeMap<String, serde_json::Value>> =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stdout)));
        rows.iter().map(|r| format!("{}|{}|{}", plain(&r["id"]), plain(&r["v"]), plain(&r["n"]))).collect()
    }

    fn file_rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for file in files_below(&self.dir.path().join("out").join("raw").join("copied")) {
            for line in fs::read_to_string(file).unwrap().lines() {
                let row: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
                rows.push((row["id"].as_i64().unwrap(), format!("{}|{}|{}", plain(&row["id"]), plain(&row["v"]), plain(&row["n"]))));
            }
        }
        rows.sort();
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn check(&self, mode: &Mode, what: &str) {
        let (expected, found) = (self.source_rows(), self.destination_rows(mode));
        if let Some(difference) = trib_testkit::rows::difference(&expected, &found) {
            panic!("{:?} {} {what}: {difference}", self.to, mode.write);
        }
    }
}

struct Writer(Child);

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            files.push(path);
        }
    }
    files
}

fn modes(to: To) -> impl Iterator<Item = &'static Mode> {
    MODES.iter().filter(move |m| to != To::Files || matches!(m.write, "replace" | "append"))
}

/// In the first load, and again in later ones.
fn dies_at_each_point(to: To) {
    for mode in modes(to) {
        let kept = Bench::new(to, mode, 500);
        kept.run();
        for point in POINTS {
            let fresh = Bench::new(to, mode, 500);
            for (bench, round) in [(&fresh, "first"), (&kept, "later")] {
                // At least one change is there to be loaded, however late the writer begins.
                bench.server.sql(&bench.database, mode.change).unwrap();
                let writer = bench.writer(mode);
                let out = bench.command().env("TRIB_FAULT", point).output().unwrap();
                bench.stop(writer);
                assert!(!out.status.success(), "{to:?} {} did not die at {point} in the {round} load", mode.write);
                bench.run();
                bench.check(mode, &format!("after dying at {point} in the {round} load"));
            }
        }
    }
}

/// At moments spread over the measured time of a load: half of them in a first load, half in a later one.
fn killed_at_random(to: To) {
    let kills: u64 = std::env::var("TRIB_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(3);
    let mut chance = Chance::new(42);
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for mode in modes(to) {
        let began = Instant::now();
        let bench = Bench::new(to, mode, 20_000);
        let before = began.elapsed();
        bench.run();
        let load = began.elapsed() - before;
        let mut kept = Some(bench);
        for kill in 0..kills {
            let first = kill % 2 == 0;
            let bench = if first { Bench::new(to, mode, 20_000) } else { kept.take().unwrap_or_else(|| Bench::new(to, mode, 20_000)) };
            if !first {
                bench.server.sql(&bench.database, "insert into src (v, n) select 'more', g from generate_series(1, 10000) g").unwrap();
            }
            let trace = bench.dir.path().join(format!("trace{kill}"));
            let writer = bench.writer(mode);
            let mut child = bench.command().env("TRIB_FAULT_TRACE", &trace).spawn().unwrap();
            let wait = Duration::from_micros(chance.below(load.as_micros() as u64));
            std::thread::sleep(wait);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.stop(writer);
            let passed = fs::read_to_string(&trace).unwrap_or_default();
            *hits.entry(passed.lines().last().unwrap_or("start").to_owned()).or_default() += 1;
            bench.run();
            bench.check(mode, &format!("after being killed after {wait:?} of {load:?}"));
            kept = Some(bench);
        }
    }
    println!("{to:?}: killed {} times, after passing {hits:?}", hits.values().sum::<u32>());
}

macro_rules! destinations {
    ($($name:ident: $to:expr;)*) => {
        $(mod $name {
            #[test]
            fn dies_at_each_point() {
                super::dies_at_each_point($to);
            }

            #[test]
            fn killed_at_random() {
                super::killed_at_random($to);
            }
        })*
    };
}

destinations! {
    postgres: super::To::Postgres;
    sqlite: super::To::Sqlite;
    lake: super::To::Lake;
    files: super::To::Files;
}
