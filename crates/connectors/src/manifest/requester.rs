//! Sends requests: authenticates, waits for the budget, tries again as the error handler says.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
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
use super::request_parts::{RequestParts, seconds};
use super::slice::Slice;
use super::template::Scope;

/// No request is tried for longer than this.
const MOST_TIME: Duration = Duration::from_mins(10);
/// Between an answer that asks one token to wait, and the request of another.
const ANOTHER_TOKEN: Duration = Duration::from_millis(100);

pub(super) struct Requester {
    parts: RequestParts,
    auth: Authenticator,
    handler: ErrorHandler,
    use_cache: bool,
    /// For making a connection.
    connect_timeout: Option<Duration>,
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
        Ok(Self {
            parts: RequestParts::build(node)?,
            auth: node.get("authenticator").map_or(Ok(Authenticator::None), |a| Authenticator::build(env, &a, node))?,
            handler: node.get("error_handler").map_or_else(|| Ok(ErrorHandler::default()), |h| ErrorHandler::build(&h))?,
            use_cache: node.get("use_cache").map_or(use_cache, |c| c.value.as_bool().unwrap_or(use_cache)),
            connect_timeout: seconds(node, "connect_timeout_in_seconds"),
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
        let mut request = self.parts.request(&url, options, Vec::new())?;
        // Whoever has a signature could send the same once more.
        request.headers.extend(call.signed.iter().map(|(name, _)| (name.clone(), BLANK.to_owned())));
        Ok(request)
    }

    fn prepared(&self, env: &Env, call: Call<'_>, extra: Options) -> Result<(Url, Options)> {
        let scope = scope(env, call);
        let url = self.parts.url_of(&scope, call.path)?;
        let mut options = self.parts.own_options(&scope, call.slice)?;
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
            let bare = || self.parts.request(&url, options.clone(), Vec::new());
            let secret_headers = Box::pin(self.auth.apply(env, &mut authenticated, &bare)).await?;
            let request = signed(env, call, self.parts.request(&url, authenticated, secret_headers)?)?;
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
