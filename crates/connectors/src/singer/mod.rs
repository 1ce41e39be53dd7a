//! Singer: taps as sources, targets as destinations, and the messages that [`Pipe`] loads.

mod batch;
pub mod catalog;
mod config;
mod delivery;
mod destination;
mod input;
mod message;
mod pipe;
mod source;
mod version;
pub mod write;

use trib_core::Connector;
use trib_core::connector::Ends;

use self::config::SingerConfig;
pub use self::pipe::Pipe;

/// The registry entry.
pub fn connector() -> Connector {
    Connector::of::<SingerConfig>(Ends::Both)
}
