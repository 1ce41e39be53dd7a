//! Reads streams side by side, slice by slice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use trib_core::{Code, Error, Result};

use super::cursor::Observed;
use super::opened::Opened;
use super::records::Records;
use super::slice::Slice;
use super::stream::Stream;

/// States of streams with partitions are large: this often at most, while the stream is being read.
const STATE_EVERY: Duration = Duration::from_mins(10);
/// Pages that wait to be taken.
const WAITING: usize = 4;

/// What is to be read of a stream.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub stream: String,
    /// As the last read has left it; empty for a first read.
    pub state: Map<String, Value>,
    /// The cursor that the user chose, where the manifest lets them.
    pub cursor_field: Option<String>,
    /// The properties of its schema that are wanted; `None` for all that there are.
    pub properties: Option<Map<String, Value>>,
    /// The folder for files that its records point to; without one none is downloaded.
    pub files: Option<PathBuf>,
}

impl Selection {
    /// All of a stream.
    pub fn of(stream: &str) -> Self {
        Self { stream: stream.to_owned(), ..Self::default() }
    }
}

/// What happens while streams are read. Events of one stream come in order: a state comes after all records that it covers.
#[derive(Debug)]
pub enum Event {
    Started {
        stream: Arc<str>,
    },
    Records {
        stream: Arc<str>,
        records: Records,
    },
    State {
        stream: Arc<str>,
        state: Value,
    },
    /// An authenticator has changed the configuration, which is to be kept in place of the old one.
    ConfigChanged(Value),
    /// The last of a stream; `error` when it could not be read to its end.
    Ended {
        stream: Arc<str>,
        error: Option<Error>,
    },
}

impl Opened {
    /// Reads these streams, and tells what happens. A stream that fails does not stop the others. An error is that none could begin.
    ///
    /// Dropping the receiver ends the read.
    pub async fn read(self: &Arc<Self>, selections: Vec<Selection>) -> Result<mpsc::Receiver<Event>> {
        let documents = self.stream_documents().await?;
        let level = self.concurrency()?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let (opened, slices, streams) = (self.clone(), Arc::new(Semaphore::new(level)), Arc::new(Semaphore::new(level)));
        tokio::spawn(async move {
            let closed = sender.clone();
            let all = async move {
                let mut running = JoinSet::new();
                for selection in selections {
                    let (opened, documents, slices, sender) = (opened.clone(), documents.clone(), slices.clone(), sender.clone());
                    let (streams, groups) = (streams.clone(), opened.groups.of(&documents, &selection.stream));
                    // One that may have to wait for others keeps nobody's place meanwhile.
                    let turn = if groups.is_empty() { streams.clone().acquire_owned().await.ok() } else { None };
                    running.spawn(async move {
                        let _alone = groups.enter().await;
                        let Some(turn) = (match turn {
                            Some(turn) => Some(turn),
                            None => streams.acquire_owned().await.ok(),
                        }) else {
                            return;
                        };
                        read_stream(&opened, &documents, selection, slices, sender).await;
                        drop(turn);
                    });
                }
                while running.join_next().await.is_some() {}
            };
            // What is running is given up when nobody listens any more.
            tokio::select! {
                () = closed.closed() => {}
                () = all => {}
            }
        });
        Ok(receiver)
    }
}

async fn read_stream(opened: &Opened, documents: &[Value], selection: Selection, permits: Arc<Semaphore>, sender: mpsc::Sender<Event>) {
    let name: Arc<str> = selection.stream.as_str().into();
    // Nobody listens any more when sending fails: then there is nobody to tell either.
    let _ = sender.send(Event::Started { stream: name.clone() }).await;
    let error = match opened.stream(documents, &selection) {
        Err(error) => Some(error),
        Ok(stream) => {
            let reading = Reading { stream: Arc::new(stream), name: name.clone(), permits, sender: sender.clone() };
            let error = reading.run(opened).await.err();
            if error.is_none() {
                reading.stream.finish();
            }
            let _ = sender.send(Event::State { stream: name.clone(), state: reading.stream.state() }).await;
            error
        }
    };
    tell_changes(opened, &sender).await;
    let _ = sender.send(Event::Ended { stream: name.clone(), error: error.map(|e| e.stream(&*name)) }).await;
}

async fn tell_changes(opened: &Opened, sender: &mpsc::Sender<Event>) {
    if let Some(config) = opened.take_changed_config() {
        let _ = sender.send(Event::ConfigChanged(config)).await;
    }
}

struct Reading {
    stream: Arc<Stream>,
    name: Arc<str>,
    permits: Arc<Semaphore>,
    sender: mpsc::Sender<Event>,
}

impl Reading {
    /// Gives slices out until one fails; those that are being read then end by themselves.
    async fn run(&self, opened: &Opened) -> Result<()> {
        let mut running = JoinSet::new();
        let mut first_error = None;
        let mut last_state = Instant::now();
        let mut done = false;
        while !done && first_error.is_none() {
            let permit = self.permits.clone().acquire_owned().await.map_err(|_| cancelled())?;
            match self.stream.next_slice().await {
                Ok(None) => done = true,
                Err(error) => first_error = Some(error),
                Ok(Some(slice)) => {
                    let (stream, name, sender) = (self.stream.clone(), self.name.clone(), self.sender.clone());
                    running.spawn(async move {
                        let read = read_slice(&stream, &name, &slice, &sender).await;
                        drop(permit);
                        read.map(|observed| (slice, observed))
                    });
                }
            }
            while let Some(ended) = running.try_join_next() {
                self.settle(ended, &mut first_error, &mut last_state).await;
            }
            tell_changes(opened, &self.sender).await;
        }
        while let Some(ended) = running.join_next().await {
            self.settle(ended, &mut first_error, &mut last_state).await;
        }
        match first_error {
            None => Ok(()),
            Some(error) => {
                self.stream.fail();
                Err(error)
            }
        }
    }

    async fn settle(
        &self,
        ended: std::result::Result<Result<(Slice, Observed)>, tokio::task::JoinError>,
        first_error: &mut Option<Error>,
        last_state: &mut Instant,
    ) {
        match ended {
            Err(e) => {
                first_error.get_or_insert(Error::internal("a slice's reader came to grief").source(e));
            }
            Ok(Err(error)) => {
                first_error.get_or_insert(error);
            }
            Ok(Ok((slice, observed))) => {
                self.stream.close(&slice, observed);
                if self.stream.is_incremental() && (!self.stream.has_partitions() || last_state.elapsed() > STATE_EVERY) {
                    *last_state = Instant::now();
                    let _ = self.sender.send(Event::State { stream: self.name.clone(), state: self.stream.state() }).await;
                }
            }
        }
    }
}

/// The greatest cursor among the slice's records.
async fn read_slice(stream: &Stream, name: &Arc<str>, slice: &Slice, sender: &mpsc::Sender<Event>) -> Result<Observed> {
    let mut pages = stream.pages(slice);
    let mut observed = Observed::default();
    while let Some(records) = stream.next_page(slice, &mut pages, &mut observed).await? {
        if !records.is_empty() {
            sender.send(Event::Records { stream: name.clone(), records }).await.map_err(|_| cancelled())?;
        }
    }
    Ok(observed)
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the read was stopped")
}
