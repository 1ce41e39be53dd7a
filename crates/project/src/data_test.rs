//! Data tests: what a table's rows must be like, and the query that finds those that are not.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use trib_core::error::closest;
use trib_core::name::system;
use trib_core::{Code, Error, Result, TableName};

use crate::config::amount::Time;
use crate::config::one_or_many::OneOrMany;
use crate::config::share::Share;

/// One test of one table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataTest {
    /// As people call it: `not_null(country)`, unless it has a name of its own.
    pub name: String,
    pub expectation: Expectation,
    pub severity: Severity,
    /// Rows that do not blame the test: a SQL condition for those that it is about.
    pub filter: Option<String>,
    /// When it fails, the rows that it was about do not become visible.
    pub blocking: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is told, and nothing else happens.
    Warn,
    #[default]
    Error,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    NotNull(String),
    /// The columns together.
    Unique(Vec<String>),
    AcceptedValues(String, Vec<Value>),
    /// Every value is one of another table's column.
    Relationships {
        column: String,
        to: TableName,
        there: String,
    },
    /// Both ends are allowed.
    Range {
        column: String,
        min: Option<Value>,
        max: Option<Value>,
    },
    Regex(String, String),
    RowCount {
        min: Option<u64>,
        max: Option<u64>,
    },
    /// As many rows as in the last runs, more or less this share of them.
    UsualRows {
        within: f64,
        runs: usize,
    },
    /// The column's values are spread as in the last runs: at most this share of them has moved.
    Drift {
        column: String,
        most: f64,
        runs: usize,
    },
    /// The greatest value of the column is not older.
    Freshness {
        column: String,
        within: Duration,
    },
    /// The query gives no rows.
    Sql(String),
    /// A value computed from this table equals one computed from another.
    Reconcile {
        value: String,
        with: TableName,
        equals: String,
        tolerance: Option<f64>,
    },
}

/// Runs that are looked back at, unless a test says otherwise.
const RUNS: usize = 7;
/// Values that a measurement tells apart.
const VALUES: usize = 50;

const COLUMN_KINDS: [&str; 7] = ["not_null", "unique", "accepted_values", "relationships", "range", "regex", "drift"];
const TABLE_KINDS: [&str; 5] = ["unique", "row_count", "freshness", "sql", "reconcile"];
const OPTIONS: [&str; 4] = ["name", "severity", "where", "blocking"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: String,
    #[serde(alias = "field")]
    column: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds<T> {
    min: Option<T>,
    max: Option<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Usual {
    usual: Share,
    runs: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Moved {
    max: Share,
    runs: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Fresh {
    Within(Time),
    Of(FreshOf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreshOf {
    column: String,
    within: Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    /// An expression over this table: `sum(amount)`.
    value: String,
    with: String,
    /// The same expression over the other table, when left out.
    equals: Option<String>,
    tolerance: Option<f64>,
}

impl DataTest {
    /// The tests that are written for a table, and for its columns. Gives all that is wrong.
    pub fn of_table<'a>(table: &[Value], columns: impl Iterator<Item = (&'a str, &'a [Value])>) -> Result<Vec<Self>, Vec<Error>> {
        let mut tests = Vec::new();
        let mut errors = Vec::new();
        let mut take = |test: Result<Self>, setting: String| match test {
            Ok(test) => tests.push(test),
            // Only what is said of a test's own SQL has a place.
            Err(e) if e.place().line.is_some() => errors.push(e.setting(setting + ".sql")),
            Err(e) => errors.push(e.setting(setting)),
        };
        for (i, test) in table.iter().enumerate() {
            take(Self::parse(test, None), format!("tests.{i}"));
        }
        for (column, written) in columns {
            for (i, test) in written.iter().enumerate() {
                take(Self::parse(test, Some(column)), format!("columns.{column}.tests.{i}"));
            }
        }
        if errors.is_empty() { Ok(tests) } else { Err(errors) }
    }

    /// One test as it is written: a name alone, or a map of the name to its arguments with options beside it.
    pub fn parse(written: &Value, column: Option<&str>) -> Result<Self> {
        let kinds: &[&str] = if column.is_some() { &COLUMN_KINDS } else { &TABLE_KINDS };
        let (kind, argument, options) = match written {
            Value::String(kind) => (kind.as_str(), &Value::Null, Map::new()),
            Value::Object(map) => {
                let mut named = map.iter().filter(|(key, _)| !OPTIONS.contains(&key.as_str()));
                let (Some((kind, argument)), None) = (named.next(), named.next()) else {
                    return Err(Error::new(Code::ConfigInvalid, "a data test is one test, with its options")
                        .detail(written.to_string())
                        .hint("such as `{accepted_values: [a, b], severity: warn}`"));
                };
                let options = map.iter().filter(|(key, _)| OPTIONS.contains(&key.as_str()));
                (kind.as_str(), argument, options.map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            other => return Err(Error::new(Code::ConfigInvalid, "a data test is a name or a map").detail(other.to_string())),
        };
        if !kinds.contains(&kind) {
            let error = Error::new(Code::ConfigInvalid, "there is no such data test").detail(format!("`{kind}`"));
            return Err(match closest(kind, kinds.iter().copied()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("here these can stand: {}", kinds.join(", "))),
            });
        }
        let expectation = expectation(kind, argument, column)?;
        let severity: Severity = option(&options, "severity")?.unwrap_or_default();
        let blocking: bool = option(&options, "blocking")?.unwrap_or(severity == Severity::Error);
        Ok(Self {
            name: option(&options, "name")?.unwrap_or_else(|| expectation.name(kind)),
            severity,
            filter: option(&options, "where")?,
            blocking: blocking && severity == Severity::Error,
            expectation,
        })
    }

    /// The query whose rows are not as they should be. `table` is the table's name in the query, `quoted` writes the name of another.
    pub fn sql(&self, table: &str, now: DateTime<Utc>, quoted: impl Fn(&TableName) -> String) -> String {
        let about = self.filter.as_ref().map(|f| format!(" where ({f})")).unwrap_or_default();
        let rows = |condition: String| {
            let also = self.filter.as_ref().map(|f| format!("({f}) and ")).unwrap_or_default();
            format!("select * from {table} where {also}{condition}")
        };
        match &self.expectation {
            Expectation::NotNull(column) => rows(format!("{} is null", ident(column))),
            Expectation::Unique(columns) => {
                let list: Vec<String> = columns.iter().map(|c| ident(c)).collect();
                let list = list.join(", ");
                let counted = format!("select {list}, count(*) as \"rows\" from {table}{about} group by {list}");
                let not_null: Vec<String> = columns.iter().map(|c| format!("{} is not null", ident(c))).collect();
                format!("select * from ({counted}) as counted where \"rows\" > 1 and {}", not_null.join(" and "))
            }
            Expectation::AcceptedValues(column, values) => {
                let values: Vec<String> = values.iter().map(literal).collect();
                rows(format!("{} not in ({})", ident(column), values.join(", ")))
            }
            Expectation::Relationships { column, to, there } => {
                let (here, there) = (ident(column), ident(there));
                rows(format!("{here} is not null and {here} not in (select {there} from {} where {there} is not null)", quoted(to)))
            }
            Expectation::Range { column, min, max } => {
                let column = ident(column);
                let below = min.as_ref().map(|min| format!("{column} < {}", literal(min)));
                let above = max.as_ref().map(|max| format!("{column} > {}", literal(max)));
                rows(format!("({})", below.into_iter().chain(above).collect::<Vec<_>>().join(" or ")))
            }
            Expectation::Regex(column, pattern) => rows(format!("{} !~ {}", ident(column), literal(&Value::from(pattern.as_str())))),
            Expectation::RowCount { min, max } => {
                let below = min.map(|min| format!("\"rows\" < {min}"));
                let above = max.map(|max| format!("\"rows\" > {max}"));
                let outside = below.into_iter().chain(above).collect::<Vec<_>>().join(" or ");
                format!("select * from (select count(*) as \"rows\" from {table}{about}) as counted where {outside}")
            }
            Expectation::UsualRows { .. } => format!("select count(*) as \"rows\" from {table}{about}"),
            Expectation::Drift { column, .. } => {
                let column = ident(column);
                let most = VALUES + 1;
                format!(
                    "select {column} as \"value\", count(*) as \"rows\" from {table}{about} group by {column} order by 2 desc limit {most}"
                )
            }
            Expectation::Freshness { column, within } => {
                let column = ident(column);
                let oldest = now - chrono::TimeDelta::from_std(*within).unwrap_or(chrono::TimeDelta::MAX);
                format!(
                    "select * from (select max({column}) as \"newest\" from {table}{about}) as looked where \"newest\" is null or \
                     \"newest\" < timestamp '{}'",
                    oldest.format("%Y-%m-%d %H:%M:%S")
                )
            }
            Expectation::Sql(sql) => sql.clone(),
            Expectation::Reconcile { value, with, equals, tolerance } => {
                let differ = match tolerance {
                    None => "\"here\" is distinct from \"there\"".to_owned(),
                    Some(most) => format!("(\"here\" is null) <> (\"there\" is null) or abs(\"here\" - \"there\") > {most}"),
                };
                format!(
                    "select * from (select (select {value} from {table}{about}) as \"here\", (select {equals} from {}) as \"there\") as \
                     totals where {differ}",
                    quoted(with)
                )
            }
        }
    }

    /// How many of the last runs it compares with; its query then measures, and fails for nothing.
    pub fn looks_back(&self) -> Option<usize> {
        match self.expectation {
            Expectation::UsualRows { runs, .. } | Expectation::Drift { runs, .. } => Some(runs),
            _ => None,
        }
    }

    /// Whether the query reads the table under its own name, rather than under the one it is given.
    pub fn names_the_table_itself(&self) -> bool {
        matches!(self.expectation, Expectation::Sql(_))
    }
}

impl Expectation {
    /// The columns of the tested table that it is about; none where it is about the table.
    pub fn columns(&self) -> &[String] {
        match self {
            Expectation::Unique(columns) => columns,
            Expectation::NotNull(column)
            | Expectation::AcceptedValues(column, _)
            | Expectation::Relationships { column, .. }
            | Expectation::Range { column, .. }
            | Expectation::Regex(column, _) => std::slice::from_ref(column),
            _ => &[],
        }
    }

    fn name(&self, kind: &str) -> String {
        match self {
            Expectation::NotNull(column)
            | Expectation::AcceptedValues(column, _)
            | Expectation::Relationships { column, .. }
            | Expectation::Range { column, .. }
            | Expectation::Freshness { column, .. }
            | Expectation::Regex(column, _) => format!("{kind}({column})"),
            Expectation::Unique(columns) => format!("{kind}({})", columns.join(", ")),
            Expectation::Reconcile { value, with, .. } => format!("{kind}({value}, {with})"),
            Expectation::UsualRows { .. } => format!("{kind}(usual)"),
            Expectation::Drift { column, .. } => format!("{kind}({column})"),
            Expectation::RowCount { .. } | Expectation::Sql(_) => kind.to_owned(),
        }
    }
}

fn expectation(kind: &str, argument: &Value, column: Option<&str>) -> Result<Expectation> {
    let wrong = |what: &str| {
        Error::new(Code::ConfigInvalid, "the data test's arguments are not right").detail(format!("`{kind}`: {argument}")).hint(what)
    };
    fn read<T: DeserializeOwned>(argument: &Value) -> Option<T> {
        serde_json::from_value(argument.clone()).ok()
    }
    let no_argument = || match argument {
        Value::Null | Value::Bool(true) => Ok(()),
        _ => Err(wrong("it takes none")),
    };
    let own = || column.map(str::to_owned).ok_or_else(|| Error::internal("a test of a column has no column"));
    Ok(match kind {
        "not_null" => {
            no_argument()?;
            Expectation::NotNull(own()?)
        }
        "unique" => match column {
            Some(column) => {
                no_argument()?;
                Expectation::Unique(vec![column.to_owned()])
            }
            None => {
                let columns: OneOrMany = read(argument).ok_or_else(|| wrong("name the columns: `unique: [day, country]`"))?;
                Expectation::Unique(columns.0)
            }
        },
        "accepted_values" => {
            let values: Option<Vec<Value>> = read(argument);
            let plain = |values: &Vec<Value>| !values.is_empty() && values.iter().all(|v| !v.is_object() && !v.is_array() && !v.is_null());
            Expectation::AcceptedValues(own()?, values.filter(plain).ok_or_else(|| wrong("list the values: `accepted_values: [a, b]`"))?)
        }
        "relationships" => {
            let to: To = read(argument).ok_or_else(|| wrong("such as `relationships: {to: shop_raw.customers, column: id}`"))?;
            Expectation::Relationships { column: own()?, to: TableName::parse(&to.to), there: to.column }
        }
        "range" => {
            let bounds: Bounds<Value> = read(argument).ok_or_else(|| wrong("such as `range: {min: 0, max: 100}`"))?;
            if bounds.min.is_none() && bounds.max.is_none() {
                return Err(wrong("give `min`, `max` or both"));
            }
            Expectation::Range { column: own()?, min: bounds.min, max: bounds.max }
        }
        "regex" => Expectation::Regex(own()?, read(argument).ok_or_else(|| wrong("such as `regex: '^[A-Z]{2}$'`"))?),
        "row_count" if argument.get("usual").is_some() => {
            let usual: Usual =
                read(argument).ok_or_else(|| wrong("such as `row_count: {usual: 30%}`, and the other limits in a test of their own"))?;
            Expectation::UsualRows { within: usual.usual.0, runs: runs(usual.runs) }
        }
        "drift" => {
            let moved: Moved = read(argument).ok_or_else(|| wrong("such as `drift: {max: 10%}`"))?;
            Expectation::Drift { column: own()?, most: moved.max.0, runs: runs(moved.runs) }
        }
        "row_count" => {
            let bounds: Bounds<u64> = read(argument).ok_or_else(|| wrong("such as `row_count: {min: 1}`"))?;
            if bounds.min.is_none() && bounds.max.is_none() {
                return Err(wrong("give `min`, `max` or both"));
            }
            Expectation::RowCount { min: bounds.min, max: bounds.max }
        }
        "freshness" => match read(argument).ok_or_else(|| wrong("such as `freshness: 24h`, or `{column: created_at, within: 24h}`"))? {
            Fresh::Within(within) => Expectation::Freshness { column: system::LOADED_AT.to_owned(), within: within.0 },
            Fresh::Of(of) => Expectation::Freshness { column: of.column, within: of.within.0 },
        },
        "sql" => {
            let sql: String = read(argument).ok_or_else(|| wrong("a query that must give no rows"))?;
            crate::sql_tables::tables(&sql)?;
            Expectation::Sql(sql)
        }
        _ => {
            let hint = "such as `reconcile: {value: sum(amount), with: shop_raw.orders}`";
            let totals: Totals = read(argument).ok_or_else(|| wrong(hint))?;
            Expectation::Reconcile {
                equals: totals.equals.unwrap_or_else(|| totals.value.clone()),
                value: totals.value,
                with: TableName::parse(&totals.with),
                tolerance: totals.tolerance,
            }
        }
    })
}

fn runs(said: Option<usize>) -> usize {
    said.unwrap_or(RUNS).max(1)
}

fn option<T: DeserializeOwned>(options: &Map<String, Value>, name: &str) -> Result<Option<T>> {
    let Some(value) = options.get(name) else { return Ok(None) };
    let read = serde_json::from_value(value.clone());
    read.map(Some).map_err(|_| {
        let error = Error::new(Code::ConfigInvalid, "an option of a data test is not right").detail(format!("`{name}`: {value}"));
        error.hint("`severity` is warn or error, `blocking` true or false, `where` a SQL condition, `name` a text")
    })
}

/// A name as SQL writes it.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as SQL writes it.
pub fn quoted(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&table.name)),
        None => ident(&table.name),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sql(written: &Value, column: Option<&str>) -> String {
        let now = "2024-03-02T12:00:00Z".parse().unwrap();
        DataTest::parse(written, column).unwrap().sql("t", now, quoted)
    }

    #[test]
    fn queries() {
        let c = Some("c");
        let cases = [
            (json!("not_null"), c, r#"select * from t where "c" is null"#),
            (json!({"not_null": true, "where": "x > 1"}), c, r#"select * from t where (x > 1) and "c" is null"#),
            (
                json!("unique"),
                c,
                r#"select * from (select "c", count(*) as "rows" from t group by "c") as counted where "rows" > 1 and "c" is not null"#,
            ),
            (json!({"accepted_values": ["it's", 1]}), c, r#"select * from t where "c" not in ('it''s', 1)"#),
            (json!({"range": {"min": 0}}), c, r#"select * from t where ("c" < 0)"#),
            (json!({"range": {"min": 0, "max": "2024"}}), c, r#"select * from t where ("c" < 0 or "c" > '2024')"#),
            (json!({"regex": "^a"}), c, r#"select * from t where "c" !~ '^a'"#),
            (
                json!({"relationships": {"to": "s.p", "column": "id"}}),
                c,
                r#"select * from t where "c" is not null and "c" not in (select "id" from "s"."p" where "id" is not null)"#,
            ),
            (
                json!({"row_count": {"min": 2, "max": 5}}),
                None,
                r#"select * from (select count(*) as "rows" from t) as counted where "rows" < 2 or "rows" > 5"#,
            ),
            (json!({"row_count": {"usual": "30%"}, "where": "x"}), None, r#"select count(*) as "rows" from t where (x)"#),
            (
                json!({"drift": {"max": 0.1}}),
                c,
                r#"select "c" as "value", count(*) as "rows" from t group by "c" order by 2 desc limit 51"#,
            ),
            (
                json!({"freshness": "24h"}),
                None,
                r#"select * from (select max("_trib_loaded_at") as "newest" from t) as looked where "newest" is null or "newest" < timestamp '2024-03-01 12:00:00'"#,
            ),
        ];
        for (written, column, expected) in cases {
            assert_eq!(sql(&written, column), expected);
        }
    }

    #[test]
    fn options() {
        let test = DataTest::parse(&json!({"not_null": null, "severity": "warn", "blocking": true, "name": "n"}), Some("c")).unwrap();
        assert_eq!((test.name.as_str(), test.severity, test.blocking), ("n", Severity::Warn, false));
        let test = DataTest::parse(&json!("unique"), Some("c")).unwrap();
        assert_eq!((test.name.as_str(), test.severity, test.blocking), ("unique(c)", Severity::Error, true));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (json!("notnull"), Some("c"), "did you mean `not_null`?"),
            (json!("unique"), None, "name the columns: `unique: [day, country]`"),
            (json!({"range": {}}), Some("c"), "give `min`, `max` or both"),
            (json!({"drift": "10%"}), Some("c"), "such as `drift: {max: 10%}`"),
            (json!({"row_count": {"usual": "x"}}), None, "such as `row_count: {usual: 30%}`"),
            (json!({"regex": "a", "range": {"min": 1}}), Some("c"), "such as `{accepted_values: [a, b], severity: warn}`"),
            (json!({"not_null": true, "severity": "loud"}), Some("c"), "`severity` is warn or error"),
            (json!({"accepted_values": []}), Some("c"), "list the values: `accepted_values: [a, b]`"),
        ];
        for (written, column, hint) in cases {
            let error = DataTest::parse(&written, column).unwrap_err();
            assert!(error.hint_text().is_some_and(|h| h.starts_with(hint)), "{written}: {error:?} {:?}", error.hint_text());
        }
    }
}
