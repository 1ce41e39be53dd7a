//! Plans and executes loads: what happens to rows between a source's split and a destination's stage.
//!
//! [`plan::StreamPlan`] is compiled once per stream and run: row steps ([`steps`]), nesting ([`nest`]), then names, types and
//! contract ([`conform`]). [`execute::run_split`] drives one split through it. SQL is DataFusion's; columns that only pass through never
//! meet it.

pub mod cast;
pub mod conform;
pub mod execute;
pub mod json;
pub mod native;
pub mod nest;
pub mod plan;
pub mod protect;
pub mod rejected;
pub mod session;
pub mod steps;

pub use execute::{Progress, SplitResult, SplitTask, run_split};
pub use native::NativeTable;
pub use plan::{StreamPlan, StreamSpec, TablePlan};
pub use session::Engine;
