//! An API that tells which objects and fields it has: mappings are held against it before anything is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::Folder;

/// As CRMs describe themselves: what may be written, what must be there, in pages.
static FIELDS: LazyLock<Value> = LazyLock::new(|| {
    json!([
        {"label": "id", "type": "id", "updateable": false, "nillable": true},
        {"label": "Email", "type": "email", "updateable": true, "nillable": false, "unique": true},
        {"label": "LastName", "type": "string", "updateable": true, "nillable": false, "length": 3},
        {"label": "Score__c", "type": "double", "updateable": true, "nillable": true},
        {"label": "Address", "type": "address", "updateable": true, "nillable": true},
        {"label": "TeamId", "type": "reference", "updateable": true, "nillable": true, "length": 0, "parent": "Team"},
        {"label": "CreatedDate", "type": "datetime", "updateable": false, "nillable": true},
    ])
});

fn answer(asked: &Asked, forbidden: &AtomicBool) -> Answer {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/objects/Contact/fields") if forbidden.load(Ordering::SeqCst) => {
            Answer::text(403, r#"{"message": "no right to describe"}"#)
        }
        ("GET", "/found") => Answer::json(&json!({"found": []})),
        ("GET", "/objects/Contact/fields" | "/objects/Found/fields") => {
            let from: usize = asked.param("from").map_or(0, |from| from.parse().unwrap());
            let page: Vec<&Value> = FIELDS.as_array().unwrap().iter().skip(from).take(4).collect();
            let next = (from + 4 < FIELDS.as_array().unwrap().len()).then_some(from + 4);
            Answer::json(&json!({"fields": page, "next": next}))
        }
        ("GET", "/objects") => {
            Answer::json(&json!({"objects": [{"name": "Contact", "label": "People"}, {"name": "Order__c", "label": "Orders"}]}))
        }
        ("GET", "/row") => Answer::json(&json!({"values": [["email", "score"]]})),
        ("POST", _) => Answer::json(&json!({"id": "1"})),
        _ => Answer::text(404, r#"{"message": "nothing is there"}"#),
    }
}

const MANIFEST: &str = r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", path: objects}}
definitions:
  to: {type: HttpRequester, url_base: $url}
  write: {operation: upsert, requester: {$ref: "#/definitions/to", path: "{{ object }}", http_method: POST}}
objects:
  - name: "*"
    description: Any object.
    open: true
    discover_objects:
      retriever: {requester: {$ref: "#/definitions/to", path: objects}, record_selector: {extractor: {field_path: [objects]}}}
      name: "{{ result['name'] }}"
      description: "{{ result['label'] }}"
    discover_fields:
      retriever:
        requester: {$ref: "#/definitions/to", path: "objects/{{ object }}/fields"}
        record_selector: {extractor: {field_path: [fields]}}
        paginator:
          type: DefaultPaginator
          page_token_option: {type: RequestOption, inject_into: request_parameter, field_name: from}
          pagination_strategy: {type: CursorPagination, cursor_value: "{{ response['next'] }}", stop_condition: "{{ not response['next'] }}"}
      name: "{{ result['label'] }}"
      kind: "{{ result['type'] }}"
      required: "{{ not result['nillable'] }}"
      writable: "{{ result['updateable'] }}"
      key: "{{ result.get('unique') }}"
      max_length: "{{ result.get('length', 0) }}"
      relationship: "{{ result.get('parent', '') }}"
    operations: [{$ref: "#/definitions/write"}]
  - name: Found
    discover_fields: {$ref: "#/objects/0/discover_fields"}
    look_up:
      retriever: {requester: {$ref: "#/definitions/to", path: found}, record_selector: {extractor: {field_path: [found]}}}
      record_key: "{{ record[key[0]] }}"
      result_key: "{{ result[key[0]] }}"
      id: "{{ result['id'] }}"
    operations: [{operation: insert, requester: {$ref: "#/definitions/to", path: "{{ object }}", http_method: POST}}]
  # The first row of a sheet: names alone.
  - name: Sheet
    discover_fields:
      retriever: {requester: {$ref: "#/definitions/to", path: row}, record_selector: {extractor: {field_path: [values, "0"]}}}
      name: "{{ result }}"
    operations: [{$ref: "#/definitions/write"}]
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
"##;

struct Bench {
    api: StandIn,
    forbidden: Arc<AtomicBool>,
    folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let forbidden: Arc<AtomicBool> = Arc::default();
        let shared = forbidden.clone();
        let api = StandIn::start(move |asked| answer(asked, &shared));
        let folder = Folder::with(&[
            ("tributary.yaml", "name: out\n"),
            ("connections.yaml", "crm: {connector: crm}\n"),
            ("models/people.sql", "/*---\nschema: marts\n---*/\nselect 'a@x' as email, 'Ann' as name, 1.5 as score\n"),
        ]);
        folder.write("connectors/crm.yaml", &MANIFEST.replace("$url", &api.url()));
        folder.ok(&["run", "people"]);
        Self { api, forbidden, folder }
    }

    fn sync(&self, stream: &str) {
        self.folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: crm\nstreams:\n  marts.people: {stream}\n"));
    }

    /// The paths of what was sent since the last call.
    fn sent(&self) -> Vec<String> {
        self.api.take().into_iter().filter(|a| a.method == "POST").map(|a| a.path).collect()
    }
}

#[test]
fn a_mapping_is_checked_before_anything_is_sent() {
    let bench = Bench::new();
    let cases: [(&str, &[&str]); 6] = [
        (
            "{into: Contact, key: {Email: email}, map: {LastName: name, Scor__c: score}}",
            &["has no such field: Contact.Scor__c", "did you mean `Score__c`?"],
        ),
        (
            "{into: Contact, key: {Email: email}, map: {LastName: name, CreatedDate: score}}",
            &["the field can only be read: Contact.CreatedDate"],
        ),
        (
            "{into: Contact, key: {Email: email}, map: {Score__c: score}}",
            &["a field that new records need is not mapped: Contact.LastName"],
        ),
        (
            "{into: Contact, key: {LastName: name}, map: {Email: email}}",
            &["are not matched by these fields: LastName", "they are by Email"],
        ),
        (
            "{into: Contcat, key: {Email: email}, map: {LastName: name}}",
            &["the API has no such object: `Contcat`", "did you mean `Contact`?"],
        ),
        ("{into: Sheet, key: {email: email}, map: {scores: score}}", &["has no such field: Sheet.scores", "did you mean `score`?"]),
    ];
    for (stream, says) in cases {
        bench.sync(stream);
        for command in [&["plan", "crm"], &["check", "crm"], &["run", "crm"]] {
            let said = bench.folder.trib(command);
            assert!(said.status.is_some_and(|s| s > 0), "{command:?} {stream}: {}", said.all());
            for says in says {
                assert!(said.all().contains(says), "{command:?} {stream}: {}", said.all());
            }
        }
        assert!(bench.sent().is_empty(), "{stream}");
    }
    for stream in [
        "{into: Contact, key: {Email: email}, map: {LastName: name, Score__c: score, Address.city: name, Team.Number: score}}",
        // Who only inserts may look records up by any field.
        "{into: Found, key: {LastName: name}, map: {Email: email}, write: insert}",
        "{into: Sheet, key: {email: email}, map: {score: score}}",
    ] {
        let bench = Bench::new();
        bench.sync(stream);
        bench.folder.ok(&["check", "crm"]);
        bench.folder.ok(&["run", "crm"]);
        assert_eq!(bench.sent().len(), 1, "{stream}");
    }
}

#[test]
fn who_may_not_ask_is_told_and_sends() {
    let bench = Bench::new();
    bench.forbidden.store(true, Ordering::SeqCst);
    bench.sync("{into: Contact, key: {Email: email}, map: {LastName: name, Scor__c: score}}");
    for command in ["plan", "run"] {
        let said = bench.folder.ok(&[command, "crm"]);
        assert!(said.all().contains("the fields of Contact are not checked"), "{}", said.all());
    }
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_text_that_is_too_long_is_not_sent() {
    let bench = Bench::new();
    bench.sync("{into: Contact, key: {Email: email}, map: {LastName: \"name || 'é'\"}}");
    let says = "LastName: it has 4 characters, and the API takes 3";
    let said = bench.folder.ok(&["preview", "crm"]);
    assert!(said.out.contains(says), "{}", said.all());
    bench.folder.ok(&["run", "crm"]);
    let listed = bench.folder.ok(&["rejected", "list", "--json"]);
    assert!(listed.out.contains(says) && bench.sent().is_empty(), "{}", listed.all());
    bench.sync("{into: Contact, key: {Email: email}, map: {LastName: \"substr(name, 1, 2) || 'é'\"}}");
    bench.folder.ok(&["run", "crm"]);
    assert_eq!(bench.sent().len(), 1, "characters are counted, not bytes");
}

#[test]
fn objects_and_fields_are_listed() {
    let bench = Bench::new();
    let listed = bench.folder.ok(&["discover", "crm"]).out;
    assert!(["Contact", "Order__c", "Sheet", "People"].iter().all(|name| listed.contains(name)) && !listed.contains('*'), "{listed}");
    let shown = bench.folder.ok(&["discover", "crm", "Contact", "--json"]).out;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let field = |name: &str| shown["fields"].as_array().unwrap().iter().find(|f| f["name"] == name).unwrap().clone();
    assert_eq!(field("CreatedDate"), json!({"name": "CreatedDate", "type": "datetime", "required": false, "writable": false}));
    assert_eq!(field("LastName"), json!({"name": "LastName", "type": "string", "required": true, "writable": true, "max_length": 3}));
    assert_eq!(field("TeamId")["relationship"], "Team");
    assert_eq!(shown["keys"], json!([["Email"]]));
    let said = bench.folder.ok(&["discover", "crm", "Contact"]);
    assert!(
        ["read only", "key, required", "at most 3 characters", "`Team.FIELD`"].iter().all(|part| said.out.contains(part)),
        "{}",
        said.all()
    );
    let said = bench.folder.trib(&["discover", "crm", "Ordr__c"]);
    assert!(said.status.is_some_and(|s| s > 0) && said.all().contains("did you mean `Order__c`?"), "{}", said.all());
}
