//! Notes in the lake what was delivered.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use trib_core::contract::{Contract, meet};
use trib_core::delivery::{Change, Delivers, column};
use trib_core::load::Deletes;
use trib_core::name::system;
use trib_core::{BatchStream, Destination, Error, Lease, Load, LoadId, Part, Result, State, Table, TableLoad, TableName, WriteMode};

use crate::changes::{Delivery, GONE, HASH, ledger_schema};
use crate::field_hash::hashes;

/// Takes the fates of all loads that nobody has noted yet into the ledger. Noting a load twice changes nothing.
pub(crate) async fn note(lake: &dyn Destination, api: &dyn Delivers, sync: &str, delivery: &Delivery) -> Result<()> {
    for load in api.settled(sync, &delivery.stream).await? {
        let fates = api.fates(sync, &load).await?;
        write(lake, sync, delivery, &load, fates).await?;
        api.noted(sync, &load).await?;
    }
    Ok(())
}

async fn write(lake: &dyn Destination, sync: &str, delivery: &Delivery, load: &LoadId, mut fates: BatchStream) -> Result<()> {
    let Some(first) = fates.next().await.transpose()? else { return Ok(()) };
    let wanted = ledger_schema(delivery, &first.schema())?;
    let identity = format!("{sync}:delivered");
    let now = Utc::now();
    // Who holds the sync's own lease is the only one that gets here; the time orders those who did.
    let generation = u64::try_from(now.timestamp_micros()).unwrap_or_default();
    let lease = Lease { sync: identity.clone(), generation, holder: "delivery".to_owned() };
    let markers = lake.open(&lease, std::slice::from_ref(&delivery.ledger)).await?;
    let marker = markers.into_iter().find(|m| m.scope == delivery.stream);
    if marker.as_ref().is_some_and(|m| m.load == *load) {
        return Ok(());
    }
    let existing = lake.inspect(&delivery.ledger).await?;
    let met = meet(existing.as_ref(), &wanted, &Contract::default(), |field| Ok(lake.column_type(field)?.native))?;
    let table = Table {
        name: delivery.ledger.clone(),
        schema: met.schema,
        key: delivery.key.iter().map(|(name, _)| name.clone()).collect(),
        write: WriteMode::Upsert,
        deletes: Deletes::Hard,
        scope: None,
        parent: None,
        partition_by: Vec::new(),
        changes: false,
    };
    let notes = Notes { staging: table.staging_schema(), skip_empty: delivery.skip_empty, load: load.clone(), now };
    let rows = futures::stream::iter([Ok(first)]).chain(fates);
    let mut next = 0;
    let rows = rows.map(move |batch| {
        let noted = notes.of(&batch?, next)?;
        next += noted.num_rows() as i64;
        Ok(noted)
    });
    let part = Part { load: load.clone(), sync: identity, split: 0, attempt: 0 };
    let receipt = lake.stage(&part, &table, Box::pin(rows)).await?;
    let load = Load {
        id: load.clone(),
        scope: delivery.stream.clone(),
        number: marker.map_or(1, |m| m.number + 1),
        tables: vec![TableLoad { table, changes: met.changes, receipts: vec![receipt] }],
        state: State::default(),
        filled: vec![delivery.ledger.clone()],
        made_from: None,
        loaded_at: now,
    };
    lake.commit(&load, &lease).await.map(drop)
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

/// The ledger's columns as they are.
pub(crate) fn columns(provider: &dyn datafusion::catalog::TableProvider) -> Schema {
    provider.schema().as_ref().clone()
}
