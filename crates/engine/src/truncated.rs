//! A condition on a truncated time, said of the time itself: `date_trunc('day', at) >= midnight` is `at >= midnight`.
//!
//! A model of revenue by day reads what is new by its own column `day`. Only in terms of the column that the files have bounds of can it leave
//! out the files of other days.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDateTime, NaiveTime, Timelike};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Filter, LogicalPlan, Operator, binary_expr, lit};
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

/// DataFusion's rules and this one. It comes right after filters were carried down: before what two conditions share is given a name, and before
/// filters are carried down once more.
pub fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let at = rules.iter().position(|rule| rule.name() == "push_down_filter").map_or(rules.len(), |at| at + 1);
    rules.insert(at, Arc::new(TruncatedTimes));
    rules
}

/// For filters, wherever the other rules have carried them.
#[derive(Debug)]
struct TruncatedTimes;

impl OptimizerRule for TruncatedTimes {
    fn name(&self) -> &'static str {
        "truncated_times"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let schema = filter.input.schema().clone();
        let predicate = filter.predicate.transform_up(|e| Ok(rewritten(e, &schema)))?;
        if !predicate.transformed {
            return Ok(Transformed::no(LogicalPlan::Filter(Filter::try_new(predicate.data, filter.input)?)));
        }
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate.data, filter.input)?)))
    }
}

/// `truncated >= bound` and `truncated < bound`, which hold for the time where they hold for what was made of it.
fn rewritten(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    if let Expr::BinaryExpr(binary) = &expr
        && matches!(binary.op, Operator::GtEq | Operator::Lt)
        && let Expr::Literal(value, _) = binary.right.as_ref()
        && let Some(at) = time_of(value)
        && let Some(plain) = untruncated(&binary.left, at, schema)
        && let Some(bound) = plain.get_type(schema).ok().and_then(|t| value_of(at, &t))
    {
        return Transformed::yes(binary_expr(plain, binary.op, lit(bound)));
    }
    Transformed::no(expr)
}

/// What was truncated, if anything was, and if `at` is where a truncated time can be.
fn untruncated(expr: &Expr, at: NaiveDateTime, schema: &DFSchema) -> Option<Expr> {
    let mut inner = expr;
    loop {
        let next = match inner {
            Expr::Cast(Cast { expr, .. }) => {
                let (from, to) = (expr.get_type(schema).ok()?, inner.get_type(schema).ok()?);
                let day = is_time(&from) && to == DataType::Date32 || from == DataType::Date32 && is_time(&to);
                (day && at.time() == NaiveTime::default()).then_some(expr.as_ref())
            }
            Expr::ScalarFunction(call) if call.func.name() == "date_trunc" => match call.args.as_slice() {
                [Expr::Literal(unit, _), time] if is_time(&time.get_type(schema).ok()?) => {
                    let unit = unit.try_as_str().flatten()?.to_lowercase();
                    begins(at, &unit).then_some(time)
                }
                _ => None,
            },
            _ => None,
        };
        match next {
            Some(next) => inner = next,
            None => break,
        }
    }
    (inner != expr).then(|| inner.clone())
}

fn is_time(data_type: &DataType) -> bool {
    // In another zone days begin at other times.
    matches!(data_type, DataType::Timestamp(_, zone) if zone.as_deref().is_none_or(|z| ["UTC", "+00:00", "Z"].contains(&z)))
}

/// Whether a unit of time begins here.
fn begins(at: NaiveDateTime, unit: &str) -> bool {
    let second = at.nanosecond() == 0;
    let minute = second && at.second() == 0;
    let hour = minute && at.minute() == 0;
    let day = hour && at.hour() == 0;
    let month = day && at.day() == 1;
    match unit {
        "second" => second,
        "minute" => minute,
        "hour" => hour,
        "day" => day,
        "week" => day && at.weekday() == chrono::Weekday::Mon,
        "month" => month,
        "quarter" => month && at.month0().is_multiple_of(3),
        "year" => month && at.month() == 1,
        _ => false,
    }
}

fn time_of(value: &ScalarValue) -> Option<NaiveDateTime> {
    if !is_time(&value.data_type()) && value.data_type() != DataType::Date32 {
        return None;
    }
    match value {
        ScalarValue::Date32(Some(days)) => DateTime::from_timestamp(i64::from(*days) * 86_400, 0).map(|t| t.naive_utc()),
        ScalarValue::TimestampSecond(Some(t), _) => DateTime::from_timestamp(*t, 0).map(|t| t.naive_utc()),
        ScalarValue::TimestampMillisecond(Some(t), _) => DateTime::from_timestamp_millis(*t).map(|t| t.naive_utc()),
        ScalarValue::TimestampMicrosecond(Some(t), _) => DateTime::from_timestamp_micros(*t).map(|t| t.naive_utc()),
        ScalarValue::TimestampNanosecond(Some(t), _) => Some(DateTime::from_timestamp_nanos(*t).naive_utc()),
        _ => None,
    }
}

fn value_of(at: NaiveDateTime, data_type: &DataType) -> Option<ScalarValue> {
    let utc = at.and_utc();
    Some(match data_type {
        DataType::Date32 => ScalarValue::Date32(i32::try_from(utc.timestamp().div_euclid(86_400)).ok()),
        DataType::Timestamp(TimeUnit::Second, zone) => ScalarValue::TimestampSecond(Some(utc.timestamp()), zone.clone()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => ScalarValue::TimestampMillisecond(Some(utc.timestamp_millis()), zone.clone()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => ScalarValue::TimestampMicrosecond(Some(utc.timestamp_micros()), zone.clone()),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => ScalarValue::TimestampNanosecond(Some(utc.timestamp_nanos_opt()?), zone.clone()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn plan(sql: &str) -> String {
        let state = SessionStateBuilder::new().with_default_features().with_optimizer_rules(rules()).build();
        let context = SessionContext::new_with_state(state);
        let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let fields = vec![
            Field::new("at", time(None), true),
            Field::new("zoned", time(Some("UTC")), true),
            Field::new("berlin", time(Some("Europe/Berlin")), true),
            Field::new("day", DataType::Date32, true),
            Field::new("n", DataType::Int64, true),
        ];
        context.register_table("t", Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))))).unwrap();
        let (state, plan) = context.sql(sql).await.unwrap().into_parts();
        state.optimize(&plan).unwrap().display_indent().to_string()
    }

    #[tokio::test]
    async fn bounds_reach_the_column_where_they_mean_the_same() {
        let by =
            |expr: &str, condition: &str| format!("select * from (select {expr} as d, sum(n) from t group by 1) q where d {condition}");
        let reached = [
            ("date_trunc('day', at)", ">= timestamp '2024-03-01 00:00:00'", "t.at >= TimestampMicrosecond(1709251200000000, None)"),
            ("cast(date_trunc('day', at) as date)", ">= date '2024-03-01'", "t.at >= TimestampMicrosecond(1709251200000000, None)"),
            ("cast(at as date)", ">= date '2024-02-01' and d < date '2024-03-01'", "t.at < TimestampMicrosecond(1709251200000000, None)"),
            ("cast(at as date)", "< date '2024-03-01'", "t.at < TimestampMicrosecond(1709251200000000, None)"),
            (
                "date_trunc('month', zoned)",
                ">= timestamp '2024-03-01 00:00:00Z'",
                "t.zoned >= TimestampMicrosecond(1709251200000000, Some(\"UTC\"))",
            ),
            ("cast(date_trunc('month', day) as date)", "< date '2024-03-01'", "t.day < Date32(\"2024-03-01\")"),
        ];
        for (expr, condition, filter) in reached {
            let plan = plan(&by(expr, condition)).await;
            assert!(plan.contains(filter), "{expr} {condition}\n{plan}");
        }
        // Not where a month does not begin, nor where days begin at another time.
        for (expr, condition) in
            [("date_trunc('month', at)", ">= timestamp '2024-03-02 00:00:00'"), ("cast(berlin as date)", ">= date '2024-03-01'")]
        {
            let plan = plan(&by(expr, condition)).await;
            assert!(!plan.contains("t.at >=") && !plan.contains("t.berlin >="), "{expr} {condition}\n{plan}");
        }
    }
}
