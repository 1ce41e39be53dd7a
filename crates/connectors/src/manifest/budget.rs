//! API budgets: how many requests may go out in which time, as the manifest declares and the answers correct.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::Utc;
use regex::Regex;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trib_core::{Code, Error, Result};
use trib_kit::http::{Request, Response};

use super::node::Node;
use super::span::Span;
use super::template::{Scope, python_str};

pub(super) struct Budget {
    policies: Vec<Policy>,
    reset_header: String,
    remaining_header: String,
    exhausted: Vec<u16>,
}

struct Policy {
    matchers: Vec<Matcher>,
    /// Empty for one without a limit.
    rates: Vec<Rate>,
    /// Windows follow each other; otherwise one window moves along.
    fixed: bool,
    spent: Mutex<Spent>,
}

#[derive(Clone, Copy)]
struct Rate {
    limit: u64,
    interval: Duration,
}

#[derive(Default)]
struct Spent {
    /// When weights were spent, oldest first.
    calls: VecDeque<(Instant, u64)>,
    window: Option<(Instant, u64)>,
    /// The server has said so.
    closed_until: Option<Instant>,
}

struct Matcher {
    method: Option<String>,
    url_base: Option<String>,
    path: Option<Regex>,
    params: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    weight: u64,
}

impl Budget {
    pub(super) fn build(node: &Node<'_>, config: &Value) -> Result<Self> {
        let codes: Vec<u16> =
            node.items("status_codes_for_ratelimit_hit").iter().filter_map(|c| c.value.as_u64()).map(|c| c as u16).collect();
        Ok(Self {
            policies: node.items("policies").iter().map(|p| Policy::build(p, config)).collect::<Result<_>>()?,
            reset_header: node.text("ratelimit_reset_header").unwrap_or("ratelimit-reset").to_owned(),
            remaining_header: node.text("ratelimit_remaining_header").unwrap_or("ratelimit-remaining").to_owned(),
            exhausted: if codes.is_empty() { vec![429] } else { codes },
        })
    }

    /// Waits until the request may go out, and counts it.
    pub(super) async fn acquire(&self, request: &Request) {
        let matching = self.policies.iter().find_map(|p| Some((p, p.weight(request)?)));
        if let Some((policy, weight)) = matching {
            policy.acquire(weight).await;
        }
    }

    /// Learns from what the answer says about what is left.
    pub(super) async fn learn(&self, request: &Request, response: &Response) {
        let Some(policy) = self.policies.iter().find(|p| p.weight(request).is_some()) else { return };
        let number = |name: &str| response.header(name).and_then(|text| text.trim().parse::<f64>().ok());
        let remaining = if self.exhausted.contains(&response.status) { Some(0.0) } else { number(&self.remaining_header) };
        if remaining != Some(0.0) {
            return;
        }
        if let Some(reset) = number(&self.reset_header) {
            let now = Utc::now().timestamp() as f64;
            // Some send the moment, some the seconds until then.
            let wait = if reset > 1e9 { reset - now } else { reset };
            if wait > 0.0 && wait < 86400.0 {
                policy.spent.lock().await.closed_until = Some(Instant::now() + Duration::from_secs_f64(wait));
            }
        }
    }
}

impl Policy {
    fn build(node: &Node<'_>, config: &Value) -> Result<Self> {
        let scope = || Scope::new().with("config", config);
        let number = |node: &Node<'_>, name: &str| -> Result<u64> {
            let value = node.need_expr(name)?.eval(&scope())?;
            let number = value.as_u64().or_else(|| value.as_str().and_then(|t| t.parse().ok()));
            number.ok_or_else(|| node.wrong("a limit is a whole number").detail(python_str(&value)))
        };
        let interval = |node: &Node<'_>, name: &str| -> Result<Duration> {
            let text = node.need_expr(name)?.text(&scope())?;
            let span = Span::parse(&text).and_then(|s| s.to_std());
            span.ok_or_else(|| node.wrong("an interval is a duration such as PT1S").detail(text))
        };
        let rates = match node.kind() {
            "FixedWindowCallRatePolicy" => vec![Rate { limit: number(node, "call_limit")?, interval: interval(node, "period")? }],
            "MovingWindowCallRatePolicy" => {
                let rate = |r: &Node<'_>| Ok(Rate { limit: number(r, "limit")?, interval: interval(r, "interval")? });
                node.items("rates").iter().map(rate).collect::<Result<_>>()?
            }
            "UnlimitedCallRatePolicy" => Vec::new(),
            _ => return Err(node.unsupported()),
        };
        let matchers = node.items("matchers").iter().map(|m| Matcher::build(m, config)).collect::<Result<_>>()?;
        Ok(Self { matchers, rates, fixed: node.kind() == "FixedWindowCallRatePolicy", spent: Mutex::default() })
    }

    /// What the request costs here; nothing when it is none of this policy's.
    fn weight(&self, request: &Request) -> Option<u64> {
        if self.matchers.is_empty() {
            return Some(1);
        }
        self.matchers.iter().find(|m| m.matches(request)).map(|m| m.weight)
    }

    async fn acquire(&self, weight: u64) {
        loop {
            let wait = {
                let mut spent = self.spent.lock().await;
                match self.wait(&spent, weight, Instant::now()) {
                    None => {
                        self.spend(&mut spent, weight, Instant::now());
                        return;
                    }
                    Some(wait) => wait,
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, spent: &Spent, weight: u64, now: Instant) -> Option<Duration> {
        let mut wait = spent.closed_until.and_then(|until| until.checked_duration_since(now)).filter(|w| !w.is_zero());
        for rate in &self.rates {
            let free = if self.fixed {
                spent
                    .window
                    .filter(|(start, used)| now < *start + rate.interval && used + weight > rate.limit)
                    .map(|(start, _)| start + rate.interval)
            } else {
                let inside = || spent.calls.iter().filter(|(at, _)| now < *at + rate.interval);
                let mut used: u64 = inside().map(|(_, w)| w).sum();
                let mut free = None;
                for (at, cost) in inside() {
                    if used + weight <= rate.limit {
                        break;
                    }
                    used -= cost;
                    free = Some(*at + rate.interval);
                }
                free
            };
            if let Some(free) = free.and_then(|at| at.checked_duration_since(now)) {
                wait = Some(wait.map_or(free, |w| w.max(free)).max(Duration::from_millis(1)));
            }
        }
        wait
    }

    fn spend(&self, spent: &mut Spent, weight: u64, now: Instant) {
        if self.fixed {
            let interval = self.rates.first().map_or(Duration::ZERO, |r| r.interval);
            spent.window = match spent.window {
                Some((start, used)) if now < start + interval => Some((start, used + weight)),
                _ => Some((now, weight)),
            };
        } else {
            let longest = self.rates.iter().map(|r| r.interval).max().unwrap_or_default();
            while spent.calls.front().is_some_and(|(at, _)| now >= *at + longest) {
                spent.calls.pop_front();
            }
            if !longest.is_zero() {
                spent.calls.push_back((now, weight));
            }
        }
    }
}

impl Matcher {
    fn build(node: &Node<'_>, config: &Value) -> Result<Self> {
        let pairs = |name: &str| {
            let map = node.get(name).and_then(|n| n.value.as_object());
            map.into_iter().flatten().map(|(k, v)| (k.clone(), python_str(v))).collect()
        };
        let scope = Scope::new().with("config", config);
        let path =
            match node.text("url_path_pattern") {
                None => None,
                Some(text) => Some(Regex::new(text).map_err(|e| {
                    Error::new(Code::ConfigInvalid, "the pattern of a path is not right").setting(node.path.clone()).source(e)
                })?),
            };
        let weight = node.expr("weight")?.map(|w| w.eval(&scope)).transpose()?;
        Ok(Self {
            method: node.text("method").map(str::to_owned),
            url_base: node.expr("url_base")?.map(|u| u.text(&scope)).transpose()?,
            path,
            params: pairs("params"),
            headers: pairs("headers"),
            weight: weight.and_then(|w| w.as_u64()).unwrap_or(1),
        })
    }

    fn matches(&self, request: &Request) -> bool {
        let has_param = |(k, v): &(String, String)| request.url.query_pairs().any(|(a, b)| a == k.as_str() && b == v.as_str());
        let has_header = |(k, v): &(String, String)| request.headers.iter().any(|(a, b)| a.eq_ignore_ascii_case(k) && b == v);
        self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(&request.method))
            && self.url_base.as_ref().is_none_or(|base| request.url.as_str().starts_with(base.trim_end_matches('/')))
            && self.path.as_ref().is_none_or(|p| p.is_match(request.url.path()))
            && self.params.iter().all(has_param)
            && self.headers.iter().all(has_header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(fixed: bool) -> Policy {
        let rates = vec![Rate { limit: 2, interval: Duration::from_secs(10) }];
        Policy { matchers: Vec::new(), rates, fixed, spent: Mutex::default() }
    }

    #[test]
    fn windows_open_when_their_time_has_come() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (fixed, third) in [(true, 10), (false, 10)] {
            let policy = policy(fixed);
            let mut spent = Spent::default();
            for second in [0, 4] {
                assert_eq!(policy.wait(&spent, 1, at(second)), None);
                policy.spend(&mut spent, 1, at(second));
            }
            assert_eq!(policy.wait(&spent, 1, at(5)), Some(Duration::from_secs(third - 5)));
            assert_eq!(policy.wait(&spent, 1, at(10)), None);
            policy.spend(&mut spent, 1, at(10));
            // A window that moves still holds the call at second 4; a new fixed one does not.
            let expected = (!fixed).then(|| Duration::from_secs(3));
            assert_eq!(policy.wait(&spent, 1, at(11)), expected, "fixed: {fixed}");
        }
    }
}
