//! How long to wait before a request is sent again.

use chrono::{DateTime, Utc};
use regex::Regex;
use serde_json::Value;
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;
use uuid::Uuid;

use super::env::Env;
use super::error_handler::{body_json, headers_value};
use super::node::{Expr, Node};

pub(super) enum Backoff {
    Constant(Expr, f64),
    /// `factor * 2^attempt` seconds, attempts counted from 1.
    Exponential(Option<Expr>, f64),
    WaitTimeFromHeader {
        header: Expr,
        regex: Option<Expr>,
        most: Option<Expr>,
    },
    WaitUntilTimeFromHeader {
        header: Expr,
        regex: Option<Expr>,
        least: Option<Expr>,
        most: Option<Expr>,
    },
    WaitTimeFromResponse {
        seconds: Expr,
        most: Option<Expr>,
    },
}

impl Backoff {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let most = node.expr("max_waiting_time_in_seconds")?;
        let jitter = node.number("jitter_range_in_seconds").unwrap_or(0.0);
        if jitter < 0.0 {
            return Err(node.wrong("`jitter_range_in_seconds` is not negative"));
        }
        Ok(match node.kind() {
            "ConstantBackoffStrategy" => Backoff::Constant(node.need_expr("backoff_time_in_seconds")?, jitter),
            "ExponentialBackoffStrategy" => Backoff::Exponential(node.expr("factor")?, jitter),
            "WaitTimeFromHeader" => Backoff::WaitTimeFromHeader { header: node.need_expr("header")?, regex: node.expr("regex")?, most },
            "WaitUntilTimeFromHeader" => Backoff::WaitUntilTimeFromHeader {
                header: node.need_expr("header")?,
                regex: node.expr("regex")?,
                least: node.expr("min_wait")?,
                most,
            },
            "WaitTimeFromResponse" => Backoff::WaitTimeFromResponse { seconds: node.need_expr("wait_time_in_seconds")?, most },
            _ => return Err(node.unsupported()),
        })
    }

    /// Seconds, if this strategy can tell. An error is that the wait would be longer than the manifest allows.
    pub(super) fn seconds(&self, env: &Env, response: Option<&Response>, attempt: u32) -> Result<Option<f64>> {
        let scope = env.scope();
        let number = |expr: &Expr| -> Result<Option<f64>> { Ok(as_number(&expr.eval(&scope)?)) };
        let optional = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), &number);
        let header = |header: &Expr, regex: &Option<Expr>| -> Result<Option<f64>> {
            let Some(text) = response.and_then(|r| r.header(&header.text(&scope).ok()?)) else { return Ok(None) };
            let pattern = regex.as_ref().map(|r| r.text(&scope)).transpose()?;
            numeric(&text, pattern.as_deref())
        };
        match self {
            Backoff::Constant(expr, jitter) => Ok(number(expr)?.map(|seconds| spread(seconds, *jitter))),
            Backoff::Exponential(factor, jitter) => {
                let seconds = optional(factor)?.unwrap_or(5.0) * 2f64.powi(attempt.min(30) as i32);
                Ok(Some(spread(seconds, *jitter)))
            }
            Backoff::WaitTimeFromHeader { header: name, regex, most } => capped(header(name, regex)?, optional(most)?),
            Backoff::WaitUntilTimeFromHeader { header: name, regex, least, most } => {
                let least = optional(least)?.filter(|s| *s != 0.0);
                let now = Utc::now().timestamp_micros() as f64 / 1e6;
                let wait = match (header(name, regex)?.filter(|s| *s != 0.0), least) {
                    (None, least) => least,
                    (Some(until), Some(least)) => Some((until - now).max(least)),
                    (Some(until), None) => Some(until - now).filter(|wait| *wait >= 0.0),
                };
                capped(wait, optional(most)?)
            }
            Backoff::WaitTimeFromResponse { seconds, most } => {
                let body = response.map(body_json).unwrap_or_default();
                let headers = response.map(headers_value).unwrap_or_default();
                let scope = env.scope().with("response", &body).with_headers("headers", &headers);
                // What this answer does not have is for the next strategy.
                let wait = seconds.eval(&scope).ok().as_ref().and_then(as_number).filter(|s| s.is_finite() && *s >= 0.0);
                capped(wait, optional(most)?)
            }
        }
    }
}

/// Seconds to wait where nobody says: one, two, four and so on, up to a fifth longer.
pub(super) fn growing(attempt: u32) -> f64 {
    let seconds = 2f64.powi(attempt.clamp(1, 12) as i32 - 1);
    spread(seconds, seconds / 10.0)
}

/// Up to twice the jitter longer, so that clients that were refused together do not come back together.
fn spread(seconds: f64, jitter: f64) -> f64 {
    // The low half of a random UUID is random but for its first two bits.
    let random = Uuid::new_v4().as_u64_pair().1 & ((1 << 53) - 1);
    seconds + 2.0 * jitter * (random as f64 / (1u64 << 53) as f64)
}

/// Seconds that a server asks to wait for, as a number or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(response: &Response) -> Option<f64> {
    numeric(&response.header("retry-after")?, None).ok().flatten().filter(|s| s.is_finite() && *s >= 0.0)
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A header's number; the part at its beginning that matches, where a pattern is given. A date is the seconds until then.
fn numeric(text: &str, pattern: Option<&str>) -> Result<Option<f64>> {
    let mut text = text.trim();
    if let Some(pattern) = pattern {
        let regex = Regex::new(&format!("^(?:{pattern})"))
            .map_err(|e| Error::new(Code::ConfigInvalid, "the pattern for a header is not right").source(e))?;
        text = regex.find(text).map_or(text, |m| m.as_str());
    }
    if let Ok(date) = DateTime::parse_from_rfc2822(text) {
        return Ok(Some((date.with_timezone(&Utc) - Utc::now()).num_seconds().max(0) as f64));
    }
    Ok(text.parse().ok())
}

fn capped(wait: Option<f64>, most: Option<f64>) -> Result<Option<f64>> {
    match (wait, most) {
        (Some(wait), Some(most)) if wait >= most && wait > 0.0 => {
            Err(Error::new(Code::RateLimited, "the API asks for a longer wait than the manifest allows")
                .detail(format!("{wait:.0} s, and at most {most:.0} s")))
        }
        (wait, _) => Ok(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_headers() {
        for (text, pattern, expected) in [
            ("5", None, Some(5.0)),
            ("1 s", Some("\\d+"), Some(1.0)),
            ("wait 7", Some("\\d+"), None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None, Some(0.0)),
            ("soon", None, None),
        ] {
            assert_eq!(numeric(text, pattern).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn jitter_only_adds() {
        let waits: Vec<f64> = (0..200).map(|_| spread(10.0, 2.0)).collect();
        assert!(waits.iter().all(|w| (10.0..14.0).contains(w)));
        assert!(waits.iter().any(|w| *w < 12.0) && waits.iter().any(|w| *w > 12.0));
        assert_eq!(spread(10.0, 0.0), 10.0);
    }

    #[test]
    fn a_wait_that_is_too_long_is_refused() {
        assert_eq!(capped(Some(5.0), Some(10.0)).unwrap(), Some(5.0));
        assert_eq!(capped(Some(10.0), Some(10.0)).unwrap_err().code(), Code::RateLimited);
    }
}
