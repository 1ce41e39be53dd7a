//! One style for the project's files.

use pretty_yaml::config::{FormatOptions, LanguageOptions, LayoutOptions};
use trib_core::{Code, Error, Result};

use crate::model;
use crate::yaml;

const WIDTH: usize = 120;

/// The text in the one style: two spaces, double quotes, no blanks inside braces. Comments and order stay.
///
/// An error has code `config_invalid` when the text is not YAML.
pub fn format_yaml(text: &str) -> Result<String> {
    let before = yaml::parse("", text, 1)?;
    let options = FormatOptions {
        layout: LayoutOptions { print_width: WIDTH, indent_width: 2, ..LayoutOptions::default() },
        language: LanguageOptions {
            trailing_comma: false,
            format_comments: true,
            brace_spacing: false,
            prefer_single_line: true,
            ..LanguageOptions::default()
        },
    };
    let formatted = pretty_yaml::format_text(text, &options)
        .map_err(|e| Error::new(Code::ConfigInvalid, "the file is not YAML that can be formatted").detail(e.message()))?;
    // The formatter is not ours: what it gives must mean the same.
    let after = yaml::parse("", &formatted, 1)?;
    if after.to_json() != before.to_json() {
        return Err(Error::internal("formatting would have changed the file's meaning"));
    }
    Ok(formatted)
}

/// A model with its front matter in the one style; the SQL stays as it is.
pub fn format_model(text: &str) -> Result<String> {
    let parts = model::split(text).ok_or_else(|| Error::new(Code::ConfigInvalid, "the front matter is never closed"))?;
    let Some((front, _)) = parts.front else { return Ok(text.to_owned()) };
    let formatted = format_yaml(front)?;
    Ok(format!("/*---\n{}\n---*/\n{}\n", formatted.trim(), parts.sql.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_style() {
        let cases = [
            ("a:    1\n", "a: 1\n"),
            ("a: { b: 'x' , c: [ 1,2 ] } # note\n", "a: {b: \"x\", c: [1, 2]} # note\n"),
            ("# head\na:\n    - 1\n    -   b: 2\n\n\nc: |\n  text\n   more\n", "# head\na:\n  - 1\n  - b: 2\n\nc: |\n  text\n   more\n"),
        ];
        for (text, expected) in cases {
            let once = format_yaml(text).unwrap();
            assert_eq!(once, expected);
            assert_eq!(format_yaml(&once).unwrap(), once);
        }
        assert_eq!(format_yaml("a: [").unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn front_matter_only() {
        assert_eq!(format_model("/*---\na:   1\n---*/\nselect   1\n").unwrap(), "/*---\na: 1\n---*/\nselect   1\n");
        assert_eq!(format_model("select   1\n").unwrap(), "select   1\n");
    }
}
