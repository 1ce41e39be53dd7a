//! Where things stand in a lake.
//!
//! ```text
//! <path>/<schema>/<table>/_delta_log/…            the table's log
//! <path>/<schema>/<table>/<load>-….parquet        its data, named by the load that wrote it
//! <path>/_trib/leases/<sync>/<generation>.json    who may commit
//! <path>/_trib/anchors/<sync>/<scope>.json        the table whose log decides on the scope's marker
//! <path>/_trib/markers/<sync>/<scope>/….json      what a load led to, written before its commit
//! <path>/_trib/logs/<sync>/<scope>/_delta_log/…   markers of scopes that have no table
//! <path>/_trib/stage/<sync>/<load>/….json         which tables a load has staged files for
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectStore;
use object_store::path::Path;
use trib_core::name::truncate;
use trib_core::{Code, Error, LoadId, Result, TableName};
use trib_engine::failure::query_error;
use trib_kit::storage::Location;
use url::Url;

/// The schema of tables that are named without one.
pub const DEFAULT_SCHEMA: &str = "main";
/// Our own folder.
const OURS: &str = "_trib";

#[derive(Clone, Debug)]
pub struct Layout {
    pub store: Arc<dyn ObjectStore>,
    /// What names the store to DataFusion: two lakes may be one bucket, with different credentials.
    store_url: ObjectStoreUrl,
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
        let store_url = ObjectStoreUrl::parse(format!("lake://{}", uuid::Uuid::new_v4())).map_err(query_error)?;
        Ok(Self { store: location.store, store_url, base: location.path, root, shown: location.shown, local: location.local })
    }

    /// The lake's folder, as it may be shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub fn local(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    pub fn store_url(&self) -> ObjectStoreUrl {
        self.store_url.clone()
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn table(&self, name: &TableName) -> Result<Path> {
        let schema = name.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
        let refused = || {
            Error::new(Code::Unsupported, "a table in the lake cannot have this name")
                .detail(name.to_string())
                .hint("choose another name under `into:`: letters, digits, blanks, `_`, `-` and `.`")
        };
        for part in [schema, &name.name] {
            let plain = part.chars().all(|c| c.is_alphanumeric() || " _-.$@+=".contains(c));
            if part.is_empty() || !plain || part == OURS || part == "_delta_log" {
                return Err(refused());
            }
        }
        // Letters of all scripts stand as they are, where joining would encode them.
        Path::parse(format!("{}/{schema}/{}", self.base, name.name)).map_err(|e| refused().source(e))
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
        self.ours("leases").join(folder(sync))
    }

    pub fn anchors(&self, sync: &str) -> Path {
        self.ours("anchors").join(folder(sync))
    }

    /// What the loads of a scope led to.
    pub fn markers(&self, sync: &str, scope: &str) -> Path {
        self.ours("markers").join(folder(sync)).join(folder(scope))
    }

    /// The log of a scope that has no table.
    pub fn scope_log(&self, sync: &str, scope: &str) -> Path {
        self.ours("logs").join(folder(sync)).join(folder(scope))
    }

    /// Notes of staged files, a folder for each sync.
    pub fn stages(&self) -> Path {
        self.ours("stage")
    }

    /// Notes of one sync's staged files, a folder for each load.
    pub fn sync_stages(&self, sync: &str) -> Path {
        self.stages().join(folder(sync))
    }

    pub fn stage(&self, sync: &str, load: &LoadId) -> Path {
        self.sync_stages(sync).join(load.0.as_str())
    }

    fn ours(&self, what: &str) -> Path {
        self.base.clone().join(OURS).join(what)
    }
}

/// A folder's name for any text: letters, digits, `-`, `_` and `.` stay, other bytes become `+` and two hex digits.
pub fn folder(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(byte)),
            // Writing to a String cannot fail.
            other => drop(write!(name, "+{other:02x}")),
        }
    }
    truncate(&name, 200)
}

/// Whether a folder in the lake can be a schema.
pub fn is_schema(name: &str) -> bool {
    name != OURS && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        assert_eq!(folder("shop/dev"), "shop+2fdev");
        assert_eq!(folder("public.orders"), "public.orders");
        assert_ne!(folder(&"ä".repeat(300)), folder(&"ä".repeat(301)));
    }

    #[test]
    fn names_that_cannot_be_folders_are_refused() {
        let location = trib_kit::storage::open("/lake", &std::collections::BTreeMap::new(), std::path::Path::new("/")).unwrap();
        let layout = Layout::new(location, "/lake").unwrap();
        for (name, fine) in
            [("orders", true), ("a b", true), ("größe", true), ("a/b", false), ("a#b", false), ("_delta_log", false), ("", false)]
        {
            assert_eq!(layout.table(&TableName { schema: None, name: name.into() }).is_ok(), fine, "{name}");
        }
    }
}
