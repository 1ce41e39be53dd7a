//! What may happen when a source's schema is not what the table has.

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::destination::ExistingTable;
use crate::error::{Code, Error, Result};
use crate::logical::FieldExt;
use crate::name::system;
use crate::relation::{Relation, relate};

/// The answer to each kind of change. Defaults are the ones that lose nothing and stop nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Contract {
    /// A stream appears at the source that the sync's patterns would take.
    pub new_streams: NewStreams,
    /// A column appears at the source.
    pub new_columns: NewColumns,
    /// A column of the table is no longer at the source.
    pub dropped_columns: DroppedColumns,
    /// A column's type is no longer the table's.
    pub type_changes: TypeChanges,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            new_streams: NewStreams::Evolve,
            new_columns: NewColumns::Evolve,
            dropped_columns: DroppedColumns::Keep,
            type_changes: TypeChanges::Evolve,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewStreams {
    Evolve,
    Ignore,
    Freeze,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewColumns {
    /// The table gets the column.
    Evolve,
    /// The load fails.
    Freeze,
    /// The column is left out.
    DiscardValue,
    /// Rows that have a value in it are rejected.
    RejectRow,
    /// The column is left out, as with `discard_value`.
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DroppedColumns {
    /// The column stays, and is NULL in new rows.
    Keep,
    /// The load fails.
    Freeze,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TypeChanges {
    /// The column is widened where that keeps every value; otherwise a second column takes the new type.
    Evolve,
    /// The load fails.
    Freeze,
    /// Values that do not fit become NULL.
    DiscardValue,
    /// Rows with values that do not fit are rejected.
    RejectRow,
}

/// One change to a table, as it is planned, done, recorded and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum SchemaChange {
    CreateTable,
    AddColumn {
        field: FieldRef,
    },
    /// Only ever to a type that holds every value of the old one.
    WidenColumn {
        column: String,
        from: DataType,
        to: FieldRef,
    },
    /// The column may now be NULL.
    DropNotNull {
        column: String,
    },
}

/// What becomes of a column's incoming values.
#[derive(Clone, Debug, PartialEq)]
pub enum Landing {
    /// Cast to the table's type, which holds each of them; a failure would be a mistake of ours.
    Exact,
    /// Cast; what does not fit becomes NULL.
    NullUnfit,
    /// Cast; rows with what does not fit are rejected.
    RejectUnfit,
    /// Left out, without a column.
    Discard,
    /// Left out; rows that have a value in it are rejected.
    RejectPresent,
}

/// How an incoming schema meets an existing table.
#[derive(Clone, Debug, PartialEq)]
pub struct Meeting {
    /// The table's schema after the changes: existing columns first, in their order.
    pub schema: SchemaRef,
    pub changes: Vec<SchemaChange>,
    /// For each incoming column: the table's column that it lands in, and how.
    pub landings: Vec<(String, Landing)>,
    /// For people: what was noticed and what it leads to.
    pub notes: Vec<String>,
}

/// Decides what to do with `incoming` (conformed names, system columns included) under `contract`.
///
/// `native` names the type that the destination would give a field; two fields of one native type are
/// one type, whatever Arrow says.
pub fn meet(
    existing: Option<&ExistingTable>,
    incoming: &Schema,
    contract: &Contract,
    native: impl Fn(&Field) -> Result<String>,
) -> Result<Meeting> {
    let Some(existing) = existing else {
        return Ok(Meeting {
            schema: Arc::new(incoming.clone()),
            changes: vec![SchemaChange::CreateTable],
            landings: incoming.fields().iter().map(|f| (f.name().clone(), Landing::Exact)).collect(),
            notes: Vec::new(),
        });
    };
    let mut columns: Vec<FieldRef> = existing.columns.iter().map(|c| c.field.clone()).collect();
    let mut changes = Vec::new();
    let mut landings = Vec::new();
    let mut notes = Vec::new();

    for field in incoming.fields() {
        let name = field.name();
        let Some(at) = columns.iter().position(|c| c.name() == name) else {
            let landing =
                if name.starts_with(system::PREFIX) { Landing::Exact } else { new_column(field, contract.new_columns, &mut notes)? };
            if landing == Landing::Exact {
                // Rows that are there already have no value for it.
                let added: FieldRef = Arc::new(field.as_ref().clone().with_nullable(true));
                columns.push(added.clone());
                changes.push(SchemaChange::AddColumn { field: added });
            }
            landings.push((name.clone(), landing));
            continue;
        };
        let column = &columns[at];
        if field.is_nullable() && !column.is_nullable() {
            changes.push(SchemaChange::DropNotNull { column: name.clone() });
            columns[at] = Arc::new(column.as_ref().clone().with_nullable(true));
        }
        let column = columns[at].clone();
        if existing.columns[at].native == native(field)? {
            // The same type there; keep the incoming Arrow type, which the destination stores as it is.
            columns[at] = Arc::new(field.as_ref().clone().with_nullable(column.is_nullable()));
            landings.push((name.clone(), Landing::Exact));
            continue;
        }
        let relation = relate(&column, field);
        let unfit = |notes: &mut Vec<String>, what: &str| {
            notes.push(format!("column {name} is {} in the table and {} at the source: {what}", column.data_type(), field.data_type()));
        };
        match (relation, contract.type_changes) {
            (Relation::Same | Relation::Fits, _) => landings.push((name.clone(), Landing::Exact)),
            (_, TypeChanges::Freeze) => {
                return Err(broken("a column's type has changed and the contract freezes it")
                    .detail(format!("{name}: {} in the table, {} at the source", column.data_type(), field.data_type()))
                    .hint("allow it with `contract: {type_changes: evolve}`, or fix the type with `columns: {… cast: …}`"));
            }
            (Relation::Widens(wide), TypeChanges::Evolve) => {
                let to: FieldRef = Arc::new(Field::new(name, wide, column.is_nullable()));
                notes.push(format!("column {name} is widened from {} to {}", column.data_type(), to.data_type()));
                changes.push(SchemaChange::WidenColumn { column: name.clone(), from: column.data_type().clone(), to: to.clone() });
                columns[at] = to;
                landings.push((name.clone(), Landing::Exact));
            }
            (Relation::Clashes, TypeChanges::Evolve) if is_text(column.data_type()) && has_text_form(field.data_type()) => {
                unfit(&mut notes, "stored as text");
                landings.push((name.clone(), Landing::Exact));
            }
            (Relation::Clashes, TypeChanges::Evolve) => {
                let variant = variant_name(name, field.data_type());
                unfit(&mut notes, &format!("values go to the column {variant}"));
                if !columns.iter().any(|c| c.name() == &variant) {
                    let added: FieldRef = Arc::new(field.as_ref().clone().with_name(&variant).with_nullable(true));
                    columns.push(added.clone());
                    changes.push(SchemaChange::AddColumn { field: added });
                }
                landings.push((variant, Landing::Exact));
            }
            (_, TypeChanges::DiscardValue) => {
                unfit(&mut notes, "values that do not fit become NULL");
                landings.push((name.clone(), Landing::NullUnfit));
            }
            (_, TypeChanges::RejectRow) => {
                unfit(&mut notes, "rows with values that do not fit are rejected");
                landings.push((name.clone(), Landing::RejectUnfit));
            }
        }
    }

    let gone: Vec<String> = columns
        .iter()
        .map(|c| c.name().clone())
        .filter(|name| {
            !name.starts_with(system::PREFIX)
                && incoming.field_with_name(name).is_err()
                && !landings.iter().any(|(landed, _)| landed == name)
        })
        .collect();
    if !gone.is_empty() && contract.dropped_columns == DroppedColumns::Freeze {
        return Err(broken("columns are gone at the source and the contract freezes them")
            .detail(gone.join(", "))
            .hint("allow it with `contract: {dropped_columns: keep}`"));
    }
    for name in gone {
        // A variant column of an earlier clash is not a column that the source has dropped.
        if !name.contains("__v_") {
            notes.push(format!("column {name} is gone at the source: kept, and NULL in new rows"));
        }
        if let Some(at) = columns.iter().position(|c| c.name() == &name && !c.is_nullable()) {
            changes.push(SchemaChange::DropNotNull { column: name.clone() });
            columns[at] = Arc::new(columns[at].as_ref().clone().with_nullable(true));
        }
    }
    Ok(Meeting { schema: Arc::new(Schema::new(columns)), changes, landings, notes })
}

fn new_column(field: &Field, rule: NewColumns, notes: &mut Vec<String>) -> Result<Landing> {
    let name = field.name();
    let (landing, what) = match rule {
        NewColumns::Evolve => (Landing::Exact, "added to the table"),
        NewColumns::DiscardValue | NewColumns::Ignore => (Landing::Discard, "left out"),
        NewColumns::RejectRow => (Landing::RejectPresent, "rows that have a value in it are rejected"),
        NewColumns::Freeze => {
            return Err(broken("the source has a new column and the contract freezes them")
                .detail(format!("{name} ({})", field.data_type()))
                .hint("allow it with `contract: {new_columns: evolve}`, or leave it out with `select:`"));
        }
    };
    notes.push(format!("column {name} ({}) is new at the source: {what}", field.data_type()));
    Ok(landing)
}

fn broken(message: &'static str) -> Error {
    Error::new(Code::ContractBroken, message)
}

/// Whether a column holds what did not fit into another one.
pub fn is_variant(column: &str, of: &str) -> bool {
    column.strip_prefix(of).is_some_and(|rest| rest.starts_with("__v_"))
}

/// `amount` with text in it becomes `amount__v_text`.
fn variant_name(column: &str, t: &DataType) -> String {
    let kind = match t {
        _ if is_text(t) => "text",
        _ if t.is_integer() => "integer",
        _ if t.is_floating() => "double",
        DataType::Boolean => "boolean",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "decimal",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) | DataType::Map(..) => "json",
        _ => "other",
    };
    format!("{column}__v_{kind}")
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Types whose text says the value exactly.
fn has_text_form(t: &DataType) -> bool {
    t.is_integer()
        || matches!(
            t,
            DataType::Boolean
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Time32(_)
                | DataType::Time64(_)
        )
}

/// A one-line description for plans and logs.
impl std::fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SchemaChange::CreateTable => write!(f, "create the table"),
            SchemaChange::AddColumn { field } => match field.lossy() {
                Some(why) => write!(f, "add column {} {} ({why})", field.name(), field.data_type()),
                None => write!(f, "add column {} {}", field.name(), field.data_type()),
            },
            SchemaChange::WidenColumn { column, from, to } => write!(f, "widen column {column} from {from} to {}", to.data_type()),
            SchemaChange::DropNotNull { column } => write!(f, "let column {column} be NULL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::ExistingColumn;

    fn table(columns: &[(&str, DataType)]) -> ExistingTable {
        let columns = columns
            .iter()
            .map(|(name, t)| ExistingColumn { field: Arc::new(Field::new(*name, t.clone(), true)), native: t.to_string() })
            .collect();
        ExistingTable { columns, key: Vec::new() }
    }

    fn incoming(columns: &[(&str, DataType)]) -> Schema {
        Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>())
    }

    fn native(field: &Field) -> Result<String> {
        Ok(field.data_type().to_string())
    }

    #[test]
    fn new_and_dropped_columns_evolve() {
        let existing = table(&[("id", DataType::Int64), ("old", DataType::Utf8)]);
        let m =
            meet(Some(&existing), &incoming(&[("id", DataType::Int64), ("new", DataType::Utf8)]), &Contract::default(), native).unwrap();
        assert_eq!(m.schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["id", "old", "new"]);
        assert_eq!(m.changes.len(), 1);
        assert_eq!(m.notes.len(), 2);
    }

    #[test]
    fn types_widen_or_get_a_variant() {
        let existing = table(&[("a", DataType::Int32), ("b", DataType::Int64)]);
        let m = meet(Some(&existing), &incoming(&[("a", DataType::Int64), ("b", DataType::Utf8)]), &Contract::default(), native).unwrap();
        assert_eq!(m.landings, [("a".into(), Landing::Exact), ("b__v_text".into(), Landing::Exact)]);
        assert!(matches!(&m.changes[0], SchemaChange::WidenColumn { to, .. } if *to.data_type() == DataType::Int64));
        // The next run finds the variant column and changes nothing more.
        let existing = table(&[("a", DataType::Int64), ("b", DataType::Int64), ("b__v_text", DataType::Utf8)]);
        let m = meet(Some(&existing), &incoming(&[("a", DataType::Int64), ("b", DataType::Utf8)]), &Contract::default(), native).unwrap();
        assert!(m.changes.is_empty());
    }

    #[test]
    fn narrower_values_are_cast() {
        let existing = table(&[("a", DataType::Int64)]);
        let m = meet(Some(&existing), &incoming(&[("a", DataType::Int16)]), &Contract::default(), native).unwrap();
        assert!(m.changes.is_empty());
        assert_eq!(*m.schema.field(0).data_type(), DataType::Int64);
    }

    #[test]
    fn frozen_contracts_fail() {
        let existing = table(&[("a", DataType::Int32)]);
        let contract = Contract {
            new_columns: NewColumns::Freeze,
            dropped_columns: DroppedColumns::Freeze,
            type_changes: TypeChanges::Freeze,
            ..Contract::default()
        };
        for schema in [incoming(&[("a", DataType::Utf8)]), incoming(&[("a", DataType::Int32), ("b", DataType::Utf8)]), incoming(&[])] {
            assert_eq!(meet(Some(&existing), &schema, &contract, native).unwrap_err().code(), Code::ContractBroken);
        }
    }
}
