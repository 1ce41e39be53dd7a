//! OAuth 2.0: access tokens by refresh token, client credentials or a signed assertion.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};
use trib_core::{Code, Error, Result};
use trib_kit::http::{Request, Response, shown};
use url::Url;

use super::super::dpath;
use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::template::python_str;
use super::super::time;
use super::jwt::Jwt;

const ATTEMPTS: u32 = 6;

pub(in super::super) struct OAuth {
    endpoint: Option<Expr>,
    names: Names,
    client_id: Option<Expr>,
    client_secret: Option<Expr>,
    refresh_token: Option<Expr>,
    grant_type: Option<Expr>,
    scopes: Vec<Value>,
    body: Vec<(String, Expr)>,
    headers: Vec<(String, Expr)>,
    as_query: bool,
    expiry_format: Option<String>,
    assertion: Option<Jwt>,
    /// Where a refresh token that is good for one use is kept in the configuration.
    kept: Option<Kept>,
    rejected: Rejected,
    known: Mutex<Known>,
}

struct Names {
    client_id: Option<Expr>,
    client_secret: Option<Expr>,
    refresh_token: Option<Expr>,
    access_token: Option<Expr>,
    expires_in: Option<Expr>,
    grant_type: Option<Expr>,
}

struct Kept {
    response_name: String,
    access_token: Vec<String>,
    refresh_token: Vec<String>,
    expiry: Vec<String>,
}

/// How the provider says that a refresh token is no good.
struct Rejected {
    codes: Vec<u16>,
    key: String,
    values: Vec<String>,
}

struct Known {
    token: Option<String>,
    expiry: DateTime<Utc>,
}

impl OAuth {
    pub(super) fn build(env: &Env, node: &Node<'_>) -> Result<Self> {
        let entries = |name: &str| -> Result<Vec<(String, Expr)>> {
            let Some(part) = node.get(name) else { return Ok(Vec::new()) };
            let map = part.value.as_object();
            let own = map.into_iter().flatten().filter(|(k, _)| k.as_str() != super::super::parameters::PARAMETERS);
            own.map(|(key, value)| Ok((key.clone(), node.compile(value)?))).collect()
        };
        let updater = node.get("refresh_token_updater");
        let path = |name: &str, usual: &str| -> Vec<String> {
            let given = updater.as_ref().map(|u| u.items(name)).unwrap_or_default();
            if given.is_empty() {
                vec!["credentials".to_owned(), usual.to_owned()]
            } else {
                given.iter().map(|p| python_str(p.value)).collect()
            }
        };
        let kept = updater.as_ref().map(|u| Kept {
            response_name: u.text("refresh_token_name").unwrap_or("refresh_token").to_owned(),
            access_token: path("access_token_config_path", "access_token"),
            refresh_token: path("refresh_token_config_path", "refresh_token"),
            expiry: path("token_expiry_date_config_path", "token_expiry_date"),
        });
        let uses_assertion = match node.expr("use_profile_assertion")? {
            Some(expr) => expr.truthy(&env.scope())?,
            None => false,
        };
        let assertion = match node.get("profile_assertion").filter(|_| uses_assertion) {
            Some(part) => Some(Jwt::build(&part)?),
            None => None,
        };
        let known = initial(env, node, kept.as_ref())?;
        Ok(Self {
            endpoint: node.expr("token_refresh_endpoint")?,
            names: Names {
                client_id: node.expr("client_id_name")?,
                client_secret: node.expr("client_secret_name")?,
                refresh_token: node.expr("refresh_token_name")?,
                access_token: node.expr("access_token_name")?,
                expires_in: node.expr("expires_in_name")?,
                grant_type: node.expr("grant_type_name")?,
            },
            client_id: node.expr("client_id")?,
            client_secret: node.expr("client_secret")?,
            refresh_token: node.expr("refresh_token")?,
            grant_type: node.expr("grant_type")?,
            scopes: node.items("scopes").iter().map(|s| s.value.clone()).collect(),
            body: entries("refresh_request_body")?,
            headers: entries("refresh_request_headers")?,
            as_query: node.flag("send_refresh_request_as_query_params"),
            expiry_format: node.text("token_expiry_date_format").map(str::to_owned),
            assertion,
            kept,
            rejected: Rejected::build(updater.as_ref().unwrap_or(node), node),
            known: Mutex::new(known),
        })
    }

    /// A token that is good now.
    pub(super) async fn token(&self, env: &Env) -> Result<String> {
        let (_turn, mut known) = self.turn(env).await;
        if self.endpoint.is_some() && (known.token.is_none() || Utc::now() > known.expiry) {
            self.renew(env, &mut known).await?;
        }
        known.token.clone().ok_or_else(|| Error::new(Code::ConfigInvalid, "there is neither an access token nor a way to get one"))
    }

    /// A new token, in place of one that was refused.
    pub(super) async fn refresh(&self, env: &Env, refused: impl Fn(&str) -> bool) -> Result<()> {
        let (_turn, mut known) = self.turn(env).await;
        // Another call may have renewed it since that one was sent. Where only the newest is good, one more would take it from whoever has it.
        if known.token.as_deref().is_none_or(refused) { self.renew(env, &mut known).await } else { Ok(()) }
    }

    /// What is known now. Where the configuration keeps it, all streams share it, and one at a time may change it.
    async fn turn<'a>(&'a self, env: &'a Env) -> (Option<MutexGuard<'a, ()>>, MutexGuard<'a, Known>) {
        let Some(kept) = &self.kept else { return (None, self.known.lock().await) };
        let turn = env.renewal.lock().await;
        let mut known = self.known.lock().await;
        *known = kept.known(&env.current_config());
        known.token.iter().for_each(|token| env.hide(token));
        (Some(turn), known)
    }

    async fn renew(&self, env: &Env, known: &mut Known) -> Result<()> {
        let body = self.exchange(env).await?;
        let scope = env.scope();
        let name = |expr: &Option<Expr>, usual: &str| Expr::text_or(expr.as_ref(), usual, &scope);
        let access = name(&self.names.access_token, "access_token")?;
        let token = find(&body, &access, 0).map(python_str).filter(|t| !t.is_empty());
        let token = token.ok_or_else(|| failed().detail(format!("its answer has no `{access}`")))?;
        env.hide(&token);
        known.token = Some(token);
        known.expiry = match find(&body, &name(&self.names.expires_in, "expires_in")?, 0) {
            Some(value) => self.expiry(value)?,
            None if Utc::now() <= known.expiry => known.expiry,
            None => Utc::now() + TimeDelta::hours(1),
        };
        if let Some(kept) = &self.kept {
            return kept.write(env, known, find(&body, &kept.response_name, 0));
        }
        Ok(())
    }

    fn expiry(&self, value: &Value) -> Result<DateTime<Utc>> {
        let text = python_str(value);
        if self.expiry_format.is_some() {
            return parse_date(&text).ok_or_else(|| failed().detail("the time at which the token expires cannot be read"));
        }
        let seconds: f64 = text.trim().parse().map_err(|_| failed().detail("`expires_in` is no number of seconds"))?;
        Ok(Utc::now() + TimeDelta::seconds(seconds.clamp(0.0, 1e10) as i64))
    }

    fn fields(&self, env: &Env) -> Result<Map<String, Value>> {
        let scope = env.scope();
        let name = |expr: &Option<Expr>, usual: &str| Expr::text_or(expr.as_ref(), usual, &scope);
        let mut fields = Map::new();
        let grant_name = name(&self.names.grant_type, "grant_type")?;
        if let Some(assertion) = &self.assertion {
            fields.insert(grant_name, "urn:ietf:params:oauth:grant-type:jwt-bearer".into());
            fields.insert("assertion".to_owned(), assertion.signed(env)?.into());
            return Ok(fields);
        }
        fields.insert(grant_name, name(&self.grant_type, "refresh_token")?.into());
        if !self.headers.iter().any(|(name, _)| name == super::AUTHORIZATION) {
            let id = name(&self.client_id, "")?;
            fields.insert(name(&self.names.client_id, "client_id")?, id.into());
            fields.insert(name(&self.names.client_secret, "client_secret")?, name(&self.client_secret, "")?.into());
        }
        let refresh_token = match &self.kept {
            Some(kept) => dpath::get(&env.current_config(), &kept.refresh_token).cloned(),
            None => self.refresh_token.as_ref().map(|r| r.text(&scope)).transpose()?.map(Value::String),
        };
        if let Some(refresh_token) = refresh_token {
            env.hide(&python_str(&refresh_token));
            fields.insert(name(&self.names.refresh_token, "refresh_token")?, refresh_token);
        }
        if !self.scopes.is_empty() {
            fields.insert("scopes".to_owned(), Value::Array(self.scopes.clone()));
        }
        for (key, expr) in &self.body {
            let value = expr.entry(&scope, None)?;
            fields.entry(key.clone()).or_insert(value);
        }
        Ok(fields)
    }

    async fn exchange(&self, env: &Env) -> Result<Value> {
        let scope = env.scope();
        let endpoint = Expr::text_or(self.endpoint.as_ref(), "", &scope)?;
        let mut url =
            Url::parse(&endpoint).map_err(|_| Error::new(Code::ConfigInvalid, "the address that renews the token is not a URL"))?;
        let pairs = super::super::request_parts::pairs(self.fields(env)?);
        let mut request = Request::get(url.clone());
        request.method = "POST".to_owned();
        for (name, expr) in &self.headers {
            request.headers.push((name.clone(), expr.text(&scope)?));
            request.secret_headers.push(name.clone());
        }
        if self.as_query {
            url.query_pairs_mut().extend_pairs(pairs);
            request.url = url;
        } else {
            let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            request.body = Some(form.into());
            if !request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type")) {
                request.headers.push(("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
            }
        }
        for attempt in 0.. {
            let answer = env.client.send(request.clone()).await;
            let again = answer.as_ref().map_or(true, |r| r.status == 429 || r.status >= 500);
            if !again || attempt + 1 == ATTEMPTS {
                return self.read(env, &request.url, answer?);
            }
            tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
        }
        Err(failed())
    }

    fn read(&self, env: &Env, url: &Url, response: Response) -> Result<Value> {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        if response.ok() {
            return Ok(body);
        }
        let said = body.get(&self.rejected.key).and_then(Value::as_str).unwrap_or_default();
        let detail = env.without_secrets(&format!("{} answered {}: {said}", shown(url), response.status));
        if self.rejected.codes.contains(&response.status) && self.rejected.values.iter().any(|v| v == said) {
            return Err(Error::new(Code::AuthFailed, "the provider does not accept the refresh token")
                .detail(detail)
                .hint("log in again: the refresh token is invalid, has expired or was used before"));
        }
        let code = match response.status {
            429 => Code::RateLimited,
            500.. => Code::Unavailable,
            _ => Code::AuthFailed,
        };
        Err(Error::new(code, "the access token could not be renewed").detail(detail))
    }
}

impl Kept {
    fn known(&self, config: &Value) -> Known {
        let text = |path: &[String]| dpath::get(config, path).filter(|v| !v.is_null()).map(python_str).filter(|t| !t.is_empty());
        let expiry = text(&self.expiry).and_then(|t| parse_date(&t)).unwrap_or_else(long_ago);
        Known { token: text(&self.access_token), expiry }
    }

    /// Writes what was renewed into the configuration: the old refresh token may be worth nothing any more.
    fn write(&self, env: &Env, known: &Known, refresh_token: Option<&Value>) -> Result<()> {
        let mut values = vec![(self.access_token.clone(), known.token.clone().into())];
        if let Some(refresh_token) = refresh_token.filter(|t| !t.is_null()) {
            env.hide(&python_str(refresh_token));
            values.push((self.refresh_token.clone(), refresh_token.clone()));
        }
        values.push((self.expiry.clone(), known.expiry.to_rfc3339_opts(SecondsFormat::Secs, true).into()));
        env.replace(&self.refresh_token, values)
    }
}

impl Rejected {
    fn build(updater: &Node<'_>, own: &Node<'_>) -> Self {
        const KEYS: [&str; 3] = ["refresh_token_error_status_codes", "refresh_token_error_key", "refresh_token_error_values"];
        match [updater, own].into_iter().find(|n| KEYS.iter().any(|k| n.get(k).is_some())) {
            Some(node) => Self {
                codes: node.items(KEYS[0]).iter().filter_map(|c| c.value.as_u64()).map(|c| c as u16).collect(),
                key: node.text(KEYS[1]).unwrap_or_default().to_owned(),
                values: node.items(KEYS[2]).iter().map(|v| python_str(v.value)).collect(),
            },
            None => Self {
                codes: vec![400],
                key: "error".to_owned(),
                values: vec!["invalid_grant".to_owned(), "invalid_permissions".to_owned()],
            },
        }
    }
}

fn long_ago() -> DateTime<Utc> {
    Utc::now() - TimeDelta::days(1)
}

/// What the manifest itself says. What is kept in the configuration is looked at when it is needed.
fn initial(env: &Env, node: &Node<'_>, kept: Option<&Kept>) -> Result<Known> {
    let scope = env.scope();
    if kept.is_some() {
        return Ok(Known { token: None, expiry: long_ago() });
    }
    let token = node.expr("access_token_value")?.map(|e| e.text(&scope)).transpose()?.filter(|t| !t.is_empty());
    let expiry = node.expr("token_expiry_date")?.map(|e| e.text(&scope)).transpose()?;
    Ok(Known { token, expiry: expiry.and_then(|t| parse_date(&t)).unwrap_or_else(long_ago) })
}

/// A time as providers and users write it: ISO 8601, a date, or seconds since 1970.
fn parse_date(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return DateTime::from_timestamp_millis((seconds * 1000.0) as i64);
    }
    let formats = ["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"];
    let parsed: Option<DateTime<FixedOffset>> = formats.iter().find_map(|f| time::parse(&Value::String(text.to_owned()), f));
    parsed.map(|t| t.with_timezone(&Utc))
}

/// The first value of that name, wherever it is, a few levels down.
fn find<'a>(value: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if depth > 5 {
        return None;
    }
    match value {
        Value::Object(map) => match map.get(name) {
            Some(found) => Some(found),
            None => map.values().find_map(|v| find(v, name, depth + 1)),
        },
        Value::Array(items) => items.iter().find_map(|v| find(v, name, depth + 1)),
        _ => None,
    }
}

fn failed() -> Error {
    Error::new(Code::AuthFailed, "the access token could not be renewed")
}
