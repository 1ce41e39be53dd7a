//! Bringing tables into the shape that a load wants.

use arrow::datatypes::FieldRef;
use rusqlite::Connection;
use trib_core::contract::SchemaChange;
use trib_core::load::table_gone;
use trib_core::name::system;
use trib_core::{Code, Error, Result, Table, TableName, WriteMode};

use super::database::{At, Database, quoted, quoted_all};
use super::kind::{Kind, keeps_text};
use super::rebuild::{Edit, attached_objects, rebuild};
use super::table::{self, KeyIndex, describe, key_index};

/// The table's name in the file. SQLite has no schemas: `raw.orders` is the table `raw__orders`, and `main.orders` is `orders`.
pub fn physical(name: &TableName) -> String {
    match name.schema.as_deref() {
        None | Some("main") => name.name.clone(),
        Some(schema) => format!("{schema}__{}", name.name),
    }
}

/// The statement that makes the table.
pub fn create_table(table: &Table) -> Result<String> {
    let mut parts = Vec::new();
    let is_key = |name: &str| table.key.iter().any(|k| k == name);
    let has_unique_key = !table.key.is_empty() && !matches!(table.write, WriteMode::Append | WriteMode::History | WriteMode::Prune);
    let fields = table.schema.fields();
    let never_null = fields.iter().filter(|f| is_key(f.name())).all(|f| !f.is_nullable());
    for field in fields {
        let not_null = if has_unique_key && never_null && is_key(field.name()) { " NOT NULL" } else { "" };
        parts.push(format!("{} {}{not_null}", quoted(field.name()), Kind::of_field(field)?.declaration()));
    }
    if has_unique_key {
        // An INTEGER PRIMARY KEY would number the rows whose key is NULL.
        let constraint = if never_null { "PRIMARY KEY" } else { "UNIQUE" };
        parts.push(format!("{constraint} ({})", quoted_all(table.key.iter().map(String::as_str))));
    }
    Ok(format!("CREATE TABLE main.{} ({})", quoted(&physical(&table.name)), parts.join(", ")))
}

/// Applies the changes that are still to be made: another load may have made some of them.
pub fn apply(connection: &Connection, database: &Database, table: &Table, changes: &[SchemaChange]) -> Result<()> {
    let at = &database.path;
    let name = physical(&table.name);
    let mut edits = Vec::new();
    for change in changes {
        let existing = describe(connection, &name).at(at)?;
        match (change, existing) {
            (SchemaChange::CreateTable, None) => connection.execute_batch(&create_table(table)?).at(at)?,
            (SchemaChange::CreateTable, Some(_)) => {}
            (_, None) => return Err(table_gone(&table.name)),
            (SchemaChange::AddColumn { field }, Some(existing)) => {
                if existing.column(field.name()).is_none() {
                    add_column(connection, database, &name, field)?;
                }
            }
            (SchemaChange::WidenColumn { column, to, .. }, Some(existing)) => {
                let to = Kind::of_field(to)?;
                if existing.column(column).is_some_and(|c| c.declared != to.declaration()) {
                    edits.push(Edit::Widen { column: column.clone(), to });
                }
            }
            (SchemaChange::DropNotNull { column }, Some(existing)) => {
                if existing.column(column).is_some_and(|c| !existing.is_nullable(c)) {
                    edits.push(Edit::DropNotNull { column: column.clone() });
                }
            }
        }
    }
    if !edits.is_empty() {
        rebuild(connection, &name, &edits)?.at(at)?;
    }
    Ok(())
}

fn add_column(connection: &Connection, database: &Database, table: &str, field: &FieldRef) -> Result<()> {
    let declaration = Kind::of_field(field)?.declaration();
    connection
        .execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN {} {declaration}", quoted(table), quoted(field.name())))
        .at(&database.path)
}

/// Makes a replaced table anew when it does not have the shape that is wanted. Indexes and triggers that still fit are made again.
pub fn reshape(connection: &Connection, database: &Database, table: &Table) -> Result<()> {
    let at = &database.path;
    let name = physical(&table.name);
    let Some(existing) = describe(connection, &name).at(at)? else {
        return connection.execute_batch(&create_table(table)?).at(at);
    };
    let mut same = existing.columns.iter().filter(|c| !c.generated).count() == table.schema.fields().len();
    for field in table.schema.fields() {
        let wanted = Kind::of_field(field)?;
        same &= existing.column(field.name()).is_some_and(|c| {
            let holds = match (&wanted, Kind::of_declaration(&c.declared)) {
                (Kind::Text { .. }, Kind::Text { .. }) => keeps_text(&c.declared),
                (wanted, found) => *wanted == found,
            };
            holds && !c.generated && (existing.is_nullable(c) || !field.is_nullable())
        });
    }
    if same {
        return Ok(());
    }
    let kept = attached_objects(connection, &existing.name).at(at)?;
    connection.execute_batch(&format!("DROP TABLE main.{}; {}", quoted(&existing.name), create_table(table)?)).at(at)?;
    for sql in kept {
        if let Err(e) = connection.execute_batch(&sql) {
            tracing::warn!(table = name, sql, error = %e, "an index or trigger does not fit the replaced table and is gone");
        }
    }
    Ok(())
}

/// Refuses columns that would change what is written to them.
pub fn check_affinities(connection: &Connection, database: &Database, table: &Table) -> Result<()> {
    let name = physical(&table.name);
    let Some(existing) = describe(connection, &name).at(&database.path)? else {
        return Ok(());
    };
    for field in table.schema.fields() {
        let is_free_text = matches!(Kind::of_field(field)?, Kind::Text { .. } | Kind::Unsigned64 | Kind::Decimal { text: true, .. });
        if let Some(column) = existing.column(field.name())
            && is_free_text
            && !keeps_text(&column.declared)
        {
            return Err(Error::new(Code::Unsupported, "the table's column would make numbers of the text that is written to it")
                .detail(format!("{name}.{} is declared {}", column.name, column.declared))
                .hint("declare the column as TEXT, or load into another table"));
        }
    }
    Ok(())
}

/// Makes sure that the rows of a key can be found; returns how.
pub fn ensure_key_index(connection: &Connection, database: &Database, table: &Table) -> Result<KeyIndex> {
    let name = physical(&table.name);
    let at = &database.path;
    let Some(existing) = describe(connection, &name).at(at)? else {
        return Ok(KeyIndex::Missing);
    };
    if table.key.is_empty() {
        return Ok(KeyIndex::Missing);
    }
    let found = key_index(connection, &existing, &table.key).at(at)?;
    if found > KeyIndex::Missing {
        return Ok(found);
    }
    let columns = quoted_all(table.key.iter().map(String::as_str));
    let is_history = existing.column(system::VALID_TO).is_some();
    // One version of a row is current.
    let (suffix, unique, condition) = if is_history {
        ("_trib_current", "UNIQUE ", format!(" WHERE {} IS NULL", quoted(system::VALID_TO)))
    } else {
        ("_trib_key", "", String::new())
    };
    let index = quoted(&format!("{name}{suffix}"));
    let sql = format!("CREATE {unique}INDEX IF NOT EXISTS main.{index} ON {} ({columns}){condition}", quoted(&name));
    connection.execute_batch(&sql).at(at)?;
    Ok(KeyIndex::Plain)
}

/// The table is a history: rows have a time until which they held.
pub fn is_history(connection: &Connection, database: &Database, table: &TableName) -> Result<bool> {
    let existing = describe(connection, &physical(table)).at(&database.path)?;
    Ok(existing.is_some_and(|t: table::Table| t.column(system::VALID_TO).is_some()))
}
