//! What an answer means: success, failure, try again.

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;

use super::backoff::Backoff;
use super::env::Env;
use super::node::{Expr, Node};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Success,
    Fail,
    Retry,
    Ignore,
    ResetPagination,
    RateLimited,
    RefreshTokenThenRetry,
    ReducePageSize,
    SplitRequestWindow,
}

/// The reference's three kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureType {
    System,
    Config,
    Transient,
}

/// The kind of failure that an error is, in the reference's words.
pub fn failure_type(error: &Error) -> &'static str {
    use trib_core::error::{Blame, Retry};
    match (error.code().blame(), error.code().retry()) {
        (Blame::User, _) => "config_error",
        (Blame::External, Retry::Backoff) => "transient_error",
        _ => "system_error",
    }
}

/// What a handler makes of an answer.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    pub(super) action: Action,
    pub(super) failure: FailureType,
    /// For people; the manifest's own words where it has some.
    pub(super) message: Option<String>,
}

pub(super) enum ErrorHandler {
    Default(DefaultHandler),
    Composite(Vec<ErrorHandler>),
}

pub(super) struct DefaultHandler {
    filters: Vec<Filter>,
    strategies: Vec<Backoff>,
    max_retries: Option<Expr>,
}

struct Filter {
    action: Option<Action>,
    failure: Option<FailureType>,
    codes: Vec<i64>,
    predicate: Option<Expr>,
    contains: Option<String>,
    message: Option<Expr>,
}

impl Default for ErrorHandler {
    fn default() -> Self {
        ErrorHandler::Default(DefaultHandler { filters: Vec::new(), strategies: Vec::new(), max_retries: None })
    }
}

impl ErrorHandler {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        match node.kind() {
            "DefaultErrorHandler" => Ok(ErrorHandler::Default(DefaultHandler {
                filters: node.items("response_filters").iter().map(Filter::build).collect::<Result<_>>()?,
                strategies: node.items("backoff_strategies").iter().map(Backoff::build).collect::<Result<_>>()?,
                max_retries: node.expr("max_retries")?,
            })),
            "CompositeErrorHandler" => {
                let handlers = node.items("error_handlers").iter().map(Self::build).collect::<Result<Vec<_>>>()?;
                if handlers.is_empty() {
                    return Err(node.wrong("a composite error handler needs at least one handler"));
                }
                Ok(ErrorHandler::Composite(handlers))
            }
            _ => Err(node.unsupported()),
        }
    }

    /// How often a request is sent again at most.
    pub(super) fn max_retries(&self, env: &Env) -> Result<u32> {
        match self {
            ErrorHandler::Composite(handlers) => handlers.first().map_or(Ok(5), |h| h.max_retries(env)),
            ErrorHandler::Default(handler) => match &handler.max_retries {
                None => Ok(5),
                Some(expr) => {
                    let value = expr.eval(&env.scope())?;
                    let number = value.as_i64().or_else(|| value.as_str().and_then(|t| t.trim().parse().ok()));
                    let number = number.ok_or_else(|| Error::new(Code::ConfigInvalid, "`max_retries` does not give a number"))?;
                    Ok(u32::try_from(number).unwrap_or(0))
                }
            },
        }
    }

    pub(super) fn resolve(&self, env: &Env, response: &Response) -> Result<Resolution> {
        match self {
            ErrorHandler::Default(handler) => handler.resolve(env, response),
            ErrorHandler::Composite(handlers) => {
                let mut last = None;
                for handler in handlers {
                    let resolution = handler.resolve(env, response)?;
                    // A failure or a limit is what the next handler may know better.
                    let settles = !matches!(resolution.action, Action::Fail | Action::RateLimited | Action::RefreshTokenThenRetry);
                    last = Some(resolution);
                    if settles {
                        break;
                    }
                }
                last.ok_or_else(|| Error::internal("a composite error handler without handlers"))
            }
        }
    }

    /// Seconds from the first strategy that can tell, in the order of the handlers.
    pub(super) fn backoff(&self, env: &Env, response: Option<&Response>, attempt: u32) -> Result<Option<f64>> {
        match self {
            ErrorHandler::Default(handler) => {
                for strategy in &handler.strategies {
                    if let Some(seconds) = strategy.seconds(env, response, attempt)?.filter(|s| *s != 0.0) {
                        return Ok(Some(seconds));
                    }
                }
                Ok(None)
            }
            ErrorHandler::Composite(handlers) => {
                for handler in handlers {
                    if let Some(seconds) = handler.backoff(env, response, attempt)? {
                        return Ok(Some(seconds));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl DefaultHandler {
    fn resolve(&self, env: &Env, response: &Response) -> Result<Resolution> {
        let facts = Facts::of(response, self.filters.iter().any(Filter::looks_inside));
        for filter in &self.filters {
            if let Some(action) = filter.action
                && filter.matches(response, &facts)?
            {
                return filter.resolution(env, action, response, &facts);
            }
        }
        if response.ok() {
            return Ok(Resolution { action: Action::Success, failure: FailureType::System, message: None });
        }
        Ok(by_status(response.status).unwrap_or(Resolution { action: Action::Retry, failure: FailureType::System, message: None }))
    }
}

/// What a status means where no filter says otherwise.
fn by_status(status: u16) -> Option<Resolution> {
    let (action, failure, message) = match status {
        400 => (Action::Fail, FailureType::System, "bad request"),
        401 => (Action::Fail, FailureType::Config, "not authenticated: the credentials are not accepted"),
        403 => (Action::Fail, FailureType::Config, "forbidden: the credentials do not permit this"),
        404 => (Action::Fail, FailureType::System, "not found"),
        405 => (Action::Fail, FailureType::System, "the method is not allowed"),
        408 => (Action::Retry, FailureType::Transient, "the server gave up waiting for the request"),
        429 => (Action::RateLimited, FailureType::Transient, "too many requests"),
        500 => (Action::Retry, FailureType::Transient, "the server failed"),
        502 => (Action::Retry, FailureType::Transient, "bad gateway"),
        503 => (Action::Retry, FailureType::Transient, "the service is unavailable"),
        504 => (Action::Retry, FailureType::Transient, "the gateway got no answer in time"),
        _ => return None,
    };
    Some(Resolution { action, failure, message: Some(message.to_owned()) })
}

/// An answer as filters see it; made only when one looks inside.
struct Facts {
    body: Value,
    headers: Value,
    url: Value,
}

impl Facts {
    fn of(response: &Response, needed: bool) -> Self {
        if !needed {
            return Self { body: Value::Null, headers: Value::Null, url: Value::Null };
        }
        let url = Value::String(trib_kit::http::shown(&response.url));
        Self { body: body_json(response), headers: headers_value(response), url }
    }
}

/// The body, or an empty object when it is not JSON.
pub(super) fn body_json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| Value::Object(Map::new()))
}

pub(super) fn headers_value(response: &Response) -> Value {
    let mut map = Map::new();
    for (name, _) in &response.headers {
        if !map.contains_key(name) {
            map.insert(name.clone(), Value::String(response.header(name).unwrap_or_default()));
        }
    }
    Value::Object(map)
}

impl Filter {
    fn build(node: &Node<'_>) -> Result<Self> {
        let action = match node.text("action") {
            None => None,
            Some("SUCCESS") => Some(Action::Success),
            Some("FAIL") => Some(Action::Fail),
            Some("RETRY") => Some(Action::Retry),
            Some("IGNORE") => Some(Action::Ignore),
            Some("RESET_PAGINATION") => Some(Action::ResetPagination),
            Some("RATE_LIMITED") => Some(Action::RateLimited),
            Some("REFRESH_TOKEN_THEN_RETRY") => Some(Action::RefreshTokenThenRetry),
            Some("REDUCE_PAGE_SIZE") => Some(Action::ReducePageSize),
            Some("SPLIT_REQUEST_WINDOW") => Some(Action::SplitRequestWindow),
            Some(other) => {
                let error = Error::new(Code::Unsupported, "the stream needs a response action that is not built");
                return Err(error.detail(other).setting(format!("{}.action", node.path)));
            }
        };
        let failure = match node.text("failure_type") {
            Some("system_error") => Some(FailureType::System),
            Some("config_error") => Some(FailureType::Config),
            Some("transient_error") => Some(FailureType::Transient),
            _ => None,
        };
        Ok(Self {
            action,
            failure,
            codes: node.items("http_codes").iter().filter_map(|c| c.value.as_i64()).collect(),
            predicate: node.expr("predicate")?.filter(|p| !p.source().is_empty()),
            contains: node.text("error_message_contains").filter(|t| !t.is_empty()).map(str::to_owned),
            message: node.expr("error_message")?.filter(|m| !m.source().is_empty()),
        })
    }

    fn looks_inside(&self) -> bool {
        self.predicate.is_some() || self.contains.is_some() || self.message.is_some()
    }

    fn matches(&self, response: &Response, facts: &Facts) -> Result<bool> {
        if self.codes.contains(&i64::from(response.status)) {
            return Ok(true);
        }
        if let Some(predicate) = &self.predicate {
            // The reference gives predicates no configuration.
            let scope = facts.scope(super::template::Scope::new().with("config", &Value::Null));
            if predicate.truthy(&scope)? {
                return Ok(true);
            }
        }
        Ok(self.contains.as_ref().is_some_and(|text| error_message(response).is_some_and(|m| m.contains(text))))
    }

    fn resolution(&self, env: &Env, action: Action, response: &Response, facts: &Facts) -> Result<Resolution> {
        let usual = by_status(response.status);
        let own = self.message.as_ref().map(|m| m.text(&facts.scope(env.scope()))).transpose()?.filter(|m| !m.is_empty());
        let failure = match (self.failure, &usual) {
            (Some(failure), _) if action == Action::Fail => failure,
            (_, Some(usual)) => usual.failure,
            _ => FailureType::System,
        };
        Ok(Resolution { action, failure, message: own.or_else(|| usual.and_then(|u| u.message)) })
    }
}

impl Facts {
    fn scope<'a>(&'a self, scope: super::template::Scope<'a>) -> super::template::Scope<'a> {
        scope.with("response", &self.body).with_headers("headers", &self.headers).with("request_url", &self.url)
    }
}

/// What the body says went wrong, by the names that APIs usually give it; the body itself when it is not JSON.
pub(super) fn error_message(response: &Response) -> Option<String> {
    match serde_json::from_slice::<Value>(&response.body) {
        Ok(body) => told(&body),
        Err(_) => std::str::from_utf8(&response.body).ok().map(str::to_owned),
    }
}

fn told(value: &Value) -> Option<String> {
    const NAMES: [&str; 12] = [
        "message",
        "messages",
        "error",
        "errors",
        "failures",
        "failure",
        "detail",
        "err",
        "error_message",
        "msg",
        "reason",
        "status_message",
    ];
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(told).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => told(NAMES.iter().find_map(|n| map.get(*n).filter(|v| super::parameters::truthy(v)))?),
        _ => None,
    }
}
