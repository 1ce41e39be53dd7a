//! `trib login`

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trib_connectors::manifest::Manifest;
use trib_connectors::manifest::consent::Consent;
use trib_core::{Code, Error};
use trib_kit::http::{Client, shown};
use trib_kit::kept::Kept;
use trib_kit::scrub::Scrub;
use trib_project::lock::manifest_file;
use url::Url;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::origin::bundled;
use crate::output;

/// Where the vendor sends the user back to, so that an application can be registered with it.
const PORT: u16 = 8763;
const PATH: &str = "/callback";
/// A person has to find a password, a phone and a colleague.
const PATIENCE: Duration = Duration::from_secs(900);
const EXCHANGE: Duration = Duration::from_secs(60);
/// A request's head that is longer is none of a browser that was sent back.
const LONGEST_HEAD: usize = 16 << 10;

/// Log in by OAuth: opens the vendor's consent page, and keeps the token that comes back, sealed, for the connection
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib login crm")]
pub struct Args {
    /// A connection whose connector declares a login, with the client's id and secret among its settings
    connection: String,
    /// The port of this machine that the vendor sends the user back to; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// Print the page's URL, and open no browser
    #[arg(long)]
    no_browser: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let project = session.project()?;
    let connection = project.connection(&args.connection)?;
    let file = manifest_file(&project.dir, &connection.connector);
    let own = std::fs::read_to_string(&file).ok();
    let Some(text) = own.or_else(|| bundled(&connection.connector).map(|shipped| shipped.text.to_owned())) else {
        let error = Error::new(Code::Unsupported, "only connections of declarative connectors have a login")
            .detail(format!("`{}`", connection.connector));
        return Err(connection.place.mark(error.connection(&args.connection)).into());
    };
    let manifest = Manifest::parse(&file, &text)?;
    let config = connection.settings_for(&manifest.connection_schema().try_into().unwrap_or_default());
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await.map_err(|e| {
        Error::new(Code::Io, "the port for the answer is not free")
            .detail(format!("localhost:{}", args.port))
            .source(e)
            .hint("another one goes with --port; the vendor must know its address")
    })?;
    let redirect = format!("http://localhost:{}{PATH}", listener.local_addr()?.port());
    let mut consent = Consent::begin(&manifest, &config, &redirect).map_err(|e| e.connection(&args.connection))?;
    let url = consent.url()?;
    session.output.either(|| json!({"open": url.as_str(), "redirect": redirect}), || format!("{url}"));
    session.output.note(format!("open this page and consent; it leads back to {redirect}, which the application must allow"));
    if !args.no_browser && output::is_interactive() {
        open(&url);
    }
    let code = tokio::time::timeout(PATIENCE, code(&listener, &consent.state)).await;
    let code = code.map_err(|_| {
        Error::new(Code::Timeout, "nobody came back from the consent page").detail(format!("in {} minutes", PATIENCE.as_secs() / 60))
    })??;
    let answer = tokens(&mut consent, &code).await.map_err(|e| e.connection(&args.connection))?;
    let settings = consent.settings(&config, &answer)?;
    Kept::of(&connection.context(project)).keep(&config, &settings)?;
    session.output.either(
        || json!({"connection": args.connection, "kept": true}),
        || format!("{} is logged in; `trib check {}` tries it", args.connection, args.connection),
    );
    Ok(Exit::Success)
}

/// A browser, where there is one. Its failure is no matter: the URL was printed.
fn open(url: &Url) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let null = std::process::Stdio::null;
    let _ = std::process::Command::new(program).arg(url.as_str()).stdin(null()).stdout(null()).stderr(null()).spawn();
}

/// The code, from whoever was sent back with our state. Others are turned away, and waiting goes on.
async fn code(listener: &TcpListener, state: &str) -> trib_core::Result<String> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        // Browsers also open connections that they never use.
        let asked = tokio::time::timeout(Duration::from_secs(5), asked(&mut stream)).await;
        let Ok(Some(url)) = asked else { continue };
        let param = |name: &str| url.query_pairs().find(|(k, _)| k == name).map(|(_, v)| v.into_owned());
        if url.path() != PATH {
            answer(&mut stream, 404, "There is nothing here.").await;
        } else if param("state").as_deref() != Some(state) {
            answer(&mut stream, 400, "This is not the answer to the login that was begun. Please begin again.").await;
        } else if let Some(error) = param("error") {
            answer(&mut stream, 200, "The login was refused. You can close this window.").await;
            let detail = param("error_description").map_or_else(|| error.clone(), |d| format!("{error}: {d}"));
            return Err(Error::new(Code::AuthFailed, "the login was refused").detail(detail));
        } else if let Some(code) = param("code").or_else(|| param("auth_code")) {
            answer(&mut stream, 200, "You are logged in. You can close this window.").await;
            return Ok(code);
        } else {
            answer(&mut stream, 400, "There is no code in this answer.").await;
        }
    }
}

/// The URL of a GET.
async fn asked(stream: &mut TcpStream) -> Option<Url> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.lines().next()?.strip_prefix("GET ")?.split(' ').next()?;
    Url::parse("http://localhost").ok()?.join(target).ok()
}

/// A browser that has gone away needs no answer.
async fn answer(stream: &mut TcpStream, status: u16, text: &str) {
    let page = format!("<!doctype html><meta charset=utf-8><title>Tributary</title><p>{text}</p>");
    let head = format!(
        "HTTP/1.1 {status} Answer\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    );
    let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn tokens(consent: &mut Consent, code: &str) -> trib_core::Result<Value> {
    let request = consent.exchange(code)?;
    let address = shown(&request.url);
    let response = Client::new(concat!("tributary/", env!("CARGO_PKG_VERSION")), EXCHANGE)?.send(request).await?;
    let scrub = Scrub::new(consent.secrets());
    if !response.ok() {
        let told: String = scrub.body(&response.body).chars().take(300).collect();
        return Err(Error::new(Code::AuthFailed, "the vendor gives no token for the code")
            .detail(format!("{address} answered {}: {told}", response.status)));
    }
    serde_json::from_slice(&response.body).map_err(|_| {
        Error::new(Code::SystemError, "the vendor's answer with the token is not JSON")
            .detail(format!("{address} answered {}", response.status))
    })
}
