//! What connectors share. Nothing here knows a connector by name, and nothing here uses DataFusion.

pub mod cause;
pub mod cursor;
pub mod exchange;
pub mod fixture;
pub mod http;
pub mod kept;
pub mod process;
pub mod scrub;
pub mod sql;
pub mod storage;
pub mod tape;
pub mod value;
pub mod vault;
