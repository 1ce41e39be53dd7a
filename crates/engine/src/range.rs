//! Ranges of a cursor: which rows of a query an incremental read takes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, lit};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Error, Result};
use trib_kit::cursor::CursorState;

use crate::failure::query_error;

/// `from ≤ column`, and `≤ to` or `< until`, in text that Arrow casts to the column's type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Range {
    pub column: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub until: Option<String>,
    pub nulls: bool,
}

impl Range {
    /// The rows of a query that lie in the range.
    pub fn of(&self, frame: DataFrame) -> Result<DataFrame> {
        let column = || Expr::Column(Column::from_name(&self.column));
        let data_type = frame.schema().field_with_unqualified_name(&self.column).map_err(query_error)?.data_type().clone();
        let mut condition: Option<Expr> = None;
        let mut also = |next: Expr| condition = Some(condition.take().map_or(next.clone(), |c| c.and(next)));
        if let Some(from) = &self.from {
            also(column().gt_eq(scalar(from, &data_type)?));
        }
        if let Some(to) = &self.to {
            also(column().lt_eq(scalar(to, &data_type)?));
        }
        if let Some(until) = &self.until {
            also(column().lt(scalar(until, &data_type)?));
        }
        let condition = condition.unwrap_or_else(|| column().is_not_null());
        let condition = if self.nulls { condition.or(column().is_null()) } else { condition };
        frame.filter(condition).map_err(query_error)
    }
}

/// The range that an incremental read of a query covers now; `None` when nothing can be new. Boxed as [`crate::catalog::execute`] is.
pub fn increment<'a>(frame: DataFrame, cursor: &'a Cursor, before: &'a CursorState) -> BoxFuture<'a, Result<Option<Range>>> {
    Box::pin(async move {
        let data_type = frame.schema().field_with_unqualified_name(&cursor.column).map_err(query_error)?.data_type().clone();
        let column = || Expr::Column(Column::from_name(&cursor.column));
        let mut frame = frame;
        if let Some(end) = &cursor.end {
            frame = frame.filter(column().lt(scalar(end, &data_type)?).or(column().is_null())).map_err(query_error)?;
        }
        let aggregates = vec![max(column()).alias("upper"), (count(lit(1)) - count(column())).alias("nulls")];
        let rows = frame.aggregate(Vec::new(), aggregates).map_err(query_error)?.collect().await.map_err(query_error)?;
        let row = rows.first().ok_or_else(|| Error::internal("an aggregate has no row"))?;
        let upper = text(row.column(0))?;
        let nulls = row.column(1).as_primitive::<arrow::datatypes::Int64Type>().value(0) > 0;
        if nulls && cursor.null_cursor == NullCursor::Fail {
            return Err(Error::new(Code::DataInvalid, "there are rows whose cursor is NULL")
                .detail(&cursor.column)
                .hint("set `null_cursor: include` or `exclude`, or choose another cursor"));
        }
        let include = nulls && cursor.null_cursor == NullCursor::Include;
        if upper.is_none() && !include {
            return Ok(None);
        }
        let from = lower(cursor, before, &data_type)?;
        // With nothing but NULLs the range stays where it was.
        let to = upper.or_else(|| before.value.clone());
        Ok(Some(Range { column: cursor.column.clone(), from, to, until: cursor.end.clone(), nulls: include }))
    })
}

/// The least and the greatest value of a column, from `from` on, in the text that [`value`] reads back; `None` when there is none.
pub fn ends(frame: DataFrame, column: &str, from: Option<String>) -> BoxFuture<'_, Result<Option<(String, String)>>> {
    Box::pin(async move {
        let frame = Range { column: column.to_owned(), from, ..Range::default() }.of(frame)?;
        let named = || Expr::Column(Column::from_name(column));
        let aggregates = vec![min(named()).alias("least"), max(named()).alias("greatest")];
        let rows = frame.aggregate(Vec::new(), aggregates).map_err(query_error)?.collect().await.map_err(query_error)?;
        let row = rows.first().ok_or_else(|| Error::internal("an aggregate has no row"))?;
        Ok(text(row.column(0))?.zip(text(row.column(1))?))
    })
}

/// Where an incremental read begins.
pub fn lower(cursor: &Cursor, before: &CursorState, data_type: &DataType) -> Result<Option<String>> {
    Ok(match &before.value {
        Some(value) => Some(older(value, cursor.lookback.unwrap_or(0), data_type)?),
        None => cursor.start.clone(),
    })
}

/// The first value of a column in the text that [`value`] reads back.
pub fn text(column: &ArrayRef) -> Result<Option<String>> {
    let text = cast(column, &DataType::Utf8)?;
    Ok(text.as_string::<i32>().iter().next().flatten().map(str::to_owned))
}

/// A text as a value of the column's type.
pub fn value(text: &str, data_type: &DataType) -> Result<ArrayRef> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let value = cast(&texts, data_type)?;
    if value.null_count() > 0 {
        return Err(Error::new(Code::ConfigInvalid, "the value is not one of the column's type").detail(format!("{text:?} as {data_type}")));
    }
    Ok(value)
}

pub fn scalar(text: &str, data_type: &DataType) -> Result<Expr> {
    let value = value(text, data_type)?;
    Ok(lit(ScalarValue::try_from_array(&value, 0).map_err(query_error)?))
}

/// The value that lies `lookback` before: seconds for times, units for numbers.
pub fn older(text: &str, lookback: u64, data_type: &DataType) -> Result<String> {
    if lookback == 0 {
        return Ok(text.to_owned());
    }
    let back = i64::try_from(lookback).unwrap_or(i64::MAX);
    let now = ScalarValue::try_from_array(&value(text, data_type)?, 0).map_err(query_error)?;
    let micros = back.saturating_mul(1_000_000);
    let then = match now {
        ScalarValue::Int8(Some(v)) => ScalarValue::Int64(Some(i64::from(v).saturating_sub(back))),
        ScalarValue::Int16(Some(v)) => ScalarValue::Int64(Some(i64::from(v).saturating_sub(back))),
        ScalarValue::Int32(Some(v)) => ScalarValue::Int64(Some(i64::from(v).saturating_sub(back))),
        ScalarValue::Int64(Some(v)) => ScalarValue::Int64(Some(v.saturating_sub(back))),
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(v - lookback as f64)),
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(v - lookback as f32)),
        ScalarValue::Decimal128(Some(v), p, s) => {
            let units = i128::from(back).saturating_mul(10i128.saturating_pow(u32::from(s.unsigned_abs())));
            ScalarValue::Decimal128(Some(v.saturating_sub(units)), p, s)
        }
        ScalarValue::TimestampMicrosecond(Some(v), zone) => ScalarValue::TimestampMicrosecond(Some(v.saturating_sub(micros)), zone),
        ScalarValue::Date32(Some(v)) => {
            ScalarValue::Date32(Some(v.saturating_sub(i32::try_from(lookback.div_ceil(86_400)).unwrap_or(i32::MAX))))
        }
        _ => {
            return Err(Error::new(Code::Unsupported, "this cursor cannot look back")
                .detail(data_type.to_string())
                .hint("`lookback` needs a cursor that is a time or a number"));
        }
    };
    let then = then.to_array().map_err(query_error)?;
    // A smaller integer type may not hold it; its least value does as well.
    let text = cast(&then, &DataType::Utf8)?;
    let fits = cast(&then, data_type).is_ok_and(|a| a.null_count() == 0);
    if fits {
        return Ok(text.as_string::<i32>().value(0).to_owned());
    }
    Ok(match data_type {
        DataType::Int8 => i8::MIN.to_string(),
        DataType::Int16 => i16::MIN.to_string(),
        _ => i32::MIN.to_string(),
    })
}
