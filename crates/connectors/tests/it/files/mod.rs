//! Files on a disk, and in an object store that a real server keeps.

mod awkward;
mod commits;
mod formats;
mod http;
mod incremental;
mod partitions;
mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use trib_connectors::files;
use trib_core::{Context, Destination, Result, Source, State};
use trib_testkit::emit::{self, Emitted};

/// A folder of files, and connections to it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn source(&self, settings: &Value) -> Arc<dyn Source> {
        self.try_source(settings).unwrap()
    }

    pub fn try_source(&self, settings: &Value) -> Result<Arc<dyn Source>> {
        files::connector().make_source(settings, &context(self.path()))
    }

    pub fn destination(&self, settings: &Value) -> Arc<dyn Destination> {
        files::connector().make_destination(settings, &context(self.path())).unwrap()
    }
}

pub fn context(folder: &Path) -> Context {
    Context { connection: "test".to_owned(), project_dir: folder.to_owned(), threads: 2 }
}

/// The only stream of a source, read in full.
pub async fn read(source: &dyn Source) -> Result<Emitted> {
    let catalog = source.discover(&[]).await?;
    assert_eq!(catalog.streams.len(), 1, "{:?}", catalog.streams);
    let (emitted, _) = emit::read(source, &emit::full(&catalog.streams[0].name), &State::default()).await?;
    Ok(emitted)
}

/// `name: type` of each column of the only stream.
pub async fn types(source: &dyn Source) -> Vec<String> {
    let catalog = source.discover(&[]).await.unwrap();
    catalog.streams[0].schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect()
}

/// Rows as lines of `value|value`, NULL as `-`, in the order of the columns.
pub fn lines(emitted: &Emitted) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in &emitted.batches {
        let columns: Vec<Vec<String>> = batch
            .columns()
            .iter()
            .map(|array| {
                let options = arrow::util::display::FormatOptions::default().with_null("-");
                let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
                (0..array.len()).map(|i| formatter.value(i).to_string()).collect()
            })
            .collect();
        lines.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c[row].as_str()).collect::<Vec<_>>().join("|")));
    }
    lines
}

/// `place: reason` of each rejected row.
pub fn rejected(emitted: &Emitted) -> Vec<String> {
    emitted.rejected.iter().map(|r| format!("{}: {}", r.place, r.reason)).collect()
}
