//! Bulk jobs, as Salesforce's Bulk API 2.0 has them: <https://developer.salesforce.com/docs/platform/api-asynch/guide/bulk-api-2-0-ingest.html>;
//! and jobs of JSON lines.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use trib_testkit::stand_in::{Answer, Asked, StandIn};

use crate::trib::Folder;

const ROWS: usize = 2500;

#[derive(Default)]
struct Org {
    jobs: Vec<Job>,
    contacts: BTreeMap<String, String>,
    /// Records that jobs have worked on.
    processed: usize,
    asked: usize,
}

#[derive(Default)]
struct Job {
    state: &'static str,
    data: Option<String>,
    taken: String,
    refused: String,
    polls: usize,
}

impl Org {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.path.ends_with("/oauth2/token") {
            return Answer::json(&json!({"access_token": "00D-session", "instance_url": "unused"}));
        }
        // https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
        if asked.path.ends_with("/sobjects/Contact/describe") {
            return Answer::json(&described());
        }
        self.asked += 1;
        if asked.header("authorization") != Some("Bearer 00D-session") {
            return Answer::status(401);
        }
        let refuse = |why: &str| Answer::text(400, &json!([{"errorCode": "INVALIDJOB", "message": why}]).to_string());
        let Some(path) = asked.path.strip_prefix("/services/data/v62.0/jobs/ingest") else { return refuse("no bulk job") };
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let path: Vec<&str> = path.trim_matches('/').split('/').collect();
        if (asked.method.as_str(), path[0]) == ("POST", "") {
            let wanted = json!({
                "object": "Contact", "operation": "upsert", "externalIdFieldName": "Email__c", "contentType": "CSV", "columnDelimiter": "COMMA",
                "lineEnding": "LF",
            });
            if body != wanted {
                return refuse(&body.to_string());
            }
            self.jobs.push(Job { state: "Open", ..Job::default() });
            return Answer::json(&json!({"id": format!("750{}", self.jobs.len() - 1), "state": "Open"}));
        }
        let Some(job) = path[0].strip_prefix("750").and_then(|n| self.jobs.get_mut(n.parse::<usize>().ok()?)) else {
            return Answer::text(404, "[]");
        };
        match (asked.method.as_str(), path.get(1).copied()) {
            ("PUT", Some("batches")) if job.state == "Open" && job.data.is_none() && asked.header("content-type") == Some("text/csv") => {
                job.data = Some(asked.body.clone());
                Answer::text(201, "")
            }
            ("PATCH", None) if job.state == "Open" && body == json!({"state": "UploadComplete"}) => {
                job.state = "UploadComplete";
                let data = job.data.clone().unwrap_or_default();
                let mut lines = data.lines();
                let header = lines.next().unwrap_or_default();
                (job.taken, job.refused) =
                    (format!("\"sf__Id\",\"sf__Created\",{header}\n"), format!("\"sf__Id\",\"sf__Error\",{header}\n"));
                // What is related is named by its external id: https://developer.salesforce.com/docs/platform/api-asynch/guide/datafiles-csv-rel-field-header-row.html
                assert_eq!(header, "Email__c,LastName,Score__c,Team__r.Number__c");
                for line in lines {
                    self.processed += 1;
                    let (email, name) = line.split_once(',').unwrap();
                    if name.starts_with("#N/A") {
                        job.refused +=
                            &format!("\"\",\"REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --\",{line}\n");
                    } else {
                        self.contacts.insert(email.to_owned(), name.to_owned());
                        job.taken += &format!("\"003{email}\",\"true\",{line}\n");
                    }
                }
                Answer::json(&json!({"state": job.state}))
            }
            ("GET", None) => {
                job.polls += usize::from(job.state != "Open");
                job.state = match job.polls {
                    0 => "Open",
                    1 => "InProgress",
                    _ => "JobComplete",
                };
                Answer::json(&json!({"state": job.state}))
            }
            ("GET", Some("successfulResults")) if job.state == "JobComplete" => {
                Answer::text(200, &job.taken).header("Content-Type", "text/csv")
            }
            ("GET", Some("failedResults")) if job.state == "JobComplete" => {
                Answer::text(200, &job.refused).header("Content-Type", "text/csv")
            }
            _ => refuse(&format!("{} {} while it is {}", asked.method, asked.path, job.state)),
        }
    }
}

fn described() -> Value {
    let field = |name: &str, kind: &str, required: bool, relationship: Value| {
        let to: Vec<&str> = relationship.as_str().map(|_| "Team__c").into_iter().collect();
        json!({
            "name": name, "type": kind, "length": 0, "nillable": !required, "createable": true, "updateable": true, "defaultedOnCreate": false,
            "externalId": name == "Email__c", "idLookup": name == "Email__c", "relationshipName": relationship, "referenceTo": to,
        })
    };
    json!({"name": "Contact", "fields": [
        field("Email__c", "email", false, Value::Null),
        field("LastName", "string", true, Value::Null),
        field("Score__c", "double", false, Value::Null),
        field("Team__c", "reference", true, json!("Team__r")),
    ]})
}

/// The first delivery goes in one job. Later ones are killed after each of its requests: no record is worked on twice, and none is lost.
#[test]
fn a_bulk_job_survives_a_crash_between_any_two_steps() {
    let org: Arc<Mutex<Org>> = Arc::default();
    let shared = org.clone();
    let api = StandIn::start(move |asked| shared.lock().unwrap().answer(asked));
    let folder = Folder::with(&[
        ("tributary.yaml", "name: out\n"),
        (
            "connections.yaml",
            &format!("sf: {{connector: salesforce, domain: x, client_id: us, client_secret: s3cret, api_url: \"{}\"}}\n", api.url()),
        ),
        (
            "syncs/sf.yaml",
            "from: warehouse\nto: sf\nstreams:\n  marts.people: {into: Contact, key: {Email__c: email}, map: {LastName: name, Score__c: score, Team__r.Number__c: team}}\n",
        ),
    ]);
    let counts = || {
        let org = org.lock().unwrap();
        (org.asked, org.processed)
    };
    let model = |name: &str| {
        folder.write("models/people.sql", &format!(
            "/*---\nschema: marts\n---*/\nselect 'p' || value || '@x' as email, case value when 7 then null else '{name}' end as name, value * 0.5 as score, 't' || (value % 9) as team from (select unnest(generate_series(1, {ROWS})) as value)"
        ));
        folder.ok(&["run", "people"]);
    };
    model("N0");
    folder.ok(&["run", "sf"]);
    // Made, filled, closed, asked after twice, two results.
    assert_eq!(counts(), (7, ROWS));
    let listed = folder.ok(&["rejected", "list", "--json"]);
    assert!(listed.out.contains("REQUIRED_FIELD_MISSING") && listed.out.contains("p7@x"), "{}", listed.all());
    assert_eq!(org.lock().unwrap().contacts["p8@x"], "N0,4.0,t8");

    for step in 1..=7 {
        model(&format!("N{step}"));
        let before = counts();
        let mut child = folder.command(&["run", "sf"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = std::time::Instant::now();
        while org.lock().unwrap().asked < before.0 + step
            && child.try_wait().unwrap().is_none()
            && begun.elapsed() < Duration::from_secs(120)
        {
            thread::sleep(Duration::from_micros(100));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        folder.ok(&["run", "sf"]);
        let org = org.lock().unwrap();
        assert_eq!(org.processed - before.1, ROWS, "killed after request {step}");
        let right = org.contacts.values().filter(|v| v.starts_with(&format!("N{step},"))).count();
        assert_eq!(right, ROWS - 1, "killed after request {step}");
    }
}

/// Jobs of JSON lines: the lines that each was given, and how often it was asked after since it was closed.
#[derive(Default)]
struct Lines {
    jobs: Vec<(Vec<Value>, Option<usize>)>,
    people: BTreeMap<String, Value>,
    wrong: Vec<String>,
}

impl Lines {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        if (asked.method.as_str(), path.as_slice()) == ("POST", &["jobs"]) {
            self.jobs.push((Vec::new(), None));
            return Answer::json(&json!({"job": {"number": self.jobs.len() - 1}}));
        }
        let job = path.get(1).and_then(|n| self.jobs.get_mut(n.parse::<usize>().ok()?));
        let (Some(&"jobs"), Some((lines, polls))) = (path.first(), job) else { return Answer::text(404, "{}") };
        match (asked.method.as_str(), path.get(2).copied()) {
            ("PUT", Some("lines")) if polls.is_none() && asked.header("content-type") == Some("application/x-ndjson") => {
                *lines = asked.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                if !asked.body.ends_with('\n') {
                    self.wrong.push("the last line does not end".to_owned());
                }
                Answer::json(&json!({}))
            }
            ("POST", Some("run")) if polls.is_none() => {
                *polls = Some(0);
                for line in lines.iter().filter(|line| !line["name"].is_null()) {
                    if self.people.insert(line["email"].as_str().unwrap().to_owned(), line.clone()).is_some() {
                        self.wrong.push(format!("twice: {line}"));
                    }
                }
                Answer::json(&json!({}))
            }
            ("GET", None) => {
                *polls = polls.map(|polls| polls + 1);
                Answer::json(&json!({"status": match polls { None => "new", Some(1) => "busy", Some(_) => "ended" }}))
            }
            ("GET", Some(which)) if polls.is_some_and(|polls| polls > 1) => {
                let mine = lines.iter().filter(|line| line["name"].is_null() == (which == "errors"));
                let told = mine.map(|line| {
                    json!({"ref": line["email"], "id": format!("p-{}", line["score"]), "error": "name: is required"}).to_string()
                });
                Answer::text(200, &told.collect::<Vec<_>>().join("\n")).header("Content-Type", "application/x-ndjson")
            }
            _ => {
                self.wrong.push(format!("{} {}", asked.method, asked.path));
                Answer::text(400, "{}")
            }
        }
    }
}

const OF_LINES: &str = r##"
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/to", path: jobs}}
definitions:
  to: {type: HttpRequester, url_base: $url}
  results:
    type: SimpleRetriever
    requester: {$ref: "#/definitions/to"}
    decoder: {type: JsonlDecoder}
    record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: []}}
objects:
  - name: Person
    keys: [[email]]
    open: true
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/to", path: people, http_method: POST}
        job:
          format: jsonl
          max_records: 40
          create: {$ref: "#/definitions/to", path: jobs, http_method: POST}
          upload: {$ref: "#/definitions/to", path: "jobs/{{ job['job']['number'] }}/lines", http_method: PUT, request_headers: {Content-Type: application/x-ndjson}}
          close: {$ref: "#/definitions/to", path: "jobs/{{ job['job']['number'] }}/run", http_method: POST}
          poll: {$ref: "#/definitions/to", path: "jobs/{{ job['job']['number'] }}"}
          status: "{{ response['status'] }}"
          open: [new]
          completed: [ended]
          record_key: "{{ record['email'] }}"
          result_key: "{{ result['ref'] }}"
          taken: {id: "{{ result['id'] }}", retriever: {$ref: "#/definitions/results", requester: {$ref: "#/definitions/to", path: "jobs/{{ job['job']['number'] }}/done"}}}
          refused: {message: "{{ result['error'] }}", retriever: {$ref: "#/definitions/results", requester: {$ref: "#/definitions/to", path: "jobs/{{ job['job']['number'] }}/errors"}}}
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
"##;

/// A hundred records in three jobs, two of them at a time: numbers keep their digits, each record goes once, and what a job refuses is listed with its reason.
#[test]
fn a_job_takes_json_lines() {
    let lines: Arc<Mutex<Lines>> = Arc::default();
    let shared = lines.clone();
    let api = StandIn::start(move |asked| shared.lock().unwrap().answer(asked));
    let folder = Folder::with(&[
        ("tributary.yaml", "name: out\n"),
        ("connections.yaml", "book: {connector: book}\n"),
        ("syncs/book.yaml", "from: warehouse\nto: book\nstreams:\n  marts.people: {into: Person, key: {email: email}, map: {name: name, score: score}}\n"),
        (
            "models/people.sql",
            "/*---\nschema: marts\n---*/\nselect 'p' || value || '@x' as email, case when value % 50 <> 7 then 'Zoë \"' || value || '\"' end as name,
             cast('12345678901234567890.05' as decimal(30, 2)) + value as score from (select unnest(generate_series(1, 100)) as value)\n",
        ),
    ]);
    folder.write("connectors/book.yaml", &OF_LINES.replace("$url", &api.url()));
    folder.ok(&["run", "people"]);
    let said = folder.ok(&["run", "book"]);
    let listed = folder.ok(&["rejected", "list", "--json"]).out;
    let lines = lines.lock().unwrap();
    assert!(lines.wrong.is_empty(), "{:?}", lines.wrong);
    assert_eq!((lines.people.len(), lines.jobs.len()), (98, 3), "{}", said.all());
    let sent: String = api.take().iter().filter(|a| a.method == "PUT").map(|a| a.body.clone()).collect();
    assert!(sent.contains("{\"email\":\"p3@x\",\"name\":\"Zoë \\\"3\\\"\",\"score\":12345678901234567893.05}"), "{sent}");
    assert_eq!(listed.matches("name: is required").count(), 2, "{listed}");
    assert!(listed.contains("p7@x") && listed.contains("p57@x"), "{listed}");
}
