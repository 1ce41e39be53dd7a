//! In which connection the tables lie that a model reads.

use trib_core::TableName;

use crate::graph::writes;
use crate::project::Project;
use crate::sql_tables::Mention;

impl Project {
    /// Where a query that is made in `home` finds a table: `None` at home, otherwise the connection and the table's name there.
    ///
    /// A name of three parts says it itself. What a sync, command, model or seed makes at home comes before what a model or seed makes elsewhere, and that before
    /// `connection.stream`.
    pub fn elsewhere(&self, home: &str, connection: Option<&str>, table: &TableName) -> Option<(String, TableName)> {
        if let Some(connection) = connection {
            return (connection != home).then(|| (connection.to_owned(), table.clone()));
        }
        let name = table.to_string();
        if self.syncs.iter().any(|s| s.spec.to == home && writes(s, &name)) || self.commands.iter().any(|c| c.makes(home, table)) {
            return None;
        }
        let models = self.models.iter().filter(|m| m.is_called(table)).map(|m| (&m.spec.connection, &m.table));
        let seeds = self.seeds.iter().filter(|s| s.is_called(table)).map(|s| (&s.connection, &s.table));
        let made: Vec<_> = models.chain(seeds).collect();
        if made.iter().any(|(connection, _)| *connection == home) {
            return None;
        }
        if let Some((connection, table)) = made.first() {
            return Some(((*connection).clone(), (*table).clone()));
        }
        let named = table.schema.as_ref().filter(|s| *s != home && self.connections.contains_key(*s))?;
        Some((named.clone(), TableName::new(None, &table.name)))
    }

    /// Sorts what each model reads by where it lies.
    pub(crate) fn place_reads(&mut self) {
        for i in 0..self.models.len() {
            let model = &self.models[i];
            let place = |m: &Mention| self.elsewhere(&model.spec.connection, m.connection.as_deref(), &m.table);
            let elsewhere = model.mentions.iter().filter_map(place).collect();
            let reads = model.mentions.iter().filter(|m| place(m).is_none()).map(|m| m.table.clone()).collect();
            let model = &mut self.models[i];
            (model.elsewhere, model.reads) = (elsewhere, reads);
        }
    }
}
