//! Several tokens that stand for each other, each with quotas of its own: whose turn it is, and how long to wait when all are spent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;
use trib_core::{Code, Error, Result};
use trib_kit::http::{Request, Response};

use super::super::budget::Matcher;
use super::super::dpath;
use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::options::Options;
use super::super::requester::{Answer, Call, Requester};
use super::super::slice::Slice;
use super::super::span::Span;
use super::super::template::python_str;
use super::Authenticator;

/// The last calls are spread over the time that is left, with at most this between two of them.
const LONGEST_DELAY: f64 = 10.0;
/// Below this, a delay is none.
const SHORTEST_DELAY: f64 = 0.1;
/// A reset that has passed already is waited for this long, since clocks differ.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
/// A reset that is this much older than the known one is of the same window.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

pub(in super::super) struct TokenPool {
    header: String,
    /// What the header holds, by token.
    values: Vec<String>,
    /// Asks for a token's quotas, by token.
    status: Vec<Requester>,
    /// Answers that say that nobody counts.
    uncounted: Vec<u16>,
    quotas: Vec<Quota>,
    most_wait: Duration,
    reserve: Reserve,
    asking: tokio::sync::Mutex<()>,
    tokens: Mutex<Option<Tokens>>,
}

struct Quota {
    name: String,
    remaining: Vec<String>,
    reset: Vec<String>,
    limit: Option<Vec<String>>,
    matchers: Vec<Matcher>,
    remaining_header: Option<String>,
    reset_header: Option<String>,
    limit_header: Option<String>,
    exhausted: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Reserve {
    fraction: f64,
    least: f64,
}

struct Tokens {
    active: usize,
    /// By token, then by quota.
    left: Vec<Vec<Left>>,
}

#[derive(Clone, Debug)]
struct Left {
    /// Somebody counts.
    counted: bool,
    remaining: i64,
    reset: DateTime<Utc>,
    limit: i64,
}

#[derive(Debug, PartialEq)]
enum Turn {
    /// This token's, after so many seconds.
    Go(usize, f64),
    /// All are spent, the first of them for so long.
    Spent(Duration),
}

impl TokenPool {
    pub(super) fn build(env: &Env, node: &Node<'_>) -> Result<Self> {
        let tokens = tokens(env, node)?;
        tokens.iter().for_each(|token| env.hide(token));
        let method = node.text("auth_method").unwrap_or("Bearer");
        let header = node.text("header").unwrap_or("Authorization").to_owned();
        let values: Vec<String> = tokens.iter().map(|token| format!("{method} {token}").trim().to_owned()).collect();
        let source = node.need("quota_status_source")?;
        let uncounted = codes(&source, "unavailable_status_codes");
        let asks = |value: &String| -> Result<Requester> {
            let ignored = json!([{"type": "HttpResponseFilter", "action": "IGNORE", "http_codes": &uncounted}]);
            let mut component = json!({
                "type": "HttpRequester", "url": source.need_expr("url")?.text(&env.scope())?, "http_method": source.text("http_method").unwrap_or("GET"),
                "request_headers": source.get("request_headers").map(|h| h.value.clone()).unwrap_or_else(|| json!({})),
            });
            if !uncounted.is_empty() {
                component["error_handler"] = json!({"type": "DefaultErrorHandler", "response_filters": ignored});
            }
            let requester = Requester::build(env, &Node::new(&component, source.path.clone()), false)?;
            Ok(requester.with_auth(Authenticator::Fixed { header: header.clone(), value: value.clone() }))
        };
        let most_wait = node.expr("max_wait_time")?.map_or_else(|| Ok("PT2H".to_owned()), |e| e.text(&env.scope()))?;
        let most_wait = Span::parse(&most_wait)
            .and_then(Span::to_std)
            .ok_or_else(|| node.wrong("`max_wait_time` is a duration without months, such as PT2H").detail(most_wait.clone()))?;
        let quotas: Vec<Quota> = node.items("quotas").iter().map(|q| Quota::build(q, &env.config)).collect::<Result<_>>()?;
        if quotas.is_empty() {
            return Err(node.wrong("at least one quota is needed"));
        }
        Ok(Self {
            status: values.iter().map(asks).collect::<Result<_>>()?,
            header,
            values,
            uncounted,
            quotas,
            most_wait,
            reserve: Reserve {
                fraction: node.number("budget_reserve_fraction").unwrap_or(0.1),
                least: node.number("budget_min_reserve").unwrap_or(50.0),
            },
            asking: tokio::sync::Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    /// The header for a request, once it is its turn.
    pub(super) async fn header(&self, env: &Env, request: &Request) -> Result<(String, String)> {
        let quota = self.quota_of(request);
        self.ask(env, |tokens| tokens.is_none()).await?;
        let mut deadline = None;
        loop {
            let turn = self.tokens().as_mut().map(|tokens| tokens.turn(quota, Utc::now(), self.reserve));
            match turn {
                None => return Err(Error::internal("tokens without quotas")),
                Some(Turn::Go(token, delay)) => {
                    if delay >= SHORTEST_DELAY {
                        tokio::time::sleep(Duration::from_secs_f64(delay)).await;
                    }
                    return Ok((self.header.clone(), self.values[token].clone()));
                }
                Some(Turn::Spent(reset)) => {
                    let end = *deadline.get_or_insert_with(|| Instant::now() + self.most_wait);
                    let left = end.saturating_duration_since(Instant::now());
                    if reset >= left {
                        return Err(Error::new(Code::RateLimited, "all tokens are spent")
                            .detail(format!("the quota {}; the first comes back in {} s", self.quotas[quota].name, reset.as_secs()))
                            .hint("more tokens, or a longer `max_wait_time` in the manifest"));
                    }
                    let wait = reset.max(SHORTEST_WAIT).min(left);
                    tracing::info!(quota = self.quotas[quota].name, seconds = wait.as_secs(), "all tokens are spent");
                    tokio::time::sleep(wait).await;
                    self.ask(env, |tokens| tokens.as_ref().is_none_or(|t| t.all_spent(quota))).await?;
                }
            }
        }
    }

    /// Learns from what an answer says about what is left.
    pub(super) fn learn(&self, request: &Request, response: &Response) {
        let at = self.quota_of(request);
        let quota = &self.quotas[at];
        let text = |name: &Option<String>| name.as_deref().and_then(|name| response.header(name)).map(|text| text.trim().to_owned());
        let number = |name: &Option<String>| text(name).and_then(|text| text.parse::<i64>().ok());
        let refused = quota.exhausted.contains(&response.status);
        let said = Said {
            remaining: number(&quota.remaining_header).or_else(|| refused.then_some(0)),
            reset: text(&quota.reset_header).and_then(|text| moment(&Value::String(text))),
            limit: number(&quota.limit_header),
            refused,
        };
        if let (Some(sender), Some(tokens)) = (self.sender(request), self.tokens().as_mut()) {
            tokens.left[sender][at].learn(&said);
        }
    }

    /// The token of this request is spent, and another is not: nothing has to be waited for.
    pub(super) fn has_other(&self, request: &Request) -> bool {
        let quota = self.quota_of(request);
        let (Some(sender), tokens) = (self.sender(request), self.tokens()) else { return false };
        tokens.as_ref().is_some_and(|tokens| {
            let spent = tokens.left[sender][quota].is_spent();
            spent && tokens.left.iter().enumerate().any(|(token, left)| token != sender && left[quota].remaining > 0)
        })
    }

    /// The first quota whose matchers know the request, or the one that has none.
    fn quota_of(&self, request: &Request) -> usize {
        let matching = self.quotas.iter().position(|q| q.matchers.iter().any(|m| m.matches(request)));
        matching.or_else(|| self.quotas.iter().position(|q| q.matchers.is_empty())).unwrap_or(0)
    }

    fn sender(&self, request: &Request) -> Option<usize> {
        let (_, value) = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(&self.header))?;
        self.values.iter().position(|known| known == value)
    }

    fn tokens(&self) -> MutexGuard<'_, Option<Tokens>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what is left of all quotas of all tokens, if that is needed; one after the other, so that several requests ask once.
    async fn ask(&self, env: &Env, needed: impl Fn(&Option<Tokens>) -> bool + Send) -> Result<()> {
        let _asking = self.asking.lock().await;
        if !needed(&self.tokens()) {
            return Ok(());
        }
        let mut left = Vec::new();
        for requester in &self.status {
            left.push(self.ask_one(env, requester).await?);
        }
        let active = self.tokens().as_ref().map_or(0, |tokens| tokens.active);
        *self.tokens() = Some(Tokens { active, left });
        Ok(())
    }

    async fn ask_one(&self, env: &Env, requester: &Requester) -> Result<Vec<Left>> {
        let slice = Slice::default();
        let Answer::Response(response) = Box::pin(requester.send(env, Call::plain(&slice), Options::default())).await? else {
            return Err(Error::new(Code::SystemError, "the question for quotas was answered with a call to start over"));
        };
        if self.uncounted.contains(&response.status) {
            let none = Left { counted: false, remaining: 0, reset: Utc::now(), limit: 0 };
            return Ok(vec![none; self.quotas.len()]);
        }
        let body: Value = serde_json::from_slice(&response.body)
            .map_err(|e| Error::new(Code::SystemError, "the answer to the question for quotas is no JSON").source(e))?;
        self.quotas.iter().map(|quota| quota.read(&body)).collect()
    }
}

/// A list, or one text that holds them all.
fn tokens(env: &Env, node: &Node<'_>) -> Result<Vec<String>> {
    let tokens = node.need("tokens")?;
    let found: Vec<String> = if tokens.value.is_array() {
        node.exprs("tokens")?.iter().map(|token| token.text(&env.scope())).collect::<Result<_>>()?
    } else {
        let all = Expr::text(&node.need_expr("tokens")?, &env.scope())?;
        all.split(node.text("token_delimiter").filter(|d| !d.is_empty()).unwrap_or(",")).map(str::to_owned).collect()
    };
    let found: Vec<String> = found.iter().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).collect();
    if found.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, "the configuration holds no tokens").setting(node.path.clone()));
    }
    Ok(found)
}

fn codes(node: &Node<'_>, name: &str) -> Vec<u16> {
    node.items(name).iter().filter_map(|c| u16::try_from(c.value.as_u64()?).ok()).collect()
}

impl Quota {
    fn build(node: &Node<'_>, config: &Value) -> Result<Self> {
        let path = |name: &str| node.items(name).iter().map(|p| python_str(p.value)).collect::<Vec<_>>();
        let text = |name: &str| node.text(name).map(str::to_owned);
        Ok(Self {
            name: text("name").unwrap_or_default(),
            remaining: path("remaining_path"),
            reset: path("reset_path"),
            limit: Some(path("limit_path")).filter(|p| !p.is_empty()),
            matchers: node.items("matchers").iter().map(|m| Matcher::build(m, config)).collect::<Result<_>>()?,
            remaining_header: text("remaining_header"),
            reset_header: text("reset_header"),
            limit_header: text("limit_header"),
            exhausted: codes(node, "exhaustion_status_codes"),
        })
    }

    fn read(&self, body: &Value) -> Result<Left> {
        let missing = |path: &[String]| {
            Error::new(Code::SystemError, "the answer to the question for quotas is not as the manifest says").detail(format!(
                "{} of the quota {}",
                path.join("."),
                self.name
            ))
        };
        let number = |path: &[String]| dpath::get(body, path).and_then(whole).ok_or_else(|| missing(path));
        let remaining = number(&self.remaining)?;
        Ok(Left {
            counted: true,
            remaining,
            reset: dpath::get(body, &self.reset).and_then(moment).ok_or_else(|| missing(&self.reset))?,
            limit: self.limit.as_deref().map_or(Ok(remaining), number)?,
        })
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_i64().or_else(|| other.as_f64().map(|f| f as i64)),
    }
}

/// Seconds since 1970, or ISO 8601; without a zone it is UTC.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    if let Some(seconds) = whole(value) {
        return DateTime::from_timestamp(seconds, 0);
    }
    let text = value.as_str()?.trim();
    let zoned = DateTime::parse_from_rfc3339(text).map(|t| t.to_utc()).ok();
    zoned.or_else(|| NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S%.f").ok().map(|t| t.and_utc()))
}

/// What an answer has said.
struct Said {
    remaining: Option<i64>,
    reset: Option<DateTime<Utc>>,
    limit: Option<i64>,
    /// It was refused because the quota is spent.
    refused: bool,
}

impl Left {
    fn is_spent(&self) -> bool {
        self.counted && self.remaining <= 0
    }

    /// Answers come out of order: within a window the count only falls, and what is said about an older window does not count, unless it is a refusal.
    fn learn(&mut self, said: &Said) {
        if !self.counted {
            return;
        }
        let is_current = said.reset.is_none_or(|reset| reset >= self.reset);
        if let Some(limit) = said.limit.filter(|limit| *limit > 0 && is_current) {
            self.limit = limit;
        }
        if let Some(reset) = said.reset.filter(|reset| *reset > self.reset) {
            self.reset = reset;
            self.remaining = said.remaining.unwrap_or(self.limit);
        } else if let Some(remaining) = said.remaining
            && ((remaining <= 0 && said.refused) || said.reset.is_none_or(|reset| reset >= self.reset - SKEW))
        {
            self.remaining = self.remaining.min(remaining);
        }
    }
}

impl Tokens {
    fn turn(&mut self, quota: usize, now: DateTime<Utc>, reserve: Reserve) -> Turn {
        for _ in 0..=self.left.len() {
            let token = self.active;
            let left = &mut self.left[token][quota];
            if !left.counted {
                // Nothing tells them apart: each in its turn.
                self.active = (token + 1) % self.left.len();
                return Turn::Go(token, 0.0);
            }
            if left.remaining > 0 {
                left.remaining -= 1;
                return Turn::Go(token, self.delay(quota, now, reserve));
            }
            self.active = (token + 1) % self.left.len();
        }
        let first = self.left.iter().map(|left| left[quota].reset - now).min();
        Turn::Spent(first.and_then(|wait| wait.to_std().ok()).unwrap_or_default())
    }

    fn all_spent(&self, quota: usize) -> bool {
        self.left.iter().all(|left| left[quota].is_spent())
    }

    /// Once every token has come to its reserve, what is left is spread over the time until the reset.
    fn delay(&self, quota: usize, now: DateTime<Utc>, reserve: Reserve) -> f64 {
        let mut all = self.left.iter().map(|left| &left[quota]);
        let scarce = all.all(|l| l.counted && l.remaining as f64 <= reserve.least.max(l.limit as f64 * reserve.fraction));
        let total: i64 = self.left.iter().map(|left| left[quota].remaining.max(0)).sum();
        let seconds = (self.left[self.active][quota].reset - now).as_seconds_f64();
        if scarce && total > 0 && seconds > 0.0 { (seconds / total as f64).min(LONGEST_DELAY) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const NO_RESERVE: Reserve = Reserve { fraction: 0.0, least: 0.0 };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn left(remaining: i64, reset: i64) -> Left {
        Left { counted: true, remaining, reset: at(reset), limit: 100 }
    }

    fn tokens(left: &[Left]) -> Tokens {
        Tokens { active: 0, left: left.iter().map(|l| vec![l.clone()]).collect() }
    }

    #[test]
    fn one_after_the_other_until_all_are_spent() {
        let mut tokens = tokens(&[left(2, 50), left(1, 30)]);
        let turns: Vec<Turn> = (0..4).map(|_| tokens.turn(0, at(0), NO_RESERVE)).collect();
        assert_eq!(turns, [Turn::Go(0, 0.0), Turn::Go(0, 0.0), Turn::Go(1, 0.0), Turn::Spent(Duration::from_secs(30))]);
        assert_eq!(tokens.turn(0, at(99), NO_RESERVE), Turn::Spent(Duration::ZERO));
    }

    #[test]
    fn the_last_calls_are_spread_over_the_time_that_is_left() {
        let reserve = Reserve { fraction: 0.1, least: 5.0 };
        let mut plenty = tokens(&[left(11, 60), left(50, 60)]);
        assert_eq!(plenty.turn(0, at(0), reserve), Turn::Go(0, 0.0));
        let mut scarce = tokens(&[left(11, 60), left(10, 60)]);
        assert_eq!(scarce.turn(0, at(0), reserve), Turn::Go(0, 3.0), "20 calls in 60 s");
        let mut last = tokens(&[left(2, 3600), left(0, 60)]);
        assert_eq!(last.turn(0, at(0), reserve), Turn::Go(0, 10.0));
    }

    #[test]
    fn where_nobody_counts_each_has_its_turn() {
        let uncounted = Left { counted: false, ..left(0, 0) };
        let mut tokens = tokens(&[uncounted.clone(), uncounted]);
        let turns: Vec<Turn> = (0..3).map(|_| tokens.turn(0, at(0), NO_RESERVE)).collect();
        assert_eq!(turns, [Turn::Go(0, 0.0), Turn::Go(1, 0.0), Turn::Go(0, 0.0)]);
    }

    #[test]
    fn what_answers_say() {
        let said = |remaining, reset: Option<i64>, refused| Said { remaining, reset: reset.map(at), limit: None, refused };
        for (said, remaining, reset) in [
            (said(Some(40), Some(60), false), 40, 60),
            (said(Some(70), Some(60), false), 50, 60),
            (said(Some(90), Some(99), false), 90, 99),
            (said(None, Some(99), false), 100, 99),
            (said(Some(0), Some(-600), false), 50, 60),
            (said(Some(0), Some(-600), true), 0, 60),
            (said(Some(3), Some(30), false), 3, 60),
        ] {
            let mut known = left(50, 60);
            known.learn(&said);
            assert_eq!((known.remaining, known.reset), (remaining, at(reset)));
        }
        let mut uncounted = Left { counted: false, ..left(0, 0) };
        uncounted.learn(&said(Some(5), Some(99), false));
        assert_eq!(uncounted.remaining, 0);
    }

    #[test]
    fn moments() {
        let noon = at(0) + TimeDelta::seconds(1000);
        for value in [json!(1_700_001_000), json!("1700001000"), json!("2023-11-14T22:30:00Z"), json!("2023-11-14 22:30:00")] {
            assert_eq!(moment(&value), Some(noon), "{value}");
        }
        assert_eq!(moment(&json!("soon")), None);
    }
}
