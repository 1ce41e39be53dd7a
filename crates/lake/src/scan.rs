//! A table as DataFusion scans it: the files that the log names, with their bounds.
//!
//! The library's own scan makes good for deletion vectors, mapped columns and partitions by working on each batch. A table of ours has none of
//! them, so that its files are read as DataFusion reads Parquet best: in pieces side by side, without those that bounds rule out.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::data_file::join;
use crate::layout::Layout;
use crate::table_log::LiveFile;

#[derive(Debug)]
pub struct TableScan {
    pub layout: Layout,
    pub folder: Path,
    pub schema: SchemaRef,
    pub files: Vec<LiveFile>,
}

#[async_trait]
impl TableProvider for TableScan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Files and row groups without a row that a filter wants are left out; rows are left in.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = self.layout.store_url();
        state.runtime_env().register_object_store(store.as_ref(), self.layout.store.clone());
        let statistics: Vec<Arc<Statistics>> = self.files.iter().map(|file| Arc::new(self.statistics(file, projection))).collect();
        let keep = self.may_have_rows(state, filters, &statistics);
        let kept: Vec<_> = self.files.iter().zip(statistics).zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect();
        let table = Statistics::try_merge_iter(kept.iter().map(|(_, bounds)| bounds.as_ref()), &self.schema)?;
        let files: Vec<PartitionedFile> = kept.into_iter().map(|(file, bounds)| self.file(file).with_statistics(bounds)).collect();
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let config = FileScanConfigBuilder::new(store, Arc::new(ParquetSource::new(self.schema.clone())))
            .with_file_groups(FileGroup::new(files).split_files(state.config().target_partitions()))
            .with_statistics(bounds_only(table))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        ParquetFormat::default().create_physical_plan(state, config).await
    }
}

impl TableScan {
    /// Which files may have rows that the filters want. What a query finds out only while it runs, the reader of a file looks at.
    fn may_have_rows(&self, state: &dyn Session, filters: &[Expr], statistics: &[Arc<Statistics>]) -> Vec<bool> {
        let all = || vec![true; statistics.len()];
        let Some(condition) = conjunction(filters.to_vec()) else { return all() };
        let kept = || -> Result<Vec<bool>> {
            let schema = DFSchema::try_from(self.schema.clone())?;
            let condition = state.create_physical_expr(condition, &schema)?;
            let bounds = PrunableStatistics::new(statistics.to_vec(), self.schema.clone());
            PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(condition)?.prune(&bounds)
        };
        // A condition that says nothing about bounds rules nothing out.
        kept().unwrap_or_else(|_| all())
    }

    fn file(&self, file: &LiveFile) -> PartitionedFile {
        PartitionedFile::new_from_meta(ObjectMeta {
            location: join(&self.folder, &file.path),
            // A file never changes.
            last_modified: DateTime::UNIX_EPOCH,
            size: file.size,
            e_tag: None,
            version: None,
        })
    }

    /// Of the columns that are read: others are not asked about.
    fn statistics(&self, file: &LiveFile, projection: Option<&Vec<usize>>) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = file.stats.num_records.map_or(Precision::Absent, |rows| Precision::Exact(rows as usize));
        for (at, field) in self.schema.fields().iter().enumerate() {
            if projection.is_some_and(|columns| !columns.contains(&at)) {
                continue;
            }
            let mut column = ColumnStatistics::new_unknown();
            if is_exact(field.data_type())
                && let Some((least, greatest)) = file.stats.bounds(field.name(), field.data_type())
            {
                let value = |bound: &ArrayRef| ScalarValue::try_from_array(bound, 0).map_or(Precision::Absent, Precision::Exact);
                (column.min_value, column.max_value) = (value(&least), value(&greatest));
            }
            column.null_count = file.stats.nulls(field.name()).map_or(Precision::Absent, |nulls| Precision::Exact(nulls as usize));
            statistics.column_statistics[at] = column;
        }
        statistics
    }
}

/// Where a file's bounds are equal, its values are not read. Others write decimals as floats, which have 15 digits.
fn is_exact(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Decimal128(precision, _) | DataType::Decimal256(precision, _) if *precision > 15)
}

/// Bounds enclose a table's values and need not be among them: a text may be cut, a time rounded.
fn bounds_only(mut table: Statistics) -> Statistics {
    for column in &mut table.column_statistics {
        column.min_value = std::mem::take(&mut column.min_value).to_inexact();
        column.max_value = std::mem::take(&mut column.max_value).to_inexact();
    }
    table
}
