//! Drafts are right by the interpreter's own measure, and say what the sample shows.

use std::path::Path;

use super::*;
use crate::manifest::Manifest;

fn draft(url: &str, headers: &[(&str, &str)], answer_headers: &[(&str, &str)], body: &Value) -> Draft {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    let asked = Asked { url: Url::parse(url).unwrap(), headers: pairs(headers) };
    let response = Response { status: 200, headers: pairs(answer_headers), url: asked.url.clone(), body: body.to_string().into() };
    Draft::of_sample("orders", &asked, &response, None).unwrap()
}

fn parsed(draft: &Draft) -> Value {
    let text = draft.to_yaml();
    Manifest::parse(Path::new("draft.yaml"), &text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    crate::manifest::yaml::parse("draft.yaml", &text).unwrap()
}

#[test]
fn records_key_cursor_and_schema() {
    let body = json!({"meta": {"tags": [{"x": 1}]}, "data": {"orders": [
        {"customer_id": 7, "id": 1, "total": 10, "updated_at": "2026-01-02T00:00:00Z", "created_at": "2026-01-01", "lines": [{"sku": "a"}], "note": null, "ok": true},
        {"customer_id": 7, "id": 2, "total": 1.5, "updated_at": "2026-01-03T00:00:00Z", "created_at": "2026-01-01", "lines": [], "note": null, "ok": false},
    ]}});
    let draft = draft(
        "https://api.example/v2/orders?status=open&api_key=hunter2",
        &[("Authorization", "Bearer hunter3"), ("X-Version", "3")],
        &[],
        &body,
    );
    let manifest = parsed(&draft);
    let stream = &manifest["streams"][0];
    assert_eq!(stream["primary_key"], json!(["id"]));
    assert_eq!(stream["incremental_sync"]["cursor_field"], "updated_at");
    assert_eq!(stream["incremental_sync"]["datetime_format"], "%Y-%m-%dT%H:%M:%SZ");
    assert_eq!(stream["retriever"]["record_selector"]["extractor"]["field_path"], json!(["data", "orders"]));
    let requester = &stream["retriever"]["requester"];
    assert_eq!((&requester["path"], &requester["request_parameters"]["status"]), (&json!("orders"), &json!("open")));
    assert_eq!(requester["request_headers"], json!({"X-Version": "3"}));
    assert_eq!(manifest["definitions"]["requester"]["url_base"], "https://api.example/v2/");
    assert_eq!(manifest["definitions"]["requester"]["authenticator"]["type"], "BearerAuthenticator");
    assert_eq!(requester["request_parameters"]["api_key"], "{{ config['api_key'] }}");
    let properties = &stream["schema_loader"]["schema"]["properties"];
    for (field, expected) in [
        ("id", json!({"type": ["integer"]})),
        ("total", json!({"type": ["number", "null"]})),
        ("updated_at", json!({"type": ["string", "null"], "format": "date-time"})),
        ("created_at", json!({"type": ["string", "null"], "format": "date"})),
        ("ok", json!({"type": ["boolean", "null"]})),
        ("note", json!({"type": ["string", "null"]})),
    ] {
        assert_eq!(properties[field], expected, "{field}");
    }
    assert_eq!(properties["lines"]["items"]["properties"]["sku"], json!({"type": ["string", "null"]}));
    let spec = &manifest["spec"]["connection_specification"];
    assert_eq!(spec["required"], json!(["api_token", "api_key"]));
    assert_eq!(spec["properties"]["api_key"]["airbyte_secret"], true);
    assert!(!draft.to_yaml().contains("hunter"), "{}", draft.to_yaml());
}

#[test]
fn pages() {
    let items = json!([{"id": 1}, {"id": 2}]);
    let url = "https://a.example/orders";
    let strategy = |draft: &Draft| parsed(draft)["streams"][0]["retriever"]["paginator"].clone();
    let link = draft(url, &[], &[("link", "<https://a.example/orders?p=2>; rel=\"next\"")], &items);
    assert_eq!(strategy(&link)["page_token_option"]["type"], "RequestPath");
    let next = draft(url, &[], &[], &json!({"results": items, "links": {"next": "https://a.example/orders?p=2"}}));
    assert_eq!(strategy(&next)["pagination_strategy"]["cursor_value"], "{{ response.get('links', {}).get('next') }}");
    let token = draft(url, &[], &[], &json!({"results": items, "nextPageToken": "abc"}));
    assert_eq!(strategy(&token)["page_token_option"]["field_name"], "pageToken");
    let numbered = draft("https://a.example/orders?page=1&per_page=2&x=1", &[], &[], &items);
    let paginator = strategy(&numbered);
    assert_eq!(
        (&paginator["page_token_option"]["field_name"], &paginator["page_size_option"]["field_name"]),
        (&json!("page"), &json!("per_page"))
    );
    assert_eq!(
        (&paginator["pagination_strategy"]["start_from_page"], &paginator["pagination_strategy"]["page_size"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(parsed(&numbered)["streams"][0]["retriever"]["requester"]["request_parameters"], json!({"x": "1"}));
    let counted = draft(url, &[], &[], &json!({"data": items, "meta": {"current_page": 1, "last_page": 3}}));
    assert_eq!(strategy(&counted)["pagination_strategy"]["type"], "PageIncrement");
    assert!(strategy(&draft(url, &[], &[], &items)).is_null());
    assert!(strategy(&link.without_pages()).is_null());
}

#[test]
fn credentials_of_every_kind_become_settings() {
    let body = json!([{"id": 1}]);
    for (header, kind, setting) in [
        (("Authorization", "Basic dXNlcjpodW50ZXIy"), "BasicHttpAuthenticator", "password"),
        (("authorization", "Token hunter2"), "ApiKeyAuthenticator", "authorization"),
        (("X-Api-Key", "hunter2"), "ApiKeyAuthenticator", "api_key"),
    ] {
        let draft = draft("https://a.example/orders", &[header], &[], &body);
        let manifest = parsed(&draft);
        assert_eq!(manifest["definitions"]["requester"]["authenticator"]["type"], kind);
        assert!(manifest["spec"]["connection_specification"]["properties"][setting].is_object(), "{setting}");
        assert!(!draft.to_yaml().contains("hunter2") && !draft.to_yaml().contains("dXNl"));
    }
}

#[test]
fn texts_stay_texts() {
    let value = json!({"yes": "no", "n": "1.0", "path": "a/b", "t": "{{ x }}: #", "list": [{"a": "on", "b": {"c": [1, {"d": {}}]}}, "x"], "none": null, "empty": []});
    assert_eq!(crate::manifest::yaml::parse("x", &write::yaml(&value)).unwrap(), value, "{}", write::yaml(&value));
}

#[test]
fn an_openapi_document() {
    let text = r##"
openapi: 3.0.3
servers: [{url: "https://api.example/v1"}]
paths:
  /pets:
    get:
      parameters:
        - {name: page, in: query, schema: {type: integer}}
        - {name: limit, in: query, schema: {type: integer}}
      responses:
        "200": {content: {application/json: {schema: {$ref: "#/components/schemas/Pets"}}}}
  /pets/{id}:
    get: {responses: {"200": {content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}}}}
  /health:
    get: {responses: {"200": {content: {text/plain: {}}}}}
components:
  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}
  schemas:
    Pets: {type: object, properties: {total: {type: integer}, data: {type: array, items: {$ref: "#/components/schemas/Pet"}}}}
    Pet:
      type: object
      properties:
        id: {type: integer}
        born: {type: string, format: date}
        owner: {allOf: [{$ref: "#/components/schemas/Owner"}]}
        friends: {type: array, items: {$ref: "#/components/schemas/Pet"}}
    Owner: {type: object, properties: {name: {type: string}}}
"##;
    let operations = from_openapi("o.yaml", text, None, &[]).unwrap();
    let manifest = parsed(&operations.draft);
    let stream = &manifest["streams"][0];
    assert_eq!(
        (manifest["streams"].as_array().unwrap().len(), &stream["name"], &stream["primary_key"]),
        (1, &json!("pets"), &json!(["id"]))
    );
    assert_eq!(stream["retriever"]["record_selector"]["extractor"]["field_path"], json!(["data"]));
    assert_eq!(stream["retriever"]["paginator"]["pagination_strategy"]["type"], "PageIncrement");
    let properties = &stream["schema_loader"]["schema"]["properties"];
    assert_eq!(properties["born"], json!({"type": ["string", "null"], "format": "date"}));
    assert_eq!(properties["owner"]["properties"]["name"]["type"], json!(["string", "null"]));
    let left: Vec<&str> = operations.left_out.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(left, ["/pets/{id}", "/health"]);
    assert_eq!(from_openapi("o.yaml", "swagger: '2.0'", None, &[]).err().unwrap().code(), trib_core::Code::DataInvalid);
}
