//! A client for HTTP APIs: pooled connections per host (HTTP/2 where the host offers it), TLS by rustls with ring, redirects
//! that leave credentials behind, and answers whose transport encoding is undone.
//!
//! What an answer means (which status is a failure, what is tried again) is for the caller to say.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use tokio::time::timeout;
use trib_core::{Code, Error, Result};
use url::Url;

use crate::exchange::{Exchange, Wire};

/// As many as Python's `requests` follows.
const MOST_REDIRECTS: usize = 30;
/// So many times its timeout an exchange may take as a whole, as long as something comes in all the while.
const MOST_TIMEOUTS: u32 = 12;
/// No answer is read beyond this into memory.
const MOST_BYTES: usize = 1 << 30;
/// Headers that never follow a redirect to another host.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    agent: String,
    timeout: Duration,
    through: Option<Arc<dyn Exchange>>,
}

/// A request as it goes out.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    /// Names of headers that hold a credential, besides the well-known ones.
    pub secret_headers: Vec<String>,
    pub body: Option<Bytes>,
    /// How long nothing may come; the client's own when left out.
    pub timeout: Option<Duration>,
}

impl Request {
    pub fn get(url: Url) -> Self {
        Self { method: "GET".to_owned(), url, headers: Vec::new(), secret_headers: Vec::new(), body: None, timeout: None }
    }
}

/// A whole answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in the order in which they came; a name that came twice stands twice.
    pub headers: Vec<(String, String)>,
    /// Where the answer came from, after redirects.
    pub url: Url,
    pub body: Bytes,
}

impl Response {
    /// Neither a client's nor a server's error.
    pub fn ok(&self) -> bool {
        self.status < 400
    }

    /// The value of a header, by its name in any case. Several of one name are joined by commas.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Client {
    /// `timeout` is how long nothing may come in, `agent` is what we call ourselves.
    pub fn new(agent: &str, timeout: Duration) -> Result<Self> {
        let inner = inner(agent, timeout.min(Duration::from_secs(30)))?;
        Ok(Self { inner, agent: agent.to_owned(), timeout, through: None })
    }

    /// The same, giving up after so long where a connection cannot be made. It has connections of its own.
    pub fn connecting_within(&self, limit: Duration) -> Result<Self> {
        Ok(Self { inner: inner(&self.agent, limit)?, ..self.clone() })
    }

    /// The same client, whose exchanges all go through this.
    #[must_use]
    pub fn through(self, exchange: Arc<dyn Exchange>) -> Self {
        Self { through: Some(exchange), ..self }
    }

    /// Sends a request and follows its redirects. An answer of any status is `Ok`; an error is that none came.
    pub async fn send(&self, mut request: Request) -> Result<Response> {
        for _ in 0..=MOST_REDIRECTS {
            let response = self.exchange(&request).await?;
            let Some(next) = target(&response) else { return Ok(response) };
            redirect(&mut request, response.status, next);
        }
        Err(Error::new(Code::SystemError, "the server redirects without end").detail(shown(&request.url)))
    }

    async fn exchange(&self, request: &Request) -> Result<Response> {
        match &self.through {
            Some(through) => through.exchange(request, Wire(self)).await,
            None => self.over_the_wire(request).await,
        }
    }

    pub(crate) async fn over_the_wire(&self, request: &Request) -> Result<Response> {
        let shown = || shown(&request.url);
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|_| Error::new(Code::ConfigInvalid, "this is no HTTP method").detail(&request.method))?;
        let mut outgoing = self.inner.request(method, request.url.clone()).headers(headers(&request.headers)?);
        if let Some(body) = &request.body {
            outgoing = outgoing.body(body.clone());
        }
        let silence = request.timeout.unwrap_or(self.timeout);
        let began = Instant::now();
        let late = |_| Error::new(Code::Timeout, "the server did not answer in time").detail(shown());
        let mut incoming = timeout(silence, outgoing.send()).await.map_err(late)?.map_err(|e| failure(e, shown()))?;
        let status = incoming.status().as_u16();
        let url = incoming.url().clone();
        let headers: Vec<(String, String)> =
            incoming.headers().iter().map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
        let expected = incoming.content_length().and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
        let mut body = BytesMut::with_capacity(expected.min(MOST_BYTES));
        while let Some(chunk) = timeout(silence, incoming.chunk()).await.map_err(late)?.map_err(|e| failure(e, shown()))? {
            body.extend_from_slice(&chunk);
            if began.elapsed() > silence * MOST_TIMEOUTS {
                return Err(Error::new(Code::Timeout, "the answer comes too slowly").detail(shown()));
            }
            if body.len() > MOST_BYTES {
                return Err(too_large().detail(shown()));
            }
        }
        let mut response = Response { status, headers, url, body: body.freeze() };
        if let Some(encoding) = response.header("content-encoding") {
            response.body = decoded(&encoding, response.body).map_err(|e| e.detail(shown()))?;
        }
        Ok(response)
    }
}

fn inner(agent: &str, connect_timeout: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(agent)
        .connect_timeout(connect_timeout)
        // A connection that a router on the way has forgotten is noticed within two minutes.
        .tcp_keepalive(Duration::from_secs(60))
        .tcp_keepalive_interval(Duration::from_secs(10))
        .tcp_keepalive_retries(6)
        .redirect(Policy::none())
        .use_rustls_tls()
        .build()
        .map_err(|e| Error::new(Code::Internal, "the HTTP client could not be made").source(e.without_url()))
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::with_capacity(pairs.len() + 2);
    map.insert("accept", HeaderValue::from_static("*/*"));
    map.insert("accept-encoding", HeaderValue::from_static("gzip, deflate"));
    for (name, value) in pairs {
        // The value may be a secret: only the name is shown.
        let wrong = || Error::new(Code::ConfigInvalid, "a request header holds characters that headers may not have").detail(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        map.insert(key, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?);
    }
    Ok(map)
}

fn target(response: &Response) -> Option<Url> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response.url.join(&response.header("location")?).ok()
}

/// What becomes of a request that is sent on, by the rules that browsers and `requests` share.
fn redirect(request: &mut Request, status: u16, next: Url) {
    let same_host = |a: &Url, b: &Url| a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default();
    if !same_host(&request.url, &next) || (request.url.scheme() == "https" && next.scheme() != "https") {
        let secret = std::mem::take(&mut request.secret_headers);
        request.headers.retain(|(name, _)| {
            let is = |known: &str| known.eq_ignore_ascii_case(name);
            !CREDENTIALS.iter().any(|c| is(c)) && !secret.iter().any(|s| is(s))
        });
    }
    let becomes_get = status == 303 && request.method != "HEAD" || matches!(status, 301 | 302) && request.method == "POST";
    if becomes_get {
        request.method = "GET".to_owned();
        request.body = None;
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
    }
    request.url = next;
}

fn decoded(encoding: &str, body: Bytes) -> Result<Bytes> {
    let mut plain = Vec::new();
    let most = MOST_BYTES as u64 + 1;
    let read = match encoding.trim() {
        "gzip" | "x-gzip" => MultiGzDecoder::new(&body[..]).take(most).read_to_end(&mut plain),
        "deflate" => ZlibDecoder::new(&body[..]).take(most).read_to_end(&mut plain),
        _ => return Ok(body),
    };
    if plain.len() > MOST_BYTES {
        return Err(too_large());
    }
    read.map_err(|e| Error::new(Code::ConnectionLost, "the answer's compressed body is damaged").source(e))?;
    Ok(plain.into())
}

fn too_large() -> Error {
    Error::new(Code::ResourceExhausted, "the answer is larger than can be held")
}

/// A URL without what may be a secret: user, password, query.
pub fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// What it means that no answer came. The URL is shown without its secrets, and nowhere else.
fn failure(e: reqwest::Error, shown: String) -> Error {
    let e = e.without_url();
    let (code, message) = if e.is_timeout() {
        (Code::Timeout, "the server did not answer in time")
    } else if e.is_connect() {
        connect_failure(&e)
    } else {
        (Code::ConnectionLost, "the connection broke before the answer was complete")
    };
    Error::new(code, message).detail(shown).source(e)
}

fn connect_failure(e: &reqwest::Error) -> (Code, &'static str) {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(cause) = next {
        let text = cause.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return (Code::HostUnknown, "the host name does not resolve");
        }
        if ["certificate", "TLS", "HandshakeFailure", "corrupt message"].iter().any(|sign| text.contains(sign)) {
            return (Code::TlsFailed, "TLS could not be agreed on");
        }
        next = cause.source();
    }
    (Code::ConnectionRefused, "the server did not take the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str) -> Request {
        let header = |n: &str| (n.to_owned(), "x".to_owned());
        Request {
            method: method.to_owned(),
            headers: ["Authorization", "X-Key", "Accept-Language", "Content-Type"].map(header).to_vec(),
            secret_headers: vec!["x-key".to_owned()],
            body: Some(Bytes::from_static(b"b")),
            ..Request::get(Url::parse(url).unwrap())
        }
    }

    fn names(request: &Request) -> Vec<&str> {
        request.headers.iter().map(|(n, _)| n.as_str()).collect()
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let mut same = request("GET", "https://a.example/x");
        redirect(&mut same, 302, Url::parse("https://a.example/y").unwrap());
        assert_eq!(names(&same), ["Authorization", "X-Key", "Accept-Language", "Content-Type"]);
        for other in ["https://b.example/y", "http://a.example/y", "https://a.example:8443/y"] {
            let mut moved = request("GET", "https://a.example/x");
            redirect(&mut moved, 307, Url::parse(other).unwrap());
            assert_eq!(names(&moved), ["Accept-Language", "Content-Type"], "{other}");
        }
    }

    #[test]
    fn a_post_that_is_redirected() {
        for (status, method, body) in [(302, "GET", false), (303, "GET", false), (307, "POST", true), (308, "POST", true)] {
            let mut moved = request("POST", "https://a.example/x");
            redirect(&mut moved, status, Url::parse("https://a.example/y").unwrap());
            assert_eq!((moved.method.as_str(), moved.body.is_some()), (method, body), "{status}");
        }
    }
}
