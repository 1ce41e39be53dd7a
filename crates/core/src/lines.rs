//! The lines of a file that a batch's rows come from, so that a person finds a row which is rejected later.

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Metadata of a schema that says where its one batch comes from.
const KEY: &str = "trib:lines";

/// A file, and the line of each row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    file: String,
    /// First line and number of rows that stand on it and those that follow. None where rows have been left out since, nobody knows which.
    runs: Vec<(u64, usize)>,
}

impl Lines {
    pub fn new(file: &str, lines: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<(u64, usize)> = Vec::new();
        for line in lines {
            match runs.last_mut() {
                Some((first, rows)) if *first + *rows as u64 == line => *rows += 1,
                _ => runs.push((line, 1)),
            }
        }
        Self { file: file.to_owned(), runs }
    }

    /// One row on each line.
    pub fn from(file: &str, first: u64, rows: usize) -> Self {
        Self { file: file.to_owned(), runs: vec![(first, rows)] }
    }

    /// Of a batch that may have lost rows: then all that is known is the file.
    #[must_use]
    pub fn of_rows(mut self, rows: usize) -> Self {
        if self.runs.iter().map(|(_, rows)| rows).sum::<usize>() != rows {
            self.runs.clear();
        }
        self
    }

    /// `orders.csv:17`
    pub fn place(&self, row: usize) -> String {
        let mut left = row;
        for (first, rows) in &self.runs {
            if left < *rows {
                return format!("{}:{}", self.file, first + left as u64);
            }
            left -= rows;
        }
        self.file.clone()
    }

    /// The batch, which says from now on where it comes from.
    pub fn mark(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut schema = batch.schema().as_ref().clone();
        schema.metadata.insert(KEY.to_owned(), serde_json::to_string(self)?);
        Ok(batch.with_schema(Arc::new(schema))?)
    }

    /// What [`Self::mark`] has noted. Where a batch has been filtered since, it is the file alone.
    pub fn of(batch: &RecordBatch) -> Option<Self> {
        let lines: Self = serde_json::from_str(batch.schema_ref().metadata.get(KEY)?).ok()?;
        Some(lines.of_rows(batch.num_rows()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    #[test]
    fn a_row_is_found_until_others_are_left_out() {
        let batch = |rows: i64| RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap();
        let lines = Lines::new("a.csv", [2, 3, 5, 9, 10]);
        let marked = lines.mark(batch(5)).unwrap();
        let found = Lines::of(&marked).unwrap();
        let places: Vec<String> = (0..5).map(|row| found.place(row)).collect();
        assert_eq!(places, ["a.csv:2", "a.csv:3", "a.csv:5", "a.csv:9", "a.csv:10"]);
        assert_eq!(Lines::of(&marked.slice(0, 4)).unwrap().place(0), "a.csv");
        assert_eq!(Lines::from("a.csv", 2, 5).place(4), "a.csv:6");
        assert!(Lines::of(&batch(1)).is_none());
    }
}
