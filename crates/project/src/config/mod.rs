//! The project's files as types. Doc comments on the fields are the published documentation and the text of the JSON Schemas.

pub mod amount;
pub mod command;
pub mod connection;
pub mod delivery;
pub mod job;
pub mod model;
pub mod one_or_many;
pub mod project;
pub mod share;
pub mod stream;
pub mod sync;
pub mod unit_test;
