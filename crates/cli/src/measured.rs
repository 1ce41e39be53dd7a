//! Tests that compare a table with what it was in earlier runs: how many rows it has, how a column's values are spread.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trib_core::{BatchStream, Code, Error, Result};
use trib_engine::check::Failing;
use trib_kit::object::row;
use trib_project::data_test::{DataTest, Expectation, ident};

use crate::render::verdicts::plain;
use crate::testing::Asked;

/// With fewer earlier runs nothing is usual yet.
const ENOUGH: usize = 3;
/// Bins that numbers are sorted into.
const BINS: usize = 10;
/// Values that a measurement tells apart.
const VALUES: usize = 50;
/// Differences that are shown.
const SHOWN: usize = 5;

/// How a column's values are spread: shares of all rows, by value or by bin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Upper ends of the bins but the last one, as numbers are written; none where values stand for themselves.
    edges: Vec<String>,
    shares: BTreeMap<String, f64>,
}

/// What was measured now, and what of it is not as usual. `before` holds what was measured in earlier runs, the newest first.
pub async fn measure(asked: &Asked<'_>, before: &[Value]) -> Result<(Value, Failing)> {
    match &asked.test.expectation {
        Expectation::UsualRows { within, .. } => {
            let rows = first(&all(asked.ask(&asked.sql()).await?).await?, "rows").and_then(|v| v.as_u64()).unwrap_or_default();
            let earlier: Vec<f64> = before.iter().filter_map(Value::as_f64).collect();
            let Some(usual) = median(earlier) else { return Ok((json!(rows), Failing::default())) };
            let failing = if (rows as f64 - usual).abs() <= within * usual {
                Failing::default()
            } else {
                Failing { count: 1, rows: vec![json!({"rows": rows, "usual": usual})] }
            };
            Ok((json!(rows), failing))
        }
        Expectation::Drift { column, most, .. } => {
            let earlier: Vec<Spread> = before.iter().filter_map(|v| serde_json::from_value(v.clone()).ok()).collect();
            let now = spread(asked, column, earlier.first()).await?;
            let alike: Vec<&Spread> = earlier.iter().filter(|s| s.edges == now.edges).collect();
            let failing = if alike.len() < ENOUGH { Failing::default() } else { drifted(&now, &alike, *most) };
            Ok((json!(now), failing))
        }
        _ => Err(Error::internal("a test that compares with nothing was to be measured")),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() < ENOUGH {
        return None;
    }
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] })
}

/// The share of rows that would have to move to another value for the spread to be that of the earlier runs on average (the total variation distance), and
/// where they are.
fn drifted(now: &Spread, before: &[&Spread], most: f64) -> Failing {
    let mean = |key: &String| before.iter().map(|s| s.shares.get(key).copied().unwrap_or_default()).sum::<f64>() / before.len() as f64;
    let mut keys: Vec<&String> = now.shares.keys().chain(before.iter().flat_map(|s| s.shares.keys())).collect();
    keys.sort();
    keys.dedup();
    let mut moved: Vec<(&String, f64, f64)> =
        keys.into_iter().map(|k| (k, now.shares.get(k).copied().unwrap_or_default(), mean(k))).collect();
    let distance = moved.iter().map(|(_, now, usual)| (now - usual).abs()).sum::<f64>() / 2.0;
    if distance <= most {
        return Failing::default();
    }
    moved.sort_by(|(_, a, b), (_, c, d)| (c - d).abs().total_cmp(&(a - b).abs()));
    moved.retain(|(_, now, usual)| now != usual);
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let shown = moved.iter().take(SHOWN).map(|(key, now, usual)| json!({"value": key, "share": percent(*now), "usual": percent(*usual)}));
    Failing { count: moved.len() as u64, rows: shown.collect() }
}

/// Few values are told apart by themselves, and many numbers by bins, which stay what they were when the column was measured first.
async fn spread(asked: &Asked<'_>, column: &str, last: Option<&Spread>) -> Result<Spread> {
    let batches = all(asked.ask(&asked.sql()).await?).await?;
    let numeric = batches.first().is_some_and(|b| b.schema().field(0).data_type().is_numeric());
    let binned = last.is_some_and(|s| !s.edges.is_empty());
    let rows: Vec<(String, f64)> =
        batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| row(b, i))).map(|r| (plain(&r["value"]), count(&r["rows"]))).collect();
    if rows.len() <= VALUES && !binned {
        let total: f64 = rows.iter().map(|(_, n)| n).sum();
        return Ok(Spread { edges: Vec::new(), shares: rows.into_iter().map(|(key, n)| (key, n / total)).collect() });
    }
    if !numeric {
        return Err(Error::new(Code::Unsupported, "the column has too many values to compare how they are spread")
            .detail(column)
            .hint("ask it of a number, or of a column with at most 50 values"));
    }
    let edges = match last.filter(|_| binned) {
        Some(last) => last.edges.clone(),
        None => edges(asked, column).await?,
    };
    let (c, table, about) = (ident(column), asked.table(), about(asked.test, "1 = 1"));
    let below = edges
        .iter()
        .enumerate()
        .map(|(i, edge)| format!("sum(case when {c} <= {edge} then 1 else 0 end) as \"b{i}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let sql = format!("select count(*) as \"rows\", count({c}) as \"known\", {below} from {table} where {about}");
    let batches = all(asked.ask(&sql).await?).await?;
    let number = |name: &str| first(&batches, name).map_or(0.0, |v| count(&v));
    let (total, known) = (number("rows").max(1.0), number("known"));
    let mut shares = BTreeMap::from([(plain(&Value::Null), (total - known) / total)]);
    let mut reached = 0.0;
    let mut from = "…".to_owned();
    for (i, edge) in edges.iter().enumerate() {
        let upto = number(&format!("b{i}"));
        shares.insert(format!("{from} to {edge}"), (upto - reached) / total);
        (reached, from) = (upto, edge.clone());
    }
    shares.insert(format!("{from} to …"), (known - reached) / total);
    Ok(Spread { edges, shares })
}

/// The upper ends of bins with as many rows each, the last one left out.
async fn edges(asked: &Asked<'_>, column: &str) -> Result<Vec<String>> {
    let (c, table) = (ident(column), asked.table());
    let about = about(asked.test, &format!("{c} is not null"));
    let numbered = format!("select {c} as \"value\", ntile({BINS}) over (order by {c}) as \"bin\" from {table} where {about}");
    let sql = format!(
        "select \"bin\", max(\"value\") as \"edge\" from ({numbered}) as numbered where \"bin\" < {BINS} group by \"bin\" order by \"bin\""
    );
    let batches = all(asked.ask(&sql).await?).await?;
    let mut edges: Vec<String> = batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| plain(&row(b, i)["edge"]))).collect();
    edges.dedup();
    edges.retain(|edge| edge.parse::<f64>().is_ok_and(f64::is_finite));
    Ok(edges)
}

fn about(test: &DataTest, condition: &str) -> String {
    test.filter.as_ref().map_or_else(|| condition.to_owned(), |filter| format!("({filter}) and {condition}"))
}

async fn all(rows: BatchStream) -> Result<Vec<RecordBatch>> {
    rows.try_collect().await
}

fn first(batches: &[RecordBatch], name: &str) -> Option<Value> {
    let batch = batches.iter().find(|b| b.num_rows() > 0)?;
    row(batch, 0).remove(name)
}

/// A count, also where a system sums into a decimal.
fn count(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual() {
        assert_eq!(median(vec![1.0, 2.0]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn drift_is_the_share_of_rows_that_have_moved() {
        let spread =
            |shares: &[(&str, f64)]| Spread { edges: Vec::new(), shares: shares.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect() };
        let before = spread(&[("DE", 0.5), ("US", 0.5)]);
        let now = spread(&[("DE", 0.3), ("US", 0.5), ("FR", 0.2)]);
        assert_eq!(drifted(&now, &[&before, &before, &before], 0.21).count, 0);
        let failing = drifted(&now, &[&before, &before, &before], 0.19);
        assert_eq!(failing.count, 2);
        assert_eq!(failing.rows[0]["usual"], "50.0%");
    }
}
