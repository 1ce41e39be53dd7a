//! Messages on standard input as a source: what `trib target` loads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use trib_core::{Catalog, Emitter, Error, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};
use trib_kit::lines::Lines;

use super::input::{Input, Known, Pause, Rules};

/// A stream of messages, and whoever waits for the STATE messages among them.
///
/// The writer at the other end remembers how far it has come, by the STATE messages that are given back to it: each when all that came before it is
/// visible at the destination, in their order. What is sent again after a crash begins at the last of them.
pub struct Pipe {
    /// Absent while it is read.
    input: Mutex<Option<Input>>,
    /// Read, and not yet safe.
    waiting: Mutex<Vec<String>>,
    back: Mutex<Box<dyn Write + Send>>,
}

impl Pipe {
    /// With `nested`, objects and arrays become structs and lists; otherwise JSON. With `versions`, ACTIVATE_VERSION is followed. STATE messages are written to `back`.
    pub fn new(from: impl Read + Send + 'static, back: impl Write + Send + 'static, nested: bool, versions: bool) -> Arc<Self> {
        let input = Input::new(Lines::of_reader(from), Rules { nested, strict: true, versions });
        Arc::new(Self { input: Mutex::new(Some(input)), waiting: Mutex::default(), back: Mutex::new(Box::new(back)) })
    }

    /// Works on the input on a thread that may block.
    async fn with_input<T: Send + 'static>(&self, work: impl FnOnce(&mut Input) -> Result<T> + Send + 'static) -> Result<T> {
        let input = lock(&self.input).take();
        let mut input = input.ok_or_else(|| Error::internal("the input is read twice at the same time, or after it has failed"))?;
        let (input, result) = tokio::task::spawn_blocking(move || {
            let result = work(&mut input);
            (input, result)
        })
        .await
        .map_err(|_| Error::internal("reading the input has panicked"))?;
        *lock(&self.input) = Some(input);
        result
    }

    fn give_back(&self, states: Vec<String>) -> Result<()> {
        let mut back = lock(&self.back);
        for state in states {
            writeln!(back, "{state}")?;
        }
        Ok(back.flush()?)
    }
}

/// The streams whose tables are replaced by what is read.
pub fn whole(reads: &[StreamRead]) -> Vec<&str> {
    reads.iter().filter(|r| !r.may_stop).map(|r| r.stream.as_str()).collect()
}

/// How a split over all streams of an input has ended.
pub fn ended(split: &Split, pause: Pause, input: &Input, state: Option<&String>) -> SplitEnd {
    let facts = json!({"state": state, "versions": input.versions()});
    match pause {
        Pause::End => SplitEnd::finished(split, facts),
        Pause::Budget | Pause::Schema | Pause::Version => {
            SplitEnd { whole: input.complete(), ..SplitEnd::stopped(split, split.clone(), facts) }
        }
    }
}

/// The last STATE, and the version of each table, after these.
pub fn advanced(mut state: State, ends: &[SplitEnd]) -> Result<State> {
    if let Some(text) = ends.iter().rev().find_map(|end| end.facts["state"].as_str()) {
        state.global = Some(serde_json::from_str(text)?);
    }
    for (stream, version) in ends.iter().filter_map(|end| end.facts["versions"].as_object()).flatten() {
        state.streams.insert(stream.clone(), json!({"version": version}));
    }
    Ok(state)
}

/// The versions that a state knows.
pub fn remembered(state: &State) -> BTreeMap<String, i64> {
    state.streams.iter().filter_map(|(stream, known)| Some((stream.clone(), known["version"].as_i64()?))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Source for Pipe {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Waits for the first record that was not read yet. Everything before it is safe already, so that STATE messages that come now go back at once.
    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        let (streams, states) = self
            .with_input(|input| {
                input.to_rows()?;
                let stream = |(name, known): (&str, &Known)| Stream {
                    primary_key: known.key.clone(),
                    cursors: known.bookmarks.clone(),
                    read_modes: vec![ReadMode::Incremental],
                    anew: input.is_anew(name),
                    ..Stream::new(name, name, known.schema.clone())
                };
                Ok((input.known().map(stream).collect(), input.take_states()))
            })
            .await?;
        self.give_back(states)?;
        Ok(Catalog { streams })
    }

    fn streams_together(&self) -> bool {
        true
    }

    fn remembered_elsewhere(&self) -> bool {
        true
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let ended = match lock(&self.input).as_mut() {
            Some(input) => {
                input.remember(&remembered(state));
                input.ended()
            }
            None => true,
        };
        let spec = json!({"whole": whole(reads)});
        let split = Split { streams: reads.iter().map(|r| r.stream.clone()).collect(), spec, rows: None, covers: None };
        Ok(if ended { Vec::new() } else { vec![split] })
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let mut out = out.clone();
        let whole = Vec::<String>::deserialize(&split.spec["whole"])?;
        let (states, end) = self
            .with_input({
                let split = split.clone();
                move |input| {
                    let pause = input.read(&mut out, &whole)?;
                    let states = input.take_states();
                    let end = ended(&split, pause, input, states.last());
                    Ok((states, end))
                }
            })
            .await?;
        lock(&self.waiting).extend(states);
        Ok(end)
    }

    /// The last STATE is kept for people to look at; nothing is read by it.
    fn advance(&self, _reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        advanced(state.clone(), ends)
    }

    async fn acknowledge(&self, _state: &State) -> Result<()> {
        self.give_back(std::mem::take(&mut *lock(&self.waiting)))
    }
}
