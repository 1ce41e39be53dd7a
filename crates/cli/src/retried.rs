//! Rejected rows as a source, so that another try goes the way of every other load.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use serde_json::{Map, Value};
use trib_core::name::system;
use trib_core::transform::ColumnRule;
use trib_core::{Catalog, Emitter, Read, Result, Source, Split, SplitEnd, State, StreamRead, WriteMode};
use trib_engine::StreamSpec;
use trib_engine::protect::Protection;
use trib_engine::rejected::unwrapped;
use trib_kit::object::read_rows;
use trib_runtime::{Refresh, StreamTask};
use trib_store::Rejected;

/// Rows of one stream, in the form in which they were rejected.
pub struct RejectedRows {
    pub stream: String,
    pub schema: SchemaRef,
    pub rows: Vec<Value>,
}

#[async_trait]
impl Source for RejectedRows {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        Ok(Catalog::default())
    }

    async fn plan(&self, _reads: &[StreamRead], _state: &State) -> Result<Vec<Split>> {
        Ok(vec![Split::new(&self.stream, Value::Null)])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let batch = read_rows(&self.rows, &self.schema)?;
        out.batch(&self.stream, batch).await?;
        Ok(SplitEnd::finished(split, Value::Null))
    }

    fn advance(&self, _reads: &[StreamRead], state: &State, _ends: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }
}

/// Rejected rows that can go through their stream once more.
#[derive(Default)]
pub struct Ready {
    pub ids: Vec<u64>,
    pub rows: Vec<Value>,
    /// How many cannot: their values were withheld, or they were kept under other rules than today's, or as the destination had got them.
    pub unfit: u64,
}

/// Takes the rows that `task` can load as they were kept.
pub fn ready(task: &StreamTask, rejected: Vec<Rejected>) -> Ready {
    let schema = as_retry(task.clone()).spec.schema;
    let mut ready = Ready::default();
    for Rejected { id, row, .. } in rejected {
        match row.row.as_object().and_then(|row| fitting(task, row)).filter(|row| read_rows(std::slice::from_ref(row), &schema).is_ok()) {
            Some(row) => {
                ready.ids.push(id);
                ready.rows.push(row);
            }
            None => ready.unfit += 1,
        }
    }
    ready
}

fn fitting(task: &StreamTask, row: &Map<String, Value>) -> Option<Value> {
    let (mut values, kept) = unwrapped(row)?;
    let staged = values.keys().any(|name| name.starts_with(system::PREFIX));
    values.retain(|name, _| !name.starts_with(system::PREFIX));
    let rules = &task.spec.transform.columns;
    // What the row does not have would be loaded as NULL, and what the stream does not know would be lost.
    let known = values.keys().all(|name| task.spec.schema.field_with_name(name).is_ok());
    let dropped = |name: &String| rules.get(name).is_some_and(|rule| rule.drop);
    let whole = task.spec.schema.fields().iter().all(|f| values.contains_key(f.name()) || dropped(f.name()));
    let protected = |name: &str| rules.get(name).is_some_and(|rule| Protection::of(rule).is_some());
    let same = values.iter().all(|(name, value)| value.is_null() || protected(name) == kept.contains(name));
    // A row that the destination refused carries its table's names, and what is protected does not say so.
    let fits = known && whole && same && !(staged && rules.keys().any(|name| protected(name)));
    fits.then_some(Value::Object(values))
}

/// The stream's task, changed so that it adds single rows and moves no state: `Range` reads never do. What was done to the rows before they
/// were kept is not done again.
pub fn as_retry(mut task: StreamTask) -> StreamTask {
    let StreamSpec { schema, transform, .. } = &mut task.spec;
    transform.filter = None;
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in schema.fields() {
        match transform.columns.get_mut(field.name()) {
            Some(rule) if rule.drop => drop(transform.columns.remove(field.name())),
            Some(rule) if Protection::of(rule).is_some() => {
                *rule = ColumnRule { mask: None, hash: false, hmac: None, ..rule.clone() };
                fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())));
            }
            _ => fields.push(field.clone()),
        }
    }
    *schema = Arc::new(Schema::new(fields));
    task.read = Read::Range { column: String::new(), since: None, until: None };
    task.refresh = Refresh::No;
    task.compare = None;
    task.pushed_filter = None;
    task.rows = None;
    task.spec.write = match task.spec.write {
        WriteMode::Replace | WriteMode::Mirror if !task.spec.key.is_empty() => WriteMode::Upsert,
        WriteMode::Replace | WriteMode::Mirror => WriteMode::Append,
        other => other,
    };
    task
}

/// [`RejectedRows`] behind the trait.
pub fn source(stream: &str, schema: SchemaRef, rows: Vec<Value>) -> Arc<dyn Source> {
    Arc::new(RejectedRows { stream: stream.to_owned(), schema, rows })
}
