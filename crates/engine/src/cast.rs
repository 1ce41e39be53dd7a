//! Casts that know when they would change a value.

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Field};
use trib_core::Result;
use trib_core::relation::{Relation, relate};
use trib_kit::cast::{is_text, lenient};

/// Values in their new type, and which of them it cannot hold (those are NULL). `None` means that all fit.
pub struct Cast {
    pub values: ArrayRef,
    pub unfit: Option<BooleanArray>,
}

/// Casts so that each value either keeps its meaning exactly or is reported.
pub fn exact(array: &ArrayRef, to: &DataType) -> Result<Cast> {
    let from = array.data_type();
    if from == to {
        return Ok(Cast { values: array.clone(), unfit: None });
    }
    let values = lenient(array, to)?;
    let field = |t: &DataType| Field::new("", t.clone(), true);
    let reversible = matches!(relate(&field(to), &field(from)), Relation::Fits | Relation::Same);
    // Text has many spellings of one value, and a value has one text: neither is compared on the way back.
    // A wider type may still end earlier, as nanoseconds do.
    if (reversible || is_text(to)) && values.logical_null_count() == array.logical_null_count() {
        return Ok(Cast { values, unfit: None });
    }
    let differs = if is_text(from) || is_text(to) { None } else { Some(cmp::distinct(&lenient(&values, from)?, array)?) };
    let mut unfit = BooleanBufferBuilder::new(array.len());
    for i in 0..array.len() {
        let lost = array.is_valid(i) && (values.is_null(i) || differs.as_ref().is_some_and(|d| d.value(i)));
        unfit.append(lost);
    }
    let unfit = BooleanArray::new(unfit.finish(), None);
    if unfit.true_count() == 0 {
        return Ok(Cast { values, unfit: None });
    }
    Ok(Cast { values: arrow::compute::nullif(&values, &unfit)?, unfit: Some(unfit) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray, cast::AsArray};
    use arrow::datatypes::{Decimal128Type, Int32Type};
    use std::sync::Arc;

    fn unfit(array: ArrayRef, to: &DataType) -> Vec<bool> {
        let cast = exact(&array, to).unwrap();
        cast.unfit.map_or(vec![false; array.len()], |u| u.iter().map(|v| v == Some(true)).collect())
    }

    #[test]
    fn values_that_would_change_are_reported() {
        assert_eq!(unfit(Arc::new(Int64Array::from(vec![Some(1), Some(i64::MAX), None])), &DataType::Int32), [false, true, false]);
        assert_eq!(unfit(Arc::new(Float64Array::from(vec![1.0, 1.5, f64::NAN])), &DataType::Int64), [false, true, true]);
        assert_eq!(unfit(Arc::new(StringArray::from(vec!["1", "x"])), &DataType::Int32), [false, true]);
        let decimals: ArrayRef = Arc::new(StringArray::from(vec!["1.25", "1.2"]));
        let wide = exact(&decimals, &DataType::Decimal128(10, 2)).unwrap().values;
        assert_eq!(wide.as_primitive::<Decimal128Type>().values(), &[125, 120]);
        assert_eq!(unfit(wide, &DataType::Decimal128(10, 1)), [true, false]);
    }

    /// Arrow's calendar ends before its types do.
    #[test]
    fn a_date_of_any_year_has_a_text_and_does_not_stand_in_the_way_of_others() {
        let times: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![0, 9_089_348_860_800_000_000]));
        assert_eq!(unfit(times.clone(), &DataType::Date32), [false, true]);
        assert_eq!(unfit(times, &DataType::Utf8), [false, false]);
    }

    /// Nanoseconds hold all that seconds do, but not as far.
    #[test]
    fn a_wider_type_may_end_earlier() {
        let seconds = |t: i64| arrow::array::TimestampSecondArray::from(vec![t]);
        let nanos = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
        assert_eq!(unfit(Arc::new(seconds(1)), &nanos), [false]);
        assert_eq!(unfit(Arc::new(seconds(253_402_300_799)), &nanos), [true]);
        assert_eq!(unfit(Arc::new(arrow::array::NullArray::new(2)), &DataType::Int64), [false, false]);
    }

    #[test]
    fn unfit_values_become_null() {
        let cast = exact(&(Arc::new(Int64Array::from(vec![1, 1 << 40])) as ArrayRef), &DataType::Int32).unwrap();
        assert_eq!(cast.values.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
    }
}
