//! Connectors from elsewhere and of one's own: where a manifest is found, what taking another version of it means for a project, and how it is tried out.

pub mod bench;
pub mod index;
pub mod origin;
pub mod place;
