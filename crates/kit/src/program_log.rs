//! What programs write on standard error: JSON, `key=value`, or Python's usual line.

use serde_json::Value;
use trib_core::{Emitter, Level, Result};

use crate::process::Said;

/// Passes on what a program says, each line as `clean` leaves it.
pub fn passing_on(said: Said, clean: impl Fn(&str) -> String + Send + 'static) -> impl FnMut(&mut Emitter) -> Result<()> + Send + 'static {
    move |out| {
        let (lines, dropped) = said.take();
        for line in lines {
            let (level, text) = read(&line);
            out.log_blocking(level, clean(&text))?;
        }
        if dropped > 0 {
            out.log_blocking(Level::Info, format!("({dropped} more lines were written faster than they could be kept)"))?;
        }
        Ok(())
    }
}

/// A line's level and what it says.
fn read(line: &str) -> (Level, String) {
    if line.starts_with('{')
        && let Ok(Value::Object(object)) = serde_json::from_str::<Value>(line)
    {
        let text = |names: [&str; 3]| names.iter().find_map(|n| object.get(*n)?.as_str()).map(str::to_owned);
        let level = text(["level", "levelname", "severity"]).and_then(|l| level(&l)).unwrap_or(Level::Info);
        return (level, text(["message", "event", "msg"]).unwrap_or_else(|| line.to_owned()));
    }
    // The level stands near the beginning, in capitals.
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty()).take(24);
    let found = words.filter(|w| w.chars().all(|c| c.is_ascii_uppercase())).find_map(level);
    (found.unwrap_or(Level::Info), line.to_owned())
}

fn level(word: &str) -> Option<Level> {
    Some(match word.to_ascii_uppercase().as_str() {
        "DEBUG" | "TRACE" => Level::Debug,
        "INFO" | "NOTICE" => Level::Info,
        "WARN" | "WARNING" => Level::Warn,
        "ERROR" | "CRITICAL" | "FATAL" | "EXCEPTION" => Level::Error,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases = [
            ("2026-01-01 10:00:00,000 | WARNING  | tap-x | slow", Level::Warn),
            ("time=2026-01-01 name=tap level=ERROR message=no", Level::Error),
            (r#"{"level": "error", "event": "no"}"#, Level::Error),
            ("Traceback (most recent call last):", Level::Info),
            ("an error that is only mentioned", Level::Info),
            ("{not json", Level::Info),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line).0, expected, "{line}");
        }
        assert_eq!(read(r#"{"level": "error", "event": "no"}"#).1, "no");
    }
}
