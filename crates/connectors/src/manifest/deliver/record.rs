//! Rows as records of an API.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, RecordBatch, StringArray};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use trib_core::delivery::{LookUps, Operation, column};
use trib_core::name::system;
use trib_core::{Error, Result};
use trib_kit::json::records;

use super::super::dpath;
use super::super::env::Env;
use super::super::template::Scope;
use super::object::{ApiOperation, Fields, Forms};

/// One row of a delivery.
pub(super) struct Record {
    /// Its place among all rows of the load.
    pub(super) row: u64,
    pub(super) operation: Operation,
    /// In the words of [`trib_core::delivery::Change`].
    pub(super) change: String,
    /// Values as JSON text, so that no digit of a number is lost.
    pub(super) fields: Vec<(String, Box<RawValue>)>,
    /// Fields that differ from what was delivered; `None` for a new record.
    pub(super) changed: Option<Vec<String>>,
    pub(super) id: Option<String>,
    /// What has to be asked before it is sent.
    pub(super) look_ups: Option<Arc<LookUps>>,
}

/// Stands in a body for text that is put there unparsed. Nobody who writes data can guess it.
pub(super) static PLACE: LazyLock<String> = LazyLock::new(|| format!("trib-verbatim-{}", uuid::Uuid::new_v4()));

/// The records of a batch, whose first row has this place.
pub(super) fn of_batch(batch: &RecordBatch, first: u64) -> Result<Vec<Record>> {
    let text = |name: &str| -> Option<StringArray> {
        let column = batch.column_by_name(name)?;
        column.as_any().downcast_ref::<StringArray>().cloned()
    };
    let get = |array: &Option<StringArray>, row: usize| {
        array.as_ref().filter(|a| row < a.len() && a.is_valid(row)).map(|a| a.value(row).to_owned())
    };
    let [operations, changes, changed, ids] = [column::OPERATION, column::CHANGE, column::CHANGED, column::REMOTE_ID].map(text);
    // The same for all rows of a delivery.
    let look_ups = get(&text(column::LOOK_UPS), 0).map(|json| serde_json::from_str(&json)).transpose()?.map(Arc::new);
    let mut made = Vec::with_capacity(batch.num_rows());
    records(&only_fields(batch)?, |row, json| {
        let fields: Fieldwise = serde_json::from_slice(json)?;
        let operation = get(&operations, row).as_deref().and_then(Operation::of);
        made.push(Record {
            row: first + row as u64,
            operation: operation.ok_or_else(|| Error::internal("a row of a delivery does not say what it is"))?,
            change: get(&changes, row).unwrap_or_default(),
            fields: fields.0,
            changed: get(&changed, row).map(|names| names.split(',').map(str::to_owned).collect()),
            id: get(&ids, row),
            look_ups: look_ups.clone(),
        });
        Ok(())
    })?;
    Ok(made)
}

/// The batch without what is ours.
pub(super) fn only_fields(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let ours = |name: &str| column::ALL.contains(&name) || name.starts_with(system::PREFIX);
    let kept: Vec<usize> = (0..batch.num_columns()).filter(|i| !ours(schema.field(*i).name())).collect();
    Ok(batch.project(&kept)?)
}

impl Record {
    /// One that says nothing, for requests that only their form matters of.
    pub(super) fn empty(operation: Operation) -> Self {
        Self { row: 0, operation, change: String::new(), fields: Vec::new(), changed: None, id: None, look_ups: None }
    }

    /// For a request that is only shown: words in place of what nobody has looked up.
    pub(super) fn stand_for_parents(&mut self) -> Result<()> {
        let Some(look_ups) = self.look_ups.clone() else { return Ok(()) };
        for (name, raw) in self.fields.iter_mut().filter(|(_, raw)| raw.get() != "null") {
            if let Some(parent) = look_ups.parents.get(name) {
                let words = format!("(what the API calls the {} {})", parent.object, raw.get().trim_matches('"'));
                *raw = RawValue::from_string(Value::from(words).to_string())?;
            }
        }
        Ok(())
    }

    /// As templates see it: numbers as near as JSON's own get.
    pub(super) fn value(&self) -> Value {
        let parsed = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        Value::Object(self.fields.iter().map(|(name, raw)| (name.clone(), parsed(raw))).collect::<Map<_, _>>())
    }

    /// The JSON text that the operation sends for the record.
    pub(super) fn shaped(&self, operation: &ApiOperation, names: &Names, scope: &Scope<'_>) -> Result<String> {
        let fields = self.sent_fields(operation, names);
        let own = match operation.with.eval(scope)? {
            Value::Object(own) => own,
            _ => Map::new(),
        };
        if !operation.fields_into.is_empty() {
            let mut value = Value::Object(own);
            dpath::set(&mut value, &operation.fields_into, Value::from(PLACE.as_str()));
            return Ok(serde_json::to_string(&value)?.replace(&format!("\"{}\"", *PLACE), &object(&fields)));
        }
        let own: Vec<(String, String)> = own.into_iter().map(|(name, value)| (name, value.to_string())).collect();
        Ok(object(&[own, fields].concat()))
    }

    /// Names with their JSON text, as they stand in a body.
    pub(super) fn sent_fields(&self, operation: &ApiOperation, names: &Names) -> Vec<(String, String)> {
        let flat = self.flat_fields(operation, names);
        if operation.forms.nested { nested(flat) } else { flat }
    }

    /// Names with their JSON text, `a.b` under that name.
    pub(super) fn flat_fields(&self, operation: &ApiOperation, names: &Names) -> Vec<(String, String)> {
        let changed = |name: &String| self.changed.as_ref().is_none_or(|changed| changed.contains(name));
        let is_key = |name: &str| names.key.as_array().is_some_and(|key| key.iter().any(|k| k == name));
        let pair = |(name, raw): &(String, Box<RawValue>)| (name.clone(), written(raw.get(), &operation.forms));
        match operation.fields {
            Fields::None => Vec::new(),
            Fields::Key => self.fields.iter().filter(|(name, _)| is_key(name)).map(pair).collect(),
            Fields::Emptied => {
                let emptied = |(name, raw): &(String, Box<RawValue>)| {
                    (name.clone(), written(if is_key(name) { raw.get() } else { "null" }, &operation.forms))
                };
                self.fields.iter().map(emptied).collect()
            }
            Fields::Changed => self.fields.iter().filter(|(name, _)| changed(name)).map(pair).collect(),
            Fields::All => self.fields.iter().map(pair).collect(),
        }
    }

    /// About as many bytes as it takes.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum()
    }

    pub(super) fn id_value(&self) -> Value {
        self.id.clone().map_or(Value::Null, Value::String)
    }
}

/// A value's JSON text as the operation wants it.
fn written(raw: &str, forms: &Forms) -> String {
    match raw {
        "null" => forms.emptied.clone().unwrap_or_else(|| raw.to_owned()),
        _ if forms.texts && !raw.starts_with(['"', '{', '[']) => format!("\"{raw}\""),
        _ => raw.to_owned(),
    }
}

/// `a.b` and `a.c` as one `a` of both.
fn nested(fields: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut outer: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut plain = Vec::new();
    for (name, value) in fields {
        let Some((first, rest)) = name.split_once('.') else {
            plain.push((name, value));
            continue;
        };
        let inner = (rest.to_owned(), value);
        match outer.iter_mut().find(|(name, _)| name == first) {
            Some((_, inners)) => inners.push(inner),
            None => outer.push((first.to_owned(), vec![inner])),
        }
    }
    plain.extend(outer.into_iter().map(|(name, inners)| (name, object(&nested(inners)))));
    plain
}

pub(super) fn object(fields: &[(String, String)]) -> String {
    let entry = |(name, value): &(String, String)| format!("{}:{value}", Value::from(name.as_str()));
    format!("{{{}}}", fields.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// A record's key, for people.
pub(super) fn place(record: &Value, key: &[String]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    key.iter().filter_map(|k| Some(format!("{k}={}", text(record.get(k)?)))).collect::<Vec<_>>().join(",")
}

/// What templates see of all records of a delivery.
pub(super) struct Names {
    /// The object's, as the user calls it.
    pub(super) object: Value,
    /// The fields that identify a record.
    pub(super) key: Value,
}

/// A template's view of one record.
pub(super) fn scope<'a>(env: &'a Env, names: &'a Names, [record, id, number]: [&'a Value; 3]) -> Scope<'a> {
    let scope = env.scope().with("object", &names.object).with("key", &names.key);
    scope.with("record", record).with("id", id).with("number", number)
}

/// An object's entries in their order, values unparsed.
struct Fieldwise(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fieldwise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Fieldwise;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fieldwise, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fieldwise(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
