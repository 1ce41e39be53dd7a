//! Variables in settings: `${VAR}`, `${VAR:-default}` and `${file:PATH}`, filled in after parsing.
//!
//! Since the tree is there already, no value can break the file's syntax. `$$` stands for one `$`; a `$` that no `{` follows
//! stays as it is. A variable without a value does not stop the project from being read: it is noted as [`Missing`], and
//! only what needs the setting fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trib_core::error::closest;
use trib_core::{Code, Error};

use crate::place::{At, dotted};
use crate::yaml::{Content, Entry, Node};

/// Where variables are looked for: named places, the first that knows a variable wins.
#[derive(Clone, Default)]
pub struct Variables {
    layers: Vec<(&'static str, BTreeMap<String, String>)>,
    /// `${file:PATH}` starts here.
    dir: PathBuf,
}

impl Variables {
    /// The variables of this process.
    pub fn of_process() -> Self {
        // What is not Unicode cannot be a setting.
        let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::given(all)
    }

    /// Exactly these, in place of the process's own.
    pub fn given(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { layers: vec![("the environment", variables.into_iter().collect())], dir: PathBuf::new() }
    }

    #[must_use]
    pub(crate) fn in_dir(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.dir);
        self
    }

    /// Adds a place to look, after the others.
    #[must_use]
    pub(crate) fn then(mut self, place: &'static str, variables: BTreeMap<String, String>) -> Self {
        self.layers.push((place, variables));
        self
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.layers.iter().find_map(|(_, known)| known.get(name)).map(String::as_str)
    }

    fn hint(&self, name: &str) -> String {
        let places: Vec<&str> = self.layers.iter().map(|(place, _)| *place).collect();
        let looked = format!("looked in {}", places.join(", then in "));
        match closest(name, self.layers.iter().flat_map(|(_, known)| known.keys()).map(String::as_str)) {
            Some(near) => format!("{looked}; did you mean `{near}`?"),
            None => format!("{looked}; set it there, or give a default with `${{{name}:-…}}`"),
        }
    }
}

/// A variable or file that has no value, where it is wanted.
#[derive(Clone, Debug)]
pub struct Missing {
    message: &'static str,
    code: Code,
    what: String,
    at: At,
    /// Keys from the file's root to the setting.
    pub path: Vec<String>,
    hint: String,
}

impl Missing {
    pub fn error(&self) -> Error {
        self.at.mark(Error::new(self.code, self.message).detail(&self.what).setting(dotted(&self.path)).hint(&self.hint))
    }
}

/// The node with its variables filled in. What has no value stays as it is written and is added to `missing`.
pub fn fill(node: &Node, variables: &Variables, path: &[&str], missing: &mut Vec<Missing>) -> Node {
    let mut path: Vec<String> = path.iter().map(|&p| p.to_owned()).collect();
    fill_below(node, variables, &mut path, missing)
}

fn fill_below(node: &Node, variables: &Variables, path: &mut Vec<String>, missing: &mut Vec<Missing>) -> Node {
    let mut descend = |key: &str, value: &Node| {
        path.push(key.to_owned());
        let filled = fill_below(value, variables, path, missing);
        path.pop();
        filled
    };
    let content = match &node.content {
        Content::List(items) => Content::List(items.iter().enumerate().map(|(i, item)| descend(&i.to_string(), item)).collect()),
        Content::Map(entries) => {
            let filled = |e: &Entry| Entry { key: e.key.clone(), at: e.at.clone(), value: descend(&e.key, &e.value) };
            Content::Map(entries.iter().map(filled).collect())
        }
        Content::Text(text) if text.contains('$') => {
            return match fill_text(text, variables) {
                // What was filled in has moved what stands behind it.
                Ok((text, filled)) => Node { filled, ..Node::text(node.at.clone(), text) },
                Err(problem) => {
                    missing.push(Missing {
                        message: problem.message,
                        code: problem.code,
                        what: problem.what,
                        at: node.at.clone(),
                        path: path.clone(),
                        hint: problem.hint,
                    });
                    node.clone()
                }
            };
        }
        other => other.clone(),
    };
    Node { at: node.at.clone(), content, filled: node.filled, begins: node.begins.clone() }
}

#[derive(Debug)]
struct Problem {
    code: Code,
    message: &'static str,
    what: String,
    hint: String,
}

/// The text, and whether anything in it came from a variable.
fn fill_text(text: &str, variables: &Variables) -> Result<(String, bool), Problem> {
    let mut out = String::with_capacity(text.len());
    let mut filled = false;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) = after.split_once('}').ok_or_else(|| Problem {
                code: Code::ConfigInvalid,
                message: "a `${` has no `}`",
                what: format!("${{{after}"),
                hint: "close it, or write `$$` for a plain `$`".to_owned(),
            })?;
            out.push_str(&value_of(inside, variables)?);
            filled = true;
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok((out, filled))
}

fn value_of(inside: &str, variables: &Variables) -> Result<String, Problem> {
    if let Some(path) = inside.strip_prefix("file:") {
        let path = variables.dir.join(path);
        // A file that ends in a line break holds its value without it: that is how editors and `echo` write files.
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_owned()),
            Err(e) => Err(Problem {
                code: Code::SecretMissing,
                message: "a file that a setting is read from cannot be read",
                what: format!("${{{inside}}}"),
                hint: format!("looked for {}: {}", path.display(), e.kind()),
            }),
        };
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
    };
    if !valid(name) {
        return Err(Problem {
            code: Code::ConfigInvalid,
            message: "this is not the name of a variable",
            what: format!("${{{inside}}}"),
            hint: "`${VAR}`, `${VAR:-default}` and `${file:PATH}` are understood; write `$$` for a plain `$`".to_owned(),
        });
    }
    match (variables.get(name), default) {
        (Some("") | None, Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.to_owned()),
        (None, None) => Err(Problem {
            code: Code::SecretMissing,
            message: "a variable has no value",
            what: format!("${{{name}}}"),
            hint: variables.hint(name),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        Variables::given(own(&[("A", "1"), ("EMPTY", ""), ("SYNTAX", "}: ${A} # x")])).then(".env", own(&[("A", "2"), ("B", "b")]))
    }

    #[test]
    fn texts_are_filled() {
        let cases = [
            ("${A}", "1", true),
            ("x${A}y${B}z", "x1ybz", true),
            ("${NONE:-dflt}", "dflt", true),
            ("${NONE:-}", "", true),
            ("${EMPTY:-dflt}", "dflt", true),
            ("${EMPTY}", "", true),
            // A value is never looked into again.
            ("${SYNTAX}", "}: ${A} # x", true),
            ("$$", "$", false),
            ("$${A}", "${A}", false),
            ("$A and $.path", "$A and $.path", false),
            ("^a$", "^a$", false),
        ];
        for (text, expected, filled) in cases {
            assert_eq!(fill_text(text, &variables()).unwrap(), (expected.to_owned(), filled), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_is_said() {
        let cases = [
            ("${NONE}", Code::SecretMissing, "looked in the environment, then in .env; set it there, or give a default with `${NONE:-…}`"),
            ("${SYNTX}", Code::SecretMissing, "looked in the environment, then in .env; did you mean `SYNTAX`?"),
            ("${A", Code::ConfigInvalid, "close it, or write `$$` for a plain `$`"),
            ("${}", Code::ConfigInvalid, "`${VAR}`, `${VAR:-default}` and `${file:PATH}` are understood; write `$$` for a plain `$`"),
        ];
        for (text, code, hint) in cases {
            let problem = fill_text(text, &variables()).unwrap_err();
            assert_eq!((problem.code, problem.hint.as_str()), (code, hint), "{text}");
        }
        let problem = fill_text("${file:no/such}", &variables()).unwrap_err();
        assert_eq!(problem.hint, "looked for no/such: entity not found");
    }

    #[test]
    fn files_lose_their_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "a\nb\r\n").unwrap();
        let variables = variables().in_dir(dir.path());
        assert_eq!(fill_text("${file:key}", &variables).unwrap().0, "a\nb");
    }
}
