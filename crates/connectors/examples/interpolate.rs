//! The template engine of declarative connectors, one case a line: JSON in, JSON out. For comparing it with another implementation.
//!
//! ```text
//! echo '{"kind": "string", "template": "{{ config.n + 1 }}", "context": {"config": {"n": 1}}}' | interpolate
//! {"value":2}
//! ```

use std::io::{self, BufRead, Write};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let case = serde_json::from_str(&line?)?;
        writeln!(out, "{}", trib_connectors::manifest::interpolate(&case))?;
    }
    Ok(())
}
