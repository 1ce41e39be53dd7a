//! Where the readers of all formats put their rows: filtered, projected, and sent on.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde_json::Value;
use trib_core::{Code, Emitter, Error, Lines, RejectedRow, Result};

use super::column::{self, Refused};
use super::cursor::Filter;

/// Raw text of a rejected row beyond this is cut.
const SHOWN: usize = 64 << 10;

pub struct Sink {
    pub emitter: Emitter,
    pub stream: String,
    /// What is sent.
    pub output: SchemaRef,
    pub filter: Option<Filter>,
    /// Columns that have one value in all rows of the file that is being read, since its name says it.
    pub constants: Vec<(FieldRef, Option<String>)>,
}

impl Sink {
    /// Takes rows with all columns of the output and of the filter, less the constants, in any order.
    pub fn rows(&mut self, batch: RecordBatch) -> Result<()> {
        self.lines(batch, None)
    }

    /// [`Self::rows`] that stand on lines.
    pub fn lines(&mut self, batch: RecordBatch, lines: Option<Lines>) -> Result<()> {
        let batch = self.completed(batch)?;
        let batch = match &mut self.filter {
            Some(filter) => filter.rows(batch)?,
            None => batch,
        };
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let column = |field: &FieldRef| {
            batch
                .column_by_name(field.name())
                .cloned()
                .ok_or_else(|| Error::internal("a reader left a column out").detail(field.name().clone()))
        };
        let columns = self.output.fields().iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let out = RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?;
        let lines = lines.map(|lines| lines.of_rows(out.num_rows()));
        self.emitter.lines_blocking(&self.stream, out, lines)
    }

    fn completed(&self, batch: RecordBatch) -> Result<RecordBatch> {
        if self.constants.is_empty() {
            return Ok(batch);
        }
        let (schema, mut columns, rows) = (batch.schema(), batch.columns().to_vec(), batch.num_rows());
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        for (field, value) in &self.constants {
            let mut refused = Refused::default();
            let cells = std::iter::repeat_n(value.as_ref().map(|v| v.as_bytes().into()), rows);
            columns.push(column::decode(field, rows, cells, &mut refused)?);
            if let Some(reason) = refused.0.into_values().next() {
                return Err(Error::new(Code::DataInvalid, "a folder's name does not fit the declared type of its column").detail(reason));
            }
            fields.push(field.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    pub fn reject(&mut self, row: RejectedRow) -> Result<()> {
        self.emitter.reject_blocking(&self.stream, row)
    }
}

/// A row that stands on this line and could not be read.
pub fn rejected(file: &str, line: u64, reason: String, raw: &[u8]) -> RejectedRow {
    let text = String::from_utf8_lossy(&raw[..raw.len().min(SHOWN)]);
    RejectedRow { place: format!("{file}:{line}"), reason, row: Value::String(text.into_owned()) }
}
