//! Connectors that are programs: whatever speaks the Airbyte protocol on its standard output is a source.

mod catalog;
mod config;
mod input;
mod message;
mod program;
mod settings;
mod source;
mod spec;
mod state;

use trib_core::Connector;
use trib_core::connector::Ends;

use self::config::AirbyteConfig;

/// The registry entry.
pub fn connector() -> Connector {
    Connector::of::<AirbyteConfig>(Ends::Source)
}
