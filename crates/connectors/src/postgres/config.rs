//! Settings of a PostgreSQL connection.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::config::SslMode as Negotiation;
use trib_core::{Code, Context, Error, Result, Secret};

use super::pg_type::{ArrayRule, InfinityRule, Rules, SpecialNumberRule};

/// A PostgreSQL database, or another server that speaks its protocol and has `COPY … (FORMAT binary)`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`; instead of the single settings below.
    pub url: Option<Secret>,
    /// Host name, address, or the folder of a Unix socket.
    pub host: Option<String>,
    /// Port, 5432 when left out.
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Database, named like the user when left out.
    pub database: Option<String>,
    /// Whether the connection is encrypted, and what is checked of the server's certificate: as in libpq, `prefer` when left out.
    pub sslmode: Option<SslMode>,
    /// File with the certificates (PEM) that `verify-ca` and `verify-full` trust; the system's when left out.
    pub sslrootcert: Option<PathBuf>,
    /// Schemas to discover; all that the user may see when left out.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// What becomes of NaN and infinity in a `numeric(p, s)` column, which decimals elsewhere do not have.
    #[serde(default)]
    pub numeric_special: SpecialNumberRule,
    /// What becomes of `infinity` and `-infinity` in dates, timestamps and intervals.
    #[serde(default)]
    pub infinity: InfinityRule,
    /// How arrays travel.
    #[serde(default)]
    pub arrays: ArrayRule,
    /// Seconds until an attempt to connect is given up.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: u64,
}

fn default_connect_timeout() -> u64 {
    15
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted where the server offers it; its certificate is not checked.
    #[default]
    Prefer,
    /// Encrypted; the certificate is not checked.
    Require,
    /// Encrypted, with a certificate that a trusted authority has signed.
    VerifyCa,
    /// Encrypted, with a trusted certificate for this very host.
    VerifyFull,
}

impl SslMode {
    pub fn negotiation(self) -> Negotiation {
        match self {
            SslMode::Disable => Negotiation::Disable,
            SslMode::Prefer => Negotiation::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
        }
    }
}

/// Where a server is and how to log in, checked as far as that goes without asking it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub login: tokio_postgres::Config,
    pub sslmode: SslMode,
    pub sslrootcert: Option<PathBuf>,
    pub connect_timeout: Duration,
}

impl PostgresConfig {
    pub fn rules(&self) -> Rules {
        Rules { special: self.numeric_special, infinity: self.infinity, arrays: self.arrays }
    }

    pub fn endpoint(&self, context: &Context) -> Result<Endpoint> {
        let mut endpoint = match &self.url {
            Some(url) => {
                let single = [
                    ("host", self.host.is_some()),
                    ("port", self.port.is_some()),
                    ("user", self.user.is_some()),
                    ("database", self.database.is_some()),
                ];
                if let Some((setting, _)) = single.into_iter().find(|(_, given)| *given) {
                    return Err(Error::new(Code::ConfigInvalid, "the setting is part of `url` already")
                        .setting(setting)
                        .hint(format!("leave out either `url` or `{setting}`")));
                }
                parse_url(url.expose())?
            }
            None => self.single_settings()?,
        };
        if let Some(password) = &self.password {
            endpoint.login.password(password.expose());
        }
        endpoint.sslmode = self.sslmode.unwrap_or(endpoint.sslmode);
        endpoint.sslrootcert = self.sslrootcert.clone().or(endpoint.sslrootcert).map(|file| context.project_dir.join(file));
        endpoint.connect_timeout = Duration::from_secs(self.connect_timeout.max(1));
        endpoint.login.ssl_mode(endpoint.sslmode.negotiation());
        endpoint.login.application_name("tributary");
        Ok(endpoint)
    }

    fn single_settings(&self) -> Result<Endpoint> {
        let host = self.host.as_deref().ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "the connection does not say where the server is")
                .setting("url")
                .hint("give `url: postgres://user:password@host:5432/database`, or `host`, `user`, `password` and `database`")
        })?;
        let mut login = tokio_postgres::Config::new();
        login.host(host).port(self.port.unwrap_or(5432));
        if let Some(user) = &self.user {
            login.user(user);
        }
        if let Some(database) = &self.database {
            login.dbname(database);
        }
        Ok(Endpoint { login, sslmode: SslMode::default(), sslrootcert: None, connect_timeout: Duration::ZERO })
    }
}

/// Takes a connection URL apart. The TLS parameters are ours to carry out; all others are the driver's.
fn parse_url(text: &str) -> Result<Endpoint> {
    // No part of the URL goes into the error: any of them may be a piece of a mistyped password.
    let invalid = |detail: &str| {
        Error::new(Code::ConfigInvalid, "the URL is not one that PostgreSQL understands")
            .detail(detail)
            .setting("url")
            .hint("postgres://user:password@host:5432/database; write `@`, `/`, `#` and `%` in a password as %40, %2F, %23 and %25")
    };
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let mut sslmode = SslMode::default();
    let mut sslrootcert = None;
    let mut kept = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "sslmode" if value == "allow" => sslmode = SslMode::Prefer,
            "sslmode" => {
                sslmode = SslMode::deserialize(Value::String(value.into_owned()))
                    .map_err(|_| invalid("sslmode is one of disable, prefer, require, verify-ca, verify-full"))?;
            }
            "sslrootcert" => sslrootcert = Some(PathBuf::from(value.into_owned())),
            "sslcert" | "sslkey" => return Err(invalid("client certificates (sslcert, sslkey) are not supported")),
            _ => kept.push((key.into_owned(), value.into_owned())),
        }
    }
    let mut driver_url = base.to_owned();
    if !kept.is_empty() {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&kept).finish();
        // The driver decodes percent signs only.
        driver_url = format!("{base}?{}", query.replace('+', "%20"));
    }
    let login = tokio_postgres::Config::from_str(&driver_url).map_err(|_| invalid("host, port or a parameter is not right"))?;
    if login.get_hosts().is_empty() && login.get_hostaddrs().is_empty() {
        return Err(invalid("there is no host in it"));
    }
    Ok(Endpoint { login, sslmode, sslrootcert, connect_timeout: Duration::ZERO })
}

/// The settings that a URL on the command line stands for.
pub fn from_url(url: &str) -> Option<Value> {
    let (scheme, _) = url.split_once("://")?;
    matches!(scheme, "postgres" | "postgresql").then(|| json!({ "url": url }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let endpoint =
            parse_url("postgres://u:p%40w@db.example:5433/shop?sslmode=verify-full&sslrootcert=ca.pem&target_session_attrs=read-write")
                .unwrap();
        assert_eq!(endpoint.sslmode, SslMode::VerifyFull);
        assert_eq!(endpoint.sslrootcert, Some(PathBuf::from("ca.pem")));
        assert_eq!(endpoint.login.get_password(), Some(b"p@w".as_slice()));
        assert_eq!(endpoint.login.get_ports(), [5433]);
    }

    #[test]
    fn an_error_shows_nothing_of_the_url() {
        for url in
            ["postgres://u:hunter2@host:notaport/x", "postgres://u:hunter2@h/x?sslmode=hunter2", "postgres://u:hunter2@h/x?hunter2=1"]
        {
            let error = parse_url(url).unwrap_err();
            assert!(!format!("{error:?} {:?}", error.to_json()).contains("hunter2"), "{error:?}");
        }
    }
}
