//! Finding the types of columns from a sample of their texts.
//!
//! A type is taken only when every sampled text is one of its values as it stands, so that nothing changes on the way: `007` is text, `1.10` is a
//! decimal and no double, a time without a zone is no point in time. What a later row may hold beyond the sample is rejected there.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};

use trib_kit::value;

const INTEGER: u16 = 1;
const DECIMAL: u16 = 1 << 1;
/// With an exponent, or a zero with a sign, which decimals do not have.
const DOUBLE: u16 = 1 << 2;
/// NaN and the infinities: words that are numbers only among numbers.
const SPECIAL: u16 = 1 << 3;
const BOOLEAN: u16 = 1 << 4;
const DATE: u16 = 1 << 5;
const TIMESTAMP: u16 = 1 << 6;
const TIMESTAMPTZ: u16 = 1 << 7;
const TIME: u16 = 1 << 8;
const TEXT: u16 = 1 << 9;

/// What a sample has shown of one column.
#[derive(Clone, Debug, Default)]
pub struct Guess {
    seen: u16,
    /// Greatest numbers of digits before and after the point.
    whole: usize,
    scale: usize,
    beyond_bigint: bool,
    beyond_double: bool,
    nanoseconds: bool,
}

impl Guess {
    /// Takes one text into account that is not NULL.
    pub fn see(&mut self, text: &[u8]) {
        if self.seen & TEXT == 0 {
            self.seen |= self.kind(text);
        }
    }

    /// Takes a value into account that is known to be text.
    pub fn see_text(&mut self) {
        self.seen |= TEXT;
    }

    fn kind(&mut self, text: &[u8]) -> u16 {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        match digits.first() {
            Some(b'0'..=b'9' | b'.') => {}
            _ => {
                return match text {
                    b"NaN" | b"nan" | b"inf" | b"-inf" | b"Infinity" | b"-Infinity" => SPECIAL,
                    _ if value::boolean(text).is_some() => BOOLEAN,
                    _ => TEXT,
                };
            }
        }
        if let Some(kind) = self.number(digits, digits.len() < text.len()) {
            return kind;
        }
        if digits.len() < text.len() {
            return TEXT;
        }
        if value::date(text).is_some() {
            return DATE;
        }
        if let Some(at) = value::instant(text) {
            self.nanoseconds |= at.nanos % 1000 != 0;
            return if at.zoned { TIMESTAMPTZ } else { TIMESTAMP };
        }
        // `10:30` may as well be a ratio.
        match value::time(text) {
            Some(nanos) if text.len() >= 8 => {
                self.nanoseconds |= nanos % 1000 != 0;
                TIME
            }
            _ => TEXT,
        }
    }

    fn number(&mut self, digits: &[u8], negative: bool) -> Option<u16> {
        let whole = digits.iter().take_while(|c| c.is_ascii_digit()).count();
        if whole > 1 && digits[0] == b'0' {
            // Leading zeros mean something: a postcode, an account. A date goes on after four digits.
            return (whole == digits.len() || digits[whole] == b'.').then_some(TEXT);
        }
        let (scale, rest) = match digits.get(whole) {
            Some(b'.') => {
                let scale = digits[whole + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
                (scale, &digits[whole + 1 + scale..])
            }
            _ => (0, &digits[whole..]),
        };
        if whole + scale == 0 {
            return None;
        }
        let kind = match rest {
            [] if negative && digits.iter().all(|c| matches!(c, b'0' | b'.')) => DOUBLE,
            [] if whole == digits.len() => INTEGER,
            [] => DECIMAL,
            [b'e' | b'E', exponent @ ..] => {
                let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
                if exponent.is_empty() || !exponent.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                DOUBLE
            }
            _ => return None,
        };
        self.whole = self.whole.max(whole);
        self.scale = self.scale.max(scale);
        self.beyond_bigint |= whole >= 19 && value::integer(&digits[..whole]).is_none();
        if whole + scale > 15 || kind == DOUBLE {
            let text = std::str::from_utf8(digits).ok()?;
            self.beyond_double |= !text.parse().is_ok_and(|v| value::float_is_exact(text, v));
        }
        Some(kind)
    }

    /// The type that holds all of it.
    pub fn data_type(&self) -> DataType {
        const NUMBERS: u16 = INTEGER | DECIMAL | DOUBLE;
        let unit = if self.nanoseconds { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
        let seen = self.seen;
        let within = |kinds: u16| seen & !kinds == 0;
        match seen {
            BOOLEAN => DataType::Boolean,
            DATE => DataType::Date32,
            TIME => DataType::Time64(unit),
            TIMESTAMPTZ => DataType::Timestamp(unit, Some("UTC".into())),
            INTEGER if !self.beyond_bigint => DataType::Int64,
            _ if seen & TIMESTAMP != 0 && within(DATE | TIMESTAMP) => DataType::Timestamp(unit, None),
            _ if seen & (DOUBLE | SPECIAL) != 0 && seen & NUMBERS != 0 && within(NUMBERS | SPECIAL) && !self.beyond_double => {
                DataType::Float64
            }
            _ if seen & NUMBERS != 0 && within(INTEGER | DECIMAL) => match self.whole + self.scale {
                // Room for greater values than the sample's, as far as that costs nothing.
                0..=15 => DataType::Decimal128(18, self.scale as i8),
                16..=38 => DataType::Decimal128(38, self.scale as i8),
                _ => DataType::Utf8,
            },
            _ => DataType::Utf8,
        }
    }

    pub fn field(&self, name: &str) -> FieldRef {
        Arc::new(Field::new(name, self.data_type(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn samples_tell_types() {
        let utc = || Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let cases: [(&[&str], DataType); 24] = [
            (&[], Utf8),
            (&["1", "-2"], Int64),
            (&["007", "1"], Utf8),
            (&["0", "10"], Int64),
            (&["0.5", "12"], Decimal128(18, 1)),
            (&["1.10", "2.2"], Decimal128(18, 2)),
            (&["00.5"], Utf8),
            (&["9223372036854775808"], Decimal128(38, 0)),
            (&["1234567890123456789012345678901234567890"], Utf8),
            (&["1e5", "2"], Float64),
            (&["NaN", "1.5"], Float64),
            (&["NaN"], Utf8),
            (&["-0.0"], Float64),
            (&["1e5", "0.1000000000000000055"], Utf8),
            (&["true", "false"], Boolean),
            (&["t", "f"], Utf8),
            (&["yes"], Utf8),
            (&["2024-02-29"], Date32),
            (&["2023-02-29"], Utf8),
            (&["2024-01-01", "2024-01-01T10:00:00"], Timestamp(TimeUnit::Microsecond, None)),
            (&["2024-01-01 10:00:00+02"], utc()),
            (&["2024-01-01 10:00:00+02", "2024-01-01 10:00:00"], Utf8),
            (&["10:30:00"], Time64(TimeUnit::Microsecond)),
            (&["+49 30 123"], Utf8),
        ];
        for (sample, expected) in cases {
            let mut guess = Guess::default();
            for text in sample {
                guess.see(text.as_bytes());
            }
            assert_eq!(guess.data_type(), expected, "{sample:?}");
        }
    }
}
