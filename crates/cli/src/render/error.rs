//! An error as text.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use trib_core::{Blame, Error, Retry};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();
const FAINT: Style = Style::new().dimmed();

/// The sentence with its detail, then one indented line for each further fact. Colours are taken out on the way to anything that is not a terminal.
pub fn text(error: &Error) -> String {
    text_in(error, "")
}

/// The same of something in a sync, which the error's own place does not name.
pub fn text_in(error: &Error, sync: &str) -> String {
    let mut out = format!("{ERROR}error:{ERROR:#} {}", indented(&error.to_string()));
    let mut fact = |name: &str, style: Style, text: &str| {
        let _ = write!(out, "\n  {style}{name}{style:#} {}", indented(text));
    };
    let sync = if sync.is_empty() { String::new() } else { format!("sync {sync}") };
    let places = [sync, error.place().to_string()];
    let places: Vec<&str> = places.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    if !places.is_empty() {
        fact("at", FAINT, &places.join(", "));
    }
    for cause in error.causes() {
        fact("cause:", FAINT, &cause);
    }
    fact("blame:", FAINT, blame(error.code().blame()));
    fact("retry:", FAINT, retry(error.code().retry()));
    if let Some(hint) = error.hint_text() {
        fact("hint:", HINT, hint);
    }
    out
}

/// Further lines of one fact stand below its first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

fn blame(blame: Blame) -> &'static str {
    match blame {
        Blame::User => "yours",
        Blame::External => "theirs",
        Blame::Internal => "ours",
    }
}

fn retry(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "no",
        Retry::Backoff => "may help after a while",
        Retry::AfterFix => "once it is mended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trib_core::Code;

    #[test]
    fn all_facts() {
        let error = Error::new(Code::NotFound, "the stream has no such column")
            .detail("`curser`")
            .file("syncs/shop.yaml", Some(9), Some(13))
            .connection("shop")
            .stream("public.orders")
            .source(std::io::Error::other("two\nlines"))
            .hint("did you mean `cursor`?");
        let plain = anstream::adapter::strip_str(&text(&error)).to_string();
        insta::assert_snapshot!(plain, @r"
        error: the stream has no such column: `curser`
          at syncs/shop.yaml:9:13, connection shop, stream public.orders
          cause: two
            lines
          blame: yours
          retry: once it is mended
          hint: did you mean `cursor`?
        ");
    }
}
