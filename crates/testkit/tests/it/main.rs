//! The suite is tested too: a right destination passes, and a wrong one is found out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;
mod merge;
mod verdict;
