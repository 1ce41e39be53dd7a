//! Logging in by OAuth, as a manifest's specification declares it: the consent page's URL, the exchange of the code for tokens, and where in the settings
//! the tokens go. Nothing here does I/O.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use chrono::{Duration, SecondsFormat, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use trib_core::{Code, Error, Result};
use trib_kit::http::Request;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::dpath;
use super::manifest::Manifest;
use super::template::python_str;

/// Templates in templates end here.
const DEEPEST: usize = 5;

/// One login that has begun.
pub struct Consent {
    input: Value,
    output: Map<String, Value>,
    /// Where the specification wants to be told that the settings are those of OAuth.
    predicate: Option<(Vec<String>, Value)>,
    variables: Vec<(String, String)>,
    /// Comes back with the code; whoever does not know it has not been asked by us.
    pub state: String,
    verifier: String,
}

impl Consent {
    /// `config` holds the client's id and secret; `redirect` is where the code comes to.
    pub fn begin(manifest: &Manifest, config: &Value, redirect: &str) -> Result<Self> {
        let spec = manifest.spec();
        let none = || {
            Error::new(Code::Unsupported, "the connector declares no login")
                .hint("its manifest has no `advanced_auth` in the `spec`: put the credentials into the connection's settings")
        };
        let flow = spec.get("advanced_auth").ok_or_else(none)?;
        let part = |name: &str| flow.pointer(&format!("/oauth_config_specification/{name}"));
        let input = part("oauth_connector_input_specification").filter(|i| i.get("consent_url").is_some()).ok_or_else(|| {
            Error::new(Code::Unsupported, "the connector declares a login that only its vendor's platform can do")
                .hint("it has no `oauth_connector_input_specification`: put the credentials into the connection's settings")
        })?;
        let output = part("complete_oauth_output_specification").and_then(|o| o.get("properties")).and_then(Value::as_object).cloned();
        let names = path_of(flow.get("predicate_key"));
        let predicate = flow.get("predicate_value").filter(|_| !names.is_empty()).map(|value| (names.clone(), value.clone()));
        let predicate = predicate.filter(|(path, _)| dpath::get(config, path).is_none());
        let mut consent = Self {
            input: input.clone(),
            output: output.unwrap_or_default(),
            predicate,
            variables: Vec::new(),
            state: random()?,
            verifier: random()?,
        };
        consent.know_settings(flow, config)?;
        consent.know("redirect_uri", redirect.to_owned());
        consent.know("state", consent.state.clone());
        let scope = consent.scope();
        consent.know("scope", scope);
        Ok(consent)
    }

    /// What templates call a value, and the name under which it is sent.
    fn know(&mut self, name: &str, value: String) {
        let usual = if name == "auth_code" { "code" } else { name };
        let key = self.input.get(format!("{name}_key")).and_then(Value::as_str).unwrap_or(usual).to_owned();
        self.variables.push((format!("{name}_key"), key));
        self.variables.push((format!("{name}_value"), value));
    }

    fn know_settings(&mut self, flow: &Value, config: &Value) -> Result<()> {
        let place = |name: &str| {
            let declared = flow.pointer(&format!(
                "/oauth_config_specification/complete_oauth_server_output_specification/properties/{name}/path_in_connector_config"
            ));
            let declared = path_of(declared);
            if declared.is_empty() { vec![name.to_owned()] } else { declared }
        };
        for name in ["client_id", "client_secret"] {
            let path = place(name);
            let within = dpath::get(config, &path).or_else(|| config.get(name)).or_else(|| config.pointer(&format!("/credentials/{name}")));
            let value = match within {
                Some(value) => python_str(value),
                // A public client has none: PKCE stands for it.
                None if name == "client_secret" => String::new(),
                None => {
                    return Err(Error::new(Code::ConfigInvalid, "the login needs a setting that the connection does not have")
                        .setting(path.join("."))
                        .hint("the vendor gives it to whoever registers an application"));
                }
            };
            self.know(name, value);
        }
        let wanted = flow.pointer("/oauth_config_specification/oauth_user_input_from_connector_config_specification/properties");
        for (name, property) in wanted.and_then(Value::as_object).into_iter().flatten() {
            if let Some(value) = dpath::get(config, &path_of(property.get("path_in_connector_config"))) {
                self.variables.push((name.clone(), python_str(value)));
            }
        }
        for (name, value) in config.as_object().into_iter().flatten().filter(|(_, v)| v.is_string()) {
            self.variables.push((name.clone(), python_str(value)));
        }
        Ok(())
    }

    fn scope(&self) -> String {
        let many = self.input.get("scopes").and_then(Value::as_array).into_iter().flatten();
        let many: Vec<&str> = many.filter_map(|s| s.as_str().or_else(|| s.get("scope")?.as_str())).collect();
        match self.input.get("scope").and_then(Value::as_str) {
            Some(one) => one.to_owned(),
            None => many.join(if self.input.get("scopes_join_strategy") == Some(&json!("comma")) { "," } else { " " }),
        }
    }

    /// The page on which the user consents.
    pub fn url(&self) -> Result<Url> {
        let text = self.rendered("consent_url")?;
        let mut url = parsed(&text, "consent_url")?;
        // A server that knows no PKCE passes over it.
        if !url.query_pairs().any(|(name, _)| name == "code_challenge") {
            url.query_pairs_mut().append_pair("code_challenge", &challenge(&self.verifier)).append_pair("code_challenge_method", "S256");
        }
        Ok(url)
    }

    /// The request that gives tokens for the code.
    pub fn exchange(&mut self, code: &str) -> Result<Request> {
        self.know("auth_code", code.to_owned());
        let url = parsed(&self.rendered("access_token_url")?, "access_token_url")?;
        let mut headers: Vec<(String, String)> = self.pairs("access_token_headers");
        let mut params = self.pairs("access_token_params");
        if params.is_empty() {
            let named = ["client_id", "client_secret", "auth_code", "redirect_uri"]
                .map(|name| (self.value(&format!("{name}_key")), self.value(&format!("{name}_value"))));
            params.extend(named.into_iter().filter(|(_, value)| !value.is_empty()));
        }
        let has = |params: &[(String, String)], name: &str| params.iter().any(|(n, _)| n == name);
        if !has(&params, "grant_type") {
            params.push(("grant_type".to_owned(), "authorization_code".to_owned()));
        }
        if !has(&params, "code_verifier") && !self.input["consent_url"].as_str().is_some_and(|u| u.contains("code_challenge")) {
            params.push(("code_verifier".to_owned(), self.verifier.clone()));
        }
        let is_json = headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("content-type") && v.contains("json"));
        let body = if is_json {
            serde_json::to_vec(&params.into_iter().map(|(n, v)| (n, Value::from(v))).collect::<Map<_, _>>())?
        } else {
            Serializer::new(String::new()).extend_pairs(params).finish().into_bytes()
        };
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
        }
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("accept")) {
            headers.push(("Accept".to_owned(), "application/json".to_owned()));
        }
        let secret_headers = headers.iter().map(|(name, _)| name.clone()).collect();
        Ok(Request { method: "POST".to_owned(), headers, secret_headers, body: Some(Bytes::from(body)), ..Request::get(url) })
    }

    /// The settings that the tokens are, laid on those of the connection.
    pub fn settings(&self, config: &Value, answer: &Value) -> Result<Value> {
        let mut settings = config.clone();
        let mut found = 0;
        for (name, property) in &self.output {
            let mut places = vec![path_of(property.get("path_in_oauth_response"))];
            let extracts = self.input.get("extract_output").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            places.extend(extracts.map(|e| e.split('.').map(str::to_owned).collect()).filter(|p: &Vec<String>| p.last() == Some(name)));
            places.push(vec![name.clone()]);
            let value = places.iter().filter(|p| !p.is_empty()).find_map(|p| dpath::get(answer, p)).filter(|v| !v.is_null());
            let value = value.cloned().or_else(|| expiry(name, answer, &self.input));
            if let Some(value) = value {
                let declared = path_of(property.get("path_in_connector_config"));
                dpath::set(&mut settings, &if declared.is_empty() { vec![name.clone()] } else { declared }, value);
                found += 1;
            }
        }
        if found == 0 {
            // What it holds may be secret, its names are not.
            let names: Vec<&str> = answer.as_object().map(|m| m.keys().map(String::as_str).collect()).unwrap_or_default();
            let wanted: Vec<&str> = self.output.keys().map(String::as_str).collect();
            return Err(Error::new(Code::SystemError, "the answer holds none of the tokens that the connector wants").detail(format!(
                "it has {}; wanted: {}",
                names.join(", "),
                wanted.join(", ")
            )));
        }
        if let Some((path, value)) = &self.predicate {
            dpath::set(&mut settings, path, value.clone());
        }
        Ok(settings)
    }

    /// Texts that nobody may see.
    pub fn secrets(&self) -> Vec<String> {
        let hidden = ["client_secret_value", "auth_code_value"].map(|name| self.value(name));
        hidden.into_iter().chain([self.verifier.clone()]).filter(|s| !s.is_empty()).collect()
    }

    fn value(&self, name: &str) -> String {
        self.variables.iter().rfind(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    fn rendered(&self, field: &str) -> Result<String> {
        let text = self.input.get(field).and_then(Value::as_str).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "the connector's login lacks a part")
                .setting(format!("spec.advanced_auth.oauth_config_specification.oauth_connector_input_specification.{field}"))
        })?;
        Ok(self.render(text))
    }

    fn pairs(&self, field: &str) -> Vec<(String, String)> {
        let map = self.input.get(field).and_then(Value::as_object);
        map.into_iter().flatten().map(|(name, value)| (self.render(name), self.render(&python_str(value)))).collect()
    }

    /// Fills in `{{ name }}`, `{{ name | filter }}` and `{{ {{name}} | filter }}`, from the inside to the outside.
    fn render(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..DEEPEST {
            let (mut out, mut rest, mut changed) = (String::new(), text.as_str(), false);
            while let Some(end) = rest.find("}}") {
                let Some(start) = rest[..end].rfind("{{") else {
                    // The end of one whose inside was just filled in: it is next.
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                    continue;
                };
                out.push_str(&rest[..start]);
                out.push_str(&self.evaluated(&rest[start + 2..end]));
                rest = &rest[end + 2..];
                changed = true;
            }
            out.push_str(rest);
            text = out;
            if !changed {
                break;
            }
        }
        text
    }

    fn evaluated(&self, expression: &str) -> String {
        let (name, filter) = expression.rsplit_once('|').map_or((expression.trim(), ""), |(n, f)| (n.trim(), f.trim()));
        let known = self.variables.iter().rfind(|(n, _)| n == name).map(|(_, v)| v.clone());
        // A name that is known to nobody is a text: what an inner template has left.
        let value = known.unwrap_or_else(|| if filter.is_empty() { String::new() } else { name.to_owned() });
        match filter {
            "urlEncoder" | "urlencode" => byte_serialize(value.as_bytes()).collect(),
            "urlDecoder" => url::form_urlencoded::parse(value.as_bytes()).map(|(k, _)| k.into_owned()).collect(),
            "base64Encoder" => STANDARD.encode(value),
            "base64Decoder" => STANDARD.decode(value).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default(),
            "codeChallengeS256" => challenge(&value),
            _ => value,
        }
    }
}

/// When a token that is good for some seconds ends.
fn expiry(name: &str, answer: &Value, input: &Value) -> Option<Value> {
    let key = input.get("token_expiry_key").and_then(Value::as_str).unwrap_or("expires_in");
    let seconds = answer.get(key).and_then(Value::as_i64).filter(|_| name.contains("expiry") || name.contains("expires"))?;
    Some((Utc::now() + Duration::seconds(seconds.min(i64::from(i32::MAX)))).to_rfc3339_opts(SecondsFormat::Secs, true).into())
}

fn path_of(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().map(python_str).collect()
}

fn parsed(text: &str, field: &'static str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
    url.ok_or_else(|| Error::new(Code::ConfigInvalid, "the connector's login has an address that is no URL").setting(field))
}

/// RFC 7636.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

fn random() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("there is no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn consent(input: &str) -> Consent {
        let text = format!(
            "version: 7.0.0\ncheck: {{type: CheckStream, stream_names: []}}\nstreams: []\nspec:\n  type: Spec\n  connection_specification: {{type: object}}\n  \
             advanced_auth:\n    auth_flow_type: oauth2.0\n    predicate_key: [credentials, kind]\n    predicate_value: oauth\n    oauth_config_specification:\n      \
             oauth_connector_input_specification: {input}\n      complete_oauth_output_specification: {{properties: {{refresh_token: {{path_in_connector_config: [credentials, refresh_token]}}}}}}\n      \
             complete_oauth_server_output_specification: {{properties: {{client_id: {{path_in_connector_config: [credentials, client_id]}}}}}}\n"
        );
        let manifest = Manifest::parse(Path::new("m.yaml"), &text).unwrap();
        let config = json!({"credentials": {"client_id": "me", "client_secret": "hunter2"}, "subdomain": "acme"});
        Consent::begin(&manifest, &config, "http://localhost:1/callback").unwrap()
    }

    #[test]
    fn the_older_templates() {
        let mut consent = consent(
            r#"{consent_url: "https://{{ subdomain }}.example/auth?{{client_id_key}}={{client_id_value}}&{{redirect_uri_key}}={{ {{redirect_uri_value}} | urlEncoder}}&{{state_key}}={{state_value}}&scope={{ {{scope_value}} | urlEncoder }}",
                access_token_url: "https://a.example/token", scope: "read all", client_id_key: app_id, extract_output: [data.refresh_token],
                access_token_headers: {Content-Type: application/json}, access_token_params: {"{{ auth_code_key }}": "{{ auth_code_value }}", "{{ client_id_key }}": "{{ client_id_value }}"}}"#,
        );
        let url = consent.url().unwrap();
        let query: Vec<(String, String)> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let get = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(
            (url.host_str(), get("app_id"), get("redirect_uri")),
            (Some("acme.example"), Some("me"), Some("http://localhost:1/callback"))
        );
        assert_eq!(
            (get("scope"), get("state"), get("code_challenge_method")),
            (Some("read all"), Some(consent.state.as_str()), Some("S256"))
        );
        assert_eq!(get("code_challenge"), Some(challenge(&consent.verifier).as_str()));
        let request = consent.exchange("the-code").unwrap();
        let body: Value = serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"code": "the-code", "app_id": "me", "grant_type": "authorization_code", "code_verifier": consent.verifier})
        );
        let settings = consent.settings(&json!({"credentials": {"client_id": "me"}}), &json!({"data": {"refresh_token": "r1"}})).unwrap();
        assert_eq!(settings, json!({"credentials": {"client_id": "me", "refresh_token": "r1", "kind": "oauth"}}));
        let none = consent.settings(&json!({}), &json!({"error": "hunter2"})).unwrap_err();
        assert!(none.to_string().contains("it has error; wanted: refresh_token") && !none.to_string().contains("hunter2"));
    }

    #[test]
    fn what_a_login_usually_is() {
        let mut consent = consent(
            r#"{consent_url: "https://a.example/auth?client_id={{ client_id_value }}&redirect_uri={{ redirect_uri_value | urlencode }}&state={{ state_value }}&code_challenge={{ state_value | codeChallengeS256 }}",
                access_token_url: "https://a.example/token", access_token_headers: {Authorization: "Basic {{ {{client_id_value}}:{{client_secret_value}} | base64Encoder }}"}}"#,
        );
        assert!(consent.url().unwrap().as_str().contains(&format!("code_challenge={}", challenge(&consent.state))));
        let request = consent.exchange("c").unwrap();
        let body = String::from_utf8(request.body.clone().unwrap().to_vec()).unwrap();
        assert_eq!(
            body,
            "client_id=me&client_secret=hunter2&code=c&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback&grant_type=authorization_code"
        );
        assert!(request.headers.contains(&("Authorization".to_owned(), format!("Basic {}", STANDARD.encode("me:hunter2")))));
    }
}
