//! What a load asks its source for, and from where.

use trib_core::protocol::Known;
use trib_core::{Code, Error, Read, Result, Source, SplitEnd, State, StreamRead, WriteMode};

use crate::task::{Refresh, StreamTask};

/// The question of one load.
pub struct Wanted {
    pub streams: Vec<StreamTask>,
    pub reads: Vec<StreamRead>,
    /// Where the scope stands.
    pub state: State,
    /// Where the read begins.
    pub from: State,
    /// Number of the last load that was published; 0 before the first.
    pub number: u64,
    /// The tables are replaced by what is read from the very beginning.
    pub refreshing: bool,
    /// The streams come out of one split.
    together: bool,
    /// What an earlier read had left is given up: something else is asked for.
    pub begins_anew: bool,
}

impl Wanted {
    /// `streams` are the scope's, or its prune.
    pub fn new(
        streams: &[StreamTask],
        (known, state): (Option<Known>, State),
        refreshing: bool,
        together: bool,
        splits: usize,
    ) -> Result<Self> {
        let streams: Vec<StreamTask> = streams.iter().map(|s| for_this_load(s, refreshing)).collect();
        let reads = streams.iter().map(|s| s.stream_read(splits)).collect();
        let number = known.map_or(0, |k| k.number);
        let mut wanted = Self { streams, reads, from: state.clone(), state, number, refreshing, together, begins_anew: false };
        if refreshing || wanted.starts_over() {
            wanted.from = State::default();
        } else if let Some(stream) = wanted.asks_otherwise() {
            // Rows that come twice would stay twice.
            if !stream.spec.write.absorbs_repeats() {
                return Err(Error::new(Code::ConfigInvalid, "the stream's last read was cut, and what is asked for now is something else")
                    .detail("its columns, filter, key or way of reading have changed since")
                    .stream(&stream.spec.stream)
                    .hint("`--full-refresh` loads everything again; or set it back until a run has read the rest"));
            }
            wanted.from = State::default();
            wanted.begins_anew = true;
        }
        Ok(wanted)
    }

    /// All that there is must have been read before any of it is published.
    pub fn complete(&self) -> bool {
        self.streams.iter().any(|s| s.spec.write.needs_complete_read())
    }

    /// What was read before has no part in it. A split of several streams begins where all of them stand.
    fn starts_over(&self) -> bool {
        let in_parts = self.streams.iter().any(StreamTask::in_parts);
        !self.together && (self.complete() && !in_parts || self.reads.iter().any(|r| !r.read.moves_state()))
    }

    /// Rows that were loaded before are not read again, so the table must have them.
    pub fn builds_on_state(&self, stream: &str) -> bool {
        let asked = self.streams.iter().zip(&self.reads).find(|(s, _)| s.spec.stream == stream);
        let Some((task, read)) = asked.filter(|_| !self.refreshing && !self.begins_anew && !self.state.is_empty()) else {
            return false;
        };
        let goes_on = match &read.read {
            Read::Full => self.state.cut.contains_key(stream),
            Read::Incremental(_) | Read::Cdc | Read::Range { .. } => true,
            Read::Keys => false,
        };
        goes_on && !task.spec.write.needs_complete_read()
    }

    /// The stream of which something is left that is no rest of this read.
    fn asks_otherwise(&self) -> Option<&StreamTask> {
        if self.together {
            return None;
        }
        let other = |read: &StreamRead| self.state.cut.get(&read.stream).is_some_and(|cut| *cut != read.fingerprint());
        self.streams.iter().zip(&self.reads).find(|(_, read)| other(read)).map(|(stream, _)| stream)
    }

    /// Where the load leads to. Reading a range again, or comparing keys, moves nothing.
    pub fn next(&self, source: &dyn Source, ends: &[SplitEnd]) -> Result<State> {
        if !self.reads.iter().any(|r| r.read.moves_state()) {
            return Ok(self.state.clone());
        }
        let mut next = source.advance(&self.reads, &self.from, ends)?;
        next.cut.clear();
        if !self.together {
            let cut = |read: &&StreamRead| ends.iter().any(|e| e.rest.is_some() && e.split.streams.contains(&read.stream));
            next.cut.extend(self.reads.iter().filter(cut).map(|read| (read.stream.clone(), read.fingerprint())));
        }
        Ok(next)
    }

    /// Streams whose tables will hold what this load has read of them, and nothing else. `whole` says that one was read to its end.
    pub fn replaced(&self, whole: impl Fn(&StreamTask) -> bool) -> Vec<String> {
        let all_of_it = |s: &&StreamTask| {
            matches!(s.spec.write, WriteMode::Replace | WriteMode::Mirror)
                && s.read.moves_state()
                && s.spec.scope.as_ref().is_none_or(|scope| scope.value().is_some())
        };
        self.streams.iter().filter(all_of_it).filter(|s| whole(s)).map(|s| s.spec.stream.clone()).collect()
    }

    /// Rejected rows that are delivered by this load.
    pub fn retries(&self) -> Vec<u64> {
        self.streams.iter().flat_map(|s| s.retries.iter().copied()).collect()
    }
}

/// A refreshed table is replaced by what is read from the very beginning; only history adds to what it has.
fn for_this_load(stream: &StreamTask, refreshing: bool) -> StreamTask {
    let mut stream = stream.clone();
    if refreshing && stream.refresh == Refresh::Full && stream.spec.write != WriteMode::History {
        stream.spec.write = WriteMode::Replace;
    }
    stream
}
