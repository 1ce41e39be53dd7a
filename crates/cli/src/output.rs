//! What goes to the terminal: results to standard output, remarks and errors to standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::render;

/// How to speak. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// One of the two, as `--json` says.
    pub fn either(self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.json {
            print(value());
        } else {
            let text = text();
            if !text.is_empty() {
                print(text.trim_end());
            }
        }
    }

    /// What a person may want to know beside the result.
    pub fn note(self, text: impl Display) {
        if !self.quiet && !self.json {
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    pub fn error(self, error: &trib_core::Error) {
        if self.json {
            let _ = writeln!(anstream::stderr(), "{}", serde_json::json!({"error": error.to_json()}));
        } else {
            let _ = writeln!(anstream::stderr(), "{}", render::error::text(error));
        }
    }

    /// Says what has ended the command.
    pub fn fail(self, failure: &Failure) -> Exit {
        for error in &failure.0 {
            self.error(error);
        }
        if failure.0.len() > 1 {
            self.note(format!("{} errors", failure.0.len()));
        }
        failure.exit()
    }

    /// Progress bars make sense.
    pub fn animated(self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }
}

/// A part of the result. A reader that has gone away is no error.
pub fn print(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Columns of the terminal that standard output goes to; `None` when it goes elsewhere.
pub fn width() -> Option<usize> {
    let (terminal_size::Width(width), _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(width.into())
}

/// Whether a person sits there who could answer.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line; `None` when there is no more input.
pub fn ask(question: &str) -> Option<String> {
    let _ = write!(anstream::stderr(), "{question} ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).is_ok_and(|n| n > 0);
    read.then(|| answer.trim().to_owned())
}

/// Asks for a yes.
pub fn confirm(question: &str) -> bool {
    ask(&format!("{question} [y/N]")).is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

/// With `--verbose`, what our own crates tell about their work. Never that of libraries: drivers may log what they send.
pub fn init_tracing(global: &Global) {
    if !global.verbose {
        return;
    }
    let ours = ["core", "kit", "connectors", "lake", "engine", "project", "store", "runtime"];
    let filter: Vec<String> = ours.iter().map(|name| format!("trib_{name}=debug")).chain(["trib=debug".to_owned()]).collect();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter.join(",")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
