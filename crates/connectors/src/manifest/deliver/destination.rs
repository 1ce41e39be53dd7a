//! A manifest's objects as a destination.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use trib_core::delivery::{Changes, Delivers, Object, Operation};
use trib_core::destination::{Capabilities, ColumnType, ExistingTable};
use trib_core::load::{MOST_REJECTED, TableOutcome, too_many_rejected};
use trib_core::{
    BatchStream, Code, Context, Destination, Error, Lease, Load, LoadId, Marker, Outcome, Part, Receipt, RejectedRow, Result, Table,
    TableLoad, TableName, WriteMode,
};
use trib_kit::http::shown;
use trib_kit::journal::{Journal, remove};
use trib_kit::scrub::Scrub;
use trib_kit::spool;

use super::super::opened::Opened;
use super::call::Outgoing;
use super::delivery::{Attention, Delivery, unfinished};
use super::exchanges::{self, Exchanges};
use super::log::Log;
use super::object::{self, ANY, ApiObject};
use super::record::{Names, Record, of_batch, place};
use super::resolve::Parents;
use super::settled::{Settled, settle};

pub struct ApiDestination {
    opened: Opened,
    objects: Arc<BTreeMap<String, ApiObject>>,
    journal: Journal,
    parents: Parents,
    /// By name, as the API has described them.
    described: tokio::sync::Mutex<HashMap<String, Object>>,
    /// Syncs and scopes whose requests are kept.
    kept: Mutex<HashSet<(String, String)>>,
    /// Of each sync, the last delivery.
    under_way: Mutex<HashMap<String, Arc<Attention>>>,
    capabilities: Capabilities,
}

impl ApiDestination {
    pub fn new(opened: Opened, context: &Context) -> Result<Self> {
        let objects = object::objects(&opened.env, &opened.manifest.root())?;
        let capabilities = Capabilities {
            write_modes: &[WriteMode::Upsert],
            atomic_tables: false,
            atomic_across_tables: false,
            nested: true,
            max_columns: None,
            max_identifier: 200,
            case_sensitive: true,
            parallel_parts: 1,
            batch_bytes: 4 << 20,
            default_schema: None,
            partitions: false,
        };
        let journal = Journal::new(context.project_dir.join(".tributary/deliveries").join(&context.connection));
        Ok(Self {
            opened,
            objects: Arc::new(objects),
            journal,
            parents: Parents::default(),
            described: tokio::sync::Mutex::default(),
            kept: Mutex::default(),
            under_way: Mutex::default(),
            capabilities,
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Arc<Attention>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, load: &Load, lease: &Lease, share: &TableLoad, attention: Arc<Attention>) -> Result<Changes> {
        let (staged, kept) = (self.journal.stage(&lease.sync, &load.id), self.journal.keep(&lease.sync, &load.id));
        if Settled::open(&kept)?.is_some() {
            // Everything was sent, and the marker was all that was missing.
            return Ok(Changes::default());
        }
        let (log, known) = Log::open(&staged)?;
        let is_kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains(&(lease.sync.clone(), load.scope.clone()));
        let exchanges = is_kept.then(|| Exchanges::open(&self.journal.requests(&lease.sync, &load.id))).transpose()?;
        let side_by_side = self.opened.concurrency()?;
        let delivery = Delivery {
            env: &self.opened.env,
            object: object::find(&self.objects, &share.table.name.name)?,
            objects: &self.objects,
            parents: &self.parents,
            journal: &self.journal,
            lease,
            load: &load.id.0,
            names: Names { object: share.table.name.name.clone().into(), key: share.table.key.clone().into() },
            log,
            known,
            exchanges,
            side_by_side,
            turns: Semaphore::new(side_by_side),
            attention,
            stopped: AtomicBool::new(false),
        };
        let delivered = delivery.run(share).await.map_err(unfinished)?;
        settle(&staged, &kept, &load.scope, share)?;
        Ok(delivered)
    }
}

#[async_trait]
impl Destination for ApiDestination {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        let floating = matches!(field.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64);
        let native = field.data_type().to_string();
        Ok(if floating { ColumnType::lossy(native, "JSON has no NaN and no infinity") } else { ColumnType::exact(native) })
    }

    async fn check(&self) -> Result<()> {
        self.opened.check().await
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        self.journal.open(lease).await
    }

    async fn markers(&self, sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        Ok(Some(self.journal.record(sync).await?.markers.into_values().collect()))
    }

    /// What an object takes is known from [`Delivers::object`]; a load brings the fields that it has.
    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        object::find(&self.objects, &table.name).map(|_| None)
    }

    /// Rows that the object's declared fields do not allow are never sent.
    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        object::find(&self.objects, &table.name.name)?;
        let rejected: Arc<Mutex<Vec<RejectedRow>>> = Arc::default();
        let (refused, objects, table_of) = (rejected.clone(), self.objects.clone(), table.clone());
        let described = self.described.lock().await.get(&table.name.name).cloned();
        let valid = rows.map(move |batch| valid_rows(&batch?, &objects, &table_of, described.as_ref(), &refused));
        let mut receipt = spool::stage(&self.journal.stage(&part.sync, &part.load), part, table, Box::pin(valid)).await?;
        receipt.rejected = std::mem::take(&mut *rejected.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(receipt)
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let attention = Arc::<Attention>::default();
        self.under_way().insert(lease.sync.clone(), attention.clone());
        let locked = self.journal.lock().await?;
        if self.journal.gate(load, lease).await?.is_none() {
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        }
        // Others may deliver meanwhile: who holds the sync is looked at before each call.
        drop(locked);
        let mut outcome = Outcome::default();
        for share in load.tables.iter().filter(|t| t.receipts.iter().any(|r| r.rows > 0)) {
            let Changes { created, updated, deleted } = self.deliver(load, lease, share, attention.clone()).await?;
            let table = share.table.name.clone();
            outcome.tables.push(TableOutcome { inserted: created, updated, deleted, ..TableOutcome::new(table) });
        }
        let _locked = self.journal.lock().await?;
        if let Some(record) = self.journal.gate(load, lease).await? {
            self.journal.committed(record, load, lease).await?;
        }
        remove(&self.journal.stage(&lease.sync, &load.id)).await?;
        Ok(outcome)
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        self.journal.abort(load).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        self.journal.sweep(&lease.sync, keep).await
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        self.journal.forget(lease, scopes).await
    }

    async fn maintain(&self, _table: &TableName, _retention: Duration) -> Result<String> {
        Ok("the API's records are its own business".to_owned())
    }

    fn deliveries(&self) -> Option<&dyn Delivers> {
        Some(self)
    }
}

#[async_trait]
impl Delivers for ApiDestination {
    fn object(&self, name: &str) -> Result<Object> {
        object::find(&self.objects, name).map(|o| Object { name: name.to_owned(), ..o.described.clone() })
    }

    fn objects(&self) -> Vec<Object> {
        self.objects.values().map(|o| o.described.clone()).collect()
    }

    async fn describe(&self, name: &str) -> Result<Object> {
        let known = self.object(name)?;
        let Some(discovery) = &object::find(&self.objects, name)?.discover_fields else { return Ok(known) };
        let mut described = self.described.lock().await;
        if let Some(object) = described.get(name) {
            return Ok(object.clone());
        }
        let object = match discovery.describe(&self.opened.env, &known).await {
            Ok(object) if !object.fields.is_empty() => object,
            Ok(_) => return Err(self.unlisted(name).await.unwrap_or_else(|| no_fields(name))),
            Err(e) => return Err(self.unlisted(name).await.unwrap_or(e)),
        };
        described.insert(name.to_owned(), object.clone());
        Ok(object)
    }

    async fn list(&self) -> Result<Vec<Object>> {
        let mut objects = self.objects();
        if let Some(any) = self.objects.get(ANY)
            && let Some(discovery) = &any.discover_objects
        {
            objects.retain(|o| o.name != ANY);
            let listed = discovery.list(&self.opened.env, &any.described).await?;
            let news: Vec<Object> = listed.into_iter().filter(|o| objects.iter().all(|known| known.name != o.name)).collect();
            objects.extend(news);
        }
        Ok(objects)
    }

    fn stop(&self, sync: &str) {
        if let Some(delivery) = self.under_way().get(sync) {
            delivery.stop.cancel();
        }
    }

    fn trouble(&self, sync: &str) -> Option<String> {
        let delivery = self.under_way().get(sync).cloned()?;
        delivery.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep_requests(&self, sync: &str, scope: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert((sync.to_owned(), scope.to_owned()));
    }

    async fn kept_requests(&self, sync: &str, load: &LoadId, place: &str) -> Result<Vec<Value>> {
        let (path, place) = (self.journal.requests(sync, load), place.to_owned());
        let read = tokio::task::spawn_blocking(move || exchanges::about(&path, &place)).await;
        read.map_err(|_| Error::internal("reading exchanges has panicked"))?
    }

    fn least_time(&self, object: &str, calls: &[(Operation, u64)]) -> Option<Duration> {
        let budget = self.opened.env.budget.as_ref()?;
        let names = Names { object: object.into(), key: Value::Array(Vec::new()) };
        let object = object::find(&self.objects, object).ok()?;
        let request = |(kind, count): &(Operation, u64)| {
            let kind = object.carried_out(*kind, false);
            let operation = object.operation(kind).ok()?;
            let outgoing = Outgoing { env: &self.opened.env, operation, records: &[Record::empty(kind)], names: &names, load: "plan" };
            Some((outgoing.preview().ok()?, *count))
        };
        let requests: Vec<_> = calls.iter().filter_map(request).collect();
        Some(budget.least_time(&requests)).filter(|time| !time.is_zero())
    }

    async fn requests(&self, object: &str, key: &[String], mut rows: BatchStream) -> Result<Vec<Value>> {
        let names = Names { object: object.into(), key: key.into() };
        let described = self.described.lock().await.get(object).cloned();
        let object = object::find(&self.objects, object)?;
        let scrub = Scrub::new(self.opened.env.secrets());
        let mut requests = Vec::new();
        while let Some(batch) = rows.next().await {
            for mut record in of_batch(&batch?, 0)? {
                let operation = object.operation(object.carried_out(record.operation, record.id.is_some()))?;
                record.stand_for_parents()?;
                if let Some(why) = object.invalid(&record, described.as_ref()) {
                    requests.push(json!({"invalid": why, "record": record.value()}));
                    continue;
                }
                let outgoing = Outgoing { env: &self.opened.env, operation, records: &[record], names: &names, load: "preview" };
                let request = outgoing.preview()?;
                let body = request.body.as_ref().map(|b| scrub.text(&String::from_utf8_lossy(b)));
                let body = body.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
                let headers: serde_json::Map<String, Value> =
                    request.headers.iter().map(|(n, v)| (n.clone(), Value::from(scrub.text(v)))).collect();
                let query: Vec<String> = request.url.query_pairs().map(|(k, v)| format!("{k}={v}")).collect();
                let url = format!("{}{}{}", shown(&request.url), if query.is_empty() { "" } else { "?" }, query.join("&"));
                let url = scrub.text(&url);
                requests.push(json!({"method": request.method, "url": url, "headers": headers, "body": body}));
            }
        }
        Ok(requests)
    }

    async fn settled(&self, sync: &str, scope: &str) -> Result<Vec<LoadId>> {
        let mut loads = Vec::new();
        for folder in self.journal.settled(sync).await? {
            let name = folder.file_name().map(|n| n.to_string_lossy().into_owned());
            if let (Some(name), Some(settled)) = (name, Settled::open(&folder)?)
                && settled.scope == scope
            {
                loads.push(LoadId(name));
            }
        }
        Ok(loads)
    }

    async fn fates(&self, sync: &str, load: &LoadId) -> Result<BatchStream> {
        let folder = self.journal.keep(sync, load);
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let batches = Settled::open(&folder).and_then(|settled| match settled {
                Some(settled) => settled.batches(&folder).map(Some),
                None => Ok(None),
            });
            let batches = match batches {
                Ok(batches) => batches,
                Err(e) => return drop(sender.blocking_send(Err(e))),
            };
            for batch in batches.into_iter().flatten() {
                if sender.blocking_send(batch).is_err() {
                    break;
                }
            }
        });
        Ok(Box::pin(futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|batch| (batch, receiver)) })))
    }

    async fn undelivered(&self, sync: &str, load: &LoadId) -> Result<Vec<RejectedRow>> {
        let folder = self.journal.keep(sync, load);
        let read = move || Settled::open(&folder)?.map_or_else(|| Ok(Vec::new()), |settled| settled.undelivered(&folder));
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::internal("reading fates has panicked"))?
    }

    async fn noted(&self, sync: &str, load: &LoadId) -> Result<()> {
        remove(&self.journal.keep(sync, load)).await
    }
}

impl ApiDestination {
    /// The error for an object that the API does not list, where it lists them.
    async fn unlisted(&self, name: &str) -> Option<Error> {
        self.objects.get(ANY)?.discover_objects.as_ref()?;
        let listed = self.list().await.ok()?;
        let is_there = listed.iter().any(|o| o.name == name);
        (!is_there && !listed.is_empty()).then(|| object::unknown(name, listed.iter().map(|o| o.name.as_str())))
    }
}

fn no_fields(name: &str) -> Error {
    Error::new(Code::NotFound, "the API tells of no field of the object").detail(format!("`{name}`")).setting("into")
}

/// The rows that the object takes; the others go to `refused`.
fn valid_rows(
    batch: &RecordBatch,
    objects: &BTreeMap<String, ApiObject>,
    table: &Table,
    described: Option<&Object>,
    refused: &Mutex<Vec<RejectedRow>>,
) -> Result<RecordBatch> {
    let object = object::find(objects, &table.name.name)?;
    let mut keep = Vec::with_capacity(batch.num_rows());
    for record in of_batch(batch, 0)? {
        object.operation(object.carried_out(record.operation, record.id.is_some()))?;
        let value = record.value();
        let problem = object.invalid(&record, described);
        keep.push(problem.is_none());
        if let Some(reason) = problem {
            let row = RejectedRow { place: place(&value, &table.key), reason, row: value };
            let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() as u64 >= MOST_REJECTED {
                return Err(too_many_rejected(MOST_REJECTED, &row));
            }
            refused.push(row);
        }
    }
    if keep.iter().all(|k| *k) {
        return Ok(batch.clone());
    }
    Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
}
