//! Events on their way to a file and to an endpoint, beside the run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use trib_core::{Code, Error, Result, Secret};
use trib_kit::http::{Client, Request};
use trib_project::config::project::OpenLineageSpec;
use url::Url;

/// How long an endpoint may take for one event.
const PATIENCE: Duration = Duration::from_secs(5);
/// An endpoint that fails this often, one time after the other, is left alone for the rest of the run.
const MOST_FAILURES: usize = 3;
/// How long the run's end waits for what is still on its way.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

pub struct Delivery {
    queue: Mutex<Option<UnboundedSender<Value>>>,
    worker: Mutex<Option<JoinHandle<Undelivered>>>,
}

/// What did not arrive, and the first reason.
#[derive(Default)]
struct Undelivered {
    events: usize,
    why: Option<Error>,
}

impl Delivery {
    pub fn start(spec: &OpenLineageSpec, project: &Path) -> Self {
        let (queue, events) = unbounded_channel();
        let to = To { file: spec.file.as_ref().map(|file| project.join(file)), url: spec.url.clone(), api_key: spec.api_key.clone() };
        Self { queue: Mutex::new(Some(queue)), worker: Mutex::new(Some(tokio::spawn(to.all(events)))) }
    }

    /// Never blocks and never fails.
    pub fn send(&self, event: Value) {
        if let Some(queue) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = queue.send(event);
        }
    }

    /// Waits for what is on its way; a sentence when something did not arrive.
    pub async fn finish(&self) -> Option<String> {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        match tokio::time::timeout(LAST_PATIENCE, worker).await {
            Ok(Ok(undelivered)) => {
                let why = undelivered.why?;
                Some(format!("{} events of OpenLineage could not be delivered: {why}", undelivered.events))
            }
            Ok(Err(_)) | Err(_) => Some("events of OpenLineage were still on their way when the run ended".to_owned()),
        }
    }
}

struct To {
    file: Option<PathBuf>,
    url: Option<Secret>,
    api_key: Option<Secret>,
}

impl To {
    async fn all(self, mut events: UnboundedReceiver<Value>) -> Undelivered {
        let mut undelivered = Undelivered::default();
        let endpoint = self.url.as_ref().map(|url| Endpoint::new(url, self.api_key.as_ref()));
        let mut failures = 0;
        while let Some(event) = events.recv().await {
            let mut results = Vec::new();
            if let Some(file) = &self.file {
                results.push(append(file, &event));
            }
            match &endpoint {
                Some(Ok(_)) if failures >= MOST_FAILURES => undelivered.events += 1,
                Some(Ok(endpoint)) => {
                    let posted = endpoint.post(&event).await;
                    failures = if posted.is_err() { failures + 1 } else { 0 };
                    results.push(posted);
                }
                Some(Err(e)) => {
                    undelivered.events += 1;
                    let again = || Error::new(e.code(), "the address of the endpoint cannot be used").setting("openlineage.url");
                    undelivered.why.get_or_insert_with(again);
                }
                None => {}
            }
            for error in results.into_iter().filter_map(Result::err) {
                undelivered.events += 1;
                undelivered.why.get_or_insert(error);
            }
        }
        undelivered
    }
}

fn append(file: &Path, event: &Value) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut open = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    // One call writes the line whole, be several runs writing.
    Ok(open.write_all(format!("{event}\n").as_bytes())?)
}

struct Endpoint {
    client: Client,
    url: Url,
    api_key: Option<Secret>,
}

impl Endpoint {
    fn new(url: &Secret, api_key: Option<&Secret>) -> Result<Self> {
        let url = Url::parse(url.expose()).map_err(|_| Error::new(Code::ConfigInvalid, "this is no address"))?;
        Ok(Self { client: Client::new("tributary", PATIENCE)?, url, api_key: api_key.cloned() })
    }

    async fn post(&self, event: &Value) -> Result<()> {
        let mut request = Request::get(self.url.clone());
        request.method = "POST".to_owned();
        request.body = Some(event.to_string().into());
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        if let Some(key) = &self.api_key {
            request.headers.push(("authorization".to_owned(), format!("Bearer {}", key.expose())));
        }
        let sent = tokio::time::timeout(PATIENCE, self.client.send(request)).await;
        let sent = sent.map_err(|_| Error::new(Code::SystemError, "the endpoint does not answer"))?;
        // Its address may hold a secret anywhere.
        let response = sent.map_err(|e| Error::new(e.code(), "the endpoint cannot be reached").setting("openlineage.url"))?;
        if response.ok() {
            return Ok(());
        }
        Err(Error::new(Code::SystemError, "the endpoint refuses an event").detail(format!("status {}", response.status)))
    }
}
