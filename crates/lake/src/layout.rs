//! Where things stand in a lake.
//!
//! ```text
//! <path>/<schema>/<table>/_delta_log/…            the table's log
//! <path>/<schema>/<table>/<load>-….parquet        its data, named by the load that wrote it
//! <path>/_trib/leases/<sync>/<generation>.json    who may commit
//! <path>/_trib/anchors/<sync>/<scope>.json        the table whose log holds the scope's marker
//! <path>/_trib/logs/<sync>/<scope>/_delta_log/…   markers of scopes that have no table
//! <path>/_trib/stage/<sync>/<load>/….json         which tables a load has staged files for
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use trib_core::{Code, Error, LoadId, Result, TableName};
use trib_kit::storage::Location;
use url::Url;

/// The schema of tables that are named without one.
pub const DEFAULT_SCHEMA: &str = "main";
/// Our own folder.
const OURS: &str = "_trib";

#[derive(Clone, Debug)]
pub struct Layout {
    pub store: Arc<dyn ObjectStore>,
    base: Path,
    /// Scheme and host alone: with a [`Path`] behind it, it names a place to the Delta library.
    root: Url,
    shown: String,
    local: Option<PathBuf>,
}

impl Layout {
    pub fn new(location: Location, written: &str) -> Result<Self> {
        let mut root = match &location.local {
            Some(_) => Url::parse("file:///"),
            None => Url::parse(written),
        }
        .map_err(|e| Error::new(Code::ConfigInvalid, "the lake's path is not a path or URL").source(e).setting("path"))?;
        root.set_path("/");
        root.set_query(None);
        Ok(Self { store: location.store, base: location.path, root, shown: location.shown, local: location.local })
    }

    /// The lake's folder, as it may be shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub fn local(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn table(&self, name: &TableName) -> Result<Path> {
        let schema = name.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
        for part in [schema, &name.name] {
            if part.is_empty() || part == OURS || part == "_delta_log" {
                return Err(Error::new(Code::Unsupported, "a table in the lake cannot have this name")
                    .detail(name.to_string())
                    .hint("choose another name under `into:`"));
            }
        }
        Ok(self.base.clone().join(schema).join(name.name.as_str()))
    }

    /// How the Delta library names a place in the store.
    pub fn url(&self, path: &Path) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path.parts().map(|p| p.as_ref().to_owned()));
        }
        url
    }

    pub fn leases(&self, sync: &str) -> Path {
        self.ours("leases").join(sync)
    }

    pub fn anchors(&self, sync: &str) -> Path {
        self.ours("anchors").join(sync)
    }

    /// The log of a scope that has no table.
    pub fn scope_log(&self, sync: &str, scope: &str) -> Path {
        self.ours("logs").join(sync).join(scope)
    }

    /// Notes of staged files, a folder for each sync.
    pub fn stages(&self) -> Path {
        self.ours("stage")
    }

    pub fn stage(&self, sync: &str, load: &LoadId) -> Path {
        self.stages().join(sync).join(load.0.as_str())
    }

    fn ours(&self, what: &str) -> Path {
        self.base.clone().join(OURS).join(what)
    }
}

/// Whether a folder in the lake can be a schema.
pub fn is_schema(folder: &str) -> bool {
    folder != OURS && !folder.starts_with('.')
}
