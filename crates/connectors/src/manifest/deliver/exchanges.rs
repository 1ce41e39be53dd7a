//! What was asked of an API call by call and what it answered, where a sync wants it kept: one JSON object a line, without secrets.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use trib_core::{Error, Result};
use trib_kit::fixture::{Recorded, Sent};
use trib_kit::http::{Request, Response};
use trib_kit::scrub::Scrub;

use super::super::env::Env;

/// Loads of a sync whose exchanges are kept; those of older ones go.
const MOST_LOADS: usize = 30;
/// Bytes of a body that are kept.
const MOST_BODY: usize = 64 << 10;

pub(super) struct Exchanges {
    file: Arc<Mutex<File>>,
}

#[derive(Serialize)]
struct Line {
    at: DateTime<Utc>,
    /// The records that it was about, by their keys.
    records: Vec<String>,
    request: Sent,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// Why no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Exchanges {
    /// Opens the file of a load for more lines, and makes room for it. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
            make_room(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    pub(super) async fn keep(&self, env: &Env, records: Vec<String>, request: &Request, sent: &Result<Response>) -> Result<()> {
        // Tokens that were renewed since are known by now.
        let scrub = Scrub::new(env.secrets());
        let mut line = Line { at: Utc::now(), records, request: Sent::of(request, &scrub), answer: None, error: None };
        match sent {
            Ok(response) => {
                let Recorded { sent, status, answer_headers, answer } = Recorded::of(request, response, &scrub);
                line.request = sent;
                line.answer = Some(Answer { status, headers: answer_headers, body: cut(answer) });
            }
            Err(error) => line.error = Some(scrub.text(&error.to_string())),
        }
        line.request.body = line.request.body.map(cut);
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let file = self.file.clone();
        let write = move || file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text);
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| Error::internal("keeping an exchange has panicked"))?;
        Ok(written?)
    }
}

/// The exchanges about one record. Blocks.
pub(super) fn about(path: &Path, place: &str) -> Result<Vec<Value>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for line in BufReader::new(file).lines() {
        // A line that a crash has cut off says nothing.
        if let Ok(line) = serde_json::from_str::<Value>(&line?)
            && line["records"].as_array().is_some_and(|records| records.iter().any(|r| r == place))
        {
            found.push(line);
        }
    }
    Ok(found)
}

fn make_room(folder: &Path) -> Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let too_many = files.len().saturating_sub(MOST_LOADS - 1);
    files.iter().take(too_many).try_for_each(|(_, file)| std::fs::remove_file(file).map_err(Error::from))
}

fn cut(text: String) -> String {
    match text.floor_char_boundary(MOST_BODY) {
        end if end < text.len() => format!("{}… ({} bytes)", &text[..end], text.len()),
        _ => text,
    }
}
