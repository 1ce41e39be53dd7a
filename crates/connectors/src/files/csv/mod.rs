//! Comma-separated values: what RFC 4180 says, and what files in the wild make of it.

pub mod dialect;
pub mod infer;
pub mod read;
mod record;
pub mod split;
pub mod write;
