//! A split: what of a table to read, as plain JSON, and the query that reads it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Result, Split};
use trib_kit::sql::{ANSI, literal};

use super::catalog::Column;
use super::pg_type::{PgType, Rules};

/// What [`Split::spec`] holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub schema: String,
    pub table: String,
    /// The columns to deliver, in order, and then those that only the read itself needs.
    pub columns: Vec<Column>,
    /// How many columns of the end are not delivered.
    #[serde(default)]
    pub hidden: usize,
    /// The user's condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Conditions of ours, all of which hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<String>,
    /// Rows come in the order of these columns, and the read may stop between two rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<String>,
    /// The last row that was read already: its values of `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorRange>,
    /// Columns that tell a person which row it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// An exported snapshot, alive as long as the source that has planned the read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// The closed range of an incremental read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CursorRange {
    pub column: String,
    /// What the state says was read already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    pub upper: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
    #[serde(default)]
    pub exactly_once: bool,
}

impl Spec {
    pub fn of(split: &Split) -> Result<Self> {
        Self::deserialize(&split.spec).map_err(|e| {
            Error::new(Code::DataInvalid, "the stored split is not one that this source has written")
                .source(e)
                .hint("`trib state reset` starts the stream again")
        })
    }

    pub fn split(&self, stream: &str, rows: Option<u64>) -> Result<Split> {
        Ok(Split { streams: vec![stream.to_owned()], spec: serde_json::to_value(self)?, rows, covers: None })
    }

    /// The schema of what the query gives, the hidden columns included.
    pub fn schema(&self, rules: Rules) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|c| c.field(rules)).collect::<Vec<_>>()))
    }

    pub fn types(&self) -> Vec<PgType> {
        self.columns.iter().map(Column::pg_type).collect()
    }

    /// Whether nothing has to be known of the rows that are read: where they stand in an order, or what a column of the read's own says.
    pub fn reads_blindly(&self) -> bool {
        let plain = |c: &Column| !c.several_dimensions && c.pg_type().is_plain();
        self.cursor.is_none() && self.order.is_empty() && self.hidden == 0 && !self.columns.is_empty() && self.columns.iter().all(plain)
    }

    /// Adds a column that the read needs, unless it is delivered anyway.
    pub fn need(&mut self, column: &Column) {
        if !self.columns.iter().any(|c| c.name == column.name) {
            self.columns.push(column.clone());
            self.hidden += 1;
        }
    }

    pub fn query(&self, rules: Rules) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|c| format!("{}{}", ANSI.identifier(&c.name), c.pg_type().cast(c.rules(rules)))).collect();
        let mut sql = format!("SELECT {} FROM {}", columns.join(", "), relation(&self.schema, &self.table));
        let mut conditions = self.bounds.clone();
        // On lines of its own, so that a comment at its end takes nothing else with it.
        conditions.extend(self.filter.as_ref().map(|filter| format!("(\n{filter}\n)")));
        conditions.extend(self.after.as_ref().map(|after| self.beyond(after)));
        if !conditions.is_empty() {
            let _ = write!(sql, " WHERE {}", conditions.join(" AND "));
        }
        if !self.order.is_empty() {
            let _ = write!(sql, " ORDER BY {}", ANSI.identifiers(self.order.iter().map(String::as_str)));
        }
        sql
    }

    /// Rows behind the one with these values of the ordering columns.
    fn beyond(&self, after: &[String]) -> String {
        let places: Vec<Place> = self
            .order
            .iter()
            .zip(after)
            .map(|(name, value)| {
                let column = self.columns.iter().find(|c| c.name == *name);
                // A cursor's range has no NULLs.
                let ranged = self.cursor.as_ref().is_some_and(|range| range.column == *name);
                Place {
                    name: ANSI.identifier(name),
                    value: column.map_or_else(|| literal(value), |c| typed(value, &c.type_name)),
                    nullable: column.is_some_and(|c| c.nullable) && !ranged,
                }
            })
            .collect();
        behind(&places)
    }

    /// Where the read can stop in this batch: how many of its rows come before, and where the last of them stands in the order. It is where the order's values change,
    /// since rows that share them would be skipped behind it: a key that a user declares, or a view has, may be none. `None` when the read cannot go on from there.
    pub fn stop(&self, batch: &RecordBatch) -> Option<(usize, Vec<String>)> {
        if self.order.is_empty() {
            return None;
        }
        let place = |row| -> Option<Vec<String>> { self.order.iter().map(|n| position_text(batch.column_by_name(n)?, row)).collect() };
        let last = batch.num_rows().checked_sub(1)?;
        let held_back = place(last)?;
        let row = (0..last).rev().find(|row| place(*row).as_ref() != Some(&held_back))?;
        Some((row + 1, place(row)?))
    }
}

/// A value of an ordering column.
struct Place {
    name: String,
    value: String,
    nullable: bool,
}

/// Rows behind these values. NULLs come last, behind every value, which no comparison says.
fn behind(places: &[Place]) -> String {
    let all = |of: fn(&Place) -> &str| places.iter().map(of).collect::<Vec<_>>().join(", ");
    if places.iter().all(|p| !p.nullable) {
        return format!("({}) > ({})", all(|p| &p.name), all(|p| &p.value));
    }
    let Some((Place { name, value, nullable }, rest)) = places.split_first() else { return "false".to_owned() };
    match (nullable, rest.is_empty()) {
        (true, true) => format!("({name} > {value} OR {name} IS NULL)"),
        (true, false) => format!("({name} > {value} OR {name} IS NULL OR {name} = {value} AND {})", behind(rest)),
        // The first condition is one that an index can find.
        (false, _) => format!("({name} >= {value} AND ({name} > {value} OR {}))", behind(rest)),
    }
}

/// A value in a form that PostgreSQL reads back as the same value.
fn position_text(array: &dyn Array, row: usize) -> Option<String> {
    let plain = match array.data_type() {
        DataType::Utf8 | DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Boolean => true,
        DataType::Date32 | DataType::Timestamp(..) => false,
        t if t.is_integer() => true,
        DataType::FixedSizeBinary(16) => true,
        _ => return None,
    };
    if array.is_null(row) {
        return None;
    }
    let text = ArrayFormatter::try_new(array, &FormatOptions::default()).ok()?.value(row).to_string();
    // Years of other than four digits are spelled differently in the two systems.
    (plain || text.as_bytes().get(4) == Some(&b'-')).then_some(text)
}

pub fn relation(schema: &str, table: &str) -> String {
    format!("{}.{}", ANSI.identifier(schema), ANSI.identifier(table))
}

/// A literal of a type that `format_type` has spelled.
pub fn typed(value: &str, type_name: &str) -> String {
    format!("{}::{type_name}", literal(value))
}

/// Conditions that cut a table of so many pages into ranges of equal length. The last is open, since the table may have grown.
pub fn page_ranges(pages: u64, ranges: u64) -> Vec<String> {
    let start = |i: u64| pages * i / ranges;
    (0..ranges)
        .map(|i| {
            let mut condition = format!("ctid >= '({},0)'::tid", start(i));
            if i + 1 < ranges {
                let _ = write!(condition, " AND ctid < '({},0)'::tid", start(i + 1));
            }
            condition
        })
        .collect()
}

/// Conditions that cut at these values, given in ascending order. NULLs are in the first.
pub fn value_ranges(column: &Column, cuts: &[String]) -> Vec<String> {
    let name = ANSI.identifier(&column.name);
    let cut = |value: &String| typed(value, &column.type_name);
    let mut ranges = Vec::with_capacity(cuts.len() + 1);
    for i in 0..=cuts.len() {
        let from = i.checked_sub(1).and_then(|j| cuts.get(j)).map(|v| format!("{name} >= {}", cut(v)));
        let to = cuts.get(i).map(|v| format!("{name} < {}", cut(v)));
        ranges.push(match (from, to) {
            (None, Some(to)) => format!("({to} OR {name} IS NULL)"),
            (from, to) => [from, to].into_iter().flatten().collect::<Vec<_>>().join(" AND "),
        });
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_name: &str) -> Column {
        Column { name: name.into(), type_name: type_name.into(), nullable: false, several_dimensions: false }
    }

    fn spec() -> Spec {
        Spec {
            schema: "public".into(),
            table: "it's \"odd\"".into(),
            columns: vec![column("id", "bigint"), column("net", "inet"), column("tags", "mood[]")],
            hidden: 0,
            filter: None,
            bounds: vec![],
            order: vec![],
            after: None,
            cursor: None,
            key: vec![],
            snapshot: None,
        }
    }

    #[test]
    fn queries() {
        assert_eq!(spec().query(Rules::default()), r#"SELECT "id", "net"::text, "tags"::text[] FROM "public"."it's ""odd""""#);
        let resumed = Spec {
            filter: Some("net is not null -- all".into()),
            bounds: vec!["\"id\" <= '9'::bigint".into()],
            order: vec!["id".into()],
            after: Some(vec!["5".into()]),
            ..spec()
        };
        assert!(
            resumed
                .query(Rules::default())
                .ends_with(" WHERE \"id\" <= '9'::bigint AND (\nnet is not null -- all\n) AND (\"id\") > ('5'::bigint) ORDER BY \"id\"")
        );
    }

    #[test]
    fn a_read_stops_where_the_order_goes_on() {
        let stop = |ids: Vec<Option<i64>>| {
            let ids: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(ids));
            let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true)]).unwrap();
            Spec { order: vec!["id".into()], ..spec() }.stop(&batch)
        };
        let at = |rows: usize, value: &str| Some((rows, vec![value.to_owned()]));
        assert_eq!(stop(vec![Some(1), Some(2), Some(3)]), at(2, "2"));
        assert_eq!(stop(vec![Some(1), Some(2), Some(2)]), at(1, "1"));
        // More of them may come.
        assert_eq!(stop(vec![Some(2), Some(2)]), None);
        assert_eq!(stop(vec![Some(1), None]), None);
        assert_eq!(stop(vec![]), None);
    }

    #[test]
    fn nulls_are_behind_every_value() {
        let place = |name: &str, nullable| Place { name: name.to_owned(), value: format!("v{name}"), nullable };
        let cases = [
            (vec![place("a", false), place("b", false)], "(a, b) > (va, vb)"),
            (vec![place("a", true)], "(a > va OR a IS NULL)"),
            (vec![place("a", false), place("b", true)], "(a >= va AND (a > va OR (b > vb OR b IS NULL)))"),
            (vec![place("a", true), place("b", false), place("c", false)], "(a > va OR a IS NULL OR a = va AND (b, c) > (vb, vc))"),
        ];
        for (places, sql) in cases {
            assert_eq!(behind(&places), sql);
        }
    }

    #[test]
    fn ranges_cover_everything_once() {
        assert_eq!(page_ranges(10, 2), ["ctid >= '(0,0)'::tid AND ctid < '(5,0)'::tid", "ctid >= '(5,0)'::tid"]);
        assert_eq!(
            value_ranges(&column("id", "bigint"), &["3".into(), "7".into()]),
            ["(\"id\" < '3'::bigint OR \"id\" IS NULL)", "\"id\" >= '3'::bigint AND \"id\" < '7'::bigint", "\"id\" >= '7'::bigint"]
        );
        assert_eq!(value_ranges(&column("id", "bigint"), &[]), [""]);
    }

    #[test]
    fn a_split_is_read_back_from_its_json() {
        let split = spec().split("public.t", Some(3)).unwrap();
        assert_eq!(Spec::of(&split).unwrap(), spec());
    }
}
