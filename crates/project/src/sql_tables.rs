//! Which tables a query reads, by parsing it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use trib_core::{Code, Error, Result, TableName};

/// The tables that a query names, its common table expressions and table functions left out.
///
/// An error has code `config_invalid`, and the line and column within `sql` where the parser stopped.
pub fn tables(sql: &str) -> Result<BTreeSet<TableName>> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|e| syntax(&e))?;
    let invalid = |message| Error::new(Code::ConfigInvalid, message);
    match statements.as_slice() {
        [statement @ Statement::Query(_)] => {
            let mut reads = Reads::default();
            // Nothing breaks the walk off.
            let _ = statement.visit(&mut reads);
            Ok(reads.tables)
        }
        [] => Err(invalid("there is no query")),
        [_] => Err(invalid("the statement is not a query").hint("a model is one `select`")),
        _ => Err(invalid("there is more than one statement").hint("a model is one `select`; use `with` for steps in between")),
    }
}

fn syntax(e: &ParserError) -> Error {
    let text = match e {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply",
    };
    // The parser has no places in its errors but in their text.
    let (text, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse().ok());
    let error = Error::new(Code::ConfigInvalid, "the SQL cannot be parsed").detail(text);
    match numbers.next().flatten() {
        Some(line) => error.file("", Some(line), numbers.next().flatten()),
        None => error,
    }
}

#[derive(Default)]
struct Reads {
    tables: BTreeSet<TableName>,
    /// Names of common table expressions, by the query that declares them, innermost last.
    scopes: Vec<Vec<String>>,
}

impl Visitor for Reads {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.scopes.push(ctes.map(|cte| cte.alias.name.value.to_lowercase()).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor
            && let Some(table) = table_name(name)
        {
            let cte = table.schema.is_none() && self.scopes.iter().flatten().any(|c| *c == table.name.to_lowercase());
            if !cte {
                self.tables.insert(table);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The last two parts of a name; a database before them is left out, since names are logical.
fn table_name(name: &ObjectName) -> Option<TableName> {
    let mut parts = name.0.iter().rev().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str());
    let table = parts.next()?;
    Some(TableName::new(parts.next(), table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_queries() {
        let cases = [
            ("select 1", ""),
            ("select * from raw.orders o join raw.customers c on c.id = o.id", "raw.customers raw.orders"),
            ("with x as (select * from a.b) select * from x join c.d using (id)", "a.b c.d"),
            ("with x as (select 1) select * from (with y as (select * from x) select * from y) z", ""),
            ("select * from x where id in (select id from s.t)", "x s.t"),
            ("select * from \"Odd schema\".\"Odd.table\"", "Odd schema.Odd.table"),
            ("select * from db.s.t union all select * from s.u", "s.t s.u"),
            ("select * from generate_series(1, 3)", ""),
            ("select * from a.x, lateral (select * from a.y) l", "a.x a.y"),
        ];
        for (sql, expected) in cases {
            let found: Vec<String> = tables(sql).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_not_one_query() {
        for (sql, line) in [
            ("select * from a join", None),
            ("select * from a b c", Some(1)),
            ("select 1\nfrm x y z", Some(2)),
            ("", None),
            ("drop table x", None),
            ("select 1; select 2", None),
        ] {
            let error = tables(sql).unwrap_err();
            assert_eq!((error.code(), error.place().line), (Code::ConfigInvalid, line), "{sql}: {error:?}");
        }
    }
}
