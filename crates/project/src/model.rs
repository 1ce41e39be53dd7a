//! A model: a SQL file with front matter.

use std::collections::BTreeSet;

use trib_core::{Code, Error, Result, TableName};

use crate::config::model::ModelSpec;
use crate::data_test::DataTest;
use crate::decode::decode;
use crate::files::Text;
use crate::interpolate::{Missing, Variables, fill};
use crate::place::At;
use crate::sql_tables::{Mention, mentions};
use crate::yaml::{self, Node};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";

pub struct Model {
    pub name: String,
    pub spec: ModelSpec,
    /// The query, front matter left out.
    pub sql: String,
    /// The line of the file that it begins in.
    pub sql_line: usize,
    /// The table that it makes, as other models name it.
    pub table: TableName,
    /// The tables that the query reads.
    pub reads: BTreeSet<TableName>,
    /// Where it names them.
    pub mentions: Vec<Mention>,
    /// Data tests on the result.
    pub tests: Vec<DataTest>,
    pub at: At,
    /// Of the file as it is written.
    pub hash: String,
    pub(crate) missing: Vec<Missing>,
}

impl Model {
    /// An error when a variable that the model uses has no value.
    pub fn ready(&self) -> Result<()> {
        self.missing.first().map_or(Ok(()), |missing| Err(missing.error()))
    }

    /// Whether a query that reads a table of this name means this model.
    pub fn is_called(&self, name: &TableName) -> bool {
        self.table == *name || name.schema.is_none() && self.name == name.name
    }

    /// An error about the SQL, placed in the file: where the SQL names the table that is not there, where it says so itself, or at
    /// its beginning.
    pub fn mark(&self, error: Error) -> Error {
        let named = |m: &&Mention| error.code() == Code::NotFound && error.detail_text() == Some(m.table.to_string().as_str());
        let error = match self.mentions.iter().find(named) {
            Some(m) => error.file("", Some(m.line), Some(m.column)),
            None => error,
        };
        error.within(&*self.at.file, self.sql_line)
    }
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
    let mentions = match mentions(parts.sql) {
        Ok(mentions) => mentions,
        Err(e) => {
            errors.push(e.within(&*file.name, parts.sql_line));
            return None;
        }
    };
    let found = errors.len();
    errors.extend(spec.check().map_err(|e| at.mark(e)).err());
    let tests = DataTest::of_table(&spec.tests, spec.columns.iter().map(|(name, column)| (name.as_str(), column.tests.as_slice())));
    let tests = tests.unwrap_or_else(|wrong| {
        errors.extend(wrong.into_iter().map(|e| at.mark(e)));
        Vec::new()
    });
    if errors.len() > found {
        return None;
    }
    let table = TableName::new(Some(&spec.schema), file.stem());
    Some(Model {
        name: file.stem().to_owned(),
        sql: parts.sql.to_owned(),
        sql_line: parts.sql_line,
        table,
        reads: mentions.iter().map(|m| m.table.clone()).collect(),
        mentions,
        tests,
        at,
        hash: crate::sync::hash(&[&file.text, &defaults.map(|d| d.to_json().to_string()).unwrap_or_default()]),
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
        let parts = split("-- no front matter\nselect 1").unwrap();
        assert_eq!((parts.front, parts.sql_line), (None, 1));
        assert!(split("/*---\na: 1\nselect 1").is_none());
    }
}
