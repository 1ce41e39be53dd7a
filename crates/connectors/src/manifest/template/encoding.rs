//! Hashes, base64, percent-encoding, JSON text and regular expressions: what the reference's own filters do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fancy_regex::{Captures, Regex, RegexBuilder};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;

use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::repr::python_float;
use super::value::Val;

pub(super) fn hash(text: &str, salt: &str, algorithm: &str) -> Outcome<String> {
    fn digest<D: Digest>(text: &str, salt: &str) -> String {
        hex::encode(D::new().chain_update(text).chain_update(salt).finalize())
    }
    Ok(match algorithm {
        "md5" => digest::<md5::Md5>(text, salt),
        "sha1" => digest::<sha1::Sha1>(text, salt),
        "sha224" => digest::<sha2::Sha224>(text, salt),
        "sha256" => digest::<sha2::Sha256>(text, salt),
        "sha384" => digest::<sha2::Sha384>(text, salt),
        "sha512" => digest::<sha2::Sha512>(text, salt),
        _ => return Fault::failed("the hash is none of md5, sha1, sha224, sha256, sha384, sha512"),
    })
}

pub(super) fn hmac_sha256(text: &str, key: &str) -> Outcome<String> {
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()) else {
        return Fault::failed("the key cannot be used");
    };
    mac.update(text.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

pub(super) fn base64_encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// As Python's lenient decoder: characters outside the alphabet do not count.
pub(super) fn base64_decode(text: &str) -> Outcome<String> {
    let clean: String = text.chars().filter(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '/' | '=')).collect();
    match STANDARD.decode(clean).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) => Fault::failed("what base64 decodes to is no text"),
        Err(_) => Fault::failed("the text is not base64"),
    }
}

/// `urllib.parse.quote`; with `plus`, a space becomes `+` as in `quote_plus`.
pub(super) fn quote(text: &str, safe: &str, plus: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b'-' | b'~' => quoted.push(byte.into()),
            b' ' if plus => quoted.push('+'),
            _ if safe.as_bytes().contains(&byte) => quoted.push(byte.into()),
            _ => _ = write!(quoted, "%{byte:02X}"),
        }
    }
    quoted
}

thread_local! {
    static COMPILED: RefCell<HashMap<String, Rc<Regex>>> = RefCell::new(HashMap::new());
}

/// How many expressions are kept compiled.
const MAX_COMPILED: usize = 128;

/// A regular expression in Python's syntax.
fn compile(machine: &mut Machine<'_>, pattern: &str) -> Outcome<Rc<Regex>> {
    if let Some(regex) = COMPILED.with_borrow(|compiled| compiled.get(pattern).cloned()) {
        return Ok(regex);
    }
    machine.spend(50_000)?;
    // Python's \Z is the very end.
    let ours = pattern.replace("\\Z", "\\z");
    let Ok(regex) = RegexBuilder::new(&ours).backtrack_limit(200_000).delegate_size_limit(1 << 20).build() else {
        return Fault::failed("the regular expression cannot be read");
    };
    let regex = Rc::new(regex);
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() == MAX_COMPILED {
            compiled.clear();
        }
        compiled.insert(pattern.to_owned(), regex.clone());
    });
    Ok(regex)
}

/// The first group of the first match; nothing without a match or a group.
pub(super) fn regex_search<'a>(machine: &mut Machine<'a>, text: &str, pattern: &str) -> Outcome<Val<'a>> {
    let regex = compile(machine, pattern)?;
    machine.spend(text.len() + 1_000)?;
    match regex.captures(text) {
        Ok(Some(captures)) if captures.len() > 1 => Ok(captures.get(1).map_or(Val::None, |group| Val::str(group.as_str()))),
        Ok(_) => Ok(Val::str("")),
        Err(_) => Err(Fault::Limit("a regular expression took too many steps")),
    }
}

pub(super) fn regex_replace<'a>(machine: &mut Machine<'a>, text: &str, pattern: &str, template: &str) -> Outcome<Val<'a>> {
    let regex = compile(machine, pattern)?;
    let mut out = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(text) {
        machine.spend(text.len() / 16 + 1_000)?;
        let Ok(captures) = captures else { return Err(Fault::Limit("a regular expression took too many steps")) };
        let Some(found) = captures.get(0) else { continue };
        out.push_str(&text[end..found.start()]);
        end = found.end();
        let before = out.len();
        expand(template, &captures, &mut out)?;
        machine.spend_text(out.len() - before)?;
    }
    out.push_str(&text[end..]);
    machine.spend_text(out.len())?;
    Ok(Val::str(out))
}

/// A replacement as Python's `re.sub` writes it: `\1`, `\g<1>`, `\g<name>`, `\n`.
fn expand(template: &str, captures: &Captures<'_, str>, out: &mut String) -> Outcome<()> {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let Some(char) = after.chars().next() else { return Fault::failed("the replacement ends in a backslash") };
        rest = &after[char.len_utf8()..];
        match char {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' => out.push('\\'),
            'g' => {
                let Some((name, after)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
                    return Fault::failed("the replacement names no group");
                };
                rest = after;
                let group = name.parse().map_or_else(|_| captures.name(name), |index: usize| captures.get(index));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            '1'..='9' => {
                let digits = 1 + rest.bytes().take(1).take_while(u8::is_ascii_digit).count();
                let index: usize = after[..digits].parse().unwrap_or(0);
                rest = &after[digits..];
                if index >= captures.len() {
                    return Fault::failed("the replacement names a group that is not there");
                }
                out.push_str(captures.get(index).map_or("", |group| group.as_str()));
            }
            _ if char.is_ascii_alphabetic() => return Fault::failed("the replacement has an escape that cannot be read"),
            _ => {
                out.push('\\');
                out.push(char);
            }
        }
    }
    out.push_str(rest);
    Ok(())
}

/// How `json.dumps` is called.
#[derive(Clone, Copy)]
pub(super) struct JsonStyle {
    pub(super) sort_keys: bool,
    /// `<`, `>`, `&` and `'` are escaped.
    pub(super) html_safe: bool,
}

impl<'a> Machine<'a> {
    /// `json.dumps(value)`: ASCII, a space after each comma and colon.
    pub(super) fn write_dumps(&mut self, value: &Val<'a>, style: JsonStyle, out: &mut String, depth: usize) -> Outcome<()> {
        self.spend(1)?;
        if depth > super::machine::MAX_NEST {
            return Err(Fault::Limit("it nests values too deeply"));
        }
        match value {
            Val::None => out.push_str("null"),
            Val::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Val::Int(int) => _ = write!(out, "{int}"),
            Val::Float(float) => out.push_str(&json_float(*float)),
            Val::Str(text) => {
                self.spend_text(text.len())?;
                write_json_text(text, style.html_safe, out);
            }
            _ => match value.kind() {
                "list" | "tuple" => {
                    out.push('[');
                    for (at, item) in self.iterate(value)?.iter().enumerate() {
                        out.push_str(if at == 0 { "" } else { ", " });
                        self.write_dumps(item, style, out, depth + 1)?;
                    }
                    out.push(']');
                }
                "dict" => {
                    let mut pairs = self.pairs(value)?;
                    if style.sort_keys {
                        pairs.sort_by(|(left, _), (right, _)| left.as_str().cmp(&right.as_str()));
                    }
                    out.push('{');
                    for (at, (key, item)) in pairs.iter().enumerate() {
                        out.push_str(if at == 0 { "" } else { ", " });
                        let key = self.json_key(key)?;
                        write_json_text(&key, style.html_safe, out);
                        out.push_str(": ");
                        self.write_dumps(item, style, out, depth + 1)?;
                    }
                    out.push('}');
                }
                kind => return Fault::wrong_type(format!("Object of type {kind} is not JSON serializable")),
            },
        }
        Ok(())
    }

    fn json_key(&mut self, key: &Val<'a>) -> Outcome<String> {
        match key {
            Val::Str(text) => Ok((**text).to_owned()),
            Val::None | Val::Bool(_) | Val::Int(_) | Val::Float(_) => {
                let mut text = String::new();
                self.write_dumps(key, JsonStyle { sort_keys: false, html_safe: false }, &mut text, 0)?;
                Ok(text)
            }
            _ => Fault::wrong_type(format!("keys must be str, int, float, bool or None, not {}", key.kind())),
        }
    }
}

fn json_float(float: f64) -> String {
    match float {
        _ if float.is_nan() => "NaN".into(),
        _ if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        _ => python_float(float),
    }
}

fn write_json_text(text: &str, html_safe: bool, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\'' if html_safe => _ = write!(out, "\\u{:04x}", u32::from(char)),
            ' '..='~' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}
