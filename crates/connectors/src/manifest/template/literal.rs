//! Python's `ast.literal_eval`: what a template's text becomes a value by.
//!
//! Literals that JSON has no place for (sets, bytes, complex numbers, infinities, integers beyond 64 bits) are not taken, so their text stays.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::repr::python_float;

/// Python refuses more open brackets than this.
const MAX_BRACKETS: usize = 190;

/// A literal, with the types that JSON merges kept apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    List(Vec<Literal>),
    Tuple(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

/// The literal that `text` is, if it is one.
pub(super) fn literal(text: &str) -> Option<Literal> {
    // Most texts are words; they are refused before anything is set up.
    let text = text.trim_start_matches([' ', '\t']);
    let first = text.bytes().next()?;
    if !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.' | b'(' | b'[' | b'{' | b'"' | b'\'' | b'#' | b'\\' | b'\n' | b'\r' | b'\x0c')
        && !matches!(first, b'T' | b'F' | b'N' | b'r' | b'R' | b'u' | b'U')
    {
        return None;
    }
    if text.contains('\0') {
        return None;
    }
    let mut reader = Reader { rest: text, brackets: 0 };
    reader.blank_lines()?;
    let first = reader.value()?;
    reader.space();
    let value = if reader.eat(",") { Literal::Tuple(reader.rest_of_tuple(first)?) } else { first };
    reader.end()?;
    Some(value)
}

impl Literal {
    pub(super) fn into_json(self) -> Option<Value> {
        Some(match self {
            Literal::None => Value::Null,
            Literal::Bool(flag) => Value::Bool(flag),
            Literal::Int(int) => Value::Number(integer(int)?),
            Literal::Float(float) => Value::Number(Number::from_f64(float)?),
            Literal::Str(text) => Value::String(text),
            Literal::List(items) | Literal::Tuple(items) => Value::Array(items.into_iter().map(Literal::into_json).collect::<Option<_>>()?),
            Literal::Dict(entries) => {
                let mut map = Map::new();
                // 1, 1.0 and True are one key, which keeps the name that it was given first.
                let mut numbers = HashMap::new();
                for (key, value) in entries {
                    let name = match key.as_whole() {
                        Some(number) => numbers.entry(number).or_insert(key.into_key()?).clone(),
                        None => key.into_key()?,
                    };
                    map.insert(name, value.into_json()?);
                }
                Value::Object(map)
            }
        })
    }

    fn as_whole(&self) -> Option<i128> {
        match self {
            Literal::Bool(flag) => Some(i128::from(*flag)),
            Literal::Int(int) => Some(*int),
            Literal::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => Some(*float as i128),
            _ => None,
        }
    }

    /// As Python's `json.dumps` writes keys; a list or dict is no key.
    fn into_key(self) -> Option<String> {
        match self {
            Literal::None => Some("null".into()),
            Literal::Bool(flag) => Some(flag.to_string()),
            Literal::Int(int) => Some(int.to_string()),
            Literal::Float(float) => Some(python_float(float)),
            Literal::Str(text) => Some(text),
            Literal::List(_) | Literal::Tuple(_) | Literal::Dict(_) => None,
        }
    }
}

/// A JSON number, if it fits one exactly.
pub(super) fn integer(int: i128) -> Option<Number> {
    i64::try_from(int).map(Number::from).or_else(|_| u64::try_from(int).map(Number::from)).ok()
}

struct Reader<'a> {
    rest: &'a str,
    /// Open brackets: within them a line end is space.
    brackets: usize,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Space, continued lines, and within brackets comments and line ends.
    fn space(&mut self) {
        loop {
            let spaces: &[char] = if self.brackets > 0 { &[' ', '\t', '\x0c', '\n', '\r'] } else { &[' ', '\t', '\x0c'] };
            self.rest = self.rest.trim_start_matches(spaces);
            if self.brackets > 0 && self.rest.starts_with('#') {
                self.comment();
            } else if !self.eat("\\\n") && !self.eat("\\\r\n") {
                return;
            }
        }
    }

    fn comment(&mut self) {
        let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        self.rest = &self.rest[end..];
    }

    /// Empty and comment lines before the literal, which must then start its line.
    fn blank_lines(&mut self) -> Option<()> {
        let mut fresh = false;
        loop {
            let line = self.rest;
            self.rest = self.rest.trim_start_matches([' ', '\t', '\x0c']);
            if self.rest.starts_with('#') {
                self.comment();
            }
            if self.eat("\r\n") || self.eat("\n") || self.eat("\r") {
                fresh = true;
                continue;
            }
            return (!fresh || self.rest.len() == line.len()).then_some(());
        }
    }

    fn end(&mut self) -> Option<()> {
        self.space();
        self.rest = self.rest.trim_start_matches([' ', '\t', '\x0c', '\n', '\r']);
        while self.rest.starts_with('#') {
            self.comment();
            self.rest = self.rest.trim_start_matches([' ', '\t', '\x0c', '\n', '\r']);
        }
        self.rest.is_empty().then_some(())
    }

    /// The items after the first comma of a tuple, up to a closing bracket or the end.
    fn rest_of_tuple(&mut self, first: Literal) -> Option<Vec<Literal>> {
        let mut items = vec![first];
        loop {
            self.space();
            if matches!(self.peek(), None | Some(')' | '\n' | '\r' | '#')) {
                return Some(items);
            }
            items.push(self.value()?);
            self.space();
            if !self.eat(",") {
                return Some(items);
            }
        }
    }

    fn value(&mut self) -> Option<Literal> {
        self.space();
        match self.peek()? {
            '(' => self.bracketed(Self::parenthesised),
            '[' => self.bracketed(|reader| reader.items(']').map(Literal::List)),
            '{' => self.bracketed(Self::dict),
            '0'..='9' | '.' => self.number(),
            sign @ ('+' | '-') => {
                self.rest = &self.rest[1..];
                match (self.signed()?, sign) {
                    (Literal::Int(int), '-') => Some(Literal::Int(-int)),
                    (Literal::Float(float), '-') => Some(Literal::Float(-float)),
                    (number, _) => Some(number),
                }
            }
            '"' | '\'' => self.strings(),
            _ if self.rest.starts_with(['r', 'R', 'u', 'U']) && self.rest[1..].starts_with(['"', '\'']) => self.strings(),
            _ => {
                let word = self.rest.split(|char: char| !char.is_alphanumeric() && char != '_').next()?;
                self.rest = &self.rest[word.len()..];
                match word {
                    "None" => Some(Literal::None),
                    "True" => Some(Literal::Bool(true)),
                    "False" => Some(Literal::Bool(false)),
                    _ => None,
                }
            }
        }
    }

    /// The number that a sign stands before: a sign does not stand before another.
    fn signed(&mut self) -> Option<Literal> {
        self.space();
        match self.peek()? {
            '0'..='9' | '.' => self.number(),
            '(' => self.bracketed(|reader| {
                let number = reader.signed()?;
                reader.space();
                reader.eat(")").then_some(number)
            }),
            _ => None,
        }
    }

    fn bracketed(&mut self, read: impl FnOnce(&mut Self) -> Option<Literal>) -> Option<Literal> {
        if self.brackets == MAX_BRACKETS {
            return None;
        }
        self.brackets += 1;
        self.rest = &self.rest[1..];
        let value = read(self);
        self.brackets -= 1;
        value
    }

    fn parenthesised(&mut self) -> Option<Literal> {
        self.space();
        if self.eat(")") {
            return Some(Literal::Tuple(Vec::new()));
        }
        let first = self.value()?;
        self.space();
        let value = if self.eat(",") { Literal::Tuple(self.rest_of_tuple(first)?) } else { first };
        self.space();
        self.eat(")").then_some(value)
    }

    fn items(&mut self, close: char) -> Option<Vec<Literal>> {
        let mut items = Vec::new();
        loop {
            self.space();
            if self.rest.starts_with(close) {
                self.rest = &self.rest[1..];
                return Some(items);
            }
            items.push(self.value()?);
            self.space();
            if !self.eat(",") && !self.rest.starts_with(close) {
                return None;
            }
        }
    }

    fn dict(&mut self) -> Option<Literal> {
        let mut entries: Vec<(Literal, Literal)> = Vec::new();
        loop {
            self.space();
            if self.eat("}") {
                return Some(Literal::Dict(entries));
            }
            let key = self.value()?;
            self.space();
            if !self.eat(":") {
                return None;
            }
            let value = self.value()?;
            entries.push((key, value));
            self.space();
            if !self.eat(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
    }

    fn number(&mut self) -> Option<Literal> {
        let bytes = self.rest.as_bytes();
        let prefixed = bytes.len() > 1 && bytes[0] == b'0' && bytes[1].is_ascii_alphabetic();
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            let exponent_sign = matches!(byte, b'+' | b'-') && !prefixed && end > 0 && matches!(bytes[end - 1], b'e' | b'E');
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'.') && !exponent_sign {
                break;
            }
            end += 1;
        }
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        number(digits)
    }

    /// One string, or several in a row, which are one.
    fn strings(&mut self) -> Option<Literal> {
        let mut text = String::new();
        loop {
            self.string(&mut text)?;
            self.space();
            let prefixed = self.rest.starts_with(['r', 'R', 'u', 'U']) && self.rest[1..].starts_with(['"', '\'']);
            if !prefixed && !self.rest.starts_with(['"', '\'']) {
                return Some(Literal::Str(text));
            }
        }
    }

    fn string(&mut self, text: &mut String) -> Option<()> {
        let raw = self.rest.starts_with(['r', 'R']);
        if self.rest.starts_with(['r', 'R', 'u', 'U']) {
            self.rest = &self.rest[1..];
        }
        let one = &self.rest[..1];
        let triple = self.rest.starts_with(&one.repeat(3));
        let close = if triple { one.repeat(3) } else { one.to_owned() };
        self.rest = &self.rest[close.len()..];
        loop {
            if self.eat(&close) {
                return Some(());
            }
            let char = self.peek()?;
            self.rest = &self.rest[char.len_utf8()..];
            match char {
                '\n' | '\r' if !triple => return None,
                '\r' => {
                    self.eat("\n");
                    text.push('\n');
                }
                '\\' if raw => {
                    text.push('\\');
                    let next = self.peek()?;
                    self.rest = &self.rest[next.len_utf8()..];
                    text.push(next);
                }
                '\\' => self.escape(text)?,
                _ => text.push(char),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let char = self.peek()?;
        self.rest = &self.rest[char.len_utf8()..];
        match char {
            '\n' => {}
            '\r' => _ = self.eat("\n"),
            '\\' | '\'' | '"' => text.push(char),
            'a' => text.push('\x07'),
            'b' => text.push('\x08'),
            'f' => text.push('\x0c'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'v' => text.push('\x0b'),
            'x' => text.push(char::from_u32(self.code(2)?)?),
            'U' => text.push(char::from_u32(self.code(8)?)?),
            // A pair of surrogates, as JSON texts have them, is one character.
            'u' => match self.code(4)? {
                high @ 0xd800..=0xdbff if self.eat("\\u") => {
                    let low = self.code(4)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    text.push(char::from_u32(0x1_0000 + (high - 0xd800) * 0x400 + low)?);
                }
                code => text.push(char::from_u32(code)?),
            },
            'N' => return None,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                let digits = format!("{char}{}", &self.rest[..more]);
                self.rest = &self.rest[more..];
                text.push(char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?);
            }
            _ => {
                text.push('\\');
                text.push(char);
            }
        }
        Some(())
    }

    fn code(&mut self, length: usize) -> Option<u32> {
        let digits = self.rest.get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.rest = &self.rest[length..];
        u32::from_str_radix(digits, 16).ok()
    }
}

/// A Python number without its sign; complex ones are not taken.
fn number(text: &str) -> Option<Literal> {
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            let digits = digits.strip_prefix('_').unwrap_or(digits);
            return i128::from_str_radix(&without_underscores(digits, radix)?, radix).ok().map(Literal::Int);
        }
    }
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (&*lower, None),
    };
    let mut plain = String::with_capacity(text.len());
    match mantissa.split_once('.') {
        Some((whole, fraction)) if !whole.is_empty() || !fraction.is_empty() => {
            for (at, part) in [whole, fraction].into_iter().enumerate() {
                plain.push_str(if at == 0 { "" } else { "." });
                plain.push_str(&if part.is_empty() { "0".to_owned() } else { without_underscores(part, 10)? });
            }
        }
        Some(_) => return None,
        None => plain = without_underscores(mantissa, 10)?,
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        plain = format!("{plain}e{}{}", if exponent.starts_with('-') { "-" } else { "" }, without_underscores(digits, 10)?);
    } else if !mantissa.contains('.') {
        let zero = plain.bytes().all(|digit| digit == b'0');
        return if plain.starts_with('0') && !zero { None } else { plain.parse().ok().map(Literal::Int) };
    }
    plain.parse().ok().map(Literal::Float)
}

/// Digits of a radix, with single underscores between them taken out.
fn without_underscores(digits: &str, radix: u32) -> Option<String> {
    let valid = digits.split('_').all(|part| !part.is_empty() && part.chars().all(|digit| digit.is_digit(radix)));
    valid.then(|| digits.replace('_', ""))
}
