//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::output::Output;

/// A token that the first Ctrl-C (or SIGTERM) cancels, so that loads stop at their next safe place. The second one ends the process
/// at once, which is as safe and only loses the work since the last commit.
pub fn on_signal(output: Output) -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    // On a thread of its own: it must be heard although every other one is busy.
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            // Both are held throughout, so that no signal falls between two waits.
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt()).ok(), signal(SignalKind::terminate()).ok());
            either(&mut interrupt, &mut terminate).await;
            token.cancel();
            output.note("stopping: what is not published yet will not be; once more to end at once");
            either(&mut interrupt, &mut terminate).await;
            trib_kit::process::end_all();
            std::process::exit(Exit::Interrupted as i32);
        });
    });
    stop
}

async fn either(interrupt: &mut Option<Signal>, terminate: &mut Option<Signal>) {
    tokio::select! {
        () = next(interrupt) => {}
        () = next(terminate) => {}
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
