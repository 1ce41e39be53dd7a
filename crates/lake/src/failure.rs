//! What the errors of the libraries below mean.

use deltalake::DeltaTableError;
use parquet::errors::ParquetError;
use trib_core::{Code, Error};
use trib_kit::storage;

pub fn delta(e: DeltaTableError, at: &str) -> Error {
    match e {
        DeltaTableError::ObjectStore { source } => storage::error(source, at),
        DeltaTableError::Parquet { source } => parquet(source, at),
        DeltaTableError::Arrow { source } => source.into(),
        DeltaTableError::InvalidVersion(version) => Error::new(Code::NotFound, "the table has no such version")
            .detail(format!("{at}, version {version}"))
            .hint("older versions go away with their retention"),
        other => storage::within(&other, at)
            .unwrap_or_else(|| Error::new(Code::SystemError, "the Delta table could not be read").detail(at).source(other)),
    }
}

pub fn parquet(e: ParquetError, at: &str) -> Error {
    storage::within(&e, at)
        .unwrap_or_else(|| Error::new(Code::SystemError, "a Parquet file could not be read or written").detail(at).source(e))
}
