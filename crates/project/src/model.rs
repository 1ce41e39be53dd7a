//! A model: a SQL file with front matter.

use std::collections::BTreeSet;

use trib_core::{Code, Error, Result, TableName};

use crate::config::model::ModelSpec;
use crate::data_test::DataTest;
use crate::decode::decode;
use crate::files::Text;
use crate::interpolate::{Missing, Variables, fill};
use crate::macros::{Line, Templates};
use crate::place::At;
use crate::sql_tables::{Mention, mentions};
use crate::yaml::{self, Content, Node};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";
/// Before and after the front matter of a script, in comments of its own.
const MARK: &str = "# ---";

/// What files of models end with.
pub(crate) const EXTENSIONS: &[&str] = &["sql", "py"];

pub struct Model {
    pub name: String,
    pub spec: ModelSpec,
    /// The file is a program, and there is no query.
    pub is_script: bool,
    /// The query, front matter left out; of a template, what was filled in.
    pub sql: String,
    /// The line of the file that it begins in.
    pub sql_line: usize,
    /// The table that it makes, as other models name it.
    pub table: TableName,
    /// The tables that the query reads where the model is made.
    pub reads: BTreeSet<TableName>,
    /// Those that it reads in other connections.
    pub elsewhere: BTreeSet<(String, TableName)>,
    /// Of a template: where each line of the query comes from.
    lines: Option<Vec<Line>>,
    /// Where it names them.
    pub mentions: Vec<Mention>,
    /// Data tests on the result.
    pub tests: Vec<DataTest>,
    pub at: At,
    /// Of the file as it is written, and of what a template has become.
    pub hash: String,
    pub(crate) missing: Vec<Missing>,
}

impl Model {
    /// An error when a variable that the model uses has no value.
    pub fn ready(&self) -> Result<()> {
        self.missing.first().map_or(Ok(()), |missing| Err(missing.error()))
    }

    /// The names of what it reads, in their order.
    pub fn read_names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.mentions.iter().map(Mention::name).collect();
        names.into_iter().collect()
    }

    /// Whether a query that reads a table of this name means this model.
    pub fn is_called(&self, name: &TableName) -> bool {
        self.table == *name || name.schema.is_none() && self.name == name.name
    }

    /// An error about the SQL, placed in the file: where the SQL names the table that is not there, where it says so itself, or at
    /// its beginning.
    pub fn mark(&self, error: Error) -> Error {
        let detail = error.detail_text().unwrap_or_default();
        // An error from another connection names the table as it is named there.
        let named = |m: &&Mention| error.code() == Code::NotFound && (m.name() == detail || m.name().ends_with(&format!(".{detail}")));
        let error = match self.mentions.iter().find(named) {
            Some(m) => error.file("", Some(m.line), Some(m.column)),
            None => error,
        };
        self.within(error)
    }

    /// An error about the SQL, placed in the file: at its place within the query, or at its beginning.
    pub(crate) fn within(&self, error: Error) -> Error {
        within(error, &self.at.file, self.sql_line, self.lines.as_deref())
    }
}

/// `lines` is where each line of the SQL comes from, where it was filled in.
fn within(error: Error, file: &str, first_line: usize, lines: Option<&[Line]>) -> Error {
    error.within(file, |line, column| match (lines, line) {
        (_, None) => (Some(first_line), None),
        (None, Some(line)) => (Some(first_line + line - 1), column),
        (Some(lines), Some(line)) => {
            let written = line.checked_sub(1).and_then(|i| lines.get(i));
            (Some(written.map_or(first_line, |w| w.number)), column.filter(|_| written.is_some_and(|w| w.as_it_is)))
        }
    })
}

/// A text that would bring a variable of the process into SQL, which is shown on pages and in events.
fn reaching_out(node: &Node) -> Option<&At> {
    match &node.content {
        Content::Text(text) => text.replace("$$", "").contains("${").then_some(&node.at),
        Content::List(items) => items.iter().find_map(reaching_out),
        Content::Map(entries) => entries.iter().find_map(|e| reaching_out(&e.value)),
        _ => None,
    }
}

/// The parts of a model's file.
pub struct Parts<'a, T = &'a str> {
    /// What stands between the markers, if they are there, and the line that it begins in.
    pub front: Option<(T, usize)>,
    pub sql: &'a str,
    /// The line of the file that `sql` begins in.
    pub sql_line: usize,
}

/// Splits a file at its front matter, which may only have blanks before it. `None` when the front matter is never closed.
pub fn split(text: &str) -> Option<Parts<'_>> {
    let start = text.len() - text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).len();
    let line_at = |at: usize| 1 + text[..at].matches('\n').count();
    let Some(rest) = text[start..].strip_prefix(OPEN) else {
        return Some(Parts { front: None, sql: text, sql_line: 1 });
    };
    let begin = start + OPEN.len();
    let end = begin + rest.find(CLOSE)?;
    let after = end + CLOSE.len();
    Some(Parts { front: Some((&text[begin..end], line_at(begin))), sql: &text[after..], sql_line: line_at(after) })
}

impl<'a> Parts<'a> {
    fn owned(self) -> Parts<'a, String> {
        Parts { front: self.front.map(|(front, line)| (front.to_owned(), line)), sql: self.sql, sql_line: self.sql_line }
    }
}

/// The tables that a script is given, where its front matter names them.
fn given(raw: &Node) -> Vec<Mention> {
    let list = match raw.at_path(&["reads"]).map(|node| &node.content) {
        Some(Content::List(items)) => items.as_slice(),
        _ => &[],
    };
    let name = |node: &Node| Some(Mention::at(node.to_json().as_str()?, node.at.line, node.at.column));
    list.iter().filter_map(name).collect()
}

/// The front matter of a script: the comment lines between two lines `# ---`, each with its mark turned into a blank, so that places stay what they
/// are. `None` when it is never closed.
fn split_script(text: &str) -> Option<Parts<'_, String>> {
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| line.starts_with("#!") || line.trim().is_empty());
    let none = Parts { front: None, sql: "", sql_line: 1 };
    let Some((open, _)) = lines.next().filter(|(_, line)| line.trim_end() == MARK) else { return Some(none) };
    let mut front = String::new();
    for (_, line) in lines {
        if line.trim_end() == MARK {
            return Some(Parts { front: Some((front, open + 2)), ..none });
        }
        front.push_str(&line.strip_prefix('#').map(|rest| format!(" {rest}"))?);
        front.push('\n');
    }
    None
}

/// Reads a model. `defaults` is what the project says for all of them.
pub(crate) fn read(
    file: &Text,
    defaults: Option<&Node>,
    (variables, templates): (&Variables, &Templates),
    errors: &mut Vec<Error>,
) -> Option<Model> {
    let at = At::start_of(&file.name);
    let is_script = file.name.ends_with(".py");
    let (parts, close) = if is_script { (split_script(&file.text), MARK) } else { (split(&file.text).map(Parts::owned), CLOSE) };
    let Some(parts) = parts else {
        let error = Error::new(Code::ConfigInvalid, "the front matter is never closed").hint(format!("end it with `{close}`"));
        errors.push(at.mark(error));
        return None;
    };
    let raw = match &parts.front {
        Some((front, line)) => yaml::parse(&file.name, front, *line).map_err(|e| errors.push(e)).ok()?,
        None => Node::empty_map(at.clone()),
    };
    let mut missing = Vec::new();
    let own = fill(&raw, variables, &[], &mut missing);
    let alone = decode::<ModelSpec>(&own, &[], errors)?;
    let spec = match defaults {
        Some(defaults) => decode(&fill(defaults, variables, &["defaults", "model"], &mut missing).overlaid(&own), &[], errors)?,
        None => alone.clone(),
    };
    if !alone.template && !alone.vars.is_empty() {
        let error = Error::new(Code::ConfigInvalid, "only a template has variables").setting("vars").hint("say `template: true`");
        errors.push(raw.place(&["vars"]).mark(error));
        return None;
    }
    let (sql, lines) = if spec.template && !is_script {
        let vars = [raw.get("vars"), defaults.and_then(|d| d.get("vars"))];
        if let Some(at) = vars.into_iter().flatten().find_map(reaching_out) {
            let error = Error::new(Code::ConfigInvalid, "a variable of the process cannot go into SQL").setting("vars");
            errors.push(
                at.mark(error.hint("SQL is shown on pages and in events: write the value itself, or ask `environment` in the template")),
            );
            return None;
        }
        let filled = templates.fill(&file.name, parts.sql, parts.sql_line, &spec.vars).map_err(|e| errors.push(e)).ok()?;
        (filled.sql, Some(filled.lines))
    } else {
        (parts.sql.to_owned(), None)
    };
    let named = if is_script { Ok(given(&raw)) } else { mentions(&sql) };
    let mentions = match named {
        Ok(mentions) => mentions,
        Err(e) => {
            let is_template = lines.is_none() && ["{{", "{%"].iter().any(|open| sql.contains(open));
            let e = if is_template { e.hint("`template: true` in the front matter fills templates in") } else { e };
            errors.push(within(e, &file.name, parts.sql_line, lines.as_deref()));
            return None;
        }
    };
    let found = errors.len();
    let right = spec.check_script(is_script).and_then(|()| spec.check());
    errors.extend(right.map_err(|e| at.mark(e)).err());
    let tests = DataTest::of_table(&spec.tests, spec.columns.iter().map(|(name, column)| (name.as_str(), column.tests.as_slice())));
    let tests = tests.unwrap_or_else(|wrong| {
        errors.extend(wrong.into_iter().map(|e| own.mark(e)));
        Vec::new()
    });
    if errors.len() > found {
        return None;
    }
    let table = TableName::new(Some(&spec.schema), file.stem());
    let inherited = defaults.map(|d| d.to_json().to_string()).unwrap_or_default();
    Some(Model {
        name: file.stem().to_owned(),
        is_script,
        hash: match &lines {
            None => crate::sync::hash(&[&file.text, &inherited]),
            Some(_) => crate::sync::hash(&[&file.text, &inherited, &sql]),
        },
        sql,
        lines,
        sql_line: parts.sql_line,
        table,
        // Who else makes them is known once the whole project is.
        reads: BTreeSet::new(),
        elsewhere: BTreeSet::new(),
        mentions,
        tests,
        at,
        missing,
        spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_split() {
        let parts = split("/*---\na: 1\n---*/\nselect 1\n").unwrap();
        assert_eq!((parts.front, parts.sql, parts.sql_line), (Some(("\na: 1\n", 1)), "\nselect 1\n", 3));
        let script = split_script("#!/usr/bin/env python3\n# ---\n# a: 1\n#\n# ---\nprint(1)\n").unwrap();
        assert_eq!(script.front, Some(("  a: 1\n \n".to_owned(), 3)));
        assert!(split_script("import json\n").unwrap().front.is_none());
        assert!(split_script("# ---\n# a: 1\n").is_none());
        let parts = split("-- no front matter\nselect 1").unwrap();
        assert_eq!((parts.front, parts.sql_line), (None, 1));
        assert!(split("/*---\na: 1\nselect 1").is_none());
    }
}
