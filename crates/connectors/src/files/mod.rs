//! Files: CSV, JSON, Parquet, Arrow IPC and Excel, on a disk, in an object store or behind a URL.
//!
//! Reading goes from a [`listing`] to one [`scan`] per split: bytes through [`input`] (decompressed on the way) into one
//! format's reader, which gives batches to a [`sink`]. Writing goes from an [`encoder`] per part into a staging folder, and
//! from there by [`commit`] to the places that a [`manifest`] names.

mod column;
mod commit;
mod compression;
mod config;
mod csv;
mod cursor;
mod declared;
mod destination;
mod encoder;
mod excel;
mod format;
mod input;
mod ipc;
mod join;
mod json;
mod listing;
mod manifest;
mod parquet;
mod place;
mod scan;
mod sink;
mod source;
mod split;
mod stage;
mod state;
mod streams;
mod window;

use trib_core::Connector;
use trib_core::connector::Ends;

pub fn connector() -> Connector {
    Connector::of::<config::FilesConfig>(Ends::Both)
}
