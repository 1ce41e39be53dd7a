//! A run as it goes on: bars on a terminal, lines elsewhere, JSON lines for programs.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use trib_core::Level;
use trib_engine::Progress;
use trib_runtime::Event;

use crate::output::Output;
use crate::render::amount::{bytes, count, duration, rows};
use crate::render::name::node;

/// How often bars move.
const FRAME: Duration = Duration::from_millis(100);
/// How often a stream that goes on says so where there are no bars.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Receives the events of a run in order. Must not block.
pub trait Display: Send + Sync {
    fn event(&self, sync: &str, stream: Option<&str>, event: &Event);

    /// Nothing more will come.
    fn finish(&self);
}

pub fn display(output: Output) -> Box<dyn Display> {
    if output.json {
        Box::new(Lines::new(print_json, print_json_progress))
    } else if output.quiet {
        Box::new(Silent)
    } else if output.animated() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::new(print_line, print_line_progress))
    }
}

struct Silent;

impl Display for Silent {
    fn event(&self, _: &str, _: Option<&str>, _: &Event) {}

    fn finish(&self) {}
}

/// A stream that runs.
struct Running {
    progress: Arc<Progress>,
    expected: Option<u64>,
    began: Instant,
    told: Instant,
    /// All is read, and the destination makes it visible.
    publishing: bool,
}

impl Running {
    fn read(&self) -> (u64, u64) {
        (self.progress.rows_read.load(Ordering::Relaxed), self.progress.bytes_read.load(Ordering::Relaxed))
    }

    /// Until the end, when the source has told how many rows to expect.
    fn left(&self) -> Option<Duration> {
        let (read, _) = self.read();
        let left = self.expected?.checked_sub(read)?;
        let speed = read as f64 / self.began.elapsed().as_secs_f64();
        (speed > 0.0).then(|| Duration::from_secs_f64((left as f64 / speed).min(1e9)))
    }

    fn speed(&self) -> u64 {
        let (read, _) = self.read();
        (read as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64
    }
}

fn named(sync: &str, stream: Option<&str>) -> String {
    stream.map_or_else(|| sync.to_owned(), |stream| node(sync, stream))
}

type PrintEvent = fn(&str, Option<&str>, &Event);
type PrintProgress = fn(&str, &Running);

/// One line for each event, and one now and then for each stream that goes on.
struct Lines {
    print: PrintEvent,
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    ticker: JoinHandle<()>,
}

impl Lines {
    fn new(print: PrintEvent, print_progress: PrintProgress) -> Self {
        let running = Arc::new(Mutex::new(BTreeMap::<String, Running>::new()));
        let watched = running.clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                for (name, stream) in watched.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                    if stream.told.elapsed() >= SIGN_OF_LIFE {
                        stream.told = Instant::now();
                        print_progress(name, stream);
                    }
                }
            }
        });
        Self { print, running, ticker }
    }
}

impl Display for Lines {
    fn event(&self, sync: &str, stream: Option<&str>, event: &Event) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { progress, expected } => {
                let now = Instant::now();
                let stream_now = Running { progress: progress.clone(), expected: *expected, began: now, told: now, publishing: false };
                running.insert(named(sync, stream), stream_now);
            }
            Event::Finished | Event::Failed(_) => drop(running.remove(&named(sync, stream))),
            Event::Committing { .. } | Event::Committed { .. } => {
                if let Some(stream) = running.get_mut(&named(sync, stream)) {
                    stream.publishing = matches!(event, Event::Committing { .. });
                }
            }
            _ => {}
        }
        (self.print)(sync, stream, event);
    }

    fn finish(&self) {
        self.ticker.abort();
    }
}

fn print_line(sync: &str, stream: Option<&str>, event: &Event) {
    let name = named(sync, stream);
    let text = match event {
        Event::Started { expected: Some(expected), .. } => format!("started, about {}", rows(*expected)),
        // The summary says how it ended.
        Event::Finished | Event::Committed { .. } => return,
        // The log has the rest.
        Event::Said { level, .. } if *level < Level::Warn => return,
        Event::Failed(error) => format!("failed: {error}"),
        other => other.describe().0,
    };
    let _ = writeln!(anstream::stderr(), "{name}: {text}");
}

fn print_line_progress(name: &str, stream: &Running) {
    let (read, size) = stream.read();
    if stream.publishing {
        let _ = writeln!(anstream::stderr(), "{name}: {} read, still publishing, after {}", rows(read), duration(stream.began.elapsed()));
        return;
    }
    let left = stream.left().map(|left| format!(", about {} left", duration(left))).unwrap_or_default();
    let _ = writeln!(
        anstream::stderr(),
        "{name}: {} read, {}, {} rows/s, after {}{left}",
        rows(read),
        bytes(size),
        count(stream.speed()),
        duration(stream.began.elapsed())
    );
}

fn print_json(sync: &str, stream: Option<&str>, event: &Event) {
    let kind = match event {
        Event::Started { .. } => "started",
        Event::Recovered { .. } => "recovered",
        Event::Note(_) => "note",
        Event::Said { .. } => "said",
        Event::Committing { .. } => "committing",
        Event::Committed { .. } => "committed",
        Event::Retrying { .. } => "retrying",
        Event::Finished => "finished",
        Event::Failed(_) => "failed",
    };
    let (message, fields) = event.describe();
    let mut line = json!({"event": kind, "sync": sync, "stream": stream, "message": message});
    if let (Some(line), Some(Value::Object(fields))) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    let _ = writeln!(anstream::stdout(), "{line}");
}

fn print_json_progress(name: &str, stream: &Running) {
    let (read, size) = stream.read();
    let (sync, stream_name) = name.split_once('/').unwrap_or((name, ""));
    let line = json!({
        "event": "progress", "sync": sync, "stream": stream_name, "rows_read": read, "bytes_read": size,
        "rows_per_second": stream.speed(), "publishing": stream.publishing, "seconds_left": stream.left().map(|left| left.as_secs()),
    });
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// One bar for each stream that runs; what is done or noteworthy scrolls away above.
struct Bars {
    all: MultiProgress,
    running: Arc<Mutex<BTreeMap<String, (Running, ProgressBar)>>>,
    ticker: JoinHandle<()>,
}

impl Bars {
    fn new() -> Self {
        let running = Arc::new(Mutex::new(BTreeMap::<String, (Running, ProgressBar)>::new()));
        let watched = running.clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(FRAME).await;
                for (stream, bar) in watched.lock().unwrap_or_else(PoisonError::into_inner).values() {
                    let (read, size) = stream.read();
                    // An estimate that was too low must not show more than all.
                    if stream.expected.is_some_and(|expected| read > expected) {
                        bar.set_length(read);
                    }
                    bar.set_position(read);
                    bar.set_message(if stream.publishing {
                        format!("{} · publishing, after {}", bytes(size), duration(stream.began.elapsed()))
                    } else {
                        let left = stream.left().map(|left| format!(" · {} left", duration(left))).unwrap_or_default();
                        format!("{} · {} rows/s{left}", bytes(size), count(stream.speed()))
                    });
                    bar.tick();
                }
            }
        });
        Self { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), running, ticker }
    }

    fn say(&self, text: &str) {
        let _ = self.all.println(text);
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

impl Display for Bars {
    fn event(&self, sync: &str, stream: Option<&str>, event: &Event) {
        let name = named(sync, stream);
        match event {
            Event::Started { progress, expected } => {
                let bar = match expected {
                    Some(expected) => ProgressBar::new(*expected)
                        .with_style(style("{prefix:.bold} {bar:24.cyan/dim} {human_pos}/{human_len} rows · {msg}")),
                    None => ProgressBar::new_spinner().with_style(style("{prefix:.bold} {spinner} {human_pos} rows · {msg}")),
                };
                let bar = self.all.add(bar.with_prefix(name.clone()));
                let now = Instant::now();
                let stream_now = Running { progress: progress.clone(), expected: *expected, began: now, told: now, publishing: false };
                self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (stream_now, bar));
            }
            Event::Finished | Event::Failed(_) => {
                let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                let Some((stream, bar)) = ended else { return };
                bar.finish_and_clear();
                self.all.remove(&bar);
                let (read, size) = stream.read();
                let took = duration(stream.began.elapsed());
                self.say(&match event {
                    Event::Failed(error) => format!("✗ {name}: {error}"),
                    _ => format!("✓ {name}: {} read, {}, {took}", rows(read), bytes(size)),
                });
            }
            Event::Committing { .. } | Event::Committed { .. } => {
                if let Some((stream, _)) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&name) {
                    stream.publishing = matches!(event, Event::Committing { .. });
                }
            }
            Event::Said { level, .. } if *level < Level::Warn => {}
            other => self.say(&format!("  {name}: {}", other.describe().0)),
        }
    }

    fn finish(&self) {
        self.ticker.abort();
        let _ = self.all.clear();
    }
}
