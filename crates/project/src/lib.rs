//! The user's folder, as a typed and validated [`Project`].
//!
//! Files are parsed into trees that know their places ([`yaml`]), variables are filled in ([`interpolate`]), trees are
//! decoded into the types of [`config`], and what the parts say about each other is checked. Everything but [`Project::load`]
//! is a pure function of what was read. What needs the catalog of a source is decided by [`Sync::streams_for`].

mod across;
pub mod coerce;
pub mod command;
pub mod config;
pub mod data_test;
mod decode;
pub mod delivery;
mod dotenv;
pub mod environment;
mod files;
pub mod format;
pub mod graph;
pub mod import;
pub mod interpolate;
pub mod load;
pub mod lock;
pub mod macros;
mod model;
pub mod pattern;
pub mod place;
pub mod project;
pub mod resolve;
pub mod schemas;
pub mod seed;
pub mod select;
pub mod sql_tables;
pub mod sync;
mod table_template;
pub mod template;
pub mod validate;
mod writers;
pub mod yaml;

pub use command::Command;
pub use data_test::DataTest;
pub use delivery::DeliveryPlan;
pub use environment::Environment;
pub use graph::{Graph, NodeKind};
pub use interpolate::Variables;
pub use lock::{Lock, Pin};
pub use model::Model;
pub use project::{Connection, Job, Project, UnitTest};
pub use resolve::{Resolved, StreamPlan};
pub use seed::Seed;
pub use select::{Pick, Selection};
pub use sync::Sync;
pub use writers::check_writers;
