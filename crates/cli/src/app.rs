//! What commands share: project, control database, engine, connections. Each is opened when a command first needs it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use trib_core::secret::redact_url;
use trib_core::{Code, Connector, Destination, Error, Source};
use trib_engine::{Engine, NativeTable, Queries};
use trib_kit::kept::Kept;
use trib_project::select::{Manifest, select};
use trib_project::{Connection, Graph, Project, Selection, Variables};
use trib_runtime::{Observer, Runtime};
use trib_store::Store;

use crate::args::{Global, Select};
use crate::exit::{Failure, Result};
use crate::output::Output;
use crate::prepare;
use crate::registry::Registry;
use crate::stop;
use crate::tables::{ProjectTables, Reach, Streams};

/// Bytes that queries and sorts may hold before they spill.
const QUERY_MEMORY: usize = 1 << 30;

/// The hashes of all nodes at the last run, for `state:modified`.
const MANIFEST: &str = "manifest";

pub struct Session {
    pub output: Output,
    global: Global,
    registry: OnceLock<Registry>,
    project: OnceLock<Arc<Project>>,
    store: OnceCell<Arc<Store>>,
    sources: Mutex<HashMap<String, Arc<dyn Source>>>,
    destinations: Mutex<HashMap<String, Arc<dyn Destination>>>,
    natives: Mutex<HashMap<String, Option<Arc<dyn NativeTable>>>>,
    engine: OnceLock<Engine>,
    graph: OnceLock<Graph>,
}

impl Session {
    pub fn new(global: Global, output: Output) -> Self {
        Self {
            output,
            global,
            registry: OnceLock::new(),
            project: OnceLock::new(),
            store: OnceCell::new(),
            sources: Mutex::default(),
            destinations: Mutex::default(),
            natives: Mutex::default(),
            engine: OnceLock::new(),
            graph: OnceLock::new(),
        }
    }

    /// The same project in another of its environments.
    pub fn in_environment(&self, name: &str) -> Self {
        Self::new(Global { env: Some(name.to_owned()), ..self.global.clone() }, self.output)
    }

    /// The nodes of the project, and which of them need which.
    pub fn graph(&self) -> Result<&Graph> {
        let project = self.project()?;
        Ok(self.graph.get_or_init(|| Graph::of(project)))
    }

    pub fn registry(&self) -> &Registry {
        self.registry.get_or_init(|| Registry::new(self.project_dir().ok().as_deref()))
    }

    /// The project's folder: the one that was named, or the nearest one upwards.
    pub fn project_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.global.project_dir {
            return Ok(std::path::absolute(dir)?);
        }
        let here = std::env::current_dir()?;
        // Without a project the loader says so, about the folder that the user stands in.
        Ok(trib_project::load::find(&here).unwrap_or(&here).to_owned())
    }

    pub fn project(&self) -> Result<&Project> {
        if let Some(project) = self.project.get() {
            return Ok(project);
        }
        let dir = self.project_dir()?;
        let mut project = Project::load(&dir, self.global.env.as_deref(), Variables::of_process())?;
        overlay_kept(&mut project)?;
        Ok(self.project.get_or_init(|| Arc::new(project)))
    }

    /// For what outlives the call.
    pub fn shared_project(&self) -> Result<Arc<Project>> {
        self.project()?;
        Ok(self.project.get().cloned().ok_or_else(|| Error::internal("the project was loaded and is not there"))?)
    }

    pub async fn store(&self) -> Result<&Arc<Store>> {
        let open = async {
            let project = self.project()?;
            let store = Store::open(project.state.expose(), &project.dir, &project.environment.name).await?;
            Ok::<_, Failure>(Arc::new(store))
        };
        self.store.get_or_try_init(|| open).await
    }

    /// The query engine, spilling into the project's own folder. All queries of the process share its memory.
    pub fn engine(&self) -> Result<Engine> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine.clone());
        }
        let engine = engine(&self.project()?.dir.join(".tributary"))?;
        Ok(self.engine.get_or_init(|| engine).clone())
    }

    /// What runs need; `run` is the name under which they are recorded.
    pub async fn runtime(&self, run: &str, observer: Arc<dyn Observer>, cancel: CancellationToken) -> Result<Runtime> {
        let store = self.store().await?.clone();
        Ok(Runtime { engine: self.engine()?, store, observer, cancel, run: run.to_owned(), holder: holder() })
    }

    /// What the user means, among the nodes of the project.
    pub async fn select(&self, wanted: &Select) -> Result<Selection> {
        let compares = wanted.select.iter().chain(&wanted.exclude).any(|term| term.contains("state:"));
        let before = if compares { self.last_manifest().await? } else { None };
        Ok(select(self.graph()?, &wanted.select, &wanted.exclude, before.as_ref())?)
    }

    /// The project's nodes as they were at the last run.
    pub async fn last_manifest(&self) -> Result<Option<Manifest>> {
        let stored = self.store().await?.meta(MANIFEST).await?;
        Ok(stored.map(|text| serde_json::from_str(&text)).transpose().map_err(Error::from)?)
    }

    /// Remembers the project as it is now, for the next `state:modified`.
    pub async fn remember_manifest(&self) -> Result<()> {
        self.keep_manifest(&self.project()?.manifest()).await
    }

    /// Remembers these nodes as they are now, and the others as they were.
    pub async fn remember(&self, nodes: &[String]) -> Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let mut manifest = self.last_manifest().await?.unwrap_or_default();
        manifest.extend(self.project()?.manifest().into_iter().filter(|(name, _)| nodes.contains(name)));
        self.keep_manifest(&manifest).await
    }

    async fn keep_manifest(&self, manifest: &Manifest) -> Result<()> {
        let manifest = serde_json::to_string(manifest).map_err(Error::from)?;
        Ok(self.store().await?.set_meta(MANIFEST, &manifest).await?)
    }

    /// A connection of the project with its connector.
    pub fn connection(&self, name: &str) -> Result<(Connection, &Connector)> {
        let connection = self.project()?.connection(name)?;
        let connector = self.registry().get(&connection.connector).map_err(|e| connection.place.mark(e.connection(name)))?;
        Ok((connection, connector))
    }

    /// The source of a connection, the same for all syncs, so that its `threads` hold for all of them together. Does no I/O.
    pub fn source(&self, name: &str) -> Result<Arc<dyn Source>> {
        made_once(&self.sources, name, || {
            let (connection, connector) = self.connection(name)?;
            let made = connector.make_source(&connection.settings_for(&connector.schema), &connection.context(self.project()?));
            Ok(made.map_err(|e| connection.place.mark(e))?)
        })
    }

    /// The destination of a connection, the same for all syncs. Does no I/O.
    pub fn destination(&self, name: &str) -> Result<Arc<dyn Destination>> {
        made_once(&self.destinations, name, || {
            let (connection, connector) = self.connection(name)?;
            let made = connector.make_destination(&connection.settings_for(&connector.schema), &connection.context(self.project()?));
            Ok(made.map_err(|e| connection.place.mark(e))?)
        })
    }

    /// The tables of a connection for the query engine, where it can scan them itself. Does no I/O.
    pub fn native(&self, name: &str) -> Result<Option<Arc<dyn NativeTable>>> {
        made_once(&self.natives, name, || {
            let (connection, connector) = self.connection(name)?;
            let settings = connection.settings_for(&connector.schema);
            Ok(self.registry().native(&connector.name, &settings, &connection.context(self.project()?))?)
        })
    }

    /// Queries over the tables of a connection as they are now, the project's views, other connections and the control database; `None` where the query
    /// engine cannot scan the connection itself, which then answers for itself.
    pub async fn queries(&self, connection: &str) -> Result<Option<Queries>> {
        if self.native(connection)?.is_none() {
            return Ok(None);
        }
        self.queries_across(connection).await.map(Some)
    }

    /// The same also where the connection's tables have to be read as streams.
    pub async fn queries_across(&self, connection: &str) -> Result<Queries> {
        let tables = self.tables(connection, Some(self.store().await?.clone()))?;
        Ok(Queries::new(self.engine()?, Arc::new(tables)))
    }

    pub fn tables(&self, connection: &str, store: Option<Arc<Store>>) -> Result<ProjectTables> {
        let project = self.shared_project()?;
        // Its own name may stand before its tables too.
        let others = project.connection_names().map(|name| (name.to_owned(), self.reach(name))).collect();
        Ok(ProjectTables::new(project.clone(), connection, Some(self.reach(connection)), store, others))
    }

    /// How queries see the tables of a connection. Does no I/O.
    fn reach(&self, name: &str) -> Reach {
        let open = || -> Result<Reach> {
            let (_, connector) = prepare::enabled(self, name)?;
            if let Some(native) = self.native(name)? {
                return Ok(Reach::Native(native));
            }
            let destination = if connector.destination.is_some() { Some(self.destination(name)?) } else { None };
            Ok(Reach::Streams(Streams {
                engine: self.engine()?,
                source: self.source(name)?,
                destination,
                pushes_filter: connector.pushes_filter,
            }))
        };
        open().unwrap_or_else(|Failure(mut errors)| {
            Reach::Closed(errors.pop().unwrap_or_else(|| Error::internal("a failure without an error")))
        })
    }

    /// Cancelled by the first Ctrl-C from now on.
    pub fn stop_on_signal(&self) -> CancellationToken {
        stop::on_signal(self.output)
    }
}

/// Puts what logins and providers have changed in place of what the files say.
fn overlay_kept(project: &mut Project) -> Result<()> {
    let names: Vec<String> = project.connection_names().map(str::to_owned).collect();
    for name in names {
        // One with a variable that has no value is not used, or is an error of its own.
        let Ok(connection) = project.connection(&name) else { continue };
        let kept = Kept::of(&connection.context(project));
        if let Some(changed) = kept.changed(&connection.settings).map_err(|e| connection.place.mark(e.connection(&name)))? {
            project.overlay(&name, &changed);
        }
    }
    Ok(())
}

fn made_once<T: Clone>(made: &Mutex<HashMap<String, T>>, name: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = made.get(name) {
        return Ok(there.clone());
    }
    let new = make()?;
    made.insert(name.to_owned(), new.clone());
    Ok(new)
}

/// Opens the engine with its spill files below a folder.
pub fn engine(folder: &Path) -> Result<Engine> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    Ok(Engine::new(QUERY_MEMORY, &folder.join("spill"), threads)?)
}

/// Who holds a lease or has asked for something, for people.
pub fn holder() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| std::env::var("HOSTNAME").unwrap_or_else(|_| "here".to_owned()), |h| h.trim().to_owned());
    format!("{user}@{host}, process {}", std::process::id())
}

/// A URL with its user and without its secrets, or a path that is the same from wherever it is named.
pub fn place(text: &str) -> String {
    if text.contains("://") {
        let user = url::Url::parse(text).map(|url| url.username().to_owned()).unwrap_or_default();
        return format!("{}{user}", redact_url(text));
    }
    std::path::absolute(text).map_or_else(|_| text.to_owned(), |p| p.to_string_lossy().into_owned())
}

/// Where commands without a project keep what they must remember.
pub fn data_folder(command: &str) -> Result<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute()).or_else(home);
    let data = data.ok_or_else(|| usage("there is no place for what the command must remember").hint("set XDG_DATA_HOME or HOME"))?;
    Ok(data.join("tributary").join(command))
}

/// A mistake in the call.
pub fn usage(message: &'static str) -> Error {
    Error::new(Code::UsageInvalid, message)
}
