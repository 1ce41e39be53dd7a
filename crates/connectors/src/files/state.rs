//! What was read: by file, or by the value of a column.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trib_core::{Read, Result, Split, SplitEnd, State, StreamRead};
use trib_kit::cursor;

use super::cursor::Reached;
use super::split::{FILE, Spec};

/// State of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    /// Files that were read to their end, each with its stamp.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// The column that `value` belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Everything up to and including this was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Hashes of the rows read at `value`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
    /// What is left of a read that was cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Split>,
    /// How far the part of that read reached that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Reached>,
}

impl StreamState {
    /// The stream's state. That of another cursor is refused, since it would skip files or rows.
    pub fn of(state: &State, read: &StreamRead) -> Result<Self> {
        let found: Self = cursor::stored(state, read)?;
        if found.cursor.is_none() && (found.value.is_some() || !found.seen.is_empty()) {
            return Err(cursor::without_cursor(read));
        }
        cursor::same_cursor(read, found.cursor.as_deref().or((!found.files.is_empty()).then_some(FILE)))?;
        Ok(found)
    }
}

/// See [`trib_core::Source::advance`].
pub fn advance(reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
    let mut result = state.clone();
    for read in reads {
        let before = StreamState::of(state, read)?;
        let mine: Vec<&SplitEnd> = ends.iter().filter(|e| e.split.streams.contains(&read.stream)).collect();
        if mine.is_empty() {
            continue;
        }
        let left: Vec<Split> = mine.iter().filter_map(|e| e.rest.clone()).collect();
        let after = match &read.read {
            Read::Incremental(cursor) if cursor.column == FILE => by_file(before, &mine, left)?,
            Read::Incremental(cursor) => by_value(before, &cursor.column, &mine, left)?,
            _ => StreamState { left, ..StreamState::default() },
        };
        result.streams.insert(read.stream.clone(), serde_json::to_value(after)?);
    }
    Ok(result)
}

fn by_file(before: StreamState, ends: &[&SplitEnd], left: Vec<Split>) -> Result<StreamState> {
    let mut files = before.files;
    let mut unread = BTreeSet::new();
    for rest in &left {
        unread.extend(Spec::of(rest)?.files.into_iter().map(|f| f.name));
    }
    for end in ends {
        let spec = Spec::of(&end.split)?;
        for (name, stamp) in spec.stamps().filter(|(name, _)| !unread.contains(*name)) {
            files.insert(name.to_owned(), stamp.to_owned());
        }
        for gone in &spec.gone {
            files.remove(gone);
        }
    }
    Ok(StreamState { files, left, ..StreamState::default() })
}

fn by_value(before: StreamState, column: &str, ends: &[&SplitEnd], left: Vec<Split>) -> Result<StreamState> {
    let mut reached = before.next.unwrap_or_default();
    for end in ends {
        if !end.facts.is_null() {
            reached = reached.max(serde_json::from_value(end.facts.clone())?)?;
        }
    }
    let cursor = Some(column.to_owned());
    if !left.is_empty() {
        return Ok(StreamState { cursor, value: before.value, seen: before.seen, left, next: Some(reached), ..StreamState::default() });
    }
    let mut seen = reached.seen;
    if reached.value.is_none() || reached.value == before.value {
        seen.extend(before.seen);
    }
    Ok(StreamState { cursor, value: reached.value.or(before.value), seen, ..StreamState::default() })
}
