//! `trib_hash(value)`: a value's fingerprint, by which a delivery tells whether a field differs from what was delivered.
//!
//! The first eight bytes of the SHA-256 of the value's text, as a whole number; 0 for NULL. Of two different values one in 2^64 pairs has one
//! fingerprint.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use sha2::{Digest, Sha256};

pub const NAME: &str = "trib_hash";

/// The function, for a session.
pub fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(FieldHash { signature: Signature::any(1, Volatility::Immutable) })
}

/// The fingerprints of a column's values.
pub fn hashes(values: &dyn Array) -> Result<Int64Array, arrow::error::ArrowError> {
    const OPTIONS: FormatOptions<'_> = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(values, &OPTIONS)?;
    let mut text = String::new();
    let mut hashes = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        if values.is_null(row) {
            hashes.push(0);
            continue;
        }
        text.clear();
        write!(text, "{}", formatter.value(row)).map_err(|e| arrow::error::ArrowError::ComputeError(e.to_string()))?;
        let digest = Sha256::digest(text.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        hashes.push(i64::from_be_bytes(first));
    }
    Ok(hashes.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FieldHash {
    signature: Signature,
}

impl ScalarUDFImpl for FieldHash {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let hashed: ArrayRef = Arc::new(hashes(arrays[0].as_ref())?);
        Ok(ColumnarValue::Array(hashed))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, StringArray};

    use super::*;

    #[test]
    fn null_is_not_empty_and_digits_count() {
        let texts = hashes(&StringArray::from(vec![None, Some(""), Some("a"), Some("a")])).unwrap();
        assert_eq!(texts.value(0), 0);
        assert_ne!(texts.value(1), 0);
        assert_eq!(texts.value(2), texts.value(3));
        let decimals = Decimal128Array::from(vec![100, 101]).with_precision_and_scale(30, 2).unwrap();
        let decimals = hashes(&decimals).unwrap();
        assert_ne!(decimals.value(0), decimals.value(1));
    }
}
