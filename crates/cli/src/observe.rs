//! What happens in a run, shown to whoever watches and kept in the run's log.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use trib_runtime::{Event, Observer};
use trib_store::{Level, Store};

use crate::openlineage::OpenLineage;
use crate::output::Output;
use crate::render::progress::{self, Display};

/// Shows and records. Writing the log happens in a task of its own, since an observer must not block.
pub struct Watch {
    display: Box<dyn Display>,
    lineage: Option<Arc<OpenLineage>>,
    log: Mutex<Option<UnboundedSender<Line>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Line {
    level: Level,
    sync: String,
    stream: Option<String>,
    message: String,
    fields: Option<Value>,
}

impl Watch {
    pub fn new(output: Output, store: Arc<Store>, run: &str) -> Arc<Self> {
        Self::telling(output, store, run, None)
    }

    /// One that also tells those who collect lineage.
    pub fn telling(output: Output, store: Arc<Store>, run: &str, lineage: Option<Arc<OpenLineage>>) -> Arc<Self> {
        let (log, lines) = unbounded_channel();
        let writer = tokio::spawn(write(store, run.to_owned(), lines));
        Arc::new(Self { display: progress::display(output), lineage, log: Mutex::new(Some(log)), writer: Mutex::new(Some(writer)) })
    }

    /// For what happens outside of the runtime.
    pub fn note(&self, sync: &str, stream: Option<&str>, text: &str) {
        self.event(sync, stream, &Event::Note(text.to_owned()));
    }

    /// Ends the display, and waits until the log is written.
    pub async fn finish(&self) {
        self.display.finish();
        drop(self.log.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl Observer for Watch {
    fn event(&self, sync: &str, stream: Option<&str>, event: &Event) {
        self.display.event(sync, stream, event);
        if let (Some(lineage), Event::Committed { .. }) = (&self.lineage, event) {
            lineage.running(sync);
        }
        let (message, fields) = event.describe();
        let line = Line { level: level(event), sync: sync.to_owned(), stream: stream.map(str::to_owned), message, fields };
        if let Some(log) = self.log.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = log.send(line);
        }
    }
}

fn level(event: &Event) -> Level {
    match event {
        Event::Failed(_) => Level::Error,
        Event::Retrying { .. } | Event::Recovered { .. } => Level::Warn,
        Event::Said { level, .. } => match level {
            trib_core::Level::Debug | trib_core::Level::Info => Level::Info,
            trib_core::Level::Warn => Level::Warn,
            trib_core::Level::Error => Level::Error,
        },
        _ => Level::Info,
    }
}

async fn write(store: Arc<Store>, run: String, mut lines: UnboundedReceiver<Line>) {
    while let Some(line) = lines.recv().await {
        // The log is for people: that it cannot be written stops nothing.
        let _ = store.log(&run, line.level, Some(&line.sync), line.stream.as_deref(), &line.message, line.fields.as_ref()).await;
    }
}
