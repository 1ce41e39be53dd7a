//! SQL dialects as data, as far as more than one connector needs them.

/// How a system writes identifiers.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub quote: char,
}

/// Double quotes, as the standard says.
pub const ANSI: Dialect = Dialect { quote: '"' };

impl Dialect {
    /// Always quoted, so that case and reserved words never matter.
    pub fn identifier(&self, name: &str) -> String {
        let q = self.quote;
        let doubled = name.replace(q, &format!("{q}{q}"));
        format!("{q}{doubled}{q}")
    }

    pub fn identifiers<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> String {
        names.into_iter().map(|n| self.identifier(n)).collect::<Vec<_>>().join(", ")
    }
}

/// A string literal in standard SQL (`standard_conforming_strings`).
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(ANSI.identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
