//! The folder that a destination owns: small control files that are replaced whole, and big files that are moved.

use std::io::{BufWriter, Write};
use std::path::{Path as FsPath, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, UpdateVersion, WriteMultipart};
use tokio::sync::mpsc;
use trib_core::{Code, Error, Result};
use trib_kit::storage::{self, Location};

/// Bytes of one part of an upload; S3 takes none below 5 MiB.
const UPLOAD: usize = 8 << 20;
/// S3 takes 10,000 parts of an upload.
const MOST_PARTS: u64 = 9_000;

/// A folder, local or in an object store. Names are relative to it and use `/`.
#[derive(Clone, Debug)]
pub struct Place {
    location: Location,
}

/// What a control file looked like when it was read: to be replaced only while it still does.
#[derive(Clone, Debug)]
pub enum Version {
    Absent,
    /// A local file: the lock that is held keeps others away.
    Local,
    Stored(UpdateVersion),
}

/// Held while control files change. Object stores have no locks; there the versions of the files tell.
pub struct Locked {
    _file: Option<std::fs::File>,
}

impl Place {
    pub fn new(location: Location) -> Self {
        Self { location }
    }

    pub fn shown(&self) -> &str {
        &self.location.shown
    }

    fn fs(&self, name: &str) -> Option<PathBuf> {
        self.location.local.as_ref().map(|base| base.join(name))
    }

    /// The path in the store. Names that this module is given are paths already, and are not encoded again.
    pub fn path(&self, name: &str) -> Path {
        let base = self.location.path.as_ref();
        let whole = if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole))
    }

    fn error(&self, e: object_store::Error) -> Error {
        storage::error(e, &self.location.shown)
    }

    /// Makes others wait, on this machine, until the result is dropped.
    pub async fn lock(&self) -> Result<Locked> {
        let Some(folder) = self.fs("_trib") else { return Ok(Locked { _file: None }) };
        blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let file = std::fs::File::create(folder.join("lock"))?;
            file.lock()?;
            Ok(Locked { _file: Some(file) })
        })
        .await
    }

    pub async fn get(&self, name: &str) -> Result<Option<(Bytes, Version)>> {
        if let Some(path) = self.fs(name) {
            return match tokio::fs::read(&path).await {
                Ok(bytes) => Ok(Some((bytes.into(), Version::Local))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
        match self.location.store.get(&self.path(name)).await {
            Ok(found) => {
                let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                Ok(Some((found.bytes().await.map_err(|e| self.error(e))?, Version::Stored(version))))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(e)),
        }
    }

    /// Replaces a control file in one step, durably. Fails with `lease_lost` when somebody else has changed it meanwhile.
    pub async fn put(&self, name: &str, bytes: Vec<u8>, expected: &Version) -> Result<()> {
        if let Some(path) = self.fs(name) {
            return blocking(move || write_whole(&path, &bytes)).await;
        }
        let mode = match expected {
            Version::Absent => PutMode::Create,
            Version::Stored(version) => PutMode::Update(version.clone()),
            Version::Local => return Err(Error::internal("a local version was given to an object store")),
        };
        let options = PutOptions { mode, ..Default::default() };
        self.location.store.put_opts(&self.path(name), bytes.into(), options).await.map_err(|e| self.error(e))?;
        Ok(())
    }

    /// Moves a file to where readers look, over what is there. A file that was moved before is no error.
    pub async fn publish(&self, from: &str, to: &str, bytes: u64) -> Result<()> {
        if let (Some(source), Some(target)) = (self.fs(from), self.fs(to)) {
            return blocking(move || {
                let folder = target.parent().unwrap_or(&target).to_owned();
                std::fs::create_dir_all(&folder)?;
                match std::fs::rename(&source, &target) {
                    Ok(()) => sync_folder(&folder),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::fs::metadata(&target).is_ok_and(|m| m.len() == bytes) => {
                        Ok(())
                    }
                    Err(e) => Err(Error::from(e).file(source.to_string_lossy(), None, None)),
                }
            })
            .await;
        }
        let (source, target) = (self.path(from), self.path(to));
        let store = &self.location.store;
        match store.copy(&source, &target).await {
            Ok(()) => {}
            Err(object_store::Error::NotFound { .. }) if store.head(&target).await.is_ok_and(|m| m.size == bytes) => return Ok(()),
            // A store that will not copy a file by itself: S3 takes none over 5 GB.
            Err(e) if matches!(storage::status(&e), Some(400 | 413 | 501)) => self.carry(&source, &target, bytes).await?,
            Err(e) => return Err(self.error(e)),
        }
        self.remove(from).await
    }

    /// Copies a file by reading and writing it. It is there whole or not at all.
    async fn carry(&self, source: &Path, target: &Path, bytes: u64) -> Result<()> {
        let store = &self.location.store;
        let mut chunks = store.get(source).await.map_err(|e| self.error(e))?.into_stream();
        let upload = store.put_multipart(target).await.map_err(|e| self.error(e))?;
        let part = UPLOAD.max(usize::try_from(bytes / MOST_PARTS + 1).unwrap_or(UPLOAD));
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part);
        let sent = async {
            while let Some(chunk) = chunks.try_next().await? {
                writer.wait_for_capacity(1).await?;
                writer.put(chunk);
            }
            Ok::<_, object_store::Error>(())
        };
        match sent.await {
            Ok(()) => writer.finish().await.map(drop).map_err(|e| self.error(e)),
            Err(e) => {
                // The store sweeps unfinished uploads by its own rules where this fails.
                let _ = writer.abort().await;
                Err(self.error(e))
            }
        }
    }

    /// Removes a file; its absence is no error.
    pub async fn remove(&self, name: &str) -> Result<()> {
        if let Some(path) = self.fs(name) {
            return match tokio::fs::remove_file(&path).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
                _ => Ok(()),
            };
        }
        match self.location.store.delete(&self.path(name)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(self.error(e)),
        }
    }

    /// Removes everything below a folder.
    pub async fn remove_all(&self, folder: &str) -> Result<()> {
        if let Some(path) = self.fs(folder) {
            return match tokio::fs::remove_dir_all(&path).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
                _ => Ok(()),
            };
        }
        for name in self.files(folder).await? {
            self.remove(&name).await?;
        }
        Ok(())
    }

    /// Names of the folders in a folder.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        if let Some(path) = self.fs(folder) {
            return blocking(move || {
                let entries = match std::fs::read_dir(&path) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => return Err(e.into()),
                };
                let mut names = Vec::new();
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        names.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
                Ok(names)
            })
            .await;
        }
        let listed = self.location.store.list_with_delimiter(Some(&self.path(folder))).await.map_err(|e| self.error(e))?;
        Ok(listed.common_prefixes.iter().filter_map(|p| Some(p.filename()?.to_owned())).collect())
    }

    /// Names of all files below a folder, relative to the place.
    pub async fn files(&self, folder: &str) -> Result<Vec<String>> {
        let listed: Vec<_> = match self.location.store.list(Some(&self.path(folder))).try_collect().await {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(self.error(e)),
        };
        let relative =
            |path: &Path| Some(path.prefix_match(&self.location.path)?.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        Ok(listed.iter().filter_map(|meta| relative(&meta.location)).collect())
    }

    /// A writer for a new file. Must be called inside the runtime; the writer is used on a blocking thread.
    pub fn create(&self, name: &str) -> Result<Output> {
        if let Some(path) = self.fs(name) {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder)?;
            let file = std::fs::File::create(&path).map_err(|e| Error::from(e).file(path.to_string_lossy(), None, None))?;
            return Ok(Output { written: 0, to: To::File(BufWriter::with_capacity(1 << 20, file)) });
        }
        let (sender, receiver) = mpsc::channel(1);
        let (store, path, shown) = (self.location.store.clone(), self.path(name), self.location.shown.clone());
        let done = tokio::runtime::Handle::current().spawn(upload(store, path, shown, receiver));
        Ok(Output { written: 0, to: To::Store { buffer: Vec::with_capacity(UPLOAD), sender: Some(sender), done } })
    }

    /// The content of a file that this destination has written, for joining parts.
    pub async fn local_copy(&self, name: &str) -> Result<std::fs::File> {
        if let Some(path) = self.fs(name) {
            return Ok(std::fs::File::open(path)?);
        }
        let input = super::input::Input::new(&self.location, self.path(name), &tokio::runtime::Handle::current());
        blocking(move || input.seekable()).await
    }
}

/// Runs file work where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a worker thread failed").source(e))?
}

fn write_whole(path: &FsPath, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| Error::from(e.error))?;
    sync_folder(folder)
}

/// Makes renames in a folder durable.
fn sync_folder(folder: &FsPath) -> Result<()> {
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

/// A file that is being written.
pub struct Output {
    written: u64,
    to: To,
}

enum To {
    File(BufWriter<std::fs::File>),
    Store { buffer: Vec<u8>, sender: Option<mpsc::Sender<Bytes>>, done: tokio::task::JoinHandle<Result<()>> },
}

impl Output {
    /// Makes the file durable, and returns its size.
    pub fn finish(self) -> Result<u64> {
        match self.to {
            To::File(writer) => {
                let file = writer.into_inner().map_err(|e| Error::from(e.into_error()))?;
                file.sync_all()?;
            }
            To::Store { buffer, sender, done } => {
                if let Some(sender) = sender {
                    // The upload's own error says more than that it has stopped listening.
                    let _ = sender.blocking_send(buffer.into());
                }
                tokio::runtime::Handle::current().block_on(done).map_err(|e| Error::internal("an upload failed").source(e))??;
            }
        }
        Ok(self.written)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.to {
            To::File(writer) => writer.write_all(bytes)?,
            To::Store { buffer, sender, .. } => {
                buffer.extend_from_slice(bytes);
                if buffer.len() >= UPLOAD {
                    let full = std::mem::replace(buffer, Vec::with_capacity(UPLOAD));
                    let sender = sender.as_ref().ok_or(std::io::ErrorKind::BrokenPipe)?;
                    sender.blocking_send(full.into()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
                }
            }
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Uploads chunks in order. When the sender is dropped without a last chunk, the writer has failed, and nothing is completed.
async fn upload(
    store: std::sync::Arc<dyn object_store::ObjectStore>,
    path: Path,
    shown: String,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<()> {
    let failed = |e| storage::error(e, &shown);
    let mut upload = store.put_multipart(&path).await.map_err(failed)?;
    let sent = async {
        while let Some(chunk) = chunks.recv().await {
            let last = chunk.len() < UPLOAD;
            upload.put_part(chunk.into()).await.map_err(failed)?;
            if last {
                return Ok(());
            }
        }
        Err(Error::new(Code::Cancelled, "the upload was given up"))
    };
    match sent.await {
        Ok(()) => {
            upload.complete().await.map_err(failed)?;
            Ok(())
        }
        Err(e) => {
            // The store sweeps unfinished uploads by its own rules where this fails.
            let _ = upload.abort().await;
            Err(e)
        }
    }
}
