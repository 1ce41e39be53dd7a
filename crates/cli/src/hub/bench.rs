//! A manifest on the workbench: opened with settings from a file or from a connection, and read stream by stream.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use trib_connectors::manifest::{Event, Manifest, Opened, Selection};
use trib_core::{Code, Error, Result};

use crate::app::Session;
use crate::exit;

/// Which manifest, with which settings.
#[derive(clap::Args, Clone, Debug)]
pub struct Subject {
    /// The connector's YAML
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its settings, as JSON or YAML
    #[arg(long, value_name = "FILE", conflicts_with = "connection")]
    config: Option<PathBuf>,
    /// The settings of this connection; when left out, those of the project's only connection of this connector
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Only these streams
    #[arg(long = "stream", value_name = "NAME")]
    streams: Vec<String>,
    /// As many pages of each stream at the most
    #[arg(long, value_name = "N")]
    pub pages: Option<usize>,
}

impl Subject {
    pub fn manifest(&self) -> Result<Arc<Manifest>> {
        Manifest::parse(&self.file, &text(&self.file)?)
    }

    /// The settings that were named, or `None`.
    pub fn config(&self, session: &Session, manifest: &Manifest) -> exit::Result<Option<Value>> {
        if let Some(file) = &self.config {
            return Ok(Some(trib_project::yaml::parse(&file.display().to_string(), &text(file)?, 1)?.to_json()));
        }
        let schema = manifest.connection_schema().try_into().unwrap_or_default();
        if let Some(name) = &self.connection {
            return Ok(Some(session.project()?.connection(name)?.settings_for(&schema)));
        }
        let Ok(project) = session.project() else { return Ok(None) };
        let connector = self.file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let mut own = project.connection_names().filter_map(|n| project.connection(n).ok()).filter(|c| c.connector == connector);
        Ok(match (own.next(), own.next()) {
            (Some(only), None) => Some(only.settings_for(&schema)),
            _ => None,
        })
    }

    /// The streams that are wanted, in the order of their names.
    pub fn streams(&self, manifest: &Manifest) -> Vec<String> {
        if !self.streams.is_empty() {
            return self.streams.clone();
        }
        manifest.outline().streams.into_keys().collect()
    }
}

/// What was read of a stream.
#[derive(Default)]
pub struct Read {
    /// Page by page, without those that were empty.
    pub pages: Vec<Vec<Value>>,
    pub state: Option<Value>,
    pub error: Option<Error>,
}

impl Read {
    pub fn records(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }
}

/// Reads a stream from its beginning, as many pages of it as are wanted.
pub async fn read(opened: &Arc<Opened>, stream: &str, pages: Option<usize>) -> Result<Read> {
    let selection = Selection::of(stream);
    let mut events = opened.read(vec![selection]).await?;
    let mut read = Read::default();
    while let Some(event) = events.recv().await {
        match event {
            Event::Records { records, .. } => read.pages.push(records.into_iter().collect()),
            Event::State { state, .. } => read.state = Some(state),
            Event::Ended { error, .. } => read.error = error,
            Event::Started { .. } | Event::ConfigChanged(_) => {}
        }
        if pages.is_some_and(|most| read.pages.len() >= most) {
            break;
        }
    }
    Ok(read)
}

pub fn text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| Error::from(e).file(file.display().to_string(), None, None))
}

/// For streams, of which each has failed or not.
pub fn failure(stream: &str, error: Error) -> Error {
    match error.code() {
        Code::Internal => error,
        _ => error.stream(stream),
    }
}
