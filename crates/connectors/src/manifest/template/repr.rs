//! `str()` and `repr()` as Python writes them.

use std::fmt::Write as _;

use serde_json::Value;

use super::error::{Fault, Outcome};
use super::machine::{MAX_NEST, Machine};
use super::value::{Id, Val};

/// `str(value)`.
pub(crate) fn python_str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => python_repr(value),
    }
}

/// `repr(value)`.
pub(crate) fn python_repr(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

/// `repr(float)`: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "nan".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{float}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&python_float(float)),
            _ => _ = write!(out, "{number}"),
        },
        Value::String(text) => write_quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (at, (key, item)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write_quoted(key, out);
                out.push_str(": ");
                write_json(item, out);
            }
            out.push('}');
        }
    }
}

pub(super) fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char == quote => {
                out.push('\\');
                out.push(char);
            }
            _ if is_printable(char) => out.push(char),
            _ => {
                let code = u32::from(char);
                _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character, except that unassigned code points count as printable here.
fn is_printable(char: char) -> bool {
    !(char.is_control()
        || (char.is_whitespace() && char != ' ')
        || matches!(u32::from(char),
            0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
            | 0x2060..=0x206f | 0xfeff | 0xe000..=0xf8ff | 0xfff0..=0xfffb | 0xfffe..=0xffff
            | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff | 0xf_0000..=0x10_ffff))
}

impl<'a> Machine<'a> {
    /// Appends `str(value)`.
    pub(super) fn write_str(&mut self, value: &Val<'a>, out: &mut String) -> Outcome<()> {
        match value {
            Val::Undefined { .. } => Ok(()),
            Val::Str(text) => {
                self.spend_text(text.len())?;
                out.push_str(text);
                Ok(())
            }
            Val::Date(date) => self.write_text(&date.to_string(), out),
            Val::Moment(moment) => self.write_text(&moment.isoformat(' '), out),
            Val::Delta(delta) => self.write_text(&delta.to_string(), out),
            Val::Duration(duration) => self.write_text(&duration.to_string(), out),
            _ => self.write_repr(value, out, 0),
        }
    }

    pub(super) fn to_text(&mut self, value: &Val<'a>) -> Outcome<String> {
        let mut text = String::new();
        self.write_str(value, &mut text)?;
        Ok(text)
    }

    fn write_text(&mut self, text: &str, out: &mut String) -> Outcome<()> {
        self.spend_text(text.len())?;
        out.push_str(text);
        Ok(())
    }

    pub(super) fn write_repr(&mut self, value: &Val<'a>, out: &mut String, depth: usize) -> Outcome<()> {
        if depth > MAX_NEST {
            return Err(Fault::Limit("it nests values too deeply"));
        }
        match value {
            Val::Undefined { .. } => self.write_text("Undefined", out),
            Val::None => self.write_text("None", out),
            Val::Bool(flag) => self.write_text(if *flag { "True" } else { "False" }, out),
            Val::Int(int) => self.write_text(&int.to_string(), out),
            Val::Float(float) => self.write_text(&python_float(*float), out),
            Val::Str(text) => {
                self.spend_text(text.len())?;
                write_quoted(text, out);
                Ok(())
            }
            Val::Json(json) | Val::Headers(json) | Val::Slice(json, _) => {
                let before = out.len();
                write_json(json, out);
                self.spend_text(out.len() - before)
            }
            Val::List(id) => self.write_items(*id, ["[", "]"], out, depth),
            Val::Tuple(id) => {
                let close = if self.items(*id).len() == 1 { ",)" } else { ")" };
                self.write_items(*id, ["(", close], out, depth)
            }
            Val::View(id, name) => {
                out.push_str(name);
                self.write_items(*id, ["([", "])"], out, depth)
            }
            Val::Dict(id) | Val::Namespace(id) => self.write_entries(*id, out, depth),
            Val::Generator(_, name) => self.write_text(&format!("<generator object {name} at 0x7f0000000000>"), out),
            Val::Loop(_) => self.write_text("<LoopContext>", out),
            Val::Date(date) => self.write_text(&format!("datetime.date({})", date.format("%Y, %-m, %-d")), out),
            Val::Moment(moment) => self.write_text(&moment.repr(), out),
            Val::Delta(delta) => self.write_text(&delta.repr(), out),
            Val::Duration(duration) => self.write_text(&duration.repr(), out),
            Val::Method(subject, name) => {
                let text = format!("<built-in method {} of {} object at 0x7f0000000000>", &**name, subject.kind());
                self.write_text(&text, out)
            }
            Val::Function(function) => self.write_text(&format!("<function {} at 0x7f0000000000>", function.name()), out),
        }
    }

    fn write_items(&mut self, id: Id, [open, close]: [&str; 2], out: &mut String, depth: usize) -> Outcome<()> {
        self.write_text(open, out)?;
        for at in 0..self.items(id).len() {
            out.push_str(if at == 0 { "" } else { ", " });
            let Some(item) = self.items(id).get(at).cloned() else { break };
            self.write_repr(&item, out, depth + 1)?;
        }
        self.write_text(close, out)
    }

    fn write_entries(&mut self, id: Id, out: &mut String, depth: usize) -> Outcome<()> {
        self.write_text("{", out)?;
        for at in 0..self.entries(id).len() {
            out.push_str(if at == 0 { "" } else { ", " });
            let Some((key, value)) = self.entries(id).get(at).cloned() else { break };
            self.write_repr(&key, out, depth + 1)?;
            out.push_str(": ");
            self.write_repr(&value, out, depth + 1)?;
        }
        self.write_text("}", out)
    }
}
