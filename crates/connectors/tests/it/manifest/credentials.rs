//! Who we are, and that nobody else learns it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, json};
use trib_connectors::manifest::{Event, Selection};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{manifest_of, parse, read};

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stand_where_they_should() {
    let api = StandIn::start(|_| Answer::json(&json!({"rows": []})));
    let header = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
    let cases = [
        (json!({"type": "BearerAuthenticator", "api_token": "{{ config['key'] }}"}), header("authorization", "Bearer k1")),
        (
            json!({"type": "BasicHttpAuthenticator", "username": "{{ config['key'] }}", "password": "p"}),
            header("authorization", "Basic azE6cA=="),
        ),
        (json!({"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['key'] }}"}), header("x-key", "k1")),
        (
            json!({"type": "SelectiveAuthenticator", "authenticator_selection_path": ["kind"], "authenticators": {
                "a": {"type": "NoAuth"}, "b": {"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['key'] }}"}}}),
            header("x-key", "k1"),
        ),
        (
            json!({"type": "ApiKeyAuthenticator", "api_token": "{{ config['key'] }}",
                "inject_into": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "api_key"}}),
            None,
        ),
    ];
    for (authenticator, expected) in cases {
        read(&manifest_of(&api, json!({"authenticator": authenticator}), json!({}), json!({})), json!({"key": "k1", "kind": "b"})).await;
        let asked = api.take().remove(0);
        match expected {
            Some((name, value)) => assert_eq!(asked.header(&name), Some(value.as_str()), "{authenticator}"),
            None => assert_eq!(asked.param("api_key").as_deref(), Some("k1")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_renewed_when_they_end_and_kept_when_they_change() {
    let renewals = AtomicUsize::new(0);
    let api = StandIn::start(move |asked| match asked.path.as_str() {
        "/token" => {
            let n = renewals.fetch_add(1, Ordering::SeqCst) + 1;
            assert_eq!(asked.field("refresh_token").as_deref(), Some(if n == 1 { "r0" } else { "r1" }));
            Answer::json(&json!({"access_token": format!("t{n}"), "refresh_token": format!("r{n}"), "expires_in": 3600}))
        }
        // The first token is taken back in the middle of the pages.
        _ if asked.header("authorization") == Some("Bearer t1") && asked.param("page").is_some() => Answer::status(401),
        _ => {
            let page = asked.param("page").and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
            Answer::json(&json!({"rows": if page < 2 { vec![json!({"id": page})] } else { vec![] }}))
        }
    });
    let requester = json!({
        "authenticator": {"type": "OAuthAuthenticator", "client_id": "c", "client_secret": "{{ config['key'] }}",
            "refresh_token": "{{ config['refresh'] }}", "token_refresh_endpoint": format!("{}/token", api.url()),
            "refresh_token_updater": {"refresh_token_config_path": ["refresh"], "access_token_config_path": ["access"],
                "token_expiry_date_config_path": ["expiry"]}},
        "error_handler": {"type": "DefaultErrorHandler", "backoff_strategies": [{"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": -0.99}],
            "response_filters": [{"type": "HttpResponseFilter", "http_codes": [401], "action": "REFRESH_TOKEN_THEN_RETRY"}]}});
    let pages = json!({"paginator": {"type": "DefaultPaginator", "pagination_strategy": {"type": "PageIncrement"},
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"}}});
    let given = read(&manifest_of(&api, requester, pages, json!({})), json!({"key": "s", "refresh": "r0"})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    assert_eq!(given.ids(), [0, 1]);
    let config = given.config.unwrap();
    assert_eq!((&config["refresh"], &config["access"]), (&json!("r2"), &json!("t2")));
}

/// Streams of one connection are one user to the provider.
#[tokio::test(flavor = "multi_thread")]
async fn streams_share_one_token() {
    let renewals = Arc::new(AtomicUsize::new(0));
    let counted = renewals.clone();
    let api = StandIn::start(move |asked| match asked.path.as_str() {
        "/token" => Answer::json(&json!({"access_token": format!("t{}", counted.fetch_add(1, Ordering::SeqCst)), "expires_in": 3600})),
        _ => Answer::json(&json!({"rows": [{"id": asked.header("authorization")}]})),
    });
    let requester = json!({"authenticator": {"type": "OAuthAuthenticator", "client_id": "c", "client_secret": "{{ config['key'] }}",
        "refresh_token": "r", "token_refresh_endpoint": format!("{}/token", api.url())}});
    let mut manifest = manifest_of(&api, requester, json!({}), json!({"$parameters": {"n": 1}}));
    let mut other = manifest["streams"][0].clone();
    (other["name"], other["$parameters"]) = (json!("others"), json!({"n": 2}));
    manifest["streams"].as_array_mut().unwrap().push(other);
    let opened = Arc::new(parse(&manifest).unwrap().open(&json!({"key": "s"})).unwrap());
    let selection = |stream: &str| Selection { stream: stream.to_owned(), state: Map::new(), ..Selection::default() };
    let mut events = opened.read(vec![selection("items"), selection("others")]).await.unwrap();
    let mut ended = 0;
    while let Some(event) = events.recv().await {
        if let Event::Ended { error, .. } = event {
            assert!(error.is_none(), "{error:?}");
            ended += 1;
        }
    }
    assert_eq!((ended, renewals.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_a_token_for_all_requests() {
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/login" if asked.body == "{\"user\":\"u\"}" => Answer::json(&json!({"auth": {"token": "s1"}})),
        "/items" if asked.header("x-session") == Some("s1") || asked.header("authorization") == Some("Bearer s1") => {
            Answer::json(&json!({"rows": [{"id": 1}]}))
        }
        _ => Answer::status(403),
    });
    let login =
        json!({"type": "HttpRequester", "url_base": api.url(), "path": "login", "http_method": "POST", "request_body_json": {"user": "u"}});
    for way in [
        json!({"type": "Bearer"}),
        json!({"type": "ApiKey", "inject_into": {"type": "RequestOption", "inject_into": "header", "field_name": "X-Session"}}),
    ] {
        let authenticator = json!({"authenticator": {"type": "SessionTokenAuthenticator", "login_requester": login, "session_token_path": ["auth", "token"],
            "expiration_duration": "PT1H", "request_authentication": way}});
        let given = read(&manifest_of(&api, authenticator, json!({}), json!({})), json!({})).await;
        assert_eq!(given.ids(), [1], "{way}: {:?}", given.errors);
        assert_eq!(api.take().iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), ["/login", "/items"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_gets_no_credentials() {
    let other = StandIn::start(|_| Answer::json(&json!({"rows": [{"id": 1}]})));
    let target = format!("{}/elsewhere", other.url());
    let api = StandIn::start(move |_| Answer::status(302).header("Location", &target));
    let authenticator = json!({"authenticator": {"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['key'] }}"}});
    let given = read(&manifest_of(&api, authenticator, json!({}), json!({})), json!({"key": "hunter2"})).await;
    assert_eq!(given.ids(), [1]);
    assert_eq!(api.take()[0].header("x-key"), Some("hunter2"));
    let there = other.take().remove(0);
    assert!(!format!("{there:?}").contains("hunter2"), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_do_not_show_secrets() {
    let api =
        StandIn::start(|asked| Answer::text(400, &json!({"message": format!("bad key {}", asked.header("x-key").unwrap())}).to_string()));
    let authenticator = json!({"authenticator": {"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['key'] }}"},
        "request_parameters": {"token": "{{ config['key'] }}"}});
    let manifest = manifest_of(&api, authenticator, json!({}), json!({}));
    let given = read(&manifest, json!({"key": "hunter2"})).await;
    let told = format!("{:?} {}", given.errors[0], given.errors[0].to_json());
    assert!(told.contains("bad key ***"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    let wrong = parse(&manifest).unwrap().open(&json!({"key": {"deep": "hunter2"}})).err().unwrap();
    assert_eq!(wrong.code(), Code::ConfigInvalid);
    assert!(!format!("{wrong:?}").contains("hunter2"));
}
