//! Exchanges with an HTTP API, kept in a file without their secrets, and given again.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trib_core::Result;
use url::Url;

use crate::exchange::{Exchange, Wire};
use crate::http::{Request, Response};
use crate::scrub::{BLANK, Scrub};

/// A request as it is shown and kept: secrets are blank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub method: String,
    pub url: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// The same with its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    #[serde(flatten)]
    pub sent: Sent,
    pub status: u16,
    #[serde(default)]
    pub answer_headers: Vec<(String, String)>,
    pub answer: String,
}

/// What is about the body as it was sent: it is kept as it is read.
const OF_TRANSPORT: [&str; 3] = ["content-encoding", "content-length", "transfer-encoding"];

impl Sent {
    pub fn of(request: &Request, scrub: &Scrub) -> Self {
        let secret = |name: &str| request.secret_headers.iter().any(|s| s.eq_ignore_ascii_case(name));
        let header =
            |(name, value): &(String, String)| (name.clone(), if secret(name) { BLANK.to_owned() } else { scrub.header(name, value) });
        Self {
            method: request.method.clone(),
            url: scrub.url(&request.url),
            headers: request.headers.iter().map(header).collect(),
            body: request.body.as_ref().map(|body| scrub.body(body)),
        }
    }
}

impl Recorded {
    pub fn of(request: &Request, response: &Response, scrub: &Scrub) -> Self {
        scrub.learn(&response.body);
        let headers = response.headers.iter().filter(|(name, _)| !OF_TRANSPORT.contains(&name.as_str()));
        Self {
            sent: Sent::of(request, scrub),
            status: response.status,
            answer_headers: headers.map(|(name, value)| (name.clone(), scrub.header(name, value))).collect(),
            answer: scrub.body(&response.body),
        }
    }

    fn response(&self, url: &Url) -> Response {
        Response { status: self.status, headers: self.answer_headers.clone(), url: url.clone(), body: Bytes::from(self.answer.clone()) }
    }
}

/// Keeps each exchange that goes through it.
#[derive(Debug, Default)]
pub struct Recorder {
    scrub: Scrub,
    kept: Mutex<Vec<Recorded>>,
}

impl Recorder {
    pub fn new(scrub: Scrub) -> Self {
        Self { scrub, kept: Mutex::default() }
    }

    /// What was kept so far. What a later answer has shown to be a secret is taken out of the earlier ones too.
    pub fn take(&self) -> Vec<Recorded> {
        let mut kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        for one in &mut kept {
            let Recorded { sent, answer_headers, answer, .. } = one;
            let pairs = sent.headers.iter_mut().chain(answer_headers).map(|(_, value)| value);
            let texts = pairs.chain([&mut sent.url, answer]).chain(&mut sent.body);
            texts.for_each(|text| *text = self.scrub.text(text));
        }
        kept
    }
}

#[async_trait]
impl Exchange for Recorder {
    async fn exchange(&self, request: &Request, wire: Wire<'_>) -> Result<Response> {
        let response = wire.send(request).await?;
        let kept = Recorded::of(request, &response, &self.scrub);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        Ok(response)
    }
}

/// Answers from what was kept, and asks nobody.
///
/// A request gets the answer of the same one (method, URL, body; without secrets); of several, one after the other. A request that is new only in its
/// query or body, such as one that says what time it is, gets the next answer of the same address that nobody has had. One that is new altogether is answered by
/// status 404 and remembered.
#[derive(Debug)]
pub struct Replay {
    scrub: Scrub,
    kept: Mutex<Vec<(Recorded, bool)>>,
    missing: Mutex<Vec<String>>,
}

impl Replay {
    pub fn new(kept: Vec<Recorded>) -> Self {
        let kept = kept.into_iter().map(|k| (k, false)).collect();
        Self { scrub: Scrub::default(), kept: Mutex::new(kept), missing: Mutex::default() }
    }

    /// Requests that had no answer.
    pub fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exchanges that nobody has asked for.
    pub fn unused(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(_, used)| !used).count()
    }
}

#[async_trait]
impl Exchange for Replay {
    async fn exchange(&self, request: &Request, _wire: Wire<'_>) -> Result<Response> {
        let sent = Sent::of(request, &self.scrub);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |k: &Recorded| k.sent.method == sent.method && k.sent.url == sent.url && k.sent.body == sent.body;
        let like = |k: &Recorded| k.sent.method == sent.method && address(&k.sent.url) == address(&sent.url);
        let found = kept.iter().position(|(k, used)| !used && same(k));
        let found =
            found.or_else(|| kept.iter().rposition(|(k, _)| same(k))).or_else(|| kept.iter().position(|(k, used)| !used && like(k)));
        if let Some(found) = found {
            kept[found].1 = true;
            return Ok(kept[found].0.response(&request.url));
        }
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {}", sent.method, sent.url));
        let body = Bytes::from_static(b"{\"message\": \"the recording has no answer for this request\"}");
        Ok(Response { status: 404, headers: Vec::new(), url: request.url.clone(), body })
    }
}

fn address(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::Client;

    fn kept(url: &str, answer: &str) -> Recorded {
        let sent = Sent { method: "GET".into(), url: url.into(), headers: Vec::new(), body: None };
        Recorded { sent, status: 200, answer_headers: Vec::new(), answer: answer.into() }
    }

    #[tokio::test]
    async fn answers_are_found_offline() {
        let replay = std::sync::Arc::new(Replay::new(vec![
            kept("https://a.example/x?page=1", "first"),
            kept("https://a.example/x?page=2", "second"),
            kept("https://a.example/now?until=2026", "now"),
            kept("https://a.example/x?page=1", "first again"),
        ]));
        let client = Client::new("test", Duration::from_secs(1)).unwrap().through(replay.clone());
        let mut said = Vec::new();
        for url in ["x?page=2", "x?page=1", "x?page=1", "x?page=1", "now?until=2027", "nowhere"] {
            let answer = client.send(Request::get(Url::parse(&format!("https://a.example/{url}")).unwrap())).await.unwrap();
            said.push((answer.status, String::from_utf8_lossy(&answer.body).into_owned()));
        }
        let texts: Vec<&str> = said.iter().take(5).map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["second", "first", "first again", "first again", "now"]);
        assert_eq!((said[5].0, replay.missing(), replay.unused()), (404, vec!["GET https://a.example/nowhere".to_owned()], 0));
    }
}
