//! The least that drives a destination: an engine of a few lines, with the model beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream;
use serde_json::json;
use trib_core::contract::{Contract, SchemaChange, meet};
use trib_core::load::{Deletes, Parent, RowScope};
use trib_core::name::system;
use trib_core::{
    BatchStream, Destination, Error, Lease, Load, LoadId, Outcome, Part, Receipt, Result, State, Table, TableLoad, TableName, WriteMode,
};

use super::{Check, Failure, ensure};
use crate::model::{Model, Parents, SET, Tally};
use crate::rows::{self, NULL, Row};

/// The destination under test, and the way round it.
pub(crate) struct Place<'a> {
    pub(crate) make: &'a dyn Fn() -> Arc<dyn Destination>,
    pub(crate) read: &'a dyn Fn(TableName) -> BoxFuture<'static, Vec<RecordBatch>>,
}

impl Place<'_> {
    pub(crate) fn table(&self, name: &str) -> TableName {
        TableName::new((self.make)().capabilities().default_schema, name)
    }

    pub(crate) fn modes(&self) -> &'static [WriteMode] {
        (self.make)().capabilities().write_modes
    }

    /// A mode in which loads of new keys add up, or else the one there is.
    pub(crate) fn plain_mode(&self) -> WriteMode {
        let wanted = [WriteMode::Append, WriteMode::Upsert, WriteMode::Insert];
        let modes = self.modes();
        wanted.into_iter().find(|m| modes.contains(m)).or(modes.first().copied()).expect("a destination has a write mode")
    }

    pub(crate) fn is_exact(&self, field: &Field) -> bool {
        (self.make)().column_type(field).is_ok_and(|t| t.lossy.is_none())
    }
}

/// A table and its rows as a test wants them loaded.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) name: TableName,
    pub(crate) key: Vec<String>,
    pub(crate) write: WriteMode,
    pub(crate) deletes: Deletes,
    pub(crate) scope: Option<RowScope>,
    pub(crate) parent: Option<Parent>,
    /// Data columns; also [`system::OP`] for a change log, and [`system::SEQ`] where it is not the row's place.
    pub(crate) rows: RecordBatch,
}

impl Wanted {
    pub(crate) fn new(name: TableName, write: WriteMode, rows: RecordBatch) -> Self {
        let key = if write.needs_key() { vec!["id".to_owned()] } else { Vec::new() };
        Self { name, key, write, deletes: Deletes::Hard, scope: None, parent: None, rows }
    }

    fn changes(&self) -> bool {
        self.rows.schema_ref().field_with_name(system::OP).is_ok()
    }

    /// The table that the project would ask for, before it meets the one that is there.
    fn schema(&self) -> Schema {
        let fields = self
            .rows
            .schema_ref()
            .fields()
            .iter()
            .map(AsRef::as_ref)
            .filter(|f| ![system::OP, system::SEQ].contains(&f.name().as_str()))
            .cloned();
        // A prune carries keys alone.
        let ours = if self.write == WriteMode::Prune { Vec::new() } else { Table::system_fields(self.write, self.deletes) };
        Schema::new(fields.chain(ours).collect::<Vec<_>>())
    }
}

/// One sync under one lease.
pub(crate) struct Bench<'a> {
    place: &'a Place<'a>,
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) lease: Lease,
    tables: Vec<TableName>,
    numbers: BTreeMap<String, u64>,
    models: BTreeMap<TableName, Model>,
    /// The staged rows of loads, table by table, until they are committed.
    staged: BTreeMap<LoadId, Vec<Vec<Row>>>,
    last: BTreeMap<TableName, Table>,
}

/// Time of the loads, a second apart: history tells versions by it.
static CLOCK: AtomicI64 = AtomicI64::new(1_700_000_000);

impl<'a> Bench<'a> {
    pub(crate) async fn open(place: &'a Place<'a>, sync: &str, tables: &[TableName]) -> Result<Self> {
        let lease = Lease { sync: format!("conformance_{sync}"), generation: 1, holder: "the suite".to_owned() };
        let destination = (place.make)();
        destination.open(&lease, tables).await?;
        Ok(Self {
            place,
            destination,
            lease,
            tables: tables.to_vec(),
            numbers: BTreeMap::new(),
            models: BTreeMap::new(),
            staged: BTreeMap::new(),
            last: BTreeMap::new(),
        })
    }

    /// Goes on as the process after this one would: a new instance, a new generation.
    pub(crate) async fn reopen(&mut self) -> Result<Vec<trib_core::Marker>> {
        self.lease.generation += 1;
        self.destination = (self.place.make)();
        self.destination.open(&self.lease, &self.tables).await
    }

    /// The table as the contract makes it, and what must change for it.
    pub(crate) async fn plan(&self, wanted: &Wanted) -> Result<(Table, Vec<SchemaChange>)> {
        let incoming = wanted.schema();
        let (schema, changes) = if wanted.write == WriteMode::Prune {
            (Arc::new(incoming), Vec::new())
        } else {
            let mut existing = self.destination.inspect(&wanted.name).await?;
            if wanted.write == WriteMode::Update
                && let Some(existing) = &mut existing
            {
                existing.columns.retain(|c| incoming.field_with_name(c.field.name()).is_ok());
            }
            let native = |field: &Field| self.destination.column_type(field).map(|t| t.native);
            if wanted.write == WriteMode::Replace && wanted.scope.is_none() {
                // The whole table is made anew, so nothing has to be kept.
                let changes = if existing.is_some() { Vec::new() } else { vec![SchemaChange::CreateTable] };
                (Arc::new(incoming), changes)
            } else {
                let meeting = meet(existing.as_ref(), &incoming, &Contract::default(), native)?;
                (meeting.schema, meeting.changes)
            }
        };
        let table = Table {
            name: wanted.name.clone(),
            schema,
            key: wanted.key.clone(),
            write: wanted.write,
            deletes: wanted.deletes,
            scope: wanted.scope.clone(),
            parent: wanted.parent.clone(),
            partition_by: Vec::new(),
            changes: wanted.changes(),
        };
        Ok((table, changes))
    }

    /// A load without tables yet, next in its scope.
    pub(crate) fn empty_load(&self, scope: &str) -> Load {
        let number = self.numbers.get(scope).copied().unwrap_or(0) + 1;
        let at = CLOCK.fetch_add(1, Ordering::Relaxed);
        Load {
            id: LoadId(uuid::Uuid::now_v7().simple().to_string()),
            scope: scope.to_owned(),
            number,
            tables: Vec::new(),
            state: State::default().with_stream(scope, json!({"n": number})),
            filled: Vec::new(),
            made_from: None,
            loaded_at: DateTime::<Utc>::from_timestamp(at, 0).unwrap_or_default(),
        }
    }

    /// Plans and stages everything, in two parts per table.
    pub(crate) async fn stage(&mut self, scope: &str, wanted: &[Wanted]) -> Result<Load> {
        let mut load = self.empty_load(scope);
        for wanted in wanted {
            let (table, changes) = self.plan(wanted).await?;
            let batch = conformed(&wanted.rows, &table, &load)?;
            let half = batch.num_rows() / 2;
            let mut receipts = Vec::new();
            for (split, rows) in [batch.slice(0, half), batch.slice(half, batch.num_rows() - half)].into_iter().enumerate() {
                let rows = if rows.num_rows() == 0 { vec![] } else { vec![rows] };
                receipts.push(self.stage_part(&load, &table, split as u32, 0, rows).await?);
            }
            self.staged.entry(load.id.clone()).or_default().push(rows::rows(&[batch]));
            load.filled.push(table.name.clone());
            load.tables.push(TableLoad { table, changes, receipts });
        }
        Ok(load)
    }

    pub(crate) async fn stage_part(&self, load: &Load, table: &Table, split: u32, attempt: u32, rows: Vec<RecordBatch>) -> Result<Receipt> {
        self.stage_stream(load, table, split, attempt, Box::pin(stream::iter(rows.into_iter().map(Ok)))).await
    }

    pub(crate) async fn stage_stream(&self, load: &Load, table: &Table, split: u32, attempt: u32, rows: BatchStream) -> Result<Receipt> {
        let part = Part { load: load.id.clone(), sync: self.lease.sync.clone(), split, attempt };
        self.destination.stage(&part, table, rows).await
    }

    /// Commits, and tells the model.
    pub(crate) async fn commit(&mut self, load: &Load) -> Result<(Outcome, Vec<Tally>)> {
        let outcome = self.destination.commit(load, &self.lease).await?;
        let mut tallies = Vec::new();
        if !outcome.already_committed {
            self.numbers.insert(load.scope.clone(), load.number);
            let at = format!("{}Z", load.loaded_at.format("%Y-%m-%dT%H:%M:%S%.9f"));
            let staged = self.staged.remove(&load.id).unwrap_or_default();
            for (table_load, rows) in load.tables.iter().zip(&staged) {
                let table = &table_load.table;
                let parent = table.parent.as_ref().and_then(|p| load.tables.iter().position(|t| t.table.name == p.table));
                let held = parent.map(|p| self.models.entry(load.tables[p].table.name.clone()).or_default().rows.clone());
                let parents = parent.zip(held.as_deref()).map(|(p, held)| Parents { staged: &staged[p], held });
                let model = self.models.entry(table.name.clone()).or_default();
                tallies.push(model.apply(table, rows, parents.as_ref(), &at));
                match (table.write, self.last.get_mut(&table.name)) {
                    (WriteMode::Prune, _) => {}
                    (WriteMode::Update, Some(last)) => {
                        let new = table.schema.fields().iter().filter(|f| last.schema.field_with_name(f.name()).is_err());
                        last.schema = Arc::new(Schema::new(last.schema.fields().iter().chain(new).cloned().collect::<Vec<_>>()));
                    }
                    _ => drop(self.last.insert(table.name.clone(), table.clone())),
                }
            }
        }
        Ok((outcome, tallies))
    }

    pub(crate) async fn load(&mut self, scope: &str, wanted: &[Wanted]) -> Result<(Load, Outcome, Vec<Tally>)> {
        let load = self.stage(scope, wanted).await?;
        let (outcome, tallies) = self.commit(&load).await?;
        Ok((load, outcome, tallies))
    }

    /// Keeps the model's rows of a table in step with what else happened to it.
    pub(crate) fn model(&mut self, table: &TableName) -> &mut Model {
        self.models.entry(table.clone()).or_default()
    }

    /// What a reader sees is what the model says, in every column that the destination holds exactly.
    pub(crate) async fn verify(&self, table: &TableName) -> Check {
        let found = rows::rows(&(self.place.read)(table.clone()).await);
        let Some(last) = self.last.get(table) else {
            ensure!(found.is_empty(), "{table} has {} rows before anything was committed", found.len());
            return Ok(());
        };
        let columns: BTreeSet<&str> = last.schema.fields().iter().filter(|f| self.place.is_exact(f)).map(|f| f.name().as_str()).collect();
        let expected = self.models.get(table).map(|m| m.rows.as_slice()).unwrap_or_default();
        let expected = rows::lines(&expected.iter().map(|r| comparable(r, &columns)).collect::<Vec<_>>());
        let found = rows::lines(&found.iter().map(|r| comparable(r, &columns)).collect::<Vec<_>>());
        match rows::difference(&expected, &found) {
            None => Ok(()),
            Some(difference) => Err(Failure::new(format!("{table}: {difference}"))),
        }
    }
}

/// The columns that are compared. When a row was deleted is the destination's to say, and which load a deleted row names.
fn comparable(row: &Row, columns: &BTreeSet<&str>) -> Row {
    let deleted = row.get(system::DELETED_AT).is_some_and(|at| at != NULL);
    let mut kept: Row = row.iter().filter(|(name, _)| columns.contains(name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    if deleted {
        kept.insert(system::DELETED_AT.to_owned(), SET.to_owned());
        kept.remove(system::LOAD_ID);
        kept.remove(system::LOADED_AT);
    }
    kept
}

/// Rows as they are staged: the table's columns by name, ours filled in.
pub(crate) fn conformed(rows: &RecordBatch, table: &Table, load: &Load) -> Result<RecordBatch> {
    let schema: SchemaRef = table.staging_schema();
    let count = rows.num_rows();
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            system::LOAD_ID => Arc::new(StringArray::from(vec![load.id.0.as_str(); count])),
            system::LOADED_AT => {
                let at = vec![load.loaded_at.timestamp_micros(); count];
                cast(&TimestampMicrosecondArray::from(at).with_timezone("UTC"), field.data_type())?
            }
            system::SEQ if rows.column_by_name(system::SEQ).is_none() => Arc::new(Int64Array::from_iter_values(0..count as i64)),
            name => match rows.column_by_name(name) {
                Some(array) => cast(array, field.data_type())?,
                None => new_null_array(field.data_type(), count),
            },
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// See [`super::filled_by`].
pub(crate) async fn append(destination: &dyn Destination, name: TableName, rows: RecordBatch) -> Result<(), Error> {
    let sync = format!("fill_{name}");
    let lease = Lease { sync: sync.clone(), generation: CLOCK.fetch_add(1, Ordering::Relaxed) as u64, holder: "the suite".to_owned() };
    let markers = destination.open(&lease, std::slice::from_ref(&name)).await?;
    let existing = destination.inspect(&name).await?;
    let native = |field: &Field| destination.column_type(field).map(|t| t.native);
    let meeting = meet(existing.as_ref(), rows.schema_ref(), &Contract::default(), native)?;
    let table = Table {
        name,
        schema: meeting.schema,
        key: Vec::new(),
        write: WriteMode::Append,
        deletes: Deletes::Ignore,
        scope: None,
        parent: None,
        partition_by: Vec::new(),
        changes: false,
    };
    let mut load = Load {
        id: LoadId(uuid::Uuid::now_v7().simple().to_string()),
        scope: "fill".to_owned(),
        number: markers.iter().find(|m| m.scope == "fill").map_or(0, |m| m.number) + 1,
        tables: Vec::new(),
        state: State::default(),
        filled: Vec::new(),
        made_from: None,
        loaded_at: Utc::now(),
    };
    let batch = conformed(&rows, &table, &load)?;
    let part = Part { load: load.id.clone(), sync, split: 0, attempt: 0 };
    let receipt = destination.stage(&part, &table, Box::pin(stream::iter([Ok(batch)]))).await?;
    load.tables.push(TableLoad { table, changes: meeting.changes, receipts: vec![receipt] });
    destination.commit(&load, &lease).await?;
    Ok(())
}
