//! Rows that a destination's types can hold, and those that they cannot.

use arrow::array::RecordBatch;
use serde_json::Value;
use trib_core::load::{MOST_REJECTED, too_many_rejected};
use trib_core::{Code, Error, RejectedRow, Result};

use crate::object;

/// What was made of a batch: of the rows that could be taken, in pieces and in order, and of the others.
pub struct Sifted<T> {
    pub taken: Vec<T>,
    pub rejected: Vec<RejectedRow>,
}

/// Makes something of a batch. Where values are in the way, it is made of the rows that do not have them, and those that have are rejected with the error's
/// detail for a reason; `key` says by which columns they are found.
pub fn sift<T>(batch: &RecordBatch, key: &[String], make: impl Fn(&RecordBatch) -> Result<T>) -> Result<Sifted<T>> {
    let mut sifted = Sifted { taken: Vec::new(), rejected: Vec::new() };
    match make(batch) {
        Ok(made) => sifted.taken.push(made),
        // What fails without rows too is not about values.
        Err(e) if e.code() != Code::DataInvalid || make(&batch.slice(0, 0)).is_err() => return Err(e),
        Err(e) => divide(batch, e, key, &make, &mut sifted)?,
    }
    Ok(sifted)
}

/// Of rows that have failed together.
fn divide<T>(
    batch: &RecordBatch,
    why: Error,
    key: &[String],
    make: &impl Fn(&RecordBatch) -> Result<T>,
    sifted: &mut Sifted<T>,
) -> Result<()> {
    if batch.num_rows() <= 1 {
        sifted.rejected.push(rejected(batch, 0, key, why.detail_text().unwrap_or(why.message()).to_owned()));
        return Ok(());
    }
    let half = batch.num_rows() / 2;
    for part in [batch.slice(0, half), batch.slice(half, batch.num_rows() - half)] {
        match make(&part) {
            Ok(made) => sifted.taken.push(made),
            Err(e) if e.code() == Code::DataInvalid => divide(&part, e, key, make, sifted)?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A staged row that a destination does not take, as its table would have got it.
pub fn rejected(batch: &RecordBatch, row: usize, key: &[String], reason: String) -> RejectedRow {
    let row = object::row(batch, row);
    let place = key.iter().filter_map(|k| Some(format!("{k}={}", row.get(k).map(shown)?)));
    RejectedRow { place: place.collect::<Vec<_>>().join(", "), reason, row: Value::Object(row) }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Adds rejected rows to those of a part, which are held in memory.
pub fn keep(kept: &mut Vec<RejectedRow>, more: Vec<RejectedRow>) -> Result<()> {
    kept.extend(more);
    match kept.last() {
        Some(last) if kept.len() as u64 > MOST_REJECTED => Err(too_many_rejected(MOST_REJECTED, last)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, types::Int64Type};

    use super::*;

    fn numbers(values: Vec<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn only_the_rows_that_are_in_the_way_are_left_out() {
        let small = |batch: &RecordBatch| {
            let values = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
            match values.iter().find(|v| **v > 9) {
                Some(v) => Err(Error::new(Code::DataInvalid, "no").detail(format!("{v} is great"))),
                None => Ok(values),
            }
        };
        for bad in [vec![], vec![0], vec![99], vec![3, 4, 50]] {
            let values: Vec<i64> = (0..100).map(|i| if bad.contains(&i) { i + 100 } else { i % 9 }).collect();
            let sifted = sift(&numbers(values.clone()), &["id".to_owned()], small).unwrap();
            assert_eq!(sifted.taken.concat(), values.iter().copied().filter(|v| *v < 10).collect::<Vec<_>>());
            let reasons: Vec<String> = sifted.rejected.iter().map(|r| format!("{} {}", r.place, r.reason)).collect();
            assert_eq!(reasons, bad.iter().map(|i| format!("id={} {} is great", i + 100, i + 100)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_about_values_is_an_error() {
        for code in [Code::DataInvalid, Code::SystemError] {
            let never = |_: &RecordBatch| -> Result<()> { Err(Error::new(code, "never")) };
            assert_eq!(sift(&numbers(vec![1, 2]), &[], never).err().unwrap().code(), code);
        }
    }
}
