//! Handing a load to a destination. It is done when all our STATE messages have come back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use trib_core::{Code, Error, Load, Result, TableLoad, WriteMode};
use trib_kit::feed::Pulse;
use trib_kit::lines::{Lines, Next};
use trib_kit::relay::shares;
use trib_kit::tape::Tape;

use super::confirmed::Confirmed;
use super::connector::Connector;
use super::input::{PATIENCE, aside, at, clean};
use super::message::{Message, parse};
use super::program::WRITE;
use super::settings::CurrentSettings;
use super::write::{catalog, write};

/// How often nothing may come from a program that has ended, before it is taken for all. What it has started may hold its output open.
const WAITS: u32 = 25;

/// `folder` is the load's own.
pub async fn deliver(connector: &Connector, load: &Load, folder: &Path) -> Result<()> {
    let mut confirmed = Confirmed::of(&load.id, folder)?;
    // What replaces a table is handed over whole.
    for share in shares(load).filter(|share| share.table.write == WriteMode::Replace) {
        confirmed.forget(&share.table.name)?;
    }
    let files = [("config", connector.settings.now()), ("catalog", catalog(load, Utc::now().timestamp_millis()))];
    let (call, lines) = connector.call(WRITE, &files).await?;
    let said = call.said();
    let pulse = Arc::new(Pulse::new(Duration::from_secs(connector.config.stall_timeout)));
    let (sender, messages) = mpsc::channel(2);
    let (ours, safe) = (load.clone(), Confirmed::of(&load.id, folder)?);
    let writing = tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&ours, &safe, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let ended = Arc::new(AtomicBool::new(false));
    let hearing = Hearing { lines, confirmed, settings: connector.settings.clone(), pulse: pulse.clone(), ended: ended.clone() };
    let hearing = tokio::task::spawn_blocking(move || hearing.hear());
    let fed = call.fed(messages, &pulse).await;
    ended.store(true, Ordering::Relaxed);
    writing.await.map_err(|_| Error::internal("writing the messages has panicked"))?;
    let (confirmed, failed) = hearing.await.map_err(|_| Error::internal("reading the connector has panicked"))??;
    // What it says itself is better than how it has ended.
    if let Some(error) = failed {
        return Err(error);
    }
    fed.map_err(|e| clean(&e, &connector.settings.scrub))?;
    let unsafe_yet = |share: &&TableLoad| {
        let staged: u64 = share.receipts.iter().map(|r| r.rows).sum();
        !confirmed.knows(&share.table.name) || confirmed.rows(&share.table.name) < staged
    };
    match shares(load).find(unsafe_yet) {
        Some(share) => Err(Error::new(Code::SystemError, "the destination has ended without giving the STATE back")
            .stream(share.table.name.to_string())
            .detail(connector.settings.scrub.text(&said.last().join("\n")))
            .hint("rows that it has taken may be there; the next run hands over what it has not confirmed")),
        None => Ok(()),
    }
}

struct Hearing {
    lines: Lines,
    confirmed: Confirmed,
    settings: Arc<CurrentSettings>,
    pulse: Arc<Pulse>,
    /// The program is gone.
    ended: Arc<AtomicBool>,
}

impl Hearing {
    /// Hears a destination out: what of the load is safe, and why it has failed, as it says. Blocks.
    fn hear(mut self) -> Result<(Confirmed, Option<Error>)> {
        let (mut tape, mut failed, mut waits) = (Tape::default(), None, 0);
        let scrub = &self.settings.scrub;
        loop {
            let (text, number) = match self.lines.next(PATIENCE)? {
                Next::Line { text, number } => (text, number),
                Next::Waiting if waits < WAITS => {
                    waits += u32::from(self.ended.load(Ordering::Relaxed));
                    continue;
                }
                Next::Waiting | Next::End => return Ok((self.confirmed, failed)),
            };
            self.pulse.beat();
            match parse(text, &mut tape).map_err(|e| at(&e, number, text, scrub))? {
                Some(Message::State(state)) => self.confirmed.take(&state)?,
                Some(Message::Failed(failure) | Message::Incomplete(failure)) => drop(failed.get_or_insert(clean(&failure.error(), scrub))),
                Some(Message::NewConfig(config)) => self.settings.replace(&config)?,
                Some(Message::Log(level, message)) => aside(level, &scrub.text(&message)),
                _ => {}
            }
        }
    }
}
