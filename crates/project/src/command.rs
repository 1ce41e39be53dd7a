//! A command: a program of somebody else's that is a node of the project.

use trib_core::{Code, Error, Result, TableName};

use crate::config::command::{CommandSpec, RunLine};
use crate::interpolate::Missing;
use crate::pattern::Pattern;
use crate::place::At;
use crate::yaml::Node;

pub struct Command {
    pub name: String,
    pub spec: CommandSpec,
    /// What it is told that came out of variables, and must not be shown.
    pub secrets: Vec<String>,
    pub at: At,
    /// Of the file as it is written.
    pub hash: String,
    pub(crate) writes: Vec<Pattern>,
    pub(crate) missing: Vec<Missing>,
}

impl Command {
    /// `raw` is the file as it is written, `filled` the same with its variables filled in.
    pub(crate) fn of(name: &str, spec: CommandSpec, (raw, filled): (&Node, &Node), hash: String, missing: Vec<Missing>) -> Result<Self> {
        let empty = match &spec.run {
            RunLine::Shell(line) => line.trim().is_empty(),
            RunLine::Program(words) => words.first().is_none_or(String::is_empty),
        };
        if empty {
            let error = Error::new(Code::ConfigInvalid, "the command runs nothing").setting("run");
            return Err(filled.place(&["run"]).mark(error.hint("such as `run: [dbt, build]`")));
        }
        let pattern = |text: &String| Pattern::new(text).map_err(|e| filled.place(&["writes"]).mark(e.setting("writes")));
        let writes = spec.writes.iter().map(pattern).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), secrets: from_variables(raw, filled), at: filled.at.clone(), hash, writes, missing, spec })
    }

    /// An error when a variable that the command uses has no value.
    pub fn ready(&self) -> Result<()> {
        self.missing.first().map_or(Ok(()), |missing| Err(missing.error()))
    }

    /// Whether it says that it writes a table of this name, in the connection that it names.
    pub fn makes(&self, connection: &str, table: &TableName) -> bool {
        let name = table.to_string();
        self.spec.connection == connection && self.writes.iter().any(|p| p.takes(&name))
    }
}

/// Texts that are others once variables are filled in.
fn from_variables(raw: &Node, filled: &Node) -> Vec<String> {
    use crate::yaml::Content::{List, Map, Text};
    match (&raw.content, &filled.content) {
        (Text(written), Text(text)) if written != text => vec![text.clone()],
        (List(written), List(items)) => written.iter().zip(items).flat_map(|(raw, filled)| from_variables(raw, filled)).collect(),
        (Map(written), Map(entries)) => {
            written.iter().zip(entries).flat_map(|(raw, filled)| from_variables(&raw.value, &filled.value)).collect()
        }
        _ => Vec::new(),
    }
}
