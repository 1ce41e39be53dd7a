//! A connector as a source: one split over all its streams, whose state is the connector's own.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trib_core::{Catalog, Code, Context, Emitter, Error, Read, Result, Source, Split, SplitEnd, State, StreamRead};
use trib_kit::program_log::passing_on;
use trib_kit::records::Decoder;
use trib_kit::standing::Standing;

use super::catalog::AirbyteCatalog;
use super::config::AirbyteConfig;
use super::connector::{Connector, no_answer};
use super::input::{Input, Pause, Wanted, clean};
use super::program::Call;
use super::state::Folded;

pub struct AirbyteSource {
    connector: Connector,
    catalog: tokio::sync::OnceCell<AirbyteCatalog>,
    /// The connector between two loads of one read.
    live: Standing<Live>,
}

/// A connector that reads.
struct Live {
    call: Call,
    input: Input,
}

/// What is to be read.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    state: Folded,
    reads: Vec<StreamRead>,
    /// The connector of the last load goes on.
    goes_on: bool,
}

impl AirbyteSource {
    pub fn new(config: AirbyteConfig, context: &Context) -> Arc<Self> {
        Arc::new(Self { connector: Connector::new(config, context), catalog: tokio::sync::OnceCell::new(), live: Standing::default() })
    }

    async fn catalog(&self) -> Result<&AirbyteCatalog> {
        self.catalog.get_or_try_init(|| self.ask_for_catalog()).await
    }

    async fn ask_for_catalog(&self) -> Result<AirbyteCatalog> {
        let found = match &self.connector.config.catalog {
            Some(file) => {
                let path = self.connector.dir.join(file);
                let wrong = |e: Error| e.file(path.display().to_string(), None, None).setting("catalog");
                let text = tokio::fs::read(&path).await.map_err(|e| wrong(e.into()))?;
                serde_json::from_slice(&text).map_err(|e| wrong(e.into()))?
            }
            None => self.connector.asked("discover").await?.catalog.ok_or_else(|| no_answer("CATALOG"))?,
        };
        AirbyteCatalog::parse(found)?.overridden(&self.connector.config.schema)
    }

    async fn start(&self, spec: &Spec) -> Result<Live> {
        let mut files = vec![("config", self.connector.settings.now()), ("catalog", self.catalog().await?.configured(&spec.reads)?)];
        if !spec.state.is_empty() {
            files.push(("state", spec.state.to_file()));
        }
        let (call, lines) = self.connector.call("read", &files).await?;
        Ok(Live { call, input: Input::new(lines, spec.state.clone(), self.connector.settings.clone()) })
    }
}

fn wanted(catalog: &AirbyteCatalog, read: &StreamRead) -> Result<Wanted> {
    let entry = catalog.entry(&read.stream)?;
    let mut schema = entry.columns()?;
    if let Some(names) = &read.columns {
        let places: Vec<usize> = names.iter().map(|n| schema.index_of(n)).collect::<std::result::Result<_, _>>()?;
        schema = Arc::new(schema.project(&places)?);
    }
    Ok(Wanted { name: entry.stream_name(), decoder: Decoder::new(&read.stream, schema, &[])?, exactly_once: read.exactly_once })
}

#[async_trait]
impl Source for AirbyteSource {
    async fn check(&self) -> Result<()> {
        self.connector.check().await
    }

    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        Ok(self.catalog().await?.offered())
    }

    fn streams_together(&self) -> bool {
        true
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        if let Some(read) = reads.iter().find(|r| matches!(r.read, Read::Range { .. } | Read::Keys)) {
            return Err(Error::new(Code::Unsupported, "a connector cannot be asked for a range")
                .stream(&read.stream)
                .hint("most have a setting such as `start_date`; `trib run --full-refresh` reads everything again"));
        }
        let goes_on = self.live.goes_on();
        let mut folded = Folded::of(state.global.as_ref());
        // Reading everything means from the beginning.
        let catalog = self.catalog().await?;
        for read in reads.iter().filter(|r| matches!(r.read, Read::Full)) {
            let entry = catalog.entry(&read.stream)?.stream_name();
            folded.without(|stream| stream.full() == entry.full() || (stream.namespace.is_none() && stream.name == entry.name));
        }
        let spec = Spec { state: folded, reads: reads.to_vec(), goes_on };
        let streams = reads.iter().map(|r| r.stream.clone()).collect();
        Ok(vec![Split { streams, spec: serde_json::to_value(spec)?, rows: None, covers: None }])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let spec: Spec = serde_json::from_value(split.spec.clone())?;
        let left = if spec.goes_on { self.live.take() } else { None };
        let mut live = match left {
            Some(live) => live,
            None => self.start(&spec).await?,
        };
        let catalog = self.catalog().await?;
        live.input.want(spec.reads.iter().map(|read| wanted(catalog, read)).collect::<Result<_>>()?);
        let may_stop = spec.reads.iter().all(|r| r.may_stop);
        let (mut out, said, settings) = (out.clone(), live.call.said(), self.connector.settings.clone());
        let (mut live, pause) = tokio::task::spawn_blocking(move || {
            let pause = live.input.read(&mut out, may_stop, passing_on(said, move |text| settings.scrub.text(text)))?;
            Ok::<_, Error>((live, pause))
        })
        .await
        .map_err(|_| Error::internal("reading the connector has panicked"))??;
        let facts = json!({"state": live.input.state});
        if pause == Pause::Budget {
            self.live.keep(live);
            return Ok(SplitEnd::stopped(split, split.clone(), facts));
        }
        let ended = live.call.finish().await.map_err(|e| clean(&e, &self.connector.settings.scrub));
        // What the connector says itself is better than how it has ended.
        match live.input.failed.take() {
            Some(error) => Err(error),
            None => ended.and(live.input.incomplete.take().map_or(Ok(()), Err)).map(|()| SplitEnd::finished(split, facts)),
        }
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        let mut state = state.clone();
        for read in reads {
            state.streams.entry(read.stream.clone()).or_insert_with(|| json!({}));
        }
        if let Some(folded) = ends.iter().rev().map(|end| &end.facts["state"]).find(|s| s.as_array().is_some_and(|s| !s.is_empty())) {
            state.global = Some(folded.clone());
        }
        Ok(state)
    }

    async fn acknowledge(&self, _state: &State) -> Result<()> {
        self.live.acknowledge();
        Ok(())
    }
}
