//! A seed: a small CSV file of the project that becomes a table.

use trib_core::TableName;

use crate::config::model::ModelDefaults;
use crate::files::Text;
use crate::place::At;
use crate::sync::hash;

pub struct Seed {
    pub name: String,
    /// Relative to the project.
    pub file: String,
    /// Where the table is made.
    pub connection: String,
    /// The table, as models name it.
    pub table: TableName,
    pub at: At,
    /// Of the file.
    pub hash: String,
}

impl Seed {
    /// Seeds go where models go unless they say otherwise.
    pub(crate) fn of(file: &Text, defaults: &ModelDefaults) -> Self {
        let schema = defaults.schema.as_deref().unwrap_or("analytics");
        Self {
            name: file.stem().to_owned(),
            file: file.name.clone(),
            connection: defaults.connection.clone().unwrap_or_else(|| "warehouse".to_owned()),
            table: TableName::new(Some(schema), file.stem()),
            at: At::start_of(&file.name),
            hash: hash(&[&file.text]),
        }
    }

    /// Whether a query that reads a table of this name means this seed.
    pub fn is_called(&self, name: &TableName) -> bool {
        self.table == *name || name.schema.is_none() && self.name == name.name
    }
}
