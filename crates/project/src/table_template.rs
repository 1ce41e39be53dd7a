//! `into:`: the table that a stream goes into, with placeholders.

use trib_core::error::closest;
use trib_core::name::Naming;
use trib_core::{Code, Error, Result, Stream, TableName};

/// `into:` taken apart: what names the schema, if there is one, and what names the table.
pub(crate) struct TableTemplate<'a> {
    schema: Option<Vec<Piece<'a>>>,
    table: Vec<Piece<'a>>,
}

enum Piece<'a> {
    Literal(&'a str),
    Connection,
    Schema,
    Table,
    Stream,
}

impl<'a> TableTemplate<'a> {
    /// The first dot outside of braces parts schema and table.
    pub(crate) fn parse(template: &'a str) -> Result<Self> {
        let (schema, table) = match template.split_once('.') {
            Some((schema, table)) => (Some(pieces(schema)?), pieces(table)?),
            None => (None, pieces(template)?),
        };
        if table.is_empty() || schema.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::new(Code::ConfigInvalid, "the table has no name").detail(template).hint("write `schema.{table}`"));
        }
        Ok(Self { schema, table })
    }

    pub(crate) fn render(&self, connection: &str, stream: &Stream, naming: Naming) -> TableName {
        let text = |pieces: &[Piece<'_>]| -> String {
            let one = |piece: &Piece<'_>| match piece {
                Piece::Literal(text) => (*text).to_owned(),
                Piece::Connection => naming.apply(connection),
                Piece::Schema => stream.schema_name.as_deref().map(|s| naming.apply(s)).unwrap_or_default(),
                Piece::Table => naming.apply(&stream.table),
                Piece::Stream => naming.apply(&stream.name),
            };
            let whole: String = pieces.iter().map(one).collect();
            // A source without schemas leaves their place empty, and the underscore beside it parts nothing.
            let placeless = stream.schema_name.is_none() && pieces.iter().any(|p| matches!(p, Piece::Schema));
            if placeless { whole.trim_matches('_').to_owned() } else { whole }
        };
        TableName::new(self.schema.as_deref().map(text).as_deref(), &text(&self.table))
    }

    /// A glob of the tables that this can name, for edges of the graph.
    pub(crate) fn pattern(&self, connection: &str, naming: Naming) -> String {
        let text = |pieces: &[Piece<'_>]| -> String {
            let one = |piece: &Piece<'_>| match piece {
                Piece::Literal(text) => (*text).to_owned(),
                Piece::Connection => naming.apply(connection),
                Piece::Schema | Piece::Table | Piece::Stream => "*".to_owned(),
            };
            pieces.iter().map(one).collect()
        };
        match &self.schema {
            Some(schema) => format!("{}.{}", text(schema), text(&self.table)),
            None => text(&self.table),
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) =
            after.split_once('}').ok_or_else(|| Error::new(Code::ConfigInvalid, "a placeholder has no `}`").detail(format!("`{text}`")))?;
        if !before.is_empty() {
            pieces.push(Piece::Literal(before));
        }
        pieces.push(match name {
            "connection" => Piece::Connection,
            "schema" => Piece::Schema,
            "table" => Piece::Table,
            "stream" => Piece::Stream,
            other => {
                let error = Error::new(Code::ConfigInvalid, "there is no such placeholder").detail(format!("`{{{other}}}`"));
                return Err(match closest(other, ["connection", "schema", "table", "stream"]) {
                    Some(near) => error.hint(format!("did you mean `{{{near}}}`?")),
                    None => error.hint("`{connection}`, `{schema}`, `{table}` and `{stream}` are understood"),
                });
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let cases = [("raw.{table}", "raw.*"), ("{connection}_{schema}.{table}", "shop_de_*.*"), ("{stream}", "*"), ("a.b.c", "a.b.c")];
        for (template, pattern) in cases {
            assert_eq!(TableTemplate::parse(template).unwrap().pattern("shop-de", Naming::SnakeCase), pattern);
        }
        for wrong in ["", "raw.", ".x", "raw.{tabel}", "{table"] {
            assert_eq!(TableTemplate::parse(wrong).err().map(|e| e.code()), Some(Code::ConfigInvalid), "{wrong}");
        }
    }
}
