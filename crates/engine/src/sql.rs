//! SQL as people write it: parsed once, refused where it cannot be parsed or would be read otherwise than it says, then planned.

use datafusion::common::DFSchema;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use trib_core::{Error, Result, syntax};

use crate::failure::query_error;
use crate::grouping;

/// One statement. An error has its line and column within `sql` where they are known, in a file without a name (see [`Error::within`]).
pub fn statement(state: &SessionState, sql: &str) -> Result<Statement> {
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(|e| unparsed(sql, e))?;
    if let Statement::Statement(parsed) = &statement {
        grouping::check(parsed.as_ref())?;
    }
    Ok(statement)
}

/// A query that changes nothing, ready to run. `told` says what an error of planning means.
pub async fn frame(context: &SessionContext, sql: &str, told: impl Fn(DataFusionError) -> Error) -> Result<DataFrame> {
    let state = context.state();
    let plan = state.statement_to_plan(statement(&state, sql)?).await.map_err(&told)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(&told)?;
    context.execute_logical_plan(plan).await.map_err(&told)
}

/// An expression over the columns of a schema.
pub fn expression(state: &SessionState, sql: &str, schema: &DFSchema) -> Result<Expr> {
    let dialect = state.config().options().sql_parser.dialect;
    let parsed = state.sql_to_expr_with_alias(sql, &dialect).map_err(|e| unparsed(sql, e))?;
    grouping::check(&parsed.expr)?;
    state.create_logical_expr_from_sql_expr(parsed, schema).map_err(query_error)
}

fn unparsed(sql: &str, e: DataFusionError) -> Error {
    match e.find_root() {
        DataFusionError::SQL(said, _) => syntax::error(sql, &said.to_string()),
        _ => query_error(e),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use trib_core::Code;

    use super::*;
    use crate::session::Engine;

    fn engine() -> (Engine, tempfile::TempDir) {
        let spill = tempfile::tempdir().unwrap();
        (Engine::new(64 << 20, spill.path(), 1).unwrap(), spill)
    }

    #[tokio::test]
    async fn a_query_that_cannot_be_parsed_names_the_word_and_its_place() {
        let (engine, _spill) = engine();
        for (sql, detail, place) in [
            ("select 1\nform t x", "expected the end of the statement, found `t`", "SQL:2:6"),
            ("select 1 +", "expected an expression, found the end of the SQL", "SQL:1:11"),
            ("select 'a", "unterminated string literal", "SQL:1:8"),
            ("selct 1", "expected a SQL statement, found `selct`", "SQL:1:1"),
            ("select {{ x }}", "expected identifier, found `{`", "SQL:1:9"),
            ("select count(* from t", "found `from`", "SQL:1:16"),
        ] {
            let error = frame(&engine.context(), sql, query_error).await.unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid, "{sql}");
            assert!(error.to_string().ends_with(detail), "{sql}: {error}");
            assert_eq!(error.place().to_string(), place, "{sql}: {error}");
            assert!(error.hint_text().is_some(), "{sql}");
        }
    }

    #[test]
    fn an_expression_is_told_as_a_query_is() {
        let (engine, _spill) = engine();
        let schema = Schema::new(vec![Field::new("a", DataType::Boolean, true), Field::new("b", DataType::Boolean, true)]);
        for (sql, code, place) in [
            ("a > and 1", Code::ConfigInvalid, "SQL:1:9"),
            ("a = (1", Code::ConfigInvalid, "SQL:1:7"),
            ("a\n  and c", Code::ConfigInvalid, "SQL:2:7"),
            ("a is distinct from b and a", Code::Unsupported, "SQL:1:1"),
        ] {
            let error = engine.expression(sql, &schema).unwrap_err();
            assert_eq!((error.code(), error.place().to_string().as_str()), (code, place), "{sql}: {error}");
            assert!(!error.to_string().contains("Error"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_changes_something_is_no_query() {
        let (engine, _spill) = engine();
        for sql in ["create table t as select 1", "copy (select 1) to '/nowhere.csv'", "set datafusion.execution.batch_size = 1"] {
            assert!(frame(&engine.context(), sql, query_error).await.is_err(), "{sql}");
        }
    }
}
