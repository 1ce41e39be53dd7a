//! Shares of a whole: `5%`, or 0.05.

use serde::{Deserialize, Deserializer};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let share = match Written::deserialize(deserializer)? {
            Written::Number(share) => Some(share),
            Written::Text(text) => text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()).map(|n| n / 100.0),
        };
        let share = share.filter(|share| share.is_finite() && *share >= 0.0);
        share.map(Self).ok_or_else(|| serde::de::Error::custom("a share is written as 5% or 0.05"))
    }
}
