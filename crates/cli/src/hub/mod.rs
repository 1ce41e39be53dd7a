//! Connectors from elsewhere: where a manifest is found, and what taking another version of it means for a project.

pub mod index;
pub mod origin;
pub mod place;
