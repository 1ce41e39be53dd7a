//! The lake against itself, and against the Python readers that people use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod children;
mod conformance;
mod crash;
mod harness;
mod maintain;
mod modes;
mod object_store;
mod python;
mod round_trip;
mod scan;
mod schema_change;
mod source;
