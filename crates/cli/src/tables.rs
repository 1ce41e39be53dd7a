//! The tables that `trib query` sees: those of the warehouse by their logical names, and the control database as `_trib`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use futures::StreamExt;
use serde_json::Value;
use trib_core::error::closest;
use trib_core::{BatchStream, Code, Error, Result, TableName};
use trib_engine::session::query_error;
use trib_engine::{Engine, NativeTable};
use trib_project::Environment;
use trib_store::{Column, Kind, Store};

/// The schema that shows the control database.
pub const CONTROL: &str = "_trib";
/// The engine's own catalog, and its schema for names without one.
const CATALOG: &str = "tributary";
const NO_SCHEMA: &str = "public";

/// All tables, found when a query names them.
#[derive(Clone)]
pub struct Tables(Arc<Inner>);

struct Inner {
    native: Option<Arc<dyn NativeTable>>,
    store: Arc<Store>,
    environment: Environment,
    /// As the project names them.
    known: Vec<TableName>,
    /// Why a table was not given, since the engine would only say that it is not there.
    missing: Mutex<Option<Error>>,
}

impl Tables {
    /// `native` left out, only the control database is seen.
    pub async fn new(native: Option<Arc<dyn NativeTable>>, store: Arc<Store>, environment: Environment) -> Result<Self> {
        let physical = match &native {
            Some(native) => native.tables().await?,
            None => Vec::new(),
        };
        let known = physical.into_iter().map(|t| logical(&environment, t)).collect();
        Ok(Self(Arc::new(Inner { native, store, environment, known, missing: Mutex::default() })))
    }

    /// Runs one query that changes nothing.
    pub async fn query(&self, engine: &Engine, sql: &str) -> Result<(SchemaRef, BatchStream)> {
        let context = engine.context();
        context.register_catalog(CATALOG, Arc::new(self.clone()));
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(sql, options).await.map_err(|e| self.explain(e))?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let rows = frame.execute_stream().await.map_err(query_error)?;
        Ok((schema, Box::pin(rows.map(|batch| batch.map_err(query_error)))))
    }

    fn explain(&self, e: DataFusionError) -> Error {
        let missing = self.0.missing.lock().unwrap_or_else(PoisonError::into_inner).take();
        match missing {
            Some(missing) if e.to_string().contains("not found") => missing,
            _ => query_error(e),
        }
    }

    async fn find(&self, schema: Option<&str>, name: &str) -> Result<Arc<dyn TableProvider>> {
        if schema == Some(CONTROL) {
            return control_table(&self.0.store, name).await;
        }
        let wanted = TableName::new(schema, name);
        if let Some(native) = &self.0.native {
            for table in [self.0.environment.physical(&wanted), wanted.clone()] {
                if let Some(provider) = native.provider(&table, None).await? {
                    return Ok(provider);
                }
            }
        }
        let error = Error::new(Code::NotFound, "there is no such table").detail(wanted.to_string());
        let known: Vec<String> = self.0.known.iter().map(ToString::to_string).collect();
        Err(match (closest(&wanted.to_string(), known.iter().map(String::as_str)), known.as_slice()) {
            (Some(near), _) => error.hint(format!("did you mean {near}?")),
            (None, []) => error.hint("there are no tables yet: `trib run` makes them"),
            (None, some) => error.hint(format!("there are {}", some.iter().take(10).cloned().collect::<Vec<_>>().join(", "))),
        })
    }
}

/// The name in the project's own terms, where the environment has put its prefix before it.
fn logical(environment: &Environment, table: TableName) -> TableName {
    match table.schema.as_deref().and_then(|s| s.strip_prefix(&environment.schema_prefix)) {
        Some(schema) => TableName::new(Some(schema), &table.name),
        None => table,
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tables").field(&self.0.known).finish()
    }
}

impl CatalogProvider for Tables {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.known.iter().filter_map(|t| t.schema.clone()).collect();
        names.push(CONTROL.to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = (name != NO_SCHEMA).then(|| name.to_owned());
        Some(Arc::new(OneSchema { tables: self.clone(), schema }))
    }
}

#[derive(Debug)]
struct OneSchema {
    tables: Tables,
    schema: Option<String>,
}

#[async_trait]
impl SchemaProvider for OneSchema {
    fn table_names(&self) -> Vec<String> {
        if self.schema.as_deref() == Some(CONTROL) {
            return Store::tables().map(str::to_owned).collect();
        }
        self.tables.0.known.iter().filter(|t| t.schema == self.schema).map(|t| t.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.tables.find(self.schema.as_deref(), name).await {
            Ok(provider) => Ok(Some(provider)),
            Err(e) => {
                *self.tables.0.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                Ok(None)
            }
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
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
