//! The tables that queries see: those of a connection by their logical names, the project's views, and the control database as `_trib`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use serde_json::Value;
use trib_core::error::closest;
use trib_core::{Code, Error, Result, TableName};
use trib_engine::session::query_error;
use trib_engine::{NativeTable, Relation, Tables};
use trib_project::{Environment, Project};
use trib_store::{Column, Kind, Store};

/// The schema that shows the control database.
pub const CONTROL: &str = "_trib";

/// All tables, found when a query names them.
pub struct ProjectTables {
    native: Option<Arc<dyn NativeTable>>,
    store: Option<Arc<Store>>,
    environment: Environment,
    /// Tables that are there, as the project names them.
    known: Vec<TableName>,
    /// What the project makes in this connection.
    made: Vec<Made>,
}

struct Made {
    table: TableName,
    name: String,
    /// The query, where that is all there is.
    view: Option<String>,
}

impl ProjectTables {
    /// `native` left out, only the control database is seen; `store` left out, only the connection is.
    pub async fn new(native: Option<Arc<dyn NativeTable>>, store: Option<Arc<Store>>, project: &Project, connection: &str) -> Result<Self> {
        let environment = project.environment.clone();
        let physical = match &native {
            Some(native) => native.tables().await?,
            None => Vec::new(),
        };
        let models = project.models().iter().filter(|m| m.spec.connection == connection && m.spec.enabled);
        let models = models.map(|m| Made {
            table: m.table.clone(),
            name: m.name.clone(),
            view: (!m.spec.materialized.is_stored()).then(|| m.sql.clone()),
        });
        let seeds = project.seeds().iter().filter(|s| s.connection == connection);
        let made: Vec<Made> = models.chain(seeds.map(|s| Made { table: s.table.clone(), name: s.name.clone(), view: None })).collect();
        let mut known: Vec<TableName> = physical.into_iter().map(|t| logical(&environment, t)).collect();
        known.extend(made.iter().filter(|m| m.view.is_some()).map(|m| m.table.clone()));
        known.extend(store.iter().flat_map(|_| Store::tables()).map(|name| TableName::new(Some(CONTROL), name)));
        known.sort();
        known.dedup();
        Ok(Self { native, store, environment, known, made })
    }

    fn missing(&self, wanted: &TableName) -> Error {
        let error = Error::new(Code::NotFound, "there is no such table").detail(wanted.to_string());
        if let Some(made) = self.made.iter().find(|m| m.means(wanted)) {
            return error.hint(format!("`trib run {}` makes it", made.name));
        }
        let known: Vec<String> = self.known.iter().filter(|t| t.schema.as_deref() != Some(CONTROL)).map(ToString::to_string).collect();
        let names = known.iter().map(String::as_str).chain(self.made.iter().map(|m| m.name.as_str()));
        match (closest(&wanted.to_string(), names), known.as_slice()) {
            (Some(near), _) => error.hint(format!("did you mean {near}?")),
            (None, []) => error.hint("there are no tables yet: `trib run` makes them"),
            (None, some) => error.hint(format!("there are {}", some.iter().take(10).cloned().collect::<Vec<_>>().join(", "))),
        }
    }
}

impl Made {
    fn means(&self, name: &TableName) -> bool {
        self.table == *name || name.schema.is_none() && self.name == name.name
    }
}

#[async_trait]
impl Tables for ProjectTables {
    async fn find(&self, wanted: &TableName) -> Result<Option<Relation>> {
        if let (Some(CONTROL), Some(store)) = (wanted.schema.as_deref(), &self.store) {
            return control_table(store, &wanted.name).await.map(|t| Some(Relation::Table(t)));
        }
        let made = self.made.iter().find(|m| m.means(wanted));
        if let Some(sql) = made.and_then(|m| m.view.as_ref()) {
            return Ok(Some(Relation::View(sql.clone())));
        }
        let wanted = made.map_or(wanted, |m| &m.table);
        if let Some(native) = &self.native {
            for table in [self.environment.physical(wanted), wanted.clone()] {
                if let Some(provider) = native.provider(&table, None).await? {
                    return Ok(Some(Relation::Table(provider)));
                }
            }
        }
        Err(self.missing(wanted))
    }

    fn known(&self) -> Vec<TableName> {
        self.known.clone()
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
        f.debug_tuple("ProjectTables").field(&self.known).finish()
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
