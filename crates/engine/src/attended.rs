//! Waiting for a program that works for the project: what it says is passed on, and it is ended when it takes too long.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use trib_core::{Error, Result};
use trib_kit::process::Process;

/// How often what it says is passed on.
const LISTEN: Duration = Duration::from_millis(200);

/// How it went.
pub enum Ended {
    Well,
    Badly(Error),
    /// It took longer than it may, and was ended.
    Late,
}

/// Lets the program run to its end. `output` gets its standard output, `log` each line of its standard error.
pub async fn attended(
    process: &mut Process,
    mut output: impl AsyncWrite + Unpin,
    timeout: Duration,
    log: impl Fn(String),
) -> Result<Ended> {
    drop(process.stdin());
    let mut said_out = process.stdout().ok_or_else(|| Error::internal("a process without an output"))?;
    let said = process.said.clone();
    let pass_on = || said.take().0.into_iter().for_each(&log);
    let ended: Option<Result<()>> = {
        let work = async {
            tokio::io::copy(&mut said_out, &mut output).await?;
            output.flush().await?;
            process.finish().await
        };
        let late = tokio::time::sleep(timeout);
        tokio::pin!(work, late);
        loop {
            tokio::select! {
                ended = &mut work => break Some(ended),
                () = &mut late => break None,
                () = tokio::time::sleep(LISTEN) => pass_on(),
            }
        }
    };
    pass_on();
    Ok(match ended {
        Some(Ok(())) => Ended::Well,
        Some(Err(e)) => Ended::Badly(e),
        None => {
            process.stop().await;
            Ended::Late
        }
    })
}
