//! Declarative (low-code) connectors: a manifest in YAML says what to ask of an HTTP API and what to make of the answers, and this
//! interpreter does it. The format is Airbyte's; what it means follows its Python CDK, down to the state that is kept.
//!
//! ```text
//! yaml ─▶ reference ─▶ parameters ─▶ components      Manifest: right without a configuration
//!   + configuration ─▶ Opened ─▶ stream ─▶ read      slices by router and cursor, pages by retriever
//! ```

mod asynchronous;
mod auth;
mod backoff;
mod budget;
mod cache;
mod columns;
mod components;
mod config;
pub mod consent;
mod cursor;
mod decode;
mod deliver;
mod dpath;
pub mod draft;
mod dynamic;
mod editor_schema;
mod entry;
mod env;
mod error_handler;
mod expander;
mod fetch;
mod groups;
mod json_schema;
mod keepsake;
#[allow(clippy::module_inception, reason = "the thing itself")]
mod manifest;
mod migration;
mod node;
mod normalize;
mod opened;
mod options;
mod outline;
mod pace;
#[cfg(test)]
mod pace_and_budget;
mod paginator;
mod parameters;
mod properties;
pub mod protocol;
mod read;
mod records;
mod recovery;
mod reference;
mod request_parts;
mod requester;
mod retriever;
mod router;
mod schema;
mod selector;
mod shipped;
mod slice;
mod source;
mod span;
mod stream;
mod template;
mod time;
mod transform;
mod upload;
mod watched;
mod xml;
mod yaml;

pub use self::components::Problem;
pub use self::editor_schema::manifest_schema;
pub use self::entry::connector;
pub use self::error_handler::failure_type;
pub use self::manifest::Manifest;
pub use self::opened::{Opened, StreamInfo};
pub use self::outline::{Change, Outline, StreamOutline};
pub use self::read::{Event, Selection};
pub use self::records::{Record, Records};
pub use self::shipped::{SHIPPED, Shipped};
pub use self::template::interpolate;
pub use self::upload::FileReference;
