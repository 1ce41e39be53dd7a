//! What runs at the same time, and what one part of it means for the others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trib_core::Code;
use trib_testkit::in_memory::{ListDestination, ListSource, Push};

use crate::bench::{Bench, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_holds_no_other_back() {
    let last = CancellationToken::new();
    let (wait, begun) = (last.clone(), last.clone());
    // The first one ends when the last one has begun, and two are read at a time.
    let source = ListSource::default()
        .with("slow", vec![vec![number(1), Push::Wait(Box::pin(async move { wait.cancelled().await })), number(2)]])
        .with("second", vec![vec![number(3)]])
        .with("third", vec![vec![number(4)]])
        .with("last", vec![vec![Push::Wait(Box::pin(async move { begun.cancel() })), number(5)]]);
    let bench = Bench::new().await;
    let running = bench.run(source, &["slow", "second", "third", "last"], Arc::new(ListDestination::new(true)));
    let report = tokio::time::timeout(Duration::from_mins(1), running).await.expect("the last stream never begins");
    assert_eq!(report.failed(), 0);
    let order: Vec<&str> = report.streams.iter().map(|s| s.stream.as_str()).collect();
    assert_eq!(order, ["slow", "second", "third", "last"], "as they were asked for, whichever ended first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_thrown_away_when_nothing_works_at_it_any_more() {
    let (abort, aborted) = mpsc::channel();
    let aborted = Mutex::new(aborted);
    let writing = CancellationToken::new();
    let begun = writing.clone();
    let mut destination = ListDestination::new(true);
    destination.on_abort = Some(Box::new(move || {
        let _ = abort.send(());
    }));
    // The first split's stage is in the middle of a write when the second split fails. It would see an abort that comes too early.
    destination.on_batch = Some(Arc::new(move |part| {
        if part.split == 0 {
            begun.cancel();
            let _ = aborted.lock().unwrap().recv_timeout(Duration::from_millis(300));
        }
        Ok(())
    }));
    let source = ListSource::default().with(
        "s",
        vec![vec![number(1)], vec![Push::Wait(Box::pin(async move { writing.cancelled().await })), Push::Fail(Code::ConnectionLost)]],
    );
    let destination = Arc::new(destination);
    let report = Bench::new().await.run(source, &["s"], destination.clone()).await;
    assert_eq!(report.streams[0].error.as_ref().map(|e| e.code()), Some(Code::ConnectionLost));
    assert!(!destination.aborted_while_writing.load(Ordering::SeqCst));
    assert!(destination.committed.lock().unwrap().is_empty());
}
