//! Every connector that this binary knows, and which of them the query engine can scan itself.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use serde_json::Value;
use trib_core::error::closest;
use trib_core::load::TableLoad;
use trib_core::{Code, Connector, Context, Error, Result, TableName};
use trib_engine::NativeTable;
use trib_lake::Lake;

pub struct Registry {
    connectors: Vec<Connector>,
    /// Names of those whose tables are Delta tables.
    lakes: Vec<String>,
}

impl Registry {
    /// What the binary brings along, and the manifests of a project's `connectors` folder. A manifest comes before a connector of ours
    /// that has its name.
    pub fn new(project: Option<&Path>) -> Self {
        let lakes = trib_lake::connectors();
        let names = lakes.iter().map(|c| c.name.clone()).collect();
        let mut connectors = trib_connectors::connectors();
        connectors.extend(lakes);
        for manifest in project.map(manifests).unwrap_or_default() {
            connectors.retain(|c| c.name != manifest.name);
            connectors.push(manifest);
        }
        connectors.sort_by(|a, b| a.name.cmp(&b.name));
        Self { connectors, lakes: names }
    }

    /// In the order of their names.
    pub fn all(&self) -> &[Connector] {
        &self.connectors
    }

    pub fn get(&self, name: &str) -> Result<&Connector> {
        self.connectors.iter().find(|c| c.name == name).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "there is no such connector").detail(format!("`{name}`"));
            match closest(name, self.connectors.iter().map(|c| c.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`trib connectors list` names them"),
            }
        })
    }

    /// The connector and the settings that a URL or path on the command line stands for.
    pub fn by_url(&self, url: &str) -> Result<(&Connector, Value)> {
        let claimed = self.connectors.iter().find_map(|c| Some((c, c.from_url?(url)?)));
        claimed.ok_or_else(|| {
            Error::new(Code::UsageInvalid, "no connector knows this URL or path")
                .detail(trib_core::secret::redact_url(url))
                .hint("such as postgres://user@host/database, ./shop.db, ./folder/, ./orders.csv, s3://bucket/prefix/, lake:./folder")
        })
    }

    /// The tables of a connection for the query engine, when it can scan them itself.
    pub fn native(&self, connector: &str, settings: &Value, context: &Context) -> Result<Option<Arc<dyn NativeTable>>> {
        if !self.lakes.iter().any(|name| name == connector) {
            return Ok(None);
        }
        Ok(Some(Arc::new(LakeTables(trib_lake::open(settings, context)?))))
    }
}

/// The manifests of a project. A file that cannot be read is one that is not there.
fn manifests(project: &Path) -> Vec<Connector> {
    let Ok(folder) = std::fs::read_dir(project.join("connectors")) else { return Vec::new() };
    let manifest = |entry: std::fs::DirEntry| {
        let file = entry.path();
        let is_yaml = matches!(file.extension()?.to_str()?, "yaml" | "yml");
        let name = file.file_stem()?.to_str()?.to_owned();
        let text = is_yaml.then(|| std::fs::read_to_string(&file).ok()).flatten()?;
        Some(trib_connectors::manifest::connector(&name, &file, &text))
    };
    folder.flatten().filter_map(manifest).collect()
}

struct LakeTables(Arc<Lake>);

#[async_trait]
impl NativeTable for LakeTables {
    async fn tables(&self) -> Result<Vec<TableName>> {
        self.0.tables().await
    }

    async fn provider(&self, table: &TableName, version: Option<i64>) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.0.provider(table, version).await {
            Ok(provider) => Ok(Some(provider)),
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn staged(&self, load: &TableLoad) -> Result<Arc<dyn TableProvider>> {
        self.0.staged(load)
    }
}
