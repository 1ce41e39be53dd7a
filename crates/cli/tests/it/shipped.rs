//! Each manifest that ships with Tributary, against a stand-in for its vendor: checked, discovered, loaded into the lake, and loaded again.
//!
//! A stand-in is a file of `tests/stand_ins` ([`trib_testkit::vendor`] says how to read one), with the `settings` of a connection, what is to be
//! expected of both runs, and what a connection with wrong credentials is told (`refused`).

use std::path::Path;
use std::thread;

use serde_json::{Map, Value, json};
use trib_connectors::manifest::{SHIPPED, Shipped};
use trib_core::delivery::Object;
use trib_core::{Connector, Context};
use trib_testkit::vendor::Vendor;

use crate::trib::{Folder, Said};

/// In the place of each vendor's token.
const TOKEN: &str = "pl4nted-t0ken";

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) document: Value,
    pub(crate) vendor: Vendor,
    pub(crate) folder: Folder,
}

impl Case {
    fn new(shipped: &Shipped) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_ins").join(format!("{}.yaml", shipped.name));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let document = trib_project::yaml::parse(&file.display().to_string(), &text, 1).unwrap_or_else(|e| panic!("{e:?}")).to_json();
        let vendor = Vendor::start(document.clone());
        let mut folder = Folder::with(&[("tributary.yaml", "name: shipped\n")]);
        folder.set("TOKEN", TOKEN);
        folder.set("WRONG", "wr0ng-token");
        if std::env::var_os("TRIB_STAND_IN").is_some() {
            // As it stands now, so that nothing has to be built to try a change.
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../connectors/manifests").join(format!("{}.yaml", shipped.name));
            folder.write(&format!("connectors/{}.yaml", shipped.name), &std::fs::read_to_string(file).unwrap());
        }
        let case = Self { name: shipped.name, document, vendor, folder };
        let settings = case.settings(&case.document["settings"], "${TOKEN}");
        let mut connections = json!({case.name: settings});
        if let Some(wrong) = case.document["refused"].as_object() {
            let mut settings = case.settings(wrong.get("settings").unwrap_or(&case.document["settings"]), "${WRONG}");
            if !settings.to_string().contains(&case.vendor.url()) {
                settings["api_url"] = case.vendor.url().into();
            }
            connections["wrong"] = settings;
        }
        case.folder.write("connections.yaml", &connections.to_string());
        case
    }

    /// A connection of the connector, with the stand-in's address and the token where the document says so.
    fn settings(&self, settings: &Value, token: &str) -> Value {
        let text = settings.to_string().replace("$url", &self.vendor.url()).replace("$token", token);
        let mut settings: Map<String, Value> = serde_json::from_str(&text).unwrap();
        settings.insert("connector".into(), self.name.into());
        settings.insert("threads".into(), 1.into());
        settings.into()
    }

    pub(crate) fn trib(&self, args: &[&str]) -> Said {
        let said = self.folder.trib(args);
        assert!(!said.all().contains(TOKEN), "{}: trib {} shows the token: {}", self.name, args.join(" "), said.all());
        said
    }

    pub(crate) fn trib_well(&self, args: &[&str]) -> Said {
        let said = self.trib(args);
        let refusals = self.vendor.refusals();
        assert!(
            said.status == Some(0) && refusals.is_empty(),
            "{}: trib {}: {}\nrefused: {refusals:#?}",
            self.name,
            args.join(" "),
            said.all()
        );
        said
    }

    /// Reads each stream in the best way that it offers. Gives the catalog.
    fn write_sync(&self) -> Value {
        let said = self.trib_well(&["discover", self.name, "--json"]);
        let catalog: Value = serde_json::from_str(&said.out).unwrap();
        let mut streams = Map::new();
        for stream in catalog.as_array().unwrap() {
            let name = stream["name"].as_str().unwrap();
            assert!(!stream["primary_key"].as_array().unwrap().is_empty(), "{}: {name} has no key", self.name);
            let sync = match stream["cursors"][0].as_str() {
                Some(cursor) => json!({"read": "incremental", "write": "upsert", "cursor": cursor}),
                None => json!({"read": "full", "write": "replace"}),
            };
            streams.insert(name.to_owned(), sync);
        }
        let sync = json!({"from": self.name, "into": "raw.{table}", "streams": streams});
        self.folder.write("syncs/all.yaml", &sync.to_string());
        catalog
    }

    fn run(&self, phase: &str) {
        let expected = &self.document["expect"][phase];
        self.vendor.begin(phase == "second");
        let said = self.trib_well(&["run", "--json"]);
        let summary = said.out.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|v| v["event"] == "summary"));
        let summary = summary.unwrap_or_else(|| panic!("{}", said.all()));
        let number = |name: &str| -> Map<String, Value> {
            let streams = summary["streams"].as_array().into_iter().flatten();
            streams.map(|s| (s["stream"].as_str().unwrap_or_default().to_owned(), s[name].clone())).collect()
        };
        let mut rows = number("rows_read");
        rows.sort_keys();
        let mut wanted = expected["rows"].as_object().unwrap().clone();
        wanted.sort_keys();
        assert_eq!(rows, wanted, "{}, {phase} run: rows", self.name);
        assert!(number("rejected").values().all(|n| n == 0), "{}, {phase} run: {}", self.name, said.all());
        let limited =
            u64::from(self.document["limit"]["request"].as_u64() <= expected["requests"].as_u64() && self.document["limit"].is_object());
        assert_eq!(self.vendor.counts(), (expected["requests"].as_u64().unwrap(), limited), "{}, {phase} run: requests", self.name);
    }

    fn count_tables(&self) {
        let expected = self.document["expect"]["tables"].as_object().unwrap();
        let counts: Vec<String> = expected.keys().map(|t| format!("(select count(*) from raw.{t}) as {t}")).collect();
        let said = self.trib_well(&["query", &format!("select {}", counts.join(", ")), "--json"]);
        let found: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(found[0].as_object(), Some(expected), "{}: rows of tables", self.name);
    }

    /// Wrong credentials are told in the vendor's words.
    fn be_refused(&self) {
        let Some(refused) = self.document["refused"].as_object() else { return };
        let said = match refused.get("stream").and_then(Value::as_str) {
            None => self.trib(&["check", "wrong"]),
            Some(stream) => self.trib(&["discover", "wrong", stream, "--sample", "1"]),
        };
        let words = refused["says"].as_str().unwrap();
        assert!(said.status.is_some_and(|s| s > 0) && said.all().contains(words), "{}: {:?} {}", self.name, said.status, said.all());
        assert!(!said.all().contains("wr0ng-token"), "{}: {}", self.name, said.all());
    }

    /// What can be written to.
    fn objects(&self, connector: &Connector) -> Vec<Object> {
        let Some(make) = &connector.destination else { return Vec::new() };
        let mut settings = self.settings(&self.document["settings"], TOKEN);
        let map = settings.as_object_mut().unwrap();
        map.retain(|name, _| name != "connector" && name != "threads");
        let context = Context { connection: "docs".to_owned(), project_dir: self.folder.path().to_owned(), threads: 1 };
        make(&settings, &context).unwrap().deliveries().unwrap().objects()
    }

    /// What was recorded once is read again without asking anybody, and holds no token.
    fn is_replayed(&self, shipped: &Shipped) {
        let file = format!("recorded/{}.yaml", self.name);
        self.folder.write(&file, shipped.text);
        self.vendor.begin(false);
        self.trib_well(&["connectors", "record", &file, "--connection", self.name, "--pages", "2"]);
        self.vendor.begin(false);
        self.trib_well(&["connectors", "replay", &file]);
        assert_eq!(self.vendor.counts(), (0, 0), "{}: the recording is all that is asked", self.name);
    }

    fn no_file_holds_the_token(&self) {
        for file in self.folder.files() {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes()), "{}: {} holds the token", self.name, file.display());
        }
    }
}

/// The guide's page is what the manifest says. `TRIB_WRITE_PAGES=1` writes it anew.
fn is_documented(case: &Case, shipped: &Shipped, catalog: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/connectors").join(format!("{}.md", shipped.name));
    let connector = shipped.connector().unwrap();
    let page = page(&connector, catalog, &case.objects(&connector));
    if std::env::var_os("TRIB_WRITE_PAGES").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "{}: run this test with TRIB_WRITE_PAGES=1", file.display());
}

fn page(connector: &Connector, catalog: &Value, objects: &[Object]) -> String {
    let edition = connector.edition.as_ref().unwrap();
    let mut page = format!(
        "# {}\n\n{}\n\nA [declarative connector](declarative.md) that comes with Tributary, version {}, written from the\n[vendor's documentation]({}). On {} it was \
         tested against a stand-in of ours that holds requests against that\ndocumentation, not against the vendor's own service.{}\n\n",
        connector.title,
        connector.description,
        edition.version,
        edition.documentation,
        edition.verified_on,
        edition.held_against.as_ref().map(|source| format!(" Requests and answers were held against\n{source}.")).unwrap_or_default()
    );
    let schema = connector.schema.as_value();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    page.push_str("## Settings\n\n| setting | default | meaning |\n|---|---|---|\n");
    for (name, property) in schema["properties"].as_object().unwrap() {
        let default = match &property["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            value => format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        };
        let secret = if property["airbyte_secret"] == true { "Secret. " } else { "" };
        page.push_str(&format!("| `{name}` | {default} | {secret}{} |\n", property["description"].as_str().unwrap_or_default()));
    }
    if connector.source.is_some() {
        page.push_str("\n## Streams\n\n| stream | key | cursor | columns |\n|---|---|---|---|\n");
    }
    for stream in catalog.as_array().unwrap() {
        let names = |key: &str| -> String {
            stream[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
        };
        let columns = stream["columns"].as_array().map_or(0, Vec::len);
        page.push_str(&format!(
            "| `{}` | {} | {} | {columns} |\n",
            stream["name"].as_str().unwrap(),
            names("primary_key"),
            names("cursors")
        ));
    }
    let name = &connector.name;
    if connector.source.is_some() {
        page.push_str(&format!("\n`trib discover {name} STREAM` shows a stream's columns.\n"));
    }
    if !objects.is_empty() {
        page.push_str("\n## Objects to write to\n\nHow: [sending data out](../sending-out.md).\n\n| `into:` | matched by | operations | what it is |\n|---|---|---|---|\n");
    }
    for object in objects {
        let keys: Vec<String> = object.keys.iter().map(|key| format!("`{}`", key.join(" + "))).collect();
        let matched = if keys.is_empty() { "what `key` names".to_owned() } else { keys.join(", ") };
        let operations: Vec<String> = object.operations.iter().map(|(o, most)| format!("{} ({most} a call)", o.as_str())).collect();
        let name = if object.name == "*" { "any other".to_owned() } else { format!("`{}`", object.name) };
        page.push_str(&format!(
            "| {name} | {matched} | {} | {} |\n",
            operations.join(", "),
            object.description.as_deref().unwrap_or_default()
        ));
    }
    if !edition.notes.is_empty() {
        page.push_str("\n## Good to know\n\n");
        edition.notes.iter().for_each(|note| page.push_str(&format!("- {note}\n")));
    }
    page
}

fn prove(shipped: &Shipped) {
    let case = Case::new(shipped);
    case.trib_well(&["check", case.name]);
    if shipped.connector().unwrap().source.is_none() {
        is_documented(&case, shipped, &json!([]));
    } else {
        is_documented(&case, shipped, &case.write_sync());
        case.trib_well(&["validate"]);
        case.run("first");
        case.run("second");
        case.count_tables();
        case.is_replayed(shipped);
    }
    case.deliver();
    case.is_described();
    case.is_troubled();
    case.conforms(shipped, &case.objects(&shipped.connector().unwrap()));
    case.is_published(shipped);
    case.vendor.begin(false);
    case.be_refused();
    for args in [&["plan"][..], &["state", "get"], &["logs"]] {
        case.trib(args);
    }
    case.no_file_holds_the_token();
}

#[test]
fn each_one_is_loaded_twice_from_its_stand_in() {
    let only = std::env::var("TRIB_STAND_IN").ok();
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|o| o == name));
    let wanted: Vec<&Shipped> = SHIPPED.iter().filter(|s| is_wanted(s.name)).collect();
    // Two at a time: `trib` itself has threads.
    let mut failed = Vec::new();
    for pair in wanted.chunks(2) {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = pair.iter().map(|s| (s.name, scope.spawn(|| prove(s)))).collect();
            running.into_iter().map(|(name, thread)| (name, thread.join().is_ok())).collect()
        });
        failed.extend(outcomes.into_iter().filter(|(_, well)| !well).map(|(name, _)| name));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn each_one_says_what_it_is() {
    for shipped in SHIPPED {
        let connector = shipped.connector().unwrap_or_else(|e| panic!("{}: {e:?}", shipped.name));
        let edition = connector.edition.unwrap();
        assert!(edition.documentation.starts_with("https://") && edition.sha256.len() == 64, "{}", shipped.name);
        let said = Folder::new().trib(&["connectors", "show", shipped.name]);
        for part in
            [&connector.title, &connector.description, &edition.version, &edition.sha256, &edition.verified_on, "a stand-in of ours"]
        {
            assert!(said.out.contains(part), "{part}: {}", said.all());
        }
        let properties = connector.schema.get("properties").and_then(Value::as_object).unwrap();
        for (name, property) in properties {
            assert!(property["description"].as_str().is_some_and(|d| d.len() > 5), "{}: {name} is not described", shipped.name);
        }
    }
}

#[test]
fn one_can_be_pinned() {
    let folder = Folder::with(&[("tributary.yaml", "name: pinned\n")]);
    let edition = SHIPPED[0].edition().unwrap();
    let said = folder.trib(&["connectors", "add", SHIPPED[0].name]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    let lock = std::fs::read_to_string(folder.path().join("tributary.lock")).unwrap();
    for part in [edition.version.as_str(), &edition.sha256, &edition.licence, "bundled"] {
        assert!(lock.contains(part), "{part}: {lock}");
    }
    let file = folder.path().join("connectors").join(format!("{}.yaml", SHIPPED[0].name));
    assert_eq!(std::fs::read_to_string(file).unwrap(), SHIPPED[0].text);
}
