//! Which rows of a table the scope of a load covers, and which files can hold such.

use std::cmp::Ordering;
use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use futures::{StreamExt, TryStreamExt};
use trib_core::Result;
use trib_core::load::{RowScope, Rows};
use trib_engine::range::value;

use super::{Room, StagedFiles};
use crate::data_file;
use crate::file_stats::FileStats;

/// How many of a file's rows are covered, as far as the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    None,
    Some,
    All,
}

pub struct Covered<'a> {
    column: &'a str,
    data_type: DataType,
    values: Values,
}

enum Values {
    /// From the first to the second, the second included or not.
    Between(ArrayRef, ArrayRef, bool),
    /// Those of the staged rows; their least and greatest, where there are any but NULL, and whether NULL is among them.
    Among { rows: HashSet<OwnedRow>, converter: RowConverter, ends: Option<(ArrayRef, ArrayRef)>, null: bool },
}

impl<'a> Covered<'a> {
    /// `schema` has the scope's column alone, as the table has it.
    pub async fn of(room: &Room, staged: &StagedFiles, scope: &'a RowScope, schema: &SchemaRef) -> Result<Self> {
        let data_type = schema.field(0).data_type().clone();
        let values = match &scope.rows {
            Rows::With(text) => {
                let only = value(text, &data_type)?;
                Values::Between(only.clone(), only, true)
            }
            Rows::Between { from, until } => Values::Between(value(from, &data_type)?, value(until, &data_type)?, false),
            Rows::Staged => {
                let mut rows = HashSet::new();
                let mut null = false;
                let mut ends: Option<(ArrayRef, ArrayRef)> = None;
                let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
                for file in &staged.files {
                    let path = staged.folder.clone().join(file.name.as_str());
                    let mut batches = data_file::read(&room.store, &path, file.size, schema, &[]).await?.boxed();
                    while let Some(batch) = batches.try_next().await? {
                        let column = batch.column(0);
                        null |= column.null_count() > 0;
                        rows.extend(converter.convert_columns(batch.columns())?.iter().map(|row| row.owned()));
                        ends = widened(ends, column)?;
                    }
                }
                Values::Among { rows, converter, ends, null }
            }
        };
        Ok(Self { column: &scope.column, data_type, values })
    }

    /// By the bounds that the log has of the file.
    pub fn of_file(&self, stats: &FileStats) -> Result<Share> {
        let Some((least, greatest)) = stats.bounds(self.column, &self.data_type) else { return Ok(Share::Some) };
        let nulls = stats.null_count.get(self.column).is_none_or(|n| n.get() != "0");
        Ok(match &self.values {
            Values::Between(from, until, closed) => {
                let beyond = if *closed { Ordering::is_gt } else { Ordering::is_ge };
                if compare(&greatest, from)?.is_lt() || beyond(compare(&least, until)?) {
                    Share::None
                } else if compare(&least, from)?.is_ge() && !beyond(compare(&greatest, until)?) && !nulls && !self.cut_off() {
                    Share::All
                } else {
                    Share::Some
                }
            }
            Values::Among { null: true, .. } if nulls => Share::Some,
            Values::Among { ends: None, .. } => Share::None,
            Values::Among { ends: Some((from, until)), .. } => {
                if compare(&greatest, from)?.is_lt() || compare(&least, until)?.is_gt() {
                    Share::None
                } else {
                    Share::Some
                }
            }
        })
    }

    /// Bounds of text may be shortened, and then say less than they seem to.
    fn cut_off(&self) -> bool {
        self.data_type == DataType::Utf8
    }

    /// The places of the covered rows.
    pub fn hits(&self, column: &ArrayRef) -> Result<Vec<usize>> {
        match &self.values {
            Values::Between(from, until, closed) => {
                let options = SortOptions::default();
                let (low, high) = (make_comparator(column, from, options)?, make_comparator(column, until, options)?);
                let below = |o: Ordering| if *closed { o.is_le() } else { o.is_lt() };
                Ok((0..column.len()).filter(|&i| column.is_valid(i) && low(i, 0).is_ge() && below(high(i, 0))).collect())
            }
            Values::Among { rows, converter, .. } => {
                let found = converter.convert_columns(std::slice::from_ref(column))?;
                Ok((0..column.len()).filter(|&i| rows.contains(&found.row(i).owned())).collect())
            }
        }
    }
}

fn compare(left: &ArrayRef, right: &ArrayRef) -> Result<Ordering> {
    Ok(make_comparator(left, right, SortOptions::default())?(0, 0))
}

/// Ends that also hold what a column has.
fn widened(ends: Option<(ArrayRef, ArrayRef)>, column: &ArrayRef) -> Result<Option<(ArrayRef, ArrayRef)>> {
    let end = |descending| -> Result<Option<ArrayRef>> {
        let first = arrow::compute::sort_to_indices(column, Some(SortOptions { descending, nulls_first: false }), Some(1))?;
        let value = arrow::compute::take(column, &first, None)?;
        Ok((value.len() == 1 && value.is_valid(0)).then_some(value))
    };
    let (Some(least), Some(greatest)) = (end(false)?, end(true)?) else { return Ok(ends) };
    Ok(Some(match ends {
        None => (least, greatest),
        Some((from, until)) => {
            let from = if compare(&least, &from)?.is_lt() { least } else { from };
            let until = if compare(&greatest, &until)?.is_gt() { greatest } else { until };
            (from, until)
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int64Array};

    use super::*;

    fn file(stats: &str) -> FileStats {
        FileStats::parse(stats).unwrap()
    }

    #[test]
    fn files_are_judged_by_their_bounds() {
        let between = |from: &str, until: &str| Covered {
            column: "day",
            data_type: DataType::Date32,
            values: Values::Between(value(from, &DataType::Date32).unwrap(), value(until, &DataType::Date32).unwrap(), false),
        };
        let stats = |least: &str, greatest: &str, nulls: u8| {
            file(&format!(
                r#"{{"numRecords": 3, "minValues": {{"day": "{least}"}}, "maxValues": {{"day": "{greatest}"}}, "nullCount": {{"day": {nulls}}}}}"#
            ))
        };
        let march = between("2024-03-01", "2024-04-01");
        let cases = [
            (stats("2024-03-01", "2024-03-31", 0), Share::All),
            (stats("2024-03-01", "2024-03-31", 1), Share::Some),
            (stats("2024-03-31", "2024-04-01", 0), Share::Some),
            (stats("2024-04-01", "2024-04-30", 0), Share::None),
            (stats("2024-02-01", "2024-02-29", 1), Share::None),
            (file("{}"), Share::Some),
        ];
        for (stats, share) in cases {
            assert_eq!(march.of_file(&stats).unwrap(), share, "{stats:?}");
        }
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(19_782), Some(19_783), None, Some(19_813), Some(19_814)]));
        // 1970-01-01 + 19783 days is the first of March 2024.
        assert_eq!(march.hits(&days).unwrap(), [1, 3]);
    }

    #[test]
    fn staged_values_cover_their_rows_null_among_them() {
        let staged: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(2), Some(5)]));
        let converter = RowConverter::new(vec![SortField::new(DataType::Int64)]).unwrap();
        let rows = converter.convert_columns(std::slice::from_ref(&staged)).unwrap().iter().map(|r| r.owned()).collect();
        let ends = widened(None, &staged).unwrap();
        let covered = Covered { column: "n", data_type: DataType::Int64, values: Values::Among { rows, converter, ends, null: true } };
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(3), Some(5)]));
        assert_eq!(covered.hits(&column).unwrap(), [1, 2, 4]);
        let of = |stats: &str| covered.of_file(&file(stats)).unwrap();
        assert_eq!(of(r#"{"minValues": {"n": 6}, "maxValues": {"n": 9}, "nullCount": {"n": 0}}"#), Share::None);
        assert_eq!(of(r#"{"minValues": {"n": 6}, "maxValues": {"n": 9}, "nullCount": {"n": 1}}"#), Share::Some);
        assert_eq!(of(r#"{"minValues": {"n": 3}, "maxValues": {"n": 4}, "nullCount": {"n": 0}}"#), Share::Some);
    }
}
