//! A token from a login request.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trib_core::{Code, Error, Result};

use super::super::decode::Decoder;
use super::super::dpath;
use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::options::Options;
use super::super::requester::{Answer, Call, Requester};
use super::super::slice::Slice;
use super::super::span::Span;
use super::super::template::python_str;

/// Tokens of which nobody says how long they last are asked for again after this.
const SHORT: Duration = Duration::from_mins(1);

pub(in super::super) struct Session {
    login: Box<Requester>,
    path: Vec<Expr>,
    lasts: Duration,
    decoder: Decoder,
    known: Mutex<Option<(String, Instant)>>,
}

impl Session {
    pub(super) fn build(env: &Env, node: &Node<'_>) -> Result<Self> {
        let lasts = match node.text("expiration_duration") {
            None => SHORT,
            Some(text) => Span::parse(text)
                .and_then(Span::to_std)
                .ok_or_else(|| node.wrong("`expiration_duration` is a duration such as PT1H").detail(text.to_owned()))?,
        };
        Ok(Self {
            login: Box::new(Requester::build(env, &node.need("login_requester")?, false)?),
            path: node.exprs("session_token_path")?,
            lasts,
            decoder: Decoder::optional(node, "decoder")?,
            known: Mutex::default(),
        })
    }

    pub(super) async fn token(&self, env: &Env) -> Result<String> {
        let mut known = self.known.lock().await;
        if let Some((token, until)) = &*known
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let slice = Slice::default();
        let call = Call::plain(&slice);
        let Answer::Response(response) = self.login.send(env, call, Options::default()).await? else {
            return Err(Error::new(Code::SystemError, "the login was answered with a call to start over"));
        };
        let body = self.decoder.decode(&response)?.into_iter().next().unwrap_or(Value::Null);
        let scope = env.scope();
        let path = self.path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
        let found = dpath::get(&body, &path).filter(|t| !t.is_null());
        let token = found.ok_or_else(|| Error::new(Code::AuthFailed, "the login's answer holds no token").detail(path.join(".")))?;
        let token = python_str(token);
        env.hide(&token);
        *known = Some((token.clone(), Instant::now() + self.lasts));
        Ok(token)
    }
}
