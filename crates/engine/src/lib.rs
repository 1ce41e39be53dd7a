//! Plans and executes loads: what happens to rows between a source's split and a destination's stage.
//!
//! [`plan::StreamPlan`] is compiled once per stream and run: row steps ([`steps`]), nesting ([`nest`]), then names, types and
//! contract ([`conform`]). [`execute::run_splits`] drives splits through it. SQL is DataFusion's; columns that only pass through never
//! meet it.

pub mod attended;
pub mod batches;
pub mod cast;
pub mod catalog;
pub mod change_source;
pub mod changes;
pub mod check;
mod clock;
pub mod conform;
mod conformer;
pub mod execute;
pub mod failure;
mod field_hash;
mod grouping;
pub mod inside_source;
pub mod ledger;
pub mod lineage;
pub mod native;
pub mod nest;
pub mod plan;
pub mod protect;
mod pushed;
pub mod query_source;
pub mod range;
pub mod reads;
pub mod rejected;
mod router;
pub mod script;
pub mod session;
pub mod shelf;
pub mod source_table;
mod spill;
pub mod sql;
pub mod steps;
mod subject;
mod truncated;

pub use batches::Batches;
pub use catalog::{Queries, Relation, Tables};
pub use change_source::ChangeSource;
pub use execute::{Progress, SplitResult, SplitTask, run_splits};
pub use inside_source::InsideSource;
pub use native::NativeTable;
pub use plan::{StreamPlan, StreamSpec, TablePlan};
pub use query_source::QuerySource;
pub use session::Engine;
pub use shelf::Shelf;
pub use source_table::SourceTable;
