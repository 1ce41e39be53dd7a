//! Whole project folders: what is read from them, and what is said about mistakes in them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod connectors;
mod errors;
mod example;
mod folder;
mod imports;
mod meltano;
mod streams;
