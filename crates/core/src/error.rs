//! What failed, where, whose fault it is, whether trying again helps, and what mends it.
//!
//! An [`Error`] is a [`Code`], one static sentence, a detail that belongs to this occurrence, a
//! [`Place`], a hint and a source. The code alone decides [`Blame`] and [`Retry`], in one table below.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault a failure is. It decides the tone of the message and the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The project, the call or the data that the user gave.
    User,
    /// A system that we talk to, or the network between.
    External,
    /// Tributary itself.
    Internal,
}

/// Whether the same step may be tried again as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    Never,
    /// Waiting may help: tried again by itself, with growing pauses.
    Backoff,
    /// Only after somebody has changed something.
    AfterFix,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $blame:ident, $retry:ident;)*) => {
        /// What kind of thing failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, for documentation and tests.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as it stands in `--json` output and in the documentation.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            pub fn blame(self) -> Blame {
                match self { $(Code::$name => Blame::$blame,)* }
            }

            pub fn retry(self) -> Retry {
                match self { $(Code::$name => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    /// A project file is not right: syntax, an unknown key, a value of the wrong kind.
    ConfigInvalid = "config_invalid", User, AfterFix;
    /// The command line is not right.
    UsageInvalid = "usage_invalid", User, AfterFix;
    /// A `${VAR}` or `${file:…}` that has no value.
    SecretMissing = "secret_missing", User, AfterFix;
    /// The system does not accept the credentials.
    AuthFailed = "auth_failed", User, AfterFix;
    /// The credentials are right, but may not do this.
    PermissionDenied = "permission_denied", User, AfterFix;
    /// The stream, table, file or setting that was named is not there.
    NotFound = "not_found", User, AfterFix;
    /// The two systems cannot do this together (a mode, a type, a limit).
    Unsupported = "unsupported", User, AfterFix;
    /// The contract forbids the change that the source has made.
    ContractBroken = "contract_broken", User, AfterFix;
    /// The data contradict what is declared about them.
    DataInvalid = "data_invalid", User, AfterFix;
    /// A data test failed.
    TestFailed = "test_failed", User, AfterFix;
    /// A script or a command of the project has ended with an error, or took too long.
    ScriptFailed = "script_failed", User, AfterFix;
    /// A guard holds the run until somebody approves it.
    Held = "held", User, AfterFix;
    /// There are markers at the destination, but no state: going on would load twice.
    StateMissing = "state_missing", User, AfterFix;
    /// Another run holds the sync, or a later one has taken it over.
    LeaseLost = "lease_lost", External, Never;
    /// The host name does not resolve.
    HostUnknown = "host_unknown", External, Backoff;
    /// Nothing listens there, or it would not take the connection.
    ConnectionRefused = "connection_refused", External, Backoff;
    /// The connection broke in the middle.
    ConnectionLost = "connection_lost", External, Backoff;
    /// TLS could not be agreed on.
    TlsFailed = "tls_failed", External, AfterFix;
    /// No answer in time.
    Timeout = "timeout", External, Backoff;
    /// No row and no sign of life for longer than `stall_timeout`.
    Stalled = "stalled", External, Backoff;
    /// The system asks for fewer requests.
    RateLimited = "rate_limited", External, Backoff;
    /// The system is there, and cannot answer for the moment.
    Unavailable = "unavailable", External, Backoff;
    /// The system is out of disk, memory or another resource.
    ResourceExhausted = "resource_exhausted", External, Backoff;
    /// The system gave up the transaction (deadlock, serialization, killed).
    TransactionAborted = "transaction_aborted", External, Backoff;
    /// The system answered with an error that has no better name.
    SystemError = "system_error", External, AfterFix;
    /// A local file or folder could not be read or written.
    Io = "io", External, AfterFix;
    /// Somebody stopped the run.
    Cancelled = "cancelled", User, Never;
    /// A mistake in Tributary.
    Internal = "internal", Internal, Never;
}

/// Where something failed. What is not known stays empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// A row as a person would find it: `line 7`, `id=42`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// A dotted path of settings: `streams.orders.cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// One-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// One-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(file) = &self.file {
            // A text that stands in no file is SQL that was typed in.
            let mut at = if file.is_empty() { "SQL".to_owned() } else { file.clone() };
            for n in [self.line, self.column].into_iter().flatten() {
                at.push_str(&format!(":{n}"));
            }
            parts.push(at);
        }
        let named = [("connection", &self.connection), ("stream", &self.stream), ("setting", &self.setting), ("row", &self.row)];
        parts.extend(named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?))));
        f.write_str(&parts.join(", "))
    }
}

struct Inner {
    code: Code,
    message: &'static str,
    detail: Option<String>,
    hint: Option<String>,
    place: Place,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// One failure. Cheap to pass around; built with [`Error::new`] and the methods that follow it.
pub struct Error(Box<Inner>);

impl Error {
    /// `message` is one sentence without names or values in it: those go into [`Error::detail`], so
    /// that equal failures read equally.
    pub fn new(code: Code, message: &'static str) -> Self {
        Self(Box::new(Inner { code, message, detail: None, hint: None, place: Place::default(), source: None }))
    }

    /// A mistake of ours: something that the code around it has made impossible.
    pub fn internal(message: &'static str) -> Self {
        Self::new(Code::Internal, message)
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The cause. Its text is shown below the error, so it must not hold secrets.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn connection(mut self, name: impl Into<String>) -> Self {
        self.0.place.connection.get_or_insert(name.into());
        self
    }

    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.0.place.stream.get_or_insert(name.into());
        self
    }

    #[must_use]
    pub fn row(mut self, row: impl Into<String>) -> Self {
        self.0.place.row.get_or_insert(row.into());
        self
    }

    #[must_use]
    pub fn setting(mut self, path: impl Into<String>) -> Self {
        self.0.place.setting.get_or_insert(path.into());
        self
    }

    #[must_use]
    pub fn file(mut self, path: impl Into<String>, line: Option<usize>, column: Option<usize>) -> Self {
        if self.0.place.file.is_none() {
            self.0.place.file = Some(path.into());
            self.0.place.line = line;
            self.0.place.column = column;
        }
        self
    }

    /// The text that the error is about stands in a file: a place within the text (a line and column in a file without a name) becomes the one that
    /// `place` gives for it, and so does none at all. An error that names a file keeps its place.
    #[must_use]
    pub fn within(
        mut self,
        path: impl Into<String>,
        place: impl FnOnce(Option<usize>, Option<usize>) -> (Option<usize>, Option<usize>),
    ) -> Self {
        let own = &mut self.0.place;
        if own.file.as_ref().is_none_or(String::is_empty) {
            (own.line, own.column) = place(own.line, own.column);
            own.file = Some(path.into());
        }
        self
    }

    /// The same for somebody else who waits for it; of its cause only the text.
    #[must_use]
    pub fn again(&self) -> Self {
        let inner = &*self.0;
        let causes = self.causes();
        let source = (!causes.is_empty()).then(|| causes.join("; ").into());
        let (code, message) = (inner.code, inner.message);
        Self(Box::new(Inner { code, message, detail: inner.detail.clone(), hint: inner.hint.clone(), place: inner.place.clone(), source }))
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn message(&self) -> &'static str {
        self.0.message
    }

    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The chain of causes, outermost first, each as one line.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many libraries repeat their cause's text in their own.
            if !causes.iter().any(|seen: &String| seen.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// As it stands in `--json` output, in the log and in the control database.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "code": self.0.code,
            "message": self.0.message,
            "detail": self.0.detail,
            "hint": self.0.hint,
            "place": self.0.place,
            "blame": self.0.code.blame(),
            "retry": self.0.code.retry(),
            "causes": self.causes(),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message)?;
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.code.as_str())?;
        if !self.0.place.to_string().is_empty() {
            write!(f, " ({})", self.0.place)?;
        }
        for cause in self.causes() {
            write!(f, "; {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (code, message) = match e.kind() {
            ErrorKind::NotFound => (Code::NotFound, "the file is not there"),
            ErrorKind::PermissionDenied => (Code::PermissionDenied, "the file may not be read or written"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Code::ResourceExhausted, "the disk is full"),
            ErrorKind::FileTooLarge => (Code::ResourceExhausted, "the file is as large as files may be here"),
            ErrorKind::ConnectionRefused => (Code::ConnectionRefused, "the server refused the connection"),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => (Code::ConnectionLost, "the connection broke"),
            ErrorKind::TimedOut => (Code::Timeout, "no answer in time"),
            _ => (Code::Io, "reading or writing failed"),
        };
        let error = Error::new(code, message).source(e);
        if code == Code::ResourceExhausted { error.hint("make room there, and run again") } else { error }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Error::new(Code::DataInvalid, "the values do not fit the column's type").source(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::new(Code::DataInvalid, "the JSON is not what was expected").source(e)
    }
}

/// The candidate that `wrong` most likely meant, for "did you mean" hints.
pub fn closest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().max(wrong.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_named_as_in_json() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn the_first_place_stays() {
        let e = Error::internal("x").stream("inner").stream("outer");
        assert_eq!(e.place().stream.as_deref(), Some("inner"));
    }

    #[test]
    fn closest_suggests_near_names_only() {
        assert_eq!(closest("curser", ["cursor", "key"]), Some("cursor"));
        assert_eq!(closest("zzz", ["cursor", "key"]), None);
    }
}
