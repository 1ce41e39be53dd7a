//! Behaviour of the control database, the same for SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lease;
mod open;
mod place;
mod rejected;
mod run;
mod scope;
mod table;
