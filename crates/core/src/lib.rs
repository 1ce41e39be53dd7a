//! The concepts of Tributary and the promises between them.
//!
//! Seven concepts carry the whole product: [`Connector`], [`Source`], [`Destination`],
//! [`Stream`] (in a [`Catalog`]), [`Split`], [`State`] and [`Load`]. This crate holds their types and
//! traits, and every decision about them that can be made without touching the outside world:
//! what to do after a crash ([`protocol`]), which modes go together ([`mode`]), how a table may change
//! ([`contract`]), what an error means ([`error`]). It opens no socket and starts no runtime.

pub mod catalog;
pub mod connector;
pub mod contract;
pub mod delivery;
pub mod destination;
pub mod emitter;
pub mod error;
pub mod interval;
pub mod lines;
pub mod load;
pub mod logical;
pub mod mode;
pub mod name;
mod named;
pub mod protocol;
pub mod relation;
pub mod secret;
pub mod source;
pub mod state;
pub mod syntax;
pub mod transform;
pub mod turn;
pub mod wire;

pub use catalog::{Catalog, Stream};
pub use connector::{Connector, ConnectorConfig, Context};
pub use delivery::Delivers;
pub use destination::{Capabilities, ColumnType, Destination, ExistingTable, SqlEngine};
pub use emitter::{Emitter, Level, Message};
pub use error::{Blame, Code, Error, Place, Result, Retry};
pub use lines::Lines;
pub use load::{Lease, Load, LoadId, Marker, Outcome, Part, Receipt, RejectedRow, Table, TableLoad};
pub use mode::{ReadMode, WriteMode};
pub use name::TableName;
pub use secret::Secret;
pub use source::{Read, Source, Split, SplitEnd, StreamRead};
pub use state::State;

use std::pin::Pin;

use arrow::array::RecordBatch;

/// Rows on their way: batches of one schema, in order.
pub type BatchStream = Pin<Box<dyn futures::Stream<Item = Result<RecordBatch>> + Send>>;
