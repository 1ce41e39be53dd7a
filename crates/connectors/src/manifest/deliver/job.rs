//! Asynchronous bulk jobs: a job is created, given its data and closed; the API works on it for a while, and then tells the fate of each record.
//!
//! The API does nothing before the job is closed. So what is written down is the moment before that: a run that dies earlier leaves a job that nobody
//! closes, and the records are sent in another; one that dies later goes on with asking after the job, and closes it if that has not happened.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trib_core::delivery::Fate;
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;

use super::super::env::Env;
use super::super::error_handler::body_json;
use super::super::node::{Expr, Node};
use super::super::options::Options;
use super::super::requester::{Call, Reply, Requester};
use super::super::retriever::{PageState, Place, Retriever};
use super::super::slice::Slice;
use super::object::ApiOperation;
use super::record::{Names, Record};

/// Bytes that one job carries, where the manifest says nothing.
const USUAL_BYTES: usize = 10 << 20;
const USUAL_RECORDS: usize = 100_000;
/// Minutes that a job may take, where the manifest says nothing.
const USUAL_TIMEOUT: u64 = 60;
/// Between two questions about a job: at least, and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The longer a job takes, the less a pause of this part of it adds.
const POLL_PART: u32 = 10;

pub(super) struct Job {
    /// Fewer records than these go out in ordinary calls.
    pub(super) from: u64,
    pub(super) records: usize,
    pub(super) bytes: usize,
    form: Form,
    create: Requester,
    upload: Requester,
    close: Option<Requester>,
    poll: Requester,
    status: Expr,
    error: Option<Expr>,
    open: Vec<String>,
    completed: Vec<String>,
    failed: Vec<String>,
    timeout: Duration,
    record_key: Expr,
    result_key: Expr,
    taken: Outcome,
    refused: Outcome,
}

enum Form {
    /// With this text for NULL.
    Csv {
        null: String,
    },
    Jsonl,
}

/// Where the job tells which records it has taken, or has not.
struct Outcome {
    results: Retriever,
    /// The record's identifier, or the reason.
    says: Expr,
}

/// What is known about a job while its requests are put together.
pub(super) struct About<'a> {
    pub(super) env: &'a Arc<Env>,
    pub(super) names: &'a Names,
    pub(super) operation: &'a ApiOperation,
}

impl Job {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let requester = |name: &str| node.need(name).and_then(|r| Requester::build(env, &r, false));
        let texts = |name: &str| node.items(name).iter().filter_map(|t| t.value.as_str()).map(str::to_owned).collect::<Vec<_>>();
        let number = |name: &str| node.integer(name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let outcome = |name: &str, says: &str| -> Result<Outcome> {
            let node = node.need(name)?;
            Ok(Outcome { results: Retriever::build(env, &node.need("retriever")?, &[], Place::default())?, says: node.need_expr(says)? })
        };
        Ok(Self {
            from: number("from").unwrap_or(1) as u64,
            records: number("max_records").unwrap_or(USUAL_RECORDS),
            bytes: number("max_bytes").unwrap_or(USUAL_BYTES),
            form: match node.text("format") {
                Some("jsonl") => Form::Jsonl,
                _ => Form::Csv { null: node.text("null").unwrap_or_default().to_owned() },
            },
            create: requester("create")?,
            upload: requester("upload")?,
            close: node.get("close").map(|r| Requester::build(env, &r, false)).transpose()?,
            poll: requester("poll")?,
            status: node.need_expr("status")?,
            error: node.expr("error")?,
            open: texts("open"),
            completed: texts("completed"),
            failed: texts("failed"),
            timeout: Duration::from_secs(60 * number("timeout").map_or(USUAL_TIMEOUT, |m| m as u64)),
            record_key: node.need_expr("record_key")?,
            result_key: node.need_expr("result_key")?,
            taken: outcome("taken", "id")?,
            refused: outcome("refused", "message")?,
        })
    }

    /// Makes a job of the records and gives it its data. What comes back names it, and is worth to be remembered before the job is closed. The inner
    /// error is why the API would not have such a job.
    pub(super) async fn start(&self, about: &About<'_>, records: &[Record]) -> Result<Result<Value, String>> {
        let created = match self.send(about, &self.create, &Value::Null, Options::default()).await? {
            Ok(response) => body_json(&response),
            Err(why) => return Ok(Err(why)),
        };
        let data = Options { data_text: Some(self.data(about, records)), ..Options::default() };
        Ok(self.send(about, &self.upload, &created, data).await?.map(|_| created))
    }

    /// Closes the job where it is known to be open, waits for its end and fetches the fates of these records.
    pub(super) async fn finish(&self, about: &About<'_>, created: &Value, records: &[Record], is_open: bool) -> Result<Vec<Fate>> {
        if is_open {
            self.close(about, created).await?;
        }
        let rest = match self.wait(about, created).await? {
            Ok(why) => why,
            // The API knows the job no longer.
            Err(why) => return Ok(records.iter().map(|_| untold(about, why.clone())).collect()),
        };
        let slice = slice(about, created);
        let mut told: HashMap<String, Fate> = HashMap::new();
        for (outcome, is_taken) in [(&self.taken, true), (&self.refused, false)] {
            let mut pages = PageState::new(slice.clone(), &outcome.results);
            while let Some(page) = outcome.results.next_page(about.env, &mut pages, None, None).await? {
                for result in page.iter() {
                    let result = result.value();
                    let scope = about.env.scope().with("result", &result).with("key", &about.names.key);
                    let says = outcome.says.text(&scope)?;
                    let fate = match is_taken {
                        true => Fate::Delivered(Some(says).filter(|id| !id.is_empty())),
                        false => Fate::Rejected(about.env.without_secrets(&says)),
                    };
                    told.insert(self.result_key.text(&scope)?, fate);
                }
            }
        }
        let fate = |record: &Record| -> Result<Fate> {
            let value = record.value();
            let key = self.record_key.text(&about.env.scope().with("record", &value).with("key", &about.names.key))?;
            Ok(told.remove(&key).unwrap_or_else(|| untold(about, rest.clone())))
        };
        records.iter().map(fate).collect()
    }

    async fn close(&self, about: &About<'_>, created: &Value) -> Result<()> {
        let Some(close) = &self.close else { return Ok(()) };
        match self.send(about, close, created, Options::default()).await? {
            Ok(_) => Ok(()),
            Err(why) => Err(Error::new(Code::SystemError, "the API does not close the job").detail(why)),
        }
    }

    /// Until the job has ended. Gives why records may be left over; an error when the API does not know the job.
    async fn wait(&self, about: &About<'_>, created: &Value) -> Result<Result<String, String>> {
        let began = Instant::now();
        loop {
            let polled = match self.send(about, &self.poll, created, Options::default()).await? {
                Ok(polled) => body_json(&polled),
                Err(why) => return Ok(Err(format!("the API does not know the job: {why}"))),
            };
            let scope = about.env.scope().with("response", &polled);
            let status = self.status.text(&scope)?;
            if self.completed.contains(&status) {
                return Ok(Ok("the job has ended without a word about the record".to_owned()));
            }
            if self.failed.contains(&status) {
                let said = self.error.as_ref().map(|e| e.text(&scope)).transpose()?.unwrap_or_default();
                return Ok(Ok(about.env.without_secrets(&format!("the job has failed: {said}"))));
            }
            // A run died before it could close it.
            if self.open.contains(&status) {
                self.close(about, created).await?;
            }
            if began.elapsed() > self.timeout {
                return Err(Error::new(Code::Unavailable, "the API has not finished the job in time")
                    .detail(format!("its status is {status}"))
                    .hint("the next run asks after the same job"));
            }
            tokio::time::sleep((began.elapsed() / POLL_PART).clamp(POLL.0, POLL.1)).await;
        }
    }

    /// The answer, or why it was refused.
    async fn send(&self, about: &About<'_>, requester: &Requester, created: &Value, extra: Options) -> Result<Result<Response, String>> {
        let slice = slice(about, created);
        match requester.change(about.env, Call::plain(&slice), extra, true).await? {
            Reply::Taken(response) => Ok(Ok(response)),
            Reply::Refused(why) => Ok(Err(why)),
            Reply::Lost(error) | Reply::Undone(error) => Err(error),
        }
    }

    fn data(&self, about: &About<'_>, records: &[Record]) -> String {
        let (operation, names) = (about.operation, about.names);
        match &self.form {
            Form::Jsonl => records.iter().map(|r| super::record::object(&r.sent_fields(operation, names)) + "\n").collect(),
            // A column each.
            Form::Csv { null } => csv(&records.iter().map(|r| r.flat_fields(operation, names)).collect::<Vec<_>>(), null),
        }
    }
}

/// A record may be sent again where that is as good as once.
fn untold(about: &About<'_>, why: String) -> Fate {
    if about.operation.idempotent { Fate::Rejected(why) } else { Fate::Unknown(why) }
}

fn slice(about: &About<'_>, created: &Value) -> Slice {
    let known = [("job", created.clone()), ("object", about.names.object.clone()), ("key", about.names.key.clone())];
    known.into_iter().fold(Slice::default(), |slice, (name, value)| slice.with_extra(name, value))
}

/// Rows under the names of all fields; what a record does not say is left empty.
fn csv(records: &[Vec<(String, String)>], null: &str) -> String {
    let names: BTreeSet<&str> = records.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut out = names.iter().map(|name| cell(name)).collect::<Vec<_>>().join(",") + "\n";
    for record in records {
        let fields: HashMap<&str, &str> = record.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let cells = names.iter().map(|name| match fields.get(name) {
            None => String::new(),
            Some(&("null" | "\"\"")) => cell(null),
            Some(json) => match serde_json::from_str::<Value>(json) {
                Ok(Value::String(text)) => cell(&text),
                // Digits as they are.
                _ => cell(json),
            },
        });
        out.push_str(&(cells.collect::<Vec<_>>().join(",") + "\n"));
    }
    out
}

fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_csv() {
        let record = |fields: &[(&str, &str)]| fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        let records = [
            record(&[("b", "\"x, \\\"y\\\"\\n\""), ("a", "12345678901234567890.10")]),
            record(&[("a", "null"), ("b", "\"\"")]),
            record(&[("b", "true")]),
        ];
        assert_eq!(csv(&records, "#N/A"), "a,b\n12345678901234567890.10,\"x, \"\"y\"\"\n\"\n#N/A,#N/A\n,true\n");
    }
}
