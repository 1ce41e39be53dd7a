//! What the network and the other side do wrong.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trib_connectors::manifest::{Event, Selection};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{manifest_of, parse, read};

/// A server that gives each connection, in their order, these bytes one after the other, and then hangs up.
fn raw(connections: Vec<Vec<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for parts in connections {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            for part in parts {
                let _ = stream.write_all(&part);
                let _ = stream.flush();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    url
}

fn http(body: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// A manifest that asks this address.
fn asking(url: &str, more: Value) -> Value {
    let somewhere = StandIn::start(|_| Answer::status(500));
    let mut requester = json!({"url_base": url});
    requester.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    manifest_of(&somewhere, requester, json!({}), json!({}))
}

/// Waits of a hundredth of a second.
fn quickly(tries: u32) -> Value {
    json!({"error_handler": {"type": "DefaultErrorHandler", "max_retries": tries,
        "backoff_strategies": [{"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": -0.99}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_break_off_are_asked_for_again() {
    let good = "{\"rows\": [{\"id\": 1}]}";
    let whole = || vec![http(good, good.len())];
    let cases = [
        ("the connection breaks in the middle", vec![vec![http("{\"rows\": [{\"id\"", 500)], whole()]),
        ("the text ends early, and says that this is all", vec![vec![http(&good[..12], 12)], whole()]),
        ("nothing comes at all", vec![vec![], whole()]),
        ("it comes one byte at a time", vec![http(good, good.len()).into_iter().map(|b| vec![b]).collect()]),
    ];
    for (name, connections) in cases {
        let given = read(&asking(&raw(connections), quickly(2)), json!({})).await;
        assert!(given.errors.is_empty(), "{name}: {:?}", given.errors);
        assert_eq!(given.ids(), [1], "{name}");
    }
    let never = read(&asking(&raw(vec![vec![http("{\"rows\": [", 10)]; 3]), quickly(0)), json!({})).await;
    assert_eq!(never.errors[0].code(), Code::ConnectionLost);
    assert!(never.errors[0].to_string().contains("cut off"), "{}", never.errors[0]);
    let wrong = "{\"rows\": [{\"id\": NaN}]}";
    let given = read(&asking(&raw(vec![vec![http(wrong, wrong.len())]]), quickly(0)), json!({})).await;
    assert_eq!(given.errors[0].code(), Code::DataInvalid, "nothing is lost silently");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut more = quickly(0);
    more["read_timeout_in_seconds"] = json!(0.2);
    let given = read(&asking(&url, more), json!({})).await;
    assert_eq!(given.errors[0].code(), Code::Timeout);
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_asked_twice() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let given = read(&asking(&url, quickly(3)), json!({})).await;
    assert_eq!((given.errors[0].code(), asked.load(Ordering::SeqCst)), (Code::TlsFailed, 1), "{:?}", given.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_is_nobodys_word() {
    let api = StandIn::start(|_| Answer::text(200, "{\"rows\": [{\"id\": 1}]}").header("Content-Type", "text/html"));
    assert_eq!(read(&manifest_of(&api, json!({}), json!({}), json!({})), json!({})).await.ids(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_when_it_may_be_asked_again() {
    // The manifest says nothing about waiting.
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (status, told) in [(429, "0"), (503, "0"), (429, past)] {
        let count = AtomicUsize::new(0);
        let api = StandIn::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            // Without the header the third try would wait four seconds more than with it.
            0..2 => Answer::status(status).header("Retry-After", told),
            _ => Answer::json(&json!({"rows": [{"id": 1}]})),
        });
        let given = read(&manifest_of(&api, json!({}), json!({}), json!({})), json!({})).await;
        assert_eq!((given.ids(), api.take().len()), (vec![json!(1)], 3), "{status} {told}: {:?}", given.errors);
    }
}

/// Partitions that are read side by side.
fn partitions(count: usize, level: usize) -> (Value, Value) {
    let values: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let router = json!({"partition_router": {"type": "ListPartitionRouter", "cursor_field": "n", "values": values,
        "request_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "n"}}});
    (router, json!({"type": "ConcurrencyLevel", "default_concurrency": level}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refusals_passes_without_loss() {
    // Every number is refused the first two times.
    let seen: Mutex<HashMap<String, usize>> = Mutex::default();
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let highest = most.clone();
    let api = StandIn::start(move |asked| {
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let n = asked.param("n").unwrap();
        let times = {
            let mut seen = seen.lock().unwrap();
            let times = seen.entry(n.clone()).or_default();
            *times += 1;
            *times
        };
        now.fetch_sub(1, Ordering::SeqCst);
        if times < 3 { Answer::status(429) } else { Answer::json(&json!({"rows": [{"id": n}]})) }
    });
    let (router, level) = partitions(40, 8);
    let mut manifest = manifest_of(&api, quickly(50), router, json!({}));
    manifest["concurrency_level"] = level;
    let given = read(&manifest, json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let mut ids: Vec<usize> = given.ids().iter().map(|i| i.as_str().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
    assert_eq!(api.take().len(), 120);
    assert!(most.load(Ordering::SeqCst) <= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_never_sees_more_than_its_budget() {
    let arrivals: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = arrivals.clone();
    let api = StandIn::start(move |asked| {
        seen.lock().unwrap().push(Instant::now());
        Answer::json(&json!({"rows": [{"id": asked.param("n")}]}))
    });
    for policy in [
        json!({"type": "MovingWindowCallRatePolicy", "rates": [{"type": "Rate", "limit": 10, "interval": "PT0.3S"}], "matchers": []}),
        json!({"type": "FixedWindowCallRatePolicy", "call_limit": 10, "period": "PT0.3S", "matchers": []}),
    ] {
        let (router, level) = partitions(35, 20);
        let mut manifest = manifest_of(&api, json!({}), router, json!({}));
        manifest["concurrency_level"] = level;
        manifest["api_budget"] = json!({"type": "HTTPAPIBudget", "policies": [policy]});
        let given = read(&manifest, json!({})).await;
        assert_eq!((given.records.len(), given.errors.len()), (35, 0));
        let mut arrivals = std::mem::take(&mut *arrivals.lock().unwrap());
        arrivals.sort();
        let within = |from: &Instant| arrivals.iter().filter(|at| *at >= from && **at < *from + Duration::from_millis(300)).count();
        assert!(arrivals.iter().map(within).max().unwrap() <= 10, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_share_a_single_use_token_renew_it_once() {
    let renewals = Arc::new(AtomicUsize::new(0));
    let counter = renewals.clone();
    let api = StandIn::start(move |asked| match asked.path.as_str() {
        "/token" => match counter.fetch_add(1, Ordering::SeqCst) {
            0 if asked.field("refresh_token").as_deref() == Some("r0-secret") => {
                Answer::json(&json!({"access_token": "t1-secret", "refresh_token": "r1-secret", "expires_in": 3600}))
            }
            _ => Answer::text(400, "{\"error\": \"invalid_grant\"}"),
        },
        _ if asked.header("authorization") != Some("Bearer t1-secret") => Answer::status(401),
        path => Answer::json(&json!({"rows": [{"id": path}]})),
    });
    let requester = |path: &str| {
        json!({"path": path, "authenticator": {"type": "OAuthAuthenticator", "client_id": "c", "client_secret": "s",
            "refresh_token": "{{ config['refresh'] }}", "token_refresh_endpoint": format!("{}/token", api.url()),
            "refresh_token_updater": {"refresh_token_config_path": ["refresh"], "access_token_config_path": ["access"],
                "token_expiry_date_config_path": ["expiry"]}}})
    };
    let mut manifest = manifest_of(&api, requester("a"), json!({}), json!({"name": "a"}));
    for name in ["b", "c", "d"] {
        let other = manifest_of(&api, requester(name), json!({}), json!({"name": name}))["streams"][0].clone();
        manifest["streams"].as_array_mut().unwrap().push(other);
    }
    manifest["concurrency_level"] = json!({"type": "ConcurrencyLevel", "default_concurrency": 4});
    let opened = Arc::new(parse(&manifest).unwrap().open(&json!({"refresh": "r0-secret"})).unwrap());
    let wanted = ["a", "b", "c", "d"].map(|name| Selection { stream: name.to_owned(), ..Selection::default() });
    let mut events = opened.read(wanted.to_vec()).await.unwrap();
    let (mut records, mut config) = (0, None);
    while let Some(event) = events.recv().await {
        match event {
            Event::Records { records: some, .. } => records += some.len(),
            Event::ConfigChanged(changed) => config = Some(changed),
            Event::Ended { error, .. } => assert!(error.is_none(), "{error:?}"),
            Event::Started { .. } | Event::State { .. } => {}
        }
    }
    assert_eq!((records, renewals.load(Ordering::SeqCst)), (4, 1));
    assert_eq!(config.unwrap()["refresh"], "r1-secret");
}
