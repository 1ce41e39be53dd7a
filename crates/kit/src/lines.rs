//! Lines out of pieces of input, without a copy of each line.

use std::io::Read;
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use trib_core::{Code, Error, Result};

/// A piece of input.
const CHUNK: usize = 256 << 10;
/// Pieces that wait.
const WAITING: usize = 4;
/// A message that is longer is refused.
const LONGEST: usize = 256 << 20;
/// The buffer's usual size: after a long line it shrinks back.
const USUAL: usize = 1 << 20;

pub struct Lines {
    chunks: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    /// The last line that was given.
    last: std::ops::Range<usize>,
    /// Give it once more.
    again: bool,
    /// Where the next line begins, and how far it was searched.
    at: usize,
    searched: usize,
    number: u64,
    ended: bool,
}

pub enum Next<'a> {
    Line {
        text: &'a [u8],
        /// From 1.
        number: u64,
    },
    /// Nothing has come for a while.
    Waiting,
    End,
}

impl Lines {
    fn new(chunks: mpsc::Receiver<std::io::Result<Vec<u8>>>) -> Self {
        Self { chunks, buffer: Vec::new(), last: 0..0, again: false, at: 0, searched: 0, number: 0, ended: false }
    }

    /// Reads on a thread of its own: standard input cannot be waited for otherwise.
    pub fn of_reader(mut from: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = mpsc::channel(WAITING);
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = match from.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => read,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => {
                        let _ = sender.blocking_send(Err(e));
                        return;
                    }
                };
                chunk.truncate(read);
                if sender.blocking_send(Ok(chunk)).is_err() {
                    return;
                }
            }
        });
        Self::new(chunks)
    }

    pub fn of_async(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, chunks) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = from.read_buf(&mut chunk).await;
                if matches!(read, Ok(0)) {
                    return;
                }
                let failed = read.is_err();
                if sender.send(read.map(|_| chunk)).await.is_err() || failed {
                    return;
                }
            }
        });
        Self::new(chunks)
    }

    /// The last line comes once more.
    pub fn push_back(&mut self) {
        self.again = true;
    }

    /// The next line without its end; empty lines are left out. Blocks, at most for `patience` when nothing comes.
    pub fn next(&mut self, patience: Duration) -> Result<Next<'_>> {
        if std::mem::take(&mut self.again) {
            return Ok(self.last());
        }
        loop {
            if let Some(found) = memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + found;
                if self.take(end, end + 1) {
                    return Ok(self.last());
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.ended {
                if self.at < self.buffer.len() && self.take(self.buffer.len(), self.buffer.len()) {
                    return Ok(self.last());
                }
                return Ok(Next::End);
            }
            if self.buffer.len() - self.at > LONGEST {
                return Err(Error::new(Code::DataInvalid, "a message is longer than can be taken")
                    .detail(format!("more than {} MB", LONGEST >> 20))
                    .row(format!("line {}", self.number + 1)));
            }
            match self.receive(patience) {
                Received::Chunk(chunk) => self.add(&chunk?),
                Received::Nothing => return Ok(Next::Waiting),
                Received::End => self.ended = true,
            }
        }
    }

    fn last(&self) -> Next<'_> {
        Next::Line { text: &self.buffer[self.last.clone()], number: self.number }
    }

    /// Takes the line up to `end`; false when it is empty.
    fn take(&mut self, end: usize, next: usize) -> bool {
        let start = self.at;
        let end = if end > start && self.buffer[end - 1] == b'\r' { end - 1 } else { end };
        (self.at, self.searched) = (next, next);
        self.number += 1;
        self.last = start..end;
        !self.buffer[self.last.clone()].iter().all(u8::is_ascii_whitespace)
    }

    fn add(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.at);
        self.searched -= self.at;
        self.at = 0;
        self.last = 0..0;
        if self.buffer.capacity() > 4 * USUAL && self.buffer.len() + chunk.len() < USUAL {
            self.buffer.shrink_to(USUAL);
        }
        self.buffer.extend_from_slice(chunk);
    }

    fn receive(&mut self, patience: Duration) -> Received {
        match self.chunks.try_recv() {
            Ok(chunk) => Received::Chunk(chunk),
            Err(mpsc::error::TryRecvError::Disconnected) => Received::End,
            Err(mpsc::error::TryRecvError::Empty) => {
                let waited = Handle::current().block_on(async { tokio::time::timeout(patience, self.chunks.recv()).await });
                match waited {
                    Ok(Some(chunk)) => Received::Chunk(chunk),
                    Ok(None) => Received::End,
                    Err(_) => Received::Nothing,
                }
            }
        }
    }
}

enum Received {
    Chunk(std::io::Result<Vec<u8>>),
    Nothing,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str) -> Vec<(u64, String)> {
        let mut lines = Lines::of_reader(Slow(text.as_bytes()));
        let mut found = Vec::new();
        loop {
            match lines.next(Duration::from_secs(60)).unwrap() {
                Next::Line { text, number } => found.push((number, String::from_utf8(text.to_vec()).unwrap())),
                Next::Waiting => panic!("nothing comes"),
                Next::End => return found,
            }
        }
    }

    /// Gives three bytes at a time.
    struct Slow(&'static [u8]);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let (now, later) = self.0.split_at(self.0.len().min(3));
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    #[tokio::test]
    async fn lines_come_whole() {
        tokio::task::spawn_blocking(|| {
            let expected = [(1, "first"), (3, "second line"), (4, "é")].map(|(n, l)| (n, l.to_owned()));
            assert_eq!(all("first\n\nsecond line\r\né"), expected);
            assert!(all("").is_empty());
        })
        .await
        .unwrap();
    }
}
