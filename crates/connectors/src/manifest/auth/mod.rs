//! Who we are, in each request.

mod jwt;
mod legacy;
mod logins;
mod oauth;
mod pool;
mod session;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use trib_core::{Code, Error, Result};
use trib_kit::http::{Request, Response};

use self::jwt::Jwt;
use self::legacy::LegacySession;
pub(super) use self::logins::Logins;
use self::oauth::OAuth;
use self::pool::TokenPool;
use self::session::Session;
use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::options::{Options, RequestOption};
use super::template::python_str;

const AUTHORIZATION: &str = "Authorization";

pub(super) enum Authenticator {
    None,
    ApiKey {
        option: Option<RequestOption>,
        header: Option<Expr>,
        token: Token,
    },
    Bearer(Token),
    Basic {
        username: Expr,
        password: Option<Expr>,
    },
    OAuth(Arc<OAuth>),
    Jwt(Box<Jwt>),
    Legacy(Box<LegacySession>),
    Pool(Arc<TokenPool>),
    /// Made here, and in no manifest.
    Fixed {
        header: String,
        value: String,
    },
}

/// Where a token comes from.
pub(super) enum Token {
    Text(Expr),
    /// From a login; the template sees it as `session_token`.
    Session(Arc<Session>, Option<Expr>),
}

impl Token {
    async fn get(&self, env: &Env) -> Result<String> {
        match self {
            Token::Text(expr) => expr.text(&env.scope()),
            Token::Session(session, template) => {
                let token = session.token(env).await?;
                match template {
                    None => Ok(token),
                    Some(template) => template.text(&env.scope().with("session_token", &Value::String(token))),
                }
            }
        }
    }
}

impl Authenticator {
    /// `requester` is the component that the authenticator stands in.
    pub(super) fn build(env: &Env, node: &Node<'_>, requester: &Node<'_>) -> Result<Self> {
        Ok(match node.kind() {
            "NoAuth" => Authenticator::None,
            "ApiKeyAuthenticator" => {
                let option = RequestOption::optional(node, "inject_into")?;
                let header = node.expr("header")?;
                if option.is_some() == header.is_some() {
                    return Err(node.wrong("an API key goes either into a `header` or where `inject_into` says"));
                }
                let none = Expr::new("", Arc::new(Value::Null))?;
                Authenticator::ApiKey { option, header, token: Token::Text(node.expr("api_token")?.unwrap_or(none)) }
            }
            "BearerAuthenticator" => Authenticator::Bearer(Token::Text(node.need_expr("api_token")?)),
            "BasicHttpAuthenticator" => Authenticator::Basic { username: node.need_expr("username")?, password: node.expr("password")? },
            "OAuthAuthenticator" => Authenticator::OAuth(env.logins.oauth(env, node)?),
            "JwtAuthenticator" => Authenticator::Jwt(Box::new(Jwt::build(node)?)),
            "SessionTokenAuthenticator" => Self::session(env, node)?,
            "LegacySessionTokenAuthenticator" => Authenticator::Legacy(Box::new(LegacySession::build(node, requester)?)),
            "RateLimitedMultipleTokenAuthenticator" => Authenticator::Pool(env.logins.pool(env, node)?),
            "SelectiveAuthenticator" => return Self::select(env, node, requester),
            _ => return Err(node.unsupported()),
        })
    }

    fn session(env: &Env, node: &Node<'_>) -> Result<Self> {
        let session = Arc::new(Session::build(env, node)?);
        let way = node.need("request_authentication")?;
        Ok(match way.kind() {
            "Bearer" => Authenticator::Bearer(Token::Session(session, None)),
            _ => Authenticator::ApiKey {
                option: Some(RequestOption::build(&way.need("inject_into")?)?),
                header: None,
                token: Token::Session(session, way.expr("api_token")?),
            },
        })
    }

    /// One of several, as the configuration chooses.
    fn select(env: &Env, node: &Node<'_>, requester: &Node<'_>) -> Result<Self> {
        let path: Vec<String> = node.items("authenticator_selection_path").iter().map(|p| python_str(p.value)).collect();
        let missing =
            || Error::new(Code::ConfigInvalid, "the configuration does not say which kind of credentials it holds").setting(path.join("."));
        let chosen = python_str(dpath::get(&env.config, &path).ok_or_else(missing)?);
        let of_choice = node.need("authenticators")?.get(&chosen);
        let unknown =
            || Error::new(Code::ConfigInvalid, "there is no such kind of credentials").detail(chosen.clone()).setting(path.join("."));
        Self::build(env, &of_choice.ok_or_else(unknown)?, requester)
    }

    /// Puts the credentials into a request. Gives the names of the headers that hold them. `bare` is the request without them.
    pub(super) async fn apply(&self, env: &Env, options: &mut Options, bare: &(dyn Fn() -> Result<Request> + Sync)) -> Result<Vec<String>> {
        let mut own = Options::default();
        let mut secret = Vec::new();
        let mut set = |own: &mut Options, name: String, value: String| {
            secret.push(name.clone());
            own.headers.insert(name, Value::String(value));
        };
        match self {
            Authenticator::None => {}
            Authenticator::ApiKey { option: Some(option), token, .. } => {
                let token = token.get(env).await?;
                option.inject(env, &mut own, Value::String(token))?;
                secret.extend(option.header(env)?);
            }
            Authenticator::ApiKey { header, token, .. } => {
                let name = Expr::text_or(header.as_ref(), "", &env.scope())?;
                let token = token.get(env).await?;
                if !name.is_empty() {
                    set(&mut own, name, token);
                }
            }
            Authenticator::Bearer(token) => set(&mut own, AUTHORIZATION.to_owned(), format!("Bearer {}", token.get(env).await?)),
            Authenticator::Basic { username, password } => {
                let scope = env.scope();
                let password = Expr::text_or(password.as_ref(), "", &scope)?;
                let pair = STANDARD.encode(format!("{}:{password}", username.text(&scope)?));
                set(&mut own, AUTHORIZATION.to_owned(), format!("Basic {pair}"));
            }
            Authenticator::OAuth(oauth) => set(&mut own, AUTHORIZATION.to_owned(), format!("Bearer {}", oauth.token(env).await?)),
            Authenticator::Jwt(jwt) => {
                let token = jwt.token(env)?;
                match jwt.option() {
                    None => set(&mut own, AUTHORIZATION.to_owned(), token),
                    Some(option) => {
                        option.inject(env, &mut own, Value::String(token))?;
                        secret.extend(option.header(env)?);
                    }
                }
            }
            Authenticator::Legacy(session) => {
                let (name, token) = session.header(env).await?;
                set(&mut own, name, token);
            }
            Authenticator::Pool(pool) => {
                let (name, value) = pool.header(env, &bare()?).await?;
                set(&mut own, name, value);
            }
            Authenticator::Fixed { header, value } => set(&mut own, header.clone(), value.clone()),
        }
        options.merge(own)?;
        Ok(secret)
    }

    /// Learns from what an answer says about the limits of who has asked.
    pub(super) fn learn(&self, request: &Request, response: &Response) {
        if let Authenticator::Pool(pool) = self {
            pool.learn(request, response);
        }
    }

    /// Whether somebody else may ask at once, where the one who did has reached a limit.
    pub(super) fn has_other(&self, request: &Request) -> bool {
        matches!(self, Authenticator::Pool(pool) if pool.has_other(request))
    }

    /// Gets a new token in place of the one that this request had, where there is a way to. `false` where there is none.
    pub(super) async fn refresh(&self, env: &Env, request: &Request) -> Result<bool> {
        let had = |token: &str| request.headers.iter().any(|(_, value)| value.strip_prefix("Bearer ") == Some(token));
        match self {
            Authenticator::OAuth(oauth) => oauth.refresh(env, had).await.map(|()| true),
            _ => Ok(false),
        }
    }
}
