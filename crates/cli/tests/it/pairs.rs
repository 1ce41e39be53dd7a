//! Values through every pair of systems: what a plan neither refuses by name nor calls inexact arrives equal.
//!
//! Each case fills a table of every type that a system declares exact, in each system. One project then loads each of them into each system. What comes
//! out of a system is read by its own connector; PostgreSQL and SQLite also judge for themselves what comes back to them through each other system.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};
use trib_core::{Connector, Context, Destination, Source, TableName};
use trib_testkit::chance::Chance;
use trib_testkit::postgres_server::PostgresServer;
use trib_testkit::{conformance, rows, values};

use crate::trib::Folder;

const SYSTEMS: [&str; 7] = ["postgres", "sqlite", "lake", "parquet", "arrow", "jsonl", "csv"];
/// Those that have SQL of their own.
const JUDGES: [&str; 2] = ["postgres", "sqlite"];

/// A system in three roles: where rows come from, where they go to, and where they come back to.
struct World {
    folder: Folder,
    server: Arc<PostgresServer>,
    databases: BTreeMap<&'static str, String>,
}

const ROLES: [&str; 3] = ["src", "out", "back"];

impl World {
    fn new() -> Self {
        let server = PostgresServer::shared().unwrap();
        let databases = ROLES.map(|role| (role, server.create_database().unwrap())).into();
        let world = Self {
            folder: Folder::with(&[("tributary.yaml", "name: pairs\ndefaults: {sync: {naming: keep, retry: {attempts: 1}}}\n")]),
            server,
            databases,
        };
        let mut connections = String::new();
        for system in SYSTEMS {
            for role in ROLES {
                let (connector, settings) = world.place(system, role);
                let mut settings = settings;
                settings["connector"] = json!(connector.name);
                writeln!(connections, "{system}_{role}: {settings}").unwrap();
                std::fs::create_dir_all(world.folder.path().join(format!("{system}_{role}"))).unwrap();
            }
        }
        world.folder.write("connections.yaml", &connections);
        world
    }

    fn place(&self, system: &str, role: &str) -> (Connector, Value) {
        let path = format!("{system}_{role}");
        match system {
            "postgres" => (trib_connectors::postgres::connector(), json!({"url": self.server.url(&self.databases[role])})),
            "sqlite" => (trib_connectors::sqlite::connector(), json!({"path": format!("{path}.db")})),
            "lake" => (trib_lake::connectors().remove(0), json!({ "path": path })),
            format => (trib_connectors::files::connector(), json!({"path": path, "format": format})),
        }
    }

    fn context(&self) -> Context {
        Context { connection: "pairs".into(), project_dir: self.folder.path().into(), threads: 2 }
    }

    fn source(&self, system: &str, role: &str) -> Arc<dyn Source> {
        let (connector, settings) = self.place(system, role);
        connector.make_source(&settings, &self.context()).unwrap()
    }

    fn destination(&self, system: &str, role: &str) -> Arc<dyn Destination> {
        let (connector, settings) = self.place(system, role);
        connector.make_destination(&settings, &self.context()).unwrap()
    }

    async fn table(&self, system: &str, role: &str, table: &str) -> Vec<RecordBatch> {
        conformance::read_by(self.source(system, role), TableName::new(None, table)).await
    }

    /// A column of a table as its own system shows it: each value's text beside its row's id, less the rows that are left out.
    fn judged(&self, system: &str, role: &str, table: &str, column: &Field, less: &str) -> Vec<String> {
        let name = column.name();
        if system == "postgres" {
            let sql = format!("select id, quote_nullable(\"{name}\"::text) from \"{table}\" where id not in ({less}) order by id");
            return self.server.sql(&self.databases[role], &sql).unwrap().lines().map(str::to_owned).collect();
        }
        let connection = rusqlite::Connection::open(self.folder.path().join(format!("{system}_{role}.db"))).unwrap();
        let sql = format!("select id || '|' || quote(\"{name}\") from \"{table}\" where id not in ({less}) order by id");
        let mut statement = connection.prepare(&sql).unwrap();
        let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        // Times are text here, and a wider type has written more zeros.
        if column.data_type().is_temporal() { lines.map(|line| shortest(&line)).collect() } else { lines.collect() }
    }
}

/// A time's text without the zeros that end its fraction.
fn shortest(text: &str) -> String {
    let Some(dot) = text.rfind('.') else { return text.to_owned() };
    let digits = text[dot + 1..].bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = text[dot + 1..].split_at(digits);
    match fraction.trim_end_matches('0') {
        "" => format!("{}{rest}", &text[..dot]),
        fraction => format!("{}.{fraction}{rest}", &text[..dot]),
    }
}

/// One sync: a table of one system into another.
struct Hop {
    name: String,
    from: String,
    to: String,
    stream: String,
    into: String,
    /// Columns that the plan has refused, each by its name.
    refused: BTreeSet<String>,
    /// Columns that the plan has called inexact.
    lossy: BTreeSet<String>,
}

impl Hop {
    fn new(from: (&str, &str), to: (&str, &str), stream: &str, into: &str) -> Self {
        let (from, to) = (format!("{}_{}", from.0, from.1), format!("{}_{}", to.0, to.1));
        let name = format!("{from}__{to}__{into}");
        Self { name, from, to, stream: stream.into(), into: into.into(), refused: BTreeSet::new(), lossy: BTreeSet::new() }
    }

    fn write(&self, folder: &Folder) {
        let columns: serde_json::Map<String, Value> = self.refused.iter().map(|c| (c.clone(), json!({"drop": true}))).collect();
        let sync = json!({
            "from": self.from, "to": self.to, "into": self.into,
            "streams": {&self.stream: {"read": "full", "write": "replace", "columns": columns}},
        });
        folder.write(&format!("syncs/{}.yaml", self.name), &sync.to_string());
    }

    /// Takes from the plan's refusal or outline what it says of single columns.
    fn learn(&mut self, plan: &Value, columns: &[String]) {
        for error in plan["errors"].as_array().into_iter().flatten() {
            assert_eq!(error["code"], "unsupported", "{}: {error}", self.name);
            assert!(error["hint"].is_string(), "{}: {error}", self.name);
            let detail = error["detail"].as_str().unwrap_or_default();
            let named = columns.iter().filter(|c| detail.starts_with(&format!("{c} (")) || detail.contains(&format!(", {c} (")));
            let before = self.refused.len();
            self.refused.extend(named.cloned());
            assert!(self.refused.len() > before, "{}: no column is named: {error}", self.name);
        }
        for note in plan["streams"][0]["tables"][0]["lossy"].as_array().into_iter().flatten() {
            let column = note.as_str().and_then(|n| n.strip_prefix("column ")?.split(' ').next()).unwrap_or_default();
            self.lossy.insert(column.to_owned());
        }
    }
}

/// Plans until nothing is refused any more, then runs. Every plan stands in one project, so that all of it is one process.
fn carry(world: &World, hops: &mut [Hop], columns: &BTreeMap<String, Vec<String>>) {
    for _ in 0..2 {
        hops.iter().for_each(|hop| hop.write(&world.folder));
        let said = world.folder.trib(&["plan", "--json"]);
        let plans: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()));
        for hop in hops.iter_mut() {
            let plan = plans.iter().find(|p| p["sync"] == hop.name.as_str()).unwrap_or_else(|| panic!("{} is not planned", hop.name));
            hop.learn(plan, &columns[&hop.from]);
        }
    }
    let said = world.folder.trib(&["run", "--quiet"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
}

/// Names of the columns, all but the row's id and ours.
fn names(batches: &[RecordBatch]) -> Vec<String> {
    let schema = batches.first().map(RecordBatch::schema).unwrap_or_else(|| Arc::new(Schema::empty()));
    schema.fields().iter().map(|f| f.name().clone()).filter(|n| n != "id" && !n.starts_with("_trib")).collect()
}

fn has_nan(row: &rows::Row) -> bool {
    row.values().any(|text| text == "NaN")
}

/// What arrived, against what was there: nothing is missing but rows that hold a NaN and were turned away for it.
/// Gives how many columns were looked at.
fn compare(hop: &Hop, nested: bool, sent: &[RecordBatch], found: &[RecordBatch], failures: &mut Vec<String>) -> usize {
    let (mut expected, found_rows) = (rows::rows(sent), rows::rows(found));
    if found_rows.len() < expected.len() {
        expected.retain(|row| !has_nan(row));
    }
    let schema = sent[0].schema();
    let exact = schema.fields().iter().filter(|f| !hop.refused.contains(f.name()) && !hop.lossy.contains(f.name()));
    let mut looked_at = 0;
    for field in exact.filter(|f| nested || !f.data_type().is_nested()) {
        looked_at += 1;
        let of = |rows: &[rows::Row]| -> Vec<String> {
            let value = |row: &rows::Row, column: &str| row.get(column).cloned().unwrap_or_else(|| "nothing".to_owned());
            let mut pairs: Vec<String> = rows.iter().map(|r| format!("{} of row {}", value(r, field.name()), value(r, "id"))).collect();
            pairs.sort_unstable();
            pairs
        };
        if let Some(difference) = rows::difference(&of(&expected), &of(&found_rows)) {
            failures.push(format!("{}, column {} ({}): {difference}", hop.name, field.name(), field.data_type()));
        }
    }
    looked_at
}

/// Fills each system's table with what it declares exact. Gives each stream's name and rows, as its own source reads them.
async fn fill(world: &World, seed: u64, count: usize) -> BTreeMap<&'static str, (String, Vec<RecordBatch>)> {
    let mut filled = BTreeMap::new();
    for system in SYSTEMS {
        let destination = world.destination(system, "src");
        let exact = |f: &Field| destination.column_type(f).is_ok_and(|t| t.lossy.is_none()) && *f.data_type() != DataType::Null;
        let fields: Vec<Field> = values::fields().into_iter().filter(exact).collect();
        let batch = values::batch(&fields, count, &mut Chance::new(seed));
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count as i64));
        let schema = Schema::new([vec![Field::new("id", DataType::Int64, false)], fields].concat());
        let columns = [vec![ids], batch.columns().to_vec()].concat();
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let stream = conformance::filled_by(destination, world.source(system, "src"), TableName::new(None, "t"), batch).await;
        filled.insert(system, (stream, world.table(system, "src", "t").await));
    }
    filled
}

async fn every_pair(seed: u64, count: usize) {
    let world = World::new();
    let filled = fill(&world, seed, count).await;
    let mut columns: BTreeMap<String, Vec<String>> =
        filled.iter().map(|(system, (_, rows))| (format!("{system}_src"), names(rows))).collect();
    let mut there = Vec::new();
    for (from, to) in SYSTEMS.iter().flat_map(|a| SYSTEMS.iter().map(move |b| (*a, *b))) {
        there.push(Hop::new((from, "src"), (to, "out"), &filled[from].0, &format!("from_{from}")));
    }
    carry(&world, &mut there, &columns);
    let mut failures = Vec::new();
    for (hop, (from, to)) in there.iter().zip(SYSTEMS.iter().flat_map(|a| SYSTEMS.iter().map(move |b| (*a, *b)))) {
        let nested = world.destination(to, "out").capabilities().nested;
        let found = world.table(to, "out", &hop.into).await;
        let looked_at = compare(hop, nested, &filled[from].1, &found, &mut failures);
        // Into itself a system takes all that it holds, and calls little of it inexact.
        if from == to && (!hop.refused.is_empty() || 2 * looked_at < names(&filled[from].1).len()) {
            failures.push(format!("{}: refused {:?}, inexact {:?}", hop.name, hop.refused, hop.lossy));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    // And back, for those that can judge by themselves.
    std::fs::remove_dir_all(world.folder.path().join("syncs")).unwrap();
    let mut back = Vec::new();
    for (judge, through) in JUDGES.iter().flat_map(|a| SYSTEMS.iter().map(move |b| (*a, *b))) {
        let catalog = world.source(through, "out").discover(&[]).await.unwrap();
        let stream = catalog.streams.iter().find(|s| s.table == format!("from_{judge}")).unwrap();
        let found: Vec<String> = stream.schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut hop = Hop::new((through, "out"), (judge, "back"), &stream.name, &format!("through_{through}"));
        // Ours, from the way there.
        hop.refused.extend(found.iter().filter(|name| name.starts_with("_trib")).cloned());
        columns.entry(format!("{through}_out")).or_default().extend(found);
        back.push(hop);
    }
    carry(&world, &mut back, &columns);
    for (hop, (judge, through)) in back.iter().zip(JUDGES.iter().flat_map(|a| SYSTEMS.iter().map(move |b| (*a, *b)))) {
        let first = there.iter().find(|h| h.name == format!("{judge}_src__{through}_out__from_{judge}")).unwrap();
        let sent = &filled[judge].1;
        // Rows that hold a NaN may have been turned away for it.
        let less: Vec<String> = rows::rows(sent).into_iter().filter(has_nan).map(|row| row["id"].clone()).collect();
        let exact = |f: &&Arc<Field>| {
            let named = [first, hop].iter().any(|h| h.refused.contains(f.name()) || h.lossy.contains(f.name()));
            !named && !f.data_type().is_nested() && f.name() != "id" && !f.name().starts_with("_trib")
        };
        let schema = sent[0].schema();
        for field in schema.fields().iter().filter(exact) {
            let seen = |role, table| world.judged(judge, role, table, field, &less.join(", "));
            if let Some(difference) = rows::difference(&seen("src", "t"), &seen("back", &hop.into)) {
                failures.push(format!("{judge} through {through}, column {}: {difference}", field.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_arrive_as_they_left(seed: u64, count in 20..60usize) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(every_pair(seed, count));
    }
}
