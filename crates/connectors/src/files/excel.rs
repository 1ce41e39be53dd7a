//! Excel and OpenDocument worksheets. The first row that is not empty names the columns. A worksheet is held in memory, as its format demands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema};
use calamine::{Data, Range, Reader, Sheets};
use trib_core::error::closest;
use trib_core::{Code, Error, Lines, Result};

use super::column::{self, Cell, Refused};
use super::csv::infer::Guess;
use super::csv::read::{unique, without};
use super::sink::{Sink, rejected};

const BATCH: usize = 8 << 10;

/// One worksheet.
pub struct Sheet {
    names: Vec<String>,
    cells: Range<Data>,
    /// Row of the header, from 0.
    header: usize,
}

impl Sheet {
    pub fn open(file: File, name: &str, sheet: Option<&str>) -> Result<Self> {
        let invalid = |e: calamine::Error| Error::new(Code::DataInvalid, "the workbook cannot be read").file(name, None, None).source(e);
        let mut book = workbook(file, name)?;
        let sheets = book.sheet_names();
        let wanted = match sheet {
            Some(sheet) if !sheets.iter().any(|s| s == sheet) => {
                let error =
                    Error::new(Code::NotFound, "the workbook has no such sheet").detail(sheet).file(name, None, None).setting("sheet");
                return Err(match closest(sheet, sheets.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("did you mean {near:?}?")),
                    None => error.hint(format!("it has {}", sheets.join(", "))),
                });
            }
            Some(sheet) => sheet.to_owned(),
            None => {
                sheets.first().cloned().ok_or_else(|| Error::new(Code::DataInvalid, "the workbook has no sheets").file(name, None, None))?
            }
        };
        let cells = book.worksheet_range(&wanted).map_err(invalid)?;
        let header = cells.rows().position(|row| row.iter().any(|c| *c != Data::Empty)).unwrap_or(0);
        let names = cells.rows().nth(header).map(|row| row.iter().map(|c| text(c).unwrap_or_default()).collect()).unwrap_or_default();
        Ok(Self { names: unique(names).names, cells, header })
    }

    /// The columns, with the types that all of their cells have.
    pub fn fields(&self, declared: &BTreeMap<String, Field>) -> Vec<FieldRef> {
        let field = |(i, name): (usize, &String)| {
            if let Some(field) = declared.get(name) {
                return Arc::new(field.clone());
            }
            let mut guess = Guess::default();
            for cell in self.cells.rows().skip(self.header + 1).filter_map(|row| row.get(i)) {
                match (cell, text(cell)) {
                    // Text that looks like a number is text: a worksheet has types of its own.
                    (Data::String(_), _) => guess.see_text(),
                    (_, Some(text)) => guess.see(text.as_bytes()),
                    (_, None) => {}
                }
            }
            guess.field(name)
        };
        self.names.iter().enumerate().map(field).collect()
    }

    pub fn read(&self, fields: &[FieldRef], known: &Schema, file: &str, sink: &mut Sink) -> Result<()> {
        if let Some(new) = self.names.iter().find(|n| known.field_with_name(n).is_err()) {
            return Err(Error::new(Code::ContractBroken, "a file has a column that the sampled files do not have")
                .detail(new.clone())
                .file(file, None, None));
        }
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let first_line = self.cells.start().map_or(0, |s| s.0 as usize) + 1;
        let rows: Vec<(usize, &[Data])> =
            self.cells.rows().enumerate().skip(self.header + 1).filter(|(_, row)| row.iter().any(|c| *c != Data::Empty)).collect();
        for chunk in rows.chunks(BATCH) {
            let mut refused = Refused::default();
            let mut columns = Vec::with_capacity(fields.len());
            for field in fields {
                let place = self.names.iter().position(|n| n == field.name());
                let cells = chunk.iter().map(|(_, row)| -> Cell<'_> { Some(text(row.get(place?)?)?.into_bytes().into()) });
                columns.push(column::decode(field, chunk.len(), cells, &mut refused)?);
            }
            for (row, reason) in &refused.0 {
                let (line, cells) = chunk[*row];
                let raw: Vec<String> = cells.iter().map(|c| text(c).unwrap_or_default()).collect();
                sink.reject(rejected(file, (first_line + line) as u64, reason.clone(), raw.join("\t").as_bytes()))?;
            }
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(chunk.len()));
            let batch = without(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?, &refused)?;
            let kept = chunk.iter().enumerate().filter(|(row, _)| !refused.0.contains_key(row));
            let lines = kept.map(|(_, (line, _))| (first_line + line) as u64);
            sink.lines(batch, Some(Lines::new(file, lines)))?;
        }
        Ok(())
    }
}

fn workbook(file: File, name: &str) -> Result<Sheets<BufReader<File>>> {
    let invalid = |e: calamine::Error| Error::new(Code::DataInvalid, "the workbook cannot be read").file(name, None, None).source(e);
    let reader = |file: File| BufReader::new(file);
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    Ok(match extension.as_str() {
        "xls" => Sheets::Xls(calamine::open_workbook_from_rs(reader(file)).map_err(|e| invalid(calamine::Error::Xls(e)))?),
        "xlsb" => Sheets::Xlsb(calamine::open_workbook_from_rs(reader(file)).map_err(|e| invalid(calamine::Error::Xlsb(e)))?),
        "ods" => Sheets::Ods(calamine::open_workbook_from_rs(reader(file)).map_err(|e| invalid(calamine::Error::Ods(e)))?),
        _ => Sheets::Xlsx(calamine::open_workbook_from_rs(reader(file)).map_err(|e| invalid(calamine::Error::Xlsx(e)))?),
    })
}

/// A cell as text that says its value exactly; `None` for an empty one.
fn text(cell: &Data) -> Option<String> {
    Some(match cell {
        Data::Empty => return None,
        Data::Int(n) => n.to_string(),
        // Worksheets keep all numbers as doubles; whole ones are shown and meant as integers.
        Data::Float(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("{n:.0}"),
        Data::Float(n) => n.to_string(),
        Data::String(s) | Data::DateTimeIso(s) | Data::DurationIso(s) => s.clone(),
        Data::Bool(b) => b.to_string(),
        Data::DateTime(at) if at.is_datetime() => match at.to_ymd_hms_milli() {
            (y, m, d, 0, 0, 0, 0) => format!("{y:04}-{m:02}-{d:02}"),
            (y, m, d, hour, minute, second, milli) => format!("{y:04}-{m:02}-{d:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}"),
        },
        // A duration, in days.
        Data::DateTime(at) => at.as_f64().to_string(),
        Data::Error(e) => format!("{e}"),
    })
}
