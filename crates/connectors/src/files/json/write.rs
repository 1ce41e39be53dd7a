//! From batches to JSON, one object per row. NULL fields are written as `null`; JSON text is written as the value that it is.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Error, Result};
use trib_kit::shown;

use super::super::csv::write::printable;

/// Writes each row as an object, with `separator` before every row but the first of the file.
pub struct Writer {
    separator: &'static str,
    first: bool,
}

impl Writer {
    pub fn new(separator: &'static str) -> Self {
        Self { separator, first: true }
    }

    pub fn rows(&mut self, batch: &RecordBatch, out: &mut String) -> Result<()> {
        let options = shown::OPTIONS;
        let fields = batch.schema();
        let trees: Vec<Tree> = fields.fields().iter().zip(batch.columns()).map(|(f, a)| Tree::new(f, a)).collect::<Result<_>>()?;
        let columns: Vec<Column<'_>> = trees.iter().map(|tree| Column::of(tree, &options)).collect::<Result<_>>()?;
        let names: Vec<String> = fields.fields().iter().map(|f| quoted(f.name())).collect();
        for row in 0..batch.num_rows() {
            if !std::mem::take(&mut self.first) {
                out.push_str(self.separator);
            }
            object(&names, &columns, row, out)?;
        }
        Ok(())
    }
}

fn object(names: &[String], columns: &[Column<'_>], row: usize, out: &mut String) -> Result<()> {
    for (i, (name, column)) in names.iter().zip(columns).enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        out.push_str(name);
        out.push(':');
        column.write(row, out)?;
    }
    out.push_str(if columns.is_empty() { "{}" } else { "}" });
    Ok(())
}

/// Values in types that [`Column`] knows, all the way down.
fn prepared(field: &Field, array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float16 | DataType::Float32 => {
            // Through its text, so that 0.1 stays 0.1.
            cast(&cast(array, &DataType::Utf8)?, &DataType::Float64)?
        }
        _ => printable(field, array)?,
    })
}

/// A column in types that [`Column`] knows, with those that are nested in it.
struct Tree {
    field: FieldRef,
    array: ArrayRef,
    children: Vec<Tree>,
}

impl Tree {
    fn new(field: &FieldRef, array: &ArrayRef) -> Result<Self> {
        let array = prepared(field, array)?;
        let children = match array.data_type() {
            DataType::Struct(fields) => {
                fields.iter().zip(array.as_struct().columns()).map(|(f, a)| Self::new(f, a)).collect::<Result<_>>()?
            }
            DataType::List(item) => vec![Self::new(item, array.as_list::<i32>().values())?],
            _ => Vec::new(),
        };
        Ok(Self { field: field.clone(), array, children })
    }
}

enum Column<'a> {
    Text(&'a StringArray),
    Json(&'a StringArray),
    Boolean(&'a BooleanArray),
    Number(&'a ArrayRef, ArrayFormatter<'a>),
    Double(&'a Float64Array),
    Word(&'a ArrayRef, ArrayFormatter<'a>),
    Struct { array: &'a ArrayRef, names: Vec<String>, columns: Vec<Column<'a>> },
    List { array: &'a ListArray, items: Box<Column<'a>> },
}

impl<'a> Column<'a> {
    fn of(tree: &'a Tree, options: &'a FormatOptions<'a>) -> Result<Self> {
        let array = &tree.array;
        let formatter = || ArrayFormatter::try_new(array, options);
        let mut children = tree.children.iter().map(|child| Self::of(child, options));
        Ok(match array.data_type() {
            DataType::Utf8 if tree.field.logical() == Some(Logical::Json) => Column::Json(array.as_string()),
            DataType::Utf8 => Column::Text(array.as_string()),
            DataType::Boolean => Column::Boolean(array.as_boolean()),
            DataType::Float64 => Column::Double(array.as_primitive()),
            DataType::Struct(fields) => Column::Struct {
                array,
                names: fields.iter().map(|f| quoted(f.name())).collect(),
                columns: children.collect::<Result<_>>()?,
            },
            DataType::List(_) => {
                let items = children.next().ok_or_else(|| Error::internal("a list was prepared without its items"))??;
                Column::List { array: array.as_list(), items: Box::new(items) }
            }
            t if t.is_numeric() => Column::Number(array, formatter()?),
            _ => Column::Word(array, formatter()?),
        })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        let array: &dyn Array = match self {
            Column::Text(a) | Column::Json(a) => *a,
            Column::Boolean(a) => *a,
            Column::Double(a) => *a,
            Column::Number(a, _) | Column::Word(a, _) | Column::Struct { array: a, .. } => a.as_ref(),
            Column::List { array: a, .. } => *a,
        };
        if array.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match self {
            Column::Text(a) => quote(a.value(row), out),
            // Line ends in it are white space, since strings have them escaped; the row must stay one line.
            Column::Json(a) => out.extend(a.value(row).split(['\n', '\r'])),
            Column::Boolean(a) => out.push_str(if a.value(row) { "true" } else { "false" }),
            Column::Double(a) => match a.value(row) {
                // JSON has no such numbers; words keep them apart from NULL.
                v if !v.is_finite() => quote(&v.to_string(), out),
                v => {
                    let _ = write!(out, "{v:?}");
                }
            },
            Column::Number(a, formatter) => shown::write(out, formatter, a.as_ref(), row)?,
            Column::Word(a, formatter) => quote(&shown::text(formatter, a.as_ref(), row)?, out),
            Column::Struct { names, columns, .. } => object(names, columns, row, out)?,
            Column::List { array, items } => {
                out.push('[');
                let offsets = array.value_offsets();
                for (i, item) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    items.write(item, out)?;
                }
                out.push(']');
            }
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    quote(text, &mut out);
    out
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (i, b) in text.bytes().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.push_str(&text[from..i]);
        from = i + 1;
        match b {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                let _ = write!(out, "\\u{b:04x}");
            }
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}
