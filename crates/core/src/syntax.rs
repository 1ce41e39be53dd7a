//! What a SQL parser stumbled over, told as every other error: the word, where it stands, and what probably mends it.

use crate::{Code, Error};

/// Words that hold a query together, for those that are nearly one of them. Shorter ones are near to too many names.
const KEYWORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "group",
    "order",
    "having",
    "join",
    "inner",
    "outer",
    "left",
    "right",
    "union",
    "limit",
    "offset",
    "with",
    "using",
    "between",
    "case",
    "when",
    "then",
    "distinct",
    "over",
    "partition",
];
/// Characters of a word that are shown: it may be a text of any length.
const SHOWN: usize = 40;

/// `said` is the parser's own sentence, as sqlparser writes it: `Expected: X, found: Y at Line: 1, Column: 2`; `sql` is what it has parsed.
///
/// The error has code `config_invalid`, and a line and column within `sql` in a file without a name: who knows the file gives it (see
/// [`Error::within`]).
pub fn error(sql: &str, said: &str) -> Error {
    let said = said.strip_prefix("sql parser error: ").unwrap_or(said);
    let (said, place) = said.rsplit_once(" at Line: ").unwrap_or((said, ""));
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse().ok());
    let (line, column) = numbers.next().flatten().zip(numbers.next().flatten()).unwrap_or_else(|| end(sql));
    let error = Error::new(Code::ConfigInvalid, "the SQL cannot be parsed");
    let error = match said.split_once("found: ") {
        Some((expected, "EOF")) => {
            let expected = expectation(expected);
            let hint = if expected.contains(')') { "a parenthesis is never closed" } else { "something is missing at its end" };
            error.detail(format!("expected {expected}, found the end of the SQL")).hint(hint)
        }
        Some((expected, found)) => {
            let (expected, found) = (expectation(expected), found.trim());
            let shown: String = found.chars().take(SHOWN).collect();
            let more = if shown.len() < found.len() { "…" } else { "" };
            error.detail(format!("expected {expected}, found `{shown}{more}`")).hint(mended(before(sql, line, column), found))
        }
        None if said == "recursion limit exceeded" => {
            error.detail("it is nested too deeply").hint("use `with` for steps in between, or `in (…)` for a long chain of `or`")
        }
        None => error.detail(lowered(said.trim_end_matches('.'))).hint(closed(said)),
    };
    if sql.is_empty() && place.is_empty() { error } else { error.file("", Some(line), Some(column)) }
}

fn expectation(said: &str) -> String {
    let said = said.trim_start_matches("Expected").trim_start_matches(':').trim().trim_end_matches(',').trim_end_matches(" but");
    match said {
        "end of statement" => "the end of the statement".to_owned(),
        "end of expression" | "EOF" => "the end of the expression".to_owned(),
        "an SQL statement" => "a SQL statement".to_owned(),
        said if said.len() < 3 => format!("`{said}`"),
        said => said.to_owned(),
    }
}

/// What most likely has to be done about a word that cannot stand where it stands.
fn mended(before: &str, found: &str) -> String {
    let before = before.trim_end();
    let last = before.rsplit(|c: char| !part(c)).next().unwrap_or_default();
    // What is quoted or qualified is a name.
    let is_name = before[..before.len() - last.len()].ends_with(['.', '"', '`']);
    let meant = |word: &str| {
        let lower = word.to_lowercase();
        let singular = lower.strip_suffix('s').unwrap_or(&lower);
        let known = KEYWORDS.contains(&lower.as_str()) || KEYWORDS.contains(&singular);
        KEYWORDS.iter().find(|k| !known && strsim::damerau_levenshtein(&lower, k) == 1)
    };
    if let Some(keyword) = meant(found) {
        return format!("did you mean `{keyword}`?");
    }
    if let Some(keyword) = meant(last).filter(|_| !is_name) {
        return format!("did you mean `{keyword}` where `{last}` stands?");
    }
    let is_keyword = KEYWORDS.contains(&found.to_lowercase().as_str());
    if is_keyword && before.ends_with(',') {
        return "there is a comma too many before it".to_owned();
    }
    if is_keyword {
        return format!("something is missing before it; a name that is also a word of SQL stands in double quotes: `\"{found}\"`");
    }
    "something before it is missing or too many: an operator, a comma, a parenthesis, a quote".to_owned()
}

/// What is begun and never closed.
fn closed(said: &str) -> &'static str {
    if said.contains("comment") {
        "the comment is never closed: `*/` ends it"
    } else if said.contains("Unterminated") || said.contains("delimiter") {
        "the quote is never closed; one within a text or a name is doubled"
    } else {
        "look at what stands there and just before it"
    }
}

fn part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn lowered(said: &str) -> String {
    let mut chars = said.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => said.to_owned(),
    }
}

/// The line and column behind the last word.
fn end(sql: &str) -> (usize, usize) {
    let sql = sql.trim_end();
    (1 + sql.matches('\n').count(), 1 + sql.rsplit('\n').next().unwrap_or_default().chars().count())
}

/// The text before a place in it.
fn before(sql: &str, line: usize, column: usize) -> &str {
    let lines: usize = sql.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let at = sql[lines..].char_indices().nth(column.saturating_sub(1)).map_or(sql.len(), |(i, _)| lines + i);
    &sql[..at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parser_says_is_told_in_one_form() {
        let cases = [
            (
                "select *\nform t x",
                "Expected: end of statement, found: x at Line: 2, Column: 8",
                "expected the end of the statement, found `x`",
                "something before it",
                "SQL:2:8",
            ),
            (
                "select * form t x",
                "Expected: end of statement, found: form at Line: 1, Column: 10",
                "expected the end of the statement, found `form`",
                "did you mean `from`?",
                "SQL:1:10",
            ),
            (
                "select 1 whre x",
                "Expected: end of statement, found: x at Line: 1, Column: 15",
                "expected the end of the statement, found `x`",
                "did you mean `where` where `whre` stands?",
                "SQL:1:15",
            ),
            (
                "select * from o.orders 5",
                "Expected: end of statement, found: 5 at Line: 1, Column: 24",
                "found `5`",
                "something before it",
                "SQL:1:24",
            ),
            (
                "select (\n  1\n\n",
                "sql parser error: Expected: ), found: EOF",
                "expected `)`, found the end of the SQL",
                "a parenthesis",
                "SQL:2:4",
            ),
            ("select ß and", "Expected: an expression, found: EOF", "found the end of the SQL", "missing at its end", "SQL:1:13"),
            ("select 'a", "Unterminated string literal at Line: 1, Column: 8", "unterminated string literal", "the quote", "SQL:1:8"),
            (
                "select a, from",
                "Expected: an expression, found: from at Line: 1, Column: 11",
                "found `from`",
                "a comma too many",
                "SQL:1:11",
            ),
            ("x", "recursion limit exceeded", "nested too deeply", "use `with`", "SQL:1:2"),
            ("", "Cannot parse 1e999 as f64", "cannot parse 1e999 as f64", "look at", ""),
        ];
        for (sql, said, detail, hint, place) in cases {
            let error = error(sql, said);
            assert_eq!(error.code(), Code::ConfigInvalid);
            assert!(error.to_string().contains(detail), "{said}: {error}");
            assert!(error.hint_text().is_some_and(|h| h.contains(hint)), "{said}: {:?}", error.hint_text());
            assert_eq!(error.place().to_string(), place, "{said}");
        }
        let long = error("x", &format!("Expected: y, found: '{}' at Line: 1, Column: 1", "secret ".repeat(100)));
        assert!(long.to_string().len() < 120, "{long}");
    }
}
