//! Records in JSON, the batches that they become, and the JSON Schema that says which.

mod column;
mod decoder;
pub mod schema;
mod value;

pub use self::decoder::{Decoded, Decoder};
pub use self::value::Value;
