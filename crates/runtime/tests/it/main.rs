//! Syncs between two ends in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod bench;
mod side_by_side;
