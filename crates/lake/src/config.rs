//! Settings of a lake.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use trib_core::connector::Verified;
use trib_core::{ConnectorConfig, Context, Destination, Error, Result, Secret, Source};
use trib_kit::storage;

use crate::destination::Lake;
use crate::layout::Layout;

/// Settings of the `lake` connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LakeConfig {
    /// The lake's folder: a local path, which starts at the project, or a URL such as `s3://bucket/lake`.
    pub path: String,
    /// Options of the object store, by `object_store`'s names: `aws_access_key_id`, `endpoint`, `google_service_account`, …
    /// What is left out is taken from the environment.
    pub storage: BTreeMap<String, Secret>,
    /// Megabytes that a data file grows to.
    pub file_size_mb: u64,
    /// Megabytes that a merge may hold of keys at a time. Loads with more keys read the key columns more than once.
    pub merge_memory_mb: u64,
    /// A checkpoint of a table's log is written after this many versions.
    pub checkpoint_every: u64,
    /// Days for which versions can be listed and travelled to. Set on tables when they are created.
    pub log_retention_days: u32,
    /// Days for which files that are no longer part of a table are kept for older versions. Set on tables when they are created.
    pub file_retention_days: u32,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            path: ".tributary/warehouse".to_owned(),
            storage: BTreeMap::new(),
            file_size_mb: 128,
            merge_memory_mb: 128,
            checkpoint_every: 20,
            log_retention_days: 30,
            file_retention_days: 7,
        }
    }
}

impl ConnectorConfig for LakeConfig {
    const NAME: &'static str = "lake";
    const TITLE: &'static str = "Delta Lake";
    const DESCRIPTION: &'static str = "Delta Lake tables in a local folder or an object store, open to Spark, DuckDB, Polars and pandas";
    const VERIFIED: Verified = Verified::RealSystem;
    const PUSHES_FILTER: bool = true;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(self.lake(context).map(|lake| lake as Arc<dyn Source>))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        Some(self.lake(context).map(|lake| lake as Arc<dyn Destination>))
    }

    /// `lake:path`, `delta:path`, and either before a store's scheme: `lake+s3://bucket/path`.
    fn from_url(url: &str) -> Option<Value> {
        let path = ["lake", "delta"].iter().find_map(|scheme| {
            let rest = url.strip_prefix(scheme)?;
            match rest.split_at_checked(1)? {
                (":", path) => Some(path.strip_prefix("//").unwrap_or(path)),
                ("+", url) if url.contains("://") => Some(url),
                _ => None,
            }
        })?;
        Some(json!({"path": path}))
    }
}

impl LakeConfig {
    fn lake(self, context: &Context) -> Result<Arc<Lake>> {
        let location = storage::open(&self.path, &self.storage, &context.project_dir)
            .map_err(|e| e.setting("path").connection(&context.connection))?;
        let layout = Layout::new(location, &self.path)?;
        Ok(Arc::new(Lake::new(layout, self, context.threads)))
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_size_mb.max(1) << 20
    }

    pub fn merge_bytes(&self) -> usize {
        (self.merge_memory_mb.max(1) as usize) << 20
    }
}

/// Opens a lake for the query engine. Does no I/O.
pub fn open(settings: &Value, context: &Context) -> Result<Arc<Lake>> {
    let config: LakeConfig = serde_json::from_value(settings.clone()).map_err(|e| {
        Error::new(trib_core::Code::ConfigInvalid, "the connection's settings are not right")
            .detail(e.to_string())
            .connection(&context.connection)
            .hint("`trib connectors show lake` lists its settings")
    })?;
    config.lake(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let cases = [
            ("lake:out/lake", Some("out/lake")),
            ("delta:/data", Some("/data")),
            ("lake:///data", Some("/data")),
            ("lake+s3://bucket/x", Some("s3://bucket/x")),
            ("delta+file:///x", Some("file:///x")),
            ("s3://bucket/x", None),
            ("lakes:x", None),
        ];
        for (url, path) in cases {
            assert_eq!(LakeConfig::from_url(url), path.map(|p| json!({"path": p})), "{url}");
        }
    }
}
