//! Delta Lake tables as a place to load into, to read from and to query.
//!
//! One folder holds `<schema>/<table>`, each an ordinary Delta table that Spark, DuckDB, Polars and pandas read. What is
//! ours stands in `_trib` beside them: leases, and notes of what is staged. How a load is committed is told in [`commit`].

mod commit;
mod config;
mod data_file;
mod delta_schema;
mod delta_type;
mod destination;
mod edit;
mod encode;
mod failure;
mod file_stats;
mod layout;
mod maintain;
mod marker;
mod merge;
mod query;
mod scan;
mod source;
mod stage;
mod table_log;

pub use config::{LakeConfig, open};
pub use destination::Lake;

use trib_core::Connector;
use trib_core::connector::Ends;

/// The connectors of this crate.
pub fn connectors() -> Vec<Connector> {
    vec![Connector::of::<LakeConfig>(Ends::Both)]
}
