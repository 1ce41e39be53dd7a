//! A model: a SQL file with front matter.

use std::collections::BTreeSet;

use trib_core::{Code, Error, TableName};

use crate::config::model::ModelSpec;
use crate::decode::decode;
use crate::files::Text;
use crate::interpolate::{Missing, Variables, fill};
use crate::place::At;
use crate::sql_tables::tables;
use crate::yaml::{self, Node};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";

pub struct Model {
    pub name: String,
    pub spec: ModelSpec,
    /// The query, front matter left out.
    pub sql: String,
    /// The table that it makes, as other models name it.
    pub table: TableName,
    /// The tables that the query reads.
    pub reads: BTreeSet<TableName>,
    pub at: At,
    /// Of the file as it is written.
    pub hash: String,
    pub(crate) missing: Vec<Missing>,
}

/// The parts of a model's file.
pub struct Parts<'a> {
    /// What stands between the markers, if they are there, and the line that it begins in.
    pub front: Option<(&'a str, usize)>,
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

/// Reads a model. `defaults` is what the project says for all of them.
pub(crate) fn read(file: &Text, defaults: Option<&Node>, variables: &Variables, errors: &mut Vec<Error>) -> Option<Model> {
    let at = At::start_of(&file.name);
    let Some(parts) = split(&file.text) else {
        let error = Error::new(Code::ConfigInvalid, "the front matter is never closed").hint("end it with `---*/`");
        errors.push(at.mark(error));
        return None;
    };
    let raw = match parts.front {
        Some((front, line)) => yaml::parse(&file.name, front, line).map_err(|e| errors.push(e)).ok()?,
        None => Node::empty_map(at.clone()),
    };
    let mut missing = Vec::new();
    let own = fill(&raw, variables, &[], &mut missing);
    decode::<ModelSpec>(&own, &[], errors)?;
    let spec = match defaults {
        Some(defaults) => decode(&fill(defaults, variables, &["defaults", "model"], &mut missing).overlaid(&own), &[], errors)?,
        None => decode::<ModelSpec>(&own, &[], errors)?,
    };
    let reads = match tables(parts.sql) {
        Ok(reads) => reads,
        Err(e) => {
            errors.push(in_file(&e, &file.name, parts.sql_line));
            return None;
        }
    };
    let table = TableName::new(Some(&spec.schema), file.stem());
    Some(Model {
        name: file.stem().to_owned(),
        sql: parts.sql.trim().to_owned(),
        table,
        reads,
        at,
        hash: crate::sync::hash(&[&file.text, &defaults.map(|d| d.to_json().to_string()).unwrap_or_default()]),
        missing,
        spec,
    })
}

/// An error about the SQL, placed in the file that the SQL stands in.
fn in_file(e: &Error, file: &str, first_line: usize) -> Error {
    let line = e.place().line.map_or(first_line, |line| first_line + line - 1);
    let mut error = Error::new(e.code(), e.message()).file(file, Some(line), e.place().column);
    if let Some(detail) = e.detail_text() {
        error = error.detail(detail);
    }
    match e.hint_text() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_split() {
        let parts = split("/*---\na: 1\n---*/\nselect 1\n").unwrap();
        assert_eq!((parts.front, parts.sql, parts.sql_line), (Some(("\na: 1\n", 1)), "\nselect 1\n", 3));
        let parts = split("-- no front matter\nselect 1").unwrap();
        assert_eq!((parts.front, parts.sql_line), (None, 1));
        assert!(split("/*---\na: 1\nselect 1").is_none());
    }
}
