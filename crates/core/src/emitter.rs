//! The bounded way from a source's loop to the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;

use crate::error::{Code, Error, Result};
use crate::lines::Lines;
use crate::load::RejectedRow;

/// What a source pushes.
#[derive(Debug)]
pub enum Message {
    /// From here on the stream's batches have this schema.
    Schema {
        stream: Arc<str>,
        schema: SchemaRef,
    },
    Batch {
        stream: Arc<str>,
        batch: RecordBatch,
        /// Where the rows stand, where that is a file with lines.
        lines: Option<Lines>,
    },
    Reject {
        stream: Arc<str>,
        row: RejectedRow,
    },
    /// For the run's log.
    Log {
        level: Level,
        text: String,
    },
}

/// How much a line of a log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A source's end of the channel. Sending waits while the other end is busy, which is all the
/// back-pressure there is. A clone is another end of the same channel, for sources that read on a blocking thread.
#[derive(Clone)]
pub struct Emitter {
    sender: mpsc::Sender<Message>,
    stop: Arc<AtomicBool>,
    wire: Option<&'static str>,
}

impl Emitter {
    /// A channel that holds at most `capacity` messages. Setting `stop` asks the source to end at its next checkpoint.
    pub fn channel(capacity: usize, stop: Arc<AtomicBool>) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, stop, wire: None }, receiver)
    }

    /// The other end takes rows in this form besides, in batches that [`crate::wire::batch`] makes.
    #[must_use]
    pub fn taking(mut self, form: Option<&'static str>) -> Self {
        self.wire = form;
        self
    }

    /// Whether rows may be pushed in this form: see [`crate::wire`].
    pub fn takes(&self, form: &str) -> bool {
        self.wire == Some(form)
    }

    /// Announces a schema that differs from the one in the catalog, before its first batch.
    pub async fn schema(&mut self, stream: &str, schema: SchemaRef) -> Result<()> {
        self.send(Message::Schema { stream: stream.into(), schema }).await
    }

    pub async fn batch(&mut self, stream: &str, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.send(Message::Batch { stream: stream.into(), batch, lines: None }).await
    }

    /// Sets a row aside that could not be decoded, with its place and the reason.
    pub async fn reject(&mut self, stream: &str, row: RejectedRow) -> Result<()> {
        self.send(Message::Reject { stream: stream.into(), row }).await
    }

    /// Writes a line to the run's log. It must not hold secrets.
    pub async fn log(&mut self, level: Level, text: String) -> Result<()> {
        self.send(Message::Log { level, text }).await
    }

    /// True when the load's budget is spent: end at the next place from which the rest can be read.
    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// True when nobody takes anything any more: the load has failed, or was stopped.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    async fn send(&mut self, message: Message) -> Result<()> {
        // The other end is dropped when the load has failed or was cancelled; its error is the one that counts.
        self.sender.send(message).await.map_err(|_| Error::new(Code::Cancelled, "the read was stopped"))
    }

    /// For sources that read on a blocking thread.
    pub fn batch_blocking(&mut self, stream: &str, batch: RecordBatch) -> Result<()> {
        self.lines_blocking(stream, batch, None)
    }

    /// [`Self::batch_blocking`] for rows that stand on lines.
    pub fn lines_blocking(&mut self, stream: &str, batch: RecordBatch, lines: Option<Lines>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.send_blocking(Message::Batch { stream: stream.into(), batch, lines })
    }

    /// For sources that read on a blocking thread.
    pub fn reject_blocking(&mut self, stream: &str, row: RejectedRow) -> Result<()> {
        self.send_blocking(Message::Reject { stream: stream.into(), row })
    }

    /// [`Self::log`] for sources that read on a blocking thread.
    pub fn log_blocking(&mut self, level: Level, text: String) -> Result<()> {
        self.send_blocking(Message::Log { level, text })
    }

    fn send_blocking(&mut self, message: Message) -> Result<()> {
        self.sender.blocking_send(message).map_err(|_| Error::new(Code::Cancelled, "the read was stopped"))
    }
}
