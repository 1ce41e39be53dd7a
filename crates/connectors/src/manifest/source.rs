//! A manifest as a connection's source: its streams as tables, its state as the reference keeps it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use serde_json::{Value, json};
use trib_core::{Catalog, Code, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};

use super::columns::{Columns, WHOLE, arrow_schema};
use super::opened::{Opened, StreamInfo};
use super::read::{Event, Selection};
use super::upload;

/// Rows of a batch.
const BATCH: usize = 4096;
/// Rows that are sent on where the read could be cut, so that the load's budget sees them.
const WORTH_SENDING: usize = 512;
const SEND_EVERY: Duration = Duration::from_secs(1);

pub(super) struct ManifestSource {
    opened: Arc<Opened>,
    /// Where files go that records point to.
    files: PathBuf,
    /// Schemas of streams that were looked at: one run sees one schema.
    known: Mutex<HashMap<String, Arc<Known>>>,
}

struct Known {
    schema: SchemaRef,
    info: StreamInfo,
}

impl ManifestSource {
    pub(super) fn new(opened: Opened, files: PathBuf) -> Self {
        if opened.migrated.is_some() {
            tracing::warn!("the connector has changed the form of its settings; it takes the old one still");
        }
        Self { opened: Arc::new(opened), files, known: Mutex::default() }
    }

    fn remember(&self, info: StreamInfo) -> Arc<Known> {
        let known = Arc::new(Known { schema: Arc::new(schema_of(&info)), info });
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(known.info.name.clone()).or_insert(known).clone()
    }

    async fn known(&self, name: &str) -> Result<Arc<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (mut found, mut missing) = self.opened.discover(&[name.to_owned()]).await?;
        match (found.pop(), missing.pop()) {
            (Some(info), _) => Ok(self.remember(info)),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::new(Code::NotFound, "the manifest has no such stream").detail(name.to_owned()).stream(name)),
        }
    }

    /// What cannot be asked of an API through a manifest.
    fn refuse(known: &Known, read: &StreamRead) -> Result<()> {
        let unsupported = |what: &'static str| Err(Error::new(Code::Unsupported, what).stream(&read.stream));
        match &read.read {
            Read::Full | Read::Keys => Ok(()),
            Read::Cdc => unsupported("a declarative connector has no change log"),
            Read::Range { .. } => unsupported("a declarative connector reads from its state, not between two given values"),
            Read::Incremental(cursor) => match &known.info.cursor_field {
                None => unsupported("the stream has no cursor"),
                Some(own) if *own != cursor.column && !known.info.cursor_is_open => {
                    Err(Error::new(Code::ConfigInvalid, "the manifest says by which cursor the stream is read")
                        .detail(format!("it is {own}, not {}", cursor.column))
                        .stream(&read.stream)
                        .setting("cursor"))
                }
                Some(_) if cursor.lookback.is_some() || cursor.start.is_some() || cursor.end.is_some() => {
                    unsupported("the manifest itself says where the cursor starts and ends, and how far it looks back")
                }
                Some(_) => Ok(()),
            },
        }
    }
}

/// The columns of a stream; those that tell where its files lie come last.
fn schema_of(info: &StreamInfo) -> Schema {
    let own = arrow_schema(&info.json_schema);
    if !info.has_files {
        return own;
    }
    let of_files = arrow_schema(&json!({"properties": upload::columns()}));
    let more = of_files.fields().iter().filter(|f| own.field_with_name(f.name()).is_err());
    Schema::new(own.fields().iter().chain(more).cloned().collect::<Vec<_>>())
}

fn stream(known: &Known) -> Stream {
    let name = &known.info.name;
    let has = |column: &String| known.schema.field_with_name(column).is_ok();
    let key: Option<Vec<String>> = known
        .info
        .primary_key
        .iter()
        .map(|path| match path.as_slice() {
            [column] if has(column) => Some(column.clone()),
            _ => None,
        })
        .collect();
    let cursors: Vec<String> = known.info.cursor_field.iter().filter(|c| has(c)).cloned().collect();
    let read_modes = if cursors.is_empty() { vec![ReadMode::Full] } else { vec![ReadMode::Full, ReadMode::Incremental] };
    Stream { primary_key: key.unwrap_or_default(), cursors, read_modes, ..Stream::new(name, name, known.schema.clone()) }
}

#[async_trait]
impl Source for ManifestSource {
    async fn check(&self) -> Result<()> {
        self.opened.check().await
    }

    async fn discover(&self, only: &[String]) -> Result<Catalog> {
        let (found, mut missing) = self.opened.discover(only).await?;
        if found.is_empty()
            && let Some(error) = missing.pop()
        {
            return Err(error);
        }
        for error in &missing {
            tracing::warn!(stream = error.place().stream, error = ?error, "the stream cannot be described");
        }
        Ok(Catalog { streams: found.into_iter().map(|info| stream(&self.remember(info))).collect() })
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            let known = self.known(&read.stream).await?;
            Self::refuse(&known, read)?;
            let (from, cursor) = match &read.read {
                Read::Incremental(cursor) => (state.stream(&read.stream).cloned().unwrap_or_else(|| json!({})), Some(&cursor.column)),
                _ => (json!({}), None),
            };
            let columns = read.columns.as_ref().or_else(|| (read.read == Read::Keys).then_some(&read.key));
            // Slices are read side by side, so what comes before a cut may come again after it.
            let may_stop = cursor.is_some() && read.may_stop && !read.exactly_once;
            let spec = json!({"state": from, "cursor": cursor, "columns": columns, "may_stop": may_stop});
            splits.push(Split::new(&read.stream, spec));
        }
        Ok(splits)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let name = split.streams.first().ok_or_else(|| Error::internal("a split without a stream"))?;
        let known = self.known(name).await?;
        let columns: Option<Vec<String>> = serde_json::from_value(split.spec.get("columns").cloned().unwrap_or_default())?;
        let schema = match &columns {
            None => known.schema.clone(),
            Some(columns) => projected(&known.schema, columns)?,
        };
        let wants_files = known.info.has_files && upload::columns().keys().any(|name| schema.field_with_name(name).is_ok());
        let whole = known.info.properties(None).is_none().then_some(WHOLE);
        let selection = Selection {
            stream: name.clone(),
            state: split.spec.get("state").and_then(Value::as_object).cloned().unwrap_or_default(),
            cursor_field: split.spec.get("cursor").and_then(Value::as_str).map(str::to_owned),
            properties: known.info.properties(columns.as_deref()),
            files: wants_files.then(|| self.files.clone()),
        };
        let may_stop = split.spec.get("may_stop").and_then(Value::as_bool).unwrap_or(false);
        let key = known.info.primary_key.iter().filter_map(|path| path.first().cloned()).collect();
        let mut rows = Columns::new(schema, key);
        let (mut reached, mut last) = (Value::Null, Instant::now());
        let mut events = self.opened.read(vec![selection]).await?;
        while let Some(event) = events.recv().await {
            match event {
                Event::Started { .. } => {}
                Event::Records { records, .. } => {
                    let records = if wants_files { upload::as_columns(&records, whole)? } else { records };
                    for record in records.iter() {
                        if let Some(rejected) = rows.push(record) {
                            out.reject(name, rejected).await?;
                        }
                        if rows.rows() >= BATCH {
                            out.batch(name, rows.batch()?).await?;
                        }
                    }
                }
                Event::State { state, .. } => {
                    reached = state;
                    if may_stop && (rows.rows() >= WORTH_SENDING || last.elapsed() > SEND_EVERY) {
                        out.batch(name, rows.batch()?).await?;
                        last = Instant::now();
                    }
                    if may_stop && out.should_stop() {
                        out.batch(name, rows.batch()?).await?;
                        let mut rest = split.clone();
                        rest.spec["state"] = reached.clone();
                        return Ok(SplitEnd::stopped(split, rest, reached));
                    }
                }
                // Credentials that were replaced are kept where they are renewed.
                Event::ConfigChanged(_) => {}
                Event::Ended { error: Some(error), .. } => return Err(error),
                Event::Ended { error: None, .. } => {
                    out.batch(name, rows.batch()?).await?;
                    return Ok(SplitEnd::finished(split, reached));
                }
            }
        }
        Err(Error::internal("a manifest's stream ended without saying so"))
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        let mut next = state.clone();
        for read in reads.iter().filter(|r| matches!(r.read, Read::Incremental(_))) {
            let end = ends.iter().find(|e| e.split.streams.contains(&read.stream));
            if let Some(Value::Object(reached)) = end.map(|e| &e.facts) {
                next.streams.insert(read.stream.clone(), Value::Object(reached.clone()));
            }
        }
        Ok(next)
    }
}

fn projected(schema: &Schema, columns: &[String]) -> Result<SchemaRef> {
    let field = |name: &String| {
        let found = schema.fields().iter().find(|f| f.name() == name).cloned();
        found.ok_or_else(|| Error::new(Code::NotFound, "the stream has no such column").detail(name.clone()))
    };
    Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_cursors_are_columns() {
        let info = |key: Vec<Vec<String>>, cursor: &str| StreamInfo {
            name: "s".into(),
            json_schema: json!({"properties": {"id": {"type": "integer"}, "at": {"type": "string"}}}),
            primary_key: key,
            cursor_field: Some(cursor.into()),
            cursor_is_open: false,
            has_files: false,
        };
        let of = |info: StreamInfo| stream(&Known { schema: Arc::new(arrow_schema(&info.json_schema)), info });
        let good = of(info(vec![vec!["id".into()]], "at"));
        assert_eq!((good.primary_key, good.cursors), (vec!["id".to_owned()], vec!["at".to_owned()]));
        let nested = of(info(vec![vec!["a".into(), "b".into()]], "gone"));
        assert!(nested.primary_key.is_empty() && nested.cursors.is_empty());
        assert_eq!(nested.read_modes, [ReadMode::Full]);
    }
}
