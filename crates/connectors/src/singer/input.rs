//! A run of Singer messages, from a tap's output or from standard input, into batches.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use trib_core::{Code, Emitter, Error, Level, Result};
use trib_kit::lines::{Lines, Next};
use trib_kit::records::{Decoder, schema};
use trib_kit::tape::Tape;

use super::batch;
use super::message::{BatchMessage, Message, SchemaMessage, parse};
use super::version::{Next as Then, Version};

/// How long to wait for a message before looking at anything else.
const PATIENCE: Duration = Duration::from_millis(200);
/// JSON that may wait in the batches of all streams together.
const WAITING_BYTES: usize = 16 << 20;
/// STATE messages of one load that are kept: they become safe together, so that only the last one matters, and some of the others show the way.
const MOST_STATES: usize = 4;

/// A stream as its last SCHEMA message has it.
pub struct Known {
    pub schema: SchemaRef,
    pub key: Vec<String>,
    pub bookmarks: Vec<String>,
    /// All columns that there are, of which `schema` may have only some.
    pub offered: Vec<String>,
}

pub struct Input {
    lines: Lines,
    tape: Tape,
    rules: Rules,
    /// In the order in which they were declared; the decoders stand at the same places.
    known: Vec<Known>,
    decoders: Vec<Decoder>,
    /// Places by the names that messages use.
    by_name: HashMap<String, usize>,
    /// The decoder of the last record.
    last: usize,
    states: Vec<String>,
    /// At the places of the decoders.
    versions: Vec<Version>,
    /// What is to be done now and then beside reading.
    chore: Option<Chore>,
    ended: bool,
}

/// See [`Input::every_now_and_then`].
type Chore = Box<dyn FnMut(&mut Emitter) -> Result<()> + Send>;

/// A chore comes after this many messages.
const NOW_AND_THEN: u64 = 4096;

/// What is left to do with a message.
enum Rest {
    Nothing,
    State,
    Schema(SchemaMessage),
    Batch(BatchMessage),
    Version(String, i64),
}

/// What the two users of messages do differently.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Structs and lists, where the schema declares them; JSON otherwise.
    pub nested: bool,
    /// A record needs its key, and a SCHEMA before it.
    pub strict: bool,
    /// Versions of tables are followed.
    pub versions: bool,
}

/// Why reading has come to a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There is nothing more.
    End,
    /// The load's budget is spent, and here is a place to stop.
    Budget,
    /// The next message is a SCHEMA that changes a stream, or that brings a new one.
    Schema,
    /// A stream is read anew from here on, or was up to here.
    Version,
}

impl Input {
    pub fn new(lines: Lines, rules: Rules) -> Self {
        Self {
            lines,
            tape: Tape::default(),
            rules,
            known: Vec::new(),
            decoders: Vec::new(),
            by_name: HashMap::new(),
            last: 0,
            states: Vec::new(),
            versions: Vec::new(),
            chore: None,
            ended: false,
        }
    }

    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The streams that were declared so far.
    pub fn known(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.decoders.iter().zip(&self.known).map(|(decoder, known)| (decoder.stream.as_ref(), known))
    }

    /// Declares a stream as somebody outside wants it, or as its SCHEMA message says.
    pub fn declare(&mut self, stream: &str, known: Known) -> Result<()> {
        let key: &[String] = if self.rules.strict { &known.key } else { &[] };
        if let Some(&at) = self.by_name.get(stream) {
            let name = self.decoders[at].stream.clone();
            self.decoders[at] = Decoder::new(&name, known.schema.clone(), key)?;
            self.known[at] = known;
            return Ok(());
        }
        self.decoders.push(Decoder::new(stream, known.schema.clone(), key)?);
        self.known.push(known);
        self.versions.push(Version::default());
        self.by_name.insert(stream.to_owned(), self.decoders.len() - 1);
        Ok(())
    }

    /// Messages call the stream by this name too.
    pub fn alias(&mut self, stream: &str, name: &str) {
        if let Some(&at) = self.by_name.get(stream) {
            self.by_name.entry(name.to_owned()).or_insert(at);
        }
    }

    /// Something to do while reading, such as passing a log on.
    pub fn every_now_and_then(&mut self, chore: impl FnMut(&mut Emitter) -> Result<()> + Send + 'static) {
        self.chore = Some(Box::new(chore));
    }

    /// STATE messages since the last call, in order, as they were written.
    pub fn take_states(&mut self) -> Vec<String> {
        std::mem::take(&mut self.states)
    }

    /// The versions whose rows the tables hold, as far as that is known.
    pub fn versions(&self) -> BTreeMap<&str, i64> {
        self.named_versions().filter_map(|(stream, version)| Some((stream, version.active()?))).collect()
    }

    /// Takes versions from an earlier run, of streams of which nothing is known yet.
    pub fn remember(&mut self, versions: &BTreeMap<String, i64>) {
        for (decoder, version) in self.decoders.iter().zip(&mut self.versions) {
            if version.active().is_none() {
                *version = Version::of(versions.get(decoder.stream.as_ref()).copied());
            }
        }
    }

    /// Whether what comes next of a stream replaces what its table holds.
    pub fn is_anew(&self, stream: &str) -> bool {
        self.by_name.get(stream).is_some_and(|at| self.versions[*at].is_anew())
    }

    /// Streams of whose new version the last load has all.
    pub fn complete(&self) -> Vec<String> {
        self.named_versions().filter(|(_, v)| v.is_complete()).map(|(stream, _)| stream.to_owned()).collect()
    }

    fn named_versions(&self) -> impl Iterator<Item = (&str, &Version)> {
        self.decoders.iter().map(|d| d.stream.as_ref()).zip(&self.versions)
    }

    /// Takes all messages up to the first that has rows: streams are declared as they say. Blocks.
    pub fn to_rows(&mut self) -> Result<()> {
        loop {
            let schema = match self.lines.next(PATIENCE)? {
                Next::Waiting => continue,
                Next::End => {
                    self.ended = true;
                    return Ok(());
                }
                Next::Line { text, number } => match parse(text, &mut self.tape).map_err(|e| at(&e, number, text))? {
                    Message::Schema(message) => Some(message),
                    Message::State(value) => {
                        keep(&mut self.states, value);
                        continue;
                    }
                    Message::Record { stream, .. } if self.rules.strict && !self.by_name.contains_key(stream.as_ref()) => {
                        return Err(no_schema(&stream).row(format!("line {number}")));
                    }
                    Message::Record { .. } | Message::Batch(_) => None,
                    Message::ActivateVersion { stream, .. } if self.rules.versions && self.by_name.contains_key(&stream) => None,
                    Message::ActivateVersion { .. } | Message::Other => continue,
                },
            };
            let Some(message) = schema else {
                self.lines.push_back();
                return Ok(());
            };
            // Streams that nobody asked a tap for stay unknown.
            if self.rules.strict || self.by_name.contains_key(&message.stream) {
                let known = shape(&message, self.rules)?;
                self.declare(&message.stream, known)?;
            }
        }
    }

    /// Pushes rows until there is a reason to pause. While one of the streams in `whole`, whose tables are replaced, is not complete, a SCHEMA that changes a
    /// stream is a reason only before the first row, and an error later. Blocks.
    pub fn read(&mut self, out: &mut Emitter, whole: &[String]) -> Result<Pause> {
        for (decoder, version) in self.decoders.iter().zip(&mut self.versions) {
            if version.begin(whole.iter().any(|w| *w == *decoder.stream)).is_some() {
                unfollowed(&decoder.stream, out)?;
            }
        }
        let pause = self.messages(out)?;
        if let Some((stream, _)) = self.named_versions().find(|(_, v)| !v.is_whole() && pause != Pause::Version) {
            return Err(Error::new(Code::DataInvalid, "a new version of the table was begun and not activated")
                .stream(stream)
                .hint("the tap did not come to the stream's end: run it again, and all of the table comes again"));
        }
        self.do_chore(out)?;
        self.give_all(out)?;
        self.ended = pause == Pause::End;
        Ok(pause)
    }

    fn messages(&mut self, out: &mut Emitter) -> Result<Pause> {
        let (mut waiting, mut rows) = (0, false);
        let mut messages = 0u64;
        loop {
            messages += 1;
            if messages.is_multiple_of(NOW_AND_THEN) {
                self.do_chore(out)?;
            }
            let (text, number) = match self.lines.next(PATIENCE)? {
                Next::Line { text, number } => (text, number),
                Next::End => return Ok(Pause::End),
                Next::Waiting if out.is_closed() => return Err(Error::new(Code::Cancelled, "the read was stopped")),
                Next::Waiting if self.rules.strict && may_stop(&self.versions) && out.should_stop() => return Ok(Pause::Budget),
                Next::Waiting => {
                    // What has come is on its way while nothing more comes.
                    self.give_all(out)?;
                    self.do_chore(out)?;
                    waiting = 0;
                    continue;
                }
            };
            // What concerns more than the record's own stream is done when the line is no longer needed.
            let rest = match parse(text, &mut self.tape).map_err(|e| at(&e, number, text))? {
                Message::Record { stream, record, version } => {
                    let found = match self.decoders.get(self.last) {
                        Some(decoder) if *decoder.stream == *stream => Some(self.last),
                        _ => self.by_name.get(stream.as_ref()).copied(),
                    };
                    let Some(found) = found else {
                        if self.rules.strict {
                            return Err(no_schema(&stream).row(format!("line {number}")));
                        }
                        continue;
                    };
                    if let Some(version) = version.filter(|_| self.rules.versions)
                        && self.versions[found].row(version) == Then::BeginAnew
                    {
                        if !rows || may_stop(&self.versions) {
                            self.lines.push_back();
                            return Ok(Pause::Version);
                        }
                        self.versions[found].let_be(version);
                        unfollowed(&stream, out)?;
                    }
                    self.last = found;
                    rows = true;
                    let decoder = &mut self.decoders[found];
                    let full = decoder.add(record, number);
                    waiting += record.bytes().len();
                    if full {
                        waiting = waiting.saturating_sub(decoder.bytes());
                        decoder.give(out)?;
                    }
                    Rest::Nothing
                }
                Message::State(value) => {
                    keep(&mut self.states, value);
                    Rest::State
                }
                Message::Schema(message) => Rest::Schema(message),
                Message::Batch(message) => Rest::Batch(message),
                Message::ActivateVersion { stream, version: Some(version) } if self.rules.versions => Rest::Version(stream, version),
                Message::ActivateVersion { .. } | Message::Other => Rest::Nothing,
            };
            match rest {
                Rest::Nothing if waiting > WAITING_BYTES => {
                    self.give_all(out)?;
                    waiting = 0;
                }
                Rest::Nothing => {}
                Rest::State if may_stop(&self.versions) && out.should_stop() => return Ok(Pause::Budget),
                Rest::State => {}
                Rest::Schema(message) if self.changes(&message)? => {
                    if rows && !may_stop(&self.versions) {
                        return Err(Error::new(Code::ContractBroken, "the source's schema changed while it was read")
                            .stream(&message.stream)
                            .hint("a table that is replaced or mirrored takes one schema per load: run again, or read incrementally"));
                    }
                    self.lines.push_back();
                    return Ok(Pause::Schema);
                }
                Rest::Schema(_) => {}
                Rest::Batch(message) => {
                    rows = true;
                    self.batch(&message, out)?;
                }
                Rest::Version(stream, version) => {
                    let Some(&found) = self.by_name.get(&stream) else { continue };
                    match self.versions[found].activate(version) {
                        Then::GoOn => {}
                        Then::Complete => return Ok(Pause::Version),
                        Then::BeginAnew if !rows || may_stop(&self.versions) => {
                            self.lines.push_back();
                            return Ok(Pause::Version);
                        }
                        Then::BeginAnew => {
                            self.versions[found].let_be(version);
                            unfollowed(&stream, out)?;
                        }
                    }
                }
            }
        }
    }

    fn do_chore(&mut self, out: &mut Emitter) -> Result<()> {
        self.chore.as_mut().map_or(Ok(()), |chore| chore(out))
    }

    fn give_all(&mut self, out: &mut Emitter) -> Result<()> {
        self.decoders.iter_mut().try_for_each(|decoder| decoder.give(out))
    }

    /// Whether a SCHEMA message says anything new.
    fn changes(&mut self, message: &SchemaMessage) -> Result<bool> {
        let Some(known) = self.by_name.get(&message.stream).map(|at| &self.known[*at]) else {
            return Ok(self.rules.strict);
        };
        let now = shape(message, self.rules)?;
        if self.rules.strict {
            return Ok(now.schema != known.schema || now.key != known.key);
        }
        // What is asked of a tap may be less than it says, and what it says less than was offered. A column of which nobody has heard is news.
        let same = |field: &arrow::datatypes::FieldRef| {
            now.schema.field_with_name(field.name()).map_or(true, |f| f.data_type() == field.data_type())
        };
        let heard_of = |field: &arrow::datatypes::FieldRef| known.offered.contains(field.name());
        Ok(!known.schema.fields().iter().all(same) || !now.schema.fields().iter().all(heard_of))
    }

    fn batch(&mut self, message: &BatchMessage, out: &mut Emitter) -> Result<()> {
        let Some(&found) = self.by_name.get(&message.stream) else {
            return if self.rules.strict { Err(no_schema(&message.stream)) } else { Ok(()) };
        };
        let decoder = &mut self.decoders[found];
        decoder.give(out)?;
        batch::read(message, decoder, out)
    }
}

/// Whether the load may end: none of its streams lacks rows of a table that is replaced.
fn may_stop(versions: &[Version]) -> bool {
    !versions.iter().any(Version::keeps_on)
}

/// Bytes of a line that an error shows.
const SHOWN: usize = 200;

/// The same error with the line that it is about.
fn at(error: &Error, number: u64, line: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    Error::new(error.code(), error.message())
        .detail(format!("{}: {shown}", error.detail_text().unwrap_or_default()))
        .row(format!("line {number}"))
        .hint("each line of a tap's standard output must be a Singer message; logs belong on standard error")
}

fn no_schema(stream: &str) -> Error {
    Error::new(Code::DataInvalid, "a record came before the SCHEMA message of its stream").stream(stream)
}

fn shape(message: &SchemaMessage, rules: Rules) -> Result<Known> {
    let schema = schema::columns(&message.schema, rules.nested).map_err(|e| e.stream(&message.stream))?;
    let names = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let offered = schema.fields().iter().map(|f| f.name().clone()).collect();
    Ok(Known { schema, key: names(&message.key_properties), bookmarks: names(&message.bookmark_properties), offered })
}

/// Keeps the first, the last, and of those between as many as there is room for, evenly: every second one goes when there is none.
fn keep(states: &mut Vec<String>, text: &str) {
    if states.len() == MOST_STATES {
        let mut odd = false;
        states.retain(|_| {
            odd = !odd;
            odd
        });
    }
    states.push(text.to_owned());
}

fn unfollowed(stream: &str, out: &mut Emitter) -> Result<()> {
    out.log_blocking(
        Level::Warn,
        format!("{stream}: a new version of the table has begun; rows of the older one stay, since this load cannot replace them"),
    )
}
