//! A unit test made from live data: some rows of what a model reads, what it makes of them, and nothing in it that only the real tables may know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use chrono::{SubsecRound, Utc};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use trib_core::name::system;
use trib_core::{Code, Error, TableName};
use trib_engine::Queries;
use trib_engine::reads::Reads;
use trib_kit::object::row;
use trib_kit::sql::literal;
use trib_project::data_test::{ident, quoted};
use trib_project::place::At;
use trib_project::{Model, UnitTest, format};

use crate::app::Session;
use crate::exit::Result;
use crate::models;
use crate::unit_tests::{ask, results};

pub struct Recording<'a> {
    pub model: &'a Model,
    /// At most so many of each table.
    pub rows: usize,
    /// Columns whose texts are shown as they are.
    pub plain: &'a [String],
    /// Columns whose numbers are hidden too.
    pub mask: &'a [String],
}

/// What was written.
pub struct Recorded {
    pub file: String,
    pub given: usize,
    pub expected: usize,
}

/// Writes `tests/MODEL_recorded.yaml`.
pub async fn record(session: &Session, recording: &Recording<'_>) -> Result<Recorded> {
    let (project, model) = (session.project()?, recording.model);
    let file = format!("tests/{}_recorded.yaml", model.name);
    let path = project.dir.join(&file);
    if path.exists() {
        let error = Error::new(Code::UsageInvalid, "the recorded test is there already").file(&file, None, None);
        return Err(error.hint("rename the file to keep it, or remove it to record anew").into());
    }
    let sampled = sample(&models::queries(session, model).await?, recording).await?;
    let views = project.models().iter().filter(|m| !m.spec.materialized.is_stored()).map(|m| m.sql.as_str());
    let mut mask = Mask::new(recording, views.chain([model.sql.as_str()]));
    let (mut given, mut types) = (Map::new(), Map::new());
    for (table, schema, rows) in &sampled {
        let rows: Vec<Value> = rows.iter().map(|row| mask.row(schema, row)).collect();
        given.insert(table.clone(), rows.into());
        let named = schema.fields().iter().filter_map(|f| Some((f.name().clone(), Value::from(sql_name(f.data_type())?))));
        types.insert(table.clone(), Value::Object(named.collect()));
    }
    let count = sampled.iter().map(|(_, _, rows)| rows.len()).sum();
    let name = format!("{}_recorded", model.name);
    let now = Utc::now().trunc_subsecs(0);
    let mut written = json!({"node": model.name, "now": now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true), "types": types, "given": given, "expect": []});
    let (_, expected) = results(session, &test(&name, &file, &written)?).await?;
    written["expect"] = expected.clone().into();
    // What is not the same twice (a random number, an order that is left open) is no test.
    if !ask(session, &test(&name, &file, &written)?).await?.passed() {
        let error =
            Error::new(Code::Unsupported, "the model does not give the same rows twice, so they cannot be expected").detail(&model.name);
        return Err(model.at.mark(error).into());
    }
    write(&path, &format::format_yaml(&yaml(&name, &project.environment.name, &written))?)?;
    Ok(Recorded { file, given: count, expected: expected.len() })
}

/// Each table's name, columns and rows: those of the first table, and of others rows that join them.
type Sampled = (String, Schema, Vec<Map<String, Value>>);

async fn sample(queries: &Queries, recording: &Recording<'_>) -> Result<Vec<Sampled>> {
    let model = recording.model;
    let reads = if model.is_script { Reads::default() } else { Reads::of(queries, &model.sql).await.map_err(|e| model.mark(e))? };
    let mut left: BTreeMap<TableName, BTreeSet<String>> = reads.tables.clone();
    if model.is_script {
        left.extend(model.mentions.iter().map(|m| (TableName::parse(&m.name()), BTreeSet::new())));
    }
    let mut done: Vec<(TableName, Schema, Vec<Map<String, Value>>)> = Vec::new();
    while !left.is_empty() {
        // One that is joined to what is there, or else the first that the query names.
        let joined = |table: &TableName| {
            reads.equal.iter().flat_map(|(a, b)| [(a, b), (b, a)]).find_map(|((here, column), (there, other))| {
                let (_, _, rows) = done.iter().find(|(known, _, _)| known == there).filter(|_| here == table)?;
                let values: BTreeSet<String> = rows.iter().filter_map(|row| constant(row.get(other)?)).collect();
                Some((column.clone(), values))
            })
        };
        let named = |table: &TableName| model.mentions.iter().position(|m| m.name() == table.to_string()).unwrap_or(usize::MAX);
        let next = left.keys().find(|t| joined(t).is_some()).or_else(|| left.keys().min_by_key(|t| named(t))).cloned();
        let Some(table) = next else { break };
        let columns = left.remove(&table).unwrap_or_default();
        let sql_name = model.mentions.iter().find(|m| m.name() == table.to_string()).map_or_else(|| quoted(&table), |m| m.sql());
        let condition = match joined(&table) {
            Some((column, values)) if !values.is_empty() => {
                format!(" where {} in ({})", ident(&column), values.into_iter().collect::<Vec<_>>().join(", "))
            }
            _ => String::new(),
        };
        // A view in between names more columns than the model takes from it, and wants to find them.
        let direct = model.mentions.iter().any(|m| m.name() == table.to_string());
        let columns = if columns.is_empty() || !direct { theirs(queries, &sql_name).await? } else { columns.into_iter().collect() };
        let list: Vec<String> = columns.iter().map(|c| ident(c)).collect();
        let sql = format!("select {} from {sql_name}{condition} limit {}", list.join(", "), recording.rows);
        let (schema, rows) = queries.rows(&sql).await?;
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| row(b, i))).collect();
        done.push((table, schema.as_ref().clone(), rows));
    }
    Ok(done.into_iter().map(|(table, schema, rows)| (table.to_string(), schema, rows)).collect())
}

/// All columns of a table but our own.
async fn theirs(queries: &Queries, table: &str) -> Result<Vec<String>> {
    let schema = queries.schema(&format!("select * from {table}")).await?;
    Ok(schema.fields().iter().map(|f| f.name().clone()).filter(|n| !n.starts_with(system::PREFIX)).collect())
}

fn constant(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(literal(text)),
        other => Some(other.to_string()),
    }
}

/// Puts names in the place of values: the same for the same value, wherever it stands, so that joins and groups stay what they are.
struct Mask<'a> {
    recording: &'a Recording<'a>,
    /// Texts that the SQL itself names.
    known: BTreeSet<String>,
    texts: HashMap<String, String>,
    numbers: HashMap<String, usize>,
}

impl<'a> Mask<'a> {
    fn new<'s>(recording: &'a Recording<'a>, sql: impl Iterator<Item = &'s str>) -> Self {
        // Between two quotes stands a text, or what is between two texts, which is none of the values.
        let known = sql.flat_map(|sql| sql.split('\'').map(str::to_owned)).collect();
        Self { recording, known, texts: HashMap::new(), numbers: HashMap::new() }
    }

    fn row(&mut self, schema: &Schema, row: &Map<String, Value>) -> Value {
        let mut masked = Map::new();
        for (column, value) in row {
            let data_type = schema.field_with_name(column).map_or(DataType::Null, |f| f.data_type().clone());
            let hidden = self.recording.mask.contains(column);
            let value = match value {
                Value::String(text)
                    if data_type == DataType::Utf8 && !self.recording.plain.contains(column) && (hidden || !self.known.contains(text)) =>
                {
                    let next = self.texts.len() + 1;
                    Value::from(self.texts.entry(text.clone()).or_insert_with(|| format!("{column}_{next}")).clone())
                }
                Value::Null => Value::Null,
                other if hidden && data_type.is_numeric() => {
                    let next = self.numbers.len() + 1;
                    Value::from(*self.numbers.entry(other.to_string()).or_insert(next))
                }
                other => other.clone(),
            };
            masked.insert(column.clone(), value);
        }
        Value::Object(masked)
    }
}

fn test(name: &str, file: &str, written: &Value) -> Result<UnitTest> {
    let spec = serde_json::from_value(written.clone()).map_err(Error::from)?;
    Ok(UnitTest { name: name.to_owned(), spec, at: At::start_of(file) })
}

/// A type by a name that a test may give it.
fn sql_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Utf8 => "text".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        _ => return None,
    })
}

/// A row a line.
fn yaml(name: &str, environment: &str, written: &Value) -> String {
    let mut out = format!(
        "# Recorded from {environment}. Texts are masked, numbers and times are not: look through it before you share it.\n{name}:\n"
    );
    out += &format!("  node: {}\n  now: {}\n", written["node"], written["now"]);
    for part in ["types", "given"] {
        out += &format!("  {part}:\n");
        for (table, value) in written[part].as_object().into_iter().flatten() {
            match value {
                Value::Array(rows) if !rows.is_empty() => {
                    out += &format!("    {}:\n", Value::from(table.as_str()));
                    rows.iter().for_each(|row| out += &format!("      - {row}\n"));
                }
                other => out += &format!("    {}: {other}\n", Value::from(table.as_str())),
            }
        }
    }
    match written["expect"].as_array() {
        Some(rows) if !rows.is_empty() => {
            out += "  expect:\n";
            rows.iter().for_each(|row| out += &format!("    - {row}\n"));
        }
        _ => out += "  expect: []\n",
    }
    out
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, text)?)
}
