//! DataFusion as this product sets it up: one memory pool, one spill folder, one dialect.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};
use trib_core::{Code, Error, Result};

use crate::failure::query_error;
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
