//! JSON: one document, documents one after the other, or one per line. Nesting is kept.

pub mod read;
mod records;
mod shape;
pub mod write;

pub use shape::Shape;
