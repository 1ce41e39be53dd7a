//! How things look to people.

pub mod amount;
pub mod error;
pub mod name;
pub mod plan;
pub mod progress;
pub mod rows;
pub mod summary;
pub mod table;
pub mod verdicts;
