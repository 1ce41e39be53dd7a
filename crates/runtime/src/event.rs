//! What happens in a run, for whoever shows or records it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trib_core::load::TableOutcome;
use trib_core::{Error, Level, LoadId, State};
use trib_engine::Progress;

/// Receives events in order, on the thread on which they happen: it must not block.
pub trait Observer: Send + Sync {
    fn event(&self, sync: &str, stream: Option<&str>, event: &Event);
}

/// Looks away.
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _: &str, _: Option<&str>, _: &Event) {}
}

#[derive(Clone)]
pub enum Event {
    /// A stream begins; `progress` grows while it runs.
    Started {
        progress: Arc<Progress>,
        expected: Option<u64>,
    },
    /// What was left by an earlier run was dealt with.
    Recovered {
        what: &'static str,
        load: LoadId,
    },
    /// Something that a person should know: a schema change, a column that loses precision.
    Note(String),
    /// A line that the source wrote for the run's log.
    Said {
        level: Level,
        text: String,
    },
    /// A load is being published.
    Committing {
        load: LoadId,
        rows: u64,
    },
    Committed {
        load: LoadId,
        tables: Vec<TableOutcome>,
        state: State,
    },
    /// A load has failed and will be tried again.
    Retrying {
        error: Arc<Error>,
        attempt: u32,
        of: u32,
        pause: Duration,
    },
    /// The stream is done.
    Finished,
    Failed(Arc<Error>),
}

impl Event {
    /// One line for people and logs, and what it leaves out.
    pub fn describe(&self) -> (String, Option<Value>) {
        match self {
            Event::Started { expected, .. } => ("started".to_owned(), expected.map(|rows| json!({"expected_rows": rows}))),
            Event::Recovered { what, load } => (format!("load {load}: {what}"), None),
            Event::Note(text) | Event::Said { text, .. } => (text.clone(), None),
            Event::Committing { load, rows } => (format!("publishing load {load} ({rows} rows)"), None),
            Event::Committed { load, tables, state } => {
                (format!("load {load} is visible"), Some(json!({"tables": tables, "state": state})))
            }
            Event::Retrying { error, attempt, of, pause } => {
                (format!("attempt {attempt} of {of} failed, next in {} s: {error}", pause.as_secs()), Some(error.to_json()))
            }
            Event::Finished => ("finished".to_owned(), None),
            Event::Failed(error) => (error.to_string(), Some(error.to_json())),
        }
    }
}
