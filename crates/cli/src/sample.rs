//! The first rows of a stream, read from a source without a load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use trib_core::source::{Read, StreamRead};
use trib_core::{Code, Emitter, Message, RejectedRow, Result, Source, State, Stream};

#[derive(Default)]
pub struct Sample {
    pub batches: Vec<RecordBatch>,
    /// Rows among them that the source could not decode.
    pub rejected: Vec<RejectedRow>,
}

/// What to ask for to see a stream as the source has it.
pub fn whole(stream: &Stream) -> StreamRead {
    StreamRead {
        stream: stream.name.clone(),
        columns: None,
        filter: None,
        key: stream.primary_key.clone(),
        read: Read::Full,
        split_by: None,
        parallelism: 1,
        may_stop: true,
        exactly_once: false,
    }
}

/// Reads split after split until `rows` rows are there, and gives up the rest.
pub async fn first_rows(source: &Arc<dyn Source>, read: &StreamRead, rows: usize) -> Result<Sample> {
    let mut sample = Sample::default();
    let mut left = rows;
    for split in source.plan(std::slice::from_ref(read), &State::default()).await? {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut emitter, mut messages) = Emitter::channel(1, stop.clone());
        let source = source.clone();
        let reading = tokio::spawn(async move { source.read(&split, &mut emitter).await });
        while let Some(message) = messages.recv().await {
            match message {
                Message::Batch { stream, batch } if *stream == *read.stream => {
                    let taken = batch.num_rows().min(left);
                    sample.batches.push(batch.slice(0, taken));
                    left -= taken;
                }
                Message::Reject { row, .. } => sample.rejected.push(row),
                Message::Batch { .. } | Message::Schema { .. } | Message::Log { .. } => {}
            }
            if left == 0 {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        drop(messages);
        match reading.await {
            // The source was interrupted by us.
            Ok(Err(e)) if left == 0 && e.code() == Code::Cancelled => {}
            Ok(ended) => drop(ended?),
            Err(_) => return Err(trib_core::Error::internal("reading a sample has panicked")),
        }
        if left == 0 {
            break;
        }
    }
    Ok(sample)
}
