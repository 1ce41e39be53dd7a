//! One query's rows as batches, by `COPY … TO STDOUT (FORMAT binary)`.

use std::pin::Pin;

use futures::TryStreamExt;
use tokio_postgres::CopyOutStream;
use trib_core::Result;

use super::connect::Session;
use super::decode::{Decoded, Decoder};
use super::error;

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    pub rows: usize,
    pub bytes: usize,
}

impl BatchSize {
    /// Of rows that are passed on as they are: they stay in the processor's cache until they are sent.
    pub const SMALL: Self = Self { rows: 16_384, bytes: 256 << 10 };
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { rows: 16_384, bytes: 1 << 20 }
    }
}

/// Rows on their way from the server.
pub struct CopyOut {
    stream: Pin<Box<CopyOutStream>>,
    decoder: Decoder,
    size: BatchSize,
    ended: bool,
}

impl CopyOut {
    /// Starts the query. The session is busy until [`CopyOut::next`] has given `None`.
    pub async fn start(session: &Session, query: &str, decoder: Decoder, size: BatchSize) -> Result<Self> {
        let copy = format!("COPY ({query}\n) TO STDOUT (FORMAT binary)");
        let stream = session.client.copy_out(copy.as_str()).await.map_err(error::driver)?;
        Ok(Self { stream: Box::pin(stream), decoder, size, ended: false })
    }

    /// The next batch; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Decoded>> {
        while !self.ended && self.decoder.rows() < self.size.rows && self.decoder.bytes() < self.size.bytes {
            match self.stream.try_next().await.map_err(error::driver)? {
                Some(piece) => self.decoder.push(&piece)?,
                None => self.ended = true,
            }
        }
        if self.decoder.rows() == 0 {
            return Ok(None);
        }
        self.decoder.finish().map(Some)
    }
}
