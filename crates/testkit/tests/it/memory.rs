//! A destination in memory, with mistakes to choose from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use trib_core::destination::ExistingColumn;
use trib_core::load::Durability;
use trib_core::logical::FieldExt;
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{
    BatchStream, Capabilities, Code, ColumnType, Destination, Error, ExistingTable, Lease, Load, LoadId, Marker, Outcome, Part, Receipt,
    Result, Table, TableName, WriteMode,
};

use crate::merge::{Parents, fitted, merge, single_rows};

/// What a destination could do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    PublishesAtStage,
    IgnoresTheLease,
    ForgetsMarkers,
    PublishesEveryAttempt,
    TrustsReceipts,
    SweepsEverything,
    FirstRowWins,
    LosesUnicode,
    ChangesTheTableAtStage,
    IgnoresScopes,
}

type Place = (LoadId, TableName, u32, u32);

#[derive(Default)]
struct Inner {
    tables: BTreeMap<TableName, (SchemaRef, Vec<RecordBatch>)>,
    markers: BTreeMap<(String, String), Marker>,
    generations: BTreeMap<String, u64>,
    /// By split and attempt; with the sync.
    parts: BTreeMap<Place, (String, Vec<RecordBatch>)>,
}

pub struct Memory {
    fault: Fault,
    inner: Arc<Mutex<Inner>>,
}

/// The system that outlives its destinations.
#[derive(Clone, Default)]
pub struct System(Arc<Mutex<Inner>>);

impl System {
    pub fn destination(&self, fault: Fault) -> Arc<dyn Destination> {
        Arc::new(Memory { fault, inner: self.0.clone() })
    }

    pub fn read(&self, table: &TableName) -> Vec<RecordBatch> {
        let inner = self.0.lock().unwrap();
        inner.tables.get(table).map(|(schema, rows)| rows.iter().map(|r| fitted(r, schema)).collect()).unwrap_or_default()
    }
}

const CAPABILITIES: Capabilities = Capabilities {
    write_modes: &[
        WriteMode::Replace,
        WriteMode::Append,
        WriteMode::Insert,
        WriteMode::Upsert,
        WriteMode::Mirror,
        WriteMode::History,
        WriteMode::Prune,
    ],
    atomic_tables: true,
    atomic_across_tables: true,
    nested: true,
    partitions: false,
    max_columns: None,
    max_identifier: 100,
    case_sensitive: true,
    parallel_parts: 4,
    batch_bytes: 1 << 20,
    default_schema: None,
};

fn native(field: &Field) -> String {
    format!("{} {:?}", field.data_type(), field.logical())
}

#[async_trait]
impl Destination for Memory {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        match field.data_type() {
            DataType::Null => Err(Error::new(Code::Unsupported, "a column without a type").hint("cast it")),
            _ => Ok(ColumnType::exact(native(field))),
        }
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        let mut inner = self.inner.lock().unwrap();
        inner.generations.insert(lease.sync.clone(), lease.generation);
        if self.fault == Fault::ForgetsMarkers {
            return Ok(Vec::new());
        }
        Ok(inner.markers.iter().filter(|((sync, _), _)| *sync == lease.sync).map(|(_, m)| m.clone()).collect())
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let inner = self.inner.lock().unwrap();
        Ok(inner.tables.get(table).map(|(schema, _)| ExistingTable {
            columns: schema.fields().iter().map(|f| ExistingColumn { field: f.clone(), native: native(f) }).collect(),
            key: Vec::new(),
        }))
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let count = batches.iter().map(|b| b.num_rows() as u64).sum();
        let mut inner = self.inner.lock().unwrap();
        if matches!(self.fault, Fault::ChangesTheTableAtStage | Fault::PublishesAtStage) {
            let held = inner.tables.entry(table.name.clone()).or_insert_with(|| (table.schema.clone(), Vec::new()));
            held.0 = table.schema.clone();
            if self.fault == Fault::PublishesAtStage {
                held.1.extend(single_rows(&batches));
            }
        }
        inner.parts.insert((part.load.clone(), table.name.clone(), part.split, part.attempt), (part.sync.clone(), batches));
        Ok(Receipt {
            part: part.clone(),
            table: table.name.clone(),
            rows: count,
            bytes: 0,
            durability: Durability::Durable,
            staged: serde_json::Value::Null,
            rejected: Vec::new(),
        })
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let mut inner = self.inner.lock().unwrap();
        let at = (lease.sync.clone(), load.scope.clone());
        let marker = inner.markers.get(&at);
        let generation = if self.fault == Fault::IgnoresTheLease { 0 } else { inner.generations[&lease.sync] };
        match commit_gate(load, lease.generation, generation, marker) {
            CommitGate::Go => {}
            CommitGate::AlreadyCommitted => return Ok(Outcome { already_committed: true, ..Outcome::default() }),
            CommitGate::Outdated => return Err(lease_lost(load, marker)),
        }
        let mut staged = Vec::new();
        for table in &load.tables {
            let mut rows = Vec::new();
            for receipt in &table.receipts {
                let place = (load.id.clone(), table.table.name.clone(), receipt.part.split, receipt.part.attempt);
                let part = inner.parts.get(&place).ok_or_else(|| Error::new(Code::SystemError, "the part is gone"))?;
                let found = single_rows(&part.1);
                if found.len() as u64 != receipt.rows && self.fault != Fault::TrustsReceipts {
                    return Err(Error::new(Code::SystemError, "the part has lost rows"));
                }
                rows.extend(found);
            }
            if self.fault == Fault::PublishesEveryAttempt {
                let all = inner.parts.iter().filter(|(p, _)| (&p.0, &p.1) == (&load.id, &table.table.name));
                rows = all.flat_map(|(_, part)| single_rows(&part.1)).collect();
            }
            staged.push(rows);
        }
        let before: Vec<Vec<RecordBatch>> =
            load.tables.iter().map(|t| inner.tables.get(&t.table.name).map(|held| held.1.clone()).unwrap_or_default()).collect();
        let mut outcome = Outcome::default();
        for (i, load_table) in load.tables.iter().enumerate() {
            let mut table = load_table.table.clone();
            if self.fault == Fault::IgnoresScopes {
                table.scope = None;
            }
            let mut rows = staged[i].clone();
            if self.fault == Fault::FirstRowWins {
                let mut seen = std::collections::BTreeSet::new();
                let texts = trib_testkit::rows::rows(&rows);
                let key = |row: &trib_testkit::rows::Row| table.key.iter().map(|k| row[k].clone()).collect::<Vec<_>>();
                let mut keep = texts.iter().map(|r| table.key.is_empty() || seen.insert(key(r)));
                rows.retain(|_| keep.next().unwrap());
            }
            let parent = table.parent.as_ref().and_then(|p| load.tables.iter().position(|t| t.table.name == p.table));
            let parents = parent.map(|p| Parents { staged: staged[p].clone(), before: before[p].clone() });
            let (schema, held) = inner.tables.remove(&table.name).unwrap_or_else(|| (table.schema.clone(), Vec::new()));
            let schema = if table.write == WriteMode::Prune { schema } else { table.schema.clone() };
            let (rows, counts) = merge(&table, &held, &rows, parents.as_ref(), load.loaded_at);
            outcome.tables.push(counts);
            let rows = if self.fault == Fault::LosesUnicode { rows.iter().filter(|r| is_ascii(r)).cloned().collect() } else { rows };
            inner.tables.insert(table.name.clone(), (schema, rows));
        }
        inner.markers.insert(at, Marker::of(load, lease));
        inner.parts.retain(|(id, ..), _| *id != load.id);
        Ok(outcome)
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        self.inner.lock().unwrap().parts.retain(|(id, ..), _| id != load);
        Ok(())
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        let all = self.fault == Fault::SweepsEverything;
        self.inner.lock().unwrap().parts.retain(|(id, ..), (sync, _)| !all && (*sync != lease.sync || keep.contains(id)));
        Ok(())
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        self.inner.lock().unwrap().markers.retain(|(sync, scope), _| *sync != lease.sync || !scopes.contains(scope));
        Ok(())
    }
}

fn is_ascii(row: &RecordBatch) -> bool {
    trib_testkit::rows::canonical(std::slice::from_ref(row)).iter().all(|line| line.is_ascii())
}
