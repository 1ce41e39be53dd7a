//! Records that an API prepares for a while: a job is started, asked after, and what it has made is downloaded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;

use super::cursor::Bounds;
use super::decode::Decoder;
use super::env::Env;
use super::error_handler::{body_json, headers_value};
use super::node::Node;
use super::options::Options;
use super::paginator::Paginator;
use super::records::Records;
use super::requester::{Answer, Call, Requester};
use super::retriever::{PageState, Retriever};
use super::selector::{Extractor, Found, Selector};
use super::slice::Slice;
use super::template::python_str;

/// Between two questions about a job.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Minutes that a job may take, where the manifest says nothing.
const USUAL_TIMEOUT: u64 = 60;
/// A job that fails is started so often at most.
const ATTEMPTS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Completed,
    Failed,
    TimedOut,
    Skipped,
}

/// How a stream's slices become jobs.
pub(super) struct Jobs {
    create: Requester,
    poll: Requester,
    find_targets: Option<Requester>,
    abort: Option<Requester>,
    delete: Option<Requester>,
    status: Extractor,
    statuses: Vec<(String, Status)>,
    target: Option<Extractor>,
    decoder: Decoder,
    timeout: Duration,
    wait_after_failure: Duration,
    download: Retriever,
    selector: Selector,
}

/// How far a job's result was downloaded.
pub(super) struct JobState {
    slice: Slice,
    /// What is to be downloaded; unknown until the job is done.
    targets: Option<VecDeque<Slice>>,
    current: Option<PageState>,
    /// For cleaning up.
    done: Option<Slice>,
}

impl JobState {
    pub(super) fn new(slice: Slice) -> Self {
        Self { slice, targets: None, current: None, done: None }
    }
}

impl Jobs {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, transforms: &[Node<'_>], client_side: bool) -> Result<Self> {
        let requester = |name: &str| node.get(name).map(|r| Requester::build(env, &r, false)).transpose();
        let needed = |name: &str| node.need(name).and_then(|r| Requester::build(env, &r, false));
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(value) = node.expr(name)?.map(|e| e.eval(&env.scope())).transpose()? else { return Ok(None) };
            Ok(value.as_u64().or_else(|| value.as_str().and_then(|t| t.parse().ok())))
        };
        let download_decoder = Decoder::optional(node, "download_decoder")?;
        let (extractor, download_decoder) = match node.get("download_extractor") {
            None => (Extractor::whole(), download_decoder),
            Some(file) if file.kind() == "ResponseToFileExtractor" => {
                (Extractor::whole(), Decoder::table_file(file.flag("preserve_na_values")))
            }
            Some(extractor) => (Extractor::build(&extractor)?, download_decoder),
        };
        let paginator = node.get("download_paginator").map_or(Ok(None), |p| Paginator::build(&p))?;
        Ok(Self {
            create: needed("creation_requester")?,
            poll: needed("polling_requester")?,
            find_targets: requester("download_target_requester")?,
            abort: requester("abort_requester")?,
            delete: requester("delete_requester")?,
            status: Extractor::build(&node.need("status_extractor")?)?,
            statuses: statuses(&node.need("status_mapping")?),
            target: node.get("download_target_extractor").map(|t| Extractor::build(&t)).transpose()?,
            decoder: Decoder::optional(node, "decoder")?,
            timeout: Duration::from_secs(60 * number("polling_job_timeout")?.unwrap_or(USUAL_TIMEOUT)),
            wait_after_failure: Duration::from_secs(number("failed_retry_wait_time_in_seconds")?.unwrap_or(0)),
            download: Retriever::plain(needed("download_requester")?, download_decoder, extractor, paginator),
            selector: Selector::build(env, &node.need("record_selector")?, transforms, client_side)?,
        })
    }

    pub(super) fn normalizes(&self) -> bool {
        self.selector.normalizes()
    }

    pub(super) async fn next_page(
        &self,
        env: &Env,
        state: &mut JobState,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Option<Records>> {
        if state.targets.is_none() {
            let (job, targets) = self.run(env, &state.slice).await?;
            state.targets = Some(targets);
            state.done = job;
        }
        loop {
            let Some(current) = &mut state.current else {
                let Some(target) = state.targets.as_mut().and_then(VecDeque::pop_front) else { break };
                state.current = Some(PageState::new(target, &self.download));
                continue;
            };
            match self.download.next_page(env, current, None, None).await? {
                None => state.current = None,
                Some(records) => {
                    let wants = bounds.map(|b| |record: &Value| b.wants(record));
                    let wants = wants.as_ref().map(|f| f as &dyn Fn(&Value) -> bool).filter(|_| self.selector.is_client_side());
                    return Ok(Some(self.selector.select(env, &state.slice, Found::Texts(records), schema, wants)?));
                }
            }
        }
        if let (Some(delete), Some(job)) = (&self.delete, state.done.take()) {
            send(delete, env, &job).await?;
        }
        Ok(None)
    }

    /// Carries a job through. Gives what is to be downloaded, and the job's slice for cleaning up.
    async fn run(&self, env: &Env, slice: &Slice) -> Result<(Option<Slice>, VecDeque<Slice>)> {
        let _one_of_few = env.jobs.acquire().await.map_err(|_| Error::internal("jobs are refused"))?;
        for attempt in 1.. {
            let created = send(&self.create, env, slice).await?;
            let job = slice.with_extra("creation_response", context(&created));
            let waited = self.wait(env, &job).await;
            if !matches!(waited, Ok((Status::Completed | Status::Skipped | Status::Failed, _))) {
                self.abort(env, &job).await;
            }
            let (status, polled) = waited?;
            match status {
                Status::Completed => {
                    let done = job.with_extra("polling_response", context(&polled));
                    let targets = self.targets(env, &done, polled).await?;
                    let targets = targets.into_iter().map(|t| done.with_extra("download_target", t)).collect();
                    return Ok((Some(job), targets));
                }
                Status::Skipped => return Ok((None, VecDeque::new())),
                _ if attempt < ATTEMPTS => {
                    tracing::info!(attempt, "a job of the API has failed and is started again");
                    tokio::time::sleep(self.wait_after_failure).await;
                }
                _ => break,
            }
        }
        Err(Error::new(Code::Unavailable, "the API could not finish the job").detail(format!("tried {ATTEMPTS} times")))
    }

    async fn wait(&self, env: &Env, job: &Slice) -> Result<(Status, Response)> {
        let began = Instant::now();
        loop {
            let polled = send(&self.poll, env, job).await?;
            let mut values = self.decoder.decode(&polled)?;
            let said = self.status.extract(env, &mut values, true)?.into_iter().next().unwrap_or_default();
            let said = python_str(&said);
            let unknown = || Error::new(Code::SystemError, "the API names a status that the manifest does not map").detail(said.clone());
            let status = self.statuses.iter().find(|(name, _)| *name == said).map(|(_, s)| *s).ok_or_else(unknown)?;
            if status != Status::Running {
                return Ok((status, polled));
            }
            if began.elapsed() > self.timeout {
                return Ok((Status::TimedOut, polled));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Ends a job that the API would go on with, if the manifest says how. It is over for us either way.
    async fn abort(&self, env: &Env, job: &Slice) {
        let Some(requester) = &self.abort else { return };
        if let Err(error) = send(requester, env, job).await {
            tracing::warn!(error = %error, "a job of the API that is not waited for any more could not be ended");
        }
    }

    async fn targets(&self, env: &Env, done: &Slice, polled: Response) -> Result<Vec<Value>> {
        let Some(target) = &self.target else { return Ok(vec![Value::String(String::new())]) };
        let response = match &self.find_targets {
            None => polled,
            Some(requester) => send(requester, env, done).await?,
        };
        let mut values = self.decoder.decode(&response)?;
        target.extract(env, &mut values, false)
    }
}

async fn send(requester: &Requester, env: &Env, slice: &Slice) -> Result<Response> {
    match requester.send(env, Call::plain(slice), Options::default()).await? {
        Answer::Response(response) if response.ok() => Ok(response),
        _ => Err(Error::new(Code::SystemError, "a request about a job was not answered")),
    }
}

/// An answer as templates see it: its body, and its headers where the body has none of its own.
fn context(response: &Response) -> Value {
    let mut body = match body_json(response) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    body.entry("headers").or_insert_with(|| headers_value(response));
    Value::Object(body)
}

fn statuses(node: &Node<'_>) -> Vec<(String, Status)> {
    let named = [
        ("running", Status::Running),
        ("completed", Status::Completed),
        ("failed", Status::Failed),
        ("timeout", Status::TimedOut),
        ("skipped", Status::Skipped),
    ];
    named.iter().flat_map(|(name, status)| node.items(name).into_iter().map(|s| (python_str(s.value), *status))).collect()
}
