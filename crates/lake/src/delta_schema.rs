//! The schema of a table: how it is written into the log, and how it changes with a load.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde_json::{Map, Value, json};
use trib_core::contract::SchemaChange;
use trib_core::relation::{Relation, relate};
use trib_core::{Code, Error, Result};

use crate::delta_type;

/// The stored columns of what a load wants.
pub fn stored(schema: &Schema) -> Result<SchemaRef> {
    let fields: Result<Vec<Field>> = schema.fields().iter().map(|f| delta_type::stored(f)).collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// The schema as the log's `schemaString`.
pub fn to_json(schema: &Schema) -> String {
    json!({"type": "struct", "fields": fields_json(schema.fields())}).to_string()
}

fn fields_json<'a>(fields: impl IntoIterator<Item = &'a FieldRef>) -> Vec<Value> {
    let field = |f: &FieldRef| {
        let metadata: Map<String, Value> = f.metadata().iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        json!({"name": f.name(), "type": type_json(f.data_type()), "nullable": f.is_nullable(), "metadata": metadata})
    };
    fields.into_iter().map(field).collect()
}

fn type_json(t: &DataType) -> Value {
    match t {
        DataType::List(f) => json!({"type": "array", "elementType": type_json(f.data_type()), "containsNull": f.is_nullable()}),
        DataType::Struct(fields) => json!({"type": "struct", "fields": fields_json(fields)}),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => json!({
                "type": "map",
                "keyType": type_json(pair[0].data_type()),
                "valueType": type_json(pair[1].data_type()),
                "valueContainsNull": pair[1].is_nullable(),
            }),
            _ => json!("string"),
        },
        simple => json!(delta_type::name(simple)),
    }
}

/// Whether a column holds times without a zone, for which the table needs a feature.
pub fn has_timestamp_ntz(schema: &Schema) -> bool {
    fn within(t: &DataType) -> bool {
        match t {
            DataType::Timestamp(_, None) => true,
            DataType::List(f) | DataType::Map(f, _) => within(f.data_type()),
            DataType::Struct(fields) => fields.iter().any(|f| within(f.data_type())),
            _ => false,
        }
    }
    schema.fields().iter().any(|f| within(f.data_type()))
}

/// A table's schema after a load.
#[derive(Clone, Debug)]
pub struct Evolved {
    pub schema: SchemaRef,
    /// The log needs a new metadata entry.
    pub changed: bool,
    /// Files that are there hold a narrower type and must be written again.
    pub widened: bool,
}

/// Brings a table's columns together with those that a load wants. Columns that the load does not know stay.
///
/// A type may only change where the load's plan says so, since the table may have changed after the plan was made.
pub fn evolve(existing: &SchemaRef, wanted: &Schema, changes: &[SchemaChange]) -> Result<Evolved> {
    let planned: BTreeSet<&str> = changes
        .iter()
        .filter_map(|c| match c {
            SchemaChange::WidenColumn { column, .. } => Some(column.as_str()),
            _ => None,
        })
        .collect();
    let mut evolved = Evolved { schema: existing.clone(), changed: false, widened: false };
    let mut fields: Vec<FieldRef> = existing.fields().iter().cloned().collect();
    for want in wanted.fields() {
        let Some(at) = fields.iter().position(|f| f.name() == want.name()) else {
            fields.push(Arc::new(want.as_ref().clone().with_nullable(true)));
            evolved.changed = true;
            continue;
        };
        let have = fields[at].clone();
        let nullable = have.is_nullable() || want.is_nullable();
        if nullable != have.is_nullable() {
            fields[at] = Arc::new(have.as_ref().clone().with_nullable(true));
            evolved.changed = true;
        }
        if delta_type::native(&have) == delta_type::native(want) {
            continue;
        }
        // Bring only data types together: annotations do not matter to what can be held.
        let bare = |f: &Field| Field::new(f.name(), f.data_type().clone(), true);
        match relate(&bare(want), &bare(&have)) {
            Relation::Fits if planned.contains(want.name().as_str()) => {
                fields[at] = Arc::new(want.as_ref().clone().with_nullable(nullable));
                evolved.changed = true;
                evolved.widened = true;
            }
            _ => {
                return Err(Error::new(Code::ContractBroken, "the table has changed since the load was planned")
                    .detail(format!("column {} is {} now", have.name(), delta_type::native(&have)))
                    .hint("run the sync again: it plans anew"));
            }
        }
    }
    evolved.schema = Arc::new(Schema::new(fields));
    Ok(evolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>()))
    }

    #[test]
    fn columns_are_added_widened_and_loosened() {
        let have = schema(&[("a", DataType::Int32, false), ("b", DataType::Utf8, true)]);
        let want = schema(&[("a", DataType::Int64, true), ("c", DataType::Boolean, false)]);
        let widen =
            SchemaChange::WidenColumn { column: "a".into(), from: DataType::Int32, to: Arc::new(Field::new("a", DataType::Int64, true)) };
        let evolved = evolve(&have, &want, &[widen]).unwrap();
        assert_eq!(evolved.schema, schema(&[("a", DataType::Int64, true), ("b", DataType::Utf8, true), ("c", DataType::Boolean, true)]));
        assert!(evolved.changed && evolved.widened);
        // The same once more changes nothing.
        let again = evolve(&evolved.schema, &want, &[]).unwrap();
        assert!(!again.changed && !again.widened);
    }

    #[test]
    fn an_unplanned_change_is_refused() {
        let have = schema(&[("a", DataType::Int32, true)]);
        assert!(evolve(&have, &schema(&[("a", DataType::Int64, true)]), &[]).is_err());
        assert!(evolve(&schema(&[("a", DataType::Int64, true)]), &have, &[]).is_err());
    }
}
