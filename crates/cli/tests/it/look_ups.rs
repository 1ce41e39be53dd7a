//! Deliveries that ask first: records that the API has already, records that others point to, fields that have a value.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use trib_testkit::chance::Chance;
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::{Folder, Said};

/// People by an identifier of the API's own, of whom it makes as many as it is told; companies that nobody writes to.
#[derive(Default)]
struct Directory {
    people: BTreeMap<String, Value>,
    writes: usize,
    look_ups: usize,
    /// At first, every third new person is made, or not, and nobody is told: the connection is cut, or the answer is 500.
    unreliable: bool,
    tried: BTreeSet<String>,
}

impl Directory {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        match (asked.method.as_str(), path.as_slice()) {
            ("GET", ["companies"]) => {
                self.look_ups += 1;
                let found = match asked.param("domain").as_deref() {
                    Some("acme.com") => json!([{"number": 7, "domain": "acme.com"}]),
                    Some("twice.com") => json!([{"number": 8, "domain": "twice.com"}, {"number": 9, "domain": "twice.com"}]),
                    _ => json!([]),
                };
                Answer::json(&json!({"results": found}))
            }
            // Two a page.
            ("POST", ["people", "search"]) => {
                self.look_ups += 1;
                let asked: Vec<&Value> = body["emails"].as_array().unwrap().iter().collect();
                assert!(asked.len() <= 5, "{body}");
                let found: Vec<Value> = self
                    .people
                    .iter()
                    .filter(|(_, p)| asked.contains(&&p["email"]))
                    .map(|(id, p)| json!({"id": id, "fields": p}))
                    .collect();
                let from = body["after"].as_u64().unwrap_or(0) as usize;
                let page: Vec<&Value> = found.iter().skip(from).take(2).collect();
                let next = if from + 2 < found.len() { json!(from + 2) } else { Value::Null };
                Answer::json(&json!({"results": page, "next": next}))
            }
            ("POST", ["people"]) => {
                self.writes += 1;
                let first = self.tried.insert(body["email"].to_string());
                let (made, told) = match (self.unreliable && first, self.tried.len() % 6) {
                    (true, 3) => (true, Answer::cut()),
                    (true, 0) => (false, Answer::status(500)),
                    _ => (true, Answer::json(&json!({"id": format!("p{}", self.people.len())}))),
                };
                if made {
                    self.people.insert(format!("p{}", self.people.len()), body);
                }
                told
            }
            ("PATCH", ["people", id]) => match self.people.get_mut(*id).and_then(Value::as_object_mut) {
                Some(person) => {
                    self.writes += 1;
                    person.extend(body.as_object().unwrap().clone());
                    Answer::json(&json!({}))
                }
                None => Answer::text(404, r#"{"message": "there is no such person"}"#),
            },
            ("DELETE", ["people", id]) if self.people.remove(*id).is_some() => Answer::json(&json!({})),
            _ => Answer::text(404, r#"{"message": "there is no such thing"}"#),
        }
    }
}

const MANIFEST: &str = r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", path: companies}}
definitions: {to: {type: HttpRequester, url_base: $url}}
concurrency_level: {type: ConcurrencyLevel, default_concurrency: 3}
objects:
  - name: Person
    keys: [[email]]
    fields: {email: {type: string}, name: {type: string}, phone: {type: string}, company: {type: integer}}
    look_up:
      retriever:
        requester: {$ref: "#/definitions/to", path: people/search, http_method: POST, request_body_json: {emails: "{{ values }}"}}
        record_selector: {extractor: {field_path: [results]}}
        paginator:
          type: DefaultPaginator
          page_token_option: {type: RequestOption, inject_into: body_json, field_name: after}
          pagination_strategy: {type: CursorPagination, cursor_value: "{{ response['next'] }}", stop_condition: "{{ not response['next'] }}"}
      record_key: "{{ record['email'] }}"
      result_key: "{{ result['fields']['email'] }}"
      id: "{{ result['id'] }}"
      fields: [fields]
      max_records: 5
    operations:
      - {operation: insert, requester: {$ref: "#/definitions/to", path: people, http_method: POST}, answers: {id: "{{ response['id'] }}"}}
      - {operation: update, requester: {$ref: "#/definitions/to", path: "people/{{ id }}", http_method: PATCH}, needs_id: true, fields: changed}
      - {operation: delete, requester: {$ref: "#/definitions/to", path: "people/{{ id }}", http_method: DELETE}, needs_id: true}
  - name: Company
    keys: [[domain]]
    look_up:
      retriever:
        requester: {$ref: "#/definitions/to", path: companies, request_parameters: {domain: "{{ values[0] }}"}}
        record_selector: {extractor: {field_path: [results]}}
      record_key: "{{ record['domain'] }}"
      result_key: "{{ result['domain'] }}"
      id: "{{ result['number'] }}"
    operations:
      - {operation: update, requester: {$ref: "#/definitions/to", path: "companies/{{ id }}", http_method: PATCH}, needs_id: true}
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
"##;

struct Bench {
    _api: StandIn,
    directory: Arc<Mutex<Directory>>,
    folder: Folder,
}

impl Bench {
    fn new(stream: &str) -> Self {
        let directory: Arc<Mutex<Directory>> = Arc::default();
        let shared = directory.clone();
        let api = StandIn::start(move |asked| shared.lock().unwrap().answer(asked));
        let folder = Folder::with(&[("tributary.yaml", "name: out\n"), ("connections.yaml", "book: {connector: book}\n")]);
        folder.write("connectors/book.yaml", &MANIFEST.replace("$url", &api.url()));
        folder.write("syncs/book.yaml", &format!("from: warehouse\nto: book\nstreams:\n  marts.people: {stream}\n"));
        Self { _api: api, directory, folder }
    }

    fn model(&self, columns: &str, rows: &str) {
        let list = columns.split(", ").enumerate().map(|(i, name)| format!("column{} as {name}", i + 1)).collect::<Vec<_>>();
        self.sql(&format!("select {} from (values {rows}) as v", list.join(", ")));
    }

    fn sql(&self, sql: &str) {
        self.folder.write("models/people.sql", &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
        self.folder.ok(&["run", "people"]);
    }

    fn has(&self, people: Value) {
        let people = people.as_array().unwrap().iter().enumerate().map(|(i, p)| (format!("p{i}"), p.clone())).collect();
        self.directory.lock().unwrap().people = people;
    }

    /// Delivers; gives what was said, and how many writes and look-ups it took.
    fn deliver(&self) -> (Said, usize, usize) {
        let counts = || {
            let directory = self.directory.lock().unwrap();
            (directory.writes, directory.look_ups)
        };
        let before = counts();
        let said = self.folder.ok(&["run", "book"]);
        let after = counts();
        (said, after.0 - before.0, after.1 - before.1)
    }

    fn people(&self) -> Vec<Value> {
        let mut people: Vec<Value> = self.directory.lock().unwrap().people.values().cloned().collect();
        people.sort_by_key(|p| p["email"].to_string());
        people
    }

    fn rejected(&self) -> String {
        self.folder.ok(&["rejected", "list", "--json"]).out
    }
}

#[test]
fn what_the_api_has_already_is_not_made_again() {
    let bench = Bench::new("{into: Person, key: {email: email}, map: {name: name}, deletes: {apply: delete}}");
    // Two pages of matches, two requests for seven keys; one of the people is there twice.
    let there = ["a@x", "b@x", "c@x", "d@x", "d@x"].map(|email| json!({"email": email, "name": "Old", "phone": "1"}));
    bench.has(json!(there));
    let rows = ["a@x", "b@x", "c@x", "d@x", "e@x", "f@x", "g@x"].map(|email| format!("('{email}', 'New')")).join(", ");
    bench.model("email, name", &rows);
    let said = bench.folder.ok(&["plan", "book"]);
    assert!(said.out.contains("7 created"), "{}", said.all());
    let (said, writes, look_ups) = bench.deliver();
    assert!(writes == 6 && (3..=4).contains(&look_ups), "{writes} {look_ups}: {}", said.all());
    assert!(bench.rejected().contains("the API has 2 records with this key"), "{}", bench.rejected());
    let emails: Vec<String> = bench.people().iter().map(|p| format!("{} {}", p["email"], p["name"])).collect();
    assert_eq!(emails.len(), 8, "{emails:?}");
    assert_eq!(emails.iter().filter(|e| e.contains("New")).count(), 6, "{emails:?}");

    // What was found is remembered: nothing is asked again but for the one that was refused.
    bench.model("email, name", &rows.replace("('a@x', 'New')", "('a@x', 'Newer')").replace(", ('b@x', 'New')", ""));
    let (said, writes, look_ups) = bench.deliver();
    assert_eq!((writes, look_ups), (1, 1), "{}", said.all());
    let people = bench.people();
    assert_eq!(people[0], json!({"email": "a@x", "name": "Newer", "phone": "1"}));
    assert!(people.iter().all(|p| p["email"] != "b@x"), "it was deleted by what the look-up has told");
}

#[test]
fn insert_leaves_what_is_there() {
    let bench = Bench::new("{into: Person, key: {email: email}, map: {name: name}, write: insert}");
    bench.has(json!([{"email": "a@x", "name": "Old"}]));
    bench.model("email, name", "('a@x', 'New'), ('b@x', 'New')");
    let (said, writes, _) = bench.deliver();
    assert_eq!((writes, bench.people()[0]["name"].as_str()), (1, Some("Old")), "{}", said.all());
    assert_eq!(bench.deliver().1, 0);
}

#[test]
fn fields_may_name_other_records_by_their_keys() {
    let rows = "('a@x', 'acme.com'), ('b@x', 'acme.com'), ('c@x', 'gone.com'), ('d@x', 'twice.com'), ('e@x', null)";
    let bench = Bench::new("{into: Person, key: {email: email}, map: {company: {value: domain, lookup: Company}}}");
    bench.model("email, domain", rows);
    let said = bench.folder.ok(&["preview", "book", "--row", "a@x"]);
    assert!(said.out.contains("what the API calls the Company acme.com"), "{}", said.all());
    let (said, writes, look_ups) = bench.deliver();
    assert_eq!((writes, look_ups), (3, 3 + 1), "each company is asked after once: {}", said.all());
    let companies: Vec<Value> = bench.people().iter().map(|p| p["company"].clone()).collect();
    assert_eq!(companies, [json!(7), json!(7), Value::Null]);
    let rejected = bench.rejected();
    for reason in ["the API has no Company with the key gone.com", "the API has 2 Company with the key twice.com"] {
        assert!(rejected.contains(reason), "{reason}: {rejected}");
    }

    let bench = Bench::new("{into: Person, key: {email: email}, map: {company: {value: domain, lookup: Company, on_miss: skip}}}");
    bench.model("email, domain", rows);
    assert_eq!(bench.deliver().1, 5);
    assert_eq!(bench.people()[2], json!({"email": "c@x"}));

    for (map, says) in [
        ("{company: {value: domain, lookup: Compny}}", "did you mean `Company`?"),
        ("{company: {value: domain, on_mis: skip}}", "on_miss"),
        ("{company: {lookup: Company}}", "value"),
    ] {
        bench.folder.write(
            "syncs/book.yaml",
            &format!("from: warehouse\nto: book\nstreams:\n  marts.people: {{into: Person, key: {{email: email}}, map: {map}}}\n"),
        );
        let said = bench.folder.trib(&["run", "book"]);
        assert!(said.status.is_some_and(|s| s > 0) && said.all().contains(says), "{map}: {}", said.all());
    }
}

#[test]
fn a_field_may_be_set_where_it_is_empty() {
    let bench = Bench::new("{into: Person, key: {email: email}, map: {name: name, phone: {value: phone, set: if_empty}}}");
    bench.has(json!([{"email": "a@x", "name": "Old", "phone": "1"}, {"email": "b@x", "name": "Old", "phone": ""}]));
    bench.model("email, name, phone", "('a@x', 'New', '9'), ('b@x', 'New', '9'), ('c@x', 'New', '9')");
    let (said, writes, _) = bench.deliver();
    assert_eq!(writes, 3, "{}", said.all());
    let phones: Vec<(Value, Value)> = bench.people().iter().map(|p| (p["name"].clone(), p["phone"].clone())).collect();
    assert_eq!(phones, ["1", "9", "9"].map(|phone| (json!("New"), json!(phone))));
    // Nothing but the phone has changed, and there is one.
    bench.model("email, name, phone", "('a@x', 'New', '8'), ('b@x', 'New', '9'), ('c@x', 'New', '9')");
    assert_eq!(bench.deliver().1, 0);
    assert_eq!(bench.people()[0]["phone"], "1");
    assert_eq!(bench.deliver().1, 0, "and it is not tried again");
}

/// An API without idempotency: calls that nobody answers, and a process that dies, make nothing twice and lose nothing.
#[test]
fn what_may_have_arrived_is_looked_up() {
    let kills: u64 = std::env::var("TRIB_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(2);
    let bench = Bench::new("{into: Person, key: {email: email}, map: {}, write: insert}");
    let rows = |from: u64, to: u64| {
        bench.sql(&format!("select 'p' || value || '@x' as email from (select unnest(generate_series({from}, {to})) as value)"));
    };
    let once = |of: usize, what: &str| {
        let people = bench.people();
        let distinct: BTreeSet<String> = people.iter().map(|p| p["email"].to_string()).collect();
        assert_eq!((people.len(), distinct.len()), (of, of), "{what}");
        let rejected = bench.rejected();
        assert!(!rejected.contains("nobody knows"), "{what}: {rejected}");
    };
    bench.directory.lock().unwrap().unreliable = true;
    rows(1, 60);
    bench.deliver();
    once(60, "answers were lost");

    bench.directory.lock().unwrap().unreliable = false;
    let mut chance = Chance::new(5);
    for round in 1..=kills {
        rows(1, 60 + round * 60);
        let before = bench.directory.lock().unwrap().writes;
        let mut child = bench.folder.command(&["run", "book"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (at, begun) = (before + chance.below(60) as usize, std::time::Instant::now());
        while bench.directory.lock().unwrap().writes < at
            && child.try_wait().unwrap().is_none()
            && begun.elapsed() < Duration::from_secs(60)
        {
            thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        bench.deliver();
        once(60 + round as usize * 60, &format!("killed after {at} writes"));
    }
}
