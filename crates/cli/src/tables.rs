//! The tables that queries see: those of a connection by their logical names, the project's views, what lies in other connections, and the control database
//! as `_trib`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use serde_json::Value;
use trib_core::error::closest;
use trib_core::{Code, Destination, Error, Result, Source, Stream, TableName};
use trib_engine::failure::query_error;
use trib_engine::{Engine, NativeTable, Relation, SourceTable, Tables};
use trib_project::{Environment, Model, Project, Seed};
use trib_store::{Column, Kind, Store};

/// The schema that shows the control database.
pub const CONTROL: &str = "_trib";

/// How the tables of a connection are looked at.
pub enum Reach {
    /// The query engine scans them itself.
    Native(Arc<dyn NativeTable>),
    /// They are read as streams.
    Streams(Streams),
    /// They cannot be, and why.
    Closed(Error),
}

#[derive(Clone)]
pub struct Streams {
    pub engine: Engine,
    pub source: Arc<dyn Source>,
    /// The same system as a destination, where it is one: it knows how it spells the tables that were made in it.
    pub destination: Option<Arc<dyn Destination>>,
    pub pushes_filter: bool,
}

impl Reach {
    fn again(&self) -> Self {
        match self {
            Reach::Native(native) => Reach::Native(native.clone()),
            Reach::Streams(streams) => Reach::Streams(streams.clone()),
            Reach::Closed(error) => Reach::Closed(error.again()),
        }
    }
}

/// All tables, found when a query names them.
pub struct ProjectTables {
    project: Arc<Project>,
    /// The connection that names without one mean.
    home: String,
    /// Left out, only the control database is seen.
    reach: Option<Reach>,
    /// Left out, only connections are seen.
    store: Option<Arc<Store>>,
    others: Arc<BTreeMap<String, Reach>>,
}

impl ProjectTables {
    pub fn new(
        project: Arc<Project>,
        home: &str,
        reach: Option<Reach>,
        store: Option<Arc<Store>>,
        others: BTreeMap<String, Reach>,
    ) -> Self {
        Self { project, home: home.to_owned(), reach, store, others: Arc::new(others) }
    }

    /// The models that are made here.
    fn models(&self) -> impl Iterator<Item = &Model> {
        self.project.models().iter().filter(|m| m.spec.connection == self.home && m.spec.enabled)
    }

    fn seeds(&self) -> impl Iterator<Item = &Seed> {
        self.project.seeds().iter().filter(|s| s.connection == self.home)
    }

    async fn stream(&self, streams: &Streams, wanted: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        let physical = self.project.environment.physical(wanted);
        let names = [physical.to_string(), wanted.to_string()];
        let catalog = streams.source.discover(&names).await?;
        let spelled = |table: &TableName| streams.destination.as_ref().and_then(|d| Some(d.sql()?.table(table)));
        let same = |s: &Stream| {
            names.contains(&s.name) || spelled(&physical).is_some_and(|name| spelled(&TableName::parse(&s.name)) == Some(name))
        };
        let Some(stream) = catalog.streams.into_iter().find(same) else {
            let all = streams.source.discover(&[]).await?;
            let error = self.no_table(wanted);
            return Err(match closest(&wanted.to_string(), all.streams.iter().map(|s| s.name.as_str())) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(format!("`trib discover {}` lists what there is", self.home)),
            });
        };
        let table = SourceTable::new(&streams.engine, &self.home, streams.source.clone(), stream, streams.pushes_filter);
        Ok(Some(Arc::new(table?)))
    }

    fn no_table(&self, wanted: &TableName) -> Error {
        let error = Error::new(Code::NotFound, "there is no such table").detail(wanted.to_string());
        if matches!(self.reach, Some(Reach::Streams(_))) { error.connection(&self.home) } else { error }
    }

    async fn missing(&self, wanted: &TableName) -> Result<Error> {
        let error = self.no_table(wanted);
        let made = self.models().map(|m| (&m.name, &m.table)).chain(self.seeds().map(|s| (&s.name, &s.table)));
        let made: Vec<(&String, &TableName)> = made.collect();
        if let Some((name, _)) = made.iter().find(|(name, table)| *table == wanted || wanted.schema.is_none() && **name == wanted.name) {
            return Ok(error.hint(format!("`trib run {name}` makes it")));
        }
        let known: Vec<String> =
            self.known().await?.iter().filter(|t| t.schema.as_deref() != Some(CONTROL)).map(ToString::to_string).collect();
        let names = known.iter().map(String::as_str).chain(made.iter().map(|(name, _)| name.as_str()));
        Ok(match (closest(&wanted.to_string(), names), known.as_slice()) {
            (Some(near), _) => error.hint(format!("did you mean {near}?")),
            (None, []) => error.hint("there are no tables yet: `trib run` makes them"),
            (None, some) => error.hint(format!("there are {}", some.iter().take(10).cloned().collect::<Vec<_>>().join(", "))),
        })
    }
}

#[async_trait]
impl Tables for ProjectTables {
    async fn find(&self, wanted: &TableName) -> Result<Option<Relation>> {
        if let (Some(CONTROL), Some(store)) = (wanted.schema.as_deref(), &self.store) {
            return control_table(store, &wanted.name).await.map(|t| Some(Relation::Table(t)));
        }
        if let Some((connection, table)) = self.project.elsewhere(&self.home, None, wanted)
            && let Some(other) = self.other(&connection)
        {
            return other.find(&table).await;
        }
        let model = self.models().find(|m| m.is_called(wanted));
        if let (Some(model), Some(Reach::Native(_))) = (model.filter(|m| !m.spec.materialized.is_stored()), &self.reach) {
            return Ok(Some(Relation::View(model.sql.clone())));
        }
        let seed = self.seeds().find(|s| s.is_called(wanted));
        let made = model.map(|m| &m.table).or(seed.map(|s| &s.table)).unwrap_or(wanted);
        match &self.reach {
            Some(Reach::Native(native)) => {
                for table in [self.project.environment.physical(made), made.clone()] {
                    if let Some(provider) = native.provider(&table, None).await? {
                        return Ok(Some(Relation::Table(provider)));
                    }
                }
            }
            Some(Reach::Streams(streams)) => return Ok(self.stream(streams, made).await?.map(Relation::Table)),
            Some(Reach::Closed(error)) => return Err(error.again()),
            None => {}
        }
        Err(self.missing(wanted).await?)
    }

    async fn known(&self) -> Result<Vec<TableName>> {
        let physical = match &self.reach {
            Some(Reach::Native(native)) => native.tables().await?,
            _ => Vec::new(),
        };
        let mut known: Vec<TableName> = physical.into_iter().map(|t| logical(&self.project.environment, t)).collect();
        known.extend(self.models().filter(|m| !m.spec.materialized.is_stored()).map(|m| m.table.clone()));
        known.extend(self.store.iter().flat_map(|_| Store::tables()).map(|name| TableName::new(Some(CONTROL), name)));
        known.sort();
        known.dedup();
        Ok(known)
    }

    fn others(&self) -> Vec<String> {
        self.others.keys().cloned().collect()
    }

    fn other(&self, name: &str) -> Option<Arc<dyn Tables>> {
        let reach = Some(self.others.get(name)?.again());
        let (project, home, others) = (self.project.clone(), name.to_owned(), self.others.clone());
        Some(Arc::new(Self { project, home, reach, store: None, others }))
    }
}

/// The name in the project's own terms, where the environment has put its prefix before it.
pub fn logical(environment: &Environment, table: TableName) -> TableName {
    match table.schema.as_deref().and_then(|s| s.strip_prefix(&environment.schema_prefix)) {
        Some(schema) => TableName::new(Some(schema), &table.name),
        None => table,
    }
}

impl fmt::Debug for ProjectTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectTables").field(&self.home).finish()
    }
}

/// A table of the control database as it is now.
async fn control_table(store: &Store, name: &str) -> Result<Arc<dyn TableProvider>> {
    let rows = store.rows(name).await?;
    let fields: Vec<Field> = rows.columns.iter().map(|c| Field::new(c.name, data_type(c), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = rows.columns.iter().enumerate().map(|(i, c)| array(c, rows.rows.iter().map(|row| &row[i]))).collect();
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let table = MemTable::try_new(schema, vec![vec![batch]]).map_err(query_error)?;
    Ok(Arc::new(table))
}

fn data_type(column: &Column) -> DataType {
    match column.kind {
        Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Integer => DataType::Int64,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

fn array<'a>(column: &Column, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let micros = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros());
    match column.kind {
        Kind::Text | Kind::Json => Arc::new(values.map(Value::as_str).collect::<StringArray>()),
        Kind::Integer => Arc::new(values.map(Value::as_i64).collect::<Int64Array>()),
        Kind::Timestamp => {
            let times: TimestampMicrosecondArray = values.map(|v| v.as_str().and_then(micros)).collect();
            Arc::new(times.with_timezone("UTC"))
        }
    }
}
