//! Calls of a delivery as their receiver sees them, and as they are kept: signed bodies, and a log without secrets.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::Folder;

const TOKEN: &str = "pl4nted-t0ken";
const SECRET: &str = "pl4nted \"sh4red\" s3cret";

const MANIFEST: &str = r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", path: ping}}
definitions:
  to:
    type: HttpRequester
    url_base: $url
    authenticator: {type: BearerAuthenticator, api_token: "{{ config['token'] }}"}
    request_parameters: {access_key: "{{ config['token'] }}"}
    error_handler:
      type: DefaultErrorHandler
      backoff_strategies: [{type: ConstantBackoffStrategy, backoff_time_in_seconds: -0.99}]
objects:
  - name: event
    keys: [[id]]
    open: true
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/to", path: hook, http_method: POST, request_body_json: {auth: "{{ config['secret'] }}"}}
        into: [event]
        signed_headers:
          # As GitHub signs: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
          X-Hub-Signature-256: "sha256={{ body | hmac(config['secret']) }}"
          # As Stripe does: https://docs.stripe.com/webhooks#verify-manually
          Stripe-Signature: "t={{ timestamp }},v1={{ (timestamp ~ '.' ~ body) | hmac(config['secret']) }}"
spec:
  type: Spec
  connection_specification:
    type: object
    required: [token, secret]
    properties: {token: {type: string, airbyte_secret: true}, secret: {type: string, airbyte_secret: true}}
"##;

/// A receiver that takes only what is signed, and answers each first try with what it was given.
fn receiver(events: Arc<Mutex<Vec<Value>>>) -> StandIn {
    let tries = Mutex::new(0);
    StandIn::start(move |asked| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries == 1 {
            return Answer::text(500, &json!({"message": "once more, please", "echo": asked.headers, "body": asked.body}).to_string());
        }
        if let Err(why) = verified(asked) {
            return Answer::text(400, &json!({"message": why}).to_string());
        }
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        if body["event"]["name"] == "bad" {
            return Answer::text(
                400,
                &json!({"message": format!("bad names are not for {TOKEN}"), "token": "t0ld-by-the-server"}).to_string(),
            );
        }
        events.lock().unwrap().push(body["event"].clone());
        Answer::json(&json!({"ok": true}))
    })
}

fn verified(asked: &Asked) -> Result<(), String> {
    let sign = |text: &str| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let hub = asked.header("x-hub-signature-256").unwrap_or_default();
    if hub != format!("sha256={}", sign(&asked.body)) {
        return Err(format!("X-Hub-Signature-256 is {hub}"));
    }
    let stripe = asked.header("stripe-signature").unwrap_or_default();
    let (time, signature) = stripe.strip_prefix("t=").and_then(|s| s.split_once(",v1=")).ok_or(format!("Stripe-Signature is {stripe}"))?;
    let age = chrono::Utc::now().timestamp() - time.parse::<i64>().map_err(|e| e.to_string())?;
    if signature != sign(&format!("{time}.{}", asked.body)) || !(0..300).contains(&age) {
        return Err(format!("Stripe-Signature is {stripe}"));
    }
    Ok(())
}

fn folder(api: &StandIn, stream: &str) -> Folder {
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: out\n"),
        ("connections.yaml", "hook: {connector: hook, token: \"${TOKEN}\", secret: \"${SECRET}\"}\n"),
        (
            "models/events.sql",
            "/*---\nschema: marts\n---*/\nselect column1 as id, column2 as name from (values (1, 'Zoë \"Z\"'), (2, 'bad')) as v\n",
        ),
    ]);
    folder.write("connectors/hook.yaml", &MANIFEST.replace("$url", &api.url()));
    folder.write("syncs/hook.yaml", &format!("from: warehouse\nto: hook\nstreams:\n  marts.events: {stream}\n"));
    folder.set("TOKEN", TOKEN);
    folder.set("SECRET", SECRET);
    folder.ok(&["run", "events"]);
    folder
}

/// What nobody may find: the credentials as they are and as JSON, and a token that an answer has told.
fn secrets() -> [String; 4] {
    [TOKEN.to_owned(), SECRET.to_owned(), SECRET.replace('"', "\\\""), "t0ld-by-the-server".to_owned()]
}

#[test]
fn bodies_are_signed() {
    let events: Arc<Mutex<Vec<Value>>> = Arc::default();
    let api = receiver(events.clone());
    let folder = folder(&api, "{into: event, key: {id: id}, map: {name: name}}");
    let shown = folder.ok(&["preview", "hook", "--row", "1"]).out;
    assert!(shown.contains("X-Hub-Signature-256") && !secrets().iter().any(|s| shown.contains(s)), "{shown}");
    let said = folder.ok(&["run", "hook"]);
    assert_eq!(*events.lock().unwrap(), [json!({"id": 1, "name": "Zoë \"Z\""})], "{}", said.all());
    assert!(!folder.path().join(".tributary/deliveries/hook/requests").exists(), "nobody wanted a log");
}

#[test]
fn requests_are_kept_without_secrets() {
    let api = receiver(Arc::default());
    let folder = folder(&api, "{into: event, key: {id: id}, map: {name: name}, log: requests}");
    let said = folder.ok(&["run", "hook"]);
    let listed: Value = serde_json::from_str(&folder.ok(&["rejected", "list", "--json"]).out).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{} {listed}", said.all());
    let id = listed[0]["id"].to_string();
    let shown: Value = serde_json::from_str(&folder.ok(&["rejected", "show", &id, "--json"]).out).unwrap();
    let requests = shown["requests"].as_array().unwrap();
    let last = requests.last().unwrap();
    assert_eq!((&last["records"], &last["answer"]["status"]), (&json!(["id=2"]), &json!(400)), "{shown:#}");
    assert_eq!(last["request"]["body"], r#"{"auth":"***","event":{"id":2,"name":"bad"}}"#);
    assert!(last["answer"]["body"].as_str().unwrap().contains("bad names are not for ***"), "{last:#}");
    assert!(folder.ok(&["rejected", "show", &id]).out.contains("X-Hub-Signature-256"));

    let kept: Vec<_> = folder.files().into_iter().filter(|f| f.to_string_lossy().contains("deliveries/hook/requests")).collect();
    let kept: String = kept.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    // Three calls: one of the two records was tried twice.
    assert!(kept.lines().count() == 3 && kept.contains("id=1") && kept.contains("once more"), "{kept}");
    for secret in secrets() {
        assert!(!kept.contains(&secret), "{secret}: {kept}");
    }
}

const ADDRESS: &str = "/hooks/Pl4ntedPath?key=Pl4ntedKey";

/// For many services the address is all that a caller has to know.
#[test]
fn an_address_that_is_a_secret_is_shown_nowhere() {
    let api = StandIn::start(|asked| {
        let refused = asked.body.contains("bad");
        if refused {
            Answer::text(422, &json!({"message": format!("no bad ones at {}", asked.path)}).to_string())
        } else {
            Answer::json(&json!({}))
        }
    });
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: out\n"),
        ("connections.yaml", "hook: {connector: webhook, url: \"${HOOK_URL}\"}\n"),
        (
            "models/events.sql",
            "/*---\nschema: marts\n---*/\nselect column1 as id, column2 as name from (values (1, 'good'), (2, 'bad')) as v\n",
        ),
        ("syncs/hook.yaml", "from: warehouse\nto: hook\nstreams:\n  marts.events: {into: record, key: {id: id}, log: requests}\n"),
    ]);
    // Nobody listens there.
    folder.set("HOOK_URL", &format!("http://127.0.0.1:1{ADDRESS}"));
    folder.ok(&["run", "events"]);
    let mut child = folder.command(&["run", "hook"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut heard = String::new();
    while !heard.contains("sent again in") {
        assert_ne!(said.read_line(&mut heard).unwrap(), 0, "{heard}");
    }
    assert!(heard.contains("http://127.0.0.1:1"), "{heard}");
    // It does not wait for its tries to be used up.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    said.read_to_string(&mut heard).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{heard}");
    assert!(heard.contains("was stopped") && !heard.contains("tried 9 times"), "{heard}");

    folder.set("HOOK_URL", &format!("{}{ADDRESS}", api.url().trim_end_matches('/')));
    let mut shown = heard;
    for args in [
        &["check", "hook"][..],
        &["plan", "hook"],
        &["preview", "hook", "--row", "1"],
        &["run", "hook", "--verbose"],
        &["rejected", "list"],
        &["rejected", "show", "1"],
        &["runs"],
        &["logs"],
        &["query", "select * from _trib.logs"],
        &["docs"],
    ] {
        let said = folder.trib(args).all();
        assert!(!said.contains("Pl4nted"), "trib {}: {said}", args.join(" "));
        shown += &said;
    }
    assert!(shown.contains("no bad ones at ***"), "{shown}");
    let asked = api.take();
    assert!(
        asked.iter().filter(|a| a.path == "/hooks/Pl4ntedPath" && a.param("key").as_deref() == Some("Pl4ntedKey")).count() >= 2,
        "{shown}"
    );
    for file in folder.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"Pl4nted"), "{}", file.display());
    }
}
