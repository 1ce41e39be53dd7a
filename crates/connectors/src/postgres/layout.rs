//! How a load's table stands in its staging table, and what only the commit adds.
//!
//! Which load brought a row, and when, is the same for all rows of a load. Those columns are neither sent nor stored in a staging table:
//! the commit adds them, by a constant in its `SELECT` or as a column whose default PostgreSQL keeps in the catalog.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trib_core::logical::FieldExt;
use trib_core::name::{system, truncate};
use trib_core::{Load, Part, Result, Table, TableName, WriteMode};
use trib_kit::sql::{ANSI, literal};

use super::catalog::STAGING_PREFIX;
use super::column_type::{column_type, staged_for};
use super::encode::Target;
use super::pg_type::{DIALECT, PgType};

pub const MAX_IDENTIFIER: usize = 63;
pub const DEFAULT_SCHEMA: &str = "public";

/// A table's place in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    pub schema: String,
    pub name: String,
}

impl Place {
    pub fn of(name: &TableName) -> Self {
        Self { schema: name.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()), name: name.name.clone() }
    }

    /// The staging table of a load's table. One for all its parts.
    pub fn staging(part: &Part, table: &TableName) -> Self {
        let target = Self::of(table);
        let short = |text: &str| {
            let digest = Sha256::digest(text.as_bytes());
            format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
        };
        let name = format!("{STAGING_PREFIX}{}_{}_{}", short(&part.sync), part.load, short(&target.name));
        Self { schema: target.schema, name: truncate(&name, MAX_IDENTIFIER) }
    }

    pub fn sql(&self) -> String {
        format!("{}.{}", ANSI.identifier(&self.schema), ANSI.identifier(&self.name))
    }
}

/// A column of the table that readers see.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub nullable: bool,
    pub filled: Filled,
}

#[derive(Clone, Debug)]
pub enum Filled {
    /// From the staged rows: the type there, and the one that the column is to have.
    Staged { staged: PgType, wanted: PgType },
    /// By the commit, with an SQL expression of this type.
    ByCommit { wanted: PgType },
}

/// The columns of a table, in staging and afterwards.
#[derive(Clone, Debug)]
pub struct Layout {
    pub columns: Vec<Column>,
    /// Columns of the staging table only: sequence and operation.
    pub extra: Vec<Column>,
    /// Columns that identify a row; the scope's is one of them.
    pub key: Vec<String>,
}

/// What the commit fills in.
const CONSTANT: [&str; 5] = [system::LOAD_ID, system::LOADED_AT, system::DELETED_AT, system::VALID_FROM, system::VALID_TO];

impl Layout {
    pub fn of(table: &Table) -> Result<Self> {
        // Appended rows are matched with nothing.
        let mut key = if table.write == WriteMode::Append { Vec::new() } else { table.key.clone() };
        if let (Some(scope), false) = (&table.scope, key.is_empty()) {
            // Two sources may use the same keys.
            if scope.value().is_some() && !key.contains(&scope.column) {
                key.push(scope.column.clone());
            }
        }
        let wanted = |field: &Field| -> Result<PgType> { Ok(PgType::parse(&column_type(field)?.native)) };
        let staged = |field: &Field, nullable: bool| -> Result<Column> {
            let wanted = wanted(field)?;
            let staged = staged_for(&wanted, field.data_type());
            Ok(Column { name: field.name().clone(), nullable, filled: Filled::Staged { staged, wanted } })
        };
        let mut columns = Vec::new();
        for field in table.schema.fields() {
            let nullable = field.is_nullable() && !key.contains(field.name());
            columns.push(if CONSTANT.contains(&field.name().as_str()) {
                Column { name: field.name().clone(), nullable, filled: Filled::ByCommit { wanted: wanted(field)? } }
            } else {
                staged(field, nullable || table.changes)?
            });
        }
        let extra = table
            .staging_schema()
            .fields()
            .iter()
            .filter(|f| [system::SEQ, system::OP].contains(&f.name().as_str()))
            .map(|f| staged(f, false))
            .collect::<Result<_>>()?;
        Ok(Self { columns, extra, key })
    }

    pub fn staged(&self) -> impl Iterator<Item = (&Column, &PgType)> {
        self.columns.iter().chain(&self.extra).filter_map(|column| match &column.filled {
            Filled::Staged { staged, .. } => Some((column, staged)),
            Filled::ByCommit { .. } => None,
        })
    }

    pub fn has_extra(&self, name: &str) -> bool {
        self.extra.iter().any(|c| c.name == name)
    }

    /// The staged columns as the encoder wants them, and where each stands in the batches.
    pub fn targets(&self, table: &Table) -> Result<(Vec<Target>, Vec<usize>)> {
        let schema = table.staging_schema();
        let mut targets = Vec::new();
        let mut places = Vec::new();
        for (column, t) in self.staged() {
            let at = schema.index_of(&column.name)?;
            let from_postgres = schema.field(at).native(DIALECT).is_some_and(|native| native.starts_with("json"));
            places.push(at);
            targets.push(Target {
                name: column.name.clone(),
                t: t.clone(),
                // Changes may be barriers, which have no key.
                required: self.key.contains(&column.name) && !table.changes,
                check_json: !from_postgres,
            });
        }
        Ok((targets, places))
    }

    /// Whether the staged columns have the types that they had in the PostgreSQL which they come from, so that its rows can be staged as they are.
    pub fn takes_wire(&self, table: &Table) -> bool {
        let native = |name: &str| table.schema.field_with_name(name).ok().and_then(|field| field.native(DIALECT));
        self.extra.is_empty() && self.staged().all(|(column, t)| native(&column.name) == Some(t.name.as_str()))
    }

    /// Autovacuum would hold locks on a table that is gone in a moment.
    pub fn create_staging(&self, place: &Place) -> String {
        let columns: Vec<String> = self
            .staged()
            .map(|(c, t)| format!("{} {}{}", ANSI.identifier(&c.name), t.name, if c.nullable { "" } else { " NOT NULL" }))
            .collect();
        format!(
            "CREATE TABLE IF NOT EXISTS {} ({}) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)",
            place.sql(),
            columns.join(", ")
        )
    }

    pub fn create_table(&self, place: &Place) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} {}{}", ANSI.identifier(&c.name), c.wanted().name, if c.nullable { "" } else { " NOT NULL" }))
            .collect();
        format!("CREATE TABLE {} ({})", place.sql(), columns.join(", "))
    }

    /// Whether the staging table can become the table: what the commit adds can only be added at the end.
    pub fn can_become_table(&self) -> bool {
        let staged = |c: &Column| matches!(c.filled, Filled::Staged { .. });
        let last = self.columns.iter().rposition(staged);
        self.columns.iter().position(|c| !staged(c)).is_none_or(|first| last.is_none_or(|last| first > last))
    }
}

impl Column {
    pub fn wanted(&self) -> &PgType {
        match &self.filled {
            Filled::Staged { wanted, .. } | Filled::ByCommit { wanted } => wanted,
        }
    }
}

/// The value of a column that the commit fills in, as SQL.
pub fn constant(column: &str, load: &Load) -> String {
    match column {
        system::LOAD_ID => literal(&load.id.0),
        system::LOADED_AT | system::VALID_FROM => loaded_at(load),
        _ => "NULL".to_owned(),
    }
}

pub fn loaded_at(load: &Load) -> String {
    format!("{}::timestamptz", literal(&load.loaded_at.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()))
}
