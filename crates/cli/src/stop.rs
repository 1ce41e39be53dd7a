//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::output::Output;

/// A token that the first Ctrl-C (or SIGTERM) cancels, so that loads stop at their next safe place. The second one ends the process
/// at once, which is as safe and only loses the work since the last commit.
pub fn on_signal(output: Output) -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut terminate = signal(SignalKind::terminate()).ok();
        let mut asked = false;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                () = next(terminate.as_mut()) => {}
            }
            if asked {
                std::process::exit(Exit::Interrupted as i32);
            }
            asked = true;
            token.cancel();
            output.note("stopping: what is not published yet will not be; once more to end at once");
        }
    });
    stop
}

async fn next(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
