//! Deliveries as a source: each stream is one table or model, and its rows are what has to be sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use futures::StreamExt;
use trib_core::delivery::{Changes, Delivers, column};
use trib_core::{
    BatchStream, Catalog, Destination, Emitter, Error, RejectedRow, Result, Source, Split, SplitEnd, State, Stream, StreamRead, TableName,
};
use trib_kit::object;

use crate::catalog::{Over, Queries};
use crate::changes::{Delivery, LEDGER, ident, unfit};
use crate::ledger;
use crate::native::NativeTable;

/// What is in the lake and has to go to an API.
pub struct ChangeSource {
    ends: Ends,
    sync: String,
    deliveries: Vec<Delivery>,
    /// Only the record whose first key field has this text.
    only: Option<String>,
    /// What was delivered is to be forgotten: it is not looked at.
    anew: bool,
    /// Streams that end at the same time note their fates one after the other.
    noting: tokio::sync::Mutex<()>,
    /// What was read of each stream last.
    read: Mutex<HashMap<String, Changes>>,
}

/// Where deliveries come from, where they go, and where they are noted.
pub struct Ends {
    /// Over the tables that the deliveries read.
    pub queries: Queries,
    /// The lake, where it is noted what was delivered.
    pub tables: Arc<dyn NativeTable>,
    pub lake: Arc<dyn Destination>,
    pub api: Arc<dyn Destination>,
}

impl ChangeSource {
    /// `sync` is the identity that the deliveries are kept under.
    pub fn new(ends: Ends, sync: String, deliveries: Vec<Delivery>) -> Self {
        Self { ends, sync, deliveries, only: None, anew: false, noting: tokio::sync::Mutex::default(), read: Mutex::default() }
    }

    /// With a key: no record but the one whose first key field has this text is looked at.
    #[must_use]
    pub fn only(self, key: Option<String>) -> Self {
        Self { only: key, ..self }
    }

    /// As if nothing had been delivered; see [`Self::forget`].
    #[must_use]
    pub fn anew(self, anew: bool) -> Self {
        Self { anew, ..self }
    }

    /// Forgets what was delivered of a stream. Records that are there stay, and are sent anew.
    pub async fn forget(&self, stream: &str) -> Result<()> {
        let (delivery, rows) = (self.delivery(stream)?, self.schema(stream).await?);
        let _one = self.noting.lock().await;
        ledger::forget(self.ends.lake.as_ref(), self.api()?, &self.sync, delivery, &rows).await
    }

    /// The columns of a stream's rows.
    pub async fn schema(&self, stream: &str) -> Result<SchemaRef> {
        let (queries, sql) = self.changes(self.delivery(stream)?).await?;
        queries.schema(&sql).await
    }

    /// What the last read of a stream has given.
    pub fn last_read(&self, stream: &str) -> Changes {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).get(stream).copied().unwrap_or_default()
    }

    fn delivery(&self, stream: &str) -> Result<&Delivery> {
        self.deliveries.iter().find(|d| d.stream == stream).ok_or_else(|| Error::internal("a stream of a delivery is not in it"))
    }

    fn api(&self) -> Result<&dyn Delivers> {
        self.ends.api.deliveries().ok_or_else(|| Error::internal("deliveries go to a destination that delivers nothing"))
    }

    async fn note(&self, delivery: &Delivery) -> Result<()> {
        let _one = self.noting.lock().await;
        ledger::note(self.ends.lake.as_ref(), self.api()?, &self.sync, delivery).await
    }

    /// The query for what has to be sent, and where it is asked.
    async fn changes(&self, delivery: &Delivery) -> Result<(Queries, String)> {
        let ledger = self.ledger(delivery).await?;
        let mut sql = delivery.changes_sql(ledger.as_ref().map(|l| l.schema()).as_deref());
        if let (Some(key), Some((field, _))) = (&self.only, delivery.key.first()) {
            sql = format!("select * from ({sql}) as c where cast({} as varchar) = '{}'", ident(field), key.replace('\'', "''"));
        }
        let over = ledger.map(|ledger| (TableName::new(None, LEDGER), Over::Table(ledger)));
        Ok((self.ends.queries.with(over.into_iter().collect()).by_sorting(), sql))
    }

    /// What was delivered, where it was.
    async fn ledger(&self, delivery: &Delivery) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.anew {
            return Ok(None);
        }
        ledger::open(self.ends.lake.as_ref(), self.ends.tables.as_ref(), &self.sync, delivery).await
    }

    /// What a run would send.
    pub async fn counts(&self, stream: &str) -> Result<Changes> {
        let (queries, sql) = self.changes(self.delivery(stream)?).await?;
        let counted = format!("select \"{0}\", count(*) as n from ({sql}) as c group by 1", column::CHANGE);
        let (_, mut rows) = queries.rows(&counted).await?;
        let mut changes = Changes::default();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let (names, counts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<arrow::datatypes::Int64Type>());
            for row in 0..batch.num_rows() {
                changes.count(names.value(row), u64::try_from(counts.value(row)).unwrap_or_default());
            }
        }
        Ok(changes)
    }

    /// Rows of the table or model, and records that were delivered and are there still.
    pub async fn sizes(&self, stream: &str) -> Result<(u64, u64)> {
        let delivery = self.delivery(stream)?;
        let rows = self.count(&self.ends.queries, &format!("select count(*) from ({}) as m", delivery.model_sql())).await?;
        let Some(ledger) = self.ledger(delivery).await? else { return Ok((rows, 0)) };
        let queries = self.ends.queries.with(vec![(TableName::new(None, LEDGER), Over::Table(ledger))]);
        Ok((rows, self.count(&queries, &format!("select count(*) from \"{LEDGER}\" where not \"_gone\"")).await?))
    }

    async fn count(&self, queries: &Queries, sql: &str) -> Result<u64> {
        let (_, mut rows) = queries.rows(sql).await?;
        let batch = rows.next().await.transpose()?;
        let count = batch.filter(|b| b.num_rows() > 0).map(|b| b.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0));
        Ok(count.and_then(|c| u64::try_from(c).ok()).unwrap_or_default())
    }

    /// The rows that a run would send, as many as `limit`, those that cannot be sent left out.
    pub async fn rows(&self, stream: &str, limit: usize) -> Result<BatchStream> {
        let (queries, sql) = self.changes(self.delivery(stream)?).await?;
        let (_, rows) = queries.rows(&format!("{sql} limit {limit}")).await?;
        Ok(Box::pin(rows.map(|batch| batch.and_then(|batch| Ok(sendable(&batch)?.0)))))
    }
}

/// The rows that can be sent, and which cannot.
pub fn sendable(batch: &RecordBatch) -> Result<(RecordBatch, Vec<(usize, &'static str)>)> {
    let change = batch.column_by_name(column::CHANGE).and_then(|c| c.as_string_opt::<i32>());
    let change = change.ok_or_else(|| Error::internal("a delivery's query gives no changes"))?;
    let reason = |row: usize| change.is_valid(row).then(|| unfit(change.value(row))).flatten();
    let refused: Vec<(usize, &'static str)> = (0..batch.num_rows()).filter_map(|row| Some((row, reason(row)?))).collect();
    if refused.is_empty() {
        return Ok((batch.clone(), refused));
    }
    let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(reason(row).is_none())).collect();
    Ok((filter_record_batch(batch, &keep)?, refused))
}

#[async_trait]
impl Source for ChangeSource {
    async fn check(&self) -> Result<()> {
        self.discover(&[]).await.map(drop)
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        let mut streams = Vec::new();
        for delivery in &self.deliveries {
            let schema = self.schema(&delivery.stream).await.map_err(|e| e.stream(&delivery.stream))?;
            streams.push(Stream::new(&delivery.stream, &delivery.stream, schema));
        }
        Ok(Catalog { streams })
    }

    /// What was delivered before is noted first, so that it is not sent again.
    async fn plan(&self, reads: &[StreamRead], _: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            self.note(self.delivery(&read.stream)?).await?;
            splits.push(Split::new(&read.stream, serde_json::Value::Null));
        }
        Ok(splits)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let stream = split.streams.first().ok_or_else(|| Error::internal("a split of a delivery names no stream"))?;
        let delivery = self.delivery(stream)?;
        let (queries, sql) = self.changes(delivery).await?;
        let (_, mut rows) = queries.rows(&sql).await?;
        let mut read = Changes::default();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let (sent, refused) = sendable(&batch)?;
            let changes = sent.column_by_name(column::CHANGE).and_then(|c| c.as_string_opt::<i32>());
            changes.into_iter().flatten().flatten().for_each(|change| read.count(change, 1));
            for (row, reason) in refused {
                let row = object::row(&batch, row);
                let place = delivery.key.iter().filter_map(|(k, _)| Some(format!("{k}={}", row.get(k)?))).collect::<Vec<_>>().join(",");
                let row = row.into_iter().filter(|(name, _)| !column::ALL.contains(&name.as_str())).collect();
                out.reject(stream, RejectedRow { place, reason: reason.to_owned(), row: serde_json::Value::Object(row) }).await?;
            }
            out.batch(stream, sent).await?;
        }
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone(), read);
        Ok(SplitEnd::finished(split, serde_json::Value::Null))
    }

    /// What was delivered is the ledger's, not the state's.
    fn advance(&self, _: &[StreamRead], state: &State, _: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }

    async fn acknowledge(&self, _: &State) -> Result<()> {
        for delivery in &self.deliveries {
            self.note(delivery).await?;
        }
        Ok(())
    }
}
