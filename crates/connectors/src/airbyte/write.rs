//! A load as the messages that a destination reads, and as the catalog that says what they are.

use std::collections::HashMap;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::row::{RowConverter, SortField};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use trib_core::name::system;
use trib_core::{Load, LoadId, Result, Table, TableLoad, TableName, WriteMode};
use trib_kit::json::{Forms, lines};
use trib_kit::records::schema::of_field;
use trib_kit::relay::{shares, without_order};
use trib_kit::spool;

use super::confirmed::{Confirmed, place};

/// A STATE comes at least after this many rows of a table, and after this many bytes: what is safe by then is not handed over again.
const ROWS_BETWEEN_STATES: u64 = 100_000;
const BYTES_BETWEEN_STATES: usize = 64 << 20;

/// Where messages go. It is closed by whoever feeds the destination, who then says why.
pub type Out = mpsc::Sender<Result<Vec<u8>>>;

/// The protocol's name of a mode.
pub fn sync_mode(write: WriteMode) -> &'static str {
    match write {
        WriteMode::Replace => "overwrite",
        WriteMode::Upsert => "append_dedup",
        _ => "append",
    }
}

/// The JSON Schema of a column, with Airbyte's own names of what JSON Schema cannot tell.
pub fn column(field: &Field) -> Value {
    let mut schema = of_field(field);
    name_times(field.data_type(), &mut schema);
    schema
}

fn name_times(of: &DataType, schema: &mut Value) {
    let name = match of {
        DataType::Timestamp(_, None) => "timestamp_without_timezone",
        DataType::Timestamp(_, Some(_)) => "timestamp_with_timezone",
        DataType::Time32(_) | DataType::Time64(_) => "time_without_timezone",
        DataType::Struct(fields) => return fields.iter().for_each(|f| name_times(f.data_type(), &mut schema["properties"][f.name()])),
        DataType::List(item) | DataType::LargeList(item) => return name_times(item.data_type(), &mut schema["items"]),
        _ => return,
    };
    schema["airbyte_type"] = name.into();
}

/// The catalog of a load. `attempt` is a number that is greater each time that a load is handed over.
///
/// A table that is replaced is of a new generation, and rows of earlier ones go. An attempt that has failed may have left rows of its own generation, so
/// that the next one must be of another.
pub fn catalog(load: &Load, attempt: i64) -> Value {
    let stream = |share: &TableLoad| {
        let table = &share.table;
        let properties: Map<String, Value> = columns(table).fields().iter().map(|f| (f.name().clone(), column(f))).collect();
        let key: Vec<[&String; 1]> = table.key.iter().map(|column| [column]).collect();
        let (replaced, generation) = if table.write == WriteMode::Replace { ("full_refresh", attempt) } else { ("incremental", 0) };
        json!({
            "stream": {
                "name": table.name.name, "namespace": table.name.schema,
                "json_schema": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": properties},
                "supported_sync_modes": ["full_refresh", "incremental"], "source_defined_primary_key": key, "is_resumable": false,
            },
            "sync_mode": replaced, "destination_sync_mode": sync_mode(table.write), "cursor_field": [], "primary_key": key,
            "generation_id": generation, "minimum_generation_id": generation, "sync_id": load.loaded_at.timestamp_millis(),
        })
    };
    json!({"streams": shares(load).map(stream).collect::<Vec<_>>()})
}

/// What is handed over of a table.
fn columns(table: &Table) -> Schema {
    Schema::new(table.staging_schema().fields().iter().filter(|f| f.name() != system::SEQ).cloned().collect::<Vec<_>>())
}

/// All messages of a load but those of rows that are safe already. Blocks.
pub fn write(load: &Load, confirmed: &Confirmed, to: &Out) -> Result<()> {
    for share in shares(load) {
        let stream = Outgoing { load, share, to };
        if !stream.write(confirmed.rows(&share.table.name))? {
            return Ok(());
        }
    }
    Ok(())
}

struct Outgoing<'a> {
    load: &'a Load,
    share: &'a TableLoad,
    to: &'a Out,
}

impl Outgoing<'_> {
    /// False when nobody reads on.
    fn write(&self, safe: u64) -> Result<bool> {
        let latest = if self.share.table.write == WriteMode::Upsert { Some(latest(self.share)?) } else { None };
        let (mut at, mut rows, mut bytes) = (0, 0, 0);
        for batch in spool::batches(self.share) {
            let batch = batch?;
            let places = at..at + batch.num_rows() as u64;
            at = places.end;
            let wanted = places.map(|row| row >= safe && latest.as_ref().is_none_or(|latest| latest[row as usize]));
            let batch = filter_record_batch(&batch, &wanted.map(Some).collect::<BooleanArray>())?;
            if batch.num_rows() == 0 {
                continue;
            }
            let lines = self.records(&batch)?;
            rows += batch.num_rows() as u64;
            bytes += lines.len();
            if !self.send(lines) {
                return Ok(false);
            }
            if rows >= ROWS_BETWEEN_STATES || bytes >= BYTES_BETWEEN_STATES {
                if !self.send(self.state(at, rows)?) {
                    return Ok(false);
                }
                (rows, bytes) = (0, 0);
            }
        }
        let mut end = self.state(at, rows)?;
        end.extend(self.complete()?);
        Ok(self.send(end))
    }

    fn send(&self, lines: Vec<u8>) -> bool {
        self.to.blocking_send(Ok(lines)).is_ok()
    }

    fn table(&self) -> &TableName {
        &self.share.table.name
    }

    fn descriptor(&self) -> Value {
        json!({"name": self.table().name, "namespace": self.table().schema})
    }

    fn records(&self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let read = self.load.loaded_at.timestamp_millis();
        let namespace = match &self.table().schema {
            Some(schema) => format!(r#""namespace":{},"#, serde_json::to_string(schema)?),
            None => String::new(),
        };
        let stream = serde_json::to_string(&self.table().name)?;
        let head = format!(r#"{{"type":"RECORD","record":{{"stream":{stream},{namespace}"emitted_at":{read},"data":"#);
        let mut out = Vec::new();
        lines(Forms { local_times: true }, &without_order(batch)?, &head, "}}", &mut out)?;
        Ok(out)
    }

    /// `rows` are those since the last one.
    fn state(&self, at: u64, rows: u64) -> Result<Vec<u8>> {
        let place = place(self.load_id(), self.table(), at);
        line(&json!({"type": "STATE", "state": {
            "type": "STREAM", "stream": {"stream_descriptor": self.descriptor(), "stream_state": place}, "sourceStats": {"recordCount": rows as f64},
        }}))
    }

    fn load_id(&self) -> &LoadId {
        &self.load.id
    }

    /// A destination takes a stream that does not say that it is complete for one that has failed.
    fn complete(&self) -> Result<Vec<u8>> {
        line(&json!({"type": "TRACE", "trace": {
            "type": "STREAM_STATUS", "emitted_at": self.load.loaded_at.timestamp_millis() as f64,
            "stream_status": {"stream_descriptor": self.descriptor(), "status": "COMPLETE"},
        }}))
    }
}

fn line(message: &Value) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Which rows of a table's parts are the last of their key. Destinations look at a cursor to tell, or at the time at which a row was read, which is the
/// same for all of a load: so that only these are handed over.
fn latest(share: &TableLoad) -> Result<Vec<bool>> {
    let (mut latest, mut seen) = (Vec::new(), HashMap::<Box<[u8]>, (i64, usize)>::new());
    let mut converter = None;
    for batch in spool::batches(share) {
        let batch = batch?;
        let schema = batch.schema();
        let key = share.table.key.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let order = batch.column(schema.index_of(system::SEQ)?).as_primitive::<Int64Type>();
        let converter = match &mut converter {
            Some(converter) => converter,
            none => none.insert(RowConverter::new(key.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect())?),
        };
        let keys = converter.convert_columns(&key.iter().map(|i| batch.column(*i).clone()).collect::<Vec<_>>())?;
        for (key, order) in keys.iter().zip(order.values()) {
            let (row, key): (usize, &[u8]) = (latest.len(), key.as_ref());
            let before = seen.get(key).copied();
            latest.push(before.is_none_or(|(known, _)| *order >= known));
            if !latest[row] {
                continue;
            }
            if let Some((_, before)) = before {
                latest[before] = false;
            }
            seen.insert(key.into(), (*order, row));
        }
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray};
    use arrow::datatypes::{SchemaRef, TimeUnit};
    use chrono::{DateTime, Utc};
    use trib_core::load::Deletes;
    use trib_core::logical::{FieldExt, Logical};
    use trib_core::{Part, State};
    use trib_kit::records::schema;

    use super::*;

    fn schema() -> SchemaRef {
        let point = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("d", DataType::Decimal128(38, 20), true),
            Field::new("utc", point(Some("UTC")), true),
            Field::new("local", point(None), true),
            Field::new("time", DataType::Time64(TimeUnit::Microsecond), true),
            Field::new("j", DataType::Utf8, true).with_logical(Logical::Json),
        ]))
    }

    fn table(write: WriteMode) -> Table {
        let name = TableName { schema: Some("raw".into()), name: "t".into() };
        let key = vec!["id".to_owned()];
        Table {
            name,
            schema: schema(),
            key,
            write,
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: Vec::new(),
            changes: false,
        }
    }

    /// A load of these ids, in two parts, the second of which came first.
    async fn load(folder: &std::path::Path, write: WriteMode, parts: [&[i64]; 2]) -> Load {
        let table = table(write);
        let mut receipts = Vec::new();
        let mut order = 0;
        for (split, ids) in parts.into_iter().enumerate() {
            let rows = ids.len();
            let micros = 1_600_000_000_123_456;
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(ids.to_vec())),
                Arc::new(
                    Decimal128Array::from(vec![Some(i128::from(u64::MAX) * 1_000_000_000_000_001); rows])
                        .with_precision_and_scale(38, 20)
                        .unwrap(),
                ),
                Arc::new(TimestampMicrosecondArray::from(vec![micros; rows]).with_timezone("UTC")),
                Arc::new(TimestampMicrosecondArray::from(vec![micros; rows])),
                Arc::new(Time64MicrosecondArray::from(vec![3_600_000_001; rows])),
                Arc::new(StringArray::from(vec![Some("{\"a\":\n1.10}"); rows])),
            ];
            if write.needs_sequence() {
                columns.push(Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| order + row))));
            }
            order += rows as i64;
            let batch = RecordBatch::try_new(table.staging_schema(), columns).unwrap();
            let part = Part { load: LoadId("l".into()), sync: "s".into(), split: split as u32, attempt: 0 };
            let rows = Box::pin(futures::stream::iter([Ok(batch)]));
            receipts.insert(0, spool::stage(folder, &part, &table, rows).await.unwrap());
        }
        let loaded_at: DateTime<Utc> = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        let tables = vec![TableLoad { table, changes: Vec::new(), receipts }];
        Load {
            id: LoadId("l".into()),
            scope: "*".into(),
            number: 1,
            tables,
            state: State::default(),
            filled: Vec::new(),
            made_from: None,
            loaded_at,
        }
    }

    async fn written(load: &Load, folder: &std::path::Path) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(100);
        let (load, confirmed) = (load.clone(), Confirmed::of(&load.id, folder).unwrap());
        tokio::task::spawn_blocking(move || write(&load, &confirmed, &sender)).await.unwrap().unwrap();
        let mut text = Vec::new();
        while let Some(lines) = receiver.recv().await {
            text.extend(lines.unwrap());
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn messages_of_a_load() {
        let folder = tempfile::tempdir().unwrap();
        let load = load(folder.path(), WriteMode::Append, [&[1], &[2]]).await;
        let lines = written(&load, folder.path()).await;
        let row = |id: i64| {
            format!(
                r#"{{"type":"RECORD","record":{{"stream":"t","namespace":"raw","emitted_at":1700000000123,"data":{{"id":{id},"d":184467440737095.70061744073709551615,"utc":"2020-09-13T12:26:40.123456Z","local":"2020-09-13T12:26:40.123456","time":"01:00:00.000001","j":{{"a": 1.10}}}}}}}}"#
            )
        };
        assert_eq!(lines[..2], [row(1), row(2)]);
        let (state, complete): (Value, Value) = (serde_json::from_str(&lines[2]).unwrap(), serde_json::from_str(&lines[3]).unwrap());
        assert_eq!(
            (&state["state"]["stream"]["stream_state"]["rows"], &state["state"]["sourceStats"]["recordCount"]),
            (&json!(2), &json!(2.0))
        );
        let descriptor = json!({"name": "t", "namespace": "raw"});
        assert_eq!(complete["trace"]["stream_status"], json!({"stream_descriptor": descriptor, "status": "COMPLETE"}));
        assert_eq!(lines.len(), 4);
        // What one of our own sources would take these columns for.
        let catalog = catalog(&load, 9);
        let back = schema::columns(&catalog["streams"][0]["stream"]["json_schema"], true).unwrap();
        for field in schema().fields() {
            let got = back.field_with_name(field.name()).unwrap();
            assert_eq!((got.data_type(), got.logical()), (field.data_type(), field.logical()));
        }
    }

    #[tokio::test]
    async fn the_last_row_of_a_key_and_what_is_not_safe_yet() {
        let ids = |lines: &[String]| -> Vec<i64> {
            lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).unwrap().pointer("/record/data/id")?.as_i64()).collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let upsert = load(folder.path(), WriteMode::Upsert, [&[1, 2, 1, 3], &[3, 4]]).await;
        let lines = written(&upsert, folder.path()).await;
        assert_eq!(ids(&lines), [2, 1, 3, 4]);
        assert!(lines.iter().all(|line| !line.contains(system::SEQ)), "{lines:?}");
        let mut confirmed = Confirmed::of(&upsert.id, folder.path()).unwrap();
        let state = |rows| json!({"stream": {"stream_state": place(&upsert.id, &upsert.tables[0].table.name, rows)}});
        confirmed.take(&state(3)).unwrap();
        assert_eq!(ids(&written(&upsert, folder.path()).await), [3, 4]);
        confirmed.take(&state(6)).unwrap();
        let lines = written(&upsert, folder.path()).await;
        assert!(ids(&lines).is_empty() && lines.len() == 2, "its end is told again: {lines:?}");
    }

    #[tokio::test]
    async fn generations() {
        let folder = tempfile::tempdir().unwrap();
        for (write, mode, generation) in
            [(WriteMode::Replace, "overwrite", 77), (WriteMode::Append, "append", 0), (WriteMode::Upsert, "append_dedup", 0)]
        {
            let load = load(folder.path(), write, [&[1], &[2]]).await;
            let stream = catalog(&load, 77)["streams"][0].take();
            assert_eq!(stream["destination_sync_mode"], mode);
            assert_eq!((&stream["generation_id"], &stream["minimum_generation_id"]), (&json!(generation), &json!(generation)));
            assert_eq!(stream["primary_key"], json!([["id"]]));
        }
    }
}
