//! From the lake into an API: what differs is sent, and each record's fate is known.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};
use trib_testkit::vendor::Vendor;

use crate::trib::{Folder, Said};

pub const TOKEN: &str = "pl4nted-t0ken";

/// A customer database of nobody's: batches by e-mail address, tasks one by one.
fn crm() -> Vendor {
    Vendor::start(json!({
        "every": [{"header": {"authorization": format!("Bearer {TOKEN}")}, "else": {"status": 401, "body": {"message": "who are you"}}}],
        "routes": [
            {"path": "/ping", "answer": {"ok": true}},
            {
                "path": "POST /contacts/batch",
                "takes": {
                    "in": "inputs", "most": 10, "into": "contacts", "key": "id", "keep": "properties",
                    "record": {"id": "[^@]+@[^@]+", "properties.email?": ".*", "properties.name?": ".{0,20}", "properties.score?": "\\d*(\\.\\d+)?"},
                    "each": {"id": "c-$key", "status": "ok"}, "wrong": {"status": "error", "message": "$why"},
                },
                "answer": {"results": "$results"},
            },
            {
                "path": "POST /contacts/all-or-none",
                "takes": {
                    "most": 10, "into": "contacts", "key": "email", "whole": true,
                    "record": {"email": "[^@]+@[^@]+", "name?": ".{0,20}", "score?": "\\d*(\\.\\d+)?"},
                },
                "refused": {"status": 400, "body": {"message": "$why"}},
                "answer": {"ok": true},
            },
            {
                "path": "PUT /contacts/{email}",
                "takes": {
                    "into": "contacts", "key": "$email", "whole": true,
                    "record": {"email": "[^@]+@[^@]+", "name?": ".{0,20}", "score?": "\\d*(\\.\\d+)?"},
                },
                "refused": {"status": 400, "body": {"message": "$why"}},
                "answer": {"id": "c-$key"},
            },
            {"path": "DELETE /contacts/{email}", "takes": {"into": "contacts", "key": "$email", "there": true, "remove": true}, "answer": {}},
            {
                "path": "POST /tasks", "once": "idempotency-key",
                "takes": {"into": "tasks", "key": "title", "record": {"title": ".+"}},
                "answer": {"id": "$key"},
            },
            {
                "path": "POST /notes",
                "takes": {"into": "notes", "key": "title", "record": {"title": ".+"}},
                "answer": {"id": "$key"},
            },
        ],
    }))
}

pub fn manifest(url: &str) -> String {
    r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", path: ping}}
definitions:
  to:
    type: HttpRequester
    url_base: $url
    authenticator: {type: BearerAuthenticator, api_token: "{{ config['token'] }}"}
    error_handler:
      type: DefaultErrorHandler
      backoff_strategies: [{type: ConstantBackoffStrategy, backoff_time_in_seconds: -0.95}]
concurrency_level: {type: ConcurrencyLevel, default_concurrency: 4}
objects:
  - name: Contact
    keys: [[email]]
    fields: {email: {type: string}, name: {type: string}, score: {type: number}}
    required: [email]
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/to", path: contacts/batch, http_method: POST}
        with: {id: "{{ record['email'] }}"}
        fields_into: [properties]
        into: [inputs]
        batch: {max_records: 10}
        answers: {path: [results], failed: "{{ result['status'] == 'error' }}", message: "{{ result['message'] }}", id: "{{ result['id'] }}"}
      - operation: delete
        requester: {$ref: "#/definitions/to", path: "contacts/{{ record['email'] }}", http_method: DELETE}
      - operation: clear
        requester: {$ref: "#/definitions/to", path: contacts/batch, http_method: POST}
        with: {id: "{{ record['email'] }}"}
        fields_into: [properties]
        into: [inputs]
        batch: {max_records: 10}
        answers: {path: [results]}
  - name: Whole
    keys: [[email]]
    open: true
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/to", path: contacts/all-or-none, http_method: POST}
        batch: {max_records: 10}
  - name: Single
    keys: [[email]]
    open: true
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/to", path: "contacts/{{ record['email'] }}", http_method: PUT}
        answers: {id: "{{ response['id'] }}"}
  - name: Loose
    open: true
    operations:
      - {operation: upsert, requester: {$ref: "#/definitions/to", path: "contacts/{{ record[key[0]] | urlencode }}", http_method: PUT}}
  - name: Task
    open: true
    operations:
      - operation: insert
        requester: {$ref: "#/definitions/to", path: tasks, http_method: POST, request_headers: {Idempotency-Key: "{{ delivery_id }}"}}
        idempotent: true
        answers: {id: "{{ response['id'] }}"}
  - name: Note
    open: true
    operations:
      - operation: insert
        requester: {$ref: "#/definitions/to", path: notes, http_method: POST}
spec:
  type: Spec
  connection_specification:
    type: object
    required: [token]
    properties: {token: {type: string, airbyte_secret: true}}
"##
        .replace("$url", url)
}

pub struct Bench {
    pub api: Vendor,
    pub folder: Folder,
}

impl Bench {
    pub fn new(stream: &str) -> Self {
        let api = crm();
        let mut folder =
            Folder::with(&[("tributary.yaml", "name: out\n"), ("connections.yaml", "crm: {connector: crm, token: \"${TOKEN}\"}\n")]);
        folder.write("connectors/crm.yaml", &manifest(&api.url()));
        folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: crm\nstreams:\n  marts.people: {stream}\n"));
        folder.set("TOKEN", TOKEN);
        Self { api, folder }
    }

    /// The model gives these rows from now on.
    pub fn model(&self, rows: &str) {
        let sql = match rows {
            "" => "select '' as email, '' as name, cast(0 as double) as score where false".to_owned(),
            rows => format!("select column1 as email, column2 as name, cast(column3 as double) as score from (values {rows}) as v"),
        };
        self.folder.write("models/people.sql", &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
        self.folder.ok(&["run", "people"]);
    }

    pub fn many(&self, sql: &str) {
        self.folder.write("models/people.sql", &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
        self.folder.ok(&["run", "people"]);
    }

    /// Delivers; gives what was said and the keys of the records that the API took.
    pub fn deliver(&self, args: &[&str]) -> (Said, Vec<String>) {
        self.api.begin(false);
        let said = self.folder.trib(&[&["run", "crm"], args].concat());
        assert!(!said.all().contains(TOKEN), "{}", said.all());
        (said, self.taken())
    }

    fn taken(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.api.kept().taken.into_iter().map(|(_, key)| key).collect();
        keys.sort();
        keys
    }

    pub fn records(&self, collection: &str) -> Value {
        json!(self.api.kept().records.get(collection).cloned().unwrap_or_default())
    }
}

/// A part of the manifest that tests add.
pub const BUDGET: &str = "api_budget: {type: HTTPAPIBudget, policies: [{type: MovingWindowCallRatePolicy, rates: [{limit: 100, interval: PT1S}], matchers: []}]}\n";

pub const UPSERT: &str = "{into: Contact, key: {email: email}, map: {name: name, score: score}}";

#[test]
fn what_differs_is_sent_and_nothing_else() {
    let bench = Bench::new("{into: Contact, key: {email: email}, map: {name: \"upper(name)\", score: score}, deletes: {apply: delete}}");
    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 2.5), ('c@x', null, null)");
    for args in [&["validate"][..], &["check", "crm"]] {
        bench.folder.ok(args);
    }
    let said = bench.folder.ok(&["plan", "crm"]);
    assert!(said.out.contains("3 created, 0 updated, 0 deleted, in 1 API calls"), "{}", said.all());
    assert!(bench.taken().is_empty(), "a plan sends nothing");

    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken.as_slice()), (Some(0), ["a@x", "b@x", "c@x"].map(str::to_owned).as_slice()), "{}", said.all());
    let expected = json!({
        "a@x": {"email": "a@x", "name": "ANN", "score": 1.0},
        "b@x": {"email": "b@x", "name": "BOB", "score": 2.5},
        "c@x": {"email": "c@x", "name": null, "score": null},
    });
    assert_eq!(bench.records("contacts"), expected);

    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken.len()), (Some(0), 0), "a second run sends nothing: {}", said.all());

    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 3), ('d@x', 'Dan', 4)");
    let said = bench.folder.ok(&["preview", "crm", "--row", "b@x"]);
    assert!(said.out.contains("\"BOB\"") && !said.out.contains("DAN") && !said.out.contains(TOKEN), "{}", said.all());
    let (said, taken) = bench.deliver(&["--row", "d@x"]);
    assert_eq!((said.status, taken), (Some(0), vec!["d@x".to_owned()]), "one record alone: {}", said.all());
    let (said, taken) = bench.deliver(&["--row", "d@x"]);
    assert!(said.status == Some(0) && taken.is_empty() && said.all().contains("differs from what was delivered"), "{}", said.all());
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken), (Some(0), ["b@x", "c@x"].map(str::to_owned).to_vec()), "{}", said.all());
    assert_eq!(bench.records("contacts").as_object().unwrap().keys().collect::<Vec<_>>(), ["a@x", "b@x", "d@x"]);

    let (said, taken) = bench.deliver(&["--full-refresh"]);
    assert_eq!((said.status, taken.len()), (Some(0), 3), "everything is sent again: {}", said.all());
    assert!(bench.api.refusals().is_empty(), "{:?}", bench.api.refusals());
}

/// What was noted about some records says nothing about others: whoever goes to others is told, and told how to go on.
#[test]
fn a_key_an_object_and_a_connection_are_not_changed_in_passing() {
    let stream = "{into: Loose, key: {email: email}, map: {name: name, score: score}}";
    let bench = Bench::new(stream);
    let write = |to: &str, stream: &str| {
        bench.folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: {to}\nstreams:\n  marts.people: {stream}\n"));
    };
    bench.folder.write("connections.yaml", "crm: {connector: crm, token: \"${TOKEN}\"}\ncrm2: {connector: crm, token: \"${TOKEN}\"}\n");
    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 2)");
    assert_eq!(bench.deliver(&[]).1, ["a@x", "b@x"]);

    let by_name = "{into: Loose, key: {name: name}, map: {email: email, score: score}}";
    let cases = [
        ("crm", by_name, "by another key: `email` before, `name` now"),
        ("crm", "{into: Single, key: {email: email}, map: {name: name}}", "to another object: `Loose` before, `Single` now"),
        ("crm2", stream, "to another connection: `crm` before, `crm2` now"),
    ];
    for (to, stream, says) in cases {
        write(to, stream);
        for command in [&["plan", "crm"][..], &["preview", "crm"], &["run", "crm"], &["run", "crm", "--full-refresh"]] {
            bench.api.begin(false);
            let said = bench.folder.trib(command);
            let told = [says, "trib state reset crm/marts.people", "syncs/crm.yaml:4"].iter().all(|part| said.all().contains(part));
            assert!(said.status.is_some_and(|s| s > 0) && told && bench.taken().is_empty(), "{command:?} {stream}: {}", said.all());
        }
    }
    write("crm", by_name);
    shown("a_key_is_another", &bench.folder.trib(&["run", "crm"]).all());

    // As it was: nothing is sent. Forgotten: all is.
    write("crm", stream);
    assert!(bench.deliver(&[]).1.is_empty());
    write("crm", by_name);
    bench.folder.ok(&["state", "reset", "crm/marts.people"]);
    let said = bench.folder.ok(&["plan", "crm"]);
    assert!(said.out.contains("2 created, 0 updated, 0 deleted"), "{}", said.all());
    assert_eq!(bench.deliver(&[]).1, ["a@x", "b@x"]);
    bench.model("('c@x', 'Ann', 1), ('b@x', 'Bob', 2)");
    assert_eq!(bench.deliver(&[]).1, ["c@x"], "what is delivered now is noted by the new key");

    write("crm2", stream);
    bench.folder.ok(&["state", "reset", "crm"]);
    assert_eq!(bench.deliver(&[]).1, ["b@x", "c@x"]);
    // Where nothing is noted there is nothing to forget.
    bench.folder.ok(&["state", "reset", "crm"]);
    bench.folder.ok(&["state", "reset", "crm"]);
    assert_eq!(bench.deliver(&[]).1.len(), 2);
}

/// Mapped fields come and go: who gets a new one is sent again, and nobody because of one that is left out.
#[test]
fn mapped_fields_may_change() {
    let bench = Bench::new("{into: Contact, key: {email: email}, map: {name: name}}");
    let map = |map: &str| {
        let stream = format!("{{into: Contact, key: {{email: email}}, map: {map}}}");
        bench.folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: crm\nstreams:\n  marts.people: {stream}\n"));
        bench.deliver(&[]).1
    };
    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 2)");
    assert_eq!(map("{name: name}").len(), 2);
    assert_eq!(map("{name: name, score: score}").len(), 2, "nobody has a score yet");
    assert_eq!(map("{score: score}").len(), 0);
    bench.model("('a@x', 'Anna', 1), ('b@x', 'Bob', 3)");
    assert_eq!(map("{score: score}"), ["b@x"], "what is not mapped does not count");
    assert_eq!(map("{name: name, score: score}"), ["a@x", "b@x"], "it is not known what the name was when a record was sent without it");
    assert_eq!(map("{name: name, score: score}").len(), 0);
}

#[test]
fn what_is_refused_is_listed_and_stays_pending() {
    for object in ["Contact", "Whole"] {
        let bench = Bench::new(&UPSERT.replace("Contact", object));
        let long = "x".repeat(30);
        bench.many(&format!(
            "select 'p' || value || '@x' as email, case value when 7 then '{long}' else 'N' end as name, cast(value as double) as score
             from (select unnest(generate_series(1, 25)) as value)"
        ));
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 24), "{object}: {}", said.all());
        assert!(!taken.contains(&"p7@x".to_owned()), "{object}");
        let listed = bench.folder.ok(&["rejected", "list", "--json"]);
        assert!(listed.out.contains("p7@x") && listed.out.contains("name=xxx"), "{object}: {}", listed.all());
        let (_, taken) = bench.deliver(&[]);
        assert!(taken.is_empty(), "{object}");
        assert!(bench.api.refusals().len() == usize::from(object == "Whole"), "only that one was tried again: {:?}", bench.api.refusals());
        bench.many("select 'p' || value || '@x' as email, 'N' as name, cast(value as double) as score from (select unnest(generate_series(1, 25)) as value)");
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken), (Some(0), vec!["p7@x".to_owned()]), "{object}: {}", said.all());
        let listed = bench.folder.ok(&["rejected", "list"]);
        assert!(listed.out.contains("no rows wait"), "{object}: {}", listed.all());
    }
}

#[test]
fn a_plan_tells_how_long_the_budget_makes_it_take() {
    let bench = Bench::new(&UPSERT.replace("Contact", "Single"));
    let limited = manifest(&bench.api.url()).replace("objects:\n", &format!("{}objects:\n", BUDGET.replace("PT1S", "PT1M")));
    bench.folder.write("connectors/crm.yaml", &limited);
    bench.many("select 'p' || value || '@x' as email, 'N' as name, cast(value as double) as score from (select unnest(generate_series(1, 250)) as value)");
    let said = bench.folder.ok(&["plan", "crm"]);
    assert!(said.out.contains("in 250 API calls, which take 2 min 0 s at least by the API's limits"), "{}", said.all());
}

#[test]
fn rows_that_cannot_be_sent_are_told_before() {
    let bench = Bench::new(UPSERT);
    bench.model("('a@x', 'Ann', 1), ('a@x', 'Two', 2), (null, 'None', 3)");
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken), (Some(0), vec!["a@x".to_owned()]), "{}", said.all());
    let listed = bench.folder.ok(&["rejected", "list", "--json"]);
    assert!(listed.out.contains("another row has the same key") && listed.out.contains("the key is NULL"), "{}", listed.all());
}

#[test]
fn guards_hold_until_somebody_says_yes() {
    let bench = Bench::new(
        "{into: Contact, key: {email: email}, map: {name: name}, deletes: {apply: delete}, guard: {max_deletes: 30%, max_changes: 1}}",
    );
    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 2), ('c@x', 'Cat', 3), ('d@x', 'Dan', 4)");
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken.len()), (Some(0), 4), "{}", said.all());
    let held = |what: &str| {
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(5), 0), "{what}: {}", said.all());
        assert!(said.all().contains(what) && said.all().contains("--approve"), "{what}: {}", said.all());
    };
    bench.model("('a@x', 'Ann', 1), ('b@x', 'Bob', 2)");
    held("max_deletes: 30%");
    bench.model("('a@x', 'A', 1), ('b@x', 'B', 2), ('c@x', 'Cat', 3), ('d@x', 'Dan', 4)");
    held("max_changes: 1");
    bench.model("");
    held("has no rows");
    let runs = bench.folder.ok(&["runs", "--json"]);
    let runs: Value = serde_json::from_str(&runs.out).unwrap();
    let run = runs.as_array().unwrap().iter().find(|r| r["status"] == "held").unwrap_or_else(|| panic!("{runs}"));
    let id = run["run"].as_str().or(run["id"].as_str()).unwrap_or_else(|| panic!("{run}")).to_owned();
    let (said, taken) = bench.deliver(&["--approve", &id]);
    assert_eq!((said.status, taken.len()), (Some(0), 4), "{}", said.all());
    assert_eq!(bench.records("contacts"), json!({}));
}

#[test]
fn mistakes_are_found_before_anything_is_sent() {
    let cases = [
        ("{into: Contct, key: {email: email}}", "did you mean `Contact`?"),
        ("{into: Contact, key: {name: name}}", "they are by email"),
        ("{into: Contact, key: {email: email}, map: {nmae: name}}", "did you mean `name`?"),
        ("{into: Contact, key: {email: email}, deletes: {apply: archive}}", "it knows upsert, delete, clear"),
        ("{into: Contact, key: {email: email}, map: {name: nmae}}", "nmae"),
        ("{into: Contact}", "a delivery needs a key"),
        ("{into: Contact, key: {email: email}, write: replace}", "use insert, update, upsert, mirror or delete"),
        ("{into: Contact, key: {email: email}, cursor: score}", "no meaning for a delivery"),
    ];
    let bench = Bench::new(UPSERT);
    bench.model("('a@x', 'Ann', 1)");
    for (stream, says) in cases {
        bench.folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: crm\nstreams:\n  marts.people: {stream}\n"));
        let (said, taken) = bench.deliver(&[]);
        assert!(said.status.is_some_and(|s| s > 0) && taken.is_empty(), "{stream}: {}", said.all());
        assert!(said.all().contains(says), "{stream}: {}", said.all());
    }
}

/// What somebody reads when the object at the API is no longer what the manifest says, or a value does not fit.
#[test]
fn refusals_say_what_is_wrong() {
    let declared = "fields: {email: {type: string}, name: {type: string}, score: {type: number}}";
    let stricter = "fields: {email: {type: string}, name: {type: string, maxLength: 8}, score: {type: number}}";
    let removed: fn(&Asked) -> Answer = |asked| match asked.body.contains("score") {
        true => Answer::text(400, r#"{"status": "error", "message": "Property \"score\" does not exist"}"#),
        false => Answer::json(&json!({"results": [{"id": "1", "status": "ok"}]})),
    };
    let cases: [(&str, Option<fn(&Asked) -> Answer>, &str, &str); 4] = [
        ("a_field_was_removed", Some(removed), declared, "'a@x', 'Ann', 1"),
        ("a_required_field_is_missing", None, "fields: {email: {}, name: {}, score: {}}\n    required: [email, name]", "'a@x', null, 1"),
        ("a_value_is_too_long_as_declared", None, stricter, "'a@x', 'Annabelle', 1"),
        ("a_value_is_too_long_as_the_api_says", None, declared, "'a@x', 'Annabelle the Twenty-First', 1"),
    ];
    for (name, answer, fields, row) in cases {
        let bench = Bench::new(UPSERT);
        let other = answer.map(StandIn::start);
        let url = other.as_ref().map_or_else(|| bench.api.url(), StandIn::url);
        let changed = manifest(&url).replace(
            &format!("{declared}\n    required: [email]"),
            &if fields.contains("required") { fields.to_owned() } else { format!("{fields}\n    required: [email]") },
        );
        bench.folder.write("connectors/crm.yaml", &changed);
        bench.model(&format!("({row})"));
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 0), "{name}: {}", said.all());
        shown(name, &bench.folder.ok(&["rejected", "list"]).out);
    }
    let bench = Bench::new("{into: Contact, key: {email: email}, map: {score: score}}");
    let changed = manifest(&bench.api.url()).replace("required: [email]", "required: [email, name]");
    bench.folder.write("connectors/crm.yaml", &changed);
    bench.model("('a@x', 'Ann', 1)");
    let (said, _) = bench.deliver(&[]);
    assert!(said.status.is_some_and(|s| s > 0), "{}", said.all());
    shown("a_required_field_is_not_mapped", &said.all());
}

/// A snapshot of what people read, without what differs from run to run.
fn shown(name: &str, text: &str) {
    let filters = vec![
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"[0-9a-z]{14}", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
        (r"[0-9.]+ (s|ms)\b", "TIME"),
        (r"\d+ (seconds?|minutes?) ago", "AGO"),
        // As long as the widest line.
        ("─+", "───"),
    ];
    insta::with_settings!({filters => filters, omit_expression => true}, { insta::assert_snapshot!(name, text); });
}

/// A mutation carries the record as a variable, and what it says about problems with status 200 is the record's fate.
#[test]
fn mutations_of_graphql() {
    let people: Arc<Mutex<Vec<Value>>> = Arc::default();
    let shared = people.clone();
    let api = StandIn::start(move |asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let input = body["variables"]["input"].clone();
        let problem = |message: &str| json!({"data": {"put": {"id": null, "problems": [{"message": message}]}}});
        Answer::json(&match (body["query"].as_str().is_some_and(|q| q.starts_with("mutation")), input["name"].as_str()) {
            (true, Some("")) => problem("name is blank"),
            (true, Some("Zed")) => json!({"data": null, "errors": [{"message": "Variable $input is invalid"}]}),
            (true, Some(_)) => {
                shared.lock().unwrap().push(input.clone());
                json!({"data": {"put": {"id": format!("gid://{}", input["email"].as_str().unwrap()), "problems": []}}})
            }
            _ => json!({"errors": [{"message": "no mutation"}]}),
        })
    });
    let bench = Bench::new("{into: Person, key: {email: email}, map: {name: name, score: score}}");
    bench.folder.write(
        "connectors/crm.yaml",
        &r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", http_method: GET}}
definitions: {to: {type: HttpRequester, url_base: $url, path: graphql}}
objects:
  - name: Person
    open: true
    operations:
      - operation: upsert
        requester:
          $ref: "#/definitions/to"
          http_method: POST
          request_body: {type: RequestBodyGraphQL, value: {query: "mutation ($input: PersonInput!) { put(input: $input) { id problems { message } } }"}}
        into: [variables, input]
        answers:
          failed: "{{ response.get('errors') or response['data']['put']['problems'] }}"
          message: "{{ (response.get('errors') or response['data']['put']['problems'])[0]['message'] }}"
          id: "{{ response['data']['put']['id'] }}"
spec: {type: Spec, connection_specification: {type: object, properties: {token: {type: string}}}}
"##
        .replace("$url", &api.url()),
    );
    bench.model("('a@x', 'Ann', 1), ('b@x', '', 2), ('c@x', 'Zed', 3)");
    let said = bench.folder.ok(&["run", "crm"]);
    assert_eq!(*people.lock().unwrap(), [json!({"email": "a@x", "name": "Ann", "score": 1.0})], "{}", said.all());
    let listed = bench.folder.ok(&["rejected", "list", "--json"]).out;
    assert!(listed.contains("name is blank") && listed.contains("Variable $input is invalid"), "{listed}");
}

/// Given rows, expected requests: nobody is asked, and the token is nowhere.
#[test]
fn a_mapping_has_unit_tests() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: out\n"),
        ("connections.yaml", "crm: {connector: crm, token: \"${CRM_TOKEN_THAT_IS_NOT_SET}\"}\n"),
    ]);
    folder.write("connectors/crm.yaml", &manifest("http://crm.invalid"));
    folder.write(
        "syncs/crm.yaml",
        "from: warehouse\nto: crm\nstreams:\n  marts.people: {into: Contact, key: {email: \"lower(email)\"}, map: {name: \"first || ' ' || last\", score: \"round(score, 1)\"}}\n",
    );
    let test = |name: &str| {
        format!(
            r#"
names are put together:
  node: crm/marts.people
  given:
    marts.people:
      - {{email: Ann@X, first: Ann, last: Lee, score: 1.24}}
      - {{email: ann@x, first: Ann, last: Lee, score: 1.24}}
      - {{email: null, first: None, last: None, score: 1}}
  expect:
    - method: POST
      url: http://crm.invalid/contacts/batch
      body: {{inputs: [{{id: ann@x, properties: {{email: ann@x, name: {name}, score: 1.2}}}}]}}
    - {{invalid: the key is NULL}}
    - {{invalid: "another row has the same key, so that nobody can tell which one counts"}}
"#
        )
    };
    folder.write("tests/crm.yaml", &test("Ann Lee"));
    folder.ok(&["test", "--unit"]);
    folder.write("tests/crm.yaml", &test("Anna Lee"));
    let said = folder.trib(&["test", "--unit"]);
    assert!(
        said.status == Some(4) && said.all().contains("row 1, body.inputs[0].properties.name: expected Anna Lee, got Ann Lee\n"),
        "{}",
        said.all()
    );
}
