//! The registry: every connector that is written in Rust, one folder each, one line each. The manifests that come along are in
//! [`manifest::SHIPPED`].

use trib_core::Connector;

#[cfg(feature = "airbyte")]
pub mod airbyte;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "singer")]
pub mod singer;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// All connectors of this crate.
pub fn connectors() -> Vec<Connector> {
    vec![
        #[cfg(feature = "airbyte")]
        airbyte::connector(),
        #[cfg(feature = "files")]
        files::connector(),
        #[cfg(feature = "postgres")]
        postgres::connector(),
        #[cfg(feature = "singer")]
        singer::connector(),
        #[cfg(feature = "sqlite")]
        sqlite::connector(),
    ]
}
