//! A plan as text.

use std::fmt::Write;

use serde_json::Value;

use trib_runtime::StreamOutline;

use crate::commands::plan::SyncOutline;
use crate::render::amount::rows;
use crate::render::error;

/// States are shown up to here.
const STATE_CHARS: usize = 120;

pub fn text(plans: &[SyncOutline]) -> String {
    let mut out = String::new();
    for plan in plans {
        if plan.to.is_empty() {
            let _ = writeln!(out, "{}", plan.sync);
        } else {
            let _ = writeln!(out, "{}: {} → {}", plan.sync, plan.from, plan.to);
        }
        if let Some(change) = &plan.change {
            let _ = writeln!(out, "  {change}");
        }
        for loss in &plan.loses {
            let _ = writeln!(out, "  - {loss}");
        }
        for note in &plan.notes {
            let _ = writeln!(out, "  {note}");
        }
        for stream in &plan.streams {
            out.push_str(&one(stream));
        }
        for e in &plan.errors {
            let _ = writeln!(out, "{}", error::text(e));
        }
    }
    let streams: usize = plans.iter().map(|p| p.streams.len()).sum();
    let errors: usize = plans.iter().map(|p| p.errors.len()).sum();
    let wrong = if errors > 0 { format!(", {errors} cannot run") } else { String::new() };
    let _ = write!(out, "{streams} stream{} would run{wrong}; nothing was changed", if streams == 1 { "" } else { "s" });
    out
}

fn one(stream: &StreamOutline) -> String {
    let tables: Vec<&str> = stream.tables.iter().map(|t| t.table.as_str()).collect();
    let mut out = format!("  {} → {}\n", stream.stream, tables.join(", "));
    let key = if stream.key.is_empty() { String::new() } else { format!(" by {}", stream.key.join(", ")) };
    let expected = stream.expected_rows.map(|n| format!(", about {}", rows(n))).unwrap_or_default();
    let _ = writeln!(out, "    {} read, {}{key}{expected}", stream.read, stream.write);
    let _ = writeln!(out, "    from {}", state(stream));
    if let Some(left) = &stream.unfinished {
        let _ = writeln!(out, "    load {} {}", left.load, left.what);
    }
    for table in &stream.tables {
        for change in &table.changes {
            let columns = if table.exists { String::new() } else { format!(" with {} columns", table.columns) };
            let _ = writeln!(out, "    + {}: {change}{columns}", table.table);
        }
        for note in &table.notes {
            let _ = writeln!(out, "    ! {}: {note}", table.table);
        }
        for lossy in &table.lossy {
            let _ = writeln!(out, "    ! {}: {lossy}", table.table);
        }
    }
    for spot in &stream.blind_spots {
        let _ = writeln!(out, "    ? {spot}");
    }
    out
}

/// Where the read begins.
fn state(stream: &StreamOutline) -> String {
    match stream.from_state.stream(&stream.stream) {
        None | Some(Value::Null) => "the beginning".to_owned(),
        Some(Value::Object(map)) if map.is_empty() => "the beginning".to_owned(),
        Some(value) => {
            let text = value.to_string();
            match text.char_indices().nth(STATE_CHARS) {
                Some((end, _)) => format!("state {}…", &text[..end]),
                None => format!("state {text}"),
            }
        }
    }
}
