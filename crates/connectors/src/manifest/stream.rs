//! One stream of a manifest, made for one read.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use trib_core::{Code, Error, Result};

use super::cursor::{Bounds, Observed, PartitionCursor, Point, Window, WindowRule, build_rule};
use super::env::Env;
use super::fetch::{Fetch, FetchState};
use super::node::{Expr, Node};
use super::options::RequestOption;
use super::records::Records;
use super::retriever::{Injections, Place};
use super::router::{Router, Walk};
use super::schema::SchemaLoader;
use super::slice::Slice;
use super::span::Span;
use super::upload::FileUploader;

/// What a stream's part of the state says when it has no cursor.
const NO_CURSOR: &str = "__ab_no_cursor_state_message";

/// What a stream is made for.
pub(super) struct Context<'a> {
    /// The stream's own state, empty for a first read.
    pub(super) state: &'a Map<String, Value>,
    /// The cursor that the user chose.
    pub(super) cursor_field: Option<&'a str>,
    /// The properties of its schema that are wanted; `None` for all that there are.
    pub(super) wanted: Option<&'a Map<String, Value>>,
    /// Another stream reads its records, so that its answers are worth keeping.
    pub(super) is_parent: bool,
    /// Where the manifest stands.
    pub(super) dir: &'a Path,
    /// Where files go that records point to; nowhere, if they are not wanted.
    pub(super) files: Option<&'a Path>,
}

pub(super) struct Stream {
    name: String,
    env: Arc<Env>,
    fetch: Fetch,
    schema: SchemaLoader,
    known_schema: OnceCell<Value>,
    router: Option<Arc<Router>>,
    cursor: Option<Mutex<Cursor>>,
    rule: Option<Arc<WindowRule>>,
    generation: tokio::sync::Mutex<Generation>,
    uploader: Option<FileUploader>,
}

enum Cursor {
    Window(Box<Window>),
    Partitions(Box<PartitionCursor>),
}

/// How far slices were given out.
enum Generation {
    Begin,
    Walking { walk: Walk, ready: VecDeque<(Slice, Option<Bounds>)> },
    Ready(VecDeque<(Slice, Option<Bounds>)>),
}

/// What a stream looks like from outside; no I/O.
pub(super) struct Description {
    pub(super) name: String,
    pub(super) primary_key: Vec<Vec<String>>,
    pub(super) cursor_field: Option<String>,
    /// The user may choose another cursor.
    pub(super) cursor_is_open: bool,
    /// Its records point to files.
    pub(super) has_files: bool,
}

impl Stream {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, context: &Context<'_>) -> Result<Self> {
        Self::build_named(env, node, context, &name_of(node)?)
    }

    fn build_named(env: &Arc<Env>, node: &Node<'_>, context: &Context<'_>, name: &str) -> Result<Self> {
        if node.kind() == "StateDelegatingStream" {
            let none = Map::new();
            if context.state.is_empty() || is_too_old(env, node, context.state)? {
                let first = Context { state: &none, ..*context };
                return Self::build_named(env, &node.need("full_refresh_stream")?, &first, name);
            }
            return Self::build_named(env, &node.need("incremental_stream")?, context, name);
        }
        let mut state = context.state.clone();
        state.remove(NO_CURSOR);
        for migration in node.items("state_migrations") {
            state = super::migration::migrate(env, &migration, node, state)?;
        }
        let retriever = node.need("retriever")?;
        let own = Context { state: &state, ..*context };
        let router = Router::of_retriever(env, &retriever, &own)?;
        let incremental = node.get("incremental_sync");
        let rule = match &incremental {
            None => None,
            Some(cursor) => Some(Arc::new(build_rule(env, cursor, context.cursor_field)?)),
        };
        let cursor = match (&rule, &router) {
            (None, _) => None,
            (Some(rule), None) => Some(Cursor::Window(Box::new(Window::new(rule.clone(), &state)?))),
            (Some(_), Some(_)) if incremental.as_ref().is_some_and(|i| i.kind() == "IncrementingCountCursor") => {
                return Err(node.wrong("a counting cursor and a partition router cannot be used together"));
            }
            (Some(rule), Some(router)) => {
                let global = router.groups() || incremental.as_ref().is_some_and(|i| i.flag("global_substream_cursor"));
                Some(Cursor::Partitions(Box::new(PartitionCursor::new(rule.clone(), &state, global)?)))
            }
        };
        let flag = |name: &str| incremental.as_ref().is_some_and(|i| i.flag(name));
        let place = Place {
            use_cache: context.is_parent,
            client_side: flag("is_client_side_incremental"),
            data_feed: flag("is_data_feed"),
            injections: injections(env, incremental.as_ref(), router.clone())?,
            rule: rule.clone(),
            wanted: context.wanted.cloned(),
        };
        let uploader = node.get("file_uploader").zip(context.files).map(|(node, folder)| FileUploader::build(env, &node, folder));
        Ok(Self {
            name: name.to_owned(),
            env: env.clone(),
            fetch: Fetch::build(env, &retriever, &node.items("transformations"), place)?,
            schema: SchemaLoader::build(env, node, context.dir)?,
            known_schema: OnceCell::new(),
            router,
            cursor: cursor.map(Mutex::new),
            rule,
            generation: tokio::sync::Mutex::new(Generation::Begin),
            uploader: uploader.transpose()?,
        })
    }

    pub(super) fn describe(env: &Env, node: &Node<'_>) -> Result<Description> {
        let name = name_of(node)?;
        let own = if node.kind() == "StateDelegatingStream" { node.need("full_refresh_stream")? } else { node.clone() };
        let cursor = own.get("incremental_sync");
        let cursor_field = match &cursor {
            Some(cursor) => Some(cursor.need_expr("cursor_field")?.text(&env.scope())?),
            None => None,
        };
        Ok(Description {
            name,
            primary_key: primary_key(own.value.get("primary_key")),
            cursor_field,
            cursor_is_open: cursor.is_some_and(|c| c.flag("allow_catalog_defined_cursor_field")),
            has_files: own.get("file_uploader").is_some(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The JSON schema of its records. May ask the API, once.
    pub(super) async fn schema(&self) -> Result<&Value> {
        self.known_schema.get_or_try_init(|| self.schema.load(&self.env)).await
    }

    fn cursor(&self) -> Option<std::sync::MutexGuard<'_, Cursor>> {
        self.cursor.as_ref().map(|c| c.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next slice to read, in order; `None` after the last.
    pub(super) async fn next_slice(&self) -> Result<Option<Slice>> {
        let mut generation = self.generation.lock().await;
        if let Generation::Begin = *generation {
            *generation = self.begin()?;
        }
        match &mut *generation {
            Generation::Begin => Ok(None),
            Generation::Ready(ready) => Ok(ready.pop_front().map(Self::bounded)),
            Generation::Walking { walk, ready } => loop {
                if let Some(slice) = ready.pop_front() {
                    return Ok(Some(Self::bounded(slice)));
                }
                let Some(partition) = Box::pin(walk.next(&self.env)).await? else { return Ok(None) };
                match self.cursor().as_deref_mut() {
                    Some(Cursor::Partitions(cursor)) => {
                        ready.extend(cursor.open(&partition)?.into_iter().map(|(slice, bounds)| (slice, Some(bounds))));
                    }
                    _ => ready.push_back((partition, None)),
                }
            },
        }
    }

    fn bounded((slice, bounds): (Slice, Option<Bounds>)) -> Slice {
        slice.with_bounds(bounds)
    }

    fn begin(&self) -> Result<Generation> {
        if let Some(router) = &self.router {
            return Ok(Generation::Walking { walk: Walk::new(router), ready: VecDeque::new() });
        }
        Ok(Generation::Ready(match self.cursor().as_deref_mut() {
            Some(Cursor::Window(window)) => {
                let bounds = window.bounds();
                let slices = window.windows()?.into_iter().map(|w| Slice::default().within(w));
                slices.map(|s| (s, Some(bounds.clone()))).collect()
            }
            _ => VecDeque::from([(Slice::default(), None)]),
        }))
    }

    pub(super) fn pages(&self, slice: &Slice) -> FetchState {
        self.fetch.start(slice)
    }

    /// The records of a slice's next page; what the cursor sees in them is noted.
    pub(super) async fn next_page(&self, slice: &Slice, pages: &mut FetchState, observed: &mut Observed) -> Result<Option<Records>> {
        let schema = if self.fetch.normalizes() { Some(self.schema().await?) } else { None };
        let mut records = Box::pin(self.fetch.next_page(&self.env, pages, schema, slice.bounds())).await?;
        if let (Some(uploader), Some(records)) = (&self.uploader, &mut records) {
            let files = Box::pin(uploader.fetch(&self.env, &self.name, records)).await?;
            records.attach(files);
        }
        if let (Some(rule), Some(records)) = (&self.rule, &records) {
            records.iter().for_each(|record| observed.see(rule, record));
        }
        Ok(records)
    }

    /// A slice was read to its end.
    pub(super) fn close(&self, slice: &Slice, observed: Observed) {
        match self.cursor().as_deref_mut() {
            Some(Cursor::Window(window)) => window.close(slice, observed.0),
            Some(Cursor::Partitions(cursor)) => cursor.close(slice, observed.0),
            None => {}
        }
    }

    /// A slice could not be read.
    pub(super) fn fail(&self) {
        if let Some(Cursor::Partitions(cursor)) = self.cursor().as_deref_mut() {
            cursor.fail();
        }
    }

    /// All slices were given out and closed.
    pub(super) fn finish(&self) {
        let parent_state = self.router.as_ref().and_then(|r| r.parent_state());
        if let Some(Cursor::Partitions(cursor)) = self.cursor().as_deref_mut() {
            cursor.finish(parent_state);
        }
    }

    /// Whether a state is worth keeping after each slice, or only now and then.
    pub(super) fn has_partitions(&self) -> bool {
        self.router.is_some()
    }

    pub(super) fn is_incremental(&self) -> bool {
        self.rule.is_some()
    }

    /// What the next read goes on from, in the reference's form.
    pub(super) fn state(&self) -> Value {
        match self.cursor().as_deref() {
            None => json!({NO_CURSOR: true}),
            Some(Cursor::Window(window)) => Value::Object(window.state()),
            Some(Cursor::Partitions(cursor)) => cursor.state(),
        }
    }
}

fn name_of(node: &Node<'_>) -> Result<String> {
    match node.text("name") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Error::new(Code::ConfigInvalid, "a stream has no name").setting(node.path.clone())),
    }
}

/// Whether the API may have forgotten what came since this state.
fn is_too_old(env: &Arc<Env>, node: &Node<'_>, state: &Map<String, Value>) -> Result<bool> {
    let period = node.expr("api_retention_period")?.map(|e| e.text(&env.scope())).transpose()?;
    let Some(period) = period.filter(|p| !p.is_empty() && p != "None") else { return Ok(false) };
    let period =
        Span::parse(&period).ok_or_else(|| node.wrong("`api_retention_period` is a duration such as P30D").detail(period.clone()))?;
    let oldest = Point::Time(super::time::now()).before(period);
    for part in ["full_refresh_stream", "incremental_stream"] {
        let Some(cursor) = node.need(part)?.get("incremental_sync") else {
            // It was read as a whole, and has said nothing but that.
            if state.get(NO_CURSOR).is_some_and(super::parameters::truthy) {
                return Ok(false);
            }
            continue;
        };
        if cursor.kind() == "IncrementingCountCursor" {
            return Err(node.wrong("`api_retention_period` needs a cursor of times"));
        }
        if let Some(reached) = build_rule(env, &cursor, None)?.reached_in(state) {
            let old = reached < oldest;
            if old {
                tracing::warn!("the state is older than what the API keeps: everything is read again");
            }
            return Ok(old);
        }
    }
    Ok(true)
}

/// A list of paths, each a list of keys.
fn primary_key(value: Option<&Value>) -> Vec<Vec<String>> {
    let path = |value: &Value| match value {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(parts) => parts.iter().map(|p| p.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    match value {
        Some(Value::String(name)) if !name.is_empty() => vec![vec![name.clone()]],
        Some(Value::Array(parts)) => parts.iter().filter_map(path).collect(),
        _ => Vec::new(),
    }
}

/// What the slice puts into requests: the router's values, and the window's ends.
fn injections(env: &Arc<Env>, cursor: Option<&Node<'_>>, router: Option<Arc<Router>>) -> Result<Injections> {
    let mut injections: Injections = Vec::new();
    if let Some(router) = router {
        injections.push(Box::new(move |env, slice, options| router.inject(env, slice, options)));
    }
    let Some(cursor) = cursor else { return Ok(injections) };
    let scope = env.scope();
    let name = |field: &str, usual: &str| Expr::text_or(cursor.expr(field)?.as_ref(), usual, &scope);
    let ends = if cursor.kind() == "IncrementingCountCursor" {
        vec![("start_value_option", "start".to_owned())]
    } else {
        vec![
            ("start_time_option", name("partition_field_start", "start_time")?),
            ("end_time_option", name("partition_field_end", "end_time")?),
        ]
    };
    for (option, field) in ends {
        if let Some(option) = RequestOption::optional(cursor, option)? {
            injections
                .push(Box::new(move |env, slice, options| option.inject(env, options, slice.get(&field).cloned().unwrap_or(Value::Null))));
        }
    }
    Ok(injections)
}
