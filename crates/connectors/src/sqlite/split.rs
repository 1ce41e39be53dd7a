//! A piece of a read as plain JSON, and the SQL that reads it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Result, Split};

use super::bound::Bound;
use super::database::{quoted, quoted_all};
use super::kind::Kind;

/// Everything that reading a split needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub table: String,
    /// The columns that come out, in this order.
    pub columns: Vec<String>,
    /// A condition in the user's SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    pub rows: Rows,
    /// The columns that order the rows: the cursor, then the key. Empty when any order will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<String>,
    /// Only rows that stand after this place in the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<Bound>>,
    /// The read may end early, at a place in the order.
    #[serde(default)]
    pub may_stop: bool,
    /// For an incremental read: what was read before at its lower end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<Edge>,
    /// The state of the database that the read was planned in, while the source that has planned it holds it. Others read what is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// Which rows a split covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rows", rename_all = "snake_case")]
pub enum Rows {
    All,
    /// A stretch of an integer column or of the rowid; an end that is missing is open, and the stretch without a lower end
    /// has the NULLs.
    Slice {
        column: String,
        from: Option<i64>,
        until: Option<i64>,
    },
    /// Both ends belong to it.
    Cursor {
        column: String,
        lower: Option<Bound>,
        upper: Bound,
    },
    /// Rows whose cursor is NULL.
    NullCursor {
        column: String,
    },
    /// Only the lower end belongs to it.
    Range {
        column: String,
        since: Option<Bound>,
        until: Option<Bound>,
    },
}

/// Both ends of an incremental read, for leaving out what was read before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// How far the last read came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Bound>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
    pub exactly_once: bool,
}

impl Spec {
    pub fn of(split: &Split) -> Result<Self> {
        serde_json::from_value(split.spec.clone())
            .map_err(|e| Error::new(Code::DataInvalid, "the split is not one that this source has planned").source(e))
    }

    pub fn split(&self, stream: &str) -> Result<Split> {
        Ok(Split::new(stream, serde_json::to_value(self)?))
    }

    /// The cursor of an incremental read.
    pub fn cursor(&self) -> Option<(&str, &Bound)> {
        match &self.rows {
            Rows::Cursor { column, upper, .. } => Some((column, upper)),
            _ => None,
        }
    }

    /// The query and its parameters. Behind `columns` come the columns of `extra` and those of the order.
    pub fn query(&self, extra: &[String], kind_of: impl Fn(&str) -> Option<Kind>) -> (String, Vec<Bound>) {
        // Bounds were compared bytewise when they were found, so that a collation of the column would put them elsewhere.
        let comparable = |column: &str| match kind_of(column) {
            Some(Kind::Text { .. } | Kind::Timestamp { .. } | Kind::Date(_) | Kind::Time(_)) => {
                format!("{} COLLATE BINARY", quoted(column))
            }
            _ => quoted(column),
        };
        let mut parameters = Vec::new();
        let mut conditions = Vec::new();
        let mut compare = |left: String, operator: &str, bound: &Bound| {
            parameters.push(bound.clone());
            format!("{left} {operator} ?{}", parameters.len())
        };
        match &self.rows {
            Rows::All => {}
            Rows::Slice { column, from, until } => {
                let column = quoted(column);
                let from_condition = from.map(|from| compare(column.clone(), ">=", &Bound::Integer(from)));
                let until_condition = until.map(|until| compare(column.clone(), "<", &Bound::Integer(until)));
                match (from_condition, until_condition) {
                    (None, Some(until)) => conditions.push(format!("({until} OR {column} IS NULL)")),
                    (from, until) => conditions.extend(from.into_iter().chain(until)),
                }
            }
            Rows::Cursor { column, lower, upper } => {
                let column = comparable(column);
                conditions.extend(lower.as_ref().map(|lower| compare(column.clone(), ">=", lower)));
                conditions.push(compare(column, "<=", upper));
            }
            Rows::NullCursor { column } => conditions.push(format!("{} IS NULL", quoted(column))),
            Rows::Range { column, since, until } => {
                let column = comparable(column);
                conditions.extend(since.as_ref().map(|since| compare(column.clone(), ">=", since)));
                conditions.extend(until.as_ref().map(|until| compare(column.clone(), "<", until)));
                conditions.push(format!("{column} IS NOT NULL"));
            }
        }
        let order = self.order.iter().map(|c| comparable(c)).collect::<Vec<_>>().join(", ");
        if let Some(after) = &self.after {
            let places: Vec<String> = after
                .iter()
                .map(|bound| {
                    parameters.push(bound.clone());
                    format!("?{}", parameters.len())
                })
                .collect();
            conditions.push(format!("({order}) > ({})", places.join(", ")));
        }
        if let Some(filter) = &self.filter {
            // On lines of its own, so that a comment in it ends with it.
            conditions.push(format!("(\n{filter}\n)"));
        }
        let selected = quoted_all(self.columns.iter().chain(extra).chain(&self.order).map(String::as_str));
        let mut sql = format!("SELECT {selected} FROM main.{}", quoted(&self.table));
        if !conditions.is_empty() {
            sql = format!("{sql} WHERE {}", conditions.join(" AND "));
        }
        if !order.is_empty() {
            sql = format!("{sql} ORDER BY {order}");
        }
        (sql, parameters)
    }
}

/// Cuts `least..=greatest` into `pieces` slices of about the same width; the outer ends are open.
pub fn slices(column: &str, least: i64, greatest: i64, pieces: usize) -> Vec<Rows> {
    let pieces = pieces.max(1) as i128;
    let width = (i128::from(greatest) - i128::from(least)) / pieces + 1;
    let cut = |piece: i128| (i128::from(least) + piece * width) as i64;
    (0..pieces)
        .map(|piece| Rows::Slice {
            column: column.to_owned(),
            from: (piece > 0).then(|| cut(piece)),
            until: (piece + 1 < pieces).then(|| cut(piece + 1)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    #[test]
    fn sql() {
        let mut spec = Spec {
            table: "a\"b".into(),
            columns: vec!["x y".into()],
            filter: Some("x > 1 -- more".into()),
            rows: Rows::Cursor { column: "n".into(), lower: Some(Bound::Integer(1)), upper: Bound::Integer(9) },
            order: vec!["n".into(), "id".into()],
            after: Some(vec![Bound::Integer(5), Bound::Text("k".into())]),
            may_stop: true,
            boundary: None,
            snapshot: None,
        };
        let kind = |column: &str| Some(if column == "n" { Kind::Integer(DataType::Int64) } else { Kind::Text { numbers: false } });
        let (sql, parameters) = spec.query(&["rowid".into()], kind);
        assert_eq!(
            sql,
            "SELECT \"x y\", \"rowid\", \"n\", \"id\" FROM main.\"a\"\"b\" WHERE \"n\" >= ?1 AND \"n\" <= ?2 \
             AND (\"n\", \"id\" COLLATE BINARY) > (?3, ?4) AND (\nx > 1 -- more\n) ORDER BY \"n\", \"id\" COLLATE BINARY"
        );
        assert_eq!(parameters.len(), 4);
        spec.rows = Rows::Slice { column: "n".into(), from: None, until: Some(7) };
        assert!(spec.query(&[], kind).0.contains("(\"n\" < ?1 OR \"n\" IS NULL)"));
    }

    #[test]
    fn slices_cover_everything_once() {
        for (least, greatest, pieces) in [(1, 10, 3), (i64::MIN, i64::MAX, 4), (5, 5, 2)] {
            let slices = slices("rowid", least, greatest, pieces);
            assert_eq!(slices.len(), pieces);
            let mut next = None;
            for (i, slice) in slices.iter().enumerate() {
                let Rows::Slice { from, until, .. } = slice else { panic!("a slice") };
                assert_eq!(*from, next);
                assert_eq!(until.is_none(), i + 1 == pieces);
                next = *until;
            }
        }
    }
}
