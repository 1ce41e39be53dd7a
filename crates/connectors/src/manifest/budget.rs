//! API budgets: how many requests may go out in which time, as the manifest declares and the answers correct.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use regex::Regex;
use serde_json::Value;
use tokio::sync::Notify;
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
    spent: Mutex<Spent>,
    /// An answer has come: what it cost begins to run out.
    answered: Notify,
}

pub(super) struct Spent {
    windows: Vec<Window>,
    /// The server has said so.
    closed_until: Option<Instant>,
}

/// So much within any time of this length. Nobody knows where the server's own windows begin, nor when a request reaches it: the window moves along, and a
/// request counts from the moment it is sent until that long after its answer. So the server never sees more than it allows, however it counts.
struct Window {
    limit: u64,
    interval: Duration,
    under_way: u64,
    /// When answers came and what they cost, oldest first.
    answered: VecDeque<(Instant, u64)>,
    /// The sum of them.
    used: u64,
}

/// When a request may go out.
#[derive(Debug, PartialEq)]
pub(super) enum Free {
    Now,
    At(Instant),
    /// Not before one that is under way is answered.
    Unknown,
}

/// A request that counts, until it is dropped: then it is answered.
pub(super) struct Spending<'a> {
    policy: &'a Policy,
    weight: u64,
}

impl Drop for Spending<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.policy.spent().settle(self.weight, now);
        self.policy.answered.notify_waiters();
    }
}

pub(super) struct Matcher {
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

    /// Waits until the request may go out, and counts it; to be dropped when its answer is there.
    pub(super) async fn acquire(&self, request: &Request) -> Option<Spending<'_>> {
        let (policy, weight) = self.policies.iter().find_map(|p| Some((p, p.weight(request)?)))?;
        Some(policy.acquire(weight).await)
    }

    /// The least time in which so many of each of these requests can go out.
    pub(super) fn least_time(&self, requests: &[(Request, u64)]) -> Duration {
        let mut weights = vec![0; self.policies.len()];
        for (request, count) in requests {
            if let Some((i, weight)) = self.policies.iter().enumerate().find_map(|(i, p)| Some((i, p.weight(request)?))) {
                weights[i] += weight * count;
            }
        }
        self.policies.iter().zip(weights).map(|(policy, weight)| policy.spent().least_time(weight)).max().unwrap_or_default()
    }

    /// Whether a limit is declared for the request.
    pub(super) fn covers(&self, request: &Request) -> bool {
        let policy = self.policies.iter().find(|p| p.weight(request).is_some());
        policy.is_some_and(|p| !p.spent().windows.is_empty())
    }

    /// Learns from what the answer says about what is left.
    pub(super) fn learn(&self, request: &Request, response: &Response) {
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
                policy.spent().closed_until = Some(Instant::now() + Duration::from_secs_f64(wait));
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
            let span = Span::parse(&text).and_then(Span::to_std);
            span.ok_or_else(|| node.wrong("an interval is a duration such as PT1S").detail(text))
        };
        let window = |limit: u64, interval: Duration| Window { limit, interval, under_way: 0, answered: VecDeque::new(), used: 0 };
        let windows = match node.kind() {
            "FixedWindowCallRatePolicy" => vec![window(number(node, "call_limit")?, interval(node, "period")?)],
            "MovingWindowCallRatePolicy" => {
                let rate = |r: &Node<'_>| Ok(window(number(r, "limit")?, interval(r, "interval")?));
                node.items("rates").iter().map(rate).collect::<Result<_>>()?
            }
            "UnlimitedCallRatePolicy" => Vec::new(),
            _ => return Err(node.unsupported()),
        };
        let matchers = node.items("matchers").iter().map(|m| Matcher::build(m, config)).collect::<Result<_>>()?;
        Ok(Self::new(matchers, windows))
    }

    fn new(matchers: Vec<Matcher>, windows: Vec<Window>) -> Self {
        Self { matchers, spent: Mutex::new(Spent { windows, closed_until: None }), answered: Notify::new() }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request costs here; nothing when it is none of this policy's.
    fn weight(&self, request: &Request) -> Option<u64> {
        if self.matchers.is_empty() {
            return Some(1);
        }
        self.matchers.iter().find(|m| m.matches(request)).map(|m| m.weight)
    }

    async fn acquire(&self, weight: u64) -> Spending<'_> {
        loop {
            let answered = self.answered.notified();
            let free = self.spent().take(weight, Instant::now());
            match free {
                Free::Now => return Spending { policy: self, weight },
                Free::Unknown => answered.await,
                Free::At(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = answered => {}
                },
            }
        }
    }
}

impl Spent {
    /// From the first request to the last, when the windows are empty and answers come at once.
    fn least_time(&self, weight: u64) -> Duration {
        let full = |window: &Window| weight.saturating_sub(1) / window.limit.max(1);
        let least = |window: &Window| window.interval.saturating_mul(u32::try_from(full(window)).unwrap_or(u32::MAX));
        self.windows.iter().map(least).max().unwrap_or_default()
    }

    /// Counts a request that may go out now.
    pub(super) fn take(&mut self, weight: u64, now: Instant) -> Free {
        let mut latest = self.closed_until.filter(|until| *until > now);
        for window in &mut self.windows {
            match window.free(weight, now) {
                Free::Now => {}
                Free::At(at) => latest = Some(latest.map_or(at, |l| l.max(at))),
                Free::Unknown => return Free::Unknown,
            }
        }
        if let Some(at) = latest {
            return Free::At(at);
        }
        for window in &mut self.windows {
            window.under_way += weight;
        }
        Free::Now
    }

    /// A request that was counted is answered.
    pub(super) fn settle(&mut self, weight: u64, now: Instant) {
        self.windows.iter_mut().for_each(|window| window.settle(weight, now));
    }
}

impl Window {
    fn free(&mut self, weight: u64, now: Instant) -> Free {
        while let Some((_, cost)) = self.answered.front().filter(|(at, _)| *at + self.interval <= now) {
            self.used -= cost;
            self.answered.pop_front();
        }
        // One that costs more than there ever is goes out alone.
        let wanted = self.under_way + self.used + weight.min(self.limit);
        let mut over = wanted.saturating_sub(self.limit);
        if over == 0 {
            return Free::Now;
        }
        for (at, cost) in &self.answered {
            over = over.saturating_sub(*cost);
            if over == 0 {
                return Free::At(*at + self.interval);
            }
        }
        Free::Unknown
    }

    fn settle(&mut self, weight: u64, now: Instant) {
        self.under_way -= weight;
        self.used += weight;
        self.answered.push_back((now, weight));
    }
}

impl Matcher {
    pub(super) fn build(node: &Node<'_>, config: &Value) -> Result<Self> {
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

    pub(super) fn matches(&self, request: &Request) -> bool {
        let has_param = |(k, v): &(String, String)| request.url.query_pairs().any(|(a, b)| a == k.as_str() && b == v.as_str());
        let has_header = |(k, v): &(String, String)| request.headers.iter().any(|(a, b)| a.eq_ignore_ascii_case(k) && b == v);
        self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(&request.method))
            && self.url_base.as_ref().is_none_or(|base| request.url.as_str().starts_with(base.trim_end_matches('/')))
            && self.path.as_ref().is_none_or(|p| p.is_match(request.url.path()))
            && self.params.iter().all(has_param)
            && self.headers.iter().all(has_header)
    }
}

/// Nothing spent yet of so many requests in so many seconds.
#[cfg(test)]
pub(super) fn spent(rates: &[(u64, u64)]) -> Spent {
    let window = |(limit, seconds): &(u64, u64)| Window {
        limit: *limit,
        interval: Duration::from_secs(*seconds),
        under_way: 0,
        answered: VecDeque::new(),
        used: 0,
    };
    Spent { windows: rates.iter().map(window).collect(), closed_until: None }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Step {
        Answered,
        Ask,
    }

    /// When requests reach a server, in milliseconds since the start, with twenty clients that never rest and take so long on their way there, and as long back.
    fn arrivals(rates: &[(u64, u64)], seconds: u64, way: impl Fn(usize) -> u64) -> Vec<u64> {
        let (mut spent, began) = (spent(rates), Instant::now());
        let mut steps: BinaryHeap<_> = (0..20).map(|client| Reverse((0, Step::Ask, client))).collect();
        let (mut parked, mut seen) = (Vec::new(), Vec::new());
        while let Some(Reverse((at, step, client))) = steps.pop() {
            if at >= seconds * 1000 {
                break;
            }
            let now = began + Duration::from_millis(at);
            if step == Step::Answered {
                spent.settle(1, now);
                parked.push(client);
                steps.extend(parked.drain(..).map(|client| Reverse((at, Step::Ask, client))));
                continue;
            }
            match spent.take(1, now) {
                Free::Now => {
                    seen.push(at + way(client));
                    steps.push(Reverse((at + 2 * way(client), Step::Answered, client)));
                }
                Free::At(until) => steps.push(Reverse(((until - began).as_millis() as u64, Step::Ask, client))),
                Free::Unknown => parked.push(client),
            }
        }
        seen.sort_unstable();
        seen
    }

    fn most_within(seen: &[u64], milliseconds: u64) -> usize {
        seen.iter().map(|from| seen.iter().filter(|at| (*from..from + milliseconds).contains(at)).count()).max().unwrap_or(0)
    }

    #[test]
    fn a_budget_is_used_and_never_exceeded() {
        for way in [1, 20] {
            let seen = arrivals(&[(10, 1)], 60, |_| way);
            assert_eq!(most_within(&seen, 1000), 10, "{way} ms");
            assert!(seen.len() >= 570, "{way} ms: {} of 600", seen.len());
        }
        // Ways of all lengths: the server may not see more all the same.
        assert_eq!(most_within(&arrivals(&[(10, 1)], 60, |client| client as u64 * 37 % 400), 1000), 10);
        // Both of two limits hold.
        let seen = arrivals(&[(5, 1), (60, 60)], 180, |_| 1);
        assert_eq!((most_within(&seen, 1000), most_within(&seen, 60_000)), (5, 60));
        assert!(seen.len() >= 171, "{}", seen.len());
    }

    #[test]
    fn the_time_that_a_budget_takes_is_known_before() {
        for (rates, weight, seconds) in [(&[(10, 1)][..], 0, 0), (&[(10, 1)], 10, 0), (&[(10, 1)], 11, 1), (&[(10, 1), (60, 60)], 200, 180)]
        {
            assert_eq!(spent(rates).least_time(weight), Duration::from_secs(seconds), "{weight}");
        }
    }

    #[test]
    fn what_costs_too_much_goes_out_alone() {
        let (mut spent, now) = (spent(&[(2, 10)]), Instant::now());
        assert_eq!(spent.take(5, now), Free::Now);
        assert_eq!(spent.take(1, now), Free::Unknown);
        spent.windows[0].settle(5, now);
        assert_eq!(spent.take(1, now), Free::At(now + Duration::from_secs(10)));
        assert_eq!(spent.take(5, now + Duration::from_secs(10)), Free::Now);
    }

    #[test]
    fn a_server_that_is_closed_is_waited_for() {
        let (mut spent, now) = (spent(&[(2, 10)]), Instant::now());
        spent.closed_until = Some(now + Duration::from_secs(60));
        assert_eq!(spent.take(1, now), Free::At(now + Duration::from_secs(60)));
    }
}
