//! A connector's messages into batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use trib_core::{Code, Emitter, Error, Level, Result};
use trib_kit::lines::{Lines, Next};
use trib_kit::records::Decoder;
use trib_kit::scrub::Scrub;
use trib_kit::tape::Tape;

use super::message::{Message, StreamName, parse};
use super::settings::CurrentSettings;
use super::state::Folded;

/// How long to wait for a message before looking at anything else.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// JSON that may wait in the batches of all streams together.
const WAITING_BYTES: usize = 16 << 20;
/// What the program says on standard error is passed on after this many messages, and whenever it is silent.
const NOW_AND_THEN: u64 = 4096;
/// Bytes of a line that an error shows.
const SHOWN: usize = 200;

/// Why reading has come to a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There is nothing more.
    End,
    /// The load's budget is spent, and a STATE is a place to stop.
    Budget,
}

/// A stream that is read.
pub struct Wanted {
    pub name: StreamName<'static>,
    pub decoder: Decoder,
    /// Rows must not come twice, so that a load may end only where a state covers all of them.
    pub exactly_once: bool,
}

pub struct Input {
    lines: Lines,
    tape: Tape,
    streams: Vec<Wanted>,
    by_name: HashMap<String, usize>,
    /// The stream of the last record.
    last: usize,
    /// Streams with rows that no state covers yet.
    uncovered: Vec<bool>,
    /// What STATE messages have added up to.
    pub state: Folded,
    /// What went wrong, as the connector says; the first that it has said counts.
    pub failed: Option<Error>,
    /// A stream that has not come to its end, where nothing says why.
    pub incomplete: Option<Error>,
    settings: Arc<CurrentSettings>,
}

impl Input {
    pub fn new(lines: Lines, state: Folded, settings: Arc<CurrentSettings>) -> Self {
        let (streams, by_name, uncovered) = (Vec::new(), HashMap::new(), Vec::new());
        Self { lines, tape: Tape::default(), streams, by_name, last: 0, uncovered, state, failed: None, incomplete: None, settings }
    }

    /// What is read from here on, in the order of the load before, if there was one.
    pub fn want(&mut self, streams: Vec<Wanted>) {
        self.by_name.clear();
        for (at, stream) in streams.iter().enumerate() {
            // Some connectors leave the namespace out of what they say.
            self.by_name.entry(stream.name.name.to_string()).or_insert(at);
        }
        for (at, stream) in streams.iter().enumerate() {
            self.by_name.insert(stream.name.full(), at);
        }
        self.uncovered.resize(streams.len(), false);
        self.streams = streams;
    }

    /// Pushes rows until there is a reason to pause; `chore` is done now and then. Blocks.
    pub fn read(&mut self, out: &mut Emitter, may_stop: bool, mut chore: impl FnMut(&mut Emitter) -> Result<()>) -> Result<Pause> {
        let (mut waiting, mut messages) = (0, 0u64);
        loop {
            messages += 1;
            if messages.is_multiple_of(NOW_AND_THEN) {
                chore(out)?;
            }
            let (text, number) = match self.lines.next(PATIENCE)? {
                Next::Line { text, number } => (text, number),
                Next::End => break,
                Next::Waiting if out.is_closed() => return Err(Error::new(Code::Cancelled, "the read was stopped")),
                Next::Waiting => {
                    // What has come is on its way while nothing more comes.
                    self.give_all(out)?;
                    waiting = 0;
                    chore(out)?;
                    continue;
                }
            };
            let scrub = &self.settings.scrub;
            match parse(text, &mut self.tape).map_err(|e| at(&e, number, text, scrub))? {
                Some(Message::Record { stream, data }) => {
                    let found = match self.streams.get(self.last) {
                        Some(wanted) if wanted.name == stream => Some(self.last),
                        _ => place(&self.by_name, &stream),
                    };
                    // Some give streams that nobody has asked for.
                    let Some(found) = found else { continue };
                    self.last = found;
                    self.uncovered[found] = true;
                    let decoder = &mut self.streams[found].decoder;
                    waiting += data.bytes().len();
                    if decoder.add(data, number) {
                        waiting = waiting.saturating_sub(decoder.bytes());
                        decoder.give(out)?;
                    }
                    if waiting > WAITING_BYTES {
                        self.give_all(out)?;
                        waiting = 0;
                    }
                }
                Some(Message::State(state)) => {
                    match self.state.add(state) {
                        None => self.uncovered.fill(false),
                        Some(stream) => {
                            if let Some(at) = place(&self.by_name, &stream) {
                                self.uncovered[at] = false;
                            }
                        }
                    }
                    let covered = |(wanted, uncovered): (&Wanted, &bool)| !(wanted.exactly_once && *uncovered);
                    if may_stop && out.should_stop() && self.streams.iter().zip(&self.uncovered).all(covered) {
                        self.give_all(out)?;
                        return Ok(Pause::Budget);
                    }
                }
                Some(Message::Log(level, message)) => {
                    chore(out)?;
                    out.log_blocking(level, scrub.text(&message))?;
                }
                Some(Message::Failed(failure)) => {
                    let error = clean(&failure.error(), scrub);
                    self.failed.get_or_insert(error);
                }
                Some(Message::Incomplete(failure)) => self.incomplete = Some(failure.error()),
                // At once: the token that it replaces is good for nothing any more.
                Some(Message::NewConfig(config)) => self.settings.replace(&config)?,
                // Whatever else a program prints is for people.
                None => out.log_blocking(Level::Info, scrub.text(&shown(text)))?,
                Some(Message::Specification(_) | Message::Status(_) | Message::Catalog(_) | Message::Other) => {}
            }
        }
        chore(out)?;
        self.give_all(out)?;
        Ok(Pause::End)
    }

    fn give_all(&mut self, out: &mut Emitter) -> Result<()> {
        self.streams.iter_mut().try_for_each(|stream| stream.decoder.give(out))
    }
}

fn place(by_name: &HashMap<String, usize>, stream: &StreamName<'_>) -> Option<usize> {
    by_name.get(&stream.full()).or_else(|| by_name.get(stream.name.as_ref())).copied()
}

/// The one answer that `spec`, `check` and `discover` give.
#[derive(Default)]
pub struct Answer {
    pub specification: Option<serde_json::Value>,
    pub status: Option<(bool, String)>,
    pub catalog: Option<serde_json::Value>,
    pub failed: Option<Error>,
}

/// Hears a connector out. Blocks.
pub fn answer(lines: &mut Lines, settings: &CurrentSettings) -> Result<Answer> {
    let (mut answer, mut tape, scrub) = (Answer::default(), Tape::default(), &settings.scrub);
    loop {
        let (text, number) = match lines.next(PATIENCE)? {
            Next::Line { text, number } => (text, number),
            Next::Waiting => continue,
            Next::End => return Ok(answer),
        };
        match parse(text, &mut tape).map_err(|e| at(&e, number, text, scrub))? {
            Some(Message::Specification(specification)) => answer.specification = Some(specification),
            Some(Message::Status(status)) => {
                answer.status = Some((status.status == "SUCCEEDED", scrub.text(&status.message.unwrap_or_default())));
            }
            Some(Message::Catalog(catalog)) => answer.catalog = Some(catalog),
            Some(Message::NewConfig(config)) => settings.replace(&config)?,
            Some(Message::Failed(failure)) => drop(answer.failed.get_or_insert(clean(&failure.error(), scrub))),
            Some(Message::Log(level, message)) => aside(level, &scrub.text(&message)),
            _ => {}
        }
    }
}

/// What a connector says where there is no run's log to write it to.
pub fn aside(level: Level, message: &str) {
    match level {
        Level::Warn | Level::Error => tracing::warn!(message, "the connector says"),
        _ => tracing::debug!(message, "the connector says"),
    }
}

/// What a program has said may hold what it was given.
pub fn clean(error: &Error, scrub: &Scrub) -> Error {
    let clean = Error::new(error.code(), error.message()).detail(scrub.text(error.detail_text().unwrap_or_default()));
    let clean = match &error.place().stream {
        Some(stream) => clean.stream(stream),
        None => clean,
    };
    clean.hint(error.hint_text().unwrap_or("`trib logs` shows all that it has said"))
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

/// The same error with the line that it is about.
pub fn at(error: &Error, number: u64, line: &[u8], scrub: &Scrub) -> Error {
    Error::new(error.code(), error.message())
        .detail(scrub.text(&format!("{}: {}", error.detail_text().unwrap_or_default(), shown(line))))
        .row(format!("line {number}"))
        .hint("a line of a connector's standard output that is a JSON object with a `type` must be a message of the Airbyte protocol")
}
