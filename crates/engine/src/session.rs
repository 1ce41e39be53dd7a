//! DataFusion as this product sets it up: one memory pool, one spill folder, one dialect.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::{Column, DFSchema, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};
use trib_core::error::closest;
use trib_core::{Code, Error, Result, syntax};

use crate::{sql, truncated};

/// The catalog of a session, and its schema for names without one.
pub const CATALOG: &str = "tributary";
pub const NO_SCHEMA: &str = "public";

/// The process's share of DataFusion. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    environment: Arc<RuntimeEnv>,
    spill: Arc<Path>,
    threads: usize,
}

impl Engine {
    /// `memory` bounds what queries may hold in bytes before they spill into `spill`, a folder that is made where it is missing.
    pub fn new(memory: usize, spill: &Path, threads: usize) -> Result<Self> {
        std::fs::create_dir_all(spill)?;
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_temp_file_path(spill)
            .build_arc()
            .map_err(query_error)?;
        Ok(Self { environment, spill: spill.into(), threads })
    }

    /// A session with an empty catalog.
    pub fn context(&self) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.threads)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, NO_SCHEMA);
        // Text stays Utf8, which every destination takes without another cast.
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        config.options_mut().sql_parser.collect_spans = true;
        config.options_mut().execution.time_zone = Some("UTC".into());
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.environment.clone())
            .with_default_features()
            .with_optimizer_rules(truncated::rules())
            .build();
        SessionContext::new_with_state(state)
    }

    /// A SQL expression over the columns of `schema`, ready to be evaluated batch by batch.
    pub fn expression(&self, sql: &str, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let context = self.context();
        let schema = DFSchema::try_from(schema.clone()).map_err(query_error)?;
        let expr = sql::expression(&context.state(), sql, &schema)?;
        context.create_physical_expr(expr, &schema).map_err(query_error)
    }

    /// The Arrow type of a SQL type name, at the precision that databases have: microseconds.
    pub fn sql_type(&self, name: &str) -> Result<DataType> {
        let bad = |e: Error| {
            Error::new(Code::ConfigInvalid, "this is not a SQL type")
                .detail(name)
                .hint("types are such as bigint, decimal(12, 2), text, date, timestamp, timestamp with time zone, boolean")
                .source(e)
        };
        let lower = name.trim().to_lowercase();
        if lower == "timestamptz" {
            return Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        }
        let expr = self.expression(&format!("cast(null as {lower})"), &Schema::empty()).map_err(bad)?;
        Ok(match expr.data_type(&Schema::empty()).map_err(|e| bad(query_error(e)))? {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.map(|_| "UTC".into())),
            DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other,
        })
    }

    /// The folder for what does not fit into memory.
    pub fn spill(&self) -> &Path {
        &self.spill
    }

    pub fn threads(&self) -> usize {
        self.threads
    }
}

/// View types as their plain twins, which destinations declare; other types as they are.
pub fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| match f.data_type() {
            DataType::Utf8View => Arc::new(f.as_ref().clone().with_data_type(DataType::Utf8)),
            DataType::BinaryView => Arc::new(f.as_ref().clone().with_data_type(DataType::Binary)),
            _ => f.clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// What DataFusion's error means to a person who wrote the SQL. The place is the line and column within the SQL, where they are
/// known, in a file without a name: who knows the file gives it (see [`Error::within`]).
pub fn query_error(e: DataFusionError) -> Error {
    use DataFusionError as D;
    let at = e.diagnostic().and_then(|d| d.span).map(|span| span.start);
    let said = said(&e);
    let error = match e.find_root() {
        // What is parsed only while it is planned has no place: a number's digits, say.
        D::SQL(parser, _) => syntax::error("", &parser.to_string()),
        D::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
            _ => Error::new(Code::ConfigInvalid, "the SQL does not fit the tables that it reads").detail(said),
        },
        // Where types do not go together, some rules call that a mistake of theirs.
        D::Plan(_) | D::Internal(_) => Error::new(Code::ConfigInvalid, "the SQL does not fit the tables that it reads").detail(said),
        D::Execution(_) => Error::new(Code::ConfigInvalid, "the SQL cannot be computed").detail(said),
        D::ArrowError(inner, _) if !matches!(inner.as_ref(), ArrowError::IoError(..) | ArrowError::ExternalError(_)) => {
            Error::new(Code::DataInvalid, "the SQL cannot be computed from these values").detail(said)
        }
        D::ResourcesExhausted(_) => {
            Error::new(Code::ResourceExhausted, "the query needs more memory or spill space than it may have").detail(said)
        }
        D::NotImplemented(_) => Error::new(Code::Unsupported, "this SQL is not supported").detail(said),
        _ => Error::new(Code::SystemError, "the query failed").detail(said),
    };
    match at {
        Some(at) => error.file("", usize::try_from(at.line).ok(), usize::try_from(at.column).ok()),
        None => error,
    }
}

/// What DataFusion says, without where it would have its own mistakes reported: it is about SQL that a person has written.
fn said(e: &DataFusionError) -> String {
    const REPORT: &str = "This issue was likely caused by a bug in DataFusion's code";
    let text = e.strip_backtrace();
    let text = text.split(REPORT).next().unwrap_or_default().trim_end();
    text.replace("Internal error: ", "")
}

fn unknown_column(field: &Column, valid: &[Column]) -> Error {
    let error = Error::new(Code::ConfigInvalid, "the SQL names a column that its tables do not have").detail(field.flat_name());
    let names: Vec<&str> = valid.iter().map(Column::name).collect();
    match closest(field.name(), names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None if names.is_empty() => error,
        None => error.hint(format!("there are {}", names.iter().take(12).copied().collect::<Vec<_>>().join(", "))),
    }
}

/// An error of ours that went through DataFusion comes out as itself.
pub fn unwrapped(e: DataFusionError) -> Error {
    match e {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::new(Code::SystemError, "the query failed").source(other),
        },
        // Shared by all that have waited for it.
        other => match other.find_root() {
            DataFusionError::External(inner) if inner.is::<Error>() => {
                inner.downcast_ref::<Error>().map_or_else(|| Error::internal("an error of another kind"), Error::again)
            }
            _ => query_error(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trib_core::Blame;

    #[tokio::test]
    async fn what_the_sql_asks_for_and_cannot_have_is_its_writers() {
        let spill = tempfile::tempdir().unwrap();
        let context = Engine::new(64 << 20, spill.path(), 1).unwrap().context();
        for sql in [
            "select sum(x) from (values ('a')) t(x)",
            "select 1 / 0",
            "select cast('x' as int)",
            "select cast(x as int) from (values ('a')) t(x)",
            "select date_trunc('dya', now())",
            "select nothing(1)",
        ] {
            let result = async { context.sql(sql).await?.collect().await };
            let error = query_error(result.await.unwrap_err());
            assert_eq!(error.code().blame(), Blame::User, "{sql}: {error}");
            assert!(!error.to_string().contains("DataFusion"), "{error}");
            assert!(!error.to_string().contains("Internal"), "{error}");
        }
    }
}
