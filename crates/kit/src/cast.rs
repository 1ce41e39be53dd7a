//! Casts that leave out single values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat};
use arrow::datatypes::DataType;
use arrow::util::display::ArrayFormatter;
use trib_core::Result;

use crate::shown;

/// Casts each value; one that the other type cannot hold is NULL. Dates and times of any year have a text.
///
/// Arrow's kernels give up all values for one that their calendar does not reach, even where they are asked to make it NULL, or write an error into a text.
pub fn lenient(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let cast = |array: &ArrayRef| cast_with_options(array, to, &CastOptions { safe: true, format_options: shown::OPTIONS });
    match cast(array) {
        Ok(values) => Ok(values),
        Err(e) if array.is_empty() || !can_cast_types(array.data_type(), to) => Err(e.into()),
        Err(_) if is_text(to) => Ok(cast(&texts(array)?)?),
        Err(_) if array.len() == 1 => Ok(new_null_array(to, 1)),
        Err(_) => {
            let half = array.len() / 2;
            let halves = [lenient(&array.slice(0, half), to)?, lenient(&array.slice(half, array.len() - half), to)?];
            Ok(concat(&[&halves[0], &halves[1]])?)
        }
    }
}

pub fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The text of each value that has one.
fn texts(array: &ArrayRef) -> Result<ArrayRef> {
    let formatter = ArrayFormatter::try_new(array.as_ref(), &shown::OPTIONS)?;
    let text = |row| array.is_valid(row).then(|| shown::text(&formatter, array, row).ok()).flatten();
    Ok(Arc::new((0..array.len()).map(text).collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::types::Date32Type;
    use arrow::array::{AsArray, Date32Array, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn one_value_does_not_stand_for_all() {
        const FAR: i64 = 9_089_348_860_800_000_000;
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(FAR), None, Some(86_400_000_000)]));
        let days = lenient(&times, &DataType::Date32).unwrap();
        assert_eq!(days.as_primitive::<Date32Type>().iter().collect::<Vec<_>>(), [Some(0), None, None, Some(1)]);
        let cases: [(ArrayRef, [Option<&str>; 3]); 3] = [
            (times.slice(0, 3), [Some("1970-01-01T00:00:00"), Some("+290000-01-01T00:00:00"), None]),
            (Arc::new(Date32Array::from(vec![Some(i32::MAX), None, Some(0)])), [Some("+5881580-07-11"), None, Some("1970-01-01")]),
            (
                Arc::new(Time64MicrosecondArray::from(vec![None, Some(86_400_000_000), Some(1_500_000)])),
                [None, Some("24:00:00"), Some("00:00:01.500")],
            ),
        ];
        for (array, expected) in cases {
            let text = lenient(&array, &DataType::LargeUtf8).unwrap();
            assert_eq!(text.as_string::<i64>().iter().collect::<Vec<_>>(), expected);
        }
        let nested: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Date32Type, _, _>([Some([Some(i32::MAX)]), Some([Some(0)])]));
        let text = lenient(&nested, &DataType::Utf8).unwrap();
        assert_eq!(text.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("[1970-01-01]")]);
        assert!(lenient(&nested, &DataType::Date32).is_err(), "no value has such a cast");
    }
}
