//! Steps that work row by row: filter, protect, cast, rename, drop, add. And the one that does not: a query over the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, cast::AsArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc};
use trib_core::error::closest;
use trib_core::transform::{ColumnRule, Transform};
use trib_core::{BatchStream, Code, Error, Result};

use crate::cast::{Cast, exact};
use crate::failure::query_error;
use crate::lineage;
use crate::protect::Protection;
use crate::rejected::Kept;
use crate::session::{Engine, plain_schema};
use crate::sql;

/// A compiled [`Transform`] for one stream.
pub struct Steps {
    filter: Option<Arc<dyn PhysicalExpr>>,
    query: Option<(Engine, String, SchemaRef)>,
    columns: Vec<Step>,
    output: SchemaRef,
    /// For each output column: the name was given by the user and is not to be normalised.
    named: Vec<bool>,
    identity: bool,
    /// What is kept of rows that are rejected.
    pub kept: Kept,
}

struct Step {
    compute: Compute,
    field: FieldRef,
}

enum Compute {
    Take(usize),
    Cast(usize, DataType),
    Protect(usize, Protection),
    Evaluate(Arc<dyn PhysicalExpr>),
}

/// A batch after its steps.
pub struct Stepped {
    /// The rows before the column steps: what is kept of rejected ones is made from them.
    pub origin: RecordBatch,
    pub batch: RecordBatch,
    /// Rows that a column's step can make nothing of, with the reason.
    pub unfit: Vec<(String, BooleanArray)>,
}

impl Steps {
    pub async fn compile(engine: &Engine, input: &SchemaRef, transform: &Transform) -> Result<Self> {
        let filter = transform.filter.as_deref().map(|sql| engine.expression(sql, input)).transpose().map_err(|e| e.setting("where"))?;
        let (query, schema) = match &transform.sql {
            None => (None, input.clone()),
            Some(sql) => {
                let output = query_schema(engine, sql, input).await.map_err(|e| e.setting("sql"))?;
                (Some((engine.clone(), sql.clone(), input.clone())), output)
            }
        };
        check_rules(&transform.columns, &schema)?;
        let mut columns = Vec::new();
        let mut named = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let rule = transform.columns.get(field.name());
            if rule.is_some_and(|r| r.drop) {
                continue;
            }
            columns.push(column_step(engine, i, field, rule)?);
            named.push(rule.is_some_and(|r| r.rename.is_some()));
        }
        for (name, sql) in &transform.add {
            let place = |e: Error| e.setting(format!("add.{name}"));
            let expression = engine.expression(sql, &schema).map_err(place)?;
            let data_type = match expression.data_type(&schema).map_err(query_error)? {
                DataType::Utf8View => DataType::Utf8,
                other => other,
            };
            let field = Arc::new(Field::new(name, data_type, expression.nullable(&schema).unwrap_or(true)));
            columns.push(Step { compute: Compute::Evaluate(expression), field });
            named.push(true);
        }
        let output: SchemaRef = Arc::new(Schema::new(columns.iter().map(|s| s.field.clone()).collect::<Vec<_>>()));
        let identity = filter.is_none()
            && query.is_none()
            && columns.len() == schema.fields().len()
            && columns.iter().enumerate().all(|(i, s)| matches!(s.compute, Compute::Take(j) if i == j));
        Ok(Self { filter, query, columns, output, named, identity, kept: Kept::of(transform) })
    }

    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// Each row that comes out is one that went in.
    pub fn keeps_rows(&self) -> bool {
        self.query.is_none()
    }

    /// Rows come out as they go in.
    pub fn is_identity(&self) -> bool {
        self.identity
    }

    pub fn is_named(&self, column: usize) -> bool {
        self.named[column]
    }

    /// The name that a source column has after the steps; `None` when it was dropped.
    pub fn renamed<'a>(&self, transform: &'a Transform, column: &'a str) -> Option<&'a str> {
        match transform.columns.get(column) {
            Some(rule) if rule.drop => None,
            Some(ColumnRule { rename: Some(name), .. }) => Some(name),
            _ => Some(column),
        }
    }

    /// For each output column, the columns of `input` that it comes from.
    pub async fn origins(&self, input: &Schema) -> Result<Vec<BTreeMap<String, lineage::Step>>> {
        let queried = match &self.query {
            None => None,
            Some((engine, sql, schema)) => {
                let frame = planned(with_input(engine, schema, Box::pin(futures::stream::empty()))?, sql.clone()).await?;
                Some(lineage::origins(frame.logical_plan())?)
            }
        };
        let before = |i: usize, step: lineage::Step| -> BTreeMap<String, lineage::Step> {
            match &queried {
                None => BTreeMap::from([(input.field(i).name().clone(), step)]),
                Some(columns) => columns[i].iter().map(|((_, column), known)| (column.clone(), step.max(*known))).collect(),
            }
        };
        let origin = |step: &Step| match &step.compute {
            Compute::Take(i) => before(*i, lineage::Step::Identity),
            Compute::Cast(i, _) | Compute::Protect(i, _) => before(*i, lineage::Step::Transformed),
            Compute::Evaluate(expression) => {
                collect_columns(expression).iter().flat_map(|c| before(c.index(), lineage::Step::Transformed)).collect()
            }
        };
        Ok(self.columns.iter().map(origin).collect())
    }

    /// Replaces the stream by its query's result, where there is one; the filter stands before it.
    pub fn begin(&self, rows: mpsc::Receiver<Result<RecordBatch>>) -> Result<BatchStream> {
        let filter = self.filter.clone();
        let filtered = futures::stream::unfold(rows, |mut rows| async move { Some((rows.recv().await?, rows)) })
            .map(move |batch| filtered(filter.as_ref(), batch?));
        match &self.query {
            None => Ok(Box::pin(filtered)),
            Some((engine, sql, schema)) => Ok(run_query(engine.clone(), sql.clone(), schema.clone(), Box::pin(filtered))),
        }
    }

    /// The column steps.
    pub fn apply(&self, batch: RecordBatch) -> Result<Stepped> {
        if self.identity {
            return Ok(Stepped { origin: batch.clone(), batch, unfit: Vec::new() });
        }
        let mut unfit = Vec::new();
        let mut fitting = |Cast { values, unfit: rows }: Cast, column: usize, why: &str| {
            unfit.extend(rows.map(|rows| (format!("column {}: the value {why}", batch.schema_ref().field(column).name()), rows)));
            values
        };
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for step in &self.columns {
            let array = match &step.compute {
                Compute::Take(i) => batch.column(*i).clone(),
                Compute::Cast(i, to) => fitting(exact(batch.column(*i), to)?, *i, "cannot be cast to the declared type"),
                Compute::Protect(i, protection) => fitting(protection.apply(batch.column(*i))?, *i, "has no text that could be protected"),
                Compute::Evaluate(expression) => {
                    let value = expression.evaluate(&batch).map_err(query_error)?;
                    value.into_array(batch.num_rows()).map_err(query_error)?
                }
            };
            arrays.push(if array.data_type() == step.field.data_type() { array } else { cast(&array, step.field.data_type())? });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let stepped = RecordBatch::try_new_with_options(self.output.clone(), arrays, &options)?;
        Ok(Stepped { origin: batch, batch: stepped, unfit })
    }
}

/// Source columns that the conditions and additions of a transform look at; `None` when a query may look at any.
pub fn looked_at(engine: &Engine, input: &Schema, transform: &Transform) -> Result<Option<BTreeSet<String>>> {
    if transform.sql.is_some() {
        return Ok(None);
    }
    let mut columns = BTreeSet::new();
    for sql in transform.filter.iter().chain(transform.add.values()) {
        let expression = engine.expression(sql, input)?;
        columns.extend(collect_columns(&expression).iter().map(|c| c.name().to_owned()));
    }
    Ok(Some(columns))
}

fn column_step(engine: &Engine, i: usize, field: &FieldRef, rule: Option<&ColumnRule>) -> Result<Step> {
    let Some(rule) = rule else {
        return Ok(Step { compute: Compute::Take(i), field: field.clone() });
    };
    let place = |setting: &str| format!("columns.{}.{setting}", field.name());
    let name = rule.rename.as_deref().unwrap_or(field.name());
    let protections = Protection::all_of(rule);
    if protections.len() + usize::from(rule.cast.is_some()) > 1 {
        return Err(Error::new(Code::ConfigInvalid, "only one of cast, mask, hash and hmac can be done to a column")
            .setting(format!("columns.{}", field.name())));
    }
    if let Some(protection) = protections.into_iter().next() {
        let field = Arc::new(Field::new(name, DataType::Utf8, field.is_nullable()));
        return Ok(Step { compute: Compute::Protect(i, protection), field });
    }
    if let Some(cast) = &rule.cast {
        let to = engine.sql_type(cast).map_err(|e| e.setting(place("cast")))?;
        let field = Arc::new(Field::new(name, to.clone(), true));
        return Ok(Step { compute: Compute::Cast(i, to), field });
    }
    Ok(Step { compute: Compute::Take(i), field: Arc::new(field.as_ref().clone().with_name(name)) })
}

fn check_rules(rules: &BTreeMap<String, ColumnRule>, schema: &Schema) -> Result<()> {
    for name in rules.keys() {
        if schema.field_with_name(name).is_err() {
            let error = Error::new(Code::NotFound, "there is a rule for a column that the stream does not have")
                .detail(name)
                .setting(format!("columns.{name}"));
            return Err(match closest(name, schema.fields().iter().map(|f| f.name().as_str())) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error,
            });
        }
    }
    Ok(())
}

fn filtered(filter: Option<&Arc<dyn PhysicalExpr>>, batch: RecordBatch) -> Result<RecordBatch> {
    let Some(filter) = filter else {
        return Ok(batch);
    };
    let mask = filter.evaluate(&batch).and_then(|v| v.into_array(batch.num_rows())).map_err(query_error)?;
    let mask = mask.as_boolean_opt().ok_or_else(|| Error::new(Code::ConfigInvalid, "`where` is not a condition"))?;
    Ok(filter_record_batch(&batch, mask)?)
}

/// The stream as DataFusion sees it: read once.
#[derive(Debug)]
struct Input {
    schema: SchemaRef,
    rows: Mutex<Option<Rows>>,
}

struct Rows(BatchStream);

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

#[async_trait]
impl PartitionStream for Input {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        use datafusion::error::DataFusionError;
        let rows = self.rows.try_lock().ok().and_then(|mut rows| rows.take());
        let stream = match rows {
            Some(Rows(rows)) => rows.map(|b| b.map_err(|e| DataFusionError::External(Box::new(e)))).boxed(),
            None => {
                let twice = DataFusionError::Plan("`input` can be read only once in a query".to_owned());
                futures::stream::iter([Err(twice)]).boxed()
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

async fn query_schema(engine: &Engine, sql: &str, input: &SchemaRef) -> Result<SchemaRef> {
    let empty: BatchStream = Box::pin(futures::stream::empty());
    let frame = planned(with_input(engine, input, empty)?, sql.to_owned()).await?;
    Ok(plain_schema(frame.schema().as_arrow()))
}

/// Boxed as [`crate::catalog::execute`] is.
fn planned(context: SessionContext, sql: String) -> BoxFuture<'static, Result<DataFrame>> {
    Box::pin(async move { sql::frame(&context, &sql, query_error).await })
}

fn with_input(engine: &Engine, schema: &SchemaRef, rows: BatchStream) -> Result<SessionContext> {
    let context = engine.context();
    let input = Input { schema: schema.clone(), rows: Mutex::new(Some(Rows(rows))) };
    let table = StreamingTable::try_new(schema.clone(), vec![Arc::new(input)]).map_err(query_error)?;
    context.register_table("input", Arc::new(table)).map_err(query_error)?;
    Ok(context)
}

fn run_query(engine: Engine, sql: String, schema: SchemaRef, rows: BatchStream) -> BatchStream {
    let start = async move {
        let context = with_input(&engine, &schema, rows)?;
        let frame = planned(context, sql).await?;
        let plain = plain_schema(frame.schema().as_arrow());
        let stream = frame.execute_stream().await.map_err(query_error)?;
        Ok::<_, Error>(stream.map(move |batch| {
            let batch = batch.map_err(query_error)?;
            let columns: Result<Vec<ArrayRef>> =
                batch.columns().iter().zip(plain.fields()).map(|(c, f)| Ok(cast(c, f.data_type())?)).collect();
            Ok(RecordBatch::try_new(plain.clone(), columns?)?)
        }))
    };
    Box::pin(futures::stream::once(start).flat_map(|started| match started {
        Ok(stream) => stream.boxed(),
        Err(e) => futures::stream::iter([Err(e)]).boxed(),
    }))
}
