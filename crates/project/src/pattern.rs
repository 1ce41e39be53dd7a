//! A name or a glob.

use globset::{GlobBuilder, GlobMatcher};
use trib_core::{Code, Error, Result};

/// `*` takes any characters, `.` and `/` included; `?`, `[a-z]` and `{a,b}` are understood; a backslash takes their meaning away.
/// A pattern always takes the name that it is written like.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: Option<GlobMatcher>,
}

impl Pattern {
    pub fn new(text: &str) -> Result<Self> {
        if !is_glob(text) {
            return Ok(Self { text: text.to_owned(), matcher: None });
        }
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build().map_err(|e| {
            Error::new(Code::ConfigInvalid, "the pattern is not a glob")
                .detail(format!("{text:?}: {}", e.kind()))
                .hint("`*`, `?`, `[a-z]` and `{a,b}` are understood; a backslash takes their meaning away")
        })?;
        Ok(Self { text: text.to_owned(), matcher: Some(glob.compile_matcher()) })
    }

    /// One name, whatever characters it has.
    pub fn literal(name: &str) -> Self {
        Self { text: name.to_owned(), matcher: None }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it can stand for more than itself.
    pub fn is_glob(&self) -> bool {
        self.matcher.is_some()
    }

    pub fn takes(&self, name: &str) -> bool {
        self.text == name || self.matcher.as_ref().is_some_and(|m| m.is_match(name))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_names() {
        let cases = [
            ("public.orders", "public.orders", true),
            ("public.orders", "publicxorders", false),
            ("public.*", "public.orders", true),
            ("public.*", "public.a/b.c", true),
            ("public.*", "Public.orders", false),
            ("*_{log,audit}", "x_audit", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a[1]", "a[1]", true),
            ("a[1]", "a1", true),
        ];
        for (pattern, name, takes) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().takes(name), takes, "{pattern} {name}");
        }
        assert_eq!(Pattern::new("a[").unwrap_err().code(), Code::ConfigInvalid);
    }
}
