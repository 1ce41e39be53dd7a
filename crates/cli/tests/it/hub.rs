//! Connectors from a registry: found, pinned, compared, taken. The registry is a folder in the public one's form.

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, StandIn};

use crate::trib::{Folder, Said};

fn manifest(key: &str, properties: &str, more: &str) -> String {
    format!(
        r#"version: 7.0.0
type: DeclarativeSource
check: {{type: CheckStream, stream_names: [orders]}}
streams:
  - type: DeclarativeStream
    name: orders
    primary_key: [{key}]
    retriever:
      type: SimpleRetriever
      requester: {{type: HttpRequester, url_base: "https://shop.example", path: orders}}
      record_selector: {{type: RecordSelector, extractor: {{type: DpathExtractor, field_path: []}}}}
    schema_loader: {{type: InlineSchemaLoader, schema: {{type: object, properties: {properties}}}}}
{more}spec:
  type: Spec
  connection_specification: {{type: object, properties: {{token: {{type: string, airbyte_secret: true}}}}}}
"#
    )
}

fn old() -> String {
    manifest("id", "{id: {type: integer}, total: {type: number}}", "")
}

fn new() -> String {
    manifest("number", "{number: {type: integer}, total: {type: number}, note: {type: string}}", "")
}

fn index(version: &str) -> String {
    json!({
        "sources": [
            {"sourceDefinitionId": "1", "name": "Web Shop", "dockerRepository": "acme/source-shop", "dockerImageTag": version, "license": "MIT",
             "tags": ["language:manifest-only"], "releaseStage": "alpha", "spec": {"connectionSpecification": {}}},
            {"sourceDefinitionId": "2", "name": "Shop in Python", "dockerRepository": "acme/source-shop-python", "dockerImageTag": "0.3.0",
             "license": "ELv2", "tags": ["language:python"]},
        ],
        "destinations": [],
    })
    .to_string()
}

fn project() -> Folder {
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: shop\n"),
        ("registry/registries/v0/oss_registry.json", &index("1.0.0")),
        ("registry/metadata/acme/source-shop/1.0.0/manifest.yaml", &old()),
        ("registry/metadata/acme/source-shop/2.0.0/manifest.yaml", &new()),
    ]);
    folder.set("TRIB_CONNECTOR_REGISTRY", &folder.path().join("registry/registries/v0/oss_registry.json").to_string_lossy());
    folder
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()))
}

#[test]
fn a_connector_is_found_pinned_and_used() {
    let folder = project();
    let found = json(&folder.ok(&["connectors", "search", "SHOP", "--json"]));
    let of_registry = found.as_array().unwrap().iter().filter(|r| r["runs_as"] != "there");
    let rows: Vec<_> = of_registry.map(|r| (&r["name"], &r["version"], &r["licence"], &r["runs_as"])).collect();
    assert_eq!(
        rows,
        [
            (&json!("shop"), &json!("1.0.0"), &json!("MIT"), &json!("manifest")),
            (&json!("shop-python"), &json!("0.3.0"), &json!("ELv2"), &json!("source program")),
        ]
    );
    let added = json(&folder.ok(&["connectors", "add", "source-shop", "--json"]));
    assert_eq!((&added["connector"], &added["version"], &added["streams"]), (&json!("shop"), &json!("1.0.0"), &json!(1)));
    let lock = std::fs::read_to_string(folder.path().join("tributary.lock")).unwrap();
    for part in ["\"shop\":", "version: \"1.0.0\"", "origin: \"registry:acme/source-shop\"", "licence: \"MIT\"", "sha256: \""] {
        assert!(lock.contains(part), "{part}: {lock}");
    }
    folder.write("connections.yaml", "shop: {connector: shop, token: x}\n");
    folder.ok(&["validate"]);
    assert!(folder.ok(&["connectors", "show", "shop"]).out.contains("version 1.0.0, licence MIT, from registry:acme/source-shop"));
    assert!(folder.ok(&["connectors", "outdated"]).out.contains("up to date"));

    // Somebody's edit is said, and not overwritten.
    let file = folder.path().join("connectors/shop.yaml");
    std::fs::write(&file, old().replace("orders\n", "order\n")).unwrap();
    let said = folder.trib(&["validate"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    for part in ["not what was pinned", "connectors/shop.yaml", "shop 1.0.0", "hint:"] {
        assert!(said.all().contains(part), "{part}: {}", said.all());
    }
    let said = folder.trib(&["connectors", "update", "--yes"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    folder.ok(&["connectors", "add", "shop@1.0.0", "--force"]);
    folder.ok(&["validate"]);
    std::fs::remove_file(&file).unwrap();
    assert!(folder.trib(&["validate"]).all().contains("is not there"));
}

#[test]
fn an_update_shows_what_it_changes_and_asks() {
    let folder = project();
    folder.ok(&["connectors", "add", "shop"]);
    folder.write("registry/registries/v0/oss_registry.json", &index("2.0.0"));
    let outdated = json(&folder.ok(&["connectors", "outdated", "--json"]));
    let one = &outdated["outdated"][0];
    assert_eq!(
        (&one["connector"], &one["from"], &one["to"], &one["breaking"]),
        (&json!("shop"), &json!("1.0.0"), &json!("2.0.0"), &json!(true))
    );

    let said = folder.trib(&["connectors", "update"]);
    assert_eq!(said.status, Some(5), "nobody has said yes: {}", said.all());
    for part in ["orders: the key is number, it was id", "orders: the field id is gone", "orders: a new field, note: string", "--yes"] {
        assert!(said.all().contains(part), "{part}: {}", said.all());
    }
    folder.ok(&["validate"]);
    assert!(folder.ok(&["connectors", "outdated"]).out.contains("breaking"), "it is still the old one");
    folder.ok(&["connectors", "update", "shop", "--yes"]);
    folder.ok(&["validate"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("connectors/shop.yaml")).unwrap(), new());
    // And back again.
    folder.ok(&["connectors", "update", "shop@1.0.0", "--yes"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("connectors/shop.yaml")).unwrap(), old());
}

#[test]
fn a_connector_comes_from_a_folder_a_file_or_a_url() {
    let folder = project();
    folder.write("mine/manifest.yaml", &old());
    folder.write("mine/metadata.yaml", "data: {dockerImageTag: 0.4.2, license: Apache-2.0}\n");
    let added = json(&folder.ok(&["connectors", "add", "mine", "--from", "mine", "--json"]));
    assert_eq!((&added["version"], &added["licence"]), (&json!("0.4.2"), &json!("Apache-2.0")));
    let api = StandIn::start(|asked| if asked.path == "/m.yaml" { Answer::text(200, &new()) } else { Answer::status(404) });
    folder.ok(&["connectors", "add", "web@3.1", "--from", &format!("{}/m.yaml", api.url())]);
    folder.ok(&["validate"]);
    folder.write("mine/manifest.yaml", &new());
    assert!(folder.trib(&["connectors", "update", "mine"]).all().contains("the key is number"));
    // A file of the project itself is pinned as it stands.
    folder.write("connectors/own.yaml", &old());
    folder.ok(&["connectors", "add", "own", "--from", "connectors/own.yaml"]);
    folder.write("connectors/own.yaml", &new());
    assert_eq!(folder.trib(&["validate"]).status, Some(2));
    folder.ok(&["connectors", "add", "own", "--from", "connectors/own.yaml"]);
    folder.ok(&["validate"]);
}

/// What the binary brings along is pinned like all else, and needs no registry for it.
#[test]
fn a_bundled_connector_is_pinned_by_a_copy() {
    let mut folder = Folder::with(&[("tributary.yaml", "name: t\n")]);
    folder.set("TRIB_CONNECTOR_REGISTRY", "nowhere.json");
    let added = json(&folder.ok(&["connectors", "add", "ecb", "--json"]));
    assert_eq!((&added["origin"], &added["licence"]), (&json!("bundled"), &json!("Apache-2.0")));
    folder.write("connections.yaml", "rates: {connector: ecb}\n");
    folder.ok(&["validate"]);
    assert!(folder.ok(&["connectors", "outdated"]).out.contains("up to date"));
    let other = folder.trib(&["connectors", "update", "ecb@0.0.1", "--yes"]);
    assert!(other.status == Some(2) && other.all().contains("brings another version"), "{}", other.all());
}

#[test]
fn what_cannot_be_added_says_why() {
    let folder = project();
    folder.write("connectors/other.yaml", &old());
    folder.write("broken.yaml", "streams: 3\n");
    folder.write("new.yaml", &new());
    for (args, status, part) in [
        (&["add", "shpo"][..], 2, "did you mean `shop`?"),
        (&["add", "shop@9.9.9"], 2, "the newest is 1.0.0"),
        (&["add", "shop-python"], 2, "is a program, not a manifest"),
        (&["add", "x", "--from", "nowhere.yaml"], 2, "nowhere.yaml"),
        (&["add", "x", "--from", "broken.yaml"], 2, "the manifest is not right"),
        (&["add", "other", "--from", "new.yaml"], 2, "--force"),
        (&["add", "../x", "--from", "new.yaml"], 0, "connectors/x.yaml"),
        (&["add", "a b", "--from", "new.yaml"], 2, "no name for a connector"),
        (&["update", "nobody"], 2, "trib connectors add nobody"),
        (&["search", "shop-", "--registry", "nowhere.json"], 2, "nowhere.json"),
    ] {
        let said = folder.trib(&[&["connectors"], args].concat());
        assert_eq!(said.status, Some(status), "{args:?}: {}", said.all());
        assert!(said.all().contains(part), "{args:?}: {}", said.all());
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("connectors/other.yaml")).unwrap(), old());
}
