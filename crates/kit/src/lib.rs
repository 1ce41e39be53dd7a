//! What connectors share. Nothing here knows a connector by name, and nothing here uses DataFusion.

pub mod cause;
pub mod cursor;
pub mod http;
pub mod process;
pub mod sql;
pub mod storage;
pub mod tape;
pub mod value;
