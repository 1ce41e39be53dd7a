//! Methods of `str`.

use super::arguments::Arguments;
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::operators::MAX_LENGTH;
use super::value::{Text, Val};

pub(super) const NAMES: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

impl<'a> Machine<'a> {
    pub(super) fn text_method(&mut self, text: Text<'a>, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        self.spend_text(text.len())?;
        match name {
            "format" => self.format_method(&text, &arguments),
            "join" => {
                let [items] = arguments.bind(name, ["iterable"], 1)?;
                let items = self.iterate(&items.unwrap_or(Val::None))?;
                self.join_text(&text, &items)
            }
            "split" | "rsplit" => self.split(&text, name == "rsplit", arguments),
            "splitlines" => {
                arguments.bind(name, [], 0)?;
                let lines = text.lines().map(Val::str).collect();
                self.list(lines)
            }
            "partition" | "rpartition" => {
                let [separator] = arguments.bind(name, ["sep"], 1)?;
                let separator = self.text_argument(separator)?;
                if separator.is_empty() {
                    return Fault::failed("empty separator");
                }
                let parts = match if name == "partition" { text.split_once(&*separator) } else { text.rsplit_once(&*separator) } {
                    Some((before, after)) => [before, &separator, after],
                    None if name == "partition" => [&*text, "", ""],
                    None => ["", "", &*text],
                };
                let parts = parts.map(Val::str).to_vec();
                self.tuple(parts)
            }
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = arguments.bind(name, ["chars"], 0)?;
                let chars = match chars {
                    None | Some(Val::None) => None,
                    chars => Some(self.text_argument(chars)?),
                };
                Ok(Val::str(strip(&text, name, chars.as_deref())))
            }
            "replace" => {
                let [old, new, count] = arguments.bind(name, ["old", "new", "count"], 2)?;
                let (old, new) = (self.text_argument(old)?, self.text_argument(new)?);
                let count = self.int_argument(count, -1)?;
                self.replace(&text, &old, &new, count)
            }
            "startswith" | "endswith" => {
                let [prefix] = arguments.bind(name, ["prefix"], 1)?;
                let matches = |part: &str| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
                match prefix {
                    Some(Val::Tuple(id)) => {
                        let candidates = self.items(id).iter().filter_map(Val::as_str);
                        Ok(Val::Bool(candidates.into_iter().any(matches)))
                    }
                    prefix => Ok(Val::Bool(matches(&self.text_argument(prefix)?))),
                }
            }
            "removeprefix" | "removesuffix" => {
                let [part] = arguments.bind(name, ["prefix"], 1)?;
                let part = self.text_argument(part)?;
                let cut = if name == "removeprefix" { text.strip_prefix(&*part) } else { text.strip_suffix(&*part) };
                Ok(Val::str(cut.unwrap_or(&text)))
            }
            "count" | "find" | "rfind" | "index" | "rindex" => {
                let [part, start, end] = arguments.bind(name, ["sub", "start", "end"], 1)?;
                let part = self.text_argument(part)?;
                self.search(&text, name, &part, start, end)
            }
            "center" | "ljust" | "rjust" | "zfill" => {
                let [width, fill] = arguments.bind(name, ["width", "fillchar"], 1)?;
                let width = self.int_argument(width, 0)?;
                let fill = match fill {
                    Some(fill) => self.text_argument(Some(fill))?.chars().next().unwrap_or(' '),
                    None => ' ',
                };
                self.pad(&text, name, width, fill)
            }
            _ => {
                arguments.bind(name, [], 0)?;
                Ok(plain(&text, name))
            }
        }
    }

    fn join_text(&mut self, separator: &str, items: &[Val<'a>]) -> Outcome<Val<'a>> {
        let mut joined = String::new();
        for (at, item) in items.iter().enumerate() {
            let Val::Str(item) = item else {
                return Fault::wrong_type(format!("sequence item {at}: expected str instance, {} found", item.kind()));
            };
            self.spend_text(separator.len() + item.len())?;
            if at > 0 {
                joined.push_str(separator);
            }
            joined.push_str(item);
        }
        Ok(Val::str(joined))
    }

    fn split(&mut self, text: &str, from_right: bool, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        let [separator, limit] = arguments.bind("split", ["sep", "maxsplit"], 0)?;
        let limit = usize::try_from(self.int_argument(limit, -1)?).unwrap_or(usize::MAX - 1) + 1;
        self.spend(text.len())?;
        let parts: Vec<Val<'a>> = match separator {
            None | Some(Val::None) => split_whitespace(text, limit, from_right).into_iter().map(Val::str).collect(),
            separator => {
                let separator = self.text_argument(separator)?;
                if separator.is_empty() {
                    return Fault::failed("empty separator");
                }
                if from_right {
                    let mut parts: Vec<_> = text.rsplitn(limit, &*separator).map(Val::str).collect();
                    parts.reverse();
                    parts
                } else {
                    text.splitn(limit, &*separator).map(Val::str).collect()
                }
            }
        };
        self.list(parts)
    }

    pub(super) fn replace(&mut self, text: &str, old: &str, new: &str, count: i128) -> Outcome<Val<'a>> {
        let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
        let count = usize::try_from(count).map_or(found, |count| count.min(found));
        let length = text.len().saturating_add(count.saturating_mul(new.len()));
        if length > MAX_LENGTH * 4 {
            return Err(Fault::Limit("a replacement made too much text"));
        }
        self.spend_text(length)?;
        Ok(Val::str(text.replacen(old, new, count)))
    }

    fn search(&mut self, text: &str, name: &str, part: &str, start: Option<Val<'a>>, end: Option<Val<'a>>) -> Outcome<Val<'a>> {
        let length = text.chars().count() as i128;
        let clamp = |at: i128| if at < 0 { (at + length).max(0) } else { at.min(length) };
        let start = clamp(self.int_argument(start.filter(|start| !matches!(start, Val::None)), 0)?);
        let end = clamp(self.int_argument(end.filter(|end| !matches!(end, Val::None)), length)?);
        let window: String = text.chars().skip(start as usize).take((end - start).max(0) as usize).collect();
        let offset = |at: usize| start + window[..at].chars().count() as i128;
        match name {
            "count" if part.is_empty() => Ok(Val::Int((end - start).max(-1) + 1)),
            "count" => Ok(Val::Int(window.matches(part).count() as i128)),
            _ => match if name.starts_with('r') { window.rfind(part) } else { window.find(part) } {
                Some(at) => Ok(Val::Int(offset(at))),
                None if name.ends_with("index") => Fault::failed("substring not found"),
                None => Ok(Val::Int(-1)),
            },
        }
    }

    pub(super) fn pad(&mut self, text: &str, name: &str, width: i128, fill: char) -> Outcome<Val<'a>> {
        let length = text.chars().count();
        let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
        if width > MAX_LENGTH {
            return Err(Fault::Limit("a text is padded too far"));
        }
        let missing = width.saturating_sub(length);
        self.spend_text(width)?;
        // Where the sides differ, Python gives the left one more if the width is odd.
        let (left, right) = match name {
            "center" => {
                let left = missing / 2 + (missing & width & 1);
                (left, missing - left)
            }
            "ljust" => (0, missing),
            _ => (missing, 0),
        };
        let run = |count: usize, char: char| char.to_string().repeat(count);
        if name == "zfill" {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            return Ok(Val::str(format!("{sign}{}{digits}", run(left, '0'))));
        }
        Ok(Val::str(format!("{}{text}{}", run(left, fill), run(right, fill))))
    }
}

fn strip(text: &str, name: &str, chars: Option<&str>) -> String {
    let matches = |char: char| chars.map_or(char.is_whitespace(), |chars| chars.contains(char));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(matches) };
    let text = if name == "lstrip" { text } else { text.trim_end_matches(matches) };
    text.to_owned()
}

fn split_whitespace(text: &str, limit: usize, from_right: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = if from_right { text.trim_end() } else { text.trim_start() };
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        match cut {
            Some(at) if parts.len() + 1 < limit => {
                let (before, after) = rest.split_at(at);
                if from_right {
                    parts.push(after.trim_start().to_owned());
                    rest = before.trim_end();
                } else {
                    parts.push(before.to_owned());
                    rest = after.trim_start();
                }
            }
            _ => {
                parts.push(rest.to_owned());
                break;
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// Every word with a capital, as `str.title` has it: a letter after anything that is no letter.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for char in text.chars() {
        if in_word {
            out.extend(char.to_lowercase());
        } else {
            out.extend(char.to_uppercase());
        }
        in_word = char.is_alphabetic();
    }
    out
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

/// Methods without arguments.
fn plain<'a>(text: &str, name: &str) -> Val<'a> {
    let all = |test: fn(char) -> bool| Val::Bool(!text.is_empty() && text.chars().all(test));
    let cased = |wanted: fn(&char) -> bool, unwanted: fn(&char) -> bool| {
        Val::Bool(text.chars().any(|char| wanted(&char)) && !text.chars().any(|char| unwanted(&char)))
    };
    match name {
        "upper" => Val::str(text.to_uppercase()),
        "lower" | "casefold" => Val::str(text.to_lowercase()),
        "title" => Val::str(title(text)),
        "capitalize" => Val::str(capitalize(text)),
        "swapcase" => Val::str(
            text.chars()
                .flat_map(|char| -> Vec<char> {
                    if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
                })
                .collect::<String>(),
        ),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isdigit" | "isdecimal" => all(|char| char.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(char::is_whitespace),
        "isupper" => cased(|char| char.is_uppercase(), |char| char.is_lowercase()),
        "islower" => cased(|char| char.is_lowercase(), |char| char.is_uppercase()),
        _ => Val::None,
    }
}
