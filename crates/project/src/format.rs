//! One style for the project's files.

use std::path::Path;

use pretty_yaml::config::{FormatOptions, LanguageOptions, LayoutOptions};
use trib_core::{Code, Error, Result};

use crate::files::{self, Text};
use crate::{load, model, yaml};

const WIDTH: usize = 120;

/// The project's files that are not in the one style, each with its text as it should be. Changes nothing.
pub fn changes(dir: &Path) -> Result<Vec<(String, String)>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut texts: Vec<Text> = Vec::new();
    for name in [load::MAIN, load::CONNECTIONS] {
        match files::read(dir, name) {
            Ok(text) => texts.extend(text),
            Err(e) => errors.push(e),
        }
    }
    for folder in ["connections", "syncs", "commands", "jobs", "tests"] {
        texts.extend(files::read_all(dir, folder, load::YAML, false, &mut errors));
    }
    let mut models = files::read_all(dir, "models", &["sql"], true, &mut errors);
    models.extend(files::read_all(dir, "macros", &["sql"], false, &mut errors));
    let yaml = texts.iter().map(|t| (t, format_named(&t.name, &t.text, 1)));
    let sql = models.iter().map(|t| (t, format_model(&t.name, &t.text)));
    let mut changed = Vec::new();
    for (text, formatted) in yaml.chain(sql) {
        match formatted {
            Ok(formatted) if formatted == text.text => {}
            Ok(formatted) => changed.push((text.name.clone(), formatted)),
            Err(e) => errors.push(e),
        }
    }
    if errors.is_empty() { Ok(changed) } else { Err(errors) }
}

/// The text in the one style: two spaces, double quotes, no blanks inside braces. Comments and order stay.
///
/// An error has code `config_invalid` when the text is not YAML.
pub fn format_yaml(text: &str) -> Result<String> {
    format_named("", text, 1)
}

fn format_named(file: &str, text: &str, first_line: usize) -> Result<String> {
    let before = yaml::parse(file, text, first_line)?;
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
    let formatted = pretty_yaml::format_text(text, &options).map_err(|e| {
        let line = first_line + text.get(..e.offset()).map_or(0, |before| before.matches('\n').count());
        Error::new(Code::ConfigInvalid, "the file is not YAML that can be formatted").detail(e.message()).file(file, Some(line), None)
    })?;
    // The formatter is not ours: what it gives must mean the same.
    let after = yaml::parse(file, &formatted, first_line)?;
    if after.to_json() != before.to_json() {
        return Err(Error::internal("formatting would have changed the file's meaning").file(file, None, None));
    }
    Ok(formatted)
}

/// A model with its front matter in the one style; the SQL stays as it is.
fn format_model(file: &str, text: &str) -> Result<String> {
    let parts =
        model::split(text).ok_or_else(|| Error::new(Code::ConfigInvalid, "the front matter is never closed").file(file, Some(1), None))?;
    let Some((front, line)) = parts.front else { return Ok(text.to_owned()) };
    let formatted = format_named(file, front, line)?;
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
        assert_eq!(format_model("", "/*---\na:   1\n---*/\nselect   1\n").unwrap(), "/*---\na: 1\n---*/\nselect   1\n");
        assert_eq!(format_model("", "select   1\n").unwrap(), "select   1\n");
    }
}
