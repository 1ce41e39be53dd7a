//! Each table as its page shows it.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, TimeUnit};
use serde::Serialize;
use trib_core::name::Naming;
use trib_engine::lineage::Step;
use trib_project::data_test::Severity;
use trib_project::{DataTest, Model, Project};
use trib_store::LastTest;

use super::graph::{Drawing, Node, draw};
use super::{RunView, StreamView, stamp};
use crate::app::Session;
use crate::assemble::identity;
use crate::delivered::{Delivered, Fates};
use crate::exit::Result;
use crate::lineage::{ColumnName, Edge, KnownTable, Lineage};
use crate::render::amount::count;

/// Runs of a table that its page shows.
const RUNS: usize = 12;

#[derive(Serialize)]
pub struct TableView {
    pub name: String,
    /// Its page, from the folder.
    pub file: String,
    /// `sync`, `seed`, `model`, `view`, `script`, or `delivery` for an object of an API.
    pub kind: &'static str,
    pub node: String,
    pub connection: String,
    pub description: Option<String>,
    pub facts: Vec<(&'static str, String)>,
    pub columns: Vec<ColumnView>,
    pub tests: Vec<TestView>,
    /// The worst of its tests, and how many passed.
    pub tested: &'static str,
    pub tests_text: String,
    /// What it is made by, as it is written.
    pub code: Option<String>,
    pub code_name: String,
    pub code_kind: &'static str,
    pub runs: Vec<StreamView>,
    reads: BTreeSet<String>,
}

#[derive(Serialize)]
pub struct ColumnView {
    pub name: String,
    pub data_type: String,
    pub description: Option<String>,
    pub key: bool,
    pub tests: Vec<TestView>,
    pub from: Vec<Link>,
    pub to: Vec<Link>,
}

#[derive(Serialize)]
pub struct Link {
    pub text: String,
    pub href: Option<String>,
    pub how: &'static str,
}

#[derive(Clone, Serialize)]
pub struct TestView {
    pub name: String,
    pub severity: &'static str,
    /// `passed`, `warned`, `failed`, `broken` or `not_asked`.
    pub status: &'static str,
    pub status_text: &'static str,
    pub failures: u64,
    pub at: Option<String>,
    /// The result and when that was.
    pub says: String,
    columns: Vec<String>,
}

/// All tables, each with its page.
pub async fn views(session: &Session, lineage: &Lineage, tested: &[LastTest], runs: &[RunView]) -> Result<Vec<TableView>> {
    let project = session.project()?;
    let files = files(&lineage.tables);
    let mut views: Vec<TableView> = Vec::new();
    for table in &lineage.tables {
        let mut view = view(project, lineage, table, &files, tested, runs);
        if !table.delivered.is_empty() {
            view.facts.push(("Records", fates(session, table).await?));
        }
        views.push(view);
    }
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(views)
}

fn view(
    project: &Project,
    lineage: &Lineage,
    table: &KnownTable,
    files: &BTreeMap<&str, String>,
    tested: &[LastTest],
    runs: &[RunView],
) -> TableView {
    let model = project.models().iter().find(|m| m.name == table.node);
    let sync = project.sync(&table.node).ok();
    let declared = table.declared.as_deref();
    let is_child = sync.is_some() && declared.is_none() && table.delivered.is_empty();
    let tests = model.map(|m| m.tests.as_slice()).or(declared.map(|d| d.tests.as_slice())).unwrap_or_default();
    let stream = sync.and(table.stream.as_deref()).unwrap_or_default();
    let tests: Vec<TestView> = tests.iter().map(|t| test_view(t, &table.node, stream, tested)).collect();
    let key = key(project, table);
    let described = descriptions(model, declared);
    let column = |(name, data_type): &(String, DataType)| {
        let here = ColumnName { table: table.name.clone(), column: name.clone() };
        let ends = |wanted: &dyn Fn(&Edge) -> Option<ColumnName>| {
            lineage.edges.iter().filter_map(|e| Some(link(&wanted(e)?, e.how, files))).collect::<Vec<Link>>()
        };
        ColumnView {
            name: name.clone(),
            data_type: type_name(data_type),
            description: described.get(name).cloned(),
            key: key.contains(name),
            tests: tests.iter().filter(|t| t.columns.contains(name)).cloned().collect(),
            from: ends(&|e| (e.to == here).then(|| e.from.clone())),
            to: ends(&|e| (e.from == here).then(|| e.to.clone())),
        }
    };
    let columns = table.columns.iter().map(column).collect();
    let own_runs = runs.iter().flat_map(|r| &r.streams).filter(|s| {
        let node = s.sync.split('@').next().unwrap_or(&s.sync);
        let delivered = |d: &Delivered| d.plan.sync == node && d.plan.stream == s.stream;
        node == table.node && (stream.is_empty() || s.stream == stream) || table.delivered.iter().any(delivered)
    });
    let worst = ["failed", "broken", "warned", "not_asked"].into_iter().find(|s| tests.iter().any(|t| t.status == *s));
    let description = model.and_then(|m| m.spec.description.clone()).or_else(|| {
        let of_stream = declared.and_then(|d| d.description.clone());
        of_stream.or_else(|| sync.filter(|_| !is_child).and_then(|s| s.spec.description.clone()))
    });
    TableView {
        name: table.name.clone(),
        file: files.get(table.name.as_str()).cloned().unwrap_or_default(),
        kind: if table.delivered.is_empty() { kind(model, sync.is_some()) } else { "delivery" },
        node: table.node.clone(),
        connection: table.connection.clone(),
        description,
        facts: facts(project, table, model, &key),
        columns,
        tested: worst.unwrap_or("passed"),
        tests_text: format!("{} of {} passed", tests.iter().filter(|t| t.status == "passed").count(), tests.len()),
        tests,
        code: model.map_or_else(|| mapping(&table.delivered), code),
        code_name: model.map(|m| &m.at).or(table.delivered.first().map(|d| &d.plan.at)).map(|at| at.file.to_string()).unwrap_or_default(),
        code_kind: if model.is_some_and(|m| m.is_script) { "python" } else { "sql" },
        runs: own_runs.take(RUNS).cloned().collect(),
        reads: table.reads.clone(),
    }
}

fn kind(model: Option<&Model>, sync: bool) -> &'static str {
    match model {
        Some(model) if model.is_script => "script",
        Some(model) if !model.spec.materialized.is_stored() => "view",
        Some(_) => "model",
        None if sync => "sync",
        None => "seed",
    }
}

/// SQL is shown as it is written. A script's text is not read with the project; its file is named.
fn code(model: &Model) -> Option<String> {
    (!model.is_script).then(|| model.sql.trim().to_owned())
}

/// What goes into each field of an object, by the table that it comes from.
fn mapping(delivered: &[Delivered]) -> Option<String> {
    let one = |d: &Delivered| {
        let fields: Vec<String> = d.fields.iter().map(|(field, sql)| format!("{field}: {sql}")).collect();
        format!("-- {}\n{}", d.plan.table, fields.join("\n"))
    };
    (!delivered.is_empty()).then(|| delivered.iter().map(one).collect::<Vec<_>>().join("\n\n"))
}

/// What has become of an object's records.
async fn fates(session: &Session, table: &KnownTable) -> Result<String> {
    let (project, store) = (session.project()?, session.store().await?);
    let (mut all, mut rejected) = (Fates::default(), 0);
    for delivered in &table.delivered {
        let Fates { delivered: there, unknown, gone } = delivered.fates(session).await?;
        all = Fates { delivered: all.delivered + there, unknown: all.unknown + unknown, gone: all.gone + gone };
        let identity = identity(project, &delivered.plan.sync, &delivered.from);
        rejected += store.rejected(Some(&identity), Some(&delivered.plan.stream), u32::MAX).await?.len() as u64;
    }
    let counts = [("gone since", all.gone), ("without an answer", all.unknown), ("listed by `trib rejected`", rejected)];
    let others = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!(", {} {what}", count(*n)));
    Ok(format!("{} delivered{}", count(all.delivered), others.collect::<String>()))
}

fn facts(project: &Project, table: &KnownTable, model: Option<&Model>, key: &[String]) -> Vec<(&'static str, String)> {
    let connector = project.connection(&table.connection).map(|c| format!(" ({})", c.connector)).unwrap_or_default();
    let mut facts = vec![("Where", format!("{}{connector}", table.connection))];
    let mut add = |name, value: Option<String>| facts.extend(value.filter(|v| !v.is_empty()).map(|v| (name, v)));
    if let Some(model) = model {
        add("Materialized", Some(model.spec.materialized.as_str().to_owned()));
        add("Owner", model.spec.owner.clone());
        add("Tags", Some(model.spec.tags.join(", ")));
    }
    if let Some(plan) = &table.declared {
        add("From", Some(format!("{}: {}", plan.connection, plan.stream)));
        add("Read", Some(plan.mode.as_str().to_owned()));
        add("Write", Some(plan.write.as_str().to_owned()));
        add("Tags", Some(plan.tags.join(", ")));
    }
    for Delivered { from, plan, .. } in &table.delivered {
        add("From", Some(format!("{from}: {}", plan.table)));
        add("Write", Some(plan.write.as_str().to_owned()));
    }
    if let Ok(sync) = project.sync(&table.node) {
        add("Owner", sync.spec.owner.clone());
    }
    add("Key", Some(key.join(", ")));
    facts
}

/// The columns that tell the rows of a table apart, as the project declares them.
pub fn key(project: &Project, table: &KnownTable) -> Vec<String> {
    match (project.models().iter().find(|m| m.name == table.node), &table.declared) {
        (Some(model), _) => model.spec.key.clone().unwrap_or_default().0,
        (_, Some(plan)) => plan.key.iter().map(|k| landed_name(plan, k)).collect(),
        _ => table.delivered.first().map(|d| d.plan.key.iter().map(|(field, _)| field.clone()).collect()).unwrap_or_default(),
    }
}

/// The name that a source column has in the table.
fn landed_name(plan: &trib_project::StreamPlan, column: &str) -> String {
    let renamed = plan.transform.columns.get(column).and_then(|rule| rule.rename.clone());
    renamed.unwrap_or_else(|| Naming::apply(plan.naming, column))
}

fn descriptions(model: Option<&Model>, declared: Option<&trib_project::StreamPlan>) -> BTreeMap<String, String> {
    let of_model = model.iter().flat_map(|m| &m.spec.columns).filter_map(|(name, c)| Some((name.clone(), c.description.clone()?)));
    let rules = declared.iter().flat_map(|d| d.transform.columns.iter().map(|(name, rule)| (landed_name(d, name), rule)));
    of_model.chain(rules.filter_map(|(name, rule)| Some((name, rule.description.clone()?)))).collect()
}

fn test_view(test: &DataTest, node: &str, stream: &str, tested: &[LastTest]) -> TestView {
    let last = tested.iter().find(|t| t.node == node && t.stream == stream && t.test == test.name);
    let known = [("passed", "passed"), ("warned", "warned"), ("failed", "failed"), ("broken", "could not be asked")];
    let found = last.and_then(|l| known.into_iter().find(|(status, _)| *status == l.status));
    let (status, status_text) = found.unwrap_or(("not_asked", "not asked yet"));
    let at = last.map(|l| stamp(l.tested_at));
    TestView {
        name: test.name.clone(),
        severity: if test.severity == Severity::Warn { "warn" } else { "error" },
        status,
        status_text,
        failures: last.map_or(0, |l| l.failures),
        says: at.as_ref().map_or(status_text.to_owned(), |at| format!("{status_text}, {at}")),
        at,
        columns: test.expectation.columns().to_vec(),
    }
}

fn link(end: &ColumnName, how: Step, files: &BTreeMap<&str, String>) -> Link {
    // Pages of tables stand beside each other.
    let page = files.get(end.table.as_str()).and_then(|file| file.strip_prefix("tables/"));
    Link {
        text: format!("{}.{}", end.table, end.column),
        href: page.map(|page| format!("{}#{}", address(page), address(&end.column))),
        how: match how {
            Step::Identity => "",
            Step::Transformed => "transformed",
            Step::Aggregated => "aggregated",
        },
    }
}

/// A file for each table, with a name that every file system takes.
fn files(tables: &[KnownTable]) -> BTreeMap<&str, String> {
    let mut taken = BTreeSet::new();
    let mut files = BTreeMap::new();
    for table in tables {
        let plain: String = table.name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        let mut name = plain.clone();
        let mut n = 1;
        while !taken.insert(name.to_lowercase()) {
            n += 1;
            name = format!("{plain}-{n}");
        }
        files.insert(table.name.as_str(), format!("tables/{name}.html"));
    }
    files
}

/// A name within an address.
fn address(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"._-".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// The lineage of all tables, or of one: what it comes from and what comes from it. Sources stand as their connections.
pub fn drawing(tables: &[TableView], about: Option<&str>) -> Drawing {
    let root = if about.is_some() { "../" } else { "" };
    let shown = match about {
        None => tables.iter().map(|t| t.name.as_str()).collect(),
        Some(name) => {
            let mut shown = reach(tables, name, &|t, known| t.reads.contains(known));
            shown.extend(reach(tables, name, &|t, known| tables.iter().any(|k| k.name == known && k.reads.contains(&t.name))));
            shown
        }
    };
    let mut nodes: Vec<Node> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for table in tables.iter().filter(|t| shown.contains(t.name.as_str())) {
        places.insert(&table.name, nodes.len());
        nodes.push(Node {
            label: table.name.clone(),
            link: Some(format!("{root}{}", table.file)),
            kind: table.kind,
            title: table.description.clone().unwrap_or_else(|| format!("{} {}", table.kind, table.node)),
            focus: about == Some(table.name.as_str()),
        });
    }
    let mut edges = BTreeSet::new();
    for table in tables.iter().filter(|t| shown.contains(t.name.as_str())) {
        let to = places[table.name.as_str()];
        for read in &table.reads {
            match places.get(read.as_str()) {
                Some(from) => edges.extend((*from != to).then_some((*from, to))),
                None if tables.iter().any(|t| t.name == *read) || table.kind == "seed" => {}
                None => {
                    let connection = read.split_once(": ").map_or(read.as_str(), |(connection, _)| connection);
                    let from = *places.entry(connection).or_insert_with(|| {
                        let title = format!("connection {connection}");
                        nodes.push(Node { label: connection.to_owned(), link: None, kind: "source", title, focus: false });
                        nodes.len() - 1
                    });
                    edges.insert((from, to));
                }
            }
        }
    }
    draw(&nodes, &edges.into_iter().collect::<Vec<_>>())
}

/// A table and all that `next` leads to from it.
fn reach<'a>(tables: &'a [TableView], from: &'a str, next: &dyn Fn(&TableView, &str) -> bool) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::from([from]);
    let mut left = vec![from];
    while let Some(known) = left.pop() {
        for table in tables.iter().filter(|t| next(t, known)) {
            if reached.insert(table.name.as_str()) {
                left.push(&table.name);
            }
        }
    }
    reached
}

/// A type as SQL calls it.
pub fn type_name(data_type: &DataType) -> String {
    use DataType as D;
    match data_type {
        D::Boolean => "boolean".to_owned(),
        D::Int8 | D::Int16 | D::UInt8 => "smallint".to_owned(),
        D::Int32 | D::UInt16 => "integer".to_owned(),
        D::Int64 | D::UInt32 => "bigint".to_owned(),
        D::UInt64 => "decimal(20, 0)".to_owned(),
        D::Float16 | D::Float32 => "real".to_owned(),
        D::Float64 => "double".to_owned(),
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) => format!("decimal({p}, {s})"),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => "text".to_owned(),
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => "bytes".to_owned(),
        D::Date32 | D::Date64 => "date".to_owned(),
        D::Time32(_) | D::Time64(_) => "time".to_owned(),
        D::Timestamp(TimeUnit::Nanosecond, None) => "timestamp(9)".to_owned(),
        D::Timestamp(_, None) => "timestamp".to_owned(),
        D::Timestamp(..) => "timestamp with time zone".to_owned(),
        D::List(item) | D::LargeList(item) => format!("{}[]", type_name(item.data_type())),
        D::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
            format!("struct({})", fields.join(", "))
        }
        D::Dictionary(_, value) => type_name(value),
        other => other.to_string().to_lowercase(),
    }
}
