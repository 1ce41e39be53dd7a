//! Running a source without an engine.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;
use trib_core::{Emitter, Message, Read, RejectedRow, Result, Source, Split, SplitEnd, State, StreamRead};

/// What came out of a read.
#[derive(Debug, Default)]
pub struct Emitted {
    pub batches: Vec<RecordBatch>,
    pub rejected: Vec<RejectedRow>,
    pub ends: Vec<SplitEnd>,
}

/// A read of a whole stream, to be changed by the caller.
pub fn full(stream: &str) -> StreamRead {
    StreamRead {
        stream: stream.to_owned(),
        columns: None,
        filter: None,
        key: Vec::new(),
        read: Read::Full,
        split_by: None,
        parallelism: 1,
        may_stop: false,
        exactly_once: true,
    }
}

/// Reads one split to its end.
pub async fn collect(source: &dyn Source, split: &Split) -> Result<Emitted> {
    collect_until(source, split, false).await
}

/// The same; with `stop`, the source is asked to end at its first checkpoint.
pub async fn collect_until(source: &dyn Source, split: &Split, stop: bool) -> Result<Emitted> {
    let (out, receiver) = Emitter::channel(2, Arc::new(AtomicBool::new(stop)));
    gather(source, split, out, receiver).await
}

/// Reads one split to its end, with rows in this form ([`trib_core::wire`]) where the source gives them so.
pub async fn collect_in(source: &dyn Source, split: &Split, form: &'static str) -> Result<Emitted> {
    let (out, receiver) = Emitter::channel(2, Arc::default());
    gather(source, split, out.taking(Some(form)), receiver).await
}

async fn gather(source: &dyn Source, split: &Split, mut out: Emitter, mut receiver: mpsc::Receiver<Message>) -> Result<Emitted> {
    let read = async {
        let end = source.read(split, &mut out).await;
        // The channel closes with its last sender.
        drop(out);
        end
    };
    let gather = async {
        let mut emitted = Emitted::default();
        while let Some(message) = receiver.recv().await {
            match message {
                Message::Batch { batch, .. } => emitted.batches.push(batch),
                Message::Reject { row, .. } => emitted.rejected.push(row),
                Message::Schema { .. } | Message::Log { .. } => {}
            }
        }
        emitted
    };
    let (end, mut emitted) = tokio::join!(read, gather);
    emitted.ends.push(end?);
    Ok(emitted)
}

/// Plans and reads all splits, one after the other, and gives the state that follows.
pub async fn read(source: &dyn Source, read: &StreamRead, state: &State) -> Result<(Emitted, State)> {
    read_until(source, read, state, false).await
}

/// The same; with `stop`, every split is asked to end at its first checkpoint. What moves no state neither gets it nor changes it.
pub async fn read_until(source: &dyn Source, read: &StreamRead, state: &State, stop: bool) -> Result<(Emitted, State)> {
    let reads = std::slice::from_ref(read);
    let mut all = Emitted::default();
    let from = if read.read.moves_state() { state.clone() } else { State::default() };
    for split in source.plan(reads, &from).await? {
        let emitted = collect_until(source, &split, stop).await?;
        all.batches.extend(emitted.batches);
        all.rejected.extend(emitted.rejected);
        all.ends.extend(emitted.ends);
    }
    let state = if all.ends.is_empty() || !read.read.moves_state() { state.clone() } else { source.advance(reads, state, &all.ends)? };
    Ok((all, state))
}
