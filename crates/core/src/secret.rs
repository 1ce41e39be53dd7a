//! A setting that must never be shown.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// What stands in place of a secret wherever it might be printed.
pub const REDACTED: &str = "***";

/// Text that shows itself only through [`Secret::expose`]. Formatting and serializing give `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "password", "writeOnly": true})
    }
}

/// A URL as it may be shown: without query values that look like keys, without the password, and without the user where that may be a token
/// (it comes without a password, or over HTTP).
pub fn redact_url(text: &str) -> String {
    let Some(mut url) = url::Url::parse(text).ok().filter(|u| !u.cannot_be_a_base()) else {
        // Not a URL that we understand: show nothing that could be a password.
        return match text.rsplit_once('@') {
            Some((_, rest)) => format!("{REDACTED}@{rest}"),
            None => text.to_owned(),
        };
    };
    // What stands before the `@` in Azure's own URLs is a container.
    let container = url.password().is_none() && url.scheme().starts_with("abfs");
    let token = url.password().is_none() || matches!(url.scheme(), "http" | "https");
    if token && !url.username().is_empty() && !container {
        // Fails only for URLs that cannot have a user, and this one has.
        let _ = url.set_username(REDACTED);
    }
    if url.password().is_some() {
        let _ = url.set_password(Some(REDACTED));
    }
    let sensitive = |key: &str| {
        let key = key.to_lowercase();
        ["password", "secret", "token", "key", "sig", "credential"].iter().any(|s| key.contains(s))
    };
    if url.query_pairs().any(|(k, _)| sensitive(&k)) {
        let kept: Vec<(String, String)> =
            url.query_pairs().map(|(k, v)| (k.to_string(), if sensitive(&k) { REDACTED.to_owned() } else { v.to_string() })).collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn urls_lose_their_passwords() {
        assert_eq!(redact_url("postgres://u:pw@h/db?sslmode=require"), "postgres://u:***@h/db?sslmode=require");
        assert_eq!(redact_url("https://h/x?api_key=abc&n=1"), "https://h/x?api_key=***&n=1");
        assert_eq!(redact_url("https://token@h/x"), "https://***@h/x");
        assert_eq!(redact_url("https://token:x-oauth-basic@h/x"), "https://***:***@h/x");
        assert_eq!(redact_url("postgres://token@h/db"), "postgres://***@h/db");
        assert_eq!(redact_url("s3://key:secret@bucket/x"), "s3://key:***@bucket/x");
        assert_eq!(redact_url("abfss://container@account.dfs.core.windows.net/x"), "abfss://container@account.dfs.core.windows.net/x");
        assert_eq!(redact_url("u:p@ss@host:bad port"), "***@host:bad port");
    }
}
