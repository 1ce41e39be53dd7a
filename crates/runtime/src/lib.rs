//! The run loop: leases, recovery, loads, retries, limits, events. Knows no connector, no terminal and no web.
//!
//! [`run_sync`] carries out a [`SyncTask`]: it takes the sync's lease, opens the destination, and lets each stream go through its loads side
//! by side (all together, where the source has one split for them). What happens in which order, and what a crash at each point leads to, stands in [`trib_core::protocol`].

mod event;
mod fault;
mod fill;
mod guard;
mod lease;
mod load;
mod narrow;
mod outline;
mod promote;
mod prune;
pub mod retry;
mod scope;
mod step;
mod sync;
mod task;
mod track;
mod wanted;

pub use event::{Event, NoObserver, Observer};
pub use fill::fill;
pub use outline::{StreamOutline, TableOutline, Unfinished, outline};
pub use promote::{Promotion, promote};
pub use scope::TOGETHER;
pub use sync::{StreamReport, SyncReport, recover_state, reset, run_sync};
pub use task::{Audit, Budget, Compare, Limits, Refresh, Renew, Runtime, StreamTask, SyncTask, new_id};
