//! Integration tests of the connectors, against the systems themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
#[cfg(feature = "files")]
mod files;
#[cfg(feature = "manifest")]
mod manifest;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
