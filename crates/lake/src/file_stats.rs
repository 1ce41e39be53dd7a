//! What the log says of each file: rows, and for columns their least and greatest value and their NULLs.
//!
//! Bounds are written as exact JSON numbers and texts, and read the same way, so that a bound of a 38-digit decimal bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt64Array};
use arrow::compute::kernels::aggregate::{max_string, min_string, sum};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::datatypes::{Float32Type, Float64Type};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use trib_core::Result;

/// Columns with bounds when nothing else says which: as many as Delta's default.
const COLUMNS: usize = 32;

type Bounds = BTreeMap<String, Box<RawValue>>;

/// The `stats` of an entry in the log. Fields that we do not use are not kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileStats {
    pub num_records: Option<u64>,
    pub min_values: Bounds,
    pub max_values: Bounds,
    pub null_count: BTreeMap<String, Box<RawValue>>,
}

impl FileStats {
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// From the footer of a file that was written with `schema`. `always` are columns that must have bounds.
    pub fn of(footer: &ParquetMetaData, schema: &SchemaRef, always: &BTreeSet<String>) -> Result<Self> {
        let mut stats = FileStats { num_records: Some(footer.file_metadata().num_rows().unsigned_abs()), ..Default::default() };
        for (at, field) in schema.fields().iter().enumerate() {
            let bounded = at < COLUMNS || always.contains(field.name());
            if !bounded || field.data_type().is_nested() || *field.data_type() == DataType::Binary {
                continue;
            }
            let parquet = footer.file_metadata().schema_descr();
            let Ok(converter) = StatisticsConverter::try_new(field.name(), schema, parquet) else {
                continue;
            };
            let groups = footer.row_groups();
            let at = "file statistics";
            let nulls: UInt64Array = converter.row_group_null_counts(groups).map_err(|e| crate::failure::parquet(e, at))?;
            if nulls.null_count() == 0 {
                let count = sum(&nulls).unwrap_or(0);
                stats.null_count.insert(field.name().clone(), raw(count.to_string()));
                if Some(count) == stats.num_records {
                    continue;
                }
            }
            let least = converter.row_group_mins(groups).map_err(|e| crate::failure::parquet(e, at))?;
            let greatest = converter.row_group_maxes(groups).map_err(|e| crate::failure::parquet(e, at))?;
            if let (Some(least), Some(greatest)) = (bound(&least, false)?, bound(&greatest, true)?) {
                stats.min_values.insert(field.name().clone(), least);
                stats.max_values.insert(field.name().clone(), greatest);
            }
        }
        Ok(stats)
    }

    /// Rows where the column is NULL.
    pub fn nulls(&self, column: &str) -> Option<u64> {
        self.null_count.get(column).and_then(|count| count.get().parse().ok())
    }

    /// The column's bounds as arrays of one value; `None` where they are not known, or do not bound (floats may be NaN).
    pub fn bounds(&self, column: &str, data_type: &DataType) -> Option<(ArrayRef, ArrayRef)> {
        if data_type.is_floating() {
            return None;
        }
        let value = |bounds: &Bounds| -> Option<ArrayRef> {
            let raw = bounds.get(column)?.get();
            let text = match serde_json::from_str::<serde_json::Value>(raw).ok()? {
                serde_json::Value::String(text) => text,
                serde_json::Value::Null => return None,
                _ => raw.to_owned(),
            };
            let text = StringArray::from(vec![text]);
            cast(&text, data_type).ok().filter(|a| a.null_count() == 0)
        };
        let (least, mut greatest) = (value(&self.min_values)?, value(&self.max_values)?);
        if let DataType::Timestamp(TimeUnit::Microsecond, _) = data_type {
            // Other tools cut bounds to milliseconds.
            let raised =
                greatest.as_primitive::<TimestampMicrosecondType>().unary::<_, TimestampMicrosecondType>(|v| v.saturating_add(999));
            greatest = Arc::new(raised.with_data_type(data_type.clone()));
        }
        Some((least, greatest))
    }
}

/// Least or greatest of the row groups' bounds, as JSON; `None` when a group has none, or it cannot be written exactly.
fn bound(groups: &ArrayRef, greatest: bool) -> Result<Option<Box<RawValue>>> {
    if groups.is_empty() {
        return Ok(None);
    }
    macro_rules! pick {
        ($t:ty) => {{
            let values = groups.as_primitive::<$t>();
            if greatest { max(values) } else { min(values) }
        }};
    }
    // A group of only NULLs has no bound and takes nothing away from those of the others.
    let json = match groups.data_type() {
        DataType::Int8 => pick!(Int8Type).map(|v| v.to_string()),
        DataType::Int16 => pick!(Int16Type).map(|v| v.to_string()),
        DataType::Int32 => pick!(Int32Type).map(|v| v.to_string()),
        DataType::Int64 => pick!(Int64Type).map(|v| v.to_string()),
        DataType::Decimal128(p, s) => pick!(Decimal128Type).map(|v| {
            use arrow::datatypes::DecimalType;
            Decimal128Type::format_decimal(v, *p, *s)
        }),
        DataType::Float32 => pick!(Float32Type).and_then(|v| float(f64::from(v))),
        DataType::Float64 => pick!(Float64Type).and_then(float),
        DataType::Utf8 => {
            let texts = groups.as_string::<i32>();
            let text = if greatest { max_string(texts) } else { min_string(texts) };
            text.map(serde_json::to_string).transpose()?
        }
        DataType::Date32 => pick!(Date32Type)
            .and_then(Date32Type::to_naive_date_opt)
            .filter(|d| (0..10_000).contains(&chrono::Datelike::year(d)))
            .map(|d| format!("\"{d}\"")),
        DataType::Timestamp(_, zone) => pick!(TimestampMicrosecondType)
            .and_then(chrono::DateTime::from_timestamp_micros)
            .filter(|t| (0..10_000).contains(&chrono::Datelike::year(t)))
            .map(|t| format!("\"{}{}\"", t.format("%Y-%m-%dT%H:%M:%S%.6f"), if zone.is_some() { "Z" } else { "" })),
        _ => None,
    };
    Ok(json.map(raw))
}

fn float(v: f64) -> Option<String> {
    v.is_finite().then(|| serde_json::to_string(&v).ok()).flatten()
}

/// `json` is a number or a quoted text that we have made.
fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
