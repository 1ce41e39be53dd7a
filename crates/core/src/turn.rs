//! Waiting for one's turn, which is no stall.
//!
//! A system may be spoken to over so many connections at once ([`crate::Context::threads`]). A read or a stage that waits until another gives one
//! back moves no rows, and nothing is wrong with it. Whoever watches for signs of life is told here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

tokio::task_local! {
    static WAITING: Vec<Arc<AtomicUsize>>;
}

/// Does `work`; while it waits for a turn, each of these counts one more. Tasks that it spawns are not counted.
pub async fn counted<T>(waiting: Vec<Arc<AtomicUsize>>, work: impl Future<Output = T>) -> T {
    WAITING.scope(waiting, work).await
}

/// Waits for a turn.
pub async fn wait<T>(turn: impl Future<Output = T>) -> T {
    let counters = WAITING.try_with(Clone::clone).unwrap_or_default();
    let _waiting = Waiting::begin(counters);
    turn.await
}

struct Waiting(Vec<Arc<AtomicUsize>>);

impl Waiting {
    fn begin(counters: Vec<Arc<AtomicUsize>>) -> Self {
        for counter in &counters {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Self(counters)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for counter in &self.0 {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_counted_for_as_long_as_it_waits() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = || count.load(Ordering::Relaxed);
        let (give, turn) = tokio::sync::oneshot::channel::<()>();
        let work = counted(vec![count.clone()], async {
            let _ = wait(turn).await;
            assert_eq!(seen(), 0);
        });
        let watch = async {
            tokio::task::yield_now().await;
            assert_eq!(seen(), 1);
            give.send(()).unwrap();
        };
        tokio::join!(work, watch);
        // One that is given up waits no longer.
        let given_up = counted(vec![count.clone()], wait(std::future::pending::<()>()));
        tokio::select! { biased; () = given_up => {}, () = tokio::task::yield_now() => {} }
        assert_eq!(seen(), 0);
    }
}
