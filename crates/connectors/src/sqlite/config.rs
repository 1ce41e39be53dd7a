//! The settings of a connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use trib_core::connector::Verified;
use trib_core::{Code, ConnectorConfig, Context, Destination, Error, Result, Source};

use super::database::Database;
use super::destination::SqliteDestination;
use super::kind::Kind;
use super::source::SqliteSource;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file, relative to the project. A destination makes it when it is not there.
    pub path: String,
    /// How long to wait while another process has the database locked, such as `30s` or `2m`.
    #[serde(default = "default_busy_timeout")]
    pub busy_timeout: String,
    /// Types of source columns whose declaration is missing or says something else than their values: `{orders.paid_at: timestamp unix_ms}`. A type
    /// as SQLite declares it; for dates and times also how they are stored: `iso` (the default), `unix`, `unix_ms`, `unix_us` or `julian`.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
}

fn default_busy_timeout() -> String {
    "30s".to_owned()
}

impl SqliteConfig {
    fn database(self, context: &Context) -> Result<Arc<Database>> {
        let invalid = |message| Error::new(Code::ConfigInvalid, message);
        if self.path.is_empty() || self.path.contains(":memory:") || self.path.starts_with("file:") {
            return Err(invalid("the path is not one of a database file")
                .detail(&self.path)
                .setting("path")
                .hint("name a file: a database in memory is gone before anybody can read it, and URIs are not understood"));
        }
        let busy_timeout = humantime::parse_duration(&self.busy_timeout).map_err(|e| {
            invalid("the duration is not understood")
                .detail(&self.busy_timeout)
                .setting("busy_timeout")
                .hint("write it like `30s`")
                .source(e)
        })?;
        let mut columns = BTreeMap::new();
        for (column, declared) in self.columns {
            let setting = format!("columns.{column}");
            if !column.contains('.') {
                return Err(invalid("the column is not named with its table").setting(setting).hint("write `table.column: type`"));
            }
            let kind = Kind::of_setting(&declared).ok_or_else(|| {
                invalid("the column's type is not understood")
                    .detail(&declared)
                    .setting(setting)
                    .hint("write a type such as `integer`, `decimal(12, 2)`, `text`, `date`, `timestamp unix_ms`, `timestamptz julian`")
            })?;
            columns.insert(column, kind);
        }
        let path = std::path::absolute(context.project_dir.join(&self.path))?;
        Ok(Arc::new(Database { path, busy_timeout, columns, threads: context.threads.max(1) }))
    }
}

impl ConnectorConfig for SqliteConfig {
    const NAME: &'static str = "sqlite";
    const TITLE: &'static str = "SQLite";
    const DESCRIPTION: &'static str = "Tables and views of a SQLite database file.";
    const VERIFIED: Verified = Verified::RealSystem;
    const PUSHES_FILTER: bool = true;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(self.database(context).map(|database| Arc::new(SqliteSource::new(database)) as Arc<dyn Source>))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        Some(self.database(context).map(|database| Arc::new(SqliteDestination::new(database)) as Arc<dyn Destination>))
    }

    /// `sqlite:PATH`, `sqlite://PATH`, or a path that ends like a database.
    fn from_url(url: &str) -> Option<Value> {
        let path = if let Some(rest) = url.strip_prefix("sqlite:") {
            rest.strip_prefix("//").unwrap_or(rest)
        } else {
            let extension = Path::new(url).extension()?.to_str()?.to_lowercase();
            let is_path = !url.contains("://") && ["db", "sqlite", "sqlite3"].contains(&extension.as_str());
            is_path.then_some(url)?
        };
        Some(json!({"path": path}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(settings: &Value) -> Result<Arc<Database>> {
        let config: SqliteConfig = serde_json::from_value(settings.clone())?;
        config.database(&Context { connection: "c".into(), project_dir: "/project".into(), threads: 2 })
    }

    #[test]
    fn urls() {
        let cases = [
            ("sqlite:shop.db", Some("shop.db")),
            ("sqlite://data/shop", Some("data/shop")),
            ("sqlite:///srv/shop.db", Some("/srv/shop.db")),
            ("./shop.sqlite3", Some("./shop.sqlite3")),
            ("s3://bucket/shop.db", None),
            ("shop.csv", None),
            ("shop", None),
        ];
        for (url, path) in cases {
            assert_eq!(SqliteConfig::from_url(url), path.map(|p| json!({"path": p})), "{url}");
        }
    }

    #[test]
    fn settings_are_checked_without_looking_at_the_file() {
        assert_eq!(database(&json!({"path": "a/b.db"})).unwrap().path, Path::new("/project/a/b.db"));
        let cases = [
            (json!({"path": ":memory:"}), "path"),
            (json!({"path": ""}), "path"),
            (json!({"path": "x.db", "busy_timeout": "soon"}), "busy_timeout"),
            (json!({"path": "x.db", "columns": {"t.c": "txet"}}), "columns.t.c"),
            (json!({"path": "x.db", "columns": {"c": "text"}}), "columns.c"),
        ];
        for (settings, setting) in cases {
            let error = database(&settings).err().unwrap();
            assert_eq!(error.place().setting.as_deref(), Some(setting), "{settings}");
            assert!(error.hint_text().is_some());
        }
    }
}
