//! The table at the end of a run.

use crate::render::amount::{self, count, duration};
use crate::render::error;
use crate::render::name::node;
use crate::render::table::{left, render, right};
use crate::summary::Summary;
use std::fmt::Write as _;
use trib_core::RejectedRow;

/// Streams with their counts, then schema changes, what was left out, errors in full, and one line for all.
pub fn text(summary: &Summary, run: &str, width: Option<usize>) -> String {
    let mut out = String::new();
    if !summary.streams.is_empty() {
        let columns = [
            left("stream"),
            left("mode"),
            right("read"),
            right("new"),
            right("updated"),
            right("deleted"),
            right("rejected"),
            right("time"),
            left(""),
        ];
        let rows: Vec<Vec<String>> = summary
            .streams
            .iter()
            .map(|s| {
                vec![
                    node(&s.sync, &s.stream),
                    format!("{} → {}", s.read, s.write),
                    count(s.counts.read),
                    count(s.counts.written),
                    count(s.counts.updated),
                    count(s.counts.deleted),
                    count(s.counts.rejected),
                    duration(s.took),
                    if s.error.is_some() { "failed".to_owned() } else { String::new() },
                ]
            })
            .collect();
        out.push_str(&render(&columns, &rows, width));
    }
    for stream in &summary.streams {
        for change in &stream.changes {
            let _ = writeln!(out, "{}: {change}", node(&stream.sync, &stream.stream));
        }
    }
    out.push_str(&rejected(summary));
    for view in &summary.views {
        let _ = writeln!(out, "{view}: a view, right as it is written");
    }
    for command in &summary.commands {
        let _ = writeln!(out, "{command}: has ended well");
    }
    out.push_str(&super::verdicts::text(&summary.tests));
    for (node, reason) in &summary.skipped {
        let _ = writeln!(out, "{node}: left out, {reason}");
    }
    for failure in &summary.errors {
        out.push_str(&error::text(failure));
        out.push('\n');
    }
    for (stream, failure) in summary.streams.iter().filter_map(|s| Some((s, s.error.as_ref()?))) {
        out.push_str(&error::text_in(failure, &stream.sync));
        out.push('\n');
    }
    out.push_str(&last_line(summary, run));
    out
}

/// Where the rows are that were not taken: listed, shown right here, or gone with their load.
fn rejected(summary: &Summary) -> String {
    let count = |failed: bool| summary.streams.iter().filter(|s| s.error.is_some() == failed).map(|s| s.counts.rejected).sum::<u64>();
    let mut out = String::new();
    match (count(false), summary.rejected.as_slice()) {
        (0, _) => {}
        (kept, []) => {
            let _ = writeln!(out, "{} rejected: `trib rejected list` shows them with their reasons", amount::rows(kept));
        }
        (kept, shown) => {
            let _ = writeln!(out, "{} rejected:", amount::rows(kept));
            for RejectedRow { place, reason, .. } in shown {
                let _ = writeln!(out, "  {place}{}{reason}", if place.is_empty() { "" } else { ": " });
            }
            if kept > shown.len() as u64 {
                let _ = writeln!(out, "  … and {} more", amount::count(kept - shown.len() as u64));
            }
        }
    }
    let lost = count(true);
    if lost > 0 {
        let _ =
            writeln!(out, "{} rejected by streams that failed: those of a load that was not published are not kept", amount::rows(lost));
    }
    out
}

fn last_line(summary: &Summary, run: &str) -> String {
    let failed = summary.failures().count();
    let mut parts = vec![format!("{} succeeded", summary.succeeded())];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if !summary.skipped.is_empty() {
        parts.push(format!("{} left out", summary.skipped.len()));
    }
    format!("run {run}: {}, {}", parts.join(", "), duration(summary.took))
}
