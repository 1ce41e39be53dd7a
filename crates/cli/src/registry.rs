//! Every connector that this binary knows, and which of them the query engine can scan itself.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use serde_json::Value;
use trib_connectors::manifest::{SHIPPED, Shipped};
use trib_core::error::closest;
use trib_core::load::TableLoad;
use trib_core::{Code, Connector, Context, Error, Result, TableName};
use trib_engine::NativeTable;
use trib_lake::Lake;

pub struct Registry {
    /// What is written in Rust, and the manifests of the project.
    own: Vec<Connector>,
    /// The same with the manifests that come with the binary, which are read when somebody asks for one of them.
    all: OnceLock<Vec<Connector>>,
    /// Names of those whose tables are Delta tables.
    lakes: Vec<String>,
}

impl Registry {
    /// What the binary brings along, and the manifests of a project's `connectors` folder. A project's manifest comes before a connector
    /// of ours that has its name.
    pub fn new(project: Option<&Path>) -> Self {
        let lakes = trib_lake::connectors();
        let names = lakes.iter().map(|c| c.name.clone()).collect();
        let mut own = trib_connectors::connectors();
        own.extend(lakes);
        for manifest in project.map(manifests).unwrap_or_default() {
            own.retain(|c| c.name != manifest.name);
            own.push(manifest);
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        Self { own, all: OnceLock::new(), lakes: names }
    }

    /// In the order of their names.
    pub fn all(&self) -> &[Connector] {
        self.all.get_or_init(|| {
            let is_own = |name: &str| self.own.iter().any(|c| c.name == name);
            let mut all = self.own.clone();
            all.extend(SHIPPED.iter().filter(|s| !is_own(s.name)).map(Shipped::entry));
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all
        })
    }

    pub fn get(&self, name: &str) -> Result<&Connector> {
        let own = self.own.iter().find(|c| c.name == name);
        own.or_else(|| self.all().iter().find(|c| c.name == name)).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "there is no such connector").detail(format!("`{name}`"));
            match closest(name, self.all().iter().map(|c| c.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`trib connectors list` names them"),
            }
        })
    }

    /// The connector and the settings that a URL or path on the command line stands for.
    pub fn by_url(&self, url: &str) -> Result<(&Connector, Value)> {
        let claimed = self.own.iter().find_map(|c| Some((c, c.from_url?(url)?)));
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
