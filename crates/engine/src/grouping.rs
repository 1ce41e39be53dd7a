//! SQL that the parser groups otherwise than databases do.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, Visit, visit_expressions};
use trib_core::{Code, Error, Result};

/// Refuses `a is distinct from b and c`: it is read as `a is distinct from (b and c)` (sqlparser 0.62; mended upstream after it), which may well have a
/// result, and another one than the SQL says.
pub fn check(parsed: &impl Visit) -> Result<()> {
    match visit_expressions(parsed, misread) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn misread(expr: &Expr) -> ControlFlow<Error> {
    let (Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right)) = expr else { return ControlFlow::Continue(()) };
    if !matches!(right.as_ref(), Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. }) {
        return ControlFlow::Continue(());
    }
    let error = Error::new(Code::Unsupported, "the right side of `is distinct from` would take in the `and` or `or` after it")
        .detail(expr.to_string())
        .hint("put the comparison into parentheses: `(a is distinct from b) and c`");
    let at = left.span().start;
    let number = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
    ControlFlow::Break(error.file("", number(at.line), number(at.column)))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn check(sql: &str) -> Result<()> {
        super::check(&Parser::parse_sql(&GenericDialect {}, sql).unwrap())
    }

    #[test]
    fn what_would_be_read_otherwise_is_refused() {
        for sql in [
            "select 1 from t\nwhere a is distinct from b and c",
            "select 1 from t\nwhere a is not distinct from b + 1 or c > 2",
            "select 1 from t\nwhere a is not distinct from b and c is distinct from d",
            "select 1 from t join u on\n  t.a is not distinct from u.a and t.b = u.b",
            "with x as (select\n case when a is distinct from b or true then 1 end from t) select * from x",
        ] {
            let error = check(sql).unwrap_err();
            assert_eq!((error.code(), error.place().line), (Code::Unsupported, Some(2)), "{sql}");
        }
        for sql in [
            "select 1 from t where (a is distinct from b) and c",
            "select 1 from t where c and a is distinct from b",
            "select 1 from t where a is distinct from (b and c)",
            "select a is distinct from b = c, a is not distinct from b, d and e from t",
            "select 1 from t where a is null and b",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }
}
