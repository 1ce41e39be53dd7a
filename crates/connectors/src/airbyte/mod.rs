//! Connectors that are programs: whatever speaks the Airbyte protocol is a source, a destination, or both.

mod catalog;
mod config;
mod confirmed;
mod connector;
mod container;
mod delivery;
mod destination;
mod input;
mod message;
mod program;
mod settings;
mod source;
mod spec;
mod state;
mod write;

use trib_core::Connector;
use trib_core::connector::Ends;

use self::config::AirbyteConfig;

/// The registry entry.
pub fn connector() -> Connector {
    Connector::of::<AirbyteConfig>(Ends::Both)
}
