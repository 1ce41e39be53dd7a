//! Pages, and what makes partitions.

use serde_json::{Value, json};
use trib_connectors::manifest::Selection;
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use super::{manifest_of, queries, read, read_selected, read_stream};

fn option(name: &str) -> Value {
    json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": name})
}

fn paginator(strategy: Value, token: Value) -> Value {
    json!({"paginator": {"type": "DefaultPaginator", "pagination_strategy": strategy, "page_token_option": token}})
}

/// Five rows, two a page, by page number, by offset, by cursor and by link.
fn serve(asked: &Asked) -> Answer {
    let number = |name: &str| asked.param(name).and_then(|v| v.parse::<i64>().ok());
    let at = number("offset").or_else(|| number("page").map(|p| (p - 1) * 2)).or_else(|| number("after")).unwrap_or(0);
    let rows: Vec<Value> = (at + 1..=(at + 2).min(5)).map(|id| json!({"id": id})).collect();
    let next = (at + 2 < 5).then_some(at + 2);
    let answer = Answer::json(&json!({"rows": rows, "next": next}));
    match next {
        Some(next) => answer.header("Link", &format!("</items?after={next}>; rel=\"next\"")),
        None => answer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_paging_comes_to_the_end() {
    let api = StandIn::start(serve);
    let cases = [
        (paginator(json!({"type": "PageIncrement", "page_size": 2, "start_from_page": 1}), option("page")), vec!["", "page=2", "page=3"]),
        (paginator(json!({"type": "OffsetIncrement", "page_size": 2}), option("offset")), vec!["", "offset=2", "offset=4"]),
        (
            paginator(json!({"type": "OffsetIncrement", "page_size": 2, "inject_on_first_request": true}), option("offset")),
            vec!["offset=0", "offset=2", "offset=4"],
        ),
        (
            paginator(
                json!({"type": "CursorPagination", "cursor_value": "{{ response['next'] }}", "stop_condition": "{{ not response.next }}"}),
                option("after"),
            ),
            vec!["", "after=2", "after=4"],
        ),
        (
            paginator(
                json!({"type": "CursorPagination", "cursor_value": "{{ last_record['id'] }}", "stop_condition": "{{ last_page_size < 2 }}"}),
                option("after"),
            ),
            vec!["", "after=2", "after=4"],
        ),
        (
            paginator(
                json!({"type": "CursorPagination", "cursor_value": "{{ headers['link']['next']['url'] }}", "stop_condition": "{{ 'next' not in headers['link'] }}"}),
                json!({"type": "RequestPath"}),
            ),
            vec!["", "after=2", "after=4"],
        ),
    ];
    for (retriever, expected) in cases {
        let given = read(&manifest_of(&api, json!({}), retriever.clone(), json!({})), json!({})).await;
        assert!(given.errors.is_empty(), "{retriever}: {:?}", given.errors);
        assert_eq!(given.ids(), [1, 2, 3, 4, 5].map(Value::from), "{retriever}");
        assert_eq!(queries(&api.take()), expected, "{retriever}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_parents_make_partitions() {
    let api = StandIn::start(|asked| match asked.path.as_str() {
        "/teams" => Answer::json(&json!({"rows": [{"id": "a", "org": {"n": 1}}, {"id": null}, {"id": "b", "org": {"n": 2}}]})),
        path => Answer::json(&json!({"rows": [{"id": format!("{path}:{}", asked.query)}]})),
    });
    let teams = manifest_of(&api, json!({"path": "teams"}), json!({}), json!({"name": "teams"}))["streams"][0].clone();
    let parent = json!({"type": "SubstreamPartitionRouter", "parent_stream_configs": [
        {"type": "ParentStreamConfig", "stream": teams, "parent_key": "id", "partition_field": "team", "extra_fields": [["org", "n"]]}]});
    let list = json!({"type": "ListPartitionRouter", "cursor_field": "kind", "values": ["x", "y"], "request_option": option("kind")});
    let requester =
        json!({"path": "teams/{{ stream_partition.team }}/items", "request_parameters": {"n": "{{ stream_slice.extra_fields['org.n'] }}"}});
    let manifest = manifest_of(&api, requester, json!({"partition_router": [parent, list]}), json!({}));
    let given = read(&manifest, json!({})).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let mut ids: Vec<String> = given.ids().iter().map(|i| i.as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["/teams/a/items:n=1&kind=x", "/teams/a/items:n=1&kind=y", "/teams/b/items:n=2&kind=x", "/teams/b/items:n=2&kind=y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_filtered_and_changed() {
    let api = StandIn::start(|_| Answer::json(&json!({"rows": [{"id": 1, "Name": "x", "gone": true}, {"id": 2, "Name": "y"}]})));
    let selector = json!({"record_selector": {"type": "RecordSelector",
        "extractor": {"type": "DpathExtractor", "field_path": ["rows"]},
        "record_filter": {"type": "RecordFilter", "condition": "{{ not record.get('gone') }}"}}});
    let changes = json!({"transformations": [
        {"type": "AddFields", "fields": [{"path": ["tag", "of"], "value": "{{ record['Name'] ~ config['start'] }}"}]},
        {"type": "KeysToLower"}, {"type": "RemoveFields", "field_pointers": [["name"]]}]});
    let given = read(&manifest_of(&api, json!({}), selector, changes), json!({"start": "-1"})).await;
    assert_eq!(given.records, [json!({"id": 2, "tag": {"of": "y-1"}})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_of_the_configuration() {
    let api = StandIn::start(|asked| Answer::json(&json!({"rows": [{"id": asked.path}]})));
    let template = manifest_of(&api, json!({}), json!({}), json!({}))["streams"][0].clone();
    let mut manifest = manifest_of(&api, json!({}), json!({}), json!({}));
    let mapping = |path: Value, value: &str| json!({"type": "ComponentMappingDefinition", "field_path": path, "value": value});
    manifest["dynamic_streams"] = json!([{"type": "DynamicDeclarativeStream", "stream_template": template, "components_resolver": {
        "type": "ConfigComponentsResolver",
        "stream_config": {"type": "StreamConfig", "configs_pointer": ["tables"]},
        "components_mapping": [mapping(json!(["name"]), "t_{{ components_values }}"), mapping(json!(["name"]), "t_{{ components_values['name'] }}"),
            mapping(json!(["retriever", "requester", "path"]), "tables/{{ components_values['id'] }}")]}}]);
    let given = read_stream(&manifest, "t_A", json!({"tables": [{"name": "A", "id": 7}, {"name": "B", "id": 8}]}), json!({})).await;
    assert_eq!(given.ids(), ["/tables/7"]);
}

/// Where a selector is, an API is asked for the properties that somebody wants, under the names that it has for them, and for those that always go along.
#[tokio::test(flavor = "multi_thread")]
async fn only_wanted_properties_are_asked_for() {
    let api = StandIn::start(|_| Answer::json(&json!({"rows": [{"id": 1}]})));
    let query = |selector: Value, chunking: Value| {
        json!({"request_parameters": {"fields": {"type": "QueryProperties", "property_list": ["name", "age", "color", "city"],
            "always_include_properties": ["id"], "property_selector": selector, "property_chunking": chunking}}})
    };
    let prefix = json!({"type": "KeysReplace", "old": "p_", "new": ""});
    let selector = json!({"type": "JsonSchemaPropertySelector", "transformations": [prefix]});
    let by_two = json!({"type": "PropertyChunking", "property_limit_type": "property_count", "property_limit": 2});
    let no_limit = json!({"type": "PropertyChunking", "property_limit_type": "property_count"});
    let wanted = |names: &[&str]| Some(names.iter().map(|n| ((*n).to_owned(), json!({"type": "string"}))).collect());
    let all = "fields=id,name,age,color,city";
    for (selector, chunking, properties, asked) in [
        (selector.clone(), Value::Null, wanted(&["p_name", "city", "other"]), vec!["fields=id,name,city"]),
        (selector.clone(), Value::Null, wanted(&[]), vec!["fields=id"]),
        (selector.clone(), Value::Null, None, vec![all]),
        (Value::Null, Value::Null, wanted(&["name"]), vec![all]),
        (selector.clone(), by_two, wanted(&["p_name", "p_age", "city"]), vec!["fields=id,name,age", "fields=id,city"]),
        (selector, no_limit, wanted(&["name"]), vec!["fields=name,age,color,city,id"]),
    ] {
        let manifest = manifest_of(&api, query(selector, chunking), json!({}), json!({}));
        let selection = Selection { stream: "items".to_owned(), properties, ..Selection::default() };
        let given = read_selected(&manifest, json!({}), selection).await;
        assert!(given.errors.is_empty(), "{:?}", given.errors);
        assert_eq!(queries(&api.take()), asked);
    }
}
