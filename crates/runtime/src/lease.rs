//! Keeping a lease while a sync runs.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trib_core::{Lease, Result};

use crate::task::Runtime;

/// A holder that has been silent for this long is taken for dead.
const TTL: Duration = Duration::from_secs(60);

/// A lease that is renewed in the background until it is released. When renewing fails because somebody else has taken the
/// sync over, `lost` is cancelled.
pub struct Keeper {
    pub lease: Lease,
    pub lost: CancellationToken,
    beat: JoinHandle<()>,
    /// Ends the beat, between two questions to the control database.
    done: CancellationToken,
}

impl Keeper {
    pub async fn take(runtime: &Runtime, identity: &str) -> Result<Self> {
        let lease = runtime.store.acquire(identity, &runtime.holder, TTL).await?;
        let lost = runtime.cancel.child_token();
        let (store, run) = (runtime.store.clone(), runtime.run.clone());
        let (held, token, cancel) = (lease.clone(), lost.clone(), runtime.cancel.clone());
        let done = CancellationToken::new();
        let ended = done.clone();
        let beat = tokio::spawn(async move {
            let mut ticks = 0u32;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(TTL / 20) => {}
                    () = ended.cancelled() => return,
                }
                ticks += 1;
                // A database that cannot be reached for a moment is no reason to stop: the destination checks the lease as well.
                if ticks.is_multiple_of(5)
                    && let Err(e) = store.renew(&held).await
                    && e.code() == trib_core::Code::LeaseLost
                {
                    token.cancel();
                }
                if store.cancel_requested(&run).await.unwrap_or(false) {
                    cancel.cancel();
                }
                if ticks.is_multiple_of(10) {
                    let _ = store.beat(&run).await;
                }
            }
        });
        Ok(Self { lease, lost, beat, done })
    }

    pub async fn release(self, runtime: &Runtime) {
        self.done.cancel();
        // A query that was cut off would leave its connection unusable. One that has panicked keeps nothing.
        let _ = self.beat.await;
        // An unreleased lease of a process that is gone is found out by the next run.
        let _ = runtime.store.release(&self.lease).await;
    }
}
