//! The engine between a source that is a list of batches and a destination that is a list of batches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failure;
mod joins;
mod lineage;
mod memory;
mod rows;
