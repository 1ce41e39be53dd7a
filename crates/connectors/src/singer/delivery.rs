//! Feeding a target with a load.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::SecondsFormat;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use trib_core::name::system;
use trib_core::{Code, Error, Load, Result, TableName};
use trib_kit::process::{PrivateFolder, Process, Program};
use trib_kit::{scrub, spool};

use super::config::SingerConfig;
use super::write::{record_lines, schema_line, state_line};

pub struct Delivery {
    pub config: Arc<SingerConfig>,
    pub dir: PathBuf,
}

impl Delivery {
    /// Without its settings.
    pub async fn program(&self) -> Result<Program> {
        self.config.program(self.config.target.as_deref().unwrap_or_default(), &self.dir).await
    }

    /// Hands all that is staged for a load to the target, and waits until it gives our STATE back and ends well.
    pub async fn run(&self, load: &Load) -> Result<()> {
        let name = self.config.target.clone().unwrap_or_default();
        let folder = PrivateFolder::new()?;
        let settings = self.config.settings_file(&folder)?;
        let mut program = self.program().await?;
        program.args.extend(["--config".to_owned(), settings.to_string_lossy().into_owned()]);
        let mut process = Process::start(&program, &name)?;
        let (Some(stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
            return Err(Error::internal("a program was started without its input and output"));
        };
        let state = json!({"load": load.id});
        let (sender, messages) = mpsc::channel(2);
        let (load, last) = (load.clone(), state.clone());
        let writing = tokio::task::spawn_blocking(move || write(&load, &last, &sender));
        let patience = std::time::Duration::from_secs(self.config.stall_timeout);
        let answer = tokio::spawn(returned(stdout, state));
        let fed = feed(stdin, messages, patience).await;
        writing.await.map_err(|_| Error::internal("writing the messages has panicked"))??;
        if fed.as_ref().is_err_and(|e| e.code() == Code::Stalled) {
            process.stop().await;
            return fed;
        }
        // A target that has failed says why; that it reads no more is only what follows.
        let Ok(ended) = tokio::time::timeout(patience, process.finish()).await else {
            process.stop().await;
            return Err(stalled("it does not end", patience));
        };
        ended.map_err(|e| self.config.without_secrets(&e))?;
        fed?;
        if !answer.await.unwrap_or(false) {
            return Err(Error::new(Code::SystemError, "the target has ended without giving the STATE back")
                .detail(scrub::without(&process.said.last().join("\n"), self.config.secrets()))
                .hint("rows that it has taken may be there; the next run hands the same load over again"));
        }
        Ok(())
    }
}

fn stalled(what: &str, patience: std::time::Duration) -> Error {
    Error::new(Code::Stalled, "the target has stopped working")
        .detail(format!("{what}, for {} s", patience.as_secs()))
        .hint("raise `stall_timeout` of the connection if it needs longer")
}

/// Writes as fast as the target reads.
async fn feed(mut stdin: ChildStdin, mut messages: mpsc::Receiver<Vec<u8>>, patience: std::time::Duration) -> Result<()> {
    while let Some(lines) = messages.recv().await {
        // In small pieces, so that a slow target is told from one that has stopped.
        for piece in lines.chunks(64 << 10) {
            tokio::time::timeout(patience, stdin.write_all(piece)).await.map_err(|_| stalled("it takes no more messages", patience))??;
        }
    }
    Ok(stdin.flush().await?)
}

/// Whether our STATE comes back. Reads to the end, so that the target never waits for us.
async fn returned(stdout: ChildStdout, wanted: Value) -> bool {
    let mut lines = tokio::io::BufReader::new(stdout).lines();
    let mut found = false;
    while let Ok(Some(line)) = lines.next_line().await {
        found = found || serde_json::from_str::<Value>(&line).is_ok_and(|state| state == wanted);
    }
    found
}

/// All messages of a load. Blocks.
fn write(load: &Load, state: &Value, to: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let extracted = load.loaded_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    for share in load.tables.iter().filter(|t| !t.receipts.is_empty()) {
        let stream = stream_name(&share.table.name);
        let mut announced = false;
        for batch in spool::batches(share) {
            let batch = without_ours(&batch?)?;
            let mut lines = Vec::new();
            if !std::mem::replace(&mut announced, true) {
                lines = schema_line(&stream, &batch.schema(), &share.table.key, &[])?;
            }
            record_lines(&stream, &batch, &extracted, &mut lines)?;
            if to.blocking_send(lines).is_err() {
                // Whoever feeds has given up, and says why.
                return Ok(());
            }
        }
    }
    let _ = to.blocking_send(state_line(state)?);
    Ok(())
}

/// A stream in a schema is called as taps call it.
fn stream_name(table: &TableName) -> String {
    table.schema.as_ref().map_or_else(|| table.name.clone(), |schema| format!("{schema}-{}", table.name))
}

/// A target has no use for the order of rows: it takes them in order.
fn without_ours(batch: &RecordBatch) -> Result<RecordBatch> {
    let kept: Vec<usize> = (0..batch.num_columns()).filter(|i| batch.schema().field(*i).name() != system::SEQ).collect();
    Ok(batch.project(&kept)?)
}
