//! Feeding a target with a load.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use trib_core::{Code, Error, Load, Result, TableName};
use trib_kit::feed::{Pulse, feed};
use trib_kit::process::{PrivateFolder, Process, Program};
use trib_kit::relay::{shares, without_order};
use trib_kit::{scrub, spool};

use super::config::SingerConfig;
use super::write::{record_lines, schema_line, state_line};

pub struct Delivery {
    pub config: SingerConfig,
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
        let stdout = process.stdout().ok_or_else(|| Error::internal("a program was started without its output"))?;
        let state = json!({"load": load.id});
        let (sender, messages) = mpsc::channel(2);
        let (load, last) = (load.clone(), state.clone());
        let writing = tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&load, &last, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        let pulse = Arc::new(Pulse::new(Duration::from_secs(self.config.stall_timeout)));
        let answer = tokio::spawn(returned(stdout, state, pulse.clone()));
        let fed = feed(&mut process, messages, &pulse).await;
        writing.await.map_err(|_| Error::internal("writing the messages has panicked"))?;
        fed.map_err(|e| self.config.without_secrets(&e))?;
        if !answer.await.unwrap_or(false) {
            return Err(Error::new(Code::SystemError, "the target has ended without giving the STATE back")
                .detail(scrub::without(&process.said.last().join("\n"), self.config.secrets()))
                .hint("rows that it has taken may be there; the next run hands the same load over again"));
        }
        Ok(())
    }
}

/// Whether our STATE comes back. Reads to the end, so that the target never waits for us.
async fn returned(stdout: ChildStdout, wanted: Value, pulse: Arc<Pulse>) -> bool {
    let mut lines = tokio::io::BufReader::new(stdout).lines();
    let mut found = false;
    while let Ok(Some(line)) = lines.next_line().await {
        pulse.beat();
        found = found || serde_json::from_str::<Value>(&line).is_ok_and(|state| state == wanted);
    }
    found
}

/// All messages of a load. Blocks.
fn write(load: &Load, state: &Value, to: &mpsc::Sender<Result<Vec<u8>>>) -> Result<()> {
    let extracted = load.loaded_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    for share in shares(load) {
        let stream = stream_name(&share.table.name);
        let mut announced = false;
        for batch in spool::batches(share) {
            let batch = without_order(&batch?)?;
            let mut lines = Vec::new();
            if !std::mem::replace(&mut announced, true) {
                lines = schema_line(&stream, &batch.schema(), &share.table.key, &[])?;
            }
            record_lines(&stream, &batch, &extracted, &mut lines)?;
            if to.blocking_send(Ok(lines)).is_err() {
                // Whoever feeds has given up, and says why.
                return Ok(());
            }
        }
    }
    let _ = to.blocking_send(Ok(state_line(state)?));
    Ok(())
}

/// A stream in a schema is called as taps call it.
fn stream_name(table: &TableName) -> String {
    table.schema.as_ref().map_or_else(|| table.name.clone(), |schema| format!("{schema}-{}", table.name))
}
