//! Columns of every type, filled with what goes wrong: limits, NULLs, NaN, other scripts.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal256Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, NullArray, RecordBatch, StringArray, StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNano, IntervalUnit, Schema, TimeUnit, i256};
use trib_core::logical::{FieldExt, Logical};

use crate::chance::Chance;

/// Texts that trip readers and writers up.
pub const TEXTS: &[&str] = &[
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "NaN",
    "a,b;c\td|e",
    "\"quoted\"",
    "it's",
    "line\nbreak",
    "carriage\r\nreturn",
    "\\backslash\\",
    "日本語",
    "Größe",
    "🦀👩‍👩‍👧",
    "e\u{301}",
    "\u{feff}bom",
    "עברית",
    "  padded  ",
    "0012",
    "1e5",
    "true",
    "2024-01-01",
    "$1 %s {x}",
    "\u{1}\u{7f}\u{85}",
    "{\"a\":1}",
    "=1+1",
    "x'00'",
];

/// One field of each type that a destination is asked about.
pub fn fields() -> Vec<Field> {
    use DataType as T;
    use TimeUnit as U;
    let mut types = vec![
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float32,
        T::Float64,
        T::Decimal128(1, 0),
        T::Decimal128(15, 2),
        T::Decimal128(18, 18),
        T::Decimal128(38, 0),
        T::Decimal128(38, 10),
        T::Decimal256(76, 20),
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::LargeBinary,
        T::FixedSizeBinary(4),
        T::Date32,
        T::Time32(U::Second),
        T::Time32(U::Millisecond),
        T::Time64(U::Microsecond),
        T::Time64(U::Nanosecond),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Duration(U::Microsecond),
        T::Dictionary(Box::new(T::Int32), Box::new(T::Utf8)),
        T::Null,
    ];
    for unit in [U::Second, U::Millisecond, U::Microsecond, U::Nanosecond] {
        types.extend([None, Some("UTC"), Some("+05:30"), Some("Europe/Berlin")].map(|zone| T::Timestamp(unit, zone.map(Into::into))));
    }
    types.extend([T::Int32, T::Utf8, T::Decimal128(10, 2)].map(|item| T::List(Arc::new(Field::new_list_field(item, true)))));
    types.push(T::Struct(Fields::from(vec![Field::new("n", T::Int64, true), Field::new("s", T::Utf8, true)])));
    let mut fields: Vec<Field> = types.into_iter().map(|t| Field::new(name(&t), t, true)).collect();
    fields.push(Field::new("uuid_bytes", T::FixedSizeBinary(16), true).with_logical(Logical::Uuid));
    fields.push(Field::new("uuid_text", T::Utf8, true).with_logical(Logical::Uuid));
    fields.push(Field::new("json", T::Utf8, true).with_logical(Logical::Json));
    fields
}

fn name(t: &DataType) -> String {
    let text: String =
        t.to_string().replace('µ', "u").chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let words: Vec<&str> = text.split('_').filter(|w| !w.is_empty()).collect();
    format!("c_{}", words.join("_"))
}

/// `rows` values for each field: the limits first, then whatever chance gives.
pub fn batch(fields: &[Field], rows: usize, chance: &mut Chance) -> RecordBatch {
    let columns = fields.iter().map(|f| column(f, rows, chance)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).expect("columns made for their fields")
}

/// Values of one field; one in six is NULL where the field allows it.
pub fn column(field: &Field, rows: usize, chance: &mut Chance) -> ArrayRef {
    use DataType as T;
    let t = field.data_type();
    let null = |chance: &mut Chance| field.is_nullable() && chance.one_in(6);
    let integers = |limits: &[i64], low: i64, high: i64, chance: &mut Chance| -> Int64Array {
        (0..rows).map(|i| pick(limits, i).or_else(|| (!null(chance)).then(|| chance.between(low, high)))).collect()
    };
    match t {
        T::Null => Arc::new(NullArray::new(rows)),
        T::Boolean => Arc::new((0..rows).map(|_| (!null(chance)).then(|| chance.one_in(2))).collect::<BooleanArray>()),
        T::UInt64 => {
            let limits = [0, u64::MAX, i64::MAX as u64 + 1];
            Arc::new((0..rows).map(|i| pick(&limits, i).or_else(|| (!null(chance)).then(|| chance.number()))).collect::<UInt64Array>())
        }
        T::Int8 => to(&integers(&[-128, 127, 0], -128, 127, chance), t),
        T::Int16 => to(&integers(&[-32768, 32767, 0], -32768, 32767, chance), t),
        T::Int32 => to(&integers(&[i32::MIN.into(), i32::MAX.into(), 0], i32::MIN.into(), i32::MAX.into(), chance), t),
        T::Int64 => Arc::new(integers(&[i64::MIN, i64::MAX, 0, (1 << 53) + 1], i64::MIN, i64::MAX, chance)),
        T::UInt8 => to(&integers(&[0, 255], 0, 255, chance), t),
        T::UInt16 => to(&integers(&[0, 65535], 0, 65535, chance), t),
        T::UInt32 => to(&integers(&[0, u32::MAX.into()], 0, u32::MAX.into(), chance), t),
        T::Float32 => {
            let limits =
                [f32::MIN, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), 0.1, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 16_777_217.0];
            let any = |c: &mut Chance| f32::from_bits(c.number() as u32);
            Arc::new((0..rows).map(|i| pick(&limits, i).or_else(|| (!null(chance)).then(|| any(chance)))).collect::<Float32Array>())
        }
        T::Float64 => {
            let limits = [f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1), 0.1, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e22];
            let any = |c: &mut Chance| f64::from_bits(c.number());
            Arc::new((0..rows).map(|i| pick(&limits, i).or_else(|| (!null(chance)).then(|| any(chance)))).collect::<Float64Array>())
        }
        T::Decimal128(precision, scale) | T::Decimal256(precision, scale) => {
            let nines = i256::from_string(&"9".repeat((*precision).into())).expect("digits");
            let one = i256::from_i128(1);
            let limits = [nines, nines.wrapping_neg(), i256::ZERO, one, one.wrapping_neg()];
            let any = |c: &mut Chance| {
                let digits: String = (0..=c.below(u64::from(*precision) - 1)).map(|_| char::from(b'0' + c.below(10) as u8)).collect();
                i256::from_string(&digits).expect("digits")
            };
            let wide: Decimal256Array = (0..rows).map(|i| pick(&limits, i).or_else(|| (!null(chance)).then(|| any(chance)))).collect();
            to(&wide.with_precision_and_scale(76.min(precision + 38), *scale).expect("a valid decimal"), t)
        }
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Dictionary(..) => to(&texts(field, rows, chance, null), t),
        T::Binary | T::LargeBinary => {
            let limits: [Vec<u8>; 3] = [vec![], vec![0], (0..=255).collect()];
            let any = |c: &mut Chance| (0..c.below(20)).map(|_| c.number() as u8).collect::<Vec<u8>>();
            let bytes: BinaryArray = (0..rows).map(|i| limits.get(i).cloned().or_else(|| (!null(chance)).then(|| any(chance)))).collect();
            to(&bytes, t)
        }
        T::FixedSizeBinary(width) => {
            let any = |c: &mut Chance| (0..*width).map(|_| c.number() as u8).collect::<Vec<u8>>();
            let bytes = (0..rows).map(|_| (!null(chance)).then(|| any(chance)));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, *width).expect("bytes of one width"))
        }
        // From the year 1 to 9999, which every calendar in use agrees to hold.
        T::Date32 => to(&cast_to(&integers(&[-719_162, 2_932_896, 0, -1], -719_162, 2_932_896, chance), &T::Int32), t),
        T::Time32(unit) => to(&cast_to(&integers(&[0], 0, 86_400 * per_second(*unit) - 1, chance), &T::Int32), t),
        T::Time64(unit) => {
            let last = 86_400 * per_second(*unit) - 1;
            to(&integers(&[0, last], 0, last, chance), t)
        }
        T::Duration(_) => to(&integers(&[0, 1, -1], -1_000_000_000_000, 1_000_000_000_000, chance), t),
        T::Timestamp(unit, _) => {
            // Nanoseconds end in 1677 and 2262; the others go from the year 1 to 9999.
            let (low, high) = match unit {
                TimeUnit::Nanosecond => (-9_223_372_036, 9_223_372_035),
                _ => (-62_135_596_800, 253_402_300_799),
            };
            let per = per_second(*unit);
            to(&integers(&[low * per, high * per, 0, -1, 1_711_846_800 * per], low * per, high * per, chance), t)
        }
        T::Interval(IntervalUnit::MonthDayNano) => {
            // Whole microseconds: what is finer is another type's business.
            let any = |c: &mut Chance| {
                IntervalMonthDayNano::new(
                    c.between(-1200, 1200) as i32,
                    c.between(-999, 999) as i32,
                    c.between(-86_400_000_000, 86_400_000_000) * 1000,
                )
            };
            Arc::new((0..rows).map(|_| (!null(chance)).then(|| any(chance))).collect::<IntervalMonthDayNanoArray>())
        }
        T::List(item) => {
            let lengths: Vec<usize> = (0..rows).map(|i| if i == 0 { 0 } else { chance.below(4) as usize }).collect();
            let items = column(item, lengths.iter().sum(), chance);
            let nulls = (0..rows).map(|_| !null(chance)).collect::<Vec<_>>().into();
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), items, Some(nulls)))
        }
        T::Struct(members) => {
            let columns = members.iter().map(|m| column(m, rows, chance)).collect();
            let nulls = (0..rows).map(|_| !null(chance)).collect::<Vec<_>>().into();
            Arc::new(StructArray::new(members.clone(), columns, Some(nulls)))
        }
        other => new_null_array(other, rows),
    }
}

fn texts(field: &Field, rows: usize, chance: &mut Chance, null: impl Fn(&mut Chance) -> bool) -> StringArray {
    let any = |i: usize, chance: &mut Chance| match field.logical() {
        Some(Logical::Uuid) => uuid::Uuid::from_u64_pair(chance.number(), chance.number()).to_string(),
        Some(Logical::Json) => {
            let texts =
                ["{}", "[]", "null", "\"\"", "1", "-0.5", "{\"b\": 1, \"a\": [true, null, {\"ü\": \"日本\"}]}", "[\"\\u0001\", \"\\\"\"]"];
            (*chance.pick(&texts)).to_owned()
        }
        None => match TEXTS.get(i) {
            Some(text) => (*text).to_owned(),
            None => (0..chance.below(5)).map(|_| *chance.pick(TEXTS)).collect(),
        },
    };
    (0..rows).map(|i| (!null(chance)).then(|| any(i, chance))).collect()
}

fn pick<T: Copy>(limits: &[T], i: usize) -> Option<T> {
    limits.get(i).copied()
}

fn to(array: &dyn arrow::array::Array, t: &DataType) -> ArrayRef {
    cast(array, t).unwrap_or_else(|e| panic!("a value generated for {t} does not fit it: {e}"))
}

fn cast_to(array: &Int64Array, t: &DataType) -> Int32Array {
    Int32Array::from(to(array, t).to_data())
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_values_that_can_be_compared() {
        let batch = batch(&fields(), 60, &mut Chance::new(1));
        let other = super::batch(&fields(), 60, &mut Chance::new(1));
        assert_eq!(crate::rows::canonical(std::slice::from_ref(&batch)), crate::rows::canonical(&[other]));
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let distinct: std::collections::BTreeSet<String> = crate::rows::column(field, array).into_iter().collect();
            assert!(distinct.len() > 2 || *field.data_type() == DataType::Null, "{field}: {distinct:?}");
        }
    }
}
