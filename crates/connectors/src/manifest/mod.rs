//! Declarative connectors: one interpreter, each manifest a connector.

// What the interpreter of manifests will call.
#[allow(dead_code)]
mod template;

pub use template::interpolate;
