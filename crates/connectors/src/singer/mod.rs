//! Singer: taps as sources, targets as destinations, and the messages that [`Pipe`] loads.

mod batch;
pub mod catalog;
mod column;
mod config;
mod decoder;
mod delivery;
mod destination;
mod environment;
mod input;
mod journal;
mod lines;
mod log;
mod message;
mod pipe;
pub mod schema;
mod source;
mod value;
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
