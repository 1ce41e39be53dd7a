//! Notes in the lake what was delivered.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use futures::StreamExt;
use trib_core::contract::{Contract, SchemaChange, meet};
use trib_core::delivery::{Change, Delivers, column};
use trib_core::load::Deletes;
use trib_core::name::system;
use trib_core::{
    BatchStream, Destination, Error, Lease, Load, LoadId, Marker, Part, Result, State, Table, TableLoad, TableName, WriteMode,
};

use crate::changes::{Delivery, GONE, HASH, ledger_schema};
use crate::field_hash::hashes;
use crate::native::NativeTable;
use crate::subject::{Subject, not_the_key};

/// Takes the fates of all loads that nobody has noted yet into the ledger. Noting a load twice changes nothing.
pub(crate) async fn note(lake: &dyn Destination, api: &dyn Delivers, sync: &str, delivery: &Delivery) -> Result<()> {
    for load in api.settled(sync, &delivery.stream).await? {
        let fates = api.fates(sync, &load).await?;
        write(lake, sync, delivery, &load, fates).await?;
        api.noted(sync, &load).await?;
    }
    Ok(())
}

/// Notes the fates of a load.
async fn write(lake: &dyn Destination, sync: &str, delivery: &Delivery, load: &LoadId, mut fates: BatchStream) -> Result<()> {
    let Some(first) = fates.next().await.transpose()? else { return Ok(()) };
    let next = Next::begin(lake, sync, delivery).await?;
    if next.marker.as_ref().is_some_and(|m| m.load == *load) {
        return Ok(());
    }
    let existing = lake.inspect(&delivery.ledger).await?;
    let there = existing.as_ref().map(|e| e.columns.iter().map(|c| c.field.name().clone()).collect());
    Subject::noted(next.marker.as_ref(), delivery, there).is_the_same(delivery)?;
    if let Some((missing, _)) = delivery.key.iter().find(|(name, _)| first.column_by_name(name).is_none()) {
        return Err(not_the_key(delivery, missing));
    }
    let wanted = ledger_schema(delivery, &first.schema())?;
    let met = meet(existing.as_ref(), &wanted, &Contract::default(), |field| Ok(lake.column_type(field)?.native))?;
    let table = next.table(met.schema, WriteMode::Upsert);
    let notes = Notes { staging: table.staging_schema(), skip_empty: delivery.skip_empty, load: load.clone(), now: next.now };
    let rows = futures::stream::iter([Ok(first)]).chain(fates);
    let mut place = 0;
    let rows = rows.map(move |batch| {
        let noted = notes.of(&batch?, place)?;
        place += noted.num_rows() as i64;
        Ok(noted)
    });
    next.commit(load.clone(), table, met.changes, Box::pin(rows)).await
}

/// Nothing was delivered: the ledger is there and empty, for rows of this schema.
pub(crate) async fn forget(lake: &dyn Destination, api: &dyn Delivers, sync: &str, delivery: &Delivery, rows: &Schema) -> Result<()> {
    for load in api.settled(sync, &delivery.stream).await? {
        api.noted(sync, &load).await?;
    }
    if lake.inspect(&delivery.ledger).await?.is_none() {
        return Ok(());
    }
    let next = Next::begin(lake, sync, delivery).await?;
    let table = next.table(ledger_schema(delivery, rows)?, WriteMode::Replace);
    let load = LoadId(format!("forget-{}", next.lease.generation));
    next.commit(load, table, Vec::new(), Box::pin(futures::stream::empty())).await
}

/// The next load of a ledger.
struct Next<'a> {
    lake: &'a dyn Destination,
    delivery: &'a Delivery,
    lease: Lease,
    marker: Option<Marker>,
    now: DateTime<Utc>,
}

impl<'a> Next<'a> {
    async fn begin(lake: &'a dyn Destination, sync: &str, delivery: &'a Delivery) -> Result<Self> {
        let now = Utc::now();
        // Who holds the sync's own lease is the only one that gets here; the time orders those who did.
        let generation = u64::try_from(now.timestamp_micros()).unwrap_or_default();
        let lease = Lease { sync: identity(sync), generation, holder: "delivery".to_owned() };
        let markers = lake.open(&lease, std::slice::from_ref(&delivery.ledger)).await?;
        let marker = markers.into_iter().find(|m| m.scope == delivery.stream);
        Ok(Self { lake, delivery, lease, marker, now })
    }

    fn table(&self, schema: SchemaRef, write: WriteMode) -> Table {
        Table {
            name: self.delivery.ledger.clone(),
            schema,
            key: self.delivery.key.iter().map(|(name, _)| name.clone()).collect(),
            write,
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: Vec::new(),
            changes: false,
        }
    }

    async fn commit(&self, load: LoadId, table: Table, changes: Vec<SchemaChange>, rows: BatchStream) -> Result<()> {
        let part = Part { load: load.clone(), sync: self.lease.sync.clone(), split: 0, attempt: 0 };
        let receipt = self.lake.stage(&part, &table, rows).await?;
        let load = Load {
            id: load,
            scope: self.delivery.stream.clone(),
            number: self.marker.as_ref().map_or(1, |m| m.number + 1),
            tables: vec![TableLoad { table, changes, receipts: vec![receipt] }],
            state: State::default().with_stream(&self.delivery.stream, serde_json::to_value(Subject::of(self.delivery))?),
            filled: vec![self.delivery.ledger.clone()],
            made_from: None,
            loaded_at: self.now,
        };
        self.lake.commit(&load, &self.lease).await.map(drop)
    }
}

fn identity(sync: &str) -> String {
    format!("{sync}:delivered")
}

/// What was delivered, as a table; `None`: nothing yet. An error when it is about other records than the delivery's.
pub(crate) async fn open(
    lake: &dyn Destination,
    tables: &dyn NativeTable,
    sync: &str,
    delivery: &Delivery,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some(provider) = tables.provider(&delivery.ledger, None).await? else { return Ok(None) };
    let markers = lake.markers(&identity(sync), std::slice::from_ref(&delivery.ledger)).await?;
    let marker = markers.into_iter().flatten().find(|m| m.scope == delivery.stream);
    let columns = provider.schema().fields().iter().map(|f| f.name().clone()).collect();
    Subject::noted(marker.as_ref(), delivery, Some(columns)).is_the_same(delivery)?;
    Ok(Some(provider))
}

/// Makes the ledger's rows of a delivery's.
struct Notes {
    staging: SchemaRef,
    skip_empty: bool,
    load: LoadId,
    now: DateTime<Utc>,
}

impl Notes {
    fn of(&self, batch: &RecordBatch, first: i64) -> Result<RecordBatch> {
        let text = |name: &str| -> Result<StringArray> {
            let found = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            found.cloned().ok_or_else(|| Error::internal("a delivered row does not say what became of it"))
        };
        // What was refused is pending. What may have arrived is not sent again by itself.
        let counts: BooleanArray = text(column::FATE)?.iter().map(|fate| Some(fate != Some("rejected"))).collect();
        let batch = filter_record_batch(batch, &counts)?;
        let rows = batch.num_rows();
        let change = batch.column_by_name(column::CHANGE).and_then(|c| c.as_string_opt::<i32>());
        let gone: BooleanArray = match change {
            Some(change) => change.iter().map(|c| Some(c == Some(Change::Deleted.as_str()))).collect(),
            None => return Err(Error::internal("a delivered row does not say what it was")),
        };
        let mut columns: Vec<ArrayRef> = Vec::new();
        for field in self.staging.fields() {
            let name = field.name().as_str();
            let source = batch.column_by_name(name.strip_prefix(HASH).unwrap_or(name));
            columns.push(match (name, source) {
                (GONE, _) => Arc::new(gone.clone()),
                ("_load", _) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.load.0, rows))),
                ("_delivered_at", _) => {
                    Arc::new(TimestampMicrosecondArray::from_value(self.now.timestamp_micros(), rows).with_timezone("UTC"))
                }
                (system::SEQ, _) => Arc::new(Int64Array::from_iter_values(first..first + rows as i64)),
                (_, Some(values)) if name.starts_with(HASH) => Arc::new(self.fingerprints(values, &gone)?),
                (_, Some(values)) => arrow::compute::cast(values, field.data_type())?,
                // A field that is mapped no longer.
                (_, None) => new_null_array(field.data_type(), rows),
            });
        }
        Ok(RecordBatch::try_new(self.staging.clone(), columns)?)
    }

    /// Of a record that is gone nothing is there; of a NULL that is not sent neither.
    fn fingerprints(&self, values: &ArrayRef, gone: &BooleanArray) -> Result<Int64Array> {
        let all = hashes(values.as_ref())?;
        let there = |row: usize| !(gone.value(row) || self.skip_empty && values.is_null(row));
        Ok((0..all.len()).map(|row| there(row).then(|| all.value(row))).collect())
    }
}

/// The table in which a sync's deliveries of a stream are noted.
pub fn ledger_name(prefix: &str, sync: &str, stream: &str) -> TableName {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = format!("{sync}__{stream}").chars().map(plain).collect();
    TableName::new(Some(&format!("{prefix}_trib_delivered")), &name)
}
