//! `trib connectors dev`

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use trib_connectors::manifest::{Event, Manifest, Selection};
use trib_core::{Code, Error};
use trib_kit::exchange::{Exchange, Wire};
use trib_kit::fixture::{Recorded, Sent};
use trib_kit::http::{Request, Response};
use trib_kit::scrub::Scrub;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::bench::{Subject, failure, text};
use crate::output::{self, Output, print};

/// Records of a page that are shown, and bytes of an answer, unless all are wanted.
const SHOWN_RECORDS: usize = 3;
const SHOWN_BYTES: usize = 800;

/// See a manifest at work: each request, the raw answer, the records, the state, page by page
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors dev connectors/orders.yaml --stream orders --pages 2")]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Begin where this state has ended, as JSON of one stream
    #[arg(long, value_name = "FILE")]
    state: Option<std::path::PathBuf>,
    /// Answers and records in full
    #[arg(long)]
    full: bool,
}

/// What happens at the wire.
enum Step {
    /// Goes on when it is told to.
    Asking(Sent, oneshot::Sender<()>),
    Answered(Box<Recorded>, Duration),
    Failed(String),
}

#[derive(Debug)]
struct Watch {
    scrub: Arc<Scrub>,
    steps: mpsc::UnboundedSender<Step>,
}

#[async_trait]
impl Exchange for Watch {
    async fn exchange(&self, request: &Request, wire: Wire<'_>) -> trib_core::Result<Response> {
        let gone = || Error::new(Code::Cancelled, "the read was stopped");
        let (go, wait) = oneshot::channel();
        self.steps.send(Step::Asking(Sent::of(request, &self.scrub), go)).map_err(|_| gone())?;
        wait.await.map_err(|_| gone())?;
        let began = Instant::now();
        let answer = wire.send(request).await;
        let step = match &answer {
            Ok(response) => Step::Answered(Box::new(Recorded::of(request, response, &self.scrub)), began.elapsed()),
            Err(error) => Step::Failed(self.scrub.text(&error.to_string())),
        };
        // Whoever watched has seen enough.
        let _ = self.steps.send(step);
        answer
    }
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let manifest = args.subject.manifest()?;
    let config = args.subject.config(session, &manifest)?.unwrap_or_else(|| json!({}));
    let state = match &args.state {
        Some(file) => serde_json::from_str(&text(file)?).map_err(|e| Error::from(e).file(file.display().to_string(), None, None))?,
        None => Map::new(),
    };
    let view = View { output: session.output, full: args.full, steps: output::is_interactive() && !session.output.json };
    let mut errors = Vec::new();
    for stream in args.subject.streams(&manifest) {
        match one(&manifest, &config, &stream, state.clone(), args.subject.pages, &view).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => errors.push(failure(&stream, error)),
        }
    }
    if errors.is_empty() { Ok(Exit::Success) } else { Err(errors.into()) }
}

/// Shows one stream; false when the user wants no more.
async fn one(
    manifest: &Arc<Manifest>,
    config: &Value,
    stream: &str,
    state: Map<String, Value>,
    pages: Option<usize>,
    view: &View,
) -> trib_core::Result<bool> {
    let opened = manifest.open(config)?;
    let scrub = Arc::new(Scrub::new(opened.secrets()));
    let (sender, mut steps) = mpsc::unbounded_channel();
    let opened = Arc::new(opened.through(Arc::new(Watch { scrub: scrub.clone(), steps: sender }))?);
    view.say(&json!({"stream": stream}), || format!("stream {stream}"));
    // Asking for dynamic streams is a part of the read that comes before its events.
    let selection = Selection { stream: stream.to_owned(), state, ..Selection::default() };
    let reading = tokio::spawn(async move { opened.read(vec![selection]).await });
    tokio::pin!(reading);
    let (mut events, mut asked, mut records) = (None, 0, 0);
    loop {
        tokio::select! {
            biased;
            // An answer comes before what is made of it, and that before the next question.
            Some(step) = steps.recv() => {
                let is_question = matches!(step, Step::Asking(..));
                while let Some(event) = events.as_mut().filter(|_| is_question).and_then(|events| events.try_recv().ok()) {
                    if let Some(ended) = told(event, view, &scrub, (stream, asked), &mut records) {
                        return ended;
                    }
                }
                match step {
                    Step::Asking(..) if pages.is_some_and(|most| asked >= most) => {
                        view.say(&json!({"stopped": stream, "requests": asked, "records": records}), || format!("stopped after {asked} requests, {records} records: there is more\n"));
                        return Ok(true);
                    }
                    Step::Asking(sent, go) => {
                        if asked > 0 && view.steps && !matches!(output::ask("next request? [Enter, q]").as_deref(), Some("")) {
                            return Ok(false);
                        }
                        asked += 1;
                        view.request(&sent);
                        let _ = go.send(());
                    }
                    Step::Answered(kept, took) => view.answer(&kept, took),
                    Step::Failed(why) => view.say(&json!({"failed": why}), || format!("  <- {why}")),
                }
            }
            started = &mut reading, if events.is_none() => {
                events = Some(started.map_err(|_| Error::internal("reading has panicked"))??);
            }
            event = next(&mut events) => if let Some(ended) = told(event, view, &scrub, (stream, asked), &mut records) {
                return ended;
            },
        }
    }
}

/// Shows an event of a stream of which so much was asked. Gives how the stream has ended, when it has.
fn told(event: Event, view: &View, scrub: &Scrub, (stream, asked): (&str, usize), records: &mut usize) -> Option<trib_core::Result<bool>> {
    match event {
        Event::Records { records: page, .. } => {
            let page: Vec<Value> = page.into_iter().collect();
            *records += page.len();
            view.records(&page, scrub);
        }
        Event::State { state, .. } => view.say(&json!({"state": state}), || format!("  state {state}")),
        Event::Ended { error, .. } => {
            let count = *records;
            view.say(&json!({"ended": stream, "requests": asked, "records": count}), || {
                format!("end of {stream}: {asked} requests, {count} records\n")
            });
            return Some(error.map_or(Ok(true), Err));
        }
        Event::Started { .. } | Event::ConfigChanged(_) => {}
    }
    None
}

/// The next event; never, as long as the read has not begun.
async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Event {
    match events {
        Some(events) => match events.recv().await {
            Some(event) => event,
            None => Event::Ended { stream: "".into(), error: Some(Error::internal("the read ended without saying so")) },
        },
        None => std::future::pending().await,
    }
}

struct View {
    output: Output,
    full: bool,
    /// Waits for a person before each request.
    steps: bool,
}

impl View {
    fn say(&self, value: &Value, text: impl FnOnce() -> String) {
        if self.output.json { print(value) } else { print(text()) }
    }

    fn request(&self, sent: &Sent) {
        self.say(&json!({"request": sent}), || {
            let headers: String = sent.headers.iter().map(|(name, value)| format!("\n     {name}: {value}")).collect();
            let body = sent.body.as_ref().map(|b| format!("\n     {b}")).unwrap_or_default();
            format!("  -> {} {}{headers}{body}", sent.method, sent.url)
        });
    }

    fn answer(&self, kept: &Recorded, took: Duration) {
        let value = json!({"response": {"status": kept.status, "headers": kept.answer_headers, "body": kept.answer, "milliseconds": took.as_millis() as u64}});
        self.say(&value, || {
            let cut = kept.answer.char_indices().nth(SHOWN_BYTES).map(|(at, _)| at).filter(|_| !self.full);
            let body = cut.map_or_else(|| kept.answer.clone(), |at| format!("{} … (--full shows all)", &kept.answer[..at]));
            format!("  <- {}, {} bytes, {} ms\n     {body}", kept.status, kept.answer.len(), took.as_millis())
        });
    }

    fn records(&self, page: &[Value], scrub: &Scrub) {
        let clean: Value = serde_json::from_str(&scrub.text(&json!(page).to_string())).unwrap_or_default();
        self.say(&json!({"records": clean}), || {
            let shown = if self.full { page.len() } else { SHOWN_RECORDS };
            let lines: String = page.iter().take(shown).map(|r| format!("\n     {}", scrub.text(&r.to_string()))).collect();
            let more = if page.len() > shown { format!("\n     … and {} more", page.len() - shown) } else { String::new() };
            format!("  = {} records{lines}{more}", page.len())
        });
    }
}
