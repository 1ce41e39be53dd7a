//! What streams share at an API: tokens with quotas, turns, places for jobs.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{all, manifest_of, read};

fn pool(api: &StandIn, quota: Value) -> Value {
    let mut quotas = json!([{"type": "TokenQuota", "name": "core", "remaining_path": ["core", "left"], "reset_path": ["core", "reset"]}]);
    quotas[0].as_object_mut().unwrap().extend(quota.as_object().unwrap().clone());
    json!({"authenticator": {"type": "RateLimitedMultipleTokenAuthenticator", "tokens": "{{ config['key'] }}", "auth_method": "token",
        "budget_min_reserve": 0, "budget_reserve_fraction": 0, "max_wait_time": "PT1M",
        "quota_status_source": {"type": "QuotaStatusSource", "url": format!("{}/limits", api.url()), "request_headers": {"X-Who": "{{ config['start'] }}"},
            "unavailable_status_codes": [404]},
        "quotas": quotas}})
}

/// Six pages of one record.
fn pages() -> Value {
    let option = json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"});
    let strategy = json!({"type": "PageIncrement", "page_size": 1, "start_from_page": 1});
    json!({"paginator": {"type": "DefaultPaginator", "page_token_option": option, "pagination_strategy": strategy}})
}

fn page(asked: &trib_testkit::stand_in::Asked) -> Answer {
    let page: i64 = asked.param("page").map_or(1, |p| p.parse().unwrap());
    Answer::json(&json!({"rows": if page <= 6 { vec![json!({"id": page})] } else { vec![] }}))
}

/// Who asked for records, in order.
fn askers(api: &StandIn) -> Vec<String> {
    let asked = api.take();
    let items = asked.iter().filter(|a| a.path == "/items");
    items.map(|a| a.header("authorization").unwrap().trim_start_matches("token ").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stand_for_each_other_within_their_quotas() {
    let config = json!({"key": "aaaaaa, bbbbbb ,cccccc", "start": "me"});
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/limits" => {
            assert_eq!(asked.header("x-who"), Some("me"));
            let left = HashMap::from([("token aaaaaa", 2), ("token bbbbbb", 0), ("token cccccc", 100)]);
            Answer::json(&json!({"core": {"left": left[asked.header("authorization").unwrap()], "reset": "2100-01-01T00:00:00Z"}}))
        }
        _ => page(asked),
    });
    let given = read(&manifest_of(&api, pool(&api, json!({})), pages(), json!({})), config.clone()).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    assert_eq!(given.ids(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(askers(&api), ["aaaaaa", "aaaaaa", "cccccc", "cccccc", "cccccc", "cccccc", "cccccc"]);

    // The API takes the first token's calls away in the middle: the next one goes on at once, whatever the answer says about waiting.
    let refused = AtomicUsize::new(0);
    let api = StandIn::start(move |asked| match asked.path.as_str() {
        "/limits" => Answer::json(&json!({"core": {"left": 100, "reset": 4_102_444_800_i64}})),
        _ if asked.param("page").as_deref() == Some("3") && refused.fetch_add(1, Ordering::SeqCst) == 0 => {
            Answer::status(429).header("X-Left", "0").header("Retry-After", "3600")
        }
        _ => page(asked),
    });
    let aware = json!({"remaining_header": "X-Left", "exhaustion_status_codes": [429]});
    let given = read(&manifest_of(&api, pool(&api, aware), pages(), json!({})), config.clone()).await;
    assert_eq!((given.ids().len(), given.errors.len()), (6, 0), "{:?}", given.errors);
    assert_eq!(askers(&api), ["aaaaaa", "aaaaaa", "aaaaaa", "bbbbbb", "bbbbbb", "bbbbbb", "bbbbbb", "bbbbbb"]);

    // Where nobody counts, each has its turn.
    let api = StandIn::start(|asked| if asked.path == "/limits" { Answer::status(404) } else { page(asked) });
    read(&manifest_of(&api, pool(&api, json!({})), pages(), json!({})), config.clone()).await;
    assert_eq!(askers(&api), ["aaaaaa", "bbbbbb", "cccccc", "aaaaaa", "bbbbbb", "cccccc", "aaaaaa"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_all_spent_for_too_long_end_the_read() {
    let config = json!({"key": "aaaaaa,bbbbbb"});
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/limits" => Answer::json(&json!({"core": {"left": 1, "reset": "2100-01-01T00:00:00Z"}})),
        _ => page(asked),
    });
    let given = read(&manifest_of(&api, pool(&api, json!({})), pages(), json!({})), config).await;
    let error = &given.errors[0];
    assert_eq!((given.ids(), error.code()), (vec![json!(1), json!(2)], Code::RateLimited));
    assert!(error.to_string().contains("core") && !format!("{error:?}").contains("aaaaaa"), "{error:?}");
    // An answer that is not as the manifest says is the manifest's fault, and says where.
    let api = StandIn::start(|asked| if asked.path == "/limits" { Answer::json(&json!({"core": {}})) } else { page(asked) });
    let given = read(&manifest_of(&api, pool(&api, json!({})), pages(), json!({})), json!({"key": "aaaaaa"})).await;
    assert!(given.errors[0].to_string().contains("core.left"), "{:?}", given.errors);
    let none = read(&manifest_of(&api, pool(&api, json!({})), pages(), json!({})), json!({"key": " , "})).await;
    assert_eq!(none.errors[0].code(), Code::ConfigInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_group_are_read_one_after_the_other() {
    // Each page is held back until nobody has come for a moment: streams that may come together do.
    let inside: &'static Mutex<(HashMap<String, usize>, usize)> = Box::leak(Box::default());
    let api = StandIn::start(move |asked| {
        let enter = || {
            let (here, most) = &mut *inside.lock().unwrap();
            *here.entry(asked.path.clone()).or_default() += 1;
            let grouped = ["/a", "/b", "/c"].iter().filter(|path| here.get(**path).is_some_and(|n| *n > 0)).count();
            *most = (*most).max(grouped);
        };
        enter();
        std::thread::sleep(Duration::from_millis(50));
        *inside.lock().unwrap().0.get_mut(&asked.path).unwrap() -= 1;
        Answer::json(&json!({"rows": [{"id": 1}]}))
    });
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    let stream = |name: &str| {
        let mut stream = manifest["streams"][0].clone();
        stream["name"] = json!(name);
        stream["retriever"]["requester"]["path"] = json!(name);
        stream
    };
    let mut child = stream("c");
    child["retriever"]["partition_router"] = json!({"type": "SubstreamPartitionRouter", "parent_stream_configs": [
        {"type": "ParentStreamConfig", "stream": stream("b"), "parent_key": "id", "partition_field": "id"}]});
    let streams = [stream("a"), stream("b"), child, stream("d")];
    manifest["check"]["stream_names"] = json!(["a"]);
    manifest["streams"] = json!(streams);
    manifest["concurrency_level"] = json!({"type": "ConcurrencyLevel", "default_concurrency": 4});
    let together = all(&manifest, &["a", "b", "c", "d"]).await;
    assert_eq!((together.records.len(), together.errors.len()), (4, 0), "{:?}", together.errors);
    assert!(inside.lock().unwrap().1 > 1, "without a group they meet, or this test shows nothing");
    let members = json!([{"$ref": "#/streams/0"}, {"$ref": "#/streams/1"}]);
    manifest["stream_groups"] = json!({"one": {"streams": members, "action": {"type": "BlockSimultaneousSyncsAction"}}});
    *inside.lock().unwrap() = Default::default();
    let apart = all(&manifest, &["a", "b", "c", "d"]).await;
    assert_eq!((apart.records.len(), apart.errors.len()), (4, 0), "{:?}", apart.errors);
    assert_eq!(inside.lock().unwrap().1, 1, "a, b and b's child");
}

/// Reports that are never done.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_ended_at_the_api() {
    let api = StandIn::start(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/jobs") => Answer::json(&json!({"job": 7})),
        ("GET", "/jobs/7") => Answer::json(&json!({"status": "late"})),
        _ => Answer::status(200),
    });
    let requester = |method: &str, path: &str| json!({"type": "HttpRequester", "url_base": api.url(), "path": path, "http_method": method});
    let extractor = |path: Value| json!({"type": "DpathExtractor", "field_path": path});
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    manifest["streams"][0]["retriever"] = json!({"type": "AsyncRetriever", "record_selector": {"type": "RecordSelector", "extractor": extractor(json!([]))},
        "status_mapping": {"type": "AsyncJobStatusMap", "running": [], "completed": [], "failed": [], "timeout": ["late"]},
        "status_extractor": extractor(json!(["status"])), "download_target_extractor": extractor(json!(["files"])),
        "creation_requester": requester("POST", "jobs"), "polling_requester": requester("GET", "jobs/{{ creation_response['job'] }}"),
        "abort_requester": requester("DELETE", "jobs/{{ creation_response['job'] }}"), "download_requester": requester("GET", "x")});
    let given = read(&manifest, json!({})).await;
    assert_eq!(given.errors[0].code(), Code::Unavailable);
    let asked: Vec<_> = api.take().iter().map(|a| format!("{} {}", a.method, a.path)).collect();
    let each = ["POST /jobs", "GET /jobs/7", "DELETE /jobs/7"];
    assert_eq!(asked, [each, each, each].concat());
}
