//! A vendor's API as data: a document says what each request must look like and which records there are, and this answers by it.
//!
//! ```yaml
//! every:                          # demanded of each request; each rule names the page of documentation that it comes from
//!   - {docs: https://…, header: {authorization: Bearer hunter2}, else: {status: 401, body: {message: no}}}
//! limit: {docs: https://…, request: 2, answer: {status: 429, headers: {Retry-After: "1"}}}
//! routes:
//!   - path: /v1/orders            # or `POST /v1/{shop}/orders`; `when: {query: "orders\\("}` tells routes of one path apart
//!     docs: https://…
//!     query: {limit: 1..100, after?: '\w+', since?: '.*'}      # patterns and ranges; `?` may be left out; nothing else may stand there
//!     body: {filter.status: open}                              # leaves of a JSON body by their paths, likewise; or `form:`
//!     records: [{id: 1, at: "2026-01-01"}, {of: 9, each: {id: $n, at: {from: "2026-01-02T00:00:00Z", step: 60}}}]
//!     later: [{id: 11, at: "2026-02-01"}]                      # come with the second run
//!     keep: [[at, ">=", since]]                                # field, operator, parameter
//!     pages: {after: after, by: id, size: limit, default: 10}  # or `number`, `offset`, `token` in place of `after`
//!     answer: {data: $records, next?: $next}                   # a key with `?` goes away when what it names is not there
//! ```
//!
//! A route may take records instead of giving some:
//!
//! ```yaml
//!   - path: POST /v1/contacts/batch
//!     takes:
//!       in: inputs                  # the list in the body; left out: the body is the list, or the one record (`form: {}`: as a form)
//!       most: 100                   # records in a call
//!       rest: {all: 'true'}         # leaves of the body besides
//!       record: {id: .+@.+, properties.score?: '\d+'}   # leaves of each record
//!       into: contacts              # what they are kept as; read by [`Vendor::kept`]
//!       key: id                     # a path in the record, or `$name` of the URL; left out: a number is given
//!       keep: properties            # what of the record is kept; `remove: true`: it goes away
//!       there: true                 # it must be known; `fresh: true`: it must not; `refuses: [a@x]`: not these, for reasons of the vendor's own
//!       whole: true                 # a wrong record refuses the call; otherwise it gets `wrong`, `apart: true`: in a list of its own
//!       each: {id: $key}            # `$number` is its place, `$new` whether it was unknown, `$why` what is wrong with it
//!       wrong: {message: $why}
//!     once: idempotency-key         # a header: a call with the same value gets the same answer and changes nothing
//!     does: $object upsert          # what it is evidence of: [`Vendor::deeds`]
//!     some: 207                     # the status where some are refused; `nothing: 400` where all are
//!     answer: {results: $results, errors?: $wrong}
//! there: {contacts: {a@x: {name: Ann}}}                        # kept from the beginning
//! ```
//!
//! What is kept may be given too: `records: [{kept: contacts, each: {id: $key, properties: $record}}]`.
//!
//! A text as `answer` is sent as it is, with `$rows` for the records as CSV of the route's `columns`. Fields that begin with `~` are for
//! `keep` only. What breaks a rule is answered as the vendor would, and remembered: [`Vendor::refusals`].

mod deeds;
mod demand;
mod fill;
mod page;
mod take;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::stand_in::{Answer, Asked, StandIn};

pub use deeds::{Deed, Exchange};
pub use take::Kept;

/// What is known while a request is answered, by name.
pub(crate) type Variables = Map<String, Value>;

/// A stand-in that answers by a document.
pub struct Vendor {
    server: StandIn,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    later: bool,
    /// Requests since the run began, those that were too many included.
    asked: u64,
    served: u64,
    limited: u64,
    refusals: Vec<String>,
    kept: Kept,
    /// Answers by what was to be done once.
    done: HashMap<String, Answer>,
    trouble: Option<(Chance, Trouble)>,
    /// When requests came since the run began.
    came: Vec<Instant>,
    /// The answer to the next call that brings records, which does nothing.
    instead: Option<Value>,
    /// `limit` does not count in this run.
    unlimited: bool,
    /// The answer to every call of a path.
    closed: Option<(String, Value)>,
    /// Of all runs.
    seen: deeds::Seen,
}

/// What goes wrong by chance, in calls of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Answered with 429 and `Retry-After: 0`; nothing is done.
    pub limited: u64,
    /// Answered with 500; nothing is done.
    pub failed: u64,
    /// Done, and the connection is cut before the answer.
    pub cut: u64,
}

/// A request that breaks a rule.
pub(crate) struct Refusal {
    why: String,
    answer: Value,
}

impl Refusal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        let why = why.into();
        Self { answer: json!({"status": 400, "body": {"message": why}}), why }
    }
}

impl Vendor {
    pub fn start(document: Value) -> Self {
        let kept = Kept { records: serde_json::from_value(document["there"].clone()).unwrap_or_default(), taken: Vec::new() };
        let state = Arc::new(Mutex::new(State { kept, ..State::default() }));
        let shared = state.clone();
        let server = StandIn::start(move |asked| {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            answer(&document, &mut state, asked)
        });
        Self { server, state }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Begins to count anew; `later` lets the records of the second run appear.
    pub fn begin(&self, later: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept { records: std::mem::take(&mut state.kept.records), taken: Vec::new() };
        let (done, seen) = (std::mem::take(&mut state.done), std::mem::take(&mut state.seen));
        *state = State { later, kept, done, seen, trouble: state.trouble.take(), ..State::default() };
    }

    /// Requests that were answered as asked, and those that came too soon.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.served, state.limited)
    }

    /// The most requests that came within any time of this length.
    pub fn most_within(&self, time: Duration) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |(i, from): (usize, &Instant)| state.came[i..].iter().take_while(|at| **at < *from + time).count();
        state.came.iter().enumerate().map(within).max().unwrap_or(0)
    }

    /// The records that are there, and which came since the run began.
    pub fn kept(&self) -> Kept {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }

    /// Somebody else removes a record there.
    pub fn remove(&self, collection: &str, key: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = state.kept.records.get_mut(collection).and_then(|records| records.remove(key));
        assert!(gone.is_some(), "{collection} has no {key}");
    }

    /// From now on calls go wrong by chance.
    pub fn trouble(&self, seed: u64, trouble: Trouble) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = Some((Chance::new(seed), trouble));
    }

    /// The next call that brings records is answered with this `{status, headers, body}`, and nothing is done. No other call of the run comes too soon.
    pub fn answer_instead(&self, answer: Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.instead = Some(answer);
        state.unlimited = true;
    }

    /// Every call of this path is answered with this `{status, headers, body}`, until the next run begins.
    pub fn close(&self, path: &str, answer: Value) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = Some((path.to_owned(), answer));
    }

    /// Whether it has not come to that.
    pub fn waits_to_answer(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).instead.is_some()
    }

    /// What routes were called for, by their `does`, in all runs.
    pub fn deeds(&self) -> BTreeMap<String, Deed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen.deeds.clone()
    }

    /// Some requests of each route with their answers, of all runs.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen.exchanges.clone()
    }

    /// The requests since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        self.server.take()
    }

    /// Which rules were broken, and by what.
    pub fn refusals(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refusals.clone()
    }
}

fn answer(document: &Value, state: &mut State, asked: &Asked) -> Answer {
    state.asked += 1;
    state.came.push(Instant::now());
    if !state.unlimited && document.pointer("/limit/request").and_then(Value::as_u64) == Some(state.asked) {
        state.limited += 1;
        return send(&document["limit"]["answer"], &Variables::new(), "");
    }
    let mut cut = false;
    if let Some((chance, trouble)) = &mut state.trouble {
        let drawn = chance.below(1000);
        if drawn < trouble.limited {
            state.limited += 1;
            return Answer::status(429).header("Retry-After", "0");
        }
        if drawn < trouble.limited + trouble.failed {
            return Answer::status(500);
        }
        cut = drawn < trouble.limited + trouble.failed + trouble.cut;
    }
    let answer = answer_by_rules(document, state, asked);
    if cut { Answer::cut() } else { answer }
}

fn answer_by_rules(document: &Value, state: &mut State, asked: &Asked) -> Answer {
    let answer = match serve(document, state, asked) {
        Ok(answer) => {
            state.served += 1;
            answer
        }
        Err(refusal) => {
            state.refusals.push(format!("{} {}?{} {}: {}", asked.method, asked.path, asked.query, asked.body, refusal.why));
            let why = Variables::from_iter([("why".to_owned(), Value::from(refusal.why))]);
            send(&refusal.answer, &why, "")
        }
    };
    state.seen.exchange(asked, &answer);
    answer
}

fn serve(document: &Value, state: &mut State, asked: &Asked) -> Result<Answer, Refusal> {
    for rule in list(&document["every"]) {
        demand::headers(rule, asked)?;
    }
    if let Some((_, answer)) = state.closed.as_ref().filter(|(path, _)| *path == asked.path) {
        return Ok(send(answer, &Variables::new(), ""));
    }
    let found = list(&document["routes"]).iter().find_map(|r| Some((r, demand::path(r, asked)?)));
    let Some((route, mut variables)) = found else { return Err(Refusal::new("there is no such route")) };
    demand::headers(route, asked)?;
    if route["takes"].is_object()
        && let Some(answer) = state.instead.take()
    {
        return Ok(send(&answer, &variables, ""));
    }
    let refused = |mut refusal: Refusal| {
        refusal.why = format!("{} ({})", refusal.why, route["docs"].as_str().unwrap_or("no page of documentation"));
        match &route["refused"] {
            Value::Null => {}
            answer => refusal.answer = answer.clone(),
        }
        refusal
    };
    variables.insert("url".to_owned(), Value::from(format!("http://{}", asked.header("host").unwrap_or_default())));
    demand::parameters(route, asked, &mut variables).map_err(refused)?;
    let once = route["once"].as_str().and_then(|header| asked.header(header)).map(|key| format!("{} {key}", asked.path));
    if let Some(done) = once.as_ref().and_then(|once| state.done.get(once)) {
        return Ok(done.clone());
    }
    let taken = take::take(route, &asked.body, &mut state.kept, &mut variables);
    let paged = taken.and_then(|()| page::fill_in(route, state.later, &state.kept, &mut variables));
    state.seen.note(route, &variables, paged.is_ok());
    paged.map_err(refused)?;
    let is_empty = variables.get("records").and_then(Value::as_array).is_some_and(Vec::is_empty);
    if is_empty && !route["none"].is_null() {
        return Ok(send(&route["none"], &variables, ""));
    }
    let is_list = |name: &str| variables.get(name).and_then(Value::as_array).map(|list| !list.is_empty());
    let status = match (is_list("wrong"), is_list("results")) {
        (Some(true), Some(false)) if !route["nothing"].is_null() => &route["nothing"],
        (Some(true), _) => &route["some"],
        _ => &route["status"],
    };
    let whole = json!({"status": status.as_u64().unwrap_or(200), "headers": route["headers"], "body": route["answer"]});
    let answer = send(&whole, &variables, route["type"].as_str().unwrap_or_default());
    if let Some(once) = once {
        state.done.insert(once, answer.clone());
    }
    Ok(answer)
}

/// Sends `{status, headers, body}` with the variables filled in.
fn send(answer: &Value, variables: &Variables, content_type: &str) -> Answer {
    let status = answer["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(200);
    let mut sent = match fill::fill(&answer["body"], variables) {
        Value::String(text) => Answer::text(status, &text),
        Value::Null => Answer::text(status, ""),
        body => Answer::text(status, &body.to_string()).header("Content-Type", "application/json"),
    };
    if !content_type.is_empty() {
        sent = sent.header("Content-Type", content_type);
    }
    if let Value::Object(headers) = fill::fill(&answer["headers"], variables) {
        for (name, value) in &headers {
            sent = sent.header(name, &fill::text(value));
        }
    }
    sent
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, body: &str) -> Asked {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = vec![("authorization".to_owned(), "Bearer x".to_owned()), ("host".to_owned(), "h:1".to_owned())];
        Asked { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), headers, body: body.to_owned() }
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn a_document_answers() {
        let document = json!({
            "every": [{"header": {"authorization": "Bearer x"}, "else": {"status": 401}}],
            "limit": {"request": 3, "answer": {"status": 429, "headers": {"Retry-After": "1"}}},
            "routes": [{
                "path": "/v1/{shop}/orders", "query": {"limit": "1..3", "after?": "\\d+", "since?": ".*"},
                "records": [{"id": 1, "at": "2026-01-01T00:00:00Z"}, {"of": 3, "each": {"id": "$n", "at": {"from": "2026-01-02T00:00:00Z", "step": 60}}}],
                "later": [{"id": 9, "at": "2026-02-01T00:00:00Z"}],
                "keep": [["at", ">=", "since"]],
                "pages": {"after": "after", "by": "id", "size": "limit"},
                "answer": {"shop": "$shop", "data": "$records", "next?": "$url/orders?after=$next"},
            }],
        });
        let mut state = State::default();
        let mut ask = |target: &str| answer(&document, &mut state, &asked("GET", target, ""));
        let first = body(&ask("/v1/a/orders?limit=3"));
        assert_eq!((&first["shop"], &first["next"]), (&json!("a"), &json!("http://h:1/orders?after=2")), "{first}");
        assert_eq!(first["data"][2], json!({"id": 2, "at": "2026-01-02T00:01:00Z"}));
        let last = body(&ask("/v1/a/orders?limit=3&after=2"));
        assert_eq!((last["data"].as_array().unwrap().len(), last.get("next")), (1, None));
        assert_eq!(ask("/v1/a/orders?limit=3").status, 429);
        let since = body(&ask("/v1/a/orders?limit=3&since=2026-01-02T00%3A02%3A00Z"));
        assert_eq!(since["data"].as_array().unwrap().len(), 1);
        for wrong in ["/v1/a/orders", "/v1/a/orders?limit=4", "/v1/a/orders?limit=1&x=1", "/v2", "/v1/a/orders?limit=1&after=77"] {
            assert_eq!(ask(wrong).status, 400, "{wrong}");
        }
        assert_eq!((state.served, state.limited, state.refusals.len()), (3, 1, 5));
    }
}
