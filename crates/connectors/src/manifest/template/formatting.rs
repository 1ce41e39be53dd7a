//! `'%05d' % x` and `'{:>5}'.format(x)`.

use super::arguments::Arguments;
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::operators::MAX_LENGTH;
use super::repr::python_float;
use super::value::{Text, Val};

/// How a number or text is laid out, in either notation.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl<'a> Machine<'a> {
    /// Python's `format % values`.
    pub(super) fn percent(&mut self, format: &str, values: &Val<'a>) -> Outcome<Val<'a>> {
        self.spend_text(format.len())?;
        let mut positional = match values {
            Val::Tuple(id) => self.items(*id).to_vec(),
            other => vec![other.clone()],
        }
        .into_iter();
        let mut out = String::new();
        let mut chars = format.chars().peekable();
        let mut named = false;
        while let Some(char) = chars.next() {
            if char != '%' {
                out.push(char);
                continue;
            }
            let mut spec = Spec::default();
            let mut value = None;
            if chars.next_if_eq(&'(').is_some() {
                let name: String = std::iter::from_fn(|| chars.next_if(|char| *char != ')')).collect();
                chars.next();
                named = true;
                value = match self.lookup(values, &Val::str(name))? {
                    Some(value) => Some(value),
                    None => return Fault::failed("the format names a key that is not there"),
                };
            }
            while let Some(flag) = chars.next_if(|char| "-+ 0#".contains(*char)) {
                match flag {
                    '-' => (spec.fill, spec.align) = (None, Some('<')),
                    '0' if spec.align.is_none() => (spec.fill, spec.align) = (Some('0'), Some('=')),
                    '#' => spec.alternate = true,
                    sign => spec.sign = Some(sign),
                }
            }
            spec.width = read_number(&mut chars).unwrap_or(0);
            if chars.next_if_eq(&'.').is_some() {
                spec.precision = Some(read_number(&mut chars).unwrap_or(0));
            }
            let Some(kind) = chars.next() else { return Fault::failed("incomplete format") };
            if kind == '%' {
                out.push('%');
                continue;
            }
            let Some(value) = value.or_else(|| positional.next()) else {
                return Fault::wrong_type("not enough arguments for format string");
            };
            let text = self.percent_value(&value, kind, spec)?;
            self.spend_text(text.len())?;
            out.push_str(&text);
        }
        let left = positional.next().is_some() && !named && values.kind() != "dict";
        if left { Fault::wrong_type("not all arguments converted during string formatting") } else { Ok(Val::str(out)) }
    }

    fn percent_value(&mut self, value: &Val<'a>, kind: char, mut spec: Spec) -> Outcome<String> {
        match kind {
            's' | 'r' | 'a' => {
                let mut text = String::new();
                if kind == 's' {
                    self.write_str(value, &mut text)?;
                } else {
                    self.write_repr(value, &mut text, 0)?;
                }
                spec.align = spec.align.filter(|align| *align == '<').or(Some('>'));
                spec.fill = None;
                lay_out_text(text, &spec)
            }
            'c' => {
                let char = match (value, value.as_int()) {
                    (Val::Str(text), _) if text.chars().count() == 1 => (**text).to_owned(),
                    (_, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                        Some(char) => char.to_string(),
                        None => return Fault::failed("%c arg not in range"),
                    },
                    _ => return Fault::wrong_type("%c requires int or char"),
                };
                lay_out_text(char, &spec)
            }
            'd' | 'i' | 'u' => {
                let int = match (value.as_int(), value) {
                    (Some(int), _) => int,
                    (None, Val::Float(float)) if float.is_finite() => float.trunc() as i128,
                    _ => return Fault::wrong_type(format!("%d format: a real number is required, not {}", value.kind())),
                };
                spec.kind = Some('d');
                lay_out_int(int, &spec)
            }
            'x' | 'X' | 'o' => match value.as_int() {
                Some(int) => lay_out_int(int, &Spec { kind: Some(kind), ..spec }),
                None => Fault::wrong_type(format!("%{kind} format: an integer is required, not {}", value.kind())),
            },
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match value.as_float() {
                Some(float) => lay_out_float(float, &Spec { kind: Some(kind), ..spec }),
                None => Fault::wrong_type("must be real number"),
            },
            _ => Fault::failed("unsupported format character"),
        }
    }

    /// `str.format`.
    pub(super) fn format_method(&mut self, format: &str, arguments: &Arguments<'a>) -> Outcome<Val<'a>> {
        let mut out = String::new();
        let mut next = 0;
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if after.starts_with(brace) {
                out.push_str(brace);
                rest = &after[1..];
                continue;
            }
            let Some(end) = field_end(after).filter(|_| brace == "{") else {
                return Fault::failed("a brace in the format has no counterpart");
            };
            let text = self.format_field(&after[..end], arguments, &mut next)?;
            self.spend_text(text.len())?;
            out.push_str(&text);
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        self.spend_text(out.len())?;
        Ok(Val::str(out))
    }

    fn format_field(&mut self, field: &str, arguments: &Arguments<'a>, next: &mut usize) -> Outcome<String> {
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (path, conversion) = field.split_once('!').unwrap_or((field, ""));
        let split = path.find(['.', '[']).unwrap_or(path.len());
        let (name, mut path) = path.split_at(split);
        let position = if name.is_empty() {
            *next += 1;
            Some(*next - 1)
        } else {
            name.parse().ok()
        };
        let found = match position {
            Some(at) => arguments.positional.get(at).cloned(),
            None => arguments.named.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.clone()),
        };
        let Some(mut value) = found else { return Fault::failed("the format names an argument that is not there") };
        while !path.is_empty() {
            if let Some((key, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let key = key.parse().map_or_else(|_| Val::str(key), Val::Int);
                value = self.item(&value, &key)?;
                path = rest;
            } else {
                let rest = &path[1..];
                let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
                value = self.attribute(value, Text::Shared(name.into()))?;
                path = after;
            }
            if value.is_undefined() {
                return Err(self.undefined(&value));
            }
        }
        let spec = self.nested_spec(spec, arguments, next)?;
        match conversion {
            "" => self.format_value(&value, &spec),
            "s" | "r" | "a" => {
                let mut text = String::new();
                if conversion == "s" {
                    self.write_str(&value, &mut text)?;
                } else {
                    self.write_repr(&value, &mut text, 0)?;
                }
                lay_out_text(text, &Spec::parse(&spec)?)
            }
            _ => Fault::failed("unknown conversion in a format"),
        }
    }

    /// A spec may hold fields itself, one level deep: `{:{width}}`.
    fn nested_spec(&mut self, spec: &str, arguments: &Arguments<'a>, next: &mut usize) -> Outcome<String> {
        let (mut out, mut rest) = (String::new(), spec);
        while let Some((before, after)) = rest.split_once('{') {
            let Some((field, after)) = after.split_once('}').filter(|(field, _)| !field.contains(['{', ':'])) else {
                return Fault::failed("a brace in the format has no counterpart");
            };
            out.push_str(before);
            out.push_str(&self.format_field(field, arguments, next)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn format_value(&mut self, value: &Val<'a>, spec: &str) -> Outcome<String> {
        if spec.is_empty() {
            return self.to_text(value);
        }
        match value {
            Val::Moment(moment) => Ok(super::datetime::strftime(moment, spec)),
            Val::Date(date) => {
                let midnight = super::datetime::Moment { local: date.and_time(chrono::NaiveTime::MIN), offset: None };
                Ok(super::datetime::strftime(&midnight, spec))
            }
            Val::Str(text) => lay_out_text((**text).to_owned(), &Spec::parse(spec)?),
            Val::Float(float) => lay_out_float(*float, &Spec::parse(spec)?),
            _ => match value.as_int() {
                Some(int) => {
                    let spec = Spec::parse(spec)?;
                    if spec.kind.is_some_and(|kind| "eEfFgG%".contains(kind)) {
                        lay_out_float(int as f64, &spec)
                    } else {
                        lay_out_int(int, &spec)
                    }
                }
                None => Fault::wrong_type(format!("unsupported format string passed to {}.__format__", value.kind())),
            },
        }
    }
}

/// Where the field that begins here ends: nested braces belong to it.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn read_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|char| char.to_digit(10)) {
        chars.next();
        number = Some(number.unwrap_or(0_usize).saturating_mul(10).saturating_add(digit as usize));
    }
    number
}

impl Spec {
    fn parse(text: &str) -> Outcome<Self> {
        let mut spec = Self::default();
        let mut chars = text.chars().peekable();
        let mut ahead = text.chars();
        let (first, second) = (ahead.next(), ahead.next());
        let is_align = |char: Option<char>| char.filter(|char| "<>=^".contains(*char));
        if let Some(align) = is_align(second) {
            (spec.fill, spec.align) = (first, Some(align));
            chars.nth(1);
        } else if let Some(align) = is_align(first) {
            spec.align = Some(align);
            chars.next();
        }
        spec.sign = chars.next_if(|char| "+- ".contains(*char));
        spec.alternate = chars.next_if_eq(&'#').is_some();
        if chars.next_if_eq(&'0').is_some() && spec.fill.is_none() {
            spec.fill = Some('0');
            spec.align = spec.align.or(Some('='));
        }
        spec.width = read_number(&mut chars).unwrap_or(0);
        spec.grouping = chars.next_if(|char| ",_".contains(*char));
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = read_number(&mut chars);
            if spec.precision.is_none() {
                return Fault::failed("Format specifier missing precision");
            }
        }
        spec.kind = chars.next();
        if chars.next().is_some() { Fault::failed("Invalid format specifier") } else { Ok(spec) }
    }

    fn check(&self) -> Outcome<()> {
        if self.width > MAX_LENGTH || self.precision.is_some_and(|precision| precision > 1_000) {
            return Err(Fault::Limit("a text is padded too far"));
        }
        Ok(())
    }

    /// A number's sign and digits, padded; `=` puts the fill between the two.
    fn pad_number(&self, negative: bool, prefix: &str, digits: &str) -> Outcome<String> {
        self.check()?;
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let head = format!("{sign}{prefix}");
        if self.align == Some('=') {
            let missing = self.width.saturating_sub(head.len() + digits.len());
            return Ok(format!("{head}{}{digits}", self.fill.unwrap_or(' ').to_string().repeat(missing)));
        }
        Ok(self.pad(&format!("{head}{digits}"), '>'))
    }

    fn pad(&self, text: &str, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let left = match self.align.unwrap_or(default) {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        let fill = |count: usize| self.fill.unwrap_or(' ').to_string().repeat(count);
        format!("{}{text}{}", fill(left), fill(missing - left))
    }
}

fn lay_out_text(text: String, spec: &Spec) -> Outcome<String> {
    spec.check()?;
    if spec.kind.is_some_and(|kind| kind != 's') {
        return Fault::failed("the format's letter is not one for text");
    }
    let text = match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    Ok(spec.pad(&text, '<'))
}

fn lay_out_int(int: i128, spec: &Spec) -> Outcome<String> {
    let magnitude = int.unsigned_abs();
    let (prefix, digits) = match spec.kind {
        Some('x') => ("0x", format!("{magnitude:x}")),
        Some('X') => ("0X", format!("{magnitude:X}")),
        Some('o') => ("0o", format!("{magnitude:o}")),
        Some('b') => ("0b", format!("{magnitude:b}")),
        None | Some('d' | 'n') => ("", magnitude.to_string()),
        Some(_) => return Fault::failed("the format's letter is not one for integers"),
    };
    let digits = match spec.precision {
        Some(precision) if precision <= 1_000 => format!("{digits:0>precision$}"),
        _ => digits,
    };
    spec.pad_number(int < 0, if spec.alternate { prefix } else { "" }, &grouped(&digits, spec.grouping))
}

fn lay_out_float(float: f64, spec: &Spec) -> Outcome<String> {
    spec.check()?;
    let magnitude = float.abs();
    let precision = spec.precision.unwrap_or(6);
    let kind = spec.kind.map(|kind| kind.to_ascii_lowercase());
    let digits = match kind {
        _ if !float.is_finite() => python_float(magnitude),
        Some('f') => format!("{magnitude:.precision$}"),
        Some('%') => format!("{:.precision$}%", magnitude * 100.0),
        Some('e') => exponent(&format!("{magnitude:.precision$e}")),
        Some('g') => general(magnitude, precision.max(1)),
        None if spec.precision.is_none() => python_float(magnitude),
        None => {
            let text = general(magnitude, precision.max(1));
            if text.contains(['.', 'e']) { text } else { text + ".0" }
        }
        Some(_) => return Fault::failed("the format's letter is not one for numbers"),
    };
    let digits = if matches!(spec.kind, Some('E' | 'G' | 'F')) { digits.to_uppercase() } else { digits };
    spec.pad_number(float.is_sign_negative() && !float.is_nan(), "", &grouped(&digits, spec.grouping))
}

/// `1.5e3` as C writes it: `1.5e+03`.
fn exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// C's `%g`: significant digits, without trailing zeros.
fn general(float: f64, precision: usize) -> String {
    let scientific = format!("{float:.*e}", precision - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    if power < -4 || power >= precision as i32 {
        let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return exponent(&format!("{}e{power}", trimmed(digits)));
    }
    trimmed(&format!("{float:.*}", (precision as i32 - 1 - power).max(0) as usize)).to_owned()
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

fn grouped(digits: &str, separator: Option<char>) -> String {
    let Some(separator) = separator else { return digits.to_owned() };
    let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
    let mut out = String::new();
    for (at, digit) in digits[..end].chars().enumerate() {
        if at > 0 && (end - at) % 3 == 0 {
            out.push(separator);
        }
        out.push(digit);
    }
    out + &digits[end..]
}
