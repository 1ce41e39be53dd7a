//! Rows that stay as they stand on the wire.
//!
//! Where a system's rows go into another system of its kind and nothing is done to them, taking each value apart and putting it together again is work for
//! nothing. The destination then says ([`crate::Destination::wire`]) in which form of its system it takes a table's rows besides, a source that speaks
//! this form learns it ([`crate::Emitter::takes`]), and may push its batches, or some of them, in it. Which form a row has travelled in shows in no result: a row
//! that would be rejected in Arrow's form has to be rejected in this one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, cast::AsArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::Result;

/// Stands in the schema of such a batch, with the form's name.
const FORM: &str = "trib:wire";

/// A batch whose only column holds whole rows in this form.
pub fn batch(form: &str, rows: BinaryArray) -> Result<RecordBatch> {
    let metadata = HashMap::from([(FORM.to_owned(), form.to_owned())]);
    let schema = Schema::new_with_metadata(vec![Field::new("row", DataType::Binary, false)], metadata);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(rows)])?)
}

/// The rows of such a batch; `None` for one that has Arrow's columns.
pub fn rows(batch: &RecordBatch) -> Option<&BinaryArray> {
    batch.schema_ref().metadata().get(FORM)?;
    batch.columns().first()?.as_binary_opt()
}
