//! What is kept of a row that was rejected: no more of it than its table would have got.
//!
//! Rejected rows stand in the control database, so the rules that protect a column at the destination hold there as well. A column that is dropped is left
//! out; one that is masked or hashed is kept as `{"_trib_protected": …}`, so that another try does not mask or hash it again.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use serde_json::{Map, Value, json};
use trib_core::transform::{ColumnRule, Transform};
use trib_core::{RejectedRow, Result};
use trib_kit::object;

use crate::protect::Protection;

/// Stands around a value that was masked or hashed already; around NULL when the source could not decode the row, and the value is withheld.
const PROTECTED: &str = "_trib_protected";

/// The rules of a stream that hold for its rejected rows.
pub struct Kept {
    rules: BTreeMap<String, Rule>,
    /// The rules are about the columns of a query's result, which rows that the source rejects have not seen.
    queried: bool,
    /// Columns that nobody has asked for stand in raw lines all the same.
    selected: bool,
}

enum Rule {
    Dropped,
    Protected(Protection),
}

impl Kept {
    pub fn of(transform: &Transform) -> Self {
        let rule = |rule: &ColumnRule| match Protection::of(rule) {
            _ if rule.drop => Some(Rule::Dropped),
            protection => protection.map(Rule::Protected),
        };
        let rules = transform.columns.iter().filter_map(|(name, r)| Some((name.clone(), rule(r)?))).collect();
        Self { rules, queried: transform.sql.is_some(), selected: transform.select.is_some() }
    }

    /// Rows of a batch as it was before the column steps.
    pub fn rows(&self, batch: &RecordBatch, wanted: &BooleanArray) -> Result<Vec<Map<String, Value>>> {
        let batch = filter_record_batch(batch, wanted)?;
        let mut rows: Vec<Map<String, Value>> = (0..batch.num_rows()).map(|i| object::row(&batch, i)).collect();
        for (name, rule) in &self.rules {
            let protected = match (rule, batch.schema_ref().index_of(name)) {
                (Rule::Protected(protection), Ok(at)) => Some(protection.apply(batch.column(at))?.values),
                _ => None,
            };
            for (i, row) in rows.iter_mut().enumerate() {
                match &protected {
                    Some(values) => {
                        let value = values.is_valid(i).then(|| values.as_string::<i32>().value(i));
                        let null = row.get(name).is_none_or(Value::is_null);
                        row.insert(name.clone(), if null { Value::Null } else { json!({PROTECTED: value}) });
                    }
                    None => drop(row.remove(name)),
                }
            }
        }
        Ok(rows)
    }

    /// A row that the source has rejected. Its values have not met their types, so those that the rules are about are withheld; of a
    /// raw line nobody can say where they stand.
    pub fn undecoded(&self, rejected: RejectedRow) -> RejectedRow {
        if self.rules.is_empty() && !self.selected {
            return rejected;
        }
        let RejectedRow { place, reason, row } = rejected;
        let row = match row {
            Value::Object(mut values) if !self.queried => {
                for (name, rule) in &self.rules {
                    match (rule, values.get_mut(name)) {
                        (Rule::Protected(_), Some(value)) if !value.is_null() => *value = json!({PROTECTED: null}),
                        (Rule::Dropped, Some(_)) => drop(values.remove(name)),
                        _ => {}
                    }
                }
                Value::Object(values)
            }
            _ => Value::Null,
        };
        let reason = match self.rules.keys().find(|name| mentions(&reason, name)) {
            Some(name) => format!("column {name}: the value cannot be decoded (not shown, since the column is protected)"),
            None => without_quoted(&reason),
        };
        // A key is shown as `name=value`; files and lines are not.
        let place = if self.rules.keys().any(|name| place.contains(&format!("{name}="))) { String::new() } else { place };
        RejectedRow { place, reason, row }
    }
}

/// Whether a text has a column's name as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + name.len()..].chars().next()))
}

/// A reason quotes the value that it is about, which may belong to any column where fields are out of place.
fn without_quoted(reason: &str) -> String {
    let mut out = String::new();
    let mut open = None;
    for c in reason.chars() {
        match open {
            None => {
                out.push(c);
                if c == '"' || c == '\'' {
                    out.push('…');
                    open = Some(c);
                }
            }
            Some(quote) if c == quote => {
                out.push(c);
                open = None;
            }
            Some(_) => {}
        }
    }
    out
}

/// A rejected row made ready for another try: the values themselves, and which of them are protected already. `None` when a value
/// was withheld.
pub fn unwrapped(row: &Map<String, Value>) -> Option<(Map<String, Value>, Vec<String>)> {
    let mut protected = Vec::new();
    let mut values = Map::new();
    for (name, value) in row {
        let value = match value.as_object().filter(|o| o.len() == 1).and_then(|o| o.get(PROTECTED)) {
            Some(Value::Null) => return None,
            Some(inner) => {
                protected.push(name.clone());
                inner
            }
            None => value,
        };
        values.insert(name.clone(), value.clone());
    }
    Some((values, protected))
}

/// A value as a row's place shows it.
pub fn shown(value: &Value) -> String {
    match value.get(PROTECTED).unwrap_or(value) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;
    use trib_core::Secret;
    use trib_core::transform::Mask;

    fn kept() -> Kept {
        let columns = [
            ("email", ColumnRule { hmac: Some(Secret::new("k")), ..ColumnRule::default() }),
            ("card", ColumnRule { mask: Some(Mask::All(true)), ..ColumnRule::default() }),
            ("ssn", ColumnRule { drop: true, ..ColumnRule::default() }),
            ("id", ColumnRule { rename: Some("key".into()), ..ColumnRule::default() }),
        ];
        Kept::of(&Transform { columns: columns.map(|(n, r)| (n.to_owned(), r)).into(), ..Transform::default() })
    }

    #[test]
    fn rows_are_kept_as_their_table_would_have_got_them() {
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from(vec![1, 2]))),
            ("email", Arc::new(StringArray::from(vec![Some("a@x"), None]))),
            ("card", Arc::new(Int64Array::from(vec![4242, 4343]))),
            ("ssn", Arc::new(StringArray::from(vec!["123", "456"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows = kept().rows(&batch, &BooleanArray::from(vec![false, true])).unwrap();
        assert_eq!(json!(rows), json!([{"id": 2, "email": null, "card": {"_trib_protected": "***"}}]));
        let rows = kept().rows(&batch, &BooleanArray::from(vec![true, false])).unwrap();
        let (values, protected) = unwrapped(&rows[0]).unwrap();
        assert_eq!((values["email"].as_str().unwrap().len(), protected), (64, vec!["email".to_owned(), "card".to_owned()]));
        assert!(!json!(rows).to_string().contains("a@x"));
    }

    #[test]
    fn what_the_source_could_not_decode_shows_nothing_protected() {
        let reject =
            |place: &str, reason: &str, row: Value| kept().undecoded(RejectedRow { place: place.into(), reason: reason.into(), row });
        let line = reject("people.csv:7", "column age: \"a@x\" is not an integer", json!("1,a@x,4242,123"));
        assert_eq!(
            (line.place.as_str(), line.reason.as_str(), line.row),
            ("people.csv:7", "column age: \"…\" is not an integer", Value::Null)
        );
        let row = reject("email=a@x", "email: 'a@x' has a NUL", json!({"id": 1, "email": "a@x", "card": null, "ssn": "123"}));
        assert_eq!(row.row, json!({"id": 1, "email": {"_trib_protected": null}, "card": null}));
        assert!(!format!("{row:?}").contains("a@x"), "{row:?}");
        assert!(unwrapped(row.row.as_object().unwrap()).is_none());
        let free = Kept::of(&Transform::default());
        let row = RejectedRow { place: "p".into(), reason: "\"x\"".into(), row: json!("raw") };
        assert_eq!(free.undecoded(row.clone()), row);
    }
}
