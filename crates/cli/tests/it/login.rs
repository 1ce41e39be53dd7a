//! `trib login`: the consent page, the way back, the token that is kept, and what the connection does with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::json;
use trib_testkit::stand_in::{Answer, StandIn};
use url::Url;

use crate::trib::Folder;

/// An API whose tokens come from a login, and whose refresh tokens are good for one use.
fn vendor() -> StandIn {
    StandIn::start(|asked| match asked.path.as_str() {
        "/token" => match (asked.field("code").as_deref(), asked.field("refresh_token").as_deref()) {
            (Some("the-code"), _)
                if asked.field("code_verifier").is_some_and(|v| v.len() >= 43)
                    && asked.field("client_secret").as_deref() == Some("hunter2-client") =>
            {
                Answer::json(&json!({"access_token": "hunter2-access-0", "refresh_token": "hunter2-refresh-1", "expires_in": 3600}))
            }
            (_, Some(token)) if token.starts_with("hunter2-refresh-") => {
                let n: u32 = token.trim_start_matches("hunter2-refresh-").parse().unwrap();
                Answer::json(
                    &json!({"access_token": format!("hunter2-access-{n}"), "refresh_token": format!("hunter2-refresh-{}", n + 1), "expires_in": 0}),
                )
            }
            _ => Answer::text(400, "{\"error\": \"invalid_grant\", \"echo\": \"hunter2-client\"}"),
        },
        _ if asked.header("authorization").is_some_and(|a| a.starts_with("Bearer hunter2-access-")) => Answer::json(&json!([{"id": 1}])),
        _ => Answer::status(401),
    })
}

fn project(vendor: &StandIn) -> Folder {
    let url = vendor.url();
    let manifest = format!(
        r#"version: 7.0.0
type: DeclarativeSource
check: {{type: CheckStream, stream_names: [deals]}}
streams:
  - type: DeclarativeStream
    name: deals
    primary_key: [id]
    retriever:
      type: SimpleRetriever
      requester:
        type: HttpRequester
        url_base: {url}
        path: deals
        authenticator:
          type: OAuthAuthenticator
          token_refresh_endpoint: {url}/token
          client_id: "{{{{ config['client_id'] }}}}"
          client_secret: "{{{{ config['client_secret'] }}}}"
          refresh_token: "{{{{ config['refresh_token'] }}}}"
          refresh_token_updater: {{refresh_token_config_path: [refresh_token]}}
      record_selector: {{type: RecordSelector, extractor: {{type: DpathExtractor, field_path: []}}}}
    schema_loader: {{type: InlineSchemaLoader, schema: {{properties: {{id: {{type: integer}}}}}}}}
spec:
  type: Spec
  connection_specification:
    type: object
    required: [client_id, client_secret, refresh_token]
    properties:
      client_id: {{type: string}}
      client_secret: {{type: string, airbyte_secret: true}}
      refresh_token: {{type: string, airbyte_secret: true}}
  advanced_auth:
    auth_flow_type: oauth2.0
    oauth_config_specification:
      oauth_connector_input_specification:
        consent_url: "{url}/consent?client_id={{{{ client_id_value }}}}&redirect_uri={{{{ {{{{redirect_uri_value}}}} | urlEncoder }}}}&state={{{{ state_value }}}}&scope=read"
        access_token_url: {url}/token
        extract_output: [refresh_token]
      complete_oauth_output_specification:
        properties: {{refresh_token: {{type: string, path_in_connector_config: [refresh_token]}}}}
"#
    );
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        ("connections.yaml", "crm: {connector: crm, client_id: me, client_secret: \"${SECRET}\"}\nin: {connector: files, path: .}\n"),
        ("connectors/crm.yaml", &manifest),
        ("syncs/crm.yaml", "from: crm\ninto: raw.{table}\nstreams: {deals: {read: full, write: replace}}\n"),
    ]);
    folder.set("SECRET", "hunter2-client");
    folder
}

/// A login that waits, and the page that it has printed.
fn begin(folder: &Folder) -> (Child, BufReader<std::process::ChildStdout>, Url) {
    let mut child = folder.command(&["login", "crm", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let url = Url::parse(line.trim()).unwrap_or_else(|e| panic!("{e}: {line}"));
    (child, out, url)
}

fn param(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(k, _)| k == name).map(|(_, v)| v.into_owned()).unwrap_or_default()
}

/// What a browser does that is sent back. Gives the status.
fn sent_back(page: &Url, query: &str) -> String {
    let redirect = Url::parse(&param(page, "redirect_uri")).unwrap();
    assert_eq!(redirect.host_str(), Some("localhost"));
    let mut stream = TcpStream::connect(("127.0.0.1", redirect.port().unwrap())).unwrap();
    write!(stream, "GET {}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n", redirect.path()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

fn ended(mut child: Child, mut out: impl Read) -> (Option<i32>, String) {
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn the_token_of_a_login_is_kept_and_renewed() {
    let vendor = vendor();
    let folder = project(&vendor);
    let before = folder.trib(&["validate"]);
    assert!(before.status == Some(2) && before.all().contains("refresh_token"), "{}", before.all());

    let (child, out, page) = begin(&folder);
    assert_eq!(
        (page.path(), param(&page, "client_id").as_str(), param(&page, "code_challenge_method").as_str()),
        ("/consent", "me", "S256")
    );
    assert_eq!(sent_back(&page, "state=forged&code=other"), "400", "an answer that nobody has asked for");
    assert_eq!(sent_back(&page, &format!("state={}&code=the-code", param(&page, "state"))), "200");
    let (status, said) = ended(child, out);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("crm is logged in") && !said.contains("hunter2"), "{said}");

    for args in [&["validate"][..], &["check", "crm"], &["run"], &["run"]] {
        let said = folder.trib(args);
        assert_eq!(said.status, Some(0), "trib {}: {}", args.join(" "), said.all());
        assert!(!said.all().contains("hunter2"), "{}", said.all());
    }
    let used: Vec<String> = vendor.take().iter().filter_map(|a| a.field("refresh_token")).collect();
    let distinct: std::collections::BTreeSet<&String> = used.iter().collect();
    assert!(used.len() >= 3 && used.len() == distinct.len(), "each refresh token is used once: {used:?}");
    for file in folder.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds a token", file.display());
    }
    // Whoever has another key has no login.
    let mut other = folder;
    other.set("TRIB_KEY", "a key that is another one");
    let said = other.trib(&["check", "crm"]);
    assert!(said.status != Some(0) && said.all().contains("cannot be opened with this key"), "{}", said.all());
}

#[test]
fn a_login_that_fails_says_why() {
    let vendor = vendor();
    let folder = project(&vendor);
    for (answer, part) in [("error=access_denied&error_description=not+today", "not today"), ("code=stolen", "invalid_grant")] {
        let (child, out, page) = begin(&folder);
        sent_back(&page, &format!("state={}&{answer}", param(&page, "state")));
        let (status, said) = ended(child, out);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
    }
    for (connection, part) in [("in", "only connections of declarative connectors"), ("nobody", "no such connection")] {
        let said = folder.trib(&["login", connection]);
        assert!(said.status == Some(2) && said.all().contains(part), "{}", said.all());
    }
}
