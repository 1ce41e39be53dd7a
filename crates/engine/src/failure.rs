//! What an error of DataFusion means, and whose fault it is: one table.

use std::io;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use trib_core::error::closest;
use trib_core::{Code, Error, syntax};
use trib_kit::{cause, storage};

const TOO_LARGE: &str = "filter or aggregate before joining, or do a part in a model of its own; \
                         a join on anything but equal values holds one side whole";

/// An error of ours that went through DataFusion comes out as itself; of the others each is its writer's whose SQL or whose values cannot be computed,
/// the system's that was out of something or has failed under the query, or ours.
///
/// The place is the line and column within the SQL, where they are known, in a file without a name: who knows the file gives it (see
/// [`Error::within`]).
pub fn query_error(e: DataFusionError) -> Error {
    let e = match e {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(other) => DataFusionError::External(other),
        },
        other => other,
    };
    // One that all who have waited for it share.
    if let Some(ours) = cause::find::<Error>(&e) {
        return ours.again();
    }
    if let Some(error) = storage::within(&e, "") {
        return error;
    }
    if let Some(io) = cause::find::<io::Error>(&e) {
        return io::Error::new(io.kind(), io.to_string()).into();
    }
    let error = meaning(e.find_root());
    match e.diagnostic().and_then(|d| d.span).map(|span| span.start) {
        Some(at) => error.file("", usize::try_from(at.line).ok(), usize::try_from(at.column).ok()),
        None => error,
    }
}

fn meaning(root: &DataFusionError) -> Error {
    use DataFusionError as D;
    let (code, message) = match root {
        // What is parsed only while it is planned has no place.
        D::SQL(said, _) => return syntax::error("", &said.to_string()),
        D::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => return unknown_column(field, valid_fields),
            _ => (Code::ConfigInvalid, "the SQL does not fit the tables that it reads"),
        },
        D::Plan(_) => (Code::ConfigInvalid, "the SQL does not fit the tables that it reads"),
        D::NotImplemented(_) => (Code::Unsupported, "this SQL is not supported"),
        D::Execution(_) => (Code::DataInvalid, "the SQL cannot be computed from these values"),
        D::ArrowError(inner, _) => arrow(inner),
        D::External(inner) if inner.to_string().contains("regex parse error") => {
            (Code::DataInvalid, "the SQL cannot be computed from these values")
        }
        D::ResourcesExhausted(_) => (Code::ResourceExhausted, "the query needs more memory or spill space than it may have"),
        D::ParquetError(_) => (Code::SystemError, "a Parquet file could not be read"),
        D::Internal(_) | D::Configuration(_) | D::ExecutionJoin(_) | D::Substrait(_) | D::Ffi(_) => {
            (Code::Internal, "the query engine has made a mistake")
        }
        _ => (Code::SystemError, "the query failed"),
    };
    let error = Error::new(code, message).detail(said(root));
    match code {
        Code::ResourceExhausted => error.hint(TOO_LARGE),
        Code::Internal => error.hint("the query may do when it is written in another way"),
        _ => error,
    }
}

fn arrow(e: &ArrowError) -> (Code, &'static str) {
    use ArrowError as A;
    match e {
        A::CastError(_)
        | A::ParseError(_)
        | A::ComputeError(_)
        | A::DivideByZero
        | A::ArithmeticOverflow(_)
        | A::InvalidArgumentError(_)
        | A::JsonError(_)
        | A::OffsetOverflowError(_) => (Code::DataInvalid, "the SQL cannot be computed from these values"),
        A::NotYetImplemented(_) => (Code::Unsupported, "this SQL is not supported"),
        A::MemoryError(_) => (Code::ResourceExhausted, "the query needs more memory or spill space than it may have"),
        A::SchemaError(_) | A::DictionaryKeyOverflowError | A::RunEndIndexOverflowError | A::CDataInterface(_) => {
            (Code::Internal, "the query engine has made a mistake")
        }
        _ => (Code::SystemError, "the query failed"),
    }
}

/// What DataFusion says, without what kind of error it takes it for, and without where it would have its own mistakes reported.
fn said(root: &DataFusionError) -> String {
    const REPORT: &str = ".\nThis issue was likely caused by a bug in DataFusion's code";
    let text = root.message();
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    let text = text.split(REPORT).next().unwrap_or_default().trim_end().to_owned();
    ["Internal error: ", "Execution error: ", "Error during planning: "].iter().fold(text, |text, kind| text.replace(kind, ""))
}

fn unknown_column(field: &Column, valid: &[Column]) -> Error {
    let error = Error::new(Code::ConfigInvalid, "the SQL names a column that its tables do not have").detail(field.flat_name());
    let names: Vec<&str> = valid.iter().map(Column::name).collect();
    match closest(field.name(), names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None if names.is_empty() => error,
        None => error.hint(format!("there are {}", names.iter().take(12).copied().collect::<Vec<_>>().join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use trib_core::Blame;

    use super::*;
    use crate::session::Engine;

    async fn fails(engine: &Engine, sql: &str) -> Error {
        let result = async { engine.context().sql(sql).await?.collect().await };
        query_error(result.await.expect_err(sql))
    }

    #[tokio::test]
    async fn who_is_to_blame_for_a_query() {
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::new(64 << 20, spill.path(), 1).unwrap();
        let cases = [
            ("selec 1", Code::ConfigInvalid),
            ("select nothing(1)", Code::ConfigInvalid),
            ("select y from (values (1)) t(x)", Code::ConfigInvalid),
            // Of types that do not go together it says that they are a mistake of its own.
            ("select sum(x) from (values ('a')) t(x)", Code::ConfigInvalid),
            ("select 'a' + 1", Code::ConfigInvalid),
            ("select cast('a' as uuid)", Code::Unsupported),
            ("select 1 / 0", Code::DataInvalid),
            ("select x % 0 from (values (1)) t(x)", Code::DataInvalid),
            ("select cast(x as int) from (values ('a')) t(x)", Code::DataInvalid),
            ("select cast(300 as tinyint)", Code::DataInvalid),
            ("select cast(99999 as decimal(4, 2))", Code::DataInvalid),
            ("select abs(x) from (values (cast(-9223372036854775808 as bigint))) t(x)", Code::DataInvalid),
            ("select date_trunc('dya', now())", Code::DataInvalid),
            ("select make_date(2020, 13, 1)", Code::DataInvalid),
            ("select (select x from (values (1), (2)) t(x))", Code::DataInvalid),
            ("select regexp_replace('a', '(', 'b')", Code::DataInvalid),
        ];
        for (sql, code) in cases {
            let error = fails(&engine, sql).await;
            assert_eq!((error.code(), error.code().blame()), (code, Blame::User), "{sql}: {error}");
            for word in ["DataFusion", "Internal", "Error", "Execution"] {
                assert!(!error.to_string().contains(word), "{sql}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn memory_is_the_systems() {
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::new(100_000, spill.path(), 1).unwrap();
        let error =
            fails(&engine, "select count(*) from generate_series(1, 100000) a(x) join generate_series(1, 100000) b(y) on x = y").await;
        assert_eq!((error.code(), error.code().blame()), (Code::ResourceExhausted, Blame::External), "{error}");
        assert!(error.hint_text().is_some());
    }

    #[tokio::test]
    async fn a_disk_that_fails_under_a_query_is_the_systems() {
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::new(1 << 20, spill.path(), 1).unwrap();
        drop(spill);
        let error = fails(&engine, "select x from generate_series(1, 2000000) a(x) order by x % 1000, x").await;
        assert_eq!(error.code().blame(), Blame::External, "{error}");
        let full = DataFusionError::IoError(io::Error::from(io::ErrorKind::StorageFull)).context("spilling");
        assert_eq!(query_error(full).code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_mistake_of_the_engine_is_ours_and_an_error_of_ours_stays_what_it_is() {
        let error = query_error(DataFusionError::Internal("a plan without a schema".into()).context("planning"));
        assert_eq!((error.code(), error.detail_text()), (Code::Internal, Some("a plan without a schema")));
        let ours = || DataFusionError::External(Box::new(Error::new(Code::ContractBroken, "it is gone").hint("look there")));
        let shared = DataFusionError::Shared(std::sync::Arc::new(ours()));
        for e in [ours(), ours().context("reading"), shared, DataFusionError::from(ArrowError::ExternalError(Box::new(ours())))] {
            let error = query_error(e);
            assert_eq!((error.code(), error.hint_text()), (Code::ContractBroken, Some("look there")));
        }
    }
}
