//! What a retriever does when an API refuses what it is asked for: from the first page again, with smaller pages, or with a narrower window.

use std::time::Duration;

use trib_core::{Code, Error, Result};

use super::cursor::{Observed, WindowRule};
use super::node::Node;
use super::slice::Slice;
use super::span::Span;

/// Halves of halves, at most.
pub(super) const MOST_SPLITS: u32 = 10;

#[derive(Default)]
pub(super) struct Recovery {
    reduction: Option<Reduction>,
    reset: Option<Reset>,
    split: Option<Split>,
}

struct Reduction {
    factor: f64,
    least: i64,
    attempts: u32,
    wait: f64,
    retries_at_least: u32,
    /// A page that succeeds gives the manifest's own size back.
    forgets: bool,
    message: String,
}

struct Reset {
    /// Begin where the cursor is by now.
    by_cursor: bool,
    /// An API that gives no more than so many records for one question.
    most_records: Option<usize>,
}

struct Split {
    least: Option<Span>,
    message: String,
}

/// How it went so far with one slice.
#[derive(Default)]
pub(super) struct Progress {
    /// The page size that is asked for, in place of the manifest's.
    pub(super) size: Option<i64>,
    reductions: u32,
    retries: u32,
    resets: u32,
    records: usize,
    pub(super) seen: Observed,
}

impl Recovery {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let count = |node: &Node<'_>, name: &str, usual: u32| node.integer(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(usual);
        let message = |node: &Node<'_>| node.text("failure_message").unwrap_or_default().trim().to_owned();
        let reduction = match node.get("page_size_reduction") {
            None => None,
            Some(own) => {
                let factor = own.number("reduction_factor").unwrap_or(2.0);
                let least = own.integer("minimum_page_size").unwrap_or(1);
                if factor <= 1.0 || least < 1 {
                    return Err(own.wrong("`reduction_factor` is greater than 1, and `minimum_page_size` at least 1"));
                }
                Some(Reduction {
                    factor,
                    least,
                    attempts: count(&own, "max_attempts", 5),
                    wait: own.number("backoff_seconds").unwrap_or(0.5).clamp(0.0, 3600.0),
                    retries_at_least: count(&own, "retries_at_minimum_page_size", 0),
                    forgets: own.text("reset_policy") == Some("AFTER_SUCCESSFUL_PAGE"),
                    message: message(&own),
                })
            }
        };
        let reset = node.get("pagination_reset").map(|own| Reset {
            by_cursor: own.text("action") == Some("SPLIT_USING_CURSOR"),
            most_records: own.get("limits").and_then(|l| l.integer("number_of_records")).and_then(|n| usize::try_from(n).ok()),
        });
        let split = match node.get("request_window_splitting") {
            None => None,
            Some(own) => {
                let least = own.text("min_split_window").map(|text| {
                    Span::parse(text).ok_or_else(|| own.wrong("`min_split_window` is a duration such as P1D").detail(text.to_owned()))
                });
                Some(Split { least: least.transpose()?, message: message(&own) })
            }
        };
        Ok(Self { reduction, reset, split })
    }

    pub(super) fn reduces(&self) -> bool {
        self.reduction.is_some()
    }

    /// A page was read. Whether the API will give no more for this question.
    pub(super) fn page_read(&self, progress: &mut Progress, records: usize) -> bool {
        if let Some(reduction) = &self.reduction {
            (progress.reductions, progress.retries) = (0, 0);
            if reduction.forgets {
                progress.size = None;
            }
        }
        progress.records += records;
        self.reset.as_ref().and_then(|r| r.most_records).is_some_and(|most| progress.records >= most)
    }

    /// Whether the cursor decides where to go on after a reset, so that it has to see the records.
    pub(super) fn resets_by_cursor(&self) -> bool {
        self.reset.as_ref().is_some_and(|r| r.by_cursor)
    }

    /// The slice with which reading starts over. Without progress that is allowed once.
    pub(super) fn restart(&self, progress: &mut Progress, rule: Option<&WindowRule>, original: &Slice, current: &Slice) -> Result<Slice> {
        let rule = rule.filter(|_| self.resets_by_cursor());
        let next =
            rule.map_or_else(|| current.clone(), |rule| rule.from_seen(original, &progress.seen).unwrap_or_else(|| original.clone()));
        let most = if rule.is_some() { 1 } else { 2 };
        progress.resets = if next.is(current) { progress.resets + 1 } else { 0 };
        progress.records = 0;
        if progress.resets >= most {
            return Err(Error::new(Code::SystemError, "the API asks to start over again and again, without any progress"));
        }
        Ok(next)
    }

    /// Asks for smaller pages from now on, and says how long to wait first. `why` is what the API said.
    pub(super) fn smaller(&self, progress: &mut Progress, configured: Option<i64>, why: &str) -> Result<Duration> {
        let Some(reduction) = &self.reduction else {
            return Err(Error::new(
                Code::ConfigInvalid,
                "a response filter asks for smaller pages, and the retriever has no `page_size_reduction`",
            ));
        };
        let Some(size) = progress.size.or(configured) else {
            return Err(Error::new(Code::ConfigInvalid, "pages cannot become smaller, since the paginator names no `page_size`"));
        };
        let refused = |what: &'static str| {
            let parts = [format!("{size} records a page"), why.to_owned(), reduction.message.clone()];
            Error::new(Code::Unavailable, what).detail(parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": "))
        };
        let smaller = ((size as f64 / reduction.factor) as i64).max(reduction.least);
        let waits = |times: u32| Ok(Duration::from_secs_f64(reduction.wait * f64::from(times)));
        if smaller < size {
            progress.reductions += 1;
            if progress.reductions > reduction.attempts {
                return Err(refused("the API refuses pages of every size that was tried"));
            }
            progress.size = Some(smaller);
            return waits(progress.reductions);
        }
        if progress.retries < reduction.retries_at_least {
            progress.retries += 1;
            return waits(progress.retries);
        }
        if progress.size.is_none() && reduction.least > 1 {
            return Err(Error::new(
                Code::ConfigInvalid,
                "pages cannot become smaller: `page_size` is not greater than `minimum_page_size`",
            ));
        }
        Err(refused("the API refuses even the smallest pages"))
    }

    /// The slice's window in two halves.
    pub(super) fn halves(&self, rule: Option<&WindowRule>, slice: &Slice, depth: u32, why: &str) -> Result<[Slice; 2]> {
        let Some(split) = &self.split else {
            return Err(Error::new(
                Code::ConfigInvalid,
                "a response filter asks for a narrower window, and the retriever has no `request_window_splitting`",
            ));
        };
        let Some(rule) = rule else {
            return Err(Error::new(Code::ConfigInvalid, "`request_window_splitting` needs a cursor with `cursor_granularity`"));
        };
        let halves = if depth >= MOST_SPLITS { None } else { rule.halves(slice, split.least) };
        halves.ok_or_else(|| {
            let parts: Vec<&str> = [why, &split.message].into_iter().filter(|p| !p.is_empty()).collect();
            Error::new(Code::Unavailable, "the API refuses even the narrowest window").detail(parts.join(": "))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recovery(retriever: &serde_json::Value) -> Recovery {
        Recovery::build(&Node::new(retriever, "r")).unwrap()
    }

    #[test]
    fn pages_become_smaller_until_they_cannot() {
        let own = recovery(
            &json!({"page_size_reduction": {"minimum_page_size": 30, "max_attempts": 5, "retries_at_minimum_page_size": 1, "failure_message": "narrow it"}}),
        );
        let mut progress = Progress::default();
        let mut sizes = Vec::new();
        let error = loop {
            match own.smaller(&mut progress, Some(100), "too big") {
                Ok(wait) => sizes.push((progress.size, wait.as_millis())),
                Err(error) => break error,
            }
        };
        assert_eq!(sizes, [(Some(50), 500), (Some(30), 1000), (Some(30), 500)]);
        assert!(error.to_string().contains("too big: narrow it"), "{error}");
        assert_eq!(error.code(), Code::Unavailable);
        let keeps = recovery(&json!({"page_size_reduction": {"max_attempts": 1}}));
        let mut progress = Progress::default();
        for _ in 0..3 {
            keeps.smaller(&mut progress, Some(100), "").unwrap();
            keeps.page_read(&mut progress, 1);
        }
        assert_eq!(progress.size, Some(12), "a page that succeeds gives new attempts, not the old size");
        assert!(keeps.smaller(&mut Progress::default(), None, "").is_err());
    }

    #[test]
    fn starting_over_without_progress_is_allowed_once() {
        let slice = Slice::default();
        let mut progress = Progress::default();
        let own = Recovery::default();
        assert!(own.restart(&mut progress, None, &slice, &slice).is_ok());
        assert!(own.restart(&mut progress, None, &slice, &slice).is_err());
        let limited = recovery(&json!({"pagination_reset": {"action": "RESET", "limits": {"number_of_records": 3}}}));
        let mut progress = Progress::default();
        assert_eq!([1, 1, 1].map(|n| limited.page_read(&mut progress, n)), [false, false, true]);
    }
}
