//! From stepped rows to staged batches: names, types, contract, identity and system columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use serde_json::Value;
use trib_core::contract::Landing;
use trib_core::name::system;
use trib_core::{Lines, LoadId, RejectedRow, Result, Table};

use crate::cast::exact;
use crate::nest::Flat;
use crate::plan::StreamPlan;
use crate::rejected::{self, Kept};
use crate::steps::Stepped;

/// How one table's batches are made.
pub struct TableConform {
    pub table: Table,
    staging: SchemaRef,
    /// For each staged column, where it comes from.
    outputs: Vec<Output>,
    /// Columns that land nowhere, but reject rows that have a value in them.
    forbidden: Vec<(usize, String)>,
    /// Key columns (by place in `outputs`) that may not be NULL.
    key: Vec<usize>,
}

enum Output {
    /// A column of the flat table.
    Column {
        index: usize,
        name: String,
        to: DataType,
        landing: Landing,
    },
    /// A column that the source no longer has.
    Null(DataType),
    /// The root row's key column, by its place in the root's outputs.
    ParentKey {
        output: usize,
    },
    /// Place in the parent's list at this depth.
    Index(usize),
    RowId,
    LoadId,
    LoadedAt,
    Sequence,
}

/// What one column of the staged batch is made from; the compiler of the plan says this by name.
#[derive(Clone, Debug)]
pub enum Origin {
    Column(usize, Landing),
    ParentKey(String),
    Index(usize),
    RowId,
}

/// One load's constants.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub load: LoadId,
    pub loaded_at: DateTime<Utc>,
}

/// The result for one batch: one staged batch per table, and what was left out.
pub struct Conformed {
    pub batches: Vec<RecordBatch>,
    pub rejected: Vec<RejectedRow>,
}

impl TableConform {
    /// `origins` gives, by final column name, where a value comes from; `source_names` the flat columns' names for messages.
    pub fn new(
        table: Table,
        origins: &[(String, Origin)],
        forbidden: Vec<(usize, String)>,
        source_names: &[String],
        root: Option<&Self>,
    ) -> Self {
        let staging = table.staging_schema();
        let outputs: Vec<Output> = staging
            .fields()
            .iter()
            .map(|field| {
                let name = field.name().as_str();
                match name {
                    system::LOAD_ID => return Output::LoadId,
                    system::LOADED_AT => return Output::LoadedAt,
                    system::SEQ => return Output::Sequence,
                    _ => {}
                }
                match origins.iter().find(|(n, _)| n == name).map(|(_, o)| o) {
                    Some(Origin::Column(index, landing)) => Output::Column {
                        index: *index,
                        name: source_names[*index].clone(),
                        to: field.data_type().clone(),
                        landing: landing.clone(),
                    },
                    Some(Origin::ParentKey(key)) => {
                        Output::ParentKey { output: root.and_then(|r| r.staging.index_of(key).ok()).unwrap_or_default() }
                    }
                    Some(Origin::Index(depth)) => Output::Index(*depth),
                    Some(Origin::RowId) => Output::RowId,
                    None => Output::Null(field.data_type().clone()),
                }
            })
            .collect();
        let key = if table.write.needs_key() { table.key.iter().filter_map(|k| staging.index_of(k).ok()).collect() } else { Vec::new() };
        Self { table, staging, outputs, forbidden, key }
    }

    /// Whether the staged columns are all those of the stream, in their order and with their types, and what is the same for all rows of a load; and no row
    /// can be rejected for a NULL.
    pub fn keeps(&self, stream: &Schema) -> bool {
        let fits = |staged: &Field, field: &Field| {
            let takes_nulls = staged.is_nullable() && !self.table.key.contains(staged.name());
            staged.data_type() == field.data_type() && staged.metadata() == field.metadata() && (takes_nulls || !field.is_nullable())
        };
        let mut fields = stream.fields().iter().enumerate();
        let all = self.outputs.iter().zip(self.staging.fields()).all(|(output, staged)| match output {
            Output::Column { index, landing: Landing::Exact, .. } => {
                fields.next().is_some_and(|(i, field)| i == *index && fits(staged, field))
            }
            Output::LoadId | Output::LoadedAt => true,
            _ => false,
        });
        all && fields.next().is_none() && self.forbidden.is_empty()
    }

    /// The staged columns that hold values of the stream, each with its place among the columns of the flat table. A parent's key is a
    /// column of the root's.
    pub fn places(&self, root: &Self) -> Vec<(&str, Place)> {
        let place = |output: &Output| match output {
            Output::Column { index, .. } => Some(Place::Own(*index)),
            Output::ParentKey { output } => match root.outputs.get(*output) {
                Some(Output::Column { index, .. }) => Some(Place::Root(*index)),
                _ => None,
            },
            _ => None,
        };
        let named = self.staging.fields().iter().zip(&self.outputs);
        named.filter_map(|(field, output)| Some((field.name().as_str(), place(output)?))).collect()
    }
}

/// Which column of a flat table.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Own(usize),
    Root(usize),
}

/// Makes the staged batches of all tables of a stream. `first` is the position of the batch's first row in the load's order.
pub fn conform(plan: &StreamPlan, stepped: Stepped, stamp: &Stamp, first: i64) -> Result<Conformed> {
    let StreamPlan { shape, tables: plans, steps, .. } = plan;
    let tables: Vec<&TableConform> = plans.iter().map(|p| &p.conform).collect();
    let rows = stepped.batch.num_rows();
    let flats = shape.take_apart(stepped.batch.columns(), rows)?;
    let mut refusals = Refusals::new(rows);
    for (reason, mask) in &stepped.unfit {
        refusals.mark(mask, None, || reason.clone());
    }
    let row_ids = needs_row_ids(&tables).then(|| row_ids(stamp, first, rows));
    let mut built: Vec<Vec<ArrayRef>> = Vec::with_capacity(tables.len());
    for (conform, flat) in tables.iter().zip(&flats) {
        let root = built.first().map(Vec::as_slice);
        let columns = columns_of(conform, flat, root, row_ids.as_ref(), stamp, first, rows, &mut refusals)?;
        built.push(columns);
    }
    let keep = refusals.keep();
    let mut batches = Vec::with_capacity(tables.len());
    for ((conform, flat), columns) in tables.iter().zip(&flats).zip(built) {
        let count = columns.first().map_or(rows, arrow::array::Array::len);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(conform.staging.clone(), columns, &options)?;
        batches.push(match (&keep, &flat.origin) {
            (None, _) => batch,
            (Some(keep), None) => filter_record_batch(&batch, keep)?,
            (Some(keep), Some(origin)) => {
                let kept: BooleanArray = origin.values().iter().map(|row| Some(keep.value(*row as usize))).collect();
                filter_record_batch(&batch, &kept)?
            }
        });
    }
    Ok(Conformed { batches, rejected: refusals.rows(&stepped.origin, &tables, &steps.kept)? })
}

#[allow(clippy::too_many_arguments)]
fn columns_of(
    conform: &TableConform,
    flat: &Flat,
    root: Option<&[ArrayRef]>,
    row_ids: Option<&ArrayRef>,
    stamp: &Stamp,
    first: i64,
    root_rows: usize,
    refusals: &mut Refusals,
) -> Result<Vec<ArrayRef>> {
    let rows = flat.origin.as_ref().map_or(root_rows, Array::len);
    let origin = flat.origin.as_ref();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(conform.outputs.len());
    for (output, field) in conform.outputs.iter().zip(conform.staging.fields()) {
        let column: ArrayRef = match output {
            Output::Column { index, name, to, landing } => {
                let cast = exact(&flat.columns[*index], to)?;
                if let Some(unfit) = cast.unfit.filter(|_| *landing != Landing::NullUnfit) {
                    refusals.mark(&unfit, origin, || format!("column {name}: the value does not fit {to}, the type of the table's column"));
                }
                if !field.is_nullable() && cast.values.null_count() > 0 {
                    let nulls = arrow::compute::is_null(&cast.values)?;
                    refusals.mark(&nulls, origin, || format!("column {name} is NULL, and the table's column may not be"));
                    // The rows are left out below, but until then the batch must be valid.
                    placeholder(&cast.values)?
                } else {
                    cast.values
                }
            }
            Output::Null(t) => new_null_array(t, rows),
            Output::ParentKey { output } => match (root, origin) {
                (Some(root), Some(origin)) => take(&root[*output], origin, None)?,
                _ => new_null_array(field.data_type(), rows),
            },
            Output::Index(depth) => flat.indices[*depth].clone(),
            Output::RowId => match (row_ids, origin) {
                (Some(ids), Some(origin)) => take(ids, origin, None)?,
                (Some(ids), None) => ids.clone(),
                (None, _) => new_null_array(field.data_type(), rows),
            },
            Output::LoadId => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(stamp.load.0.as_str(), rows))),
            Output::LoadedAt => {
                Arc::new(TimestampMicrosecondArray::from_value(stamp.loaded_at.timestamp_micros(), rows).with_timezone("UTC"))
            }
            Output::Sequence => match origin {
                None => Arc::new(Int64Array::from_iter_values(first..first + rows as i64)),
                Some(origin) => Arc::new(Int64Array::from_iter_values(origin.values().iter().map(|row| first + i64::from(*row)))),
            },
        };
        columns.push(column);
    }
    for key in &conform.key {
        if columns[*key].null_count() > 0 {
            let name = conform.staging.field(*key).name();
            refusals.mark(&arrow::compute::is_null(&columns[*key])?, origin, || format!("key column {name} is NULL"));
        }
    }
    for (index, name) in &conform.forbidden {
        let present = arrow::compute::is_not_null(&flat.columns[*index])?;
        refusals.mark(&present, origin, || format!("column {name} is not in the table, and the contract takes no new columns"));
    }
    Ok(columns)
}

/// The array with its NULLs replaced by the type's zero.
fn placeholder(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().nulls(None);
    Ok(arrow::array::make_array(data.build()?))
}

fn needs_row_ids(tables: &[&TableConform]) -> bool {
    tables.iter().any(|t| t.outputs.iter().any(|o| matches!(o, Output::RowId)))
}

/// Unique over all loads, and the same when the load is read again.
fn row_ids(stamp: &Stamp, first: i64, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((first..first + rows as i64).map(|n| format!("{}-{n:x}", stamp.load))))
}

/// Root rows that are not to be loaded, with the first reason for each.
struct Refusals {
    reasons: Vec<Option<String>>,
    any: bool,
}

impl Refusals {
    fn new(rows: usize) -> Self {
        Self { reasons: vec![None; rows], any: false }
    }

    fn mark(&mut self, mask: &BooleanArray, origin: Option<&UInt32Array>, reason: impl Fn() -> String) {
        for i in (0..mask.len()).filter(|i| mask.is_valid(*i) && mask.value(*i)) {
            let row = origin.map_or(i, |o| o.value(i) as usize);
            self.any = true;
            self.reasons[row].get_or_insert_with(&reason);
        }
    }

    fn keep(&self) -> Option<BooleanArray> {
        self.any.then(|| self.reasons.iter().map(|r| Some(r.is_none())).collect())
    }

    fn rows(&self, origin: &RecordBatch, tables: &[&TableConform], kept: &Kept) -> Result<Vec<RejectedRow>> {
        if !self.any {
            return Ok(Vec::new());
        }
        let key = tables.first().map(|t| t.table.key.clone()).unwrap_or_default();
        let refused: BooleanArray = self.reasons.iter().map(|r| Some(r.is_some())).collect();
        let rows = kept.rows(origin, &refused)?;
        let lines = Lines::of(origin);
        let reasons = self.reasons.iter().enumerate().filter_map(|(at, reason)| Some((at, reason.clone()?)));
        let rejected = rows.into_iter().zip(reasons).map(|(row, (at, reason))| {
            let key: Vec<String> = key.iter().filter_map(|k| Some(format!("{k}={}", rejected::shown(row.get(k)?)))).collect();
            let place = lines.iter().map(|lines| lines.place(at)).chain(Some(key.join(",")).filter(|key| !key.is_empty()));
            RejectedRow { place: place.collect::<Vec<_>>().join(", "), reason, row: Value::Object(row) }
        });
        Ok(rejected.collect())
    }
}
