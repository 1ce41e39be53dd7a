//! Answers that say "ask for less", and records that are found elsewhere than in answers.

use serde_json::{Value, json};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use super::{manifest_of, queries, read, read_stream};

fn option(name: &str) -> Value {
    json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": name})
}

fn number(asked: &Asked, name: &str) -> i64 {
    asked.param(name).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn handler(action: &str) -> Value {
    json!({"error_handler": {"type": "DefaultErrorHandler",
        "response_filters": [{"type": "HttpResponseFilter", "http_codes": [413], "action": action}]}})
}

fn cursor(more: &Value) -> Value {
    let mut cursor = json!({"type": "DatetimeBasedCursor", "cursor_field": "at", "datetime_format": "%Y-%m-%d",
        "start_datetime": "2026-01-01", "end_datetime": "2026-01-10",
        "start_time_option": option("from"), "end_time_option": option("to")});
    cursor.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"incremental_sync": cursor})
}

fn days(asked: &Asked) -> Vec<Value> {
    let (from, to) = (asked.param("from").unwrap_or_default(), asked.param("to").unwrap_or_default());
    let all = (1..=10).map(|d| (d, format!("2026-01-{d:02}")));
    all.filter(|(_, at)| *at >= from && *at <= to).map(|(id, at)| json!({"id": id, "at": at})).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_too_large_are_asked_for_again_smaller() {
    let api = StandIn::start(|asked| {
        let (at, limit) = (number(asked, "offset"), number(asked, "limit"));
        // The second page is heavy.
        if limit > if at == 4 { 1 } else { 4 } {
            return Answer::status(413);
        }
        Answer::json(&json!({"rows": (at..(at + limit).min(9)).map(|id| json!({"id": id})).collect::<Vec<_>>()}))
    });
    let retriever = |policy: &str| {
        json!({"page_size_reduction": {"type": "PageSizeReduction", "backoff_seconds": 0, "reset_policy": policy},
            "paginator": {"type": "DefaultPaginator", "page_token_option": option("offset"), "page_size_option": option("limit"),
                "pagination_strategy": {"type": "OffsetIncrement", "page_size": 8}}})
    };
    let cases = [
        ("NEVER", vec!["limit=8", "limit=4", "limit=4&offset=4", "limit=2&offset=4", "limit=1&offset=4", "limit=1&offset=5"]),
        (
            "AFTER_SUCCESSFUL_PAGE",
            vec!["limit=8", "limit=4", "limit=8&offset=4", "limit=4&offset=4", "limit=2&offset=4", "limit=1&offset=4", "limit=8&offset=5"],
        ),
    ];
    for (policy, asked) in cases {
        let given = read(&manifest_of(&api, handler("REDUCE_PAGE_SIZE"), retriever(policy), json!({})), json!({})).await;
        assert!(given.errors.is_empty(), "{policy}: {:?}", given.errors);
        let met = queries(&api.take());
        assert_eq!(met[..asked.len()], asked, "{policy}");
        assert_eq!(given.ids(), (0..9).map(Value::from).collect::<Vec<_>>(), "{policy}");
    }
    let hopeless = StandIn::start(|_| Answer::text(413, "{\"message\": \"too heavy\"}"));
    let given = read(&manifest_of(&hopeless, handler("REDUCE_PAGE_SIZE"), retriever("NEVER"), json!({})), json!({})).await;
    assert_eq!(given.errors[0].code(), Code::Unavailable);
    assert!(given.errors[0].to_string().contains("too heavy"), "{}", given.errors[0]);
    assert_eq!(hopeless.take().len(), 4, "8, 4, 2, 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_hold_too_much_are_halved() {
    let api = StandIn::start(|asked| {
        let rows = days(asked);
        if rows.len() > 3 { Answer::status(413) } else { Answer::json(&json!({"rows": rows})) }
    });
    let splitting = json!({"request_window_splitting": {"type": "RequestWindowSplitting"}});
    let stream = cursor(&json!({"step": "P1M", "cursor_granularity": "P1D"}));
    let given = read(&manifest_of(&api, handler("SPLIT_REQUEST_WINDOW"), splitting.clone(), stream.clone()), json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    assert_eq!(given.ids(), (1..=10).map(Value::from).collect::<Vec<_>>());
    assert_eq!(given.state, json!({"at": "2026-01-10"}));
    let asked: Vec<String> =
        queries(&api.take()).iter().map(|q| q.replace("2026-01-", "").replace("from=", "").replace("&to=", "-")).collect();
    assert_eq!(asked, ["01-10", "01-05", "01-02", "03-05", "06-10", "06-07", "08-10"]);
    let given =
        read(&manifest_of(&StandIn::start(|_| Answer::status(413)), handler("SPLIT_REQUEST_WINDOW"), splitting, stream), json!({})).await;
    assert_eq!(given.errors[0].code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_gives_only_so_many_is_asked_from_where_it_stopped() {
    // Two a page, and an error after the second page.
    let api = StandIn::start(|asked| {
        let page = number(asked, "page");
        let rows: Vec<Value> = days(asked).into_iter().skip(page as usize * 2).take(2).collect();
        if page > 1 { Answer::status(413) } else { Answer::json(&json!({"rows": rows})) }
    });
    let pages = json!({"type": "DefaultPaginator", "page_token_option": option("page"),
        "pagination_strategy": {"type": "PageIncrement", "page_size": 2}});
    let retriever = json!({"paginator": pages, "pagination_reset": {"type": "PaginationReset", "action": "SPLIT_USING_CURSOR"}});
    let stream = cursor(&json!({}));
    let given = read(&manifest_of(&api, handler("RESET_PAGINATION"), retriever, stream.clone()), json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let ids: Vec<i64> = given.ids().iter().map(|i| i.as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10], "the record at the edge comes again");
    // The manifest may know the limit itself.
    api.take();
    let limited = json!({"paginator": pages, "pagination_reset": {"type": "PaginationReset", "action": "SPLIT_USING_CURSOR",
        "limits": {"type": "PaginationResetLimits", "number_of_records": 4}}});
    let given = read(&manifest_of(&api, json!({}), limited, stream), json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    assert_eq!(given.ids().len(), 13);
    assert!(queries(&api.take()).iter().all(|q| !q.contains("page=2")), "it never asked for too much");
    // Without a cursor there is no progress: once more, and no further.
    let stubborn = StandIn::start(|_| Answer::status(413));
    let given = read(&manifest_of(&stubborn, handler("RESET_PAGINATION"), json!({}), json!({})), json!({})).await;
    assert_eq!((given.errors[0].code(), stubborn.take().len()), (Code::SystemError, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parents_record_may_hold_the_first_page_of_its_children() {
    let api = StandIn::start(|asked| match (asked.path.as_str(), asked.param("after").as_deref()) {
        ("/teams", _) => Answer::json(&json!({"rows": [
            {"id": "a", "people": {"rows": [{"id": 1}, {"id": 2}], "next": "2"}},
            {"id": "b", "people": {"rows": [{"id": 4}]}}]})),
        ("/teams/a/people", Some("2")) => Answer::json(&json!({"rows": [{"id": 3}]})),
        other => Answer::text(400, &format!("{other:?}")),
    });
    let teams = manifest_of(&api, json!({"path": "teams"}), json!({}), json!({"name": "teams"}))["streams"][0].clone();
    let parent = json!({"type": "ParentStreamConfig", "stream": teams, "parent_key": "id", "partition_field": "team", "lazy_read_pointer": ["people"]});
    let retriever = json!({"partition_router": {"type": "SubstreamPartitionRouter", "parent_stream_configs": [parent]},
        "paginator": {"type": "DefaultPaginator", "page_token_option": option("after"),
            "pagination_strategy": {"type": "CursorPagination", "cursor_value": "{{ response.get('next') }}", "stop_condition": "{{ not response.get('next') }}"}}});
    let manifest = manifest_of(&api, json!({"path": "teams/{{ stream_partition.team }}/people"}), retriever, json!({}));
    let given = read(&manifest, json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let mut ids: Vec<i64> = given.ids().iter().map(|i| i.as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
    let mut paths: Vec<String> = api.take().into_iter().map(|a| a.path).collect();
    paths.sort();
    assert_eq!(paths, ["/teams", "/teams/a/people"], "what was brought along is not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_within_records_become_records() {
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/items" => Answer::json(&json!({"rows": [
            {"id": 1, "who": "x", "lines": {"data": [{"n": 1}, {"n": 2, "who": "own"}], "has_more": false}},
            {"id": 2, "who": "y", "lines": {"data": [{"n": 3}], "has_more": true}},
            {"id": 3, "who": "z", "lines": {"data": []}}]})),
        "/items/2/lines" => Answer::json(&json!({"rows": [{"n": 3}, {"n": 4}]})),
        _ => Answer::status(400),
    });
    let lines = manifest_of(&api, json!({"path": "items/{{ stream_slice['parent_record']['id'] }}/lines"}), json!({}), json!({}))["streams"][0]
        ["retriever"]
        .clone();
    let expander = |more: Value| {
        let mut expander = json!({"type": "RecordExpander", "expand_records_from_field": ["lines", "data"]});
        expander.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"record_selector": {"type": "RecordSelector",
            "extractor": {"type": "DpathExtractor", "field_path": ["rows"], "record_expander": expander}}})
    };
    let whole = json!({"truncation_indicator_path": ["lines", "has_more"], "truncated_list_retriever": lines});
    let cases = [
        (json!({}), json!([{"n": 1}, {"n": 2, "who": "own"}, {"n": 3}])),
        (
            json!({"on_no_records": "emit_parent"}),
            json!([{"n": 1}, {"n": 2, "who": "own"}, {"n": 3}, {"id": 3, "who": "z", "lines": {"data": []}}]),
        ),
        (
            json!({"parent_fields": [{"type": "ParentFieldPath", "parent_path": ["id"], "record_path": ["of", "item"]}]}),
            json!([{"n": 1, "of": {"item": 1}}, {"n": 2, "who": "own", "of": {"item": 1}}, {"n": 3, "of": {"item": 2}}]),
        ),
        (whole, json!([{"n": 1}, {"n": 2, "who": "own"}, {"n": 3}, {"n": 4}])),
        (
            json!({"merge_parent": true}),
            json!([{"id": 1, "who": "x", "lines": {"has_more": false}, "n": 1}, {"id": 1, "who": "own", "lines": {"has_more": false}, "n": 2},
                {"id": 2, "who": "y", "lines": {"has_more": true}, "n": 3}]),
        ),
    ];
    for (more, expected) in cases {
        let given = read(&manifest_of(&api, json!({}), expander(more.clone()), json!({})), json!({})).await;
        assert!(given.errors.is_empty(), "{more}: {:?}", given.errors);
        assert_eq!(Value::Array(given.records), expected, "{more}");
    }
    let original = read(&manifest_of(&api, json!({}), expander(json!({"remain_original_record": true})), json!({})), json!({})).await;
    assert_eq!(original.records[0]["original_record"]["lines"]["data"][1]["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_api_has_forgotten_begins_anew() {
    let api = StandIn::start(|asked| Answer::json(&json!({"rows": [{"id": asked.path, "at": "2026-01-05"}]})));
    let part = |path: &str, stream: Value| {
        let mut stream = manifest_of(&api, json!({"path": path}), json!({}), stream)["streams"][0].clone();
        stream["name"] = json!("items");
        stream
    };
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    manifest["streams"][0] = json!({"type": "StateDelegatingStream", "name": "items", "api_retention_period": "P30D",
        "full_refresh_stream": part("all", json!({})), "incremental_stream": part("changes", cursor(&json!({"end_datetime": "{{ now_utc().strftime('%Y-%m-%d') }}"})))});
    let recent = chrono::Utc::now().date_naive() - chrono::Days::new(3);
    for (state, path) in [
        (json!({}), "/all"),
        (json!({"at": recent.to_string()}), "/changes"),
        (json!({"at": "2020-01-01"}), "/all"),
        (json!({"something": "else"}), "/all"),
        (json!({"__ab_no_cursor_state_message": true}), "/changes"),
    ] {
        let given = read_stream(&manifest, "items", json!({}), state.clone()).await;
        assert_eq!(given.ids(), [path], "{state}");
    }
}
