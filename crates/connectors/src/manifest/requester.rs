//! Sends requests: puts them together, authenticates, waits for the budget, tries again as the error handler says.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::{Request, Response, shown};
use trib_kit::scrub::BLANK;
use url::Url;

use super::auth::Authenticator;
use super::backoff::{growing, retry_after};
use super::env::Env;
use super::error_handler::{Action, ErrorHandler, FailureType, Resolution, error_message};
use super::node::{Expr, Node};
use super::options::Options;
use super::slice::Slice;
use super::template::{LiteralType, Scope, python_str};

/// No request is tried for longer than this.
const MOST_TIME: Duration = Duration::from_mins(10);
/// Each exchange, where the manifest says nothing.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Between an answer that asks one token to wait, and the request of another.
const ANOTHER_TOKEN: Duration = Duration::from_millis(100);
const METHODS_WITH_BODY: [&str; 3] = ["POST", "PUT", "PATCH"];

pub(super) struct Requester {
    method: String,
    url: Option<Expr>,
    url_base: Option<Expr>,
    path: Option<Expr>,
    params: Input,
    headers: Input,
    data: Input,
    json: Body,
    auth: Authenticator,
    handler: ErrorHandler,
    use_cache: bool,
    /// The query's key whose value is a list of properties; see [`super::properties`].
    properties_key: Option<String>,
    timeout: Duration,
    /// For making a connection.
    connect_timeout: Option<Duration>,
}

/// Templates by key, or one template that gives all.
enum Input {
    Map(Vec<(Expr, Entry)>),
    Whole(Expr),
}

enum Entry {
    Template(Expr),
    Value(Value),
}

/// A JSON body: templates at its leaves.
pub(super) enum Body {
    Object(Vec<(Expr, Body)>),
    List(Vec<Body>),
    Template(Expr),
    Value(Value),
}

/// What one request is about.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) slice: &'a Slice,
    /// `{"next_page_token": …}`
    pub(super) token: Option<&'a Value>,
    /// In place of the requester's own path.
    pub(super) path: Option<&'a str>,
    /// What templates see besides.
    pub(super) about: &'a [(&'static str, Value)],
    /// Headers that are made of the finished body, for each try anew.
    pub(super) signed: &'a [(String, Expr)],
    /// Who is told of each try.
    pub(super) witness: Option<&'a dyn Witness>,
}

/// Somebody who is told of each try of a request.
#[async_trait]
pub(super) trait Witness: Send + Sync {
    /// Waits until a try may be prepared: what waits with credentials in it may find them outdated.
    async fn turn(&self) -> Result<()>;

    /// All waiting is over, and the request is the next to go. An error keeps it here.
    async fn leaving(&self) -> Result<()>;

    /// Before the next try, `wait` goes by because of what the last one came to.
    fn waits(&self, wait: Duration, why: String);

    /// Comes when there is no point in waiting any longer.
    async fn stopped(&self);

    /// What came of it; an error is that no answer came.
    async fn answered(&self, request: &Request, sent: &Result<Response>) -> Result<()>;
}

impl<'a> Call<'a> {
    /// Asks what the manifest says, and nothing of its own.
    pub(super) fn plain(slice: &'a Slice) -> Self {
        Self { slice, token: None, path: None, about: &[], signed: &[], witness: None }
    }
}

/// What came of a request that changes something at the API.
pub(super) enum Reply {
    Taken(Response),
    /// Refused because of what it carries: other credentials or another try would not mend it.
    Refused(String),
    /// It may have arrived or not.
    Lost(Error),
    /// It had no effect, and no other call would have one: the credentials are not accepted, or the API is not to be had.
    Undone(Error),
}

pub(super) enum Answer {
    Response(Response),
    Refused(Refusal),
}

/// The manifest knows what to ask instead. Each with what the API said.
pub(super) enum Refusal {
    /// Begin with the first page again.
    Reset,
    /// Ask for smaller pages.
    Smaller(String),
    /// Ask for a narrower window.
    Split(String),
}

/// A request with its last answer.
struct Tried {
    request: Request,
    sent: Result<Response>,
    resolution: Resolution,
    attempt: u32,
}

/// `None`: there is no point in waiting any longer.
async fn unless_stopped<T>(witness: Option<&dyn Witness>, waiting: impl Future<Output = T>) -> Option<T> {
    let Some(witness) = witness else { return Some(waiting.await) };
    tokio::select! {
        done = waiting => Some(done),
        () = witness.stopped() => None,
    }
}

/// What says only that somebody has ended the work.
pub(super) fn stopped() -> Error {
    Error::new(Code::Cancelled, "the delivery was stopped")
}

/// The request cannot have reached anybody.
fn never_left(error: &Error) -> bool {
    matches!(error.code(), Code::ConnectionRefused | Code::HostUnknown | Code::TlsFailed)
}

/// Of the answers that are worth another try, those after which a change may have been made.
fn may_have_worked(status: u16) -> bool {
    !matches!(status, 429 | 503)
}

impl Requester {
    /// `use_cache` is what holds unless the manifest says otherwise.
    pub(super) fn build(env: &Env, node: &Node<'_>, use_cache: bool) -> Result<Self> {
        if node.kind() != "HttpRequester" {
            return Err(node.unsupported());
        }
        let (data, json) = match node.get("request_body") {
            None => (Input::build(node, "request_body_data", &[])?, Body::build(node, "request_body_json")?),
            Some(body) => match body.kind() {
                "RequestBodyUrlEncodedForm" | "RequestBodyPlainText" => (Input::build(&body, "value", &[])?, Body::none()),
                "RequestBodyGraphQL" | "RequestBodyJsonObject" => (Input::Map(Vec::new()), Body::build(&body, "value")?),
                _ => return Err(body.unsupported()),
            },
        };
        let properties_key = super::properties::key_in_parameters(node);
        let skip: Vec<&str> = properties_key.as_deref().into_iter().collect();
        let seconds = |name: &str| node.number(name).filter(|s| *s > 0.0 && *s < 86_400.0).map(Duration::from_secs_f64);
        Ok(Self {
            method: node.text("http_method").unwrap_or("GET").to_owned(),
            url: node.expr("url")?,
            url_base: node.expr("url_base")?,
            path: node.expr("path")?,
            params: Input::build(node, "request_parameters", &skip)?,
            headers: Input::build(node, "request_headers", &[])?,
            data,
            json,
            auth: node.get("authenticator").map_or(Ok(Authenticator::None), |a| Authenticator::build(env, &a, node))?,
            handler: node.get("error_handler").map_or_else(|| Ok(ErrorHandler::default()), |h| ErrorHandler::build(&h))?,
            use_cache: node.get("use_cache").map_or(use_cache, |c| c.value.as_bool().unwrap_or(use_cache)),
            properties_key,
            timeout: seconds("read_timeout_in_seconds").unwrap_or(TIMEOUT),
            connect_timeout: seconds("connect_timeout_in_seconds"),
        })
    }

    /// The same with other credentials.
    pub(super) fn with_auth(self, auth: Authenticator) -> Self {
        Self { auth, ..self }
    }

    /// `extra` is what paginator and slice put into the request.
    pub(super) async fn send(&self, env: &Env, call: Call<'_>, extra: Options) -> Result<Answer> {
        let Tried { request, sent, resolution, attempt } = self.tried(env, call, extra, true).await?;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Err(error.hint(format!("tried {attempt} times"))),
        };
        match resolution.action {
            Action::Success | Action::Ignore => {
                if self.use_cache {
                    env.cache.put(&request, &response);
                }
                Ok(Answer::Response(response))
            }
            Action::ResetPagination => Ok(Answer::Refused(Refusal::Reset)),
            Action::ReducePageSize => Ok(Answer::Refused(Refusal::Smaller(said(env, &response, &resolution)))),
            Action::SplitRequestWindow => Ok(Answer::Refused(Refusal::Split(said(env, &response, &resolution)))),
            _ => Err(refused(env, &request, &response, &resolution, attempt)),
        }
    }

    /// Sends what changes something at the API. Where it is not `repeatable`, it is sent again only if it cannot have had an effect.
    pub(super) async fn change(&self, env: &Env, call: Call<'_>, extra: Options, repeatable: bool) -> Result<Reply> {
        let Tried { request, sent, resolution, attempt } = self.tried(env, call, extra, repeatable).await?;
        let response = match sent {
            Ok(response) => response,
            Err(error) if never_left(&error) => return Ok(Reply::Undone(error.hint(format!("tried {attempt} times")))),
            Err(error) if repeatable => return Err(error.hint(format!("tried {attempt} times"))),
            Err(error) => return Ok(Reply::Lost(error)),
        };
        let error = || refused(env, &request, &response, &resolution, attempt);
        match resolution.action {
            Action::Success | Action::Ignore => Ok(Reply::Taken(response)),
            Action::Fail if resolution.failure == FailureType::System => {
                let said = [error_message(&response), resolution.message.clone()].into_iter().flatten().find(|m| !m.trim().is_empty());
                let said = said.unwrap_or_else(|| format!("the API answered {}", response.status));
                let said: String = said.chars().take(500).collect();
                Ok(Reply::Refused(env.without_secrets(&said)))
            }
            Action::Retry if !may_have_worked(response.status) => Ok(Reply::Undone(error())),
            Action::Retry if repeatable => Err(error()),
            Action::Retry => Ok(Reply::Lost(error())),
            _ => Ok(Reply::Undone(error())),
        }
    }

    /// The request as it would go out, without its credentials.
    pub(super) fn preview(&self, env: &Env, call: Call<'_>, extra: Options) -> Result<Request> {
        let (url, options) = self.prepared(env, call, extra)?;
        let mut request = self.request(&url, options, Vec::new())?;
        // Whoever has a signature could send the same once more.
        request.headers.extend(call.signed.iter().map(|(name, _)| (name.clone(), BLANK.to_owned())));
        Ok(request)
    }

    fn prepared(&self, env: &Env, call: Call<'_>, extra: Options) -> Result<(Url, Options)> {
        let scope = scope(env, call);
        let url = self.url_of(&scope, call.path)?;
        let mut options = self.own_options(&scope, call.slice)?;
        options.merge(extra)?;
        options.compose()?;
        Ok((url, options))
    }

    /// Sends a request until an answer settles it, or no further try is left. `repeatable`: it may be sent again when nobody knows whether it
    /// arrived.
    async fn tried(&self, env: &Env, call: Call<'_>, extra: Options, repeatable: bool) -> Result<Tried> {
        let (url, options) = self.prepared(env, call, extra)?;
        let began = Instant::now();
        let most = self.handler.max_retries(env)? + 1;
        let mut attempt = 0;
        let mut refreshed = None;
        loop {
            attempt += 1;
            if let Some(witness) = call.witness {
                witness.turn().await?;
            }
            let mut authenticated = options.clone();
            let bare = || self.request(&url, options.clone(), Vec::new());
            let secret_headers = Box::pin(self.auth.apply(env, &mut authenticated, &bare)).await?;
            let request = signed(env, call, self.request(&url, authenticated, secret_headers)?)?;
            let sent = self.exchange(env, &request, call.witness).await?;
            if let Ok(response) = &sent {
                self.auth.learn(&request, response);
            }
            let resolution = match &sent {
                Ok(response) => self.handler.resolve(env, response)?,
                // Whoever cannot prove who they are will not be able to a second later.
                Err(error) if error.code() == Code::TlsFailed => {
                    Resolution { action: Action::Fail, failure: FailureType::System, message: None }
                }
                // No answer at all: worth another try, whatever the handler knows.
                Err(_) => Resolution { action: Action::Retry, failure: FailureType::Transient, message: None },
            };
            let again = match resolution.action {
                Action::RefreshTokenThenRetry if refreshed.is_none() => {
                    refreshed = Some(Box::pin(self.auth.refresh(env, &request)).await?);
                    true
                }
                Action::RateLimited => true,
                Action::Retry => {
                    let in_doubt = sent.as_ref().map_or_else(|e| !never_left(e), |response| may_have_worked(response.status));
                    repeatable || !in_doubt
                }
                _ => false,
            };
            if !again || attempt >= most || began.elapsed() >= MOST_TIME {
                return Ok(Tried { request, sent, resolution, attempt });
            }
            if resolution.action == Action::RefreshTokenThenRetry && refreshed == Some(true) {
                // A new token is no better for waiting, and might run out meanwhile.
                continue;
            }
            if resolution.action == Action::RateLimited && self.auth.has_other(&request) {
                tokio::time::sleep(ANOTHER_TOKEN).await;
                continue;
            }
            let limited = sent.as_ref().is_ok_and(|r| r.status == 429) || resolution.action == Action::RateLimited;
            let told = || sent.as_ref().ok().filter(|r| limited || r.status == 503).and_then(retry_after);
            let seconds = self.handler.backoff(env, sent.as_ref().ok(), attempt)?.or_else(told);
            // A wait that somebody asked for gets a second on top: clocks differ.
            let wait = seconds.map_or_else(|| growing(attempt), |s| s + 1.0).clamp(0.0, 86_400.0);
            let wait = Duration::from_secs_f64(wait);
            tracing::info!(
                url = env.without_secrets(&shown(&request.url)),
                attempt,
                seconds = wait.as_secs_f64(),
                "the request is sent again"
            );
            if limited {
                let budgeted = env.budget.as_ref().is_some_and(|budget| budget.covers(&request));
                env.pace.limited(&request.url, wait, budgeted);
            }
            if let Some(witness) = call.witness {
                let why = sent.as_ref().map_or_else(ToString::to_string, |r| format!("{} answered {}", shown(&request.url), r.status));
                witness.waits(wait, env.without_secrets(&why));
            }
            if unless_stopped(call.witness, tokio::time::sleep(wait)).await.is_none() {
                return Ok(Tried { request, sent, resolution, attempt });
            }
        }
    }

    /// One try. The inner error is that no answer came.
    async fn exchange(&self, env: &Env, request: &Request, witness: Option<&dyn Witness>) -> Result<Result<Response>> {
        if self.use_cache
            && let Some(kept) = env.cache.get(request)
        {
            return Ok(Ok(kept));
        }
        let turn = async {
            let under_way = env.pace.enter(&request.url).await;
            let spending = match &env.budget {
                Some(budget) => budget.acquire(request).await,
                None => None,
            };
            (under_way, spending)
        };
        let Some(_turn) = unless_stopped(witness, turn).await else { return Err(stopped()) };
        let client = match self.connect_timeout {
            None => env.client.clone(),
            Some(limit) => env.client_within(limit)?,
        };
        if let Some(witness) = witness {
            witness.leaving().await?;
        }
        let sent = client.send(request.clone()).await.map_err(|e| {
            let detail = env.without_secrets(e.detail_text().unwrap_or_default());
            e.detail(detail)
        });
        if let Some(witness) = witness {
            witness.answered(request, &sent).await?;
        }
        if let Ok(response) = &sent {
            if let Some(budget) = &env.budget {
                budget.learn(request, response);
            }
            if response.ok() {
                env.pace.answered(&request.url);
            }
        }
        Ok(sent)
    }

    fn url_of(&self, scope: &Scope<'_>, path: Option<&str>) -> Result<Url> {
        let text = |expr: &Option<Expr>| Expr::text_or(expr.as_ref(), "", scope);
        let (url, base) = (text(&self.url)?, text(&self.url_base)?);
        let path = match path.filter(|p| !p.is_empty()) {
            Some(path) => path.to_owned(),
            None => text(&self.path)?.trim_start_matches('/').to_owned(),
        };
        join(if base.is_empty() { &url } else { &base }, &path)
    }

    fn own_options(&self, scope: &Scope<'_>, slice: &Slice) -> Result<Options> {
        let lists = Some([LiteralType::String, LiteralType::List].as_slice());
        let mut options = Options {
            params: object(self.params.eval(scope, lists)?),
            headers: object(self.headers.eval(scope, None)?),
            ..Options::default()
        };
        match self.data.eval(scope, lists)? {
            Value::Object(map) => options.data = map,
            Value::Null => {}
            other => options.data_text = Some(python_str(&other)).filter(|t| !t.is_empty()),
        }
        match self.json.eval(scope)? {
            Value::Object(map) => options.json = map,
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            _ => return Err(Error::new(Code::ConfigInvalid, "a JSON body must be an object")),
        }
        if let Some(key) = &self.properties_key {
            let list = slice.extra.get(super::properties::EXTRA).and_then(Value::as_array);
            let names: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
            options.params.insert(key.clone(), Value::String(names.join(",")));
        }
        if let Some((key, _)) = options.params.iter().find(|(_, v)| v.is_object()) {
            return Err(Error::new(Code::ConfigInvalid, "a request parameter cannot be an object").detail(key.clone()));
        }
        Ok(options)
    }

    fn request(&self, url: &Url, options: Options, secret_headers: Vec<String>) -> Result<Request> {
        let mut url = url.clone();
        // What the URL says already is not said twice.
        let known: Vec<(String, String)> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let said = |key: &str, value: &Value| known.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| *v == python_str(value));
        let pairs: Vec<(String, String)> = pairs(options.params.into_iter().filter(|(k, v)| !said(k, v)));
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let mut headers: Vec<(String, String)> = options.headers.into_iter().map(|(k, v)| (k, python_str(&v))).collect();
        let mut body = None;
        if METHODS_WITH_BODY.contains(&self.method.as_str()) {
            let has_data = !options.data.is_empty() || options.data_text.is_some();
            let content_type = if !options.json.is_empty() {
                if has_data {
                    return Err(Error::new(Code::ConfigInvalid, "a request has either a JSON body or another, not both"));
                }
                body = Some(Bytes::from(serde_json::to_vec(&options.json)?));
                Some("application/json")
            } else if let Some(text) = options.data_text {
                body = Some(Bytes::from(text));
                None
            } else if has_data {
                let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(self::pairs(options.data)).finish();
                body = Some(Bytes::from(form));
                Some("application/x-www-form-urlencoded")
            } else {
                None
            };
            if let Some(content_type) = content_type.filter(|_| !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type"))) {
                headers.push(("Content-Type".to_owned(), content_type.to_owned()));
            }
        }
        Ok(Request { method: self.method.clone(), url, headers, secret_headers, body, timeout: Some(self.timeout) })
    }
}

/// Keys and values as a query or a form has them: a list repeats its key.
pub(super) fn pairs(map: impl IntoIterator<Item = (String, Value)>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in map {
        match value {
            Value::Null => {}
            Value::Array(items) => pairs.extend(items.iter().filter(|i| !i.is_null()).map(|item| (key.clone(), python_str(item)))),
            other => pairs.push((key, python_str(&other))),
        }
    }
    pairs
}

/// A base with its path: a whole URL as the path takes the base's place.
fn join(base: &str, path: &str) -> Result<Url> {
    let wrong = |text: &str| {
        let without_query = text.split(['?', '#']).next().unwrap_or_default().to_owned();
        Error::new(Code::ConfigInvalid, "the request's address is not a URL").detail(without_query)
    };
    if path.is_empty() {
        return Url::parse(base).map_err(|_| wrong(base));
    }
    if base.is_empty() {
        return Url::parse(path).map_err(|_| wrong(path));
    }
    let mut base = base.to_owned();
    if !base.ends_with('/') {
        base.push('/');
    }
    Url::parse(&base).and_then(|b| b.join(path)).map_err(|_| wrong(&base))
}

fn scope<'a>(env: &'a Env, call: Call<'a>) -> Scope<'a> {
    let scope = call.slice.scope(env.scope()).with("next_page_token", call.token.unwrap_or(&Value::Null));
    call.about.iter().fold(scope, |scope, (name, value)| scope.with(name, value))
}

/// The request with headers that are made of its body: templates see `body`, and `timestamp` in seconds.
fn signed(env: &Env, call: Call<'_>, mut request: Request) -> Result<Request> {
    if call.signed.is_empty() {
        return Ok(request);
    }
    let body = Value::from(request.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default());
    let timestamp = Value::from(chrono::Utc::now().timestamp());
    for (name, template) in call.signed {
        let value = template.text(&scope(env, call).with("body", &body).with("timestamp", &timestamp))?;
        request.headers.push((name.clone(), value));
        request.secret_headers.push(name.clone());
    }
    Ok(request)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Input {
    fn build(node: &Node<'_>, name: &str, skip: &[&str]) -> Result<Self> {
        let Some(field) = node.get(name) else { return Ok(Input::Map(Vec::new())) };
        let Some(map) = field.value.as_object() else { return Ok(Input::Whole(node.compile(field.value)?)) };
        let entry = |(key, value): (&String, &Value)| -> Result<(Expr, Entry)> {
            let key = node.compile(&Value::String(key.clone()))?;
            Ok((key, if value.is_string() { Entry::Template(node.compile(value)?) } else { Entry::Value(value.clone()) }))
        };
        let entries =
            map.iter().filter(|(key, _)| !skip.contains(&key.as_str()) && key.as_str() != super::parameters::PARAMETERS).map(entry);
        Ok(Input::Map(entries.collect::<Result<_>>().map_err(|e| e.setting(field.path))?))
    }

    /// An object without what rendered to nothing, or what the one template gives.
    fn eval(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value> {
        let entries = match self {
            Input::Whole(expr) => return expr.eval_as(scope, None),
            Input::Map(entries) => entries,
        };
        let mut map = Map::with_capacity(entries.len());
        for (key, entry) in entries {
            let value = match entry {
                Entry::Template(expr) => expr.entry(scope, valid)?,
                Entry::Value(value) => value.clone(),
            };
            if !value.is_null() {
                map.insert(python_str(&key.eval_as(scope, Some(&[LiteralType::String]))?), value);
            }
        }
        Ok(Value::Object(map))
    }
}

impl Body {
    fn none() -> Self {
        Body::Value(Value::Null)
    }

    pub(super) fn build(node: &Node<'_>, name: &str) -> Result<Self> {
        node.get(name).map_or(Ok(Body::none()), |field| Self::part(node, field.value).map_err(|e| e.setting(field.path)))
    }

    fn part(node: &Node<'_>, value: &Value) -> Result<Self> {
        Ok(match value {
            Value::String(_) => Body::Template(node.compile(value)?),
            Value::Array(items) => Body::List(items.iter().map(|i| Self::part(node, i)).collect::<Result<_>>()?),
            Value::Object(map) => {
                let own = map.iter().filter(|(k, _)| k.as_str() != super::parameters::PARAMETERS);
                let entry = |(k, v): (&String, &Value)| Ok((node.compile(&Value::String(k.clone()))?, Self::part(node, v)?));
                Body::Object(own.map(entry).collect::<Result<_>>()?)
            }
            other => Body::Value(other.clone()),
        })
    }

    pub(super) fn eval(&self, scope: &Scope<'_>) -> Result<Value> {
        Ok(match self {
            Body::Template(expr) => expr.entry(scope, None)?,
            Body::Value(value) => value.clone(),
            Body::List(items) => Value::Array(items.iter().map(|i| i.eval(scope)).collect::<Result<_>>()?),
            Body::Object(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, part) in entries {
                    let value = part.eval(scope)?;
                    if !value.is_null() {
                        map.insert(key.text(scope)?, value);
                    }
                }
                Value::Object(map)
            }
        })
    }
}

/// The error for an answer that is a failure. What the API says about it is shown, the configuration's secrets in it are not.
fn refused(env: &Env, request: &Request, response: &Response, resolution: &Resolution, attempt: u32) -> Error {
    let (code, what) = match (resolution.failure, response.status) {
        (_, 401) if resolution.action == Action::RefreshTokenThenRetry => (Code::AuthFailed, "the API does not accept the credentials"),
        (FailureType::Config, 401) => (Code::AuthFailed, "the API does not accept the credentials"),
        (FailureType::Config, 403) => (Code::PermissionDenied, "the API does not permit this with these credentials"),
        (FailureType::Config, _) => (Code::ConfigInvalid, "the API refuses the request because of the configuration"),
        (FailureType::Transient, 429) => (Code::RateLimited, "the API asks for fewer requests"),
        (FailureType::Transient, _) => (Code::Unavailable, "the API could not answer"),
        (FailureType::System, _) => (Code::SystemError, "the API refuses the request"),
    };
    let detail = format!("{} {} answered {}: {}", request.method, shown(&request.url), response.status, said(env, response, resolution));
    let error = Error::new(code, what).detail(env.without_secrets(&detail));
    match resolution.action {
        Action::RefreshTokenThenRetry => error.hint("the token was renewed, and is refused all the same"),
        Action::Retry | Action::RateLimited => error.hint(format!("tried {attempt} times")),
        _ => error,
    }
}

/// The manifest's words for an answer, and the API's own.
fn said(env: &Env, response: &Response, resolution: &Resolution) -> String {
    let told: String = error_message(response).unwrap_or_default().chars().take(500).collect();
    let parts = [resolution.message.clone().unwrap_or_default(), told];
    let said: Vec<String> = parts.into_iter().filter(|p| !p.trim().is_empty()).collect();
    env.without_secrets(&said.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_joined() {
        let cases = [
            ("https://a.example/v1", "items", "https://a.example/v1/items"),
            ("https://a.example/v1/", "items?x=1", "https://a.example/v1/items?x=1"),
            ("https://a.example/v1/x?y=1", "", "https://a.example/v1/x?y=1"),
            ("https://a.example/v1", "https://b.example/next", "https://b.example/next"),
            ("https://a.example/v1", "/next", "https://a.example/next"),
        ];
        for (base, path, expected) in cases {
            assert_eq!(join(base, path).unwrap().as_str(), expected);
        }
        assert_eq!(join("nowhere", "x?key=secret").unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn lists_repeat_their_key() {
        let Value::Object(map) = json!({"a": [1, "b", null], "t": true, "n": null, "f": 1.0}) else { panic!() };
        let expected = [("a", "1"), ("a", "b"), ("t", "True"), ("f", "1.0")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(map), expected);
    }
}
