//! From JSON records to batches.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use memchr::memchr_iter;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Error, Lines, Result};

use super::super::column::{self, Cell, Refused, sql_name};
use super::super::csv::read::without;
use super::super::sink::{Sink, rejected};
use super::super::window::Window;
use super::records::Records;
use super::shape::Shape;
use trib_kit::tape::{Kind, Node, Tape};
use trib_kit::value;

/// Text that becomes one batch, about.
const BATCH: usize = 1 << 20;

/// Looks at up to `bytes` of a file.
pub fn sample(window: Window<'_>, lines: bool, bytes: u64, shape: &mut Shape) -> Result<()> {
    let mut records = Records::new(window, lines)?;
    let (mut ranges, mut tape) = (Vec::new(), Tape::default());
    while records.offset() < bytes
        && let Some(found) = records.next(BATCH, &mut ranges)?
    {
        for range in &ranges {
            tape.clear();
            if let Ok(node) = tape.parse(found.bytes, range.start, range.end)
                && tape.kind(node) == Kind::Object
            {
                shape.see(node, &tape, found.bytes);
            }
        }
    }
    Ok(())
}

/// Reads all records into `sink`. `fields` are the columns that are wanted; `known` are all of the stream. Fields for which `declared` holds
/// take strings and numbers alike.
pub fn read(
    window: Window<'_>,
    lines: bool,
    fields: &[FieldRef],
    known: &Schema,
    declared: &dyn Fn(&str) -> bool,
    sink: &mut Sink,
) -> Result<()> {
    let file = window.file;
    let mut records = Records::new(window, lines)?;
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let wanted: Vec<usize> = fields.iter().map(|f| known.index_of(f.name())).collect::<Result<_, _>>()?;
    let (mut ranges, mut tape) = (Vec::new(), Tape::default());
    while let Some(found) = records.next(BATCH, &mut ranges)? {
        tape.clear();
        let mut refused = Refused::default();
        let mut nodes = Vec::with_capacity(ranges.len());
        for (row, range) in ranges.iter().enumerate() {
            nodes.push(match tape.parse(found.bytes, range.start, range.end) {
                Ok(node) if tape.kind(node) == Kind::Object => Some(node),
                Ok(_) => {
                    refused.add(row, || "not a JSON object".to_owned());
                    None
                }
                Err(reason) => {
                    refused.add(row, || reason);
                    None
                }
            });
        }
        let rows: Vec<usize> = (0..nodes.len()).collect();
        let mut decoder = Decoder { tape: &tape, text: found.bytes, refused: &mut refused };
        let members = decoder.members(known.fields(), &nodes, &rows);
        let mut columns = Vec::with_capacity(fields.len());
        for (field, index) in fields.iter().zip(&wanted) {
            columns.push(decoder.column(field, &members[*index], &rows, declared(field.name()))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(nodes.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        let (mut counted, mut line) = (0, found.line);
        for (row, reason) in &refused.0 {
            let range = ranges[*row].clone();
            line += memchr_iter(b'\n', &found.bytes[counted..range.start]).count() as u64;
            counted = range.start;
            sink.reject(rejected(file, line, reason.clone(), &found.bytes[range]))?;
        }
        let (mut counted, mut line) = (0, found.line);
        let lines = ranges.iter().enumerate().map(|(row, range)| {
            line += memchr_iter(b'\n', &found.bytes[counted..range.start]).count() as u64;
            counted = range.start;
            (row, line)
        });
        let kept = lines.filter(|(row, _)| !refused.0.contains_key(row)).map(|(_, line)| line);
        sink.lines(without(batch, &refused)?, Some(Lines::new(file, kept)))?;
    }
    Ok(())
}

struct Decoder<'a> {
    tape: &'a Tape,
    text: &'a [u8],
    refused: &'a mut Refused,
}

impl<'a> Decoder<'a> {
    /// For each field its values in the objects `nodes`. `rows` says which row each node belongs to.
    fn members(&mut self, fields: &Fields, nodes: &[Option<Node>], rows: &[usize]) -> Vec<Vec<Option<Node>>> {
        let names: HashMap<&[u8], usize> = fields.iter().enumerate().map(|(i, f)| (f.name().as_bytes(), i)).collect();
        let mut members = vec![vec![None; nodes.len()]; fields.len()];
        for (i, node) in nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let mut children = self.tape.children(*node);
            // Most objects have their names in one order.
            let mut guess = 0;
            while let (Some(name), Some(value)) = (children.next(), children.next()) {
                let name = match self.tape.string(name, self.text) {
                    Ok(name) => name,
                    Err(reason) => {
                        self.refused.add(rows[i], || format!("not valid JSON: {reason}"));
                        continue;
                    }
                };
                let guessed = fields.get(guess).is_some_and(|f| f.name().as_bytes() == name.as_ref());
                let Some(at) = (if guessed { Some(guess) } else { names.get(name.as_ref()).copied() }) else {
                    self.refused.add(rows[i], || {
                        let name = String::from_utf8_lossy(&name);
                        format!("{name:?} was in no sampled row (declare it under `columns:`, or sample more with `infer: {{bytes: …}}`)")
                    });
                    continue;
                };
                guess = at + 1;
                if members[at][i].replace(value).is_some() {
                    self.refused.add(rows[i], || format!("{:?} stands twice in one object", fields[at].name()));
                }
            }
        }
        members
    }

    fn column(&mut self, field: &Field, nodes: &[Option<Node>], rows: &[usize], declared: bool) -> Result<ArrayRef> {
        let present = |kind: Kind, this: &mut Self| -> Vec<Option<Node>> {
            let take = |(i, node): (usize, &Option<Node>)| {
                let node = (*node)?;
                match this.tape.kind(node) {
                    Kind::Null => None,
                    found if found == kind => Some(node),
                    _ => {
                        this.refuse(field, node, rows[i]);
                        None
                    }
                }
            };
            nodes.iter().enumerate().map(take).collect()
        };
        Ok(match field.data_type() {
            DataType::Struct(fields) => {
                let objects = present(Kind::Object, self);
                let members = self.members(fields, &objects, rows);
                let mut columns = Vec::with_capacity(fields.len());
                for (child, nodes) in fields.iter().zip(&members) {
                    columns.push(self.column(child, nodes, rows, declared)?);
                }
                let nulls: NullBuffer = objects.iter().map(Option::is_some).collect();
                Arc::new(StructArray::try_new(fields.clone(), columns, Some(nulls))?)
            }
            DataType::List(item) => {
                let arrays = present(Kind::Array, self);
                let (mut items, mut owners, mut offsets) = (Vec::new(), Vec::new(), vec![0i32]);
                for (i, node) in arrays.iter().enumerate() {
                    if let Some(node) = node {
                        items.extend(self.tape.children(*node).map(Some));
                        owners.resize(items.len(), rows[i]);
                    }
                    offsets.push(i32::try_from(items.len()).map_err(|_| Error::internal("a batch holds too many list items"))?);
                }
                let nulls: NullBuffer = arrays.iter().map(Option::is_some).collect();
                let values = self.column(item, &items, &owners, declared)?;
                Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::new(ScalarBuffer::from(offsets)), values, Some(nulls))?)
            }
            _ => {
                let cells: Vec<Cell<'a>> =
                    nodes.iter().enumerate().map(|(i, node)| self.cell(field, (*node)?, rows[i], declared)).collect();
                let mut refused = Refused::default();
                let array = column::decode(field, cells.len(), cells.into_iter(), &mut refused)?;
                for (i, reason) in refused.0 {
                    self.refused.add(rows[i], || reason);
                }
                array
            }
        })
    }

    /// The text that a scalar's column is decoded from.
    fn cell(&mut self, field: &Field, node: Node, row: usize, declared: bool) -> Cell<'a> {
        let raw = self.tape.raw(node, self.text);
        let kind = self.tape.kind(node);
        if kind == Kind::Null {
            return None;
        }
        if field.logical() == Some(Logical::Json) {
            return Some(raw.into());
        }
        let t = field.data_type();
        let takes = match kind {
            Kind::String => declared || t.is_string(),
            Kind::Number if *t == DataType::Float64 && !declared => {
                let text = std::str::from_utf8(raw).unwrap_or_default();
                raw.len() <= 15 || text.parse().is_ok_and(|v| value::float_is_exact(text, v))
            }
            Kind::Number => t.is_numeric() || (declared && t.is_string()),
            Kind::True | Kind::False => *t == DataType::Boolean || (declared && t.is_string()),
            // A declared text takes whatever it is.
            Kind::Object | Kind::Array => declared && t.is_string(),
            Kind::Null => false,
        };
        if !takes {
            self.refuse(field, node, row);
            return None;
        }
        if kind != Kind::String {
            return Some(raw.into());
        }
        match self.tape.string(node, self.text) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.refused.add(row, || format!("column {}: not valid JSON: {reason}", field.name()));
                None
            }
        }
    }

    #[cold]
    fn refuse(&mut self, field: &Field, node: Node, row: usize) {
        let raw = String::from_utf8_lossy(self.tape.raw(node, self.text));
        let shown: String = raw.chars().take(60).collect();
        let expected = match field.data_type() {
            DataType::Struct(_) => "an object".to_owned(),
            DataType::List(_) => "an array".to_owned(),
            _ => sql_name(field),
        };
        self.refused
            .add(row, || format!("column {}: {shown} is not {expected} (declare the column's type under `columns:`)", field.name()));
    }
}
