//! Destinations whose tables DataFusion can scan itself.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use trib_core::load::TableLoad;
use trib_core::{Result, TableName};

/// A destination that is also a place to run SQL: the lake.
#[async_trait]
pub trait NativeTable: Send + Sync {
    /// The tables that are there.
    async fn tables(&self) -> Result<Vec<TableName>>;

    /// The table as of a version, or as it is now; `None` when it is not there.
    async fn provider(&self, table: &TableName, version: Option<i64>) -> Result<Option<Arc<dyn TableProvider>>>;

    /// The rows that a load has staged for a table, in [`trib_core::Table::staging_schema`]'s columns: to be looked at before they
    /// are published.
    fn staged(&self, load: &TableLoad) -> Result<Arc<dyn TableProvider>>;
}
