//! The `.env` file beside a project: `NAME=value` by line.

use std::collections::BTreeMap;

use trib_core::{Code, Error, Result};

use crate::place::At;

/// Reads `NAME=value` lines. `export` before the name, comments and empty lines are allowed. A value in single quotes is taken as it
/// stands, one in double quotes with `\n`, `\"` and `\\`; without quotes it ends at ` #` and loses surrounding blanks.
pub fn parse(file: &str, text: &str) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |message| At { file: file.into(), line: i + 1, column: 1 }.mark(Error::new(Code::ConfigInvalid, message));
        let declaration = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = declaration
            .split_once('=')
            .map(|(name, value)| (name.trim_end(), value.trim_start()))
            .filter(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .ok_or_else(|| wrong("the line is not NAME=value"))?;
        let value = unquoted(value).ok_or_else(|| wrong("a quote is never closed"))?;
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

fn unquoted(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.split_once('\'').map(|(inside, _)| inside.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        let mut out = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next()? {
                '"' => return Some(out),
                '\\' => out.push(match chars.next()? {
                    'n' => '\n',
                    other => other,
                }),
                c => out.push(c),
            }
        }
    }
    if value.starts_with('#') {
        return Some(String::new());
    }
    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
    Some(value[..end].trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let cases = [
            ("A=1", Some(("A", "1"))),
            ("export A = 1 ", Some(("A", "1"))),
            ("A=b=c", Some(("A", "b=c"))),
            ("A=x # note", Some(("A", "x"))),
            ("A=p#ss", Some(("A", "p#ss"))),
            ("A='x # y'", Some(("A", "x # y"))),
            ("A=\"a\\\"b\\n\"", Some(("A", "a\"b\n"))),
            ("A=", Some(("A", ""))),
            ("# A=1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let parsed = parse(".env", text).unwrap();
            assert_eq!(parsed.iter().next().map(|(k, v)| (k.as_str(), v.as_str())), expected, "{text}");
        }
        for wrong in ["A", "A B=1", "A='x", "=1"] {
            assert_eq!(parse(".env", &format!("# first\n{wrong}")).unwrap_err().place().line, Some(2), "{wrong}");
        }
    }
}
