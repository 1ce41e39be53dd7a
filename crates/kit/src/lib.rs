//! What connectors share. Nothing here knows a connector by name, and nothing here uses DataFusion.

pub mod calendar;
pub mod cause;
pub mod cursor;
pub mod environment;
pub mod exchange;
pub mod feed;
pub mod fixture;
pub mod http;
pub mod journal;
pub mod json;
pub mod kept;
pub mod lines;
pub mod process;
pub mod program_log;
pub mod records;
pub mod relay;
pub mod scrub;
pub mod settings;
pub mod shown;
pub mod spool;
pub mod sql;
pub mod standing;
pub mod storage;
pub mod tape;
pub mod value;
pub mod vault;
