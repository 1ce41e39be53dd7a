//! Bytes of files, wherever they are, as blocking readers.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange};
use tokio::runtime::Handle;
use trib_core::{Error, Result};
use trib_kit::storage::{self, Location};

use super::compression::{Compression, unzip};

/// Chunks that may wait between a network or a decompressor and its reader.
const WAITING: usize = 4;

/// A file in a store. Opened on blocking threads, which hand remote reads to `runtime`.
#[derive(Clone)]
pub struct Input {
    location: Location,
    path: Path,
    runtime: Handle,
}

impl Input {
    pub fn new(location: &Location, path: Path, runtime: &Handle) -> Self {
        Self { location: location.clone(), path, runtime: runtime.clone() }
    }

    /// Where it is, when it is a local file.
    pub fn local(&self) -> Result<Option<PathBuf>> {
        if self.location.local.is_none() {
            return Ok(None);
        }
        let path = LocalFileSystem::new().path_to_filesystem(&self.path);
        path.map(Some).map_err(|e| storage::error(e, self.path.as_ref()))
    }

    /// Its bytes, or some of them, as they are stored.
    pub fn bytes(&self, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        let Some(path) = self.local()? else {
            return Ok(Box::new(self.remote(range)));
        };
        let mut file = open(&path)?;
        Ok(match range {
            None => Box::new(file),
            Some(range) => {
                file.seek(SeekFrom::Start(range.start))?;
                Box::new(file.take(range.end - range.start))
            }
        })
    }

    /// Its content, decompressed.
    pub fn content(&self, compression: Compression) -> Result<Box<dyn Read + Send>> {
        match compression {
            Compression::Zip => unzip(self.seekable()?),
            other => other.decompress(self.bytes(None)?),
        }
    }

    /// A local file with its bytes: itself, or a temporary copy that vanishes with its handle.
    pub fn seekable(&self) -> Result<File> {
        if let Some(path) = self.local()? {
            return open(&path);
        }
        let mut copy = tempfile::tempfile()?;
        io::copy(&mut self.remote(None), &mut copy)?;
        copy.rewind()?;
        Ok(copy)
    }

    fn remote(&self, range: Option<Range<u64>>) -> PipeReader {
        let (writer, reader) = pipe();
        let (store, path) = (self.location.store.clone(), self.path.clone());
        self.runtime.spawn(async move {
            let options = GetOptions { range: range.map(GetRange::Bounded), ..Default::default() };
            let mut stream = match store.get_opts(&path, options).await {
                Ok(got) => got.into_stream(),
                Err(e) => return writer.fail(io::Error::other(storage::error(e, path.as_ref()))),
            };
            while let Some(chunk) = stream.next().await {
                if chunk.as_ref().is_ok_and(Bytes::is_empty) {
                    continue;
                }
                let chunk = chunk.map_err(|e| io::Error::other(storage::error(e, path.as_ref())));
                // The reader is gone when its read has ended early.
                if !writer.send_from_async(chunk).await {
                    return;
                }
            }
            writer.send_from_async(Ok(Bytes::new())).await;
        });
        reader
    }
}

fn open(path: &std::path::Path) -> Result<File> {
    File::open(path).map_err(|e| Error::from(e).file(path.to_string_lossy(), None, None))
}

/// A bounded pipe of chunks between two threads.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    (PipeWriter { sender }, PipeReader { receiver, current: Bytes::new(), ended: false })
}

pub struct PipeWriter {
    sender: mpsc::SyncSender<io::Result<Bytes>>,
}

impl PipeWriter {
    /// Ends the pipe with an error.
    pub fn fail(&self, e: io::Error) {
        // Without a reader nobody needs to know.
        let _ = self.sender.send(Err(e));
    }

    /// Says that this was all. A pipe that just breaks off is an error to its reader: half a file is not a file.
    pub fn finish(self) {
        let _ = self.sender.send(Ok(Bytes::new()));
    }

    /// Sends without blocking the runtime's thread: waits on a blocking thread while the pipe is full. False when the reader is gone.
    async fn send_from_async(&self, chunk: io::Result<Bytes>) -> bool {
        match self.sender.try_send(chunk) {
            Ok(()) => true,
            Err(mpsc::TrySendError::Disconnected(_)) => false,
            Err(mpsc::TrySendError::Full(chunk)) => {
                let sender = self.sender.clone();
                tokio::task::spawn_blocking(move || sender.send(chunk).is_ok()).await.unwrap_or(false)
            }
        }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let sent = self.sender.send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub struct PipeReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            self.current = self.receiver.recv().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))??;
            self.ended = self.current.is_empty();
        }
        let n = self.current.len().min(into.len());
        into[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// The error inside an I/O error that came through a pipe, with its code.
pub fn unwrap_io(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) => inner,
        Err(e) => e.into(),
    }
}
