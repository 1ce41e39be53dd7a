//! Queries over tables that are found by name when a query is planned, whatever stands behind the names.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::future::BoxFuture;
use trib_core::name::system;
use trib_core::{BatchStream, Code, Error, Result, TableName};

use crate::clock;
use crate::failure::query_error;
use crate::field_hash;
use crate::session::{CATALOG, Engine, NO_SCHEMA};
use crate::sql;

/// What a name in a query stands for.
pub enum Relation {
    Table(Arc<dyn TableProvider>),
    /// A query that is put in its place; its own names are looked up in the same tables.
    View(String),
}

/// The tables that queries may name.
#[async_trait]
pub trait Tables: Send + Sync + fmt::Debug {
    /// `None` when there is no such table. An error may say more (which one was probably meant): it is shown as it is.
    async fn find(&self, name: &TableName) -> Result<Option<Relation>>;

    /// For the information schema, and only asked for when a query names it: a place may have thousands of tables.
    async fn known(&self) -> Result<Vec<TableName>> {
        Ok(Vec::new())
    }

    /// Names that may stand before a schema: other connections, whose tables are found in [`Self::other`].
    fn others(&self) -> Vec<String> {
        Vec::new()
    }

    fn other(&self, _name: &str) -> Option<Arc<dyn Tables>> {
        None
    }
}

/// Some tables that hide others of the same names: rows that are not published yet, rows that a test gives.
pub struct Overlay {
    pub base: Arc<dyn Tables>,
    pub over: Vec<(TableName, Over)>,
}

#[derive(Clone)]
pub enum Over {
    Table(Arc<dyn TableProvider>),
    View(String),
}

#[async_trait]
impl Tables for Overlay {
    async fn find(&self, name: &TableName) -> Result<Option<Relation>> {
        match self.over.iter().find(|(over, _)| over == name) {
            Some((_, Over::Table(provider))) => Ok(Some(Relation::Table(provider.clone()))),
            Some((_, Over::View(sql))) => Ok(Some(Relation::View(sql.clone()))),
            None => self.base.find(name).await,
        }
    }

    async fn known(&self) -> Result<Vec<TableName>> {
        self.base.known().await
    }

    fn others(&self) -> Vec<String> {
        self.base.others()
    }

    fn other(&self, name: &str) -> Option<Arc<dyn Tables>> {
        let base = self.base.other(name)?;
        let there = self.over.iter().filter(|(over, _)| over.schema.as_deref() == Some(name));
        Some(Arc::new(Self { base, over: there.map(|(table, over)| (TableName::parse(&table.name), over.clone())).collect() }))
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&TableName> = self.over.iter().map(|(name, _)| name).collect();
        f.debug_struct("Overlay").field("over", &names).field("base", &self.base).finish()
    }
}

/// Rows of a small batch, and bytes that a sort keeps free beside it for merging what it has spilled.
const SORTED_ROWS: usize = 1024;
const SORT_RESERVATION: usize = 1 << 20;

/// Runs queries that change nothing over [`Tables`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queries {
    engine: Engine,
    tables: Arc<dyn Tables>,
    /// What `now()` and its kin give; `None` is the time.
    clock: Option<DateTime<Utc>>,
    /// Joins sort, and so spill what does not fit into memory.
    sorting: bool,
    /// Batches are small, so that the sorts of many joins find room side by side.
    small_batches: bool,
    /// Columns of ours that only a `*` has brought are left out of a result.
    of_model: bool,
}

impl Queries {
    pub fn new(engine: Engine, tables: Arc<dyn Tables>) -> Self {
        Self { engine, tables, clock: None, sorting: false, small_batches: false, of_model: false }
    }

    /// For the queries of models: their tables get columns of ours of their own, so that those of the tables that `*` stands for are left out.
    #[must_use]
    pub fn of_model(mut self) -> Self {
        self.of_model = true;
        self
    }

    /// With a clock that stands still.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.clock = Some(now);
        self
    }

    /// With joins that sort both sides: slower than hashing one of them, and without a bound to the size of either.
    #[must_use]
    pub fn by_sorting(mut self) -> Self {
        self.sorting = true;
        self
    }

    /// Slower, for where there is little memory.
    #[must_use]
    pub fn in_small_batches(mut self) -> Self {
        self.small_batches = true;
        self
    }

    /// The same with some tables hidden by others.
    #[must_use]
    pub fn with(&self, over: Vec<(TableName, Over)>) -> Self {
        Self { tables: Arc::new(Overlay { base: self.tables.clone(), over }), ..self.clone() }
    }

    /// The query, ready to run. An error of the SQL has the line and column within `sql` where they are known, and an empty file name.
    ///
    /// What holds DataFusion's plans while it waits is boxed where it stands: the compiler needs seconds to see that they are `Send`, and would do
    /// so again in every `async` function around it.
    pub fn frame<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            let lists = sql.to_ascii_lowercase().contains("information_schema");
            let known = if lists { self.tables.known().await? } else { Vec::new() };
            let asked = Asked { tables: self.tables.clone(), known: Arc::new(known), missing: Arc::default() };
            let context = self.context(&asked);
            let frame = sql::frame(&context, sql, |e| asked.explain(e)).await?;
            if !self.of_model {
                return Ok(frame);
            }
            let schema = frame.schema();
            let kept = columns_of_model(sql, schema.as_arrow());
            if kept.len() == schema.fields().len() {
                return Ok(frame);
            }
            let kept: Vec<Expr> = kept.into_iter().map(|i| Expr::Column(Column::from(schema.qualified_field(i)))).collect();
            frame.select(kept).map_err(query_error)
        })
    }

    /// The query's logical plan, its types checked, without running it.
    pub async fn checked(&self, sql: &str) -> Result<DataFrame> {
        let frame = self.frame(sql).await?;
        let (state, plan) = frame.clone().into_parts();
        state.optimize(&plan).map_err(query_error)?;
        Ok(frame)
    }

    /// The columns that [`Self::rows`] gives.
    pub async fn schema(&self, sql: &str) -> Result<SchemaRef> {
        result_schema(self.checked(sql).await?.schema().as_arrow())
    }

    /// Runs the query.
    pub async fn rows(&self, sql: &str) -> Result<(SchemaRef, BatchStream)> {
        execute(self.frame(sql).await?).await
    }

    fn context(&self, asked: &Asked) -> SessionContext {
        let context = self.engine.context();
        let state = context.state_ref();
        let mut state = state.write();
        let config = state.config_mut();
        if self.small_batches {
            // The sorts of all joins run at once, and each needs room for some batches and a reservation before it can spill.
            *config = config.clone().with_batch_size(SORTED_ROWS).with_sort_spill_reservation_bytes(SORT_RESERVATION);
        }
        if self.sorting {
            let options = config.options_mut();
            options.optimizer.prefer_hash_join = false;
            // What is one partition would be hashed all the same.
            options.execution.target_partitions = options.execution.target_partitions.max(2);
        }
        drop(state);
        context.register_udf(field_hash::function());
        if let Some(now) = self.clock {
            clock::stop(&context, now);
        }
        for name in self.tables.others() {
            if let Some(tables) = self.tables.other(&name) {
                let queries = Self { tables: tables.clone(), ..self.clone() };
                let asked = Asked { tables, known: Arc::default(), missing: asked.missing.clone() };
                context.register_catalog(name, Arc::new(Names { queries, asked }));
            }
        }
        context.register_catalog(CATALOG, Arc::new(Names { queries: self.clone(), asked: asked.clone() }));
        context
    }
}

/// The columns of a query's result that a model's table has, by their places: all but those of ours that only a `*` can have brought. One that is asked
/// for by name is a mistake that somebody has to hear of.
pub fn columns_of_model(sql: &str, schema: &Schema) -> Vec<usize> {
    let stands_for_all = |at: usize| {
        let before = sql[..at].trim_end().to_ascii_lowercase();
        before.ends_with(['.', ',']) || ["select", "distinct", "all"].iter().any(|word| before.ends_with(word))
    };
    let brought = !sql.contains(system::PREFIX) || sql.match_indices('*').any(|(at, _)| stands_for_all(at));
    (0..schema.fields().len()).filter(|i| !brought || !schema.field(*i).name().starts_with(system::PREFIX)).collect()
}

/// Runs what was planned: batches of [`result_schema`].
pub fn execute(frame: DataFrame) -> BoxFuture<'static, Result<(SchemaRef, BatchStream)>> {
    Box::pin(async move {
        let schema = result_schema(frame.schema().as_arrow())?;
        let to = schema.clone();
        let rows = frame.execute_stream().await.map_err(query_error)?;
        let rows = rows.map(move |batch| plain(&batch.map_err(query_error)?, &to));
        Ok((schema, Box::pin(rows) as BatchStream))
    })
}

/// The types that destinations declare, for those that only queries give: views become text, the 64 bits of `row_number()` and
/// its kin a `bigint`, times microseconds.
pub fn result_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields: Vec<Field> = schema.fields().iter().map(|f| Field::new(f.name(), result_type(f.data_type()), f.is_nullable())).collect();
    Ok(Arc::new(Schema::new(fields)))
}

fn result_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt64 => DataType::Int64,
        DataType::Dictionary(_, value) => result_type(value),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        other => other.clone(),
    }
}

pub(crate) fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    // A value that does not fit is an error, never a NULL.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns: Result<Vec<ArrayRef>> =
        batch.columns().iter().zip(schema.fields()).map(|(c, f)| Ok(cast_with_options(c, f.data_type(), &strict)?)).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns?, &options)?)
}

/// One query's look at the tables.
#[derive(Clone, Debug)]
struct Asked {
    tables: Arc<dyn Tables>,
    known: Arc<Vec<TableName>>,
    /// Why a table was not given, since the engine would only say that it is not there.
    missing: Arc<Mutex<Option<Error>>>,
}

impl Asked {
    fn explain(&self, e: DataFusionError) -> Error {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner).take();
        match missing {
            Some(missing) if e.to_string().contains("not found") => missing,
            _ => query_error(e),
        }
    }

    fn note(&self, e: Error) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
    }
}

/// The tables as DataFusion's catalog.
#[derive(Debug)]
struct Names {
    queries: Queries,
    asked: Asked,
}

impl CatalogProvider for Names {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.asked.known.iter().filter_map(|t| t.schema.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = (name != NO_SCHEMA).then(|| name.to_owned());
        Some(Arc::new(OneSchema { queries: self.queries.clone(), asked: self.asked.clone(), schema }))
    }
}

fn view(state: SessionState, query: Statement, sql: String) -> BoxFuture<'static, Result<Arc<dyn TableProvider>, DataFusionError>> {
    Box::pin(async move {
        let plan = state.statement_to_plan(query).await?;
        Ok(Arc::new(ViewTable::new(plan, Some(sql))) as Arc<dyn TableProvider>)
    })
}

#[derive(Debug)]
struct OneSchema {
    queries: Queries,
    asked: Asked,
    schema: Option<String>,
}

#[async_trait]
impl SchemaProvider for OneSchema {
    fn table_names(&self) -> Vec<String> {
        self.asked.known.iter().filter(|t| t.schema == self.schema).map(|t| t.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let wanted = TableName::new(self.schema.as_deref(), name);
        match self.asked.tables.find(&wanted).await {
            Ok(Some(Relation::Table(provider))) => Ok(Some(provider)),
            Ok(Some(Relation::View(sql))) => {
                let state = self.queries.context(&self.asked).state();
                match sql::statement(&state, &sql) {
                    Ok(query) => view(state, query, sql).await.map(Some),
                    Err(e) => {
                        self.asked.note(e);
                        Ok(None)
                    }
                }
            }
            Ok(None) => {
                self.asked.note(Error::new(Code::NotFound, "there is no such table").detail(wanted.to_string()));
                Ok(None)
            }
            Err(e) => {
                self.asked.note(e);
                Ok(None)
            }
        }
    }

    /// Whether it is among those that are listed; whether it is there, [`Self::table`] finds out.
    fn table_exist(&self, name: &str) -> bool {
        self.asked.known.iter().any(|t| t.schema == self.schema && t.name == name)
    }
}
