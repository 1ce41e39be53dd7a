//! Which tables a query reads, and where it names them, by parsing it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{Ident, ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};
use trib_core::{Code, Error, Result, TableName, syntax};

use crate::data_test::{ident, quoted};

/// A place where a query names a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The first of three parts: the connection that the table is in.
    pub connection: Option<String>,
    pub table: TableName,
    /// One-based, within the SQL.
    pub line: usize,
    /// One-based, in characters.
    pub column: usize,
    /// The name in the text, in bytes.
    text: std::ops::Range<usize>,
    /// It has no other name in the query: columns may be qualified by its own.
    bare: bool,
}

impl Mention {
    /// A table that is named outside of a query.
    pub(crate) fn at(name: &str, line: usize, column: usize) -> Self {
        let (connection, table) = match name.split('.').collect::<Vec<_>>().as_slice() {
            [connection, schema, name] => (Some((*connection).to_owned()), TableName::new(Some(schema), name)),
            _ => (None, TableName::parse(name)),
        };
        Self { connection, table, line, column, text: 0..0, bare: false }
    }

    /// As people name it.
    pub fn name(&self) -> String {
        self.connection.iter().map(|c| format!("{c}.")).collect::<String>() + &self.table.to_string()
    }

    /// As SQL names it.
    pub fn sql(&self) -> String {
        self.connection.iter().map(|c| format!("{}.", ident(c))).collect::<String>() + &quoted(&self.table)
    }
}

/// The tables that a query names. See [`mentions`].
pub fn tables(sql: &str) -> Result<BTreeSet<TableName>> {
    Ok(mentions(sql)?.into_iter().map(|m| m.table).collect())
}

/// The query with its tables under other names; those for which `rename` gives nothing stay. Everything else stays as it is
/// written. A table that is renamed keeps its last name for the columns that are qualified by it.
pub fn renamed(sql: &str, rename: impl Fn(&TableName) -> Option<String>) -> Result<String> {
    let mut found = mentions(sql)?;
    found.sort_by_key(|m| m.text.start);
    let mut result = String::with_capacity(sql.len());
    let mut done = 0;
    for mention in found {
        let Some(name) = rename(&mention.table) else { continue };
        result.push_str(&sql[done..mention.text.start]);
        result.push_str(&name);
        if mention.bare {
            result.push_str(&format!(" as \"{}\"", mention.table.name.replace('"', "\"\"")));
        }
        done = mention.text.end;
    }
    result.push_str(&sql[done..]);
    Ok(result)
}

/// Where a query names tables, its common table expressions and table functions left out.
///
/// An error has code `config_invalid`; one of the parser's has its place within `sql` (see [`syntax::error`]).
pub fn mentions(sql: &str) -> Result<Vec<Mention>> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|e| syntax::error(sql, &e.to_string()))?;
    let invalid = |message| Error::new(Code::ConfigInvalid, message);
    match statements.as_slice() {
        [statement @ Statement::Query(_)] => {
            let mut reads = Reads { sql, ..Reads::default() };
            // Nothing breaks the walk off.
            let _ = statement.visit(&mut reads);
            Ok(reads.found)
        }
        [] => Err(invalid("there is no query")),
        [_] => Err(invalid("the statement is not a query").hint("it is one `select`")),
        _ => Err(invalid("there is more than one statement").hint("it is one `select`; use `with` for steps in between")),
    }
}

/// An error unless the text is one SQL expression.
pub fn check_expression(sql: &str) -> Result<()> {
    let wrong = |e: ParserError| syntax::error(sql, &e.to_string());
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql).map_err(wrong)?;
    parser.parse_expr().and_then(|_| parser.expect_token(&Token::EOF)).map(drop).map_err(wrong)
}

#[derive(Default)]
struct Reads<'a> {
    sql: &'a str,
    found: Vec<Mention>,
    /// Names of common table expressions, by the query that declares them, innermost last.
    scopes: Vec<Vec<String>>,
}

impl Visitor for Reads<'_> {
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
        if let TableFactor::Table { name, args: None, alias, .. } = factor
            && let Some(table) = table_name(name)
        {
            let cte = table.schema.is_none() && self.scopes.iter().flatten().any(|c| *c == table.name.to_lowercase());
            let idents: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
            if !cte && let (Some(first), Some(last)) = (idents.first(), idents.last()) {
                let (start, end) = (first.span.start, last.span.end);
                let connection = idents.len().checked_sub(3).and_then(|i| idents.get(i)).map(|ident| ident.value.clone());
                self.found.push(Mention {
                    connection,
                    table,
                    line: usize::try_from(start.line).unwrap_or(1),
                    column: usize::try_from(start.column).unwrap_or(1),
                    text: offset(self.sql, start)..offset(self.sql, end),
                    bare: alias.is_none(),
                });
            }
        }
        ControlFlow::Continue(())
    }
}

/// A place of the tokenizer's, whose columns are characters, in bytes.
fn offset(sql: &str, at: Location) -> usize {
    let line: usize = sql.split_inclusive('\n').take(usize::try_from(at.line).unwrap_or(1).saturating_sub(1)).map(str::len).sum();
    let within = sql[line..].char_indices().nth(usize::try_from(at.column).unwrap_or(1).saturating_sub(1));
    within.map_or(sql.len(), |(i, _)| line + i)
}

/// The last two parts of a name.
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
    fn tables_get_other_names() {
        let physical = |t: &TableName| t.schema.as_ref().map(|s| format!("dev_{s}.{}", t.name));
        let cases = [
            ("select o.id from raw.orders o", "select o.id from dev_raw.orders o"),
            ("select orders.id\nfrom raw.orders, x -- raw.orders", "select orders.id\nfrom dev_raw.orders as \"orders\", x -- raw.orders"),
            ("with x as (select 'ß' from \"raw\".\"t\") select * from x", "with x as (select 'ß' from dev_raw.t as \"t\") select * from x"),
            ("select 1 where 1 in (select id from a.b as c)", "select 1 where 1 in (select id from dev_a.b as c)"),
        ];
        for (sql, expected) in cases {
            assert_eq!(renamed(sql, physical).unwrap(), expected);
        }
        let found = mentions("select 1\nfrom a.b, c.d.e").unwrap();
        assert_eq!((found[0].line, found[0].column), (2, 6));
        assert_eq!(found.iter().map(Mention::name).collect::<Vec<_>>(), ["a.b", "c.d.e"]);
        assert_eq!((found[0].connection.as_deref(), found[1].connection.as_deref()), (None, Some("c")));
    }

    #[test]
    fn what_is_not_one_query() {
        for (sql, line) in [
            ("select * from a join", Some(1)),
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
