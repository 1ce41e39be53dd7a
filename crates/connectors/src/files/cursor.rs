//! Rows by the value of a column, for a source that cannot be asked for them: every file is read, and the rows that do not belong are left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::{cmp, numeric};
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::row::{RowConverter, SortField};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trib_core::source::NullCursor;
use trib_core::{Code, Error, Result};

/// More rows than this at the greatest value are not remembered one by one.
const MOST_SEEN: usize = 100_000;

/// Which rows of the files are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    #[default]
    All,
    /// `since ≤ column < until`.
    Range {
        column: String,
        since: Option<String>,
        until: Option<String>,
    },
    After(After),
}

/// Rows that an incremental read has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    pub column: String,
    pub lower: Option<String>,
    pub lookback: Option<u64>,
    pub end: Option<String>,
    pub nulls: NullCursor,
    /// Hashes of the rows that were read at `lower`.
    pub seen: BTreeSet<String>,
    pub exactly_once: bool,
}

/// What a split has found, for the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    pub value: Option<String>,
    /// Hashes of the rows at `value`.
    pub seen: BTreeSet<String>,
    /// The column's type, in which two values are compared.
    pub of: Option<DataType>,
}

impl Select {
    pub fn column(&self) -> Option<&str> {
        match self {
            Select::All => None,
            Select::Range { column, .. } | Select::After(After { column, .. }) => Some(column),
        }
    }
}

/// Leaves out rows that are not wanted, and notes how far the others reach.
pub struct Filter {
    column: String,
    lower: Option<Scalar<ArrayRef>>,
    /// Not included.
    upper: Option<Scalar<ArrayRef>>,
    nulls: NullCursor,
    seen_at: Option<Scalar<ArrayRef>>,
    seen: BTreeSet<String>,
    greatest: Option<Scalar<ArrayRef>>,
    at_greatest: BTreeSet<String>,
    overflow: bool,
    exactly_once: bool,
    tracks: bool,
    rows: Option<RowConverter>,
}

impl Filter {
    /// `None` when all rows are wanted.
    pub fn new(select: &Select, schema: &arrow::datatypes::Schema) -> Result<Option<Self>> {
        let Some(name) = select.column() else { return Ok(None) };
        let (_, field) =
            schema.column_with_name(name).ok_or_else(|| Error::new(Code::NotFound, "the stream has no such column").detail(name))?;
        let t = field.data_type();
        let bound = |text: &Option<String>| text.as_deref().map(|text| scalar(text, t)).transpose();
        let mut filter = Self {
            column: name.to_owned(),
            lower: None,
            upper: None,
            nulls: NullCursor::Exclude,
            seen_at: None,
            seen: BTreeSet::new(),
            greatest: None,
            at_greatest: BTreeSet::new(),
            overflow: false,
            exactly_once: false,
            tracks: false,
            rows: None,
        };
        match select {
            Select::All => {}
            Select::Range { since, until, .. } => (filter.lower, filter.upper) = (bound(since)?, bound(until)?),
            Select::After(after) => {
                filter.lower = match (bound(&after.lower)?, after.lookback) {
                    (Some(lower), Some(back)) => Some(earlier(&lower, back, t)?),
                    (lower, _) => lower,
                };
                filter.upper = bound(&after.end)?;
                filter.seen_at = bound(&after.lower)?.filter(|_| !after.seen.is_empty());
                (filter.seen, filter.nulls) = (after.seen.clone(), after.nulls);
                (filter.exactly_once, filter.tracks) = (after.exactly_once, true);
            }
        }
        Ok(Some(filter))
    }

    pub fn rows(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let cursor = self.cursor(&batch)?;
        let mut keep = match self.nulls {
            NullCursor::Include => BooleanArray::from(vec![true; batch.num_rows()]),
            NullCursor::Fail if cursor.null_count() > 0 => {
                return Err(Error::new(Code::DataInvalid, "rows have no value in the cursor column")
                    .detail(self.column.clone())
                    .hint("set `null_cursor: include` or `exclude`, or choose another cursor"));
            }
            NullCursor::Exclude | NullCursor::Fail => compute::is_not_null(&cursor)?,
        };
        // A NULL cursor is neither below nor above.
        let mut also = |mask: BooleanArray| -> Result<()> {
            let mask: BooleanArray = mask.iter().map(|m| Some(m.unwrap_or(true))).collect();
            keep = compute::and(&keep, &mask)?;
            Ok(())
        };
        if let Some(lower) = &self.lower {
            also(cmp::gt_eq(&cursor, lower)?)?;
        }
        if let Some(upper) = &self.upper {
            also(cmp::lt(&cursor, upper)?)?;
        }
        if let Some(at) = self.seen_at.clone() {
            let ties = cmp::eq(&cursor, &at)?;
            if ties.true_count() > 0 {
                let mut hashes = self.hashes(&compute::filter_record_batch(&batch, &ties)?)?.into_iter();
                let new: BooleanArray =
                    ties.iter().map(|tie| Some(tie != Some(true) || hashes.next().is_none_or(|hash| !self.seen.contains(&hash)))).collect();
                keep = compute::and(&keep, &new)?;
            }
        }
        if self.tracks {
            // Rows that were seen before count too: they are still at the boundary.
            let mut within = compute::is_not_null(&cursor)?;
            if let Some(upper) = &self.upper {
                within = compute::and_kleene(&within, &cmp::lt(&cursor, upper)?)?;
            }
            self.track(&compute::filter_record_batch(&batch, &within)?)?;
        }
        Ok(if keep.true_count() == batch.num_rows() { batch } else { compute::filter_record_batch(&batch, &keep)? })
    }

    fn cursor(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        batch.column_by_name(&self.column).cloned().ok_or_else(|| Error::internal("a reader left the cursor column out"))
    }

    fn track(&mut self, batch: &RecordBatch) -> Result<()> {
        let cursor = &self.cursor(batch)?;
        let last_first = SortOptions { descending: true, nulls_first: false };
        let top = compute::sort_to_indices(cursor, Some(last_first), Some(1))?;
        if top.is_empty() {
            return Ok(());
        }
        let top = Scalar::new(compute::take(cursor, &top, None)?);
        let further = match &self.greatest {
            None => true,
            Some(greatest) => cmp::gt(&top, greatest)?.value(0),
        };
        if further {
            self.greatest = Some(top.clone());
            self.at_greatest.clear();
            self.overflow = false;
        }
        if let Some(greatest) = self.greatest.clone().filter(|_| !self.overflow) {
            let at = cmp::eq(cursor, &greatest)?;
            if at.true_count() > 0 {
                let hashes = self.hashes(&compute::filter_record_batch(batch, &at)?)?;
                self.at_greatest.extend(hashes);
            }
        }
        if self.at_greatest.len() > MOST_SEEN {
            self.overflow = true;
            self.at_greatest.clear();
        }
        Ok(())
    }

    pub fn reached(&self) -> Result<Reached> {
        if self.overflow && self.exactly_once {
            return Err(Error::new(Code::Unsupported, "too many rows share the cursor's greatest value to load each exactly once")
                .detail(format!("more than {MOST_SEEN}"))
                .hint("give the stream a key and `write: insert` or `upsert`, or choose a finer cursor"));
        }
        let Some(greatest) = &self.greatest else { return Ok(Reached::default()) };
        let array = greatest.get().0;
        let text = compute::cast(array, &DataType::Utf8)?;
        let text: &StringArray = arrow::array::AsArray::as_string(&text);
        Ok(Reached { value: Some(text.value(0).to_owned()), seen: self.at_greatest.clone(), of: Some(array.data_type().clone()) })
    }

    fn hashes(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let converter = match &mut self.rows {
            Some(converter) => converter,
            none => {
                let fields = batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
                none.insert(RowConverter::new(fields)?)
            }
        };
        let rows = converter.convert_columns(batch.columns())?;
        Ok(rows.iter().map(|row| hex::encode(&Sha256::digest(row.as_ref())[..12])).collect())
    }
}

impl Reached {
    /// The further of the two; rows of both where they reach equally far.
    pub fn max(self, other: Self) -> Result<Self> {
        let (Some(a), Some(b)) = (&self.value, &other.value) else {
            return Ok(if self.value.is_some() { self } else { other });
        };
        if a == b {
            let seen = self.seen.union(&other.seen).cloned().collect();
            return Ok(Self { seen, ..self });
        }
        let t = other.of.clone().or_else(|| self.of.clone()).unwrap_or(DataType::Utf8);
        let further = cmp::gt(&scalar(b, &t)?, &scalar(a, &t)?)?.value(0);
        Ok(if further { other } else { self })
    }
}

fn scalar(text: &str, t: &DataType) -> Result<Scalar<ArrayRef>> {
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let value = compute::cast(&array, t)?;
    if value.is_null(0) {
        return Err(
            Error::new(Code::ConfigInvalid, "the bound is not a value of the cursor column's type").detail(format!("{text:?} is no {t}"))
        );
    }
    Ok(Scalar::new(value))
}

/// `lookback` before a bound: seconds for times, units for numbers.
fn earlier(bound: &Scalar<ArrayRef>, back: u64, t: &DataType) -> Result<Scalar<ArrayRef>> {
    let back = i64::try_from(back).unwrap_or(i64::MAX);
    let (by, through): (i64, DataType) = match t {
        DataType::Timestamp(unit, _) => {
            let per_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            (back.saturating_mul(per_second), DataType::Int64)
        }
        // A day is the least that a date can go back.
        DataType::Date32 => (back.saturating_add(86_399) / 86_400, DataType::Int32),
        t if t.is_numeric() => (back, t.clone()),
        _ => {
            return Err(Error::new(Code::Unsupported, "a lookback needs a cursor of times or numbers").detail(t.to_string()));
        }
    };
    let number = compute::cast(bound.get().0, &through)?;
    let by = compute::cast(&arrow::array::Int64Array::from(vec![by]), &through)?;
    let less = numeric::sub_wrapping(&number, &by)?;
    Ok(Scalar::new(compute::cast(&less, t)?))
}
