//! From nothing to a connector: a draft from a sample, a look at each page, exchanges kept and given again.

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::{Folder, Said};

const TOKEN: &str = "hunter2-the-token";

/// Five orders on pages of two, for who has the token.
fn api() -> StandIn {
    StandIn::start(|asked| {
        if asked.header("authorization") != Some(format!("Bearer {TOKEN}").as_str()) {
            return Answer::text(401, &format!("{{\"message\": \"not {}\"}}", asked.header("authorization").unwrap_or_default()));
        }
        page(asked)
    })
}

fn page(asked: &Asked) -> Answer {
    let (page, size) = (asked.param("page").map_or(1, |p| p.parse().unwrap()), 2);
    let order =
        |id: i64| json!({"id": id, "total": id as f64 * 1.5, "updated_at": format!("2026-01-0{id}T00:00:00Z"), "customer": {"name": "x"}});
    let orders: Vec<Value> = (1..=5).skip((page - 1) * size).take(size).map(order).collect();
    Answer::json(&json!({"data": {"orders": orders}, "echo": asked.header("authorization")}))
}

fn project() -> Folder {
    let mut folder = Folder::with(&[("tributary.yaml", "name: shop\n")]);
    folder.set("SHOP_API_TOKEN", TOKEN);
    folder
}

fn new(folder: &Folder, api: &StandIn) -> Said {
    let url = format!("{}/v1/orders?page=1&per_page=2", api.url());
    folder.ok(&["connectors", "new", "shop", "--url", &url, "--header", &format!("Authorization: Bearer {TOKEN}")])
}

fn no_secrets(folder: &Folder) {
    for file in folder.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds the token", file.display());
    }
}

#[test]
fn a_draft_reads_all_pages_and_then_only_what_is_new() {
    let (api, folder) = (api(), project());
    let said = new(&folder, &api);
    assert!(said.all().contains("4 records read with it"), "{}", said.all());
    let line = said.err.lines().find(|l| l.starts_with("shop: {connector: shop")).unwrap();
    folder.write("connections.yaml", &format!("{line}\n"));
    folder.write(
        "syncs/shop.yaml",
        "from: shop\ninto: raw.{table}\nstreams:\n  orders: {read: incremental, cursor: updated_at, write: upsert, key: [id]}\n",
    );
    folder.ok(&["validate"]);
    folder.ok(&["run"]);
    let sums = folder.ok(&["query", "select count(*) as n, sum(total) as t from raw.orders", "--json"]);
    assert!(sums.out.contains("22.5") && sums.out.contains('5'), "{}", sums.out);
    let second = folder.ok(&["run", "--json"]);
    let summary: Value = serde_json::from_str(second.out.lines().last().unwrap()).unwrap();
    assert_eq!(summary["streams"][0]["rows_read"], 1, "the record at the cursor, and no other: {summary}");
    no_secrets(&folder);
    let again = folder.trib(&["connectors", "new", "shop", "--url", &api.url()]);
    assert!(again.status == Some(2) && again.all().contains("--force"), "{}", again.all());
}

#[test]
fn pages_that_were_guessed_wrongly_are_left_out() {
    // Says that there are pages, and gives the first one whatever it is asked.
    let api = StandIn::start(|_| Answer::json(&json!({"page": 1, "total_pages": 3, "items": [{"id": 1}, {"id": 2}]})));
    let folder = project();
    let said = folder.ok(&["connectors", "new", "shop", "--url", &format!("{}/items", api.url())]);
    assert!(said.all().contains("guessed wrongly"), "{}", said.all());
    assert!(!std::fs::read_to_string(folder.path().join("connectors/shop.yaml")).unwrap().contains("paginator"));
}

#[test]
fn a_sample_that_fails_says_why() {
    let (api, folder) = (api(), project());
    for (args, part) in [
        (vec!["--url", "nowhere"], "this is no URL"),
        (vec![], "--openapi"),
        (vec!["--url", &format!("{}/x", api.url()), "--header", "Authorization: Bearer hunter2-other"], "does not accept the credentials"),
        (vec!["--url", &format!("{}/x", api.url()), "--header", "nonsense"], "NAME: VALUE"),
        (
            vec!["--url", &format!("{}/x", api.url()), "--header", &format!("Authorization: Bearer {TOKEN}"), "--records", "data.gone"],
            "data.gone",
        ),
    ] {
        let said = folder.trib(&[&["connectors", "new", "shop"], args.as_slice()].concat());
        assert_ne!(said.status, Some(0));
        assert!(said.all().contains(part), "{part}: {}", said.all());
        assert!(!said.all().contains("hunter2-other"), "{}", said.all());
    }
    assert!(!folder.path().join("connectors/shop.yaml").exists());
}

#[test]
fn an_openapi_document_becomes_streams() {
    let folder = project();
    folder.write(
        "api.yaml",
        "openapi: 3.1.0\nservers: [{url: \"https://a.example/v1\"}]\npaths:\n  /pets:\n    get: {responses: {\"200\": {content: {application/json: {schema: {type: array, items: {type: object, properties: {id: {type: integer}}}}}}}}}\n  /pets/{id}:\n    get: {responses: {}}\n",
    );
    let said = folder.ok(&["connectors", "new", "zoo", "--openapi", "api.yaml", "--json"]);
    let made: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&made["streams"][0]["name"], &made["streams"][0]["key"]), (&json!("pets"), &json!("id")));
    assert!(made["left_out"][0].as_str().unwrap().starts_with("/pets/{id}"), "{made}");
    folder.write("connections.yaml", "zoo: {connector: zoo}\n");
    folder.ok(&["validate"]);
}

#[test]
fn each_page_is_shown() {
    let (api, folder) = (api(), project());
    new(&folder, &api);
    folder.write("connections.yaml", "shop: {connector: shop, api_token: \"${SHOP_API_TOKEN}\"}\n");
    api.take();
    let said = folder.ok(&["connectors", "dev", "connectors/shop.yaml", "--stream", "orders", "--pages", "2"]);
    for part in ["-> GET", "page=2", "authorization: ***", "<- 200", "= 2 records", "\"id\":4", "stopped after 2 requests, 4 records"] {
        assert!(said.out.to_lowercase().contains(&part.to_lowercase()), "{part}: {}", said.all());
    }
    assert!(!said.all().contains("hunter2"), "{}", said.all());
    assert_eq!(api.take().len(), 2, "no page is asked for that is not shown");
    let said = folder.ok(&["connectors", "dev", "connectors/shop.yaml", "--json"]);
    let lines: Vec<Value> = said.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().filter(|l| !l["request"].is_null()).count(), 3);
    assert_eq!(lines.iter().rfind(|l| !l["state"].is_null()).unwrap()["state"]["updated_at"], "2026-01-05T00:00:00Z");
    assert_eq!(lines.last().unwrap()["records"], 5);
}

#[test]
fn what_was_recorded_is_given_again_offline() {
    let folder = project();
    {
        let api = api();
        new(&folder, &api);
        folder.write("config.json", &json!({"api_token": TOKEN}).to_string());
        folder.ok(&["connectors", "record", "connectors/shop.yaml", "--config", "config.json"]);
    }
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    // The API is gone.
    let said = folder.ok(&["connectors", "replay", "connectors/shop.yaml"]);
    assert!(said.out.contains("orders: 5 records"), "{}", said.out);
    no_secrets(&folder);
    let file = folder.path().join("connectors/shop.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("field_path: [data, orders]", "field_path: [data, gone]")).unwrap();
    let said = folder.trib(&["connectors", "replay", "connectors/shop.yaml"]);
    assert!(said.status == Some(4) && said.all().contains("0 records came, 5 were recorded"), "{}", said.all());
    std::fs::write(&file, text.replace("path: orders", "path: invoices")).unwrap();
    let said = folder.trib(&["connectors", "replay", "connectors/shop.yaml"]);
    assert!(said.all().contains("/v1/invoices"), "{}", said.all());
}

/// Secrets of the settings, and those that only the server has told, wherever they stand.
#[test]
fn a_recording_holds_no_secrets() {
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/token" => Answer::json(&json!({"access_token": "hunter2-from-the-server", "expires_in": 3600})),
        _ => {
            let echo = asked.header("authorization").unwrap_or_default();
            Answer::json(&json!([{"id": 1, "note": format!("you are {echo}, your key is {}", asked.param("q").unwrap())}]))
                .header("X-Echo", echo)
                .header("Set-Cookie", "sid=hunter2-cookie")
        }
    });
    let folder = Folder::with(&[
        (
            "m.yaml",
            &format!(
                r#"version: 7.0.0
type: DeclarativeSource
check: {{type: CheckStream, stream_names: [a]}}
streams:
  - type: DeclarativeStream
    name: a
    retriever:
      type: SimpleRetriever
      requester:
        type: HttpRequester
        url_base: {0}
        path: "x/{{{{ config['secret'] | urlencode }}}}"
        http_method: POST
        request_parameters: {{q: "{{{{ config['secret'] }}}}", api_key: hunter2-literal}}
        request_body_json: {{password: hunter2-body, plain: "{{{{ config['secret'] }}}}"}}
        authenticator:
          type: OAuthAuthenticator
          token_refresh_endpoint: {0}/token
          client_id: me
          client_secret: "{{{{ config['secret'] }}}}"
          refresh_token: "{{{{ config['refresh'] }}}}"
      record_selector: {{type: RecordSelector, extractor: {{type: DpathExtractor, field_path: []}}}}
    schema_loader: {{type: InlineSchemaLoader, schema: {{properties: {{id: {{type: integer}}, note: {{type: string}}}}}}}}
spec:
  type: Spec
  connection_specification:
    type: object
    properties: {{secret: {{type: string, airbyte_secret: true}}, refresh: {{type: string, airbyte_secret: true}}}}
"#,
                api.url()
            ),
        ),
        ("config.json", r#"{"secret": "hunter2 in \"many\" forms/&", "refresh": "hunter2-refresh"}"#),
    ]);
    folder.ok(&["connectors", "record", "m.yaml", "--config", "config.json", "--out", "kept.json"]);
    let kept = std::fs::read_to_string(folder.path().join("kept.json")).unwrap();
    assert!(!kept.contains("hunter2") && !kept.contains("aHVudGVy"), "{kept}");
    assert!(kept.contains("you are Bearer ***, your key is ***"), "{kept}");
    let seen = folder.ok(&["connectors", "dev", "m.yaml", "--config", "config.json", "--full", "--json"]);
    assert!(!seen.all().contains("hunter2"), "{}", seen.all());
    drop(api);
    assert!(folder.ok(&["connectors", "replay", "m.yaml", "--from", "kept.json"]).out.contains("a: 1 records"));
}
