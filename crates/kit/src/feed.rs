//! Handing messages to a program as fast as it takes them, and telling one that works slowly from one that has stopped.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio::time::Instant;
use trib_core::{Code, Error, Result};

use crate::process::Process;

/// Small, so that a slow program is told from one that has stopped.
const PIECE: usize = 64 << 10;

/// When a program has last shown that it works.
pub struct Pulse {
    patience: Duration,
    last: Mutex<Instant>,
}

impl Pulse {
    /// `patience` is how long it may be silent.
    pub fn new(patience: Duration) -> Self {
        Self { patience, last: Mutex::new(Instant::now()) }
    }

    /// A sign of life.
    pub fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Comes when there was no sign of life for too long.
    async fn missed(&self) {
        loop {
            let until = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.patience;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn stalled(&self, what: &str) -> Error {
        Error::new(Code::Stalled, "the program has stopped working")
            .detail(format!("{what}, for {} s", self.patience.as_secs()))
            .hint("raise `stall_timeout` of the connection if it needs longer")
    }
}

/// Feeds a program until there are no more messages, and waits for its end. Where one of them is an error, it is stopped before it can take what it has
/// got for all that there is. The error of a program that has failed is worth more than that it reads no more, which follows from it.
pub async fn feed(process: &mut Process, mut messages: mpsc::Receiver<Result<Vec<u8>>>, pulse: &Pulse) -> Result<()> {
    let Some(mut stdin) = process.stdin() else { return Err(Error::internal("a program is fed once")) };
    let poured = tokio::select! {
        poured = pour(&mut stdin, &mut messages, pulse) => poured,
        () = pulse.missed() => Err(pulse.stalled("it takes no more messages")),
    };
    let poured = match poured {
        Ok(poured) => poured,
        Err(error) => {
            process.stop().await;
            return Err(error);
        }
    };
    drop(stdin);
    let ended = tokio::select! {
        ended = process.finish() => Some(ended),
        () = pulse.missed() => None,
    };
    let Some(ended) = ended else {
        process.stop().await;
        return Err(pulse.stalled("it does not end"));
    };
    let unread = |e: std::io::Error| Error::new(Code::SystemError, "the program has ended before it has read everything").source(e);
    ended.and(poured.map_err(unread))
}

/// The inner error is the pipe's.
async fn pour(
    stdin: &mut ChildStdin,
    messages: &mut mpsc::Receiver<Result<Vec<u8>>>,
    pulse: &Pulse,
) -> Result<std::result::Result<(), std::io::Error>> {
    while let Some(lines) = messages.recv().await {
        for piece in lines?.chunks(PIECE) {
            if let Err(e) = stdin.write_all(piece).await {
                return Ok(Err(e));
            }
            pulse.beat();
        }
    }
    Ok(stdin.flush().await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Program;

    async fn fed(script: &str, messages: Vec<Result<Vec<u8>>>, patience: Duration) -> Result<()> {
        let program = Program { program: "sh".into(), args: vec!["-c".into(), script.into()], env: Vec::new(), dir: ".".into() };
        let mut process = Process::start(&program, "the script")?;
        let (sender, receiver) = mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for message in messages {
                if sender.send(message).await.is_err() {
                    break;
                }
            }
        });
        let fed = feed(&mut process, receiver, &Pulse::new(patience)).await;
        sending.await.unwrap();
        fed
    }

    #[tokio::test]
    async fn what_a_program_does_with_what_it_gets() {
        let (long, short) = (Duration::from_secs(600), Duration::from_millis(100));
        let much = || vec![Ok(vec![b'x'; 1 << 20])];
        assert!(fed("cat >/dev/null", much(), long).await.is_ok());
        for (script, patience, code, part) in [
            ("exec sleep 1000", short, Code::Stalled, "takes no more messages"),
            ("cat >/dev/null; exec sleep 1000", short, Code::Stalled, "does not end"),
            ("head -c 10 >/dev/null; echo full >&2; exit 4", long, Code::SystemError, "full"),
            ("head -c 10 >/dev/null", long, Code::SystemError, "before it has read everything"),
        ] {
            let error = fed(script, much(), patience).await.unwrap_err();
            assert!(error.code() == code && error.to_string().contains(part), "{script}: {error}");
        }
    }

    /// The end of its input would tell it that all is there.
    #[tokio::test]
    async fn one_that_cannot_be_given_the_rest_does_not_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        let script = format!("cat >/dev/null; touch {}", done.display());
        let messages = vec![Ok(b"first\n".to_vec()), Err(Error::new(Code::Io, "the rest is gone"))];
        assert_eq!(fed(&script, messages, Duration::from_secs(600)).await.unwrap_err().code(), Code::Io);
        assert!(!done.exists());
    }
}
