//! A tap as a source: one split over all its streams, whose state is the tap's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use trib_core::{Catalog, Code, Context, Emitter, Error, Read, Result, Source, Split, SplitEnd, State, StreamRead};
use trib_kit::lines::Lines;
use trib_kit::process::{PrivateFolder, Process, Program};
use trib_kit::program_log::passing_on;
use trib_kit::scrub;
use trib_kit::standing::Standing;

use super::catalog::TapCatalog;
use super::config::SingerConfig;
use super::input::{Input, Known, Pause, Rules};
use super::pipe::{advanced, ended, remembered, whole};

pub struct SingerSource {
    config: SingerConfig,
    dir: PathBuf,
    secrets: Arc<[String]>,
    catalog: tokio::sync::Mutex<Option<Arc<TapCatalog>>>,
    /// The tap between two loads of one read.
    live: Standing<Live>,
    /// What SCHEMA messages have said that the catalog did not.
    seen: Mutex<Vec<(String, Arc<Schema>)>>,
}

/// A tap that runs.
struct Live {
    process: Process,
    input: Input,
    /// Goes last, when the tap cannot read it any more.
    _folder: PrivateFolder,
}

/// What is to be read.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    state: Option<Value>,
    /// Of tables; see [`super::version`].
    #[serde(default)]
    versions: BTreeMap<String, i64>,
    reads: Vec<StreamRead>,
    /// The tap of the last load goes on.
    goes_on: bool,
}

impl SingerSource {
    pub fn new(config: SingerConfig, context: &Context) -> Arc<Self> {
        let secrets = config.secrets().into();
        Arc::new(Self {
            config,
            dir: context.project_dir.clone(),
            secrets,
            catalog: tokio::sync::Mutex::default(),
            live: Standing::default(),
            seen: Mutex::default(),
        })
    }

    fn name(&self) -> &str {
        self.config.tap.as_deref().unwrap_or_default()
    }

    async fn program(&self, args: &[(&str, &PathBuf)], flags: &[&str]) -> Result<Program> {
        let mut program = self.config.program(self.name(), &self.dir).await?;
        for (name, path) in args {
            program.args.extend([(*name).to_owned(), path.to_string_lossy().into_owned()]);
        }
        program.args.extend(flags.iter().map(|f| (*f).to_owned()));
        Ok(program)
    }

    /// The tap's catalog, asked for once.
    async fn catalog(&self) -> Result<Arc<TapCatalog>> {
        let mut known = self.catalog.lock().await;
        if let Some(catalog) = &*known {
            return Ok(catalog.clone());
        }
        let text = match &self.config.catalog {
            Some(file) => {
                let path = self.dir.join(file);
                tokio::fs::read(&path).await.map_err(|e| Error::from(e).detail(path.display().to_string()).setting("catalog"))?
            }
            None => self.asked().await?,
        };
        let catalog = TapCatalog::parse(&text)?.overridden(&self.config.schema, &self.config.metadata)?;
        Ok(known.insert(Arc::new(catalog)).clone())
    }

    async fn asked(&self) -> Result<Vec<u8>> {
        let folder = PrivateFolder::new()?;
        let settings = self.config.settings_file(&folder)?;
        let program = self.program(&[("--config", &settings)], &["--discover"]).await?;
        let mut process = Process::start(&program, self.name())?;
        drop(process.stdin());
        let mut text = Vec::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_end(&mut text).await?;
        }
        process.finish().await.map_err(|e| self.config.without_secrets(&e))?;
        Ok(text)
    }

    async fn start(&self, spec: &Spec) -> Result<Live> {
        let catalog = self.catalog().await?;
        let folder = PrivateFolder::new()?;
        let settings = self.config.settings_file(&folder)?;
        let selected = folder.write("catalog.json", &serde_json::to_vec(&catalog.selected(&spec.reads))?)?;
        let mut args = vec![("--config", &settings), (if self.config.properties { "--properties" } else { "--catalog" }, &selected)];
        let state;
        if let Some(value) = &spec.state {
            state = folder.write("state.json", &serde_json::to_vec(value)?)?;
            args.push(("--state", &state));
        }
        let mut process = Process::start(&self.program(&args, &[]).await?, self.name())?;
        drop(process.stdin());
        let stdout = process.stdout().ok_or_else(|| Error::internal("a program was started without its output"))?;
        let mut input = Input::new(Lines::of_async(stdout), Rules { nested: true, strict: false, versions: true });
        for read in &spec.reads {
            input.declare(&read.stream, self.wanted(&catalog, read)?)?;
        }
        input.remember(&spec.versions);
        for entry in &catalog.streams {
            if let Some(name) = &entry.stream {
                input.alias(&entry.tap_stream_id, name);
            }
        }
        let secrets = self.secrets.clone();
        input.every_now_and_then(passing_on(process.said.clone(), move |text| scrub::without(text, secrets.iter())));
        Ok(Live { process, input, _folder: folder })
    }

    /// The columns that are read, as the tap gives them now.
    fn wanted(&self, catalog: &TapCatalog, read: &StreamRead) -> Result<Known> {
        let entry = catalog.streams.iter().find(|e| e.tap_stream_id == read.stream);
        let entry = entry.ok_or_else(|| Error::new(Code::NotFound, "the tap has no such stream").stream(&read.stream))?;
        let all = self.schema_of(&read.stream).map_or_else(|| entry.columns(), Ok)?;
        // A column that cannot be read, or that an earlier SCHEMA did not have, is no news either.
        let mut offered: Vec<String> = all.fields().iter().map(|f| f.name().clone()).collect();
        offered.extend(entry.schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.keys().cloned()));
        let schema = match &read.columns {
            None => all,
            Some(names) => {
                let places: Vec<usize> = names.iter().map(|n| all.index_of(n)).collect::<std::result::Result<_, _>>()?;
                Arc::new(all.project(&places)?)
            }
        };
        Ok(Known { schema, key: Vec::new(), bookmarks: Vec::new(), offered })
    }

    fn schema_of(&self, stream: &str) -> Option<Arc<Schema>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().find(|(name, _)| name == stream).map(|(_, schema)| schema.clone())
    }
}

#[async_trait]
impl Source for SingerSource {
    /// Most taps can only prove that they work by discovering.
    async fn check(&self) -> Result<()> {
        self.catalog().await.map(drop)
    }

    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        let mut catalog = self.catalog().await?.offered();
        for stream in &mut catalog.streams {
            if let Some(schema) = self.schema_of(&stream.name) {
                stream.schema = schema;
            }
            stream.anew = self.live.is_some_and(|l| l.input.is_anew(&stream.name));
        }
        Ok(catalog)
    }

    fn streams_together(&self) -> bool {
        true
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        if let Some(read) = reads.iter().find(|r| matches!(r.read, Read::Range { .. } | Read::Keys)) {
            return Err(Error::new(Code::Unsupported, "a tap cannot be asked for a range")
                .stream(&read.stream)
                .hint("most taps have a setting such as `start_date`; `trib run --full-refresh` reads everything again"));
        }
        let goes_on = self.live.goes_on();
        let spec = Spec { state: state.global.clone(), versions: remembered(state), reads: reads.to_vec(), goes_on };
        let streams = reads.iter().map(|r| r.stream.clone()).collect();
        Ok(vec![Split { streams, spec: serde_json::to_value(spec)?, rows: None, covers: None }])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let spec: Spec = serde_json::from_value(split.spec.clone())?;
        let left = if spec.goes_on { self.live.take() } else { None };
        let mut live = match left {
            Some(mut live) => {
                let catalog = self.catalog().await?;
                for read in &spec.reads {
                    live.input.declare(&read.stream, self.wanted(&catalog, read)?)?;
                }
                live
            }
            None => self.start(&spec).await?,
        };
        let whole: Vec<String> = whole(&spec.reads).into_iter().map(str::to_owned).collect();
        let mut out = out.clone();
        let (mut live, pause) = tokio::task::spawn_blocking(move || {
            let mut pause = live.input.read(&mut out, &whole)?;
            if pause == Pause::Schema {
                live.input.to_rows()?;
                if live.input.ended() {
                    pause = Pause::End;
                }
            }
            Ok::<_, Error>((live, pause))
        })
        .await
        .map_err(|_| Error::internal("reading the tap has panicked"))??;
        let states = live.input.take_states();
        let end = ended(split, pause, &live.input, states.last());
        if pause == Pause::End {
            live.process.finish().await.map_err(|e| self.config.without_secrets(&e))?;
            return Ok(end);
        }
        if pause == Pause::Schema {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = live.input.known().map(|(name, known)| (name.to_owned(), known.schema.clone())).collect();
        }
        self.live.keep(live);
        Ok(end)
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        let mut state = state.clone();
        for read in reads {
            state.streams.entry(read.stream.clone()).or_insert_with(|| json!({}));
        }
        advanced(state, ends)
    }

    async fn acknowledge(&self, _state: &State) -> Result<()> {
        self.live.acknowledge();
        Ok(())
    }
}
