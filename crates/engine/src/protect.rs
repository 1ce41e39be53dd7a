//! Values that must not leave as they are: masks, hashes and keyed hashes.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, cast::AsArray};
use arrow::datatypes::DataType;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use trib_core::transform::{ColumnRule, Mask};
use trib_core::{Error, Result, Secret};

use crate::cast::{Cast, exact};

/// What is done to a column's text.
#[derive(Clone, Debug)]
pub enum Protection {
    Mask(Mask),
    /// SHA-256 (FIPS 180-4) of the UTF-8 text, in lower-case hex.
    Hash,
    /// HMAC-SHA-256 (RFC 2104) of the UTF-8 text, in lower-case hex.
    Hmac(Secret),
}

impl Protection {
    /// What a rule asks for; where it asks for several, the first.
    pub fn of(rule: &ColumnRule) -> Option<Self> {
        Self::all_of(rule).into_iter().next()
    }

    pub fn all_of(rule: &ColumnRule) -> Vec<Self> {
        let mask = rule.mask.clone().filter(|m| *m != Mask::All(false)).map(Protection::Mask);
        [mask, rule.hash.then_some(Protection::Hash), rule.hmac.clone().map(Protection::Hmac)].into_iter().flatten().collect()
    }

    /// NULL stays NULL.
    pub fn apply(&self, array: &ArrayRef) -> Result<Cast> {
        let Cast { values, unfit } = exact(array, &DataType::Utf8)?;
        let text = values.as_string::<i32>();
        let result: StringArray = match self {
            Protection::Mask(mask) => text.iter().map(|v| v.map(|v| masked(v, mask))).collect(),
            Protection::Hash => text.iter().map(|v| v.map(|v| hex::encode(Sha256::digest(v)))).collect(),
            Protection::Hmac(key) => {
                let keyed = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
                    .map_err(|_| Error::internal("HMAC takes keys of any length"))?;
                let sign = |v: &str| {
                    let mut mac = keyed.clone();
                    mac.update(v.as_bytes());
                    hex::encode(mac.finalize().into_bytes())
                };
                text.iter().map(|v| v.map(sign)).collect()
            }
        };
        Ok(Cast { values: Arc::new(result), unfit })
    }
}

fn masked(value: &str, mask: &Mask) -> String {
    match mask {
        Mask::All(_) => "***".to_owned(),
        Mask::Keep { keep_last } => {
            let hidden = value.chars().count().saturating_sub(*keep_last);
            let tail: String = value.chars().skip(hidden).collect();
            format!("***{tail}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn protections() {
        let input: ArrayRef = Arc::new(StringArray::from(vec![Some("ann@example.com"), None]));
        let cases = [
            (Protection::Mask(Mask::All(true)), "***"),
            (Protection::Mask(Mask::Keep { keep_last: 4 }), "***.com"),
            (Protection::Hash, "a1e8f6b48d4c4e9e"),
            // RFC 4231 checks HMAC itself; here it is enough that the key matters and the result is stable.
            (Protection::Hmac(Secret::new("k")), ""),
        ];
        for (protection, start) in cases {
            let out = protection.apply(&input).unwrap().values;
            let out = out.as_string::<i32>();
            assert!(out.is_null(1));
            if matches!(protection, Protection::Mask(_)) {
                assert_eq!(out.value(0), start);
            } else {
                assert_eq!(out.value(0).len(), 64);
                assert_ne!(out.value(0), "ann@example.com");
            }
        }
    }

    #[test]
    fn hmac_matches_rfc_4231_case_2() {
        let input: ArrayRef = Arc::new(StringArray::from(vec!["what do ya want for nothing?"]));
        let out = Protection::Hmac(Secret::new("Jefe")).apply(&input).unwrap().values;
        assert_eq!(out.as_string::<i32>().value(0), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
