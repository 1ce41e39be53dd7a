//! What of a query's condition a source can evaluate itself.
//!
//! The query evaluates the whole condition again, so what is pushed may let more rows through, never fewer. Hence only comparisons on which all systems agree:
//! texts are not ordered (collations differ), and times move by a day (a system may keep them as texts of several shapes).

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use trib_core::Read;
use trib_core::logical::FieldExt;
use trib_kit::sql::{ANSI, literal};

use crate::range;

/// The condition in standard SQL; `None` where nothing of it can be said.
pub fn condition(expr: &Expr, schema: &Schema) -> Option<String> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (condition(left, schema), condition(right, schema)) {
            (Some(left), Some(right)) => Some(format!("({left} AND {right})")),
            (one, other) => one.or(other),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(format!("({} OR {})", condition(left, schema)?, condition(right, schema)?))
        }
        Expr::IsNull(inner) => Some(format!("{} IS NULL", ANSI.identifier(column(inner, schema)?.name()))),
        Expr::IsNotNull(inner) => Some(format!("{} IS NOT NULL", ANSI.identifier(column(inner, schema)?.name()))),
        Expr::InList(list) if !list.negated => {
            let field = column(&list.expr, schema)?;
            let values: Option<Vec<String>> = list.list.iter().map(|value| written(field, Operator::Eq, constant(value)?)).collect();
            Some(format!("{} IN ({})", ANSI.identifier(field.name()), values?.join(", ")))
        }
        _ => {
            let (field, op, value) = comparison(expr, schema)?;
            Some(format!("{} {op} {}", ANSI.identifier(field.name()), written(field, op, value)?))
        }
    }
}

/// The stretch of a date or time that conditions which all must hold leave over; `None` where they leave everything.
pub fn stretch(conditions: &[&Expr], schema: &Schema) -> Option<Read> {
    let mut all = conditions.to_vec();
    let mut found: Option<(&Field, Option<ScalarValue>, Option<ScalarValue>)> = None;
    while let Some(expr) = all.pop() {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) = expr {
            all.extend([left.as_ref(), right.as_ref()]);
            continue;
        }
        let Some((field, op, value)) = comparison(expr, schema) else { continue };
        let lower = matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq).then(|| moved(value, -1)).flatten();
        let upper = matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq).then(|| moved(value, 1)).flatten();
        if lower.is_none() && upper.is_none() {
            continue;
        }
        let (column, since, until) = found.get_or_insert((field, None, None));
        // One column's will do.
        if column.name() == field.name() {
            *since = since.take().or(lower);
            *until = until.take().or(upper);
        }
    }
    let (field, since, until) = found?;
    let text = |value: Option<ScalarValue>| value.and_then(|v| v.to_array().ok()).and_then(|array| range::text(&array).ok().flatten());
    let (since, until) = (text(since), text(until));
    (since.is_some() || until.is_some()).then(|| Read::Range { column: field.name().clone(), since, until })
}

/// `column op constant`, also where it is written the other way round.
fn comparison<'a>(expr: &'a Expr, schema: &'a Schema) -> Option<(&'a Field, Operator, &'a ScalarValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    if let (Some(field), Some(value)) = (column(left, schema), constant(right)) {
        return Some((field, *op, value));
    }
    Some((column(right, schema)?, op.swap()?, constant(left)?))
}

fn column<'a>(expr: &Expr, schema: &'a Schema) -> Option<&'a Field> {
    match expr {
        Expr::Column(column) => schema.field_with_name(&column.name).ok(),
        _ => None,
    }
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// The constant in SQL, where all systems compare it with such a column alike.
fn written(field: &Field, op: Operator, value: &ScalarValue) -> Option<String> {
    use DataType as D;
    let ordered = matches!(op, Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    if !ordered || value.is_null() || value.data_type() != *field.data_type() {
        return None;
    }
    let text = range::text(&value.to_array().ok()?).ok().flatten()?;
    match field.data_type() {
        D::Boolean if op == Operator::Eq => Some(text),
        t if t.is_signed_integer() => Some(text),
        D::UInt8 | D::UInt16 | D::UInt32 => Some(text),
        D::Float64 => text.parse::<f64>().is_ok_and(f64::is_finite).then_some(text),
        // More digits may stand as text.
        D::Decimal128(precision, _) if *precision <= 15 => Some(text),
        D::Utf8 if op == Operator::Eq && is_text(field) && !text.contains(['\\', '\0']) => Some(literal(&text)),
        _ => None,
    }
}

/// What is text at the source too, rather than what is only shown as text.
fn is_text(field: &Field) -> bool {
    let declared = field.declared().unwrap_or_default().to_lowercase();
    field.logical().is_none() && ["text", "char", "varchar"].iter().any(|t| declared.starts_with(t)) && !declared.ends_with(']')
}

/// So many days later.
fn moved(value: &ScalarValue, days: i32) -> Option<ScalarValue> {
    let by = |value: i64, second: i64| value.checked_add(i64::from(days) * 86_400 * second);
    Some(match value {
        ScalarValue::Date32(Some(v)) => ScalarValue::Date32(Some(v.checked_add(days)?)),
        ScalarValue::TimestampSecond(Some(v), zone) => ScalarValue::TimestampSecond(Some(by(*v, 1)?), zone.clone()),
        ScalarValue::TimestampMillisecond(Some(v), zone) => ScalarValue::TimestampMillisecond(Some(by(*v, 1_000)?), zone.clone()),
        ScalarValue::TimestampMicrosecond(Some(v), zone) => ScalarValue::TimestampMicrosecond(Some(by(*v, 1_000_000)?), zone.clone()),
        ScalarValue::TimestampNanosecond(Some(v), zone) => ScalarValue::TimestampNanosecond(Some(by(*v, 1_000_000_000)?), zone.clone()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;
    use datafusion::logical_expr::{col, lit};

    fn schema() -> Schema {
        let native = |name: &str, t: DataType, native: &str| Field::new(name, t, true).with_native("some", native);
        Schema::new(vec![
            native("id", DataType::Int64, "bigint"),
            native("name", DataType::Utf8, "character varying(10)"),
            native("mood", DataType::Utf8, "mood"),
            native("price", DataType::Decimal128(12, 2), "numeric(12,2)"),
            native("exact", DataType::Decimal128(38, 2), "numeric(38,2)"),
            native("day", DataType::Date32, "date"),
            native("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "timestamp with time zone"),
        ])
    }

    #[test]
    fn conditions_that_all_systems_agree_on() {
        let price = |v| lit(ScalarValue::Decimal128(Some(v), 12, 2));
        let cases = [
            (col("id").gt(lit(5_i64)), Some(r#""id" > 5"#)),
            (lit(5_i64).gt(col("id")), Some(r#""id" < 5"#)),
            (col("price").lt_eq(price(1250)), Some(r#""price" <= 12.50"#)),
            (col("exact").eq(lit(ScalarValue::Decimal128(Some(1), 38, 2))), None),
            (col("name").eq(lit("it's")), Some(r#""name" = 'it''s'"#)),
            (col("name").eq(lit("a\\b")), None),
            (col("name").gt(lit("a")), None),
            (col("name").not_eq(lit("a")), None),
            (col("mood").eq(lit("sad")), None),
            (col("name").in_list(vec![lit("a"), lit("b")], false), Some(r#""name" IN ('a', 'b')"#)),
            (col("name").in_list(vec![lit("a")], true), None),
            (col("mood").is_null(), Some(r#""mood" IS NULL"#)),
            (col("id").eq(lit(1_i64)).and(col("name").gt(lit("a"))), Some(r#""id" = 1"#)),
            (col("id").eq(lit(1_i64)).or(col("name").gt(lit("a"))), None),
            (col("id").eq(lit(1_i64)).or(col("id").eq(lit(2_i64))), Some(r#"("id" = 1 OR "id" = 2)"#)),
            (col("id").eq(lit(ScalarValue::Int64(None))), None),
            ((col("id") + lit(1_i64)).gt(lit(5_i64)), None),
        ];
        for (expr, expected) in cases {
            assert_eq!(condition(&expr, &schema()).as_deref(), expected, "{expr}");
        }
    }

    #[test]
    fn stretches_of_time_are_wider_by_a_day() {
        let day = |d| lit(ScalarValue::Date32(Some(d)));
        let range = |column: &str, since: Option<&str>, until: Option<&str>| {
            Some(Read::Range { column: column.to_owned(), since: since.map(str::to_owned), until: until.map(str::to_owned) })
        };
        let at = lit(ScalarValue::TimestampMicrosecond(Some(0), Some("UTC".into())));
        let cases = [
            (vec![col("day").gt_eq(day(1)), col("day").lt(day(9))], range("day", Some("1970-01-01"), Some("1970-01-11"))),
            (vec![col("day").eq(day(1)).and(col("id").eq(lit(1_i64)))], range("day", Some("1970-01-01"), Some("1970-01-03"))),
            (vec![col("at").gt(at)], range("at", Some("1969-12-31T00:00:00Z"), None)),
            (vec![col("day").not_eq(day(1))], None),
            (vec![col("day").lt(day(1)).or(col("id").eq(lit(1_i64)))], None),
        ];
        for (conditions, expected) in cases {
            assert_eq!(stretch(&conditions.iter().collect::<Vec<_>>(), &schema()), expected, "{conditions:?}");
        }
    }
}
