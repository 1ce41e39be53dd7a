//! The example project, as somebody who tries it: alone, and with the stand-in CRM that comes with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::trib::{Folder, Said};

fn example() -> Folder {
    let folder = Folder::new();
    folder.ok(&["init", "--example", "."]);
    folder
}

/// `crm.py`, ended with the test.
struct Crm {
    process: Child,
    said: BufReader<ChildStdout>,
    address: String,
}

impl Crm {
    fn start(folder: &mut Folder) -> Self {
        let mut process = Command::new("python3").args(["crm.py", "0"]).current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("a CRM at http://").unwrap_or_else(|| panic!("{first}")).to_owned();
        folder.set("CRM_URL", &format!("http://{address}"));
        folder.set("DELIVER", "true");
        Self { process, said, address }
    }

    /// Its page.
    fn page(&self) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// What it has printed, when it is ended.
    fn end(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The last line of a run's JSON.
fn summary(said: &Said) -> Value {
    serde_json::from_str(said.out.trim_end().lines().last().unwrap()).unwrap()
}

#[test]
fn it_runs_as_it_is_and_moves_only_what_is_new() {
    let folder = example();
    folder.ok(&["validate"]);
    let formatted: Value = serde_json::from_str(&folder.ok(&["fmt", "--check", "--json"]).out).unwrap();
    assert_eq!(formatted["changed"], serde_json::json!([]));
    folder.ok(&["plan"]);
    let first = folder.ok(&["run"]);
    assert!(first.all().contains("25 created, 0 updated, 0 deleted") && first.all().contains("nothing is sent"), "{}", first.all());
    folder.ok(&["init", "--example-changes", "."]);
    let second = summary(&folder.ok(&["run", "--json"]));
    for stream in second["streams"].as_array().unwrap() {
        let read = stream["rows_read"].as_u64().unwrap();
        assert!(stream["read"] == "full" || read > 0 && read < 100, "{stream}");
    }
    let again = folder.trib(&["init", "--example", "."]);
    assert_eq!(again.status, Some(2), "{}", again.all());
}

#[test]
fn the_best_customers_go_into_the_crm() {
    let mut folder = example();
    let crm = Crm::start(&mut folder);
    folder.ok(&["check", "crm"]);
    folder.ok(&["run"]);
    let best =
        |folder: &Folder| folder.query("warehouse", "select customer_id from analytics.best_customers order by spent desc, customer_id");
    let kept = |page: &str| page.lines().skip(1).filter_map(|l| l.split_whitespace().next()?.parse::<u64>().ok()).collect::<Vec<_>>();
    let shown = |ids: &str| ids.split(';').map(|id| id.parse::<u64>().unwrap()).collect::<Vec<_>>();
    let page = crm.page();
    assert!(page.contains("25 contacts, 0 archived"), "{page}");
    let first = shown(&best(&folder));
    assert_eq!(kept(&page)[..25], first, "{page}");

    folder.ok(&["init", "--example-changes", "."]);
    folder.ok(&["run", "+crm"]);
    let page = crm.page();
    let second = shown(&best(&folder));
    let gone = first.iter().filter(|id| !second.contains(id)).count();
    assert!(gone > 0 && page.contains(&format!("25 contacts, {gone} archived")), "{page}");
    assert_eq!(kept(&page)[..25], second, "{page}");
    folder.ok(&["run", "crm"]);

    let said = crm.end();
    let came: Vec<usize> = said.lines().filter_map(|l| l.split_once(" contacts came")?.0.parse().ok()).collect();
    let changed: usize = came.iter().sum::<usize>() - 25;
    assert!(changed > 0 && changed < 25, "the second run sends what has changed, the third nothing: {said}");
    assert_eq!(said.matches("was archived").count(), gone, "{said}");
}

/// From the record at the CRM back to the source, and from a row to what became of it.
#[test]
fn what_went_out_can_be_traced() {
    let mut folder = example();
    let project = std::fs::read_to_string(folder.path().join("tributary.yaml")).unwrap();
    folder.write("tributary.yaml", &format!("{project}openlineage: {{file: events.jsonl}}\n"));
    // Nothing is asked of the CRM, so it need not be there yet.
    let said = folder.ok(&["lineage", "Contact.segment"]).out;
    assert!(said.contains("  ← analytics.best_customers.spent (crm, transformed)") && said.contains("← shop: orders.amount"), "{said}");
    let said = folder.ok(&["lineage", "shop.customers.name"]).out;
    assert!(said.contains("    → Contact.name (crm)"), "{said}");
    let said = folder.ok(&["lineage", "Contact"]).out;
    assert!(!said.contains("_trib"), "{said}");

    let crm = Crm::start(&mut folder);
    let model = std::fs::read_to_string(folder.path().join("models/best_customers.sql")).unwrap();
    folder.ok(&["run", "+best_customers"]);
    let best = folder.query("warehouse", "select customer_id from analytics.best_customers order by spent desc limit 2");
    let (first, second) = best.split_once(';').unwrap();
    let nameless = format!("  case c.id when {second} then '' else c.name end as name,");
    folder.write("models/best_customers.sql", &model.replace("  c.name,", &nameless));
    folder.ok(&["run", "best_customers+"]);
    assert!(crm.page().contains("24 contacts"), "{}", crm.page());

    let said = folder.ok(&["why", "best_customers", first]).out;
    let run = folder.ok(&["runs", "--json"]).out;
    let run: Value = serde_json::from_str(&run).unwrap();
    for shown in [
        &format!("→ Contact  customer_id = {first}"),
        "_fate delivered",
        &format!("_remote_id contact-{first}"),
        run[0]["id"].as_str().unwrap(),
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    let said = folder.ok(&["why", "best_customers", second]).out;
    assert!(said.contains("it is not delivered") && said.contains("rejected: a contact needs a name"), "{said}");
    let said = folder.ok(&["why", "Contact", first]).out;
    assert!(said.contains("_fate delivered") && said.contains(&format!("← analytics.best_customers  customer_id = {first}")), "{said}");
    let said = folder.trib(&["why", "Contact", "name=Nobody"]);
    assert!(said.status == Some(1) && said.all().contains("only its key is noted"), "{}", said.all());

    folder.ok(&["docs", "--out", "site"]);
    let page = std::fs::read_to_string(folder.path().join("site/tables/Contact.html")).unwrap();
    for shown in [
        "class=\"kind delivery\"",
        "24 delivered, 1 listed by",
        "segment: case when spent",
        "href=\"analytics.best_customers.html#spent\"",
        "crm.yaml</h2>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(std::fs::read_to_string(folder.path().join("site/index.html")).unwrap().contains("class=\"box delivery\""));

    let events = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent = events.iter().rfind(|e| e["job"]["name"] == "shop.crm" && e["eventType"] == "COMPLETE").unwrap();
    let (input, output) = (&sent["inputs"][0], &sent["outputs"][0]);
    assert_eq!((&output["name"], &output["namespace"]), (&Value::from("Contact"), &Value::from(format!("http://{}", crm.address))));
    assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 24);
    let from = &output["facets"]["columnLineage"]["fields"]["segment"]["inputFields"][0];
    assert_eq!((&from["name"], &from["field"]), (&input["name"], &Value::from("spent")));
    assert_eq!(from["transformations"][0]["subtype"], "TRANSFORMATION");
}
