//! Unit tests of models and streams: given these rows, the query or the sync gives those.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use trib_core::{Catalog, Code, Error, ReadMode, Stream, TableName};
use trib_engine::catalog::Over;
use trib_engine::change_source::sendable;
use trib_engine::failure::query_error;
use trib_engine::{Engine, Queries, Relation, Tables};
use trib_kit::object as rows;
use trib_project::data_test::quoted;
use trib_project::{Model, Project, UnitTest};

use crate::app::Session;
use crate::assemble::{Ask, stream_task};
use crate::deliveries::{self, Places};
use crate::exit::{Failure, Result};
use crate::render::verdicts::cell;
use crate::sample::transformed;

/// How a unit test went.
pub struct UnitTested {
    name: String,
    node: String,
    place: String,
    /// What is not as expected, one line each; empty when it passed.
    pub differences: Vec<String>,
}

impl UnitTested {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    pub fn text(&self) -> String {
        let lines: String = self.differences.iter().map(|d| format!("  {d}\n")).collect();
        format!("failed {}: unit test {} ({})\n{lines}", self.node, self.name, self.place)
    }

    pub fn to_json(&self) -> Value {
        json!({"test": self.name, "node": self.node, "place": self.place, "passed": self.passed(), "differences": self.differences})
    }
}

/// Runs one unit test. No table is read; the types of given columns are those of the table where it is there, and guessed elsewhere.
pub async fn ask(session: &Session, test: &UnitTest) -> Result<UnitTested> {
    let expected: Vec<Value> = test.spec.expect.iter().map(object).collect();
    let place = |Failure(errors)| Failure(errors.into_iter().map(|e| test.at.mark(e)).collect());
    let differences = match of_delivery(session, test).await.map_err(place)? {
        Some(requests) => differences(expected, requests, test.spec.ordered),
        None => {
            let (schema, got) = results(session, test).await?;
            match normal(&expected, &schema) {
                Ok(expected) => differences(expected, got, test.spec.ordered),
                Err(e) => vec![e],
            }
        }
    };
    let place = format!("{}:{}", test.at.file, test.at.line);
    Ok(UnitTested { name: test.name.clone(), node: test.spec.node.clone(), place, differences })
}

/// What the node gives for the rows of a test.
pub async fn results(session: &Session, test: &UnitTest) -> Result<(SchemaRef, Vec<Value>)> {
    let project = session.project()?;
    let place = |e: Error| test.at.mark(e);
    let (schema, batches) = match project.models().iter().find(|m| m.name == test.spec.node) {
        Some(model) => of_model(session, test, model).await?,
        None => of_stream(session, test).await.map_err(|Failure(errors)| Failure(errors.into_iter().map(place).collect()))?,
    };
    Ok((schema, batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| Value::Object(rows::row(b, i)))).collect()))
}

async fn of_model(session: &Session, test: &UnitTest, model: &Model) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let project = session.project()?;
    let place = |e: Error| test.at.mark(e);
    let real = crate::models::here(session, model).await?;
    let mut over = Vec::new();
    for (name, given) in &test.spec.given {
        let table = TableName::parse(name);
        let known = match &real {
            Some(real) => real.schema(&format!("select * from {}", quoted(&table))).await.ok(),
            None => None,
        };
        let batch = given_batch(&session.engine()?, test, name, given, known.as_ref()).map_err(place)?;
        let rows = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(query_error)?);
        let names = match project.models().iter().find(|m| m.is_called(&table)) {
            Some(model) => vec![model.table.clone(), TableName::new(None, &model.name)],
            None => vec![table],
        };
        over.extend(names.into_iter().map(|name| (name, Over::Table(rows.clone()))));
    }
    let tables =
        Given { views: views(project, model), connections: model.elsewhere.iter().map(|(connection, _)| connection.clone()).collect() };
    let mut queries = Queries::new(session.engine()?, Arc::new(tables)).with(over);
    if let Some(now) = test.spec.now {
        queries = queries.at(now);
    }
    if model.is_script {
        let made = crate::models::script(session, model, &queries, |line| session.output.note(line)).await?;
        return Ok((made.schema.clone(), made.rows()?));
    }
    let (schema, stream) = queries.rows(&model.sql).await.map_err(|e| missing(e, test).unwrap_or_else(|e| model.mark(e)))?;
    Ok((schema, stream.try_collect::<Vec<RecordBatch>>().await?))
}

/// What a sync makes of a stream's rows before they are written. Its source is not asked: the stream has the columns that are given.
async fn of_stream(session: &Session, test: &UnitTest) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let project = session.project()?;
    let found = test.spec.node.split_once('/').and_then(|(name, stream)| Some((project.syncs().iter().find(|s| s.name == name)?, stream)));
    let Some((sync, name)) = found else {
        let error =
            Error::new(Code::NotFound, "a unit test is about a model, or a stream of a sync").detail(&test.spec.node).setting("node");
        let names: Vec<String> =
            project.models().iter().map(|m| m.name.clone()).chain(project.syncs().iter().map(|s| format!("{}/…", s.name))).collect();
        return Err(error.hint(format!("there are {}", names.join(", "))).into());
    };
    if test.spec.now.is_some() {
        return Err(Error::new(Code::Unsupported, "a stream's test has no clock that could be stopped").setting("now").into());
    }
    let Some(given) = test.spec.given.get(name) else {
        return Err(Error::new(Code::ConfigInvalid, "the unit test gives no rows of the stream").detail(name).setting("given").into());
    };
    let engine = session.engine()?;
    let batch = given_batch(&engine, test, name, given, None)?;
    let table = name.rsplit('.').next().unwrap_or(name);
    let mut stream = Stream::new(name, table, batch.schema());
    stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental, ReadMode::Cdc];
    let connection = sync.spec.from.0.first().map(String::as_str).unwrap_or_default();
    let resolved = sync.streams_for(connection, &Catalog { streams: vec![stream.clone()] })?;
    if let Some(error) = resolved.errors.into_iter().next() {
        return Err(error.into());
    }
    let plan = resolved.streams.first().ok_or_else(|| Error::new(Code::NotFound, "the sync leaves this stream out").detail(name))?;
    let task = stream_task(plan, &stream, false, &Ask::default())?;
    let columns: Result<Vec<usize>, _> = task.spec.schema.fields().iter().map(|f| batch.schema().index_of(f.name())).collect();
    let batch = batch.project(&columns.map_err(Error::from)?).map_err(Error::from)?;
    let batches = transformed(&engine, &task.spec, vec![batch]).await?;
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    Ok((schema, batches))
}

/// The requests that a sync would send to an API for the rows of a test, as if nothing had been delivered before; `None` when the node is no delivery. Nobody
/// is asked, and no credentials are needed.
async fn of_delivery(session: &Session, test: &UnitTest) -> Result<Option<Vec<Value>>> {
    let project = session.project()?;
    let found = test.spec.node.split_once('/').and_then(|(name, stream)| Some((project.syncs().iter().find(|s| s.name == name)?, stream)));
    let Some((sync, name)) = found else { return Ok(None) };
    let connection = project.connection_as_written(&sync.spec.to)?;
    let connector = session.registry().get(&connection.connector)?;
    // What cannot be made without its settings is none that a manifest describes.
    let Ok(destination) = connector.make_destination(&connection.settings_for(&connector.schema), &connection.context(project)) else {
        return Ok(None);
    };
    let Some(api) = destination.deliveries() else { return Ok(None) };
    let (plans, errors) = sync.deliveries();
    let Some(plan) = plans.into_iter().find(|p| p.stream == name) else {
        let missing = || Error::new(Code::NotFound, "the sync leaves this stream out").detail(name).setting("node");
        return Err(errors.into_iter().next().unwrap_or_else(missing).into());
    };
    let Some(given) = test.spec.given.get(name) else {
        return Err(Error::new(Code::ConfigInvalid, "the unit test gives no rows of the stream").detail(name).setting("given").into());
    };
    let engine = session.engine()?;
    let batch = given_batch(&engine, test, name, given, None)?;
    let rows = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(query_error)?);
    let tables = Given { views: Vec::new(), connections: Vec::new() };
    let mut queries = Queries::new(engine, Arc::new(tables)).with(vec![(plan.table.clone(), Over::Table(rows))]);
    if let Some(now) = test.spec.now {
        queries = queries.at(now);
    }
    // Nobody is asked: the object is as the manifest has it.
    let object = api.object(&plan.object)?;
    let delivery =
        deliveries::delivery(api, &queries, &plan, &object, true, Places { connection: String::new(), ledger: TableName::new(None, "") })
            .await?;
    let (_, changes) = queries.rows(&delivery.changes_sql(None)).await?;
    let (mut sent, mut requests) = (Vec::new(), Vec::new());
    for batch in changes.try_collect::<Vec<RecordBatch>>().await? {
        let (fit, refused) = sendable(&batch)?;
        requests.extend(refused.into_iter().map(|(_, reason)| json!({"invalid": reason})));
        sent.push(Ok(fit));
    }
    let key: Vec<String> = plan.key.iter().map(|(field, _)| field.clone()).collect();
    requests.extend(api.requests(&plan.object, &key, Box::pin(futures::stream::iter(sent))).await?);
    Ok(Some(requests))
}

/// Given rows with the types that the test declares, those that are known, or those that its values suggest.
fn given_batch(
    engine: &Engine,
    test: &UnitTest,
    name: &str,
    given: &[BTreeMap<String, Value>],
    known: Option<&SchemaRef>,
) -> trib_core::Result<RecordBatch> {
    let mut fields: Vec<Field> = Vec::new();
    for (column, sql_type) in test.spec.types.get(name).into_iter().flatten() {
        fields.push(Field::new(column, engine.sql_type(sql_type).map_err(|e| e.setting(format!("types.{name}.{column}")))?, true));
    }
    let rest = known.iter().flat_map(|s| s.fields().iter()).filter(|f| test.spec.types.get(name).is_none_or(|t| !t.contains_key(f.name())));
    fields.extend(rest.map(|f| f.as_ref().clone()));
    let given: Vec<Value> = given.iter().map(object).collect();
    let schema = schema_of(&given, Some(&Arc::new(Schema::new(fields))));
    rows::read_rows(&given, &schema).map_err(|e| misfit(e, name, &schema))
}

/// A table that the test forgets is the test's mistake, not the model's.
fn missing(e: Error, test: &UnitTest) -> Result<Error, Error> {
    if e.code() == Code::NotFound && e.message() == NOT_GIVEN { Ok(test.at.mark(e.setting("given"))) } else { Err(e) }
}

const NOT_GIVEN: &str = "the unit test gives no rows for a table that the model reads";

/// What a test sees beside the rows it gives: views, which have no rows of their own.
#[derive(Debug)]
struct Given {
    views: Vec<(TableName, String, String)>,
    /// Names that stand before those of tables.
    connections: Vec<String>,
}

fn views(project: &Project, model: &Model) -> Vec<(TableName, String, String)> {
    let models = project.models().iter().filter(|m| m.spec.connection == model.spec.connection && !m.spec.materialized.is_stored());
    models.map(|m| (m.table.clone(), m.name.clone(), m.sql.clone())).collect()
}

#[async_trait]
impl Tables for Given {
    async fn find(&self, wanted: &TableName) -> trib_core::Result<Option<Relation>> {
        let named = |(table, name, _): &&(TableName, String, String)| table == wanted || wanted.schema.is_none() && *name == wanted.name;
        match self.views.iter().find(named) {
            Some((_, _, sql)) => Ok(Some(Relation::View(sql.clone()))),
            None => Err(Error::new(Code::NotFound, NOT_GIVEN)
                .detail(wanted.to_string())
                .hint(format!("give some, or none: `given: {{{wanted}: []}}`"))),
        }
    }

    fn others(&self) -> Vec<String> {
        self.connections.clone()
    }

    fn other(&self, _: &str) -> Option<Arc<dyn Tables>> {
        Some(Arc::new(Given { views: Vec::new(), connections: Vec::new() }))
    }
}

fn object(row: &BTreeMap<String, Value>) -> Value {
    Value::Object(row.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>())
}

/// The columns of the table, and those that only the test knows, by their values.
fn schema_of(rows: &[Value], known: Option<&SchemaRef>) -> SchemaRef {
    let mut fields: Vec<Field> = known.iter().flat_map(|s| s.fields().iter()).map(|f| f.as_ref().clone().with_nullable(true)).collect();
    for row in rows.iter().filter_map(Value::as_object) {
        for name in row.keys() {
            if !fields.iter().any(|f| f.name() == name) {
                let values = rows.iter().map(|r| &r[name.as_str()]).filter(|v| !v.is_null());
                fields.push(Field::new(name, guess(values), true));
            }
        }
    }
    Arc::new(Schema::new(fields))
}

fn guess<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> DataType {
    let all = |test: &dyn Fn(&Value) -> bool| values.clone().all(test);
    let text = |test: &dyn Fn(&str) -> bool| all(&|v| v.as_str().is_some_and(test));
    let zone = Some("UTC".into());
    if values.clone().next().is_none() {
        DataType::Utf8
    } else if all(&Value::is_boolean) {
        DataType::Boolean
    } else if all(&|v| v.is_i64()) {
        DataType::Int64
    } else if all(&Value::is_number) {
        DataType::Float64
    } else if text(&|t| t.parse::<chrono::NaiveDate>().is_ok()) {
        DataType::Date32
    } else if text(&|t| chrono::DateTime::parse_from_rfc3339(t).is_ok()) {
        DataType::Timestamp(TimeUnit::Microsecond, zone)
    } else if text(&|t| t.replace(' ', "T").parse::<chrono::NaiveDateTime>().is_ok()) {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    } else {
        DataType::Utf8
    }
}

fn misfit(e: Error, what: &str, schema: &Schema) -> Error {
    let types: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    Error::new(Code::DataInvalid, "the rows of a unit test do not fit the table's columns")
        .detail(format!("{what}: {}", types.join(", ")))
        .source(e)
}

/// Expected rows in the form that the result's rows have.
fn normal(expected: &[Value], schema: &SchemaRef) -> Result<Vec<Value>, String> {
    let mut fields: Vec<Field> = Vec::new();
    for row in expected.iter().filter_map(Value::as_object) {
        for name in row.keys() {
            match schema.field_with_name(name) {
                Err(_) => return Err(format!("the result has no column {name}")),
                Ok(field) if !fields.iter().any(|f| f.name() == name) => fields.push(field.clone().with_nullable(true)),
                Ok(_) => {}
            }
        }
    }
    let schema = Schema::new(fields);
    let batch = rows::read_rows(expected, &schema).map_err(|e| {
        let types: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        format!("the expected rows do not fit the result's columns ({}): {}", types.join(", "), e.causes().join("; "))
    })?;
    // Columns that a row does not name are not compared in it.
    let named = |i: usize, row: Value| match (expected[i].as_object(), row) {
        (Some(written), Value::Object(row)) => Value::Object(row.into_iter().filter(|(k, _)| written.contains_key(k)).collect()),
        (_, row) => row,
    };
    Ok((0..batch.num_rows()).map(|i| named(i, Value::Object(rows::row(&batch, i)))).collect())
}

/// One line for each cell that differs, and each row that is missing or that nobody expected. Rows are matched with those that are
/// most like them, or in order.
fn differences(expected: Vec<Value>, mut got: Vec<Value>, ordered: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left: Vec<(usize, Value)> = Vec::new();
    let mut pairs: Vec<(usize, Value, Value)> = Vec::new();
    for (i, row) in expected.into_iter().enumerate() {
        match got.iter().position(|g| wrong_cells(&row, g).is_empty()) {
            Some(at) if !ordered => drop(got.remove(at)),
            _ if ordered && !got.is_empty() => pairs.push((i, row, got.remove(0))),
            _ => left.push((i, row)),
        }
    }
    for (i, row) in left {
        match got.iter().enumerate().min_by_key(|(_, g)| (wrong_columns(&row, g), wrong_cells(&row, g).len())).map(|(at, _)| at) {
            Some(at) => {
                let found = got.remove(at);
                pairs.push((i, row, found));
            }
            None => lines.push(format!("row {} is missing: {row}", i + 1)),
        }
    }
    pairs.sort_by_key(|(i, _, _)| *i);
    for (i, row, found) in pairs {
        for Wrong { path, expected, got } in wrong_cells(&row, &found) {
            let told = |value: Option<Value>| value.map_or_else(|| "nothing".to_owned(), |v| cell(&v));
            lines.push(format!("row {}, {path}: expected {}, got {}", i + 1, told(expected), told(got)));
        }
    }
    lines.extend(got.iter().map(|row| format!("nobody expected {row}")));
    lines
}

/// A value that is not as expected; `None`: none is there, or none should be.
struct Wrong {
    /// `column`, or `body.inputs[0].name` within one.
    path: String,
    expected: Option<Value>,
    got: Option<Value>,
}

/// What a row or a request names at its top is compared, and all that is within it; of a request's headers, those that are named.
fn wrong_cells(expected: &Value, got: &Value) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (name, value) in expected.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("headers", Value::Object(named)) if got[name.as_str()].is_object() => {
                for (header, value) in named {
                    compare(format!("headers.{header}"), Some(value), got[name.as_str()].get(header), &mut wrong);
                }
            }
            // A column that is not there is NULL.
            _ => compare(name.clone(), Some(value), Some(&got[name.as_str()]), &mut wrong),
        }
    }
    wrong
}

fn wrong_columns(expected: &Value, got: &Value) -> usize {
    let mut columns: Vec<String> = wrong_cells(expected, got).into_iter().map(|w| w.path).collect();
    columns.iter_mut().for_each(|path| path.truncate(path.find(['.', '[']).unwrap_or(path.len())));
    columns.dedup();
    columns.len()
}

fn compare(path: String, expected: Option<&Value>, got: Option<&Value>, wrong: &mut Vec<Wrong>) {
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            let names = expected.keys().chain(got.keys().filter(|name| !expected.contains_key(*name)));
            names.for_each(|name| compare(format!("{path}.{name}"), expected.get(name), got.get(name), wrong));
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            let most = expected.len().max(got.len());
            (0..most).for_each(|i| compare(format!("{path}[{i}]"), expected.get(i), got.get(i), wrong));
        }
        (Some(expected), Some(got)) if same(expected, got) => {}
        (expected, got) => wrong.push(Wrong { path, expected: expected.cloned(), got: got.cloned() }),
    }
}

/// Floats are compared up to what adding in another order may change.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) if a.is_f64() || b.is_f64() => (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_differ_are_named() {
        let rows = |values: &[(i64, &str)]| values.iter().map(|(id, v)| json!({"id": id, "v": v})).collect::<Vec<_>>();
        let cases: [(&[(i64, &str)], &[(i64, &str)], bool, &[&str]); 5] = [
            (&[(1, "a"), (2, "b")], &[(2, "b"), (1, "a")], false, &[]),
            (&[(1, "a"), (2, "b")], &[(2, "c"), (1, "a")], false, &["row 2, v: expected b, got c"]),
            (&[(1, "a")], &[], false, &[r#"row 1 is missing: {"id":1,"v":"a"}"#]),
            (&[], &[(1, "a")], false, &[r#"nobody expected {"id":1,"v":"a"}"#]),
            (&[(1, "a"), (2, "a")], &[(2, "a"), (1, "a")], true, &["row 1, id: expected 1, got 2", "row 2, id: expected 2, got 1"]),
        ];
        for (expected, got, ordered, lines) in cases {
            assert_eq!(differences(rows(expected), rows(got), ordered), lines);
        }
        let request = |name: Value| vec![json!({"method": "POST", "headers": {"A": "1", "B": "2"}, "body": {"inputs": [name]}})];
        let cases: [(Value, Value, &[&str]); 5] = [
            (json!({"name": "Ann"}), json!({"name": "Ann"}), &[]),
            (json!({"name": "Anna"}), json!({"name": "Ann"}), &["row 1, body.inputs[0].name: expected Anna, got Ann"]),
            (json!({"name": "Ann", "age": 3}), json!({"name": "Ann"}), &["row 1, body.inputs[0].age: expected 3, got nothing"]),
            (json!({}), json!({"name": "Ann"}), &["row 1, body.inputs[0].name: expected nothing, got Ann"]),
            (json!({"a": [1, 2]}), json!({"a": [1]}), &["row 1, body.inputs[0].a[1]: expected 2, got nothing"]),
        ];
        for (expected, got, lines) in cases {
            assert_eq!(differences(request(expected), request(got), false), lines);
        }
        let headers = |value: Value| vec![json!({"headers": value})];
        assert!(differences(headers(json!({"A": "1"})), headers(json!({"A": "1", "B": "2"})), false).is_empty(), "only what is named");
        assert_eq!(
            differences(headers(json!({"C": "1"})), headers(json!({"A": "1"})), false),
            ["row 1, headers.C: expected 1, got nothing"]
        );
        assert!(same(&json!(0.3), &json!(0.1 + 0.2)));
        assert!(!same(&json!("1"), &json!(1)));
    }
}
