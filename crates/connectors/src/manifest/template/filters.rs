//! Jinja's filters on single values, and the reference's own. Those on sequences are in `sequences`.

use super::arguments::Arguments;
use super::encoding::{self, JsonStyle};
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::value::{Text, Val};
use super::{sequences, text_methods};

type Run = for<'a> fn(&mut Machine<'a>, Val<'a>, Arguments<'a>) -> Outcome<Val<'a>>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Filter(Run);

impl Filter {
    pub(super) fn apply<'a>(&self, machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        (self.0)(machine, subject, arguments)
    }
}

pub(super) fn find(name: &str) -> Option<Filter> {
    let run: Run = match name {
        "hash" => hash,
        "hmac" => hmac,
        "base64encode" | "base64binascii_decode" => {
            |m, subject, arguments| encoded(m, &subject, arguments, |text| Ok(encoding::base64_encode(text)))
        }
        "base64decode" => |m, subject, arguments| encoded(m, &subject, arguments, encoding::base64_decode),
        "string" => string,
        "regex_search" => regex_search,
        "regex_replace" => regex_replace,
        "default" | "d" => default,
        "abs" => abs,
        "int" => int,
        "float" => float,
        "round" => round,
        "filesizeformat" => filesizeformat,
        "attr" => attr,
        "tojson" => tojson,
        "pprint" => |m, subject, arguments| {
            arguments.bind("pprint", [], 0)?;
            let mut text = String::new();
            m.write_repr(&subject, &mut text, 0)?;
            Ok(Val::str(text))
        },
        "safe" => |_, subject, arguments| {
            arguments.bind("safe", [], 0)?;
            Ok(subject)
        },
        "upper" => |m, subject, arguments| plain_text(m, &subject, arguments, str::to_uppercase),
        "lower" => |m, subject, arguments| plain_text(m, &subject, arguments, str::to_lowercase),
        "capitalize" => |m, subject, arguments| plain_text(m, &subject, arguments, text_methods::capitalize),
        "title" => |m, subject, arguments| plain_text(m, &subject, arguments, title_words),
        "escape" | "e" | "forceescape" => |m, subject, arguments| plain_text(m, &subject, arguments, escape),
        "trim" => |m, subject, arguments| text_method(m, &subject, arguments, "strip"),
        "replace" => replace,
        "center" => center,
        "format" => format,
        "truncate" => truncate,
        "indent" => indent,
        "wordcount" => wordcount,
        "urlencode" => urlencode,
        _ => return sequences::find(name).map(Filter),
    };
    Some(Filter(run))
}

fn hash<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [algorithm, salt] = arguments.bind("hash", ["hash_type", "salt"], 0)?;
    let algorithm = match algorithm {
        Some(algorithm) => machine.text_argument(Some(algorithm))?,
        None => "md5".to_owned(),
    };
    let salt = match salt {
        Some(salt) if machine.truthy(&salt) => machine.to_text(&salt)?,
        _ => String::new(),
    };
    Ok(Val::str(encoding::hash(&machine.to_text(&subject)?, &salt, &algorithm)?))
}

fn hmac<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [key, algorithm] = arguments.bind("hmac", ["key", "hash_type"], 1)?;
    if algorithm.is_some_and(|algorithm| algorithm.as_str() != Some("sha256")) {
        return Fault::failed("the hash type is not allowed: sha256 is");
    }
    let key = machine.to_text(&key.unwrap_or(Val::None))?;
    Ok(Val::str(encoding::hmac_sha256(&machine.to_text(&subject)?, &key)?))
}

/// Filters that call `.encode()` in Python: on anything but text that is no `TypeError`.
fn encoded<'a>(
    machine: &mut Machine<'a>,
    subject: &Val<'a>,
    arguments: Arguments<'a>,
    encode: fn(&str) -> Outcome<String>,
) -> Outcome<Val<'a>> {
    arguments.bind("encode", [], 0)?;
    match subject {
        Val::Str(text) => {
            machine.spend_text(text.len() * 2)?;
            Ok(Val::str(encode(text)?))
        }
        Val::Undefined { .. } => Err(machine.undefined(subject)),
        _ => Fault::failed(format!("'{}' object has no attribute 'encode'", subject.kind())),
    }
}

/// JSON text between triple quotes, so that it is still text after its evaluation; text stays as it is.
fn string<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("string", [], 0)?;
    if matches!(subject, Val::Str(_)) {
        return Ok(subject);
    }
    let mut text = String::from("\"\"\"");
    machine.write_dumps(&subject, JsonStyle { sort_keys: false, html_safe: false }, &mut text, 0)?;
    text.push_str("\"\"\"");
    Ok(Val::str(text))
}

fn regex_search<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [pattern] = arguments.bind("regex_search", ["regex"], 1)?;
    let pattern = machine.text_argument(pattern)?;
    let text = machine.text_argument(Some(subject))?;
    encoding::regex_search(machine, &text, &pattern)
}

fn regex_replace<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [pattern, replacement] = arguments.bind("regex_replace", ["regex", "replacement"], 2)?;
    let (pattern, replacement) = (machine.text_argument(pattern)?, machine.text_argument(replacement)?);
    let text = machine.text_argument(Some(subject))?;
    encoding::regex_replace(machine, &text, &pattern, &replacement)
}

fn default<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [value, boolean] = arguments.bind("default", ["default_value", "boolean"], 0)?;
    let boolean = boolean.is_some_and(|boolean| machine.truthy(&boolean));
    let missing = subject.is_undefined() || (boolean && !machine.truthy(&subject));
    Ok(if missing { value.unwrap_or(Val::borrowed("")) } else { subject })
}

fn abs<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("abs", [], 0)?;
    match (&subject, subject.as_int()) {
        (Val::Float(float), _) => Ok(Val::Float(float.abs())),
        (_, Some(int)) => Ok(Val::Int(int.checked_abs().unwrap_or(i128::MAX))),
        (Val::Undefined { .. }, _) => Err(machine.undefined(&subject)),
        _ => Fault::wrong_type(format!("bad operand type for abs(): '{}'", subject.kind())),
    }
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let underscores = text.split('_').all(|part| !part.is_empty());
    let plain = if text.contains('_') && underscores { text.replace('_', "") } else { text.to_owned() };
    plain.parse().ok().filter(|_| !plain.is_empty())
}

fn parse_int(text: &str, radix: u32) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = match radix {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let lower = digits.to_ascii_lowercase();
    let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
    let valid = !digits.is_empty() && digits.split('_').all(|part| !part.is_empty()) && !digits.starts_with(['+', '-']);
    let int = i128::from_str_radix(&digits.replace('_', ""), radix).ok().filter(|_| valid)?;
    Some(if negative { -int } else { int })
}

fn int<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [default, base] = arguments.bind("int", ["default", "base"], 0)?;
    let base = u32::try_from(machine.int_argument(base, 10)?).ok().filter(|base| (2..=36).contains(base));
    let truncated = |float: f64| (float.is_finite() && float.abs() < 1e38).then_some(float.trunc() as i128);
    let int = match &subject {
        Val::Str(text) => base.and_then(|base| parse_int(text, base)).or_else(|| parse_float(text).and_then(truncated)),
        Val::Float(float) => truncated(*float),
        Val::Undefined { .. } => return Err(machine.undefined(&subject)),
        other => other.as_int(),
    };
    Ok(int.map_or_else(|| default.unwrap_or(Val::Int(0)), Val::Int))
}

fn float<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [default] = arguments.bind("float", ["default"], 0)?;
    let float = match &subject {
        Val::Str(text) => parse_float(text),
        Val::Undefined { .. } => return Err(machine.undefined(&subject)),
        other => other.as_float(),
    };
    Ok(float.map_or_else(|| default.unwrap_or(Val::Float(0.0)), Val::Float))
}

fn round<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [precision, method] = arguments.bind("round", ["precision", "method"], 0)?;
    let precision = machine.int_argument(precision, 0)?.clamp(-300, 300) as i32;
    let method = match method {
        Some(method) => machine.text_argument(Some(method))?,
        None => "common".to_owned(),
    };
    let Some(number) = subject.as_float() else {
        return if subject.is_undefined() {
            Err(machine.undefined(&subject))
        } else {
            Fault::wrong_type(format!("type {} doesn't define __round__ method", subject.kind()))
        };
    };
    let scale = 10_f64.powi(precision);
    match &*method {
        "common" => match subject.as_int() {
            Some(int) if precision >= 0 => Ok(Val::Int(int)),
            Some(_) => Ok(Val::Int(((number * scale).round_ties_even() / scale) as i128)),
            // Decimal digits decide, as in Python: the exact value of the float is rounded, not its product.
            None if precision >= 0 => Ok(Val::Float(format!("{number:.*}", precision as usize).parse().unwrap_or(number))),
            None => Ok(Val::Float((number * scale).round_ties_even() / scale)),
        },
        "ceil" => Ok(Val::Float((number * scale).ceil() / scale)),
        "floor" => Ok(Val::Float((number * scale).floor() / scale)),
        _ => Fault::failed("method must be common, ceil or floor"),
    }
}

fn filesizeformat<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [binary] = arguments.bind("filesizeformat", ["binary"], 0)?;
    let binary = binary.is_some_and(|binary| machine.truthy(&binary));
    let bytes = match &subject {
        Val::Str(text) => parse_float(text),
        other => other.as_float(),
    };
    let Some(bytes) = bytes else { return Fault::wrong_type("a number of bytes is expected") };
    let (base, units) = if binary {
        (1024.0_f64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return Ok(Val::borrowed("1 Byte"));
    }
    if bytes < base {
        return Ok(Val::str(format!("{} Bytes", bytes.trunc())));
    }
    let mut unit = base;
    for (at, name) in units.iter().enumerate() {
        unit *= base;
        if bytes < unit || at + 1 == units.len() {
            return Ok(Val::str(format!("{:.1} {name}", base * bytes / unit)));
        }
    }
    Ok(Val::None)
}

fn attr<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [name] = arguments.bind("attr", ["name"], 1)?;
    let name = machine.text_argument(name)?;
    // Unlike `.name`, this filter does not look for an item.
    match machine.attribute(subject.clone(), Text::Shared(name.as_str().into()))? {
        found @ (Val::Method(..) | Val::Undefined { .. }) => Ok(found),
        found if subject.kind() == "dict" => {
            drop(found);
            Ok(Val::undefined(Text::Shared(name.into())))
        }
        found => Ok(found),
    }
}

fn tojson<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [_indent] = arguments.bind("tojson", ["indent"], 0)?;
    let mut text = String::new();
    machine.write_dumps(&subject, JsonStyle { sort_keys: true, html_safe: true }, &mut text, 0)?;
    Ok(Val::str(text))
}

fn plain_text<'a>(
    machine: &mut Machine<'a>,
    subject: &Val<'a>,
    arguments: Arguments<'a>,
    change: impl Fn(&str) -> String,
) -> Outcome<Val<'a>> {
    arguments.bind("filter", [], 0)?;
    let text = machine.to_text(subject)?;
    machine.spend_text(text.len() * 2)?;
    Ok(Val::str(change(&text)))
}

/// A filter that is a method of its subject's text.
fn text_method<'a>(machine: &mut Machine<'a>, subject: &Val<'a>, arguments: Arguments<'a>, name: &str) -> Outcome<Val<'a>> {
    let text = machine.to_text(subject)?;
    machine.text_method(Text::Shared(text.into()), name, arguments)
}

/// Jinja's own title: words begin after white space, a hyphen or a bracket.
fn title_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for char in text.chars() {
        if start {
            out.extend(char.to_uppercase());
        } else {
            out.extend(char.to_lowercase());
        }
        start = char.is_whitespace() || "-({[<".contains(char);
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn replace<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"], 2)?;
    let text = machine.to_text(&subject)?;
    let (old, new) = (machine.to_text(&old.unwrap_or(Val::None))?, machine.to_text(&new.unwrap_or(Val::None))?);
    let count = machine.int_argument(count.filter(|count| !matches!(count, Val::None)), -1)?;
    machine.replace(&text, &old, &new, count)
}

fn center<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [width] = arguments.bind("center", ["width"], 0)?;
    let width = machine.int_argument(width, 80)?;
    let text = machine.to_text(&subject)?;
    machine.pad(&text, "center", width, ' ')
}

fn format<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let format = machine.to_text(&subject)?;
    let values = if arguments.named.is_empty() {
        machine.tuple(arguments.positional)?
    } else {
        machine.dict(arguments.named.into_iter().map(|(name, value)| (Val::Str(name), value)).collect())?
    };
    machine.percent(&format, &values)
}

fn truncate<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [length, killwords, end, leeway] = arguments.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = usize::try_from(machine.int_argument(length, 255)?).unwrap_or(0);
    let leeway = usize::try_from(machine.int_argument(leeway, 5)?).unwrap_or(0);
    let killwords = killwords.is_some_and(|killwords| machine.truthy(&killwords));
    let end = match end {
        Some(end) => machine.to_text(&end)?,
        None => "...".to_owned(),
    };
    let text = machine.to_text(&subject)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Val::str(text));
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = if killwords { &kept } else { kept.rsplit_once(' ').map_or(&*kept, |(before, _)| before) };
    Ok(Val::str(format!("{kept}{end}")))
}

fn indent<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"], 0)?;
    let width = match width {
        Some(Val::Str(width)) => (*width).to_owned(),
        width => " ".repeat(machine.int_argument(width, 4)?.clamp(0, 1_000) as usize),
    };
    let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| machine.truthy(&flag)));
    let text = machine.to_text(&subject)?;
    machine.spend((text.matches('\n').count() + 1).saturating_mul(width.len() + 1))?;
    let mut out = String::new();
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if (at > 0 && (blank || !line.is_empty())) || (at == 0 && first) {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(Val::str(out))
}

fn wordcount<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("wordcount", [], 0)?;
    let text = machine.to_text(&subject)?;
    let words = text.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty()).count();
    Ok(Val::Int(words as i128))
}

fn urlencode<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("urlencode", [], 0)?;
    let iterable = matches!(subject.kind(), "list" | "tuple" | "dict" | "dict_items");
    if !iterable {
        let text = machine.to_text(&subject)?;
        machine.spend_text(text.len() * 3)?;
        return Ok(Val::str(encoding::quote(&text, "/", false)));
    }
    let mut out = String::new();
    for (at, (key, value)) in machine.entries_of(&subject)?.into_iter().enumerate() {
        let (key, value) = (machine.to_text(&key)?, machine.to_text(&value)?);
        out.push_str(if at == 0 { "" } else { "&" });
        out.push_str(&encoding::quote(&key, "", true));
        out.push('=');
        out.push_str(&encoding::quote(&value, "", true));
    }
    Ok(Val::str(out))
}
