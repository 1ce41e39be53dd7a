//! Incremental reads of SQL-like sources: their state, and exactness at the cursor's boundary.
//!
//! A read covers the closed range from the value that the last one reached to the greatest value when it was planned.
//! The range is closed at its lower end because rows with that very value may have come since; those that
//! were read before are recognised by their hash and left out.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow::compute::{self, kernels::cmp};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use trib_core::{Code, Error, Read, Result, Split, SplitEnd, State, StreamRead};

/// More rows than this at one cursor value are not remembered one by one.
const MOST_SEEN: usize = 100_000;

/// State of one stream: how far it was read, and what is left of a read that was cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorState {
    /// The column that the value belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Everything up to and including this was read, in the source's text form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Hashes of the rows read at `value`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
    /// Splits that are left of a read that was cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Split>,
    /// What `value` and `seen` become when nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Bound>,
}

/// The upper end of a read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
}

impl CursorState {
    /// The stream's state; empty when there is none. That of another cursor column is refused.
    pub fn of(state: &State, read: &StreamRead) -> Result<Self> {
        let found: Self = stored(state, read)?;
        if found.cursor.is_none() && (found.value.is_some() || !found.seen.is_empty()) {
            return Err(without_cursor(read));
        }
        same_cursor(read, found.cursor.as_deref())?;
        Ok(found)
    }
}

/// A stream's part of the state as its source wrote it; the default when there is none.
pub fn stored<T: DeserializeOwned + Default>(state: &State, read: &StreamRead) -> Result<T> {
    let Some(value) = state.stream(&read.stream) else {
        return Ok(T::default());
    };
    if !value.is_object() {
        return Err(foreign(read).detail("it is no object"));
    }
    serde_json::from_value(value.clone()).map_err(|e| foreign(read).source(e))
}

/// A value is nothing without the column that it is of.
pub fn without_cursor(read: &StreamRead) -> Error {
    foreign(read).detail("a `value` without the `cursor` that it belongs to")
}

fn foreign(read: &StreamRead) -> Error {
    Error::new(Code::DataInvalid, "the state is not one that this source has written")
        .stream(&read.stream)
        .hint("`trib state get` with the stream's name shows the form; `trib state reset` starts the stream again")
}

/// Refuses a state that belongs to another cursor than the one that is read by: going on from it would skip rows.
pub fn same_cursor(read: &StreamRead, before: Option<&str>) -> Result<()> {
    match (&read.read, before) {
        (Read::Incremental(cursor), Some(before)) if cursor.column != before => {
            Err(Error::new(Code::ConfigInvalid, "the cursor is another column than the one that the state belongs to")
                .detail(format!("{} now, {before} in the state", cursor.column))
                .stream(&read.stream)
                .hint("`trib state reset` starts the stream again with the new cursor"))
        }
        _ => Ok(()),
    }
}

/// [`trib_core::Source::advance`] for sources whose splits end with [`Boundary::facts`], or with null facts where the read
/// has no cursor.
pub fn advance(reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
    let mut result = state.clone();
    for read in reads {
        let before = CursorState::of(state, read)?;
        let mine: Vec<&SplitEnd> = ends.iter().filter(|e| e.split.streams.contains(&read.stream)).collect();
        if mine.is_empty() {
            continue;
        }
        let mut next = before.next.clone().unwrap_or_default();
        for end in &mine {
            if !end.facts.is_null() {
                let bound: Bound = serde_json::from_value(end.facts.clone())?;
                next.value = bound.value.or(next.value);
                next.seen.extend(bound.seen);
            }
        }
        let left: Vec<Split> = mine.iter().filter_map(|e| e.rest.clone()).collect();
        let cursor = match &read.read {
            Read::Incremental(cursor) => Some(cursor.column.clone()),
            _ => None,
        };
        let after = if !left.is_empty() {
            CursorState { cursor, left, next: Some(next), ..before }
        } else if cursor.is_some() {
            // Rows at the old boundary stay seen while the boundary stays.
            let mut seen = next.seen;
            if next.value == before.value {
                seen.extend(before.seen);
            }
            CursorState { cursor, value: next.value.or(before.value), seen, left, next: None }
        } else {
            CursorState::default()
        };
        result.streams.insert(read.stream.clone(), serde_json::to_value(after)?);
    }
    Ok(result)
}

/// Watches the rows of an incremental read at both ends of its range.
pub struct Boundary {
    column: usize,
    lower: Option<Scalar<ArrayRef>>,
    upper_text: String,
    upper: Scalar<ArrayRef>,
    seen: BTreeSet<String>,
    at_upper: BTreeSet<String>,
    rows: Option<RowConverter>,
    exactly_once: bool,
    overflow: bool,
}

impl Boundary {
    /// `lower` and `upper` are texts that Arrow casts to the type of the cursor column; `seen` are the hashes of the rows that were read at `lower`.
    pub fn new(cursor: (usize, &DataType), lower: Option<&str>, upper: &str, seen: BTreeSet<String>, exactly_once: bool) -> Result<Self> {
        let scalar = |text: &str| -> Result<Scalar<ArrayRef>> {
            let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
            Ok(Scalar::new(compute::cast(&text, cursor.1)?))
        };
        Ok(Self {
            column: cursor.0,
            lower: lower.filter(|_| !seen.is_empty()).map(scalar).transpose()?,
            upper_text: upper.to_owned(),
            upper: scalar(upper)?,
            seen,
            at_upper: BTreeSet::new(),
            rows: None,
            exactly_once,
            overflow: false,
        })
    }

    /// Leaves out rows that were read before, and remembers those at the upper end.
    pub fn filter(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let cursor = batch.column(self.column).clone();
        let at_upper = cmp::eq(&cursor, &self.upper)?;
        let at_lower = self.lower.as_ref().map(|lower| cmp::eq(&cursor, lower)).transpose()?;
        let hits = |mask: &BooleanArray| mask.true_count() > 0;
        if !hits(&at_upper) && !at_lower.as_ref().is_some_and(hits) {
            return Ok(batch);
        }
        let hashes = self.hashes(&batch)?;
        let is = |mask: &BooleanArray, i: usize| mask.is_valid(i) && mask.value(i);
        let mut keep = vec![true; batch.num_rows()];
        for (i, hash) in hashes.into_iter().enumerate() {
            if at_lower.as_ref().is_some_and(|m| is(m, i)) && self.seen.contains(&hash) {
                keep[i] = false;
            }
            if is(&at_upper, i) && !self.overflow {
                self.at_upper.insert(hash);
            }
        }
        if self.at_upper.len() > MOST_SEEN {
            self.overflow = true;
            self.at_upper.clear();
        }
        Ok(compute::filter_record_batch(&batch, &BooleanArray::from(keep))?)
    }

    /// For [`SplitEnd::facts`].
    pub fn facts(&self) -> Result<Value> {
        if self.overflow && self.exactly_once {
            return Err(Error::new(Code::Unsupported, "too many rows share the cursor's greatest value to load each exactly once")
                .detail(format!("more than {MOST_SEEN} rows at {}", self.upper_text))
                .hint("give the stream a key and `write: insert` or `upsert`, or choose a finer cursor"));
        }
        Ok(json!(Bound { value: Some(self.upper_text.clone()), seen: self.at_upper.clone() }))
    }

    fn hashes(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let converter = match &mut self.rows {
            Some(converter) => converter,
            none => {
                none.insert(RowConverter::new(batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect())?)
            }
        };
        let rows = converter.convert_columns(batch.columns())?;
        Ok(rows.iter().map(|row| hex::encode(&Sha256::digest(row.as_ref())[..12])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use trib_core::source::{Cursor, NullCursor};

    fn read() -> StreamRead {
        StreamRead {
            stream: "t".into(),
            columns: None,
            filter: None,
            key: vec![],
            read: Read::Incremental(Cursor {
                column: "at".into(),
                lookback: None,
                null_cursor: NullCursor::Exclude,
                start: None,
                end: None,
            }),
            split_by: None,
            parallelism: 1,
            may_stop: true,
            exactly_once: true,
        }
    }

    fn batch(rows: &[(i64, &str)]) -> RecordBatch {
        let at = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
        let name = StringArray::from_iter_values(rows.iter().map(|r| r.1));
        RecordBatch::try_from_iter([("at", Arc::new(at) as ArrayRef), ("name", Arc::new(name))]).unwrap()
    }

    fn run(state: &State, upper: &str, rows: &[(i64, &str)]) -> (usize, State) {
        let before = CursorState::of(state, &read()).unwrap();
        let mut boundary = Boundary::new((0, &DataType::Int64), before.value.as_deref(), upper, before.seen, true).unwrap();
        let kept = boundary.filter(batch(rows)).unwrap().num_rows();
        let end = SplitEnd::finished(&Split::new("t", Value::Null), boundary.facts().unwrap());
        (kept, advance(&[read()], state, &[end]).unwrap())
    }

    #[test]
    fn ties_at_the_boundary_come_once() {
        let (kept, state) = run(&State::default(), "2", &[(1, "a"), (2, "b")]);
        assert_eq!(kept, 2);
        // A row with the same cursor value has come since.
        let (kept, state) = run(&state, "2", &[(2, "b"), (2, "c")]);
        assert_eq!(kept, 1);
        // Nothing new; then a greater value.
        let (kept, state) = run(&state, "2", &[(2, "b"), (2, "c")]);
        assert_eq!(kept, 0);
        let (kept, state) = run(&state, "3", &[(2, "b"), (2, "c"), (2, "d"), (3, "e")]);
        assert_eq!(kept, 2);
        assert_eq!(CursorState::of(&state, &read()).unwrap().value.as_deref(), Some("3"));
    }

    #[test]
    fn a_cut_read_keeps_what_is_left() {
        let split = Split::new("t", json!({"lower": null}));
        let rest = Split::new("t", json!({"lower": 5}));
        let facts = json!(Bound { value: Some("9".into()), seen: BTreeSet::new() });
        let state = advance(&[read()], &State::default(), &[SplitEnd::stopped(&split, rest.clone(), facts.clone())]).unwrap();
        let cut = CursorState::of(&state, &read()).unwrap();
        assert_eq!((cut.value.as_deref(), cut.left.as_slice()), (None, [rest.clone()].as_slice()));
        let state = advance(&[read()], &state, &[SplitEnd::finished(&rest, facts)]).unwrap();
        let done = CursorState::of(&state, &read()).unwrap();
        assert_eq!((done.value.as_deref(), done.left.len()), (Some("9"), 0));
    }

    #[test]
    fn a_state_that_no_source_has_written_is_refused() {
        let whole = json!({"streams": {"t": {"cursor": "at", "value": "1"}}});
        for wrong in [
            json!(null),
            json!([]),
            json!("1"),
            json!({"cursr": "at", "value": "1"}),
            json!({"value": "1"}),
            json!({"cursor": "at", "value": 1}),
            whole,
        ] {
            let state = State::default().with_stream("t", wrong.clone());
            assert_eq!(advance(&[read()], &state, &[]).unwrap_err().code(), Code::DataInvalid, "{wrong}");
        }
        for right in [json!({}), json!({"cursor": "at"}), json!({"cursor": "at", "value": "1", "seen": ["00"]})] {
            advance(&[read()], &State::default().with_stream("t", right), &[]).unwrap();
        }
    }

    #[test]
    fn another_cursor_column_is_refused() {
        let state = State::default().with_stream("t", json!({"cursor": "other", "value": "1"}));
        assert_eq!(CursorState::of(&state, &read()).unwrap_err().code(), Code::ConfigInvalid);
    }
}
