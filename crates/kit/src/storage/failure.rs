//! What the errors of stores mean.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};
use trib_core::secret::redact_url;
use trib_core::{Code, Error};

use crate::cause;

/// What a store's error means. `at` is shown, without its secrets, and so is the store's own text.
pub fn error(e: object_store::Error, at: &str) -> Error {
    meaning(&e, Cause::of(&e), at)
}

/// The same for a store's error that is the cause of another; `None` when no store has failed. `at` may be empty.
pub fn within(e: &(dyn StdError + 'static), at: &str) -> Option<Error> {
    Some(meaning(cause::find(e)?, Cause::of(e), at))
}

fn meaning(e: &object_store::Error, cause: Cause, at: &str) -> Error {
    use object_store::Error as E;
    let (code, message) = match e {
        E::NotFound { .. } => (Code::NotFound, "there is no such file"),
        E::PermissionDenied { .. } => (Code::PermissionDenied, "the file may not be read or written"),
        E::Unauthenticated { .. } => (Code::AuthFailed, "the store does not accept the credentials"),
        E::AlreadyExists { .. } | E::Precondition { .. } => (Code::LeaseLost, "somebody else has written the file"),
        E::NotSupported { .. } | E::NotImplemented { .. } => (Code::Unsupported, "the store cannot do this"),
        E::UnknownConfigurationKey { .. } | E::InvalidPath { .. } => (Code::ConfigInvalid, "the location is not right"),
        // Stores say this in the text of an answer that object_store does not take apart.
        E::Generic { .. } if cause.text.contains("NoSuchBucket") => (Code::NotFound, "there is no such bucket"),
        _ => match (cause.status(), cause::find::<HttpError>(e)) {
            (Some(status), _) => answered(status),
            (None, Some(http)) => cause.transport(http, io_kind(e)),
            (None, None) => match io_kind(e) {
                Some(kind) => {
                    let from: Error = io::Error::from(kind).into();
                    (from.code(), from.message())
                }
                None => (Code::SystemError, "the store answered with an error"),
            },
        },
    };
    let mut error = Error::new(code, message).source(cause);
    if code == Code::ResourceExhausted {
        error = error.hint("make room there, and run again");
    }
    if at.is_empty() { error } else { error.detail(redact_url(at)) }
}

/// What an answer means that says nothing of the file: the client has asked several times by then.
fn answered(status: u16) -> (Code, &'static str) {
    match status {
        429 | 503 => (Code::RateLimited, "the store asks for fewer requests"),
        408 | 504 => (Code::Timeout, "the store did not answer in time"),
        507 => (Code::ResourceExhausted, "the store is full"),
        500.. => (Code::ConnectionLost, "the store has failed"),
        401 => (Code::AuthFailed, "the store does not accept the credentials"),
        _ => (Code::SystemError, "the store answered with an error"),
    }
}

/// The status of an answer that was not taken, where it is known.
pub fn status(e: &object_store::Error) -> Option<u16> {
    Cause::of(e).status()
}

/// A store's error as text: its own types are private, and it may show the URL that was asked for.
#[derive(Debug)]
struct Cause {
    text: String,
}

impl Cause {
    fn of(e: &(dyn StdError + 'static)) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = Some(e);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !texts.iter().any(|seen| seen.contains(&text)) {
                texts.push(text);
            }
            next = cause.source();
        }
        Self { text: redact_urls(&texts.join(": ")) }
    }

    fn status(&self) -> Option<u16> {
        // S3 answers some requests with 200 and an error in the body.
        if self.text.contains("Server returned error response") {
            return Some(if self.text.contains("SlowDown") { 503 } else { 500 });
        }
        let (_, rest) = self.text.split_once("status code: ")?;
        rest.get(..3)?.parse().ok()
    }

    /// What has happened on the way, when there was no answer.
    fn transport(&self, e: &HttpError, io: Option<io::ErrorKind>) -> (Code, &'static str) {
        match e.kind() {
            HttpErrorKind::Timeout => (Code::Timeout, "the store did not answer in time"),
            _ if io == Some(io::ErrorKind::ConnectionRefused) => (Code::ConnectionRefused, "the store refused the connection"),
            HttpErrorKind::Connect if self.text.contains("dns error") => (Code::HostUnknown, "the store's host name is not known"),
            HttpErrorKind::Connect if self.text.contains("certificate") => (Code::TlsFailed, "the store's certificate is not trusted"),
            HttpErrorKind::Connect => (Code::ConnectionRefused, "the store cannot be reached"),
            _ => (Code::ConnectionLost, "the connection to the store broke"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {}

/// The text with each URL in it as it may be shown.
fn redact_urls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let core = word.trim_matches(|c: char| c.is_whitespace() || "\"'`()<>,;:".contains(c));
        if core.contains("://") {
            shown.push_str(&word.replace(core, &redact_url(core)));
        } else {
            shown.push_str(word);
        }
    }
    shown
}

/// The I/O error at the root of a store's error.
fn io_kind(e: &object_store::Error) -> Option<io::ErrorKind> {
    cause::find::<io::Error>(e).map(io::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_a_text_lose_their_secrets() {
        let text = "Error performing GET https://me:hunter2@h/x?sig=hunter2 in 1ms, \"s3://k:hunter2@b/y\": (http://hunter2@h)";
        let shown = "Error performing GET https://***:***@h/x?sig=*** in 1ms, \"s3://k:***@b/y\": (http://***@h/)";
        assert_eq!(redact_urls(text), shown);
    }
}
