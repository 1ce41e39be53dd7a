//! What answers mean.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use trib_connectors::manifest::failure_type;
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{manifest_of, parse, read};

fn handler(filter: Value) -> Value {
    json!({"error_handler": {"type": "DefaultErrorHandler", "max_retries": 2,
        "backoff_strategies": [{"type": "WaitTimeFromHeader", "header": "X-Wait"}], "response_filters": [filter]}})
}

/// An answer that comes twice before all is well.
fn twice(first: Answer) -> StandIn {
    let count = AtomicUsize::new(0);
    StandIn::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => first.clone(),
        _ => Answer::json(&json!({"rows": [{"id": 1}]})),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_and_what_is_not() {
    let filter = |more: Value| {
        let mut filter = json!({"type": "HttpResponseFilter"});
        filter.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        handler(filter)
    };
    // Waits of less than nothing, so that the tests need not wait: a second is always added.
    let bad = |status: u16| Answer::status(status).header("X-Wait", "-0.99");
    let none = Vec::<Value>::new();
    let cases = [
        (bad(503), json!({}), vec![json!(1)], 3, None),
        (bad(429), json!({}), vec![json!(1)], 3, None),
        (bad(400), json!({}), none.clone(), 1, Some((Code::SystemError, "system_error"))),
        (bad(401), json!({}), none.clone(), 1, Some((Code::AuthFailed, "config_error"))),
        (bad(404), filter(json!({"action": "IGNORE", "http_codes": [404]})), none.clone(), 1, None),
        (
            Answer::json(&json!({"error": "busy"})).header("X-Wait", "-0.99"),
            filter(json!({"action": "RETRY", "predicate": "{{ response.get('error') == 'busy' }}"})),
            vec![json!(1)],
            3,
            None,
        ),
        (
            Answer::text(422, "{\"message\": \"no such thing\"}"),
            filter(
                json!({"action": "FAIL", "failure_type": "config_error", "error_message_contains": "no such", "error_message": "wrong {{ response['message'] }}"}),
            ),
            none.clone(),
            1,
            Some((Code::ConfigInvalid, "config_error")),
        ),
        (Answer::text(200, "<html>"), json!({}), none, 1, None),
    ];
    for (first, requester, ids, requests, failure) in cases {
        let api = twice(first.clone());
        let base = handler(json!({"type": "HttpResponseFilter", "action": "RETRY", "http_codes": [599]}));
        let requester = if requester == json!({}) { base } else { requester };
        let given = read(&manifest_of(&api, requester, json!({}), json!({})), json!({})).await;
        assert_eq!((given.ids(), api.take().len()), (ids, requests), "{first:?}");
        let met = given.errors.first().map(|e| (e.code(), failure_type(e)));
        assert_eq!(met, failure, "{first:?}: {:?}", given.errors);
        if first.status == 422 {
            assert!(given.errors[0].to_string().contains("wrong no such thing"), "{}", given.errors[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_again_has_an_end() {
    let api = StandIn::start(|_| Answer::status(503).header("X-Wait", "-0.99"));
    let requester = handler(json!({"type": "HttpResponseFilter", "action": "RETRY", "http_codes": [599]}));
    let given = read(&manifest_of(&api, requester, json!({}), json!({})), json!({})).await;
    assert_eq!(api.take().len(), 3);
    assert_eq!(given.errors[0].code(), Code::Unavailable);
    assert_eq!(given.errors[0].hint_text(), Some("tried 3 times"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_that_needs_python_leaves_the_others() {
    let api = StandIn::start(|_| Answer::json(&json!({"rows": [{"id": 1}]})));
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    let mut custom = manifest["streams"][0].clone();
    custom["name"] = json!("special");
    custom["retriever"]["requester"]["authenticator"] = json!({"type": "CustomAuthenticator", "class_name": "source_x.Signer"});
    manifest["streams"].as_array_mut().unwrap().push(custom);
    assert_eq!(read(&manifest, json!({})).await.ids(), [1]);
    let failed = super::read_stream(&manifest, "special", json!({}), json!({})).await;
    let error = &failed.errors[0];
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.to_string().contains("source_x.Signer"), "{error}");
    assert_eq!(error.place().setting.as_deref(), Some("streams[1].retriever.requester.authenticator"));
    let opened = parse(&manifest).unwrap().open(&json!({})).unwrap();
    let (found, missing) = opened.discover(&[]).await.unwrap();
    assert_eq!((found.len(), missing.len()), (1, 1));
}

#[test]
fn a_manifest_that_is_wrong_says_where() {
    let api = StandIn::start(|_| Answer::status(200));
    let manifest = manifest_of(&api, json!({"authenticator": {"type": "BearerAuthenticatr"}}), json!({}), json!({}));
    let error = parse(&manifest).err().unwrap();
    assert_eq!(error.place().setting.as_deref(), Some("streams[0].retriever.requester.authenticator"));
    assert!(error.to_string().contains("did you mean BearerAuthenticator?"), "{error}");
    assert_eq!(error.place().file.as_deref(), Some("connectors/api.yaml"));
}

#[test]
fn a_template_that_is_wrong_says_where_before_anything_runs() {
    let api = StandIn::start(|_| Answer::status(200));
    let requester = json!({"request_parameters": {"a": "{{ config['key'] }}", "since": "{{ now_utc().strftime('%Y' }}"}});
    let wrong = manifest_of(&api, requester, json!({}), json!({})).to_string();
    let context = trib_core::Context { connection: "api".into(), project_dir: ".".into(), threads: 1 };
    let connector = trib_connectors::manifest::connector("api", "connectors/api.yaml".as_ref(), &wrong);
    let error = connector.make_source(&json!({}), &context).err().unwrap();
    assert_eq!(error.code(), Code::ConfigInvalid);
    assert_eq!(error.place().setting.as_deref(), Some("streams[0].retriever.requester.request_parameters.since"), "{error}");
    assert_eq!(error.place().file.as_deref(), Some("connectors/api.yaml"));
    assert!(api.take().is_empty());
}
