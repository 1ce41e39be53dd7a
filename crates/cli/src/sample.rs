//! The first rows of a stream, read from a source without a load, and what a sync makes of rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use futures::StreamExt;
use trib_core::source::{Read, StreamRead};
use trib_core::{Code, Emitter, Message, RejectedRow, Result, Source, State, Stream};
use trib_engine::steps::Steps;
use trib_engine::{Engine, StreamSpec};

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
                Message::Batch { stream, batch, .. } if *stream == *read.stream => {
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

/// The rows after filter, query and column steps, under the names that they will have. Nested values stay as they are.
pub async fn transformed(engine: &Engine, spec: &StreamSpec, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let steps = Steps::compile(engine, &spec.schema, &spec.transform).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(batches.len().max(1));
    for batch in batches {
        sender.send(Ok(batch)).await.map_err(|_| trib_core::Error::internal("the steps have not begun"))?;
    }
    drop(sender);
    let fields: Vec<Field> = steps
        .output()
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let name = if steps.is_named(i) { f.name().clone() } else { spec.naming.apply(f.name()) };
            f.as_ref().clone().with_name(name).with_nullable(true)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let mut rows = steps.begin(receiver)?;
    let mut result = Vec::new();
    while let Some(batch) = rows.next().await {
        let stepped = steps.apply(batch?)?;
        result.push(RecordBatch::try_new(schema.clone(), stepped.batch.columns().to_vec())?);
    }
    if result.is_empty() {
        result.push(RecordBatch::new_empty(schema));
    }
    Ok(result)
}
