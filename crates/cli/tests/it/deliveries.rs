//! From the lake into an API: what differs is sent, each record's fate is known, and a run that dies loses none of it.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use trib_testkit::chance::Chance;
use trib_testkit::vendor::{Trouble, Vendor};

use crate::trib::{Folder, Said};

const TOKEN: &str = "pl4nted-t0ken";

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

fn manifest(url: &str) -> String {
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

struct Bench {
    api: Vendor,
    folder: Folder,
}

impl Bench {
    fn new(stream: &str) -> Self {
        let api = crm();
        let mut folder =
            Folder::with(&[("tributary.yaml", "name: out\n"), ("connections.yaml", "crm: {connector: crm, token: \"${TOKEN}\"}\n")]);
        folder.write("connectors/crm.yaml", &manifest(&api.url()));
        folder.write("syncs/crm.yaml", &format!("from: warehouse\nto: crm\nstreams:\n  marts.people: {stream}\n"));
        folder.set("TOKEN", TOKEN);
        Self { api, folder }
    }

    /// The model gives these rows from now on.
    fn model(&self, rows: &str) {
        let sql = match rows {
            "" => "select '' as email, '' as name, cast(0 as double) as score where false".to_owned(),
            rows => format!("select column1 as email, column2 as name, cast(column3 as double) as score from (values {rows}) as v"),
        };
        self.folder.write("models/people.sql", &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
        self.folder.ok(&["run", "people"]);
    }

    fn many(&self, sql: &str) {
        self.folder.write("models/people.sql", &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
        self.folder.ok(&["run", "people"]);
    }

    /// Delivers; gives what was said and the keys of the records that the API took.
    fn deliver(&self, args: &[&str]) -> (Said, Vec<String>) {
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

    fn records(&self, collection: &str) -> Value {
        json!(self.api.kept().records.get(collection).cloned().unwrap_or_default())
    }
}

const UPSERT: &str = "{into: Contact, key: {email: email}, map: {name: name, score: score}}";

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
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken), (Some(0), ["b@x", "c@x", "d@x"].map(str::to_owned).to_vec()), "{}", said.all());
    assert_eq!(bench.records("contacts").as_object().unwrap().keys().collect::<Vec<_>>(), ["a@x", "b@x", "d@x"]);

    let (said, taken) = bench.deliver(&["--full-refresh"]);
    assert_eq!((said.status, taken.len()), (Some(0), 3), "everything is sent again: {}", said.all());
    assert!(bench.api.refusals().is_empty(), "{:?}", bench.api.refusals());
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

/// Limits, failures and cut connections: what can be sent again safely arrives, once where the API can tell; the rest is told.
#[test]
fn trouble_on_the_way_loses_nothing() {
    let rows = "select 'p' || value || '@x' as email, 'N' as name, cast(value as double) as score from (select unnest(generate_series(1, 300)) as value)";
    for (stream, collection) in [
        (UPSERT, "contacts"),
        ("{into: Task, key: {title: email}, map: {}, write: insert}", "tasks"),
        ("{into: Note, key: {title: email}, map: {}, write: insert}", "notes"),
    ] {
        let bench = Bench::new(stream);
        bench.many(rows);
        bench.api.trouble(7, Trouble { limited: 20, failed: 20, cut: 30 });
        let (said, taken) = bench.deliver(&[]);
        assert_eq!(said.status, Some(0), "{collection}: {}", said.all());
        let listed = bench.folder.ok(&["rejected", "list", "--json"]);
        let told = listed.out.matches("nobody knows whether it arrived").count();
        let once: std::collections::BTreeSet<&String> = taken.iter().collect();
        match collection {
            // Sent again after a cut, and the same afterwards.
            "contacts" => assert_eq!((once.len(), told), (300, 0), "{}", listed.all()),
            "tasks" => assert_eq!((once.len(), taken.len(), told), (300, 300, 0), "an idempotency key lets each be made once"),
            // Without one, a cut or a failure leaves it open, and nothing is made twice.
            _ => {
                assert!(taken.len() == once.len() && told > 0 && once.len() + told >= 300, "{} {told}: {}", taken.len(), listed.all());
            }
        }
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 0), "{collection}: nothing is sent again: {}", said.all());
    }
}

/// The process dies at random moments of a delivery: in the end the API has what the model has.
#[test]
fn a_killed_delivery_goes_on_where_it_was() {
    let kills: u64 = std::env::var("TRIB_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(3);
    let bench = Bench::new(UPSERT);
    let mut chance = Chance::new(11);
    for round in 0..kills {
        bench.many(&format!(
            "select 'p' || value || '@x' as email, 'N{round}' as name, cast(value as double) as score from (select unnest(generate_series(1, 400)) as value)"
        ));
        let mut child = bench.folder.command(&["run", "crm"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // When so many calls were made, whatever the machine's speed.
        let calls = chance.below(38);
        let begun = std::time::Instant::now();
        while bench.api.counts().0 < calls && child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (said, _) = bench.deliver(&[]);
        assert_eq!(said.status, Some(0), "{}", said.all());
        let records = bench.records("contacts");
        let records = records.as_object().unwrap();
        assert!(records.len() == 400 && records.values().all(|r| r["name"] == format!("N{round}")), "round {round}, {calls} calls");
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 0), "{}", said.all());
    }
}

/// Credentials that are revoked in the middle: the run ends with what is wrong, and goes on when it is mended.
#[test]
fn revoked_credentials_end_the_run_and_the_next_goes_on() {
    let bench = Bench::new(UPSERT);
    bench.model("('a@x', 'Ann', 1)");
    bench.folder.write("connections.yaml", "crm: {connector: crm, token: wrong-t0ken}\n");
    let (said, taken) = bench.deliver(&[]);
    assert!(said.status.is_some_and(|s| s > 0) && taken.is_empty(), "{}", said.all());
    assert!(said.all().contains("does not accept the credentials") && !said.all().contains("wrong-t0ken"), "{}", said.all());
    bench.folder.write("connections.yaml", "crm: {connector: crm, token: \"${TOKEN}\"}\n");
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken.len()), (Some(0), 1), "{}", said.all());
}
