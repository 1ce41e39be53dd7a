//! Takes secrets out of what an HTTP API is asked and answers: values that are known to be secret wherever they stand and however they are written, and
//! whatever stands under a name that is a secret's.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::{byte_serialize, parse};

/// What stands in a secret's place.
pub const BLANK: &str = trib_core::secret::REDACTED;

/// Parts of names that secrets have.
const SECRET: [&str; 16] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "accesskey",
    "authorization",
    "cookie",
    "session",
    "signature",
    "credential",
    "private_key",
];
/// Parts of names that make a token one of pages or changes, or an address that tokens come from, which is no secret.
const HARMLESS: [&str; 8] = ["page", "next", "prev", "cursor", "continu", "sync", "token_type", "token_url"];

/// Whether a header or a parameter of this name holds a secret.
pub fn names_a_secret(name: &str) -> bool {
    matches!(name.to_lowercase().as_str(), "key" | "sig" | "auth" | "assertion" | "code_verifier") || sounds_secret(name)
}

/// The same of a field of JSON, where a `key` is mostly one of records.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    has(&SECRET) && !has(&HARMLESS)
}

/// A text without these secrets. Where one may stand within another, the longer one comes first.
pub fn without(text: &str, secrets: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    secrets.into_iter().fold(text.to_owned(), |text, secret| {
        let secret = secret.as_ref();
        if text.contains(secret) { text.replace(secret, BLANK) } else { text }
    })
}

/// What is secret about an address that is: what follows its host. Many services take whoever knows it for somebody who may.
pub fn parts_of_address(secret: &str) -> Vec<String> {
    let Ok(url) = Url::parse(secret) else { return Vec::new() };
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    [url.path().to_owned(), url.password().unwrap_or_default().to_owned()].into_iter().chain(values).collect()
}

/// Secrets that are known, those among them that answers have told.
#[derive(Debug, Default)]
pub struct Scrub(Mutex<BTreeSet<Longest>>);

/// Longer ones come first: one secret may stand within another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Longest(std::cmp::Reverse<usize>, String);

impl std::fmt::Debug for Longest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(BLANK)
    }
}

impl Scrub {
    pub fn new(secrets: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let scrub = Self::default();
        secrets.into_iter().for_each(|secret| scrub.know(secret.as_ref()));
        scrub
    }

    /// Takes a value for a secret from now on, in every form in which it may be written.
    pub fn know(&self, secret: &str) {
        if secret.len() < 3 || secret == BLANK {
            return;
        }
        let json = Value::from(secret).to_string();
        let form: String = byte_serialize(secret.as_bytes()).collect();
        let forms = [
            secret.to_owned(),
            json[1..json.len() - 1].to_owned(),
            form.replace('+', "%20"),
            form,
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
        ];
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(forms.into_iter().map(|form| Longest(std::cmp::Reverse(form.len()), form)));
    }

    /// A text without any secret that is known.
    pub fn text(&self, text: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        without(text, known.iter().map(|Longest(_, secret)| secret))
    }

    pub fn header(&self, name: &str, value: &str) -> String {
        if names_a_secret(name) { BLANK.to_owned() } else { self.text(value) }
    }

    pub fn url(&self, url: &Url) -> String {
        let mut url = url.clone();
        // Fails only for URLs without a host, which have neither.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
        let clean = self.text(&path);
        if clean != path {
            url.set_path(&clean);
        }
        if let Some(query) = url.query() {
            let query = self.form(query);
            url.set_query(Some(&query));
        }
        // What is blank already may come encoded.
        self.text(url.as_str()).replace("%2A%2A%2A", BLANK)
    }

    /// A body of any kind.
    pub fn body(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        if let Ok(mut json) = serde_json::from_str::<Value>(&text) {
            if json.is_object() || json.is_array() {
                self.json(&mut json);
                return self.text(&json.to_string());
            }
        } else if text.contains('=') && !text.contains(['\n', '<', '{']) {
            return self.text(&self.form(&text));
        }
        self.text(&text)
    }

    /// Remembers what an answer tells under a secret's name: it is sent with later requests.
    pub fn learn(&self, body: &[u8]) {
        if let Ok(json) = serde_json::from_slice::<Value>(body) {
            self.learn_from(&json, false);
        }
    }

    fn learn_from(&self, json: &Value, secret: bool) {
        match json {
            Value::Object(map) => map.iter().for_each(|(name, value)| self.learn_from(value, sounds_secret(name))),
            Value::Array(items) => items.iter().for_each(|item| self.learn_from(item, secret)),
            // Short ones are flags and kinds, and would blot out half of all other texts.
            Value::String(text) if secret && text.len() >= 8 => self.know(text),
            _ => {}
        }
    }

    /// Blanks what stands under a secret's name.
    pub fn json(&self, json: &mut Value) {
        match json {
            Value::Object(map) => {
                for (name, value) in map {
                    match value {
                        Value::String(_) if sounds_secret(name) => *value = BLANK.into(),
                        _ => self.json(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            _ => {}
        }
    }

    fn form(&self, form: &str) -> String {
        if !parse(form.as_bytes()).any(|(name, _)| names_a_secret(&name)) {
            return form.to_owned();
        }
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in parse(form.as_bytes()) {
            out.append_pair(&name, if names_a_secret(&name) { BLANK } else { &value });
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_found_in_every_form() {
        let scrub = Scrub::new(["hunter 2\"/x", "hunter"]);
        let url = Url::parse("https://u:pw@a.example/v/hunter%202%22/x?q=hunter+2%22%2Fx&api_key=other&page_token=p1").unwrap();
        assert_eq!(scrub.url(&url), "https://a.example/v/***?q=***&api_key=***&page_token=p1");
        let body = json!({"echo": "is hunter 2\"/x", "nested": [{"client_secret": "unknown", "next_page_token": "p2", "token_type": "bearer", "key": "A-1"}]});
        assert_eq!(
            scrub.body(body.to_string().as_bytes()),
            r#"{"echo":"is ***","nested":[{"client_secret":"***","next_page_token":"p2","token_type":"bearer","key":"A-1"}]}"#
        );
        assert_eq!(scrub.body(b"grant_type=x&refresh_token=unknown"), "grant_type=x&refresh_token=***");
        assert_eq!(scrub.header("X-Encoded", &STANDARD.encode("hunter 2\"/x")), BLANK);
        assert_eq!(scrub.header("X-Api-Key", "unknown"), BLANK);
        assert_eq!(scrub.header("Content-Type", "text/plain"), "text/plain");
    }

    #[test]
    fn what_an_answer_tells_is_known_from_then_on() {
        let scrub = Scrub::default();
        scrub.learn(br#"{"access_token": "told-by-the-server", "expires_in": 3600}"#);
        assert_eq!(scrub.text("Bearer told-by-the-server for 3600"), "Bearer *** for 3600");
        assert!(!format!("{scrub:?}").contains("told"));
    }
}
