//! From the server's binary `COPY` format straight into Arrow's arrays.
//!
//! Rows are collected until they fill a block, and then decoded column by column: what is to be done is decided once for
//! a column's values, and they are near in the processor's cache.

mod column;
mod list;
mod rows;
mod value;
mod wire;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;
use serde_json::Value;
use trib_core::{Code, Error, RejectedRow, Result};
use trib_kit::shown;

use super::WIRE;
use super::pg_type::{Kind, PgType, Rules};
use column::Column;
use rows::Rows;

/// Rows are decoded when they are about this many bytes.
const BLOCK: usize = 64 << 10;
/// PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
pub const EPOCH_DAYS: i32 = 10_957;
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A batch, and the rows that were left out of it.
pub struct Decoded {
    pub batch: RecordBatch,
    pub rejected: Vec<RejectedRow>,
}

/// Decodes one `COPY` stream into batches of one schema.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Columns that tell a person which row it is.
    key: Vec<usize>,
    /// Rows that are not decoded yet.
    rows: Rows,
    /// How values stand in them, when rows are wanted as they are.
    wire: Option<Vec<Kind>>,
    decoded: usize,
    bytes: usize,
}

struct BadRow {
    row: usize,
    column: usize,
    reason: String,
}

impl Decoder {
    /// `types` are the types of the columns of `schema`; `key` names the columns that identify a row, as far as they are read.
    pub fn new(schema: SchemaRef, types: &[PgType], key: &[String], rules: Rules) -> Self {
        let columns: Vec<_> = types.iter().zip(schema.fields()).map(|(t, field)| Column::new(t, field, rules)).collect();
        let key = key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let rows = Rows::new(columns.len());
        Self { schema, columns, key, rows, wire: None, decoded: 0, bytes: 0 }
    }

    /// Gives batches in the form [`WIRE`], but for those with a value that has to be looked at more closely. For types of which [`PgType::is_plain`] holds.
    #[must_use]
    pub fn keeping_rows(mut self, types: &[PgType]) -> Self {
        self.wire = Some(types.iter().map(|t| t.kind).collect());
        self
    }

    pub fn rows(&self) -> usize {
        self.decoded + self.rows.len()
    }

    /// Bytes on the wire of the rows that [`Decoder::finish`] will give.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next piece of the stream, which may hold several rows or a part of one.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        if self.wire.is_none() && self.rows.bytes() >= BLOCK {
            self.decode()?;
        }
        self.bytes += piece.len();
        self.rows.push(piece)
    }

    /// The rows so far as a batch.
    pub fn finish(&mut self) -> Result<Decoded> {
        if self.wire.as_ref().is_some_and(|kinds| self.rows.are_plain(kinds)) {
            self.bytes = 0;
            return Ok(Decoded { batch: trib_core::wire::batch(WIRE, self.rows.take()?)?, rejected: Vec::new() });
        }
        self.decode()?;
        let rows = std::mem::take(&mut self.decoded);
        self.bytes = 0;
        let mut bad = Vec::new();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (i, (column, field)) in self.columns.iter_mut().zip(self.schema.fields()).enumerate() {
            let (array, unfit) = column.finish(field)?;
            bad.extend(unfit.into_iter().map(|(row, reason)| BadRow { row, column: i, reason }));
            arrays.push(array);
        }
        let mut rejected = Vec::new();
        let mut kept = rows;
        if !bad.is_empty() {
            bad.sort_by_key(|b| (b.row, b.column));
            rejected = self.describe(&arrays, &bad)?;
            let mut keep = vec![true; rows];
            for row in &bad {
                keep[row.row] = false;
            }
            let keep = BooleanArray::from(keep);
            kept = keep.true_count();
            for array in &mut arrays {
                *array = compute::filter(array, &keep)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|e| changed("a column").source(e))?;
        Ok(Decoded { batch, rejected })
    }

    /// Decodes the rows that are whole.
    fn decode(&mut self) -> Result<()> {
        if self.rows.len() == 0 {
            return Ok(());
        }
        for (i, column) in self.columns.iter_mut().enumerate() {
            column.decode(self.rows.column(i)).map_err(|_| changed(self.schema.field(i).name()))?;
        }
        self.decoded += self.rows.len();
        self.rows.clear();
        Ok(())
    }

    fn describe(&self, arrays: &[ArrayRef], bad: &[BadRow]) -> Result<Vec<RejectedRow>> {
        let formatters = arrays.iter().map(|a| ArrayFormatter::try_new(a.as_ref(), &shown::OPTIONS)).collect::<Result<Vec<_>, _>>()?;
        let text = |column: usize, row: usize| shown::text(&formatters[column], &arrays[column], row).unwrap_or_default();
        let name = |column: usize| self.schema.field(column).name();
        let one = |bad: &[BadRow]| {
            let row = bad.first().map_or(0, |b| b.row);
            let reasons: Vec<String> = bad.iter().map(|b| format!("{}: {}", name(b.column), b.reason)).collect();
            let place: Vec<String> = self.key.iter().map(|k| format!("{}={}", name(*k), text(*k, row))).collect();
            // What could not be decoded is left out: NULL would be another value.
            let decoded = (0..arrays.len()).filter(|i| bad.iter().all(|b| b.column != *i));
            let values = decoded.map(|i| (name(i).clone(), if arrays[i].is_null(row) { Value::Null } else { Value::String(text(i, row)) }));
            RejectedRow { place: place.join(", "), reason: reasons.join("; "), row: Value::Object(values.collect()) }
        };
        Ok(bad.chunk_by(|a, b| a.row == b.row).map(one).collect())
    }
}

fn malformed() -> Error {
    Error::new(Code::SystemError, "the server's COPY stream is not what it should be")
}

fn changed(column: &str) -> Error {
    Error::new(Code::DataInvalid, "a column's type has changed since the table was discovered")
        .detail(column)
        .hint("run again: the new type is then handled by the stream's contract")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, cast::AsArray, types::Int64Type};
    use arrow::datatypes::Schema;
    use proptest::prelude::*;

    use super::super::encode::{HEADER, Prepared, TRAILER, Target};
    use super::*;

    type Row = (Option<i64>, Option<String>, Option<Vec<Option<i64>>>);

    const TYPES: [&str; 3] = ["bigint", "text", "bigint[]"];

    fn decoder() -> Decoder {
        let types = TYPES.map(PgType::parse);
        let fields: Vec<_> = types.iter().map(|t| t.field(&t.name, true, Rules::default())).collect();
        Decoder::new(Arc::new(Schema::new(fields)), &types, &["bigint".to_owned()], Rules::default())
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|r| r.2.clone()));
        let texts: StringArray = rows.iter().map(|r| r.1.as_deref()).collect();
        let numbers: Int64Array = rows.iter().map(|r| r.0).collect();
        RecordBatch::try_new(decoder().schema, vec![Arc::new(numbers), Arc::new(texts), Arc::new(lists)]).unwrap()
    }

    fn stream(batch: &RecordBatch) -> Vec<u8> {
        let target = |name: &str| Target { name: name.to_owned(), t: PgType::parse(name), required: false, check_json: false };
        let targets = TYPES.map(target);
        let prepared = Prepared::new(batch, &targets, &[0, 1, 2]).unwrap();
        let mut out = HEADER.to_vec();
        let mut rows = prepared.rows();
        while rows.write(&mut out, usize::MAX) {}
        assert_eq!(rows.finish().0, batch.num_rows() as u64);
        out.extend_from_slice(&TRAILER);
        out
    }

    proptest! {
        #[test]
        fn pieces_of_any_size(
            rows in prop::collection::vec(any::<Row>(), 1..20),
            piece in 1usize..100,
            batches in 1usize..4,
        ) {
            let batch = batch(&rows);
            let mut decoder = decoder();
            let mut decoded = Vec::new();
            for (i, piece) in stream(&batch).chunks(piece).enumerate() {
                decoder.push(piece).unwrap();
                if i % batches == 0 {
                    decoded.push(decoder.finish().unwrap().batch);
                }
            }
            decoded.push(decoder.finish().unwrap().batch);
            prop_assert_eq!(compute::concat_batches(&batch.schema(), &decoded).unwrap(), batch);
        }
    }

    #[test]
    fn more_rows_than_are_decoded_at_once() {
        let rows: Vec<_> =
            (0..10_000).map(|i| (Some(i), (i % 7 != 0).then(|| "é".repeat(i as usize % 50)), Some(vec![Some(i), None]))).collect();
        let batch = batch(&rows);
        let stream = stream(&batch);
        assert!(stream.len() > 3 * BLOCK);
        let mut decoder = decoder();
        for piece in stream.chunks(1000) {
            decoder.push(piece).unwrap();
        }
        assert_eq!(decoder.rows(), rows.len());
        assert_eq!(decoder.finish().unwrap().batch, batch);
    }

    #[test]
    fn a_row_whose_text_is_not_utf8_is_rejected() {
        let texts = ["one", "tw\u{1}", "", "three"];
        let rows: Vec<_> = (0..).zip(texts).map(|(i, text)| (Some(i), Some(text.to_owned()), None)).collect();
        let mut stream = stream(&batch(&rows));
        for byte in &mut stream[HEADER.len()..] {
            *byte = if *byte == b'w' { 0xc3 } else { *byte };
        }
        let mut decoder = decoder();
        decoder.push(&stream).unwrap();
        let Decoded { batch, rejected } = decoder.finish().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[0, 2, 3]);
        assert_eq!(batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["one", "", "three"]);
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].place, "bigint=1");
        assert!(rejected[0].reason.starts_with("text: the text is not UTF-8"), "{}", rejected[0].reason);
        assert!(rejected[0].row.get("text").is_none());
    }
}
