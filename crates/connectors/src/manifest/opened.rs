//! A manifest with a configuration: ready to be checked, discovered and read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use trib_core::{Code, Error, Result};
use trib_kit::http::Client;

use super::budget::Budget;
use super::config;
use super::cursor::Observed;
use super::dynamic;
use super::env::Env;
use super::groups::Groups;
use super::keepsake::Keepsake;
use super::manifest::Manifest;
use super::node::{Expr, Node};
use super::options::Options;
use super::pace::Pace;
use super::read::Selection;
use super::requester::{Call, Requester};
use super::router::parent_names;
use super::slice::Slice;
use super::stream::{Context, Stream};
use super::template::{Scope, python_str};

/// Slices that are read side by side, where the manifest says nothing.
const USUAL_CONCURRENCY: usize = 2;
/// For whom a tester names other streams to be checked.
const CHECK_NAMES: &str = "__airbyte_check_stream_names";

fn concurrency(manifest: &Manifest, config: &Value) -> Result<usize> {
    let Some(level) = manifest.root().get("concurrency_level") else { return Ok(USUAL_CONCURRENCY) };
    let value = level.need_expr("default_concurrency")?.eval(&Scope::new().with("config", config))?;
    let default = value.as_u64().or_else(|| value.as_str().and_then(|t| t.parse().ok()));
    let default = default.ok_or_else(|| level.wrong("`default_concurrency` does not give a whole number"))?;
    let most = level.integer("max_concurrency").and_then(|m| u64::try_from(m).ok()).unwrap_or(u64::MAX);
    Ok(usize::try_from(default.min(most)).unwrap_or(1).clamp(1, 256))
}

/// How many asynchronous jobs the API may have at once.
fn most_jobs(manifest: &Manifest, config: &Value) -> Result<usize> {
    let Some(most) = manifest.root().expr("max_concurrent_async_job_count")? else { return Ok(1) };
    let value = most.eval(&Scope::new().with("config", config))?;
    let most = value.as_i64().or_else(|| value.as_str().and_then(|t| t.trim().parse().ok()));
    Ok(most.and_then(|m| usize::try_from(m).ok()).unwrap_or(1).clamp(1, 256))
}

/// A connector that can talk to its API. Opening one does no I/O.
pub struct Opened {
    pub(super) manifest: Arc<Manifest>,
    pub(super) env: Arc<Env>,
    /// The user's configuration, changed by the manifest's migrations; to be kept in place of the one that was given.
    pub migrated: Option<Value>,
    documents: OnceCell<Arc<Vec<Value>>>,
    pub(super) groups: Groups,
}

/// A stream as a catalog shows it.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    pub name: String,
    pub json_schema: Value,
    /// Paths, each a list of keys.
    pub primary_key: Vec<Vec<String>>,
    /// The field that incremental reads go by.
    pub cursor_field: Option<String>,
    /// The user may choose another.
    pub cursor_is_open: bool,
    /// Its records point to files, which can be downloaded with them.
    pub has_files: bool,
}

impl StreamInfo {
    /// The properties of its schema that a read of these columns needs, those of its key and its cursor among them; `None` where it declares none.
    pub(super) fn properties(&self, columns: Option<&[String]>) -> Option<Map<String, Value>> {
        let mut properties = self.json_schema.get("properties")?.as_object().filter(|p| !p.is_empty())?.clone();
        if let Some(columns) = columns {
            let key = self.primary_key.iter().filter_map(|path| path.first());
            let needed: HashSet<&String> = columns.iter().chain(key).chain(&self.cursor_field).collect();
            properties.retain(|name, _| needed.contains(name));
        }
        Some(properties)
    }
}

impl Opened {
    /// `keepsake` is where replaced credentials are kept.
    pub(super) fn new(manifest: Arc<Manifest>, given: &Value, keepsake: Option<Keepsake>) -> Result<Self> {
        let spec = manifest.spec_node();
        let prepared = config::prepare(spec.as_ref(), given)?;
        config::validate(spec.as_ref(), &prepared.config)?;
        let secrets = config::secrets(spec.as_ref(), &prepared.config);
        let env = Self::env(&manifest, prepared.config, secrets, keepsake)?;
        let groups = Groups::build(&manifest.root());
        Ok(Self { manifest: manifest.clone(), env: Arc::new(env), migrated: prepared.migrated, documents: OnceCell::new(), groups })
    }

    fn env(manifest: &Manifest, config: Value, secrets: Vec<String>, keepsake: Option<Keepsake>) -> Result<Env> {
        let budget = manifest.root().get("api_budget").map(|b| Budget::build(&b, &config)).transpose()?;
        let jobs = most_jobs(manifest, &config)?;
        let pace = Pace::new(concurrency(manifest, &config)?);
        let client = Client::new(concat!("tributary/", env!("CARGO_PKG_VERSION")), Duration::from_mins(5))?;
        Ok(Env::new(config, client, budget, pace, jobs, secrets, keepsake))
    }

    /// How many slices may be read at once.
    pub fn concurrency(&self) -> Result<usize> {
        concurrency(&self.manifest, &self.env.config)
    }

    /// A configuration that authenticators have changed, to be kept by the user; once.
    pub fn take_changed_config(&self) -> Option<Value> {
        self.env.take_changes()
    }

    /// The manifest's streams, those of conditions and templates among them. Templates may ask the API, once.
    pub(super) async fn stream_documents(&self) -> Result<Arc<Vec<Value>>> {
        self.documents.get_or_try_init(|| self.make_documents()).await.cloned()
    }

    async fn make_documents(&self) -> Result<Arc<Vec<Value>>> {
        config::validate_parts(self.manifest.spec_node().as_ref(), &self.env.config)?;
        let mut streams = self.static_streams()?;
        for definition in self.manifest.root().items("dynamic_streams") {
            streams.extend(dynamic::streams(&self.env, &definition, &self.manifest.dir).await?);
        }
        dynamic::unique(&streams)?;
        Ok(Arc::new(streams))
    }

    fn static_streams(&self) -> Result<Vec<Value>> {
        let mut streams = Vec::new();
        for stream in self.manifest.root().items("streams") {
            if stream.kind() != "ConditionalStreams" {
                streams.push(stream.value.clone());
                continue;
            }
            let condition = Expr::new(stream.text("condition").unwrap_or_default(), Arc::new(Value::Object(Map::new())))?;
            if condition.truthy(&self.env.scope())? {
                streams.extend(stream.items("streams").iter().map(|s| s.value.clone()));
            }
        }
        Ok(streams)
    }

    /// Makes a stream for a read. `documents` are all streams.
    pub(super) fn stream(&self, documents: &[Value], selection: &Selection) -> Result<Stream> {
        let name = selection.stream.as_str();
        let (index, document) = documents
            .iter()
            .enumerate()
            .find(|(_, d)| d.get("name").and_then(Value::as_str) == Some(name))
            .ok_or_else(|| Error::new(Code::NotFound, "the manifest has no such stream").detail(name.to_owned()).stream(name))?;
        let mut parents = HashSet::new();
        for document in documents {
            if let Some(router) = document.pointer("/retriever/partition_router") {
                parent_names(router, &mut parents);
            }
        }
        let context = Context {
            state: &selection.state,
            cursor_field: selection.cursor_field.as_deref(),
            wanted: selection.properties.as_ref(),
            is_parent: parents.contains(name),
            dir: &self.manifest.dir,
            files: selection.files.as_deref(),
        };
        Stream::build(&self.env, &Node::new(document, format!("streams[{index}]")), &context).map_err(|e| e.stream(name))
    }

    /// The streams on offer. One that cannot be described does not hide the others: why it is missing stands beside them.
    pub async fn discover(&self, only: &[String]) -> Result<(Vec<StreamInfo>, Vec<Error>)> {
        let documents = self.stream_documents().await?;
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (index, document) in documents.iter().enumerate() {
            let node = Node::new(document, format!("streams[{index}]"));
            let name = node.text("name").unwrap_or_default();
            if !only.is_empty() && !only.iter().any(|o| o == name) {
                continue;
            }
            match self.info(&documents, &node).await {
                Ok(info) => found.push(info),
                Err(error) => missing.push(error.stream(name)),
            }
        }
        Ok((found, missing))
    }

    async fn info(&self, documents: &[Value], node: &Node<'_>) -> Result<StreamInfo> {
        let description = Stream::describe(&self.env, node)?;
        let stream = self.stream(documents, &Selection::of(&description.name))?;
        Ok(StreamInfo {
            name: description.name,
            json_schema: stream.schema().await?.clone(),
            primary_key: description.primary_key,
            cursor_field: description.cursor_field,
            cursor_is_open: description.cursor_is_open,
            has_files: description.has_files,
        })
    }

    /// Reads the first record of the streams that the manifest names for it.
    pub async fn check(&self) -> Result<()> {
        let check = self.manifest.root().need("check")?;
        if check.kind() == "CheckRequest" {
            let requester = Requester::build(&self.env, &check.need("requester")?, false)?;
            let slice = Slice::default();
            return requester.send(&self.env, Call::plain(&slice), Options::default()).await.map(drop);
        }
        if let Some(overrides) = check.get("config_overrides").and_then(|o| o.value.as_object()) {
            let mut config = (*self.env.config).clone();
            if let Value::Object(map) = &mut config {
                map.extend(overrides.clone());
            }
            let env = Self::env(&self.manifest, config, self.env.secrets(), self.env.keepsake.clone())?;
            let groups = Groups::build(&self.manifest.root());
            let other = Opened { manifest: self.manifest.clone(), env: Arc::new(env), migrated: None, documents: OnceCell::new(), groups };
            return Box::pin(other.check_streams(&check)).await;
        }
        self.check_streams(&check).await
    }

    async fn check_streams(&self, check: &Node<'_>) -> Result<()> {
        let names_of_dynamic = check.items("dynamic_streams_check_configs");
        let mut documents = Arc::new(self.static_streams()?);
        let mut wanted: Vec<String> = match self.env.config.get(CHECK_NAMES).and_then(Value::as_array) {
            Some(names) if !names.is_empty() => names.iter().map(python_str).collect(),
            _ => check.items("stream_names").iter().map(|n| python_str(n.value)).collect(),
        };
        let by_count = check.kind() == "CheckDynamicStream";
        if by_count
            || !names_of_dynamic.is_empty()
            || wanted.iter().any(|w| !documents.iter().any(|d| d.get("name") == Some(&w.as_str().into())))
        {
            documents = self.stream_documents().await?;
        } else {
            config::validate_parts(self.manifest.spec_node().as_ref(), &self.env.config)?;
        }
        let name_of = |d: &Value| d.get("name").map(python_str).unwrap_or_default();
        if by_count {
            let count = check.integer("stream_count").and_then(|c| usize::try_from(c).ok()).unwrap_or(1);
            if documents.is_empty() {
                return Err(check.wrong("there are no streams to check"));
            }
            if check.value.get("use_check_availability") == Some(&Value::Bool(false)) {
                return Ok(());
            }
            wanted = documents.iter().take(count).map(name_of).collect();
        }
        for dynamic in names_of_dynamic {
            let name = dynamic.text("dynamic_stream_name").unwrap_or_default();
            let definitions = self.manifest.root().items("dynamic_streams");
            let definition = definitions
                .iter()
                .enumerate()
                .find(|(i, d)| d.text("name").map_or_else(|| format!("dynamic_stream_{i}"), str::to_owned) == name);
            let (_, definition) =
                definition.ok_or_else(|| dynamic.wrong("the manifest has no such dynamic stream").detail(name.to_owned()))?;
            let made = dynamic::streams(&self.env, definition, &self.manifest.dir).await?;
            let count = dynamic.integer("stream_count").and_then(|c| usize::try_from(c).ok()).unwrap_or(made.len());
            wanted.extend(made.iter().take(count).map(name_of));
        }
        for name in &wanted {
            self.check_stream(&documents, name).await.map_err(|e| e.stream(name.clone()))?;
        }
        Ok(())
    }

    async fn check_stream(&self, documents: &[Value], name: &str) -> Result<()> {
        let stream = self.stream(documents, &Selection::of(name))?;
        let Some(slice) = stream.next_slice().await? else {
            return Err(Error::new(Code::ConfigInvalid, "the stream has nothing to read, so that the connection cannot be checked"));
        };
        let mut pages = stream.pages(&slice);
        let mut observed = Observed::default();
        while let Some(records) = stream.next_page(&slice, &mut pages, &mut observed).await? {
            if !records.is_empty() {
                break;
            }
        }
        Ok(())
    }
}
