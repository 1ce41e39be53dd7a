//! The rows of a query: as a table for people, as CSV or JSON for programs.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::ArrayFormatter;
use futures::StreamExt;
use trib_core::{BatchStream, Error, Result};
use trib_kit::{object, shown};

use crate::output::{self, Output};
use crate::render::amount;
use crate::render::table::{Column, render};

/// Of a value in a table.
const MOST_CHARS: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
}

/// Writes rows until `limit` of them are out. A reader that goes away ends it without an error.
pub async fn write(schema: &SchemaRef, rows: BatchStream, format: Format, limit: Option<usize>, output: Output) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout());
    let written = match format {
        Format::Table => return table(schema, rows, limit, output).await,
        Format::Csv => csv(schema, rows, limit, &mut out).await,
        Format::Json => json(rows, limit, &mut out).await,
    };
    match written.and_then(|()| Ok(out.flush()?)) {
        Err(e) if e.code() == trib_core::Code::ConnectionLost => Ok(()),
        other => other,
    }
}

/// Batches until `limit` rows are out, and whether there were more.
struct Limited {
    rows: BatchStream,
    left: Option<usize>,
    more: bool,
}

impl Limited {
    fn new(rows: BatchStream, limit: Option<usize>) -> Self {
        Self { rows, left: limit, more: false }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(batch) = self.rows.next().await.transpose()? else { return Ok(None) };
            if batch.num_rows() == 0 {
                continue;
            }
            let Some(left) = self.left else { return Ok(Some(batch)) };
            if left == 0 {
                self.more = true;
                return Ok(None);
            }
            let taken = batch.num_rows().min(left);
            self.more = taken < batch.num_rows();
            self.left = Some(left - taken);
            return Ok(Some(batch.slice(0, taken)));
        }
    }
}

async fn table(schema: &SchemaRef, rows: BatchStream, limit: Option<usize>, output: Output) -> Result<()> {
    let columns: Vec<Column> =
        schema.fields().iter().map(|f| Column { name: f.name().clone(), right: f.data_type().is_numeric() }).collect();
    let mut limited = Limited::new(rows, limit);
    let mut lines: Vec<Vec<String>> = Vec::new();
    while let Some(batch) = limited.next().await? {
        lines.extend(texts(&batch)?);
    }
    output::print(render(&columns, &lines, output::width()).trim_end());
    if limited.more {
        output.note(format!("only the first {} are shown; `--limit 0` shows all", amount::rows(lines.len() as u64)));
    } else {
        output.note(format!("({})", amount::rows(lines.len() as u64)));
    }
    Ok(())
}

/// Each value as a person would write it, long ones cut. Decimals keep all their digits.
pub fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = shown::OPTIONS
        .with_null("NULL")
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));
    let formatters: Result<Vec<_>, _> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect();
    let formatters = formatters?;
    // Line breaks and terminal codes in values must not disturb the table.
    let plain = |text: String| {
        let text = cut(text);
        if text.contains(char::is_control) { text.escape_debug().to_string() } else { text }
    };
    let value = |row: usize, (f, array): (&ArrayFormatter<'_>, &ArrayRef)| shown::text(f, array, row).map(plain);
    (0..batch.num_rows()).map(|row| formatters.iter().zip(batch.columns()).map(|pair| value(row, pair)).collect()).collect()
}

/// A table is for looking at: no more of a value than a person reads in it.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MOST_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

async fn csv(schema: &SchemaRef, rows: BatchStream, limit: Option<usize>, out: &mut impl Write) -> Result<()> {
    let mut writer = WriterBuilder::new().with_header(true).with_null(String::new()).build(out);
    writer.write(&flat(&RecordBatch::new_empty(schema.clone()))?)?;
    let mut limited = Limited::new(rows, limit);
    while let Some(batch) = limited.next().await? {
        writer.write(&flat(&batch)?).map_err(csv_error)?;
    }
    Ok(())
}

fn csv_error(e: arrow::error::ArrowError) -> Error {
    match e {
        arrow::error::ArrowError::IoError(_, e) => e.into(),
        other => other.into(),
    }
}

/// Nested values as JSON text, since CSV has no other place for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(object::column(field, column)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// An array of objects, one in each line. Decimals are text, since a JSON number is a double to most readers.
async fn json(rows: BatchStream, limit: Option<usize>, out: &mut impl Write) -> Result<()> {
    let mut limited = Limited::new(rows, limit);
    let mut first = true;
    write!(out, "[")?;
    while let Some(batch) = limited.next().await? {
        let schema = batch.schema();
        let names: Result<Vec<String>, _> = schema.fields().iter().map(|f| serde_json::to_string(f.name())).collect();
        let names = names?;
        let columns: Result<Vec<ArrayRef>> =
            schema.fields().iter().zip(batch.columns()).map(|(field, column)| object::column(field, column)).collect();
        let columns = columns?;
        for row in 0..batch.num_rows() {
            write!(out, "{}{{", if first { "\n" } else { ",\n" })?;
            first = false;
            for (i, (name, column)) in names.iter().zip(&columns).enumerate() {
                let value = column.as_string_opt::<i32>().filter(|c| c.is_valid(row)).map_or("null", |c| c.value(row));
                write!(out, "{}{name}:{value}", if i == 0 { "" } else { "," })?;
            }
            write!(out, "}}")?;
        }
    }
    writeln!(out, "\n]")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn a_table_shows_the_beginning_of_a_long_value() {
        let values = StringArray::from(vec!["é".repeat(MOST_CHARS), "é".repeat(30 << 20)]);
        let batch = RecordBatch::try_from_iter([("v", Arc::new(values) as ArrayRef)]).unwrap();
        let shown = texts(&batch).unwrap();
        assert_eq!(shown[0][0], "é".repeat(MOST_CHARS));
        assert_eq!(shown[1][0], "é".repeat(MOST_CHARS) + "…");
    }
}
