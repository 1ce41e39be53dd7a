//! The older session token: one from the configuration as long as it is valid, else one from user and password.

use serde_json::{Value, json};
use tokio::sync::Mutex;
use trib_core::{Code, Error, Result};
use trib_kit::http::Request;
use url::Url;

use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::template::python_str;

pub(in super::super) struct LegacySession {
    api_url: Option<Expr>,
    header: Expr,
    session_token: Option<Expr>,
    response_key: Expr,
    username: Option<Expr>,
    password: Option<Expr>,
    login_url: Expr,
    validate_url: Expr,
    known: Mutex<Option<String>>,
}

impl LegacySession {
    pub(super) fn build(node: &Node<'_>, requester: &Node<'_>) -> Result<Self> {
        Ok(Self {
            api_url: requester.expr("url_base")?.or(requester.expr("url")?),
            header: node.need_expr("header")?,
            session_token: node.expr("session_token")?,
            response_key: node.need_expr("session_token_response_key")?,
            username: node.expr("username")?,
            password: node.expr("password")?,
            login_url: node.need_expr("login_url")?,
            validate_url: node.need_expr("validate_session_url")?,
            known: Mutex::default(),
        })
    }

    pub(super) async fn header(&self, env: &Env) -> Result<(String, String)> {
        let name = self.header.text(&env.scope())?;
        let mut known = self.known.lock().await;
        if let Some(token) = &*known {
            return Ok((name, token.clone()));
        }
        let text = |expr: &Option<Expr>| Expr::text_or(expr.as_ref(), "", &env.scope());
        let given = text(&self.session_token)?;
        let token = if !given.is_empty() && self.is_valid(env, &name, &given).await? {
            given
        } else {
            self.login(env, text(&self.username)?, text(&self.password)?).await?
        };
        *known = Some(token.clone());
        Ok((name, token))
    }

    fn url(&self, env: &Env, path: &Expr) -> Result<Url> {
        let scope = env.scope();
        let base = Expr::text_or(self.api_url.as_ref(), "", &scope)?;
        let text = format!("{base}{}", path.text(&scope)?);
        Url::parse(&text).map_err(|_| Error::new(Code::ConfigInvalid, "the address of the login is not a URL"))
    }

    async fn is_valid(&self, env: &Env, name: &str, token: &str) -> Result<bool> {
        let mut request = Request::get(self.url(env, &self.validate_url)?);
        request.headers.push((name.to_owned(), token.to_owned()));
        request.secret_headers.push(name.to_owned());
        match env.client.send(request).await?.status {
            401 => Ok(false),
            status if status < 400 => Ok(true),
            status => Err(Error::new(Code::SystemError, "the session token could not be checked").detail(format!("answered {status}"))),
        }
    }

    async fn login(&self, env: &Env, username: String, password: String) -> Result<String> {
        let failed = || Error::new(Code::AuthFailed, "there is neither a valid session token nor a login that works");
        if username.is_empty() || password.is_empty() {
            return Err(failed());
        }
        let mut request = Request::get(self.url(env, &self.login_url)?);
        request.method = "POST".to_owned();
        request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        request.body = Some(serde_json::to_vec(&json!({"username": username, "password": password}))?.into());
        let response = env.client.send(request).await?;
        if !response.ok() {
            return Err(failed().detail(format!("the login answered {}", response.status)));
        }
        let body: Value = serde_json::from_slice(&response.body)?;
        let key = self.response_key.text(&env.scope())?;
        body.get(&key).filter(|t| !t.is_null()).map(python_str).ok_or_else(|| failed().detail(format!("its answer has no {key}")))
    }
}
