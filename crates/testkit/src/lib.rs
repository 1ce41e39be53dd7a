//! What tests share: the conformance suite that every connector passes, faults on demand, servers of one's own.
//!
//! A dev-dependency only. A connector's test makes its two ends, and the suite does the rest:
//!
//! ```ignore
//! conformance::destination(|| destination(), |table| conformance::read_by(source(), table)).await;
//! conformance::source(|| source(), |table, rows| conformance::filled_by(destination(), source(), table, rows)).await;
//! ```

// Here a failure is a panic: this code runs in tests only.
#![allow(clippy::expect_used, clippy::panic)]

pub mod certificate;
pub mod chance;
pub mod conformance;
pub mod docker_engine;
pub mod emit;
pub mod fault;
pub mod http_fault;
pub mod in_memory;
pub mod mariadb_server;
pub mod model;
pub mod postgres_server;
pub mod python_venv;
pub mod rows;
mod shared;
pub mod stand_in;
pub mod tiny_disk;
pub mod values;
pub mod vendor;
