//! Decimal numbers between their digits and Arrow's scaled integers.

use arrow::datatypes::i256;

/// The number times ten to the `scale`; `None` when it has more digits than the type, on either side of the point.
pub fn parse128(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let digits = Digits::of(text, precision, scale)?;
    let mut value: i128 = 0;
    for digit in digits.scaled() {
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    Some(if digits.negative { -value } else { value })
}

/// As [`parse128`], for more than 38 digits.
pub fn parse256(text: &str, precision: u8, scale: i8) -> Option<i256> {
    let digits = Digits::of(text, precision, scale)?;
    let mut value = i256::ZERO;
    for digit in digits.scaled() {
        value = value.checked_mul(i256::from_i128(10))?.checked_add(i256::from_i128(i128::from(digit)))?;
    }
    if digits.negative { value.checked_neg() } else { Some(value) }
}

/// Appends a scaled integer, given as its decimal text, with exactly `scale` digits behind the point.
pub fn write(out: &mut String, scaled: &str, scale: i8) {
    let (sign, digits) = scaled.strip_prefix('-').map_or(("", scaled), |rest| ("-", rest));
    out.push_str(sign);
    let scale = usize::from(scale.unsigned_abs());
    if digits.len() <= scale {
        out.push('0');
    } else {
        out.push_str(&digits[..digits.len() - scale]);
    }
    if scale > 0 {
        out.push('.');
        for _ in digits.len()..scale {
            out.push('0');
        }
        out.push_str(&digits[digits.len().saturating_sub(scale)..]);
    }
}

struct Digits<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    scale: usize,
}

impl<'a> Digits<'a> {
    fn of(text: &'a str, precision: u8, scale: i8) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let scale = usize::try_from(scale).ok()?;
        (fraction.len() <= scale && whole.len() + scale <= usize::from(precision)).then_some(Self { negative, whole, fraction, scale })
    }

    fn scaled(&self) -> impl Iterator<Item = u8> {
        let zeros = std::iter::repeat_n(b'0', self.scale - self.fraction.len());
        self.whole.bytes().chain(self.fraction.bytes()).chain(zeros).map(|b| b - b'0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_fit_or_not() {
        let cases = [
            ("12.34", Some(1234)),
            ("-0.5", Some(-50)),
            ("+7", Some(700)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("0001.10000", Some(110)),
            ("99999", None),
            ("999.999", None),
            ("1e3", None),
            ("", None),
            ("-", None),
            (".", None),
            ("1.2.3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse128(text, 6, 2), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0..=38_i8) {
            let mut text = String::new();
            write(&mut text, &value.to_string(), scale);
            prop_assert_eq!(parse128(&text, 38, scale), Some(value), "{}", text);
            prop_assert_eq!(parse256(&text, 38, scale), Some(i256::from_i128(value)), "{}", text);
        }
    }
}
