//! What of a sample request belongs to every request, and what is a setting of a connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use trib_kit::http::Request;
use trib_kit::scrub::names_a_secret;
use url::Url;

use super::{Setting, split};

/// The sample request, as the user has typed it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub url: Url,
    pub headers: Vec<(String, String)>,
}

/// Its parts, secrets replaced by settings.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) url_base: String,
    pub(super) path: String,
    pub(super) params: Map<String, Value>,
    pub(super) headers: Map<String, Value>,
    pub(super) authenticator: Option<Value>,
    pub(super) settings: Vec<Setting>,
}

impl Asked {
    pub fn request(&self) -> Request {
        let secret_headers = self.headers.iter().map(|(name, _)| name.clone()).filter(|n| names_a_secret(n)).collect();
        Request { headers: self.headers.clone(), secret_headers, ..Request::get(self.url.clone()) }
    }

    /// The settings of a connection that makes this very request.
    pub fn config(&self) -> Value {
        Value::Object(self.secrets().map(|(place, value)| (place.setting(), Value::from(value))).collect())
    }

    /// Credentials, with the place where each stands.
    fn secrets(&self) -> impl Iterator<Item = (Place<'_>, String)> {
        let headers = self.headers.iter().flat_map(|(name, value)| of_header(name, value));
        headers.chain(
            self.url
                .query_pairs()
                .filter(|(name, _)| names_a_secret(name))
                .map(|(name, value)| (Place::Param(name.into_owned()), value.into_owned())),
        )
    }

    pub(super) fn parts(&self) -> Parts {
        let (url_base, path) = split(&self.url);
        let mut parts = Parts { url_base, path, ..Parts::default() };
        for (name, value) in self.url.query_pairs().filter(|(name, _)| !names_a_secret(name)) {
            parts.params.insert(name.into_owned(), value.into_owned().into());
        }
        for (name, value) in self.headers.iter().filter(|(name, value)| of_header(name, value).is_empty()) {
            parts.headers.insert(name.clone(), Value::from(value.clone()));
        }
        for (place, _) in self.secrets() {
            let setting = place.setting();
            if parts.settings.iter().any(|s| s.name == setting) {
                continue;
            }
            let template = format!("{{{{ config['{setting}'] }}}}");
            parts.settings.push(Setting {
                secret: !matches!(place, Place::User),
                required: true,
                description: place.description(),
                name: setting,
            });
            match (place.authenticator(&template), &mut parts.authenticator) {
                (Some(own), None) => parts.authenticator = Some(own),
                (None, Some(basic)) => basic["password"] = template.into(),
                // There is one authenticator: whatever else is secret is part of the request.
                (_, Some(_)) => match place {
                    Place::Header(name) => drop(parts.headers.insert(name.to_owned(), template.into())),
                    Place::Param(name) => drop(parts.params.insert(name, template.into())),
                    _ => {}
                },
                (None, None) => {}
            }
        }
        parts
    }
}

enum Place<'a> {
    Bearer,
    User,
    Password,
    Header(&'a str),
    Param(String),
}

fn of_header<'a>(name: &'a str, value: &str) -> Vec<(Place<'a>, String)> {
    let scheme = |scheme: &str| {
        value.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).map(|_| value[scheme.len()..].trim().to_owned())
    };
    if name.eq_ignore_ascii_case("authorization") {
        if let Some(token) = scheme("bearer ") {
            return vec![(Place::Bearer, token)];
        }
        let basic = scheme("basic ").and_then(|b| STANDARD.decode(b).ok()).and_then(|b| String::from_utf8(b).ok());
        if let Some((user, password)) = basic.as_deref().and_then(|b| b.split_once(':')) {
            return vec![(Place::User, user.to_owned()), (Place::Password, password.to_owned())];
        }
    }
    if names_a_secret(name) { vec![(Place::Header(name), value.to_owned())] } else { Vec::new() }
}

impl Place<'_> {
    fn setting(&self) -> String {
        let name = match self {
            Place::Bearer => "api_token",
            Place::User => "username",
            Place::Password => "password",
            Place::Header(name) => name.strip_prefix("X-").or_else(|| name.strip_prefix("x-")).unwrap_or(name),
            Place::Param(name) => name,
        };
        name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    }

    fn description(&self) -> String {
        match self {
            Place::Bearer => "The token that is sent as `Authorization: Bearer …`".to_owned(),
            Place::User => "The user's name".to_owned(),
            Place::Password => "The password".to_owned(),
            Place::Header(name) => format!("The value of the header {name}"),
            Place::Param(name) => format!("The value of the parameter {name}"),
        }
    }

    /// `None` for what belongs to another part's authenticator.
    fn authenticator(&self, template: &str) -> Option<Value> {
        let key = |option: Value| json!({"type": "ApiKeyAuthenticator", "api_token": template, "inject_into": option});
        Some(match self {
            Place::Bearer => json!({"type": "BearerAuthenticator", "api_token": template}),
            Place::User => json!({"type": "BasicHttpAuthenticator", "username": template, "password": ""}),
            Place::Password => return None,
            Place::Header(name) => key(json!({"type": "RequestOption", "inject_into": "header", "field_name": name})),
            Place::Param(name) => key(json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": name})),
        })
    }
}
