//! Changes of columns for which SQLite has no statement: the table is made again under its `CREATE TABLE` text, edited, and its rows are
//! copied. Whatever else stands in that text, and the table's indexes and triggers, stay as they are.
//!
//! The procedure is SQLite's own: <https://www.sqlite.org/lang_altertable.html#otheralter>.

use arrow::datatypes::{DataType, TimeUnit};
use rusqlite::Connection;
use trib_core::{Code, Error, Result};

use super::database::{quoted, quoted_all};
use super::kind::Kind;
use super::table::describe;

/// One edit of a column's definition.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    Widen { column: String, to: Kind },
    DropNotNull { column: String },
}

/// Makes the table again with these edits. Inside a transaction, with foreign keys off and `legacy_alter_table` on.
pub fn rebuild(connection: &Connection, table: &str, edits: &[Edit]) -> Result<rusqlite::Result<()>> {
    const NEW: &str = "_trib_rebuilt";
    let described = describe(connection, table).ok().flatten().ok_or_else(|| Error::internal("the table to rebuild is gone"))?;
    let sql: rusqlite::Result<String> =
        connection.query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1", [&described.name], |r| r.get(0));
    let sql = match sql {
        Ok(sql) => sql,
        Err(e) => return Ok(Err(e)),
    };
    let edited = edit_create_table(&sql, NEW, edits).ok_or_else(|| cannot(table).detail(sql))?;
    let mut values = Vec::new();
    let mut names = Vec::new();
    for column in described.columns.iter().filter(|c| !c.generated) {
        names.push(column.name.as_str());
        let widened = edits.iter().find_map(|edit| match edit {
            Edit::Widen { column: name, to } if name.eq_ignore_ascii_case(&column.name) => Some(to),
            _ => None,
        });
        values.push(match widened {
            Some(to) => {
                let from = Kind::of_declaration(&column.declared);
                conversion(&from, to, &quoted(&column.name)).ok_or_else(|| cannot(table).detail(column.name.clone()))?
            }
            None => quoted(&column.name),
        });
    }
    let old = quoted(&described.name);
    let run = || -> rusqlite::Result<()> {
        let kept = attached_objects(connection, &described.name)?;
        connection.execute_batch(&format!(
            "{edited}; INSERT INTO main.{NEW} ({}) SELECT {} FROM main.{old}; DROP TABLE main.{old}; ALTER TABLE main.{NEW} RENAME TO {old};",
            quoted_all(names.iter().copied()),
            values.join(", "),
        ))?;
        kept.iter().try_for_each(|sql| connection.execute_batch(sql))
    };
    Ok(run())
}

/// The statements that make a table's indexes and triggers.
pub fn attached_objects(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT sql FROM main.sqlite_schema WHERE type IN ('index', 'trigger') AND tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL ORDER BY type, name",
    )?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn cannot(table: &str) -> Error {
    Error::new(Code::Unsupported, "the table's column cannot be changed")
        .stream(table)
        .hint("change it by hand, or set `contract: {type_changes: reject_row}`")
}

/// The SQL that makes a stored value of one kind what the wider kind would have stored.
fn conversion(from: &Kind, to: &Kind, column: &str) -> Option<String> {
    let zeros = |digits: usize| "0".repeat(digits);
    let padded = |text: &str, scale: usize, missing: usize| match (scale, missing) {
        (_, 0) => text.to_owned(),
        (0, n) => format!("{text} || '.{}'", zeros(n)),
        (_, n) => format!("{text} || '{}'", zeros(n)),
    };
    Some(match (from, to) {
        (Kind::Integer(_), Kind::Integer(_) | Kind::Float64 | Kind::Decimal { text: false, .. })
        | (Kind::Float32, Kind::Float64)
        | (Kind::Decimal { text: false, .. }, Kind::Decimal { text: false, .. }) => column.to_owned(),
        (Kind::Integer(_), Kind::Decimal { scale, .. }) => padded(&format!("CAST({column} AS TEXT)"), 0, *scale as usize),
        // A number of fifteen digits at most, which this prints exactly.
        (Kind::Decimal { text: false, .. }, Kind::Decimal { scale, .. }) => {
            format!("CASE WHEN {column} IS NOT NULL THEN printf('%.{scale}f', {column}) END")
        }
        (Kind::Unsigned64, Kind::Decimal { scale, text: true, .. }) => padded(column, 0, *scale as usize),
        (Kind::Decimal { scale: old, text: true, .. }, Kind::Decimal { scale, text: true, .. }) => {
            padded(column, *old as usize, usize::try_from(*scale - *old).ok()?)
        }
        (Kind::Date(_), Kind::Timestamp { unit, zoned: false, .. }) => padded(&format!("{column} || ' 00:00:00'"), 0, digits(*unit)),
        (Kind::Timestamp { unit: old, zoned: a, .. }, Kind::Timestamp { unit, zoned: b, .. }) if a == b => {
            let body = if *a { format!("substr({column}, 1, length({column}) - 1)") } else { column.to_owned() };
            let padded = padded(&body, digits(*old), digits(*unit).checked_sub(digits(*old))?);
            if *a { format!("{padded} || 'Z'") } else { padded }
        }
        (Kind::Time(old), Kind::Time(unit)) => padded(column, digits(*old), digits(*unit).checked_sub(digits(*old))?),
        (from, to) if from == to => column.to_owned(),
        (Kind::Text { .. }, Kind::Text { .. }) => column.to_owned(),
        _ => return None,
    })
}

fn digits(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The text of a `CREATE TABLE` with another name and these edits. `None` when it cannot be understood.
pub fn edit_create_table(sql: &str, name: &str, edits: &[Edit]) -> Option<String> {
    let tokens = tokens(sql);
    let open = tokens.iter().position(|t| t.text(sql) == "(")?;
    let mut depth = 0;
    let mut pieces: Vec<Vec<Token>> = vec![Vec::new()];
    let mut close = None;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 1 => {
                pieces.push(Vec::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            close = Some(i);
            break;
        }
        if i > open {
            pieces.last_mut()?.push(*token);
        }
    }
    let tail = &sql[tokens[close?].end..];
    let mut loosened = Vec::new();
    for edit in edits {
        let (Edit::Widen { column, .. } | Edit::DropNotNull { column }) = edit;
        let piece = pieces.iter_mut().find(|p| p.first().is_some_and(|t| unquoted(t.text(sql)).eq_ignore_ascii_case(column)))?;
        if matches!(edit, Edit::DropNotNull { .. }) {
            loosened.push(column.as_str());
            drop_not_null(sql, piece);
        }
    }
    let definitions: Vec<String> = pieces
        .iter()
        .map(|piece| {
            let first = piece.first().map(|t| unquoted(t.text(sql))).unwrap_or_default();
            let widened = edits.iter().rev().find_map(|edit| match edit {
                Edit::Widen { column, to } if column.eq_ignore_ascii_case(&first) => Some(to),
                _ => None,
            });
            let is_loose = |column: &str| loosened.iter().any(|l| l.eq_ignore_ascii_case(column));
            // A primary key does not hold NULL; a constraint of its own does.
            let loose = is_loose(&first)
                || (is_keyword(&first, &["PRIMARY", "CONSTRAINT"]) && piece.iter().any(|t| is_loose(&unquoted(t.text(sql)))));
            definition(sql, piece, widened, loose)
        })
        .collect();
    Some(format!("CREATE TABLE {} ({}){tail}", quoted(name), definitions.join(", ")))
}

/// One column or constraint, put together again.
fn definition(sql: &str, piece: &[Token], to: Option<&Kind>, loose: bool) -> String {
    const AFTER_TYPE: [&str; 11] =
        ["CONSTRAINT", "PRIMARY", "NOT", "NULL", "UNIQUE", "CHECK", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED", "AS"];
    let mut out = String::new();
    let mut rest = piece;
    if let Some(kind) = to {
        out = format!("{} {}", piece[0].text(sql), kind.declaration());
        let type_end = piece.iter().skip(1).position(|t| is_keyword(t.text(sql), &AFTER_TYPE));
        rest = type_end.map_or(&[], |end| &piece[end + 1..]);
    }
    let mut before: Option<Token> = None;
    let mut i = 0;
    while i < rest.len() {
        let token = rest[i];
        // What stood apart stands apart.
        if !out.is_empty() && before.is_none_or(|b| b.end < token.start) {
            out.push(' ');
        }
        i += 1;
        if loose && is_keyword(token.text(sql), &["PRIMARY"]) {
            out.push_str("UNIQUE");
            // Its KEY, and what may stand behind a column's PRIMARY KEY but not behind UNIQUE.
            while i < rest.len() && is_keyword(rest[i].text(sql), &["KEY", "ASC", "DESC", "AUTOINCREMENT"]) {
                i += 1;
            }
            before = None;
        } else {
            out.push_str(token.text(sql));
            before = Some(token);
        }
    }
    out
}

/// Takes `[CONSTRAINT name] NOT NULL [ON CONFLICT what]` out.
fn drop_not_null(sql: &str, piece: &mut Vec<Token>) {
    let word = |i: usize, piece: &Vec<Token>| piece.get(i).map(|t| t.text(sql).to_uppercase()).unwrap_or_default();
    while let Some(at) = (0..piece.len()).find(|i| word(*i, piece) == "NOT" && word(i + 1, piece) == "NULL") {
        let end = if word(at + 2, piece) == "ON" { at + 5 } else { at + 2 };
        let start = if at >= 2 && word(at - 2, piece) == "CONSTRAINT" { at - 2 } else { at };
        piece.drain(start..end.min(piece.len()));
    }
}

fn is_keyword(word: &str, keywords: &[&str]) -> bool {
    keywords.iter().any(|k| word.eq_ignore_ascii_case(k))
}

#[derive(Clone, Copy, Debug)]
struct Token {
    start: usize,
    end: usize,
}

impl Token {
    fn text(self, sql: &str) -> &str {
        &sql[self.start..self.end]
    }
}

/// The words, quoted names, literals and signs of a statement, without its spaces and comments.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        let rest = &sql[i..];
        match bytes[i] {
            b if b.is_ascii_whitespace() => {
                i += 1;
                continue;
            }
            b'-' if rest.starts_with("--") => {
                i += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                i += rest.find("*/").map_or(rest.len(), |end| end + 2);
                continue;
            }
            quote @ (b'"' | b'\'' | b'`') => {
                i += 1;
                while i < bytes.len() {
                    if bytes[i] == quote {
                        // A doubled quote stands for itself.
                        if bytes.get(i + 1) != Some(&quote) {
                            break;
                        }
                        i += 1;
                    }
                    i += 1;
                }
                i = (i + 1).min(bytes.len());
            }
            b'[' => i += rest.find(']').map_or(rest.len(), |end| end + 1),
            b if is_word(b) => {
                while i < bytes.len() && is_word(bytes[i]) {
                    i += 1;
                }
            }
            _ => i += 1,
        }
        tokens.push(Token { start, end: i });
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte == b'.' || byte >= 0x80
}

fn unquoted(word: &str) -> String {
    let inner = |word: &str| word[1..word.len().saturating_sub(1).max(1)].to_owned();
    match word.as_bytes().first() {
        Some(b'"') => inner(word).replace("\"\"", "\""),
        Some(b'`') => inner(word).replace("``", "`"),
        Some(b'\'') => inner(word).replace("''", "'"),
        Some(b'[') => inner(word),
        _ => word.to_owned(),
    }
}

/// The Arrow type for a destination column that is declared as this, where its affinity keeps less than the name promises.
pub fn kept_exactly(kind: &Kind) -> DataType {
    match kind {
        Kind::Decimal { precision, scale, text: false } if *precision > 15 && !(*scale == 0 && *precision <= 18) => {
            DataType::Decimal128(15, (*scale).min(7))
        }
        kind => kind.data_type(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_statement_keeps_all_that_is_not_edited() {
        let widen = |column: &str, to: &str| Edit::Widen { column: column.into(), to: Kind::of_declaration(to) };
        let loosen = |column: &str| Edit::DropNotNull { column: column.into() };
        let cases = [
            ("create table t (a INT4, b TEXT)", vec![widen("a", "INTEGER")], "CREATE TABLE \"n\" (a INTEGER, b TEXT)"),
            (
                "CREATE TABLE \"t\"(\"a b\" DECIMAL(10,2) NOT NULL DEFAULT (1+2) CHECK (\"a b\" > 0), -- x, y\n c) STRICT",
                vec![widen("a b", "DECIMAL(12,2)"), loosen("A B")],
                "CREATE TABLE \"n\" (\"a b\" DECIMAL(12,2) DEFAULT (1+2) CHECK (\"a b\" > 0), c) STRICT",
            ),
            (
                "CREATE TABLE t ([id] INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, x 'odd, name')",
                vec![loosen("id")],
                "CREATE TABLE \"n\" ([id] INTEGER UNIQUE, x 'odd, name')",
            ),
            (
                "CREATE TABLE t (a INT4 CONSTRAINT c NOT NULL ON CONFLICT FAIL, b, PRIMARY KEY (a, b))",
                vec![loosen("a")],
                "CREATE TABLE \"n\" (a INT4, b, UNIQUE (a, b))",
            ),
            ("CREATE TABLE t (a /* none */)", vec![widen("a", "DOUBLE")], "CREATE TABLE \"n\" (a DOUBLE)"),
        ];
        for (sql, edits, expected) in cases {
            assert_eq!(edit_create_table(sql, "n", &edits).as_deref(), Some(expected), "{sql}");
        }
        assert_eq!(edit_create_table("CREATE TABLE t (a)", "n", &[loosen("b")]), None);
    }
}
