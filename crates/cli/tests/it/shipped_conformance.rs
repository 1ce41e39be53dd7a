//! What each shipped manifest that can be written to was seen to do: every operation of every object took records and had some refused, filled its calls, and
//! went on after a call that failed in part; look-ups went on to further pages and asked in batches; a call that came too soon was waited for, and a token that
//! had ended was renewed, or ended the run until there was another.
//!
//! The evidence is what the stand-in saw (`does` of its routes), whatever a document claims. What is not seen has its reason in `gaps` of the document:
//! `{OBJECT OPERATION: {what: why}}`; a gap that is none any more fails too.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trib_connectors::manifest::Shipped;
use trib_core::delivery::Object;
use trib_testkit::vendor::Deed;

use crate::shipped::Case;

/// An operation or a look-up of the manifest, and the objects that have the very same one.
struct Row {
    names: Vec<String>,
    deed: Deed,
    /// Records that a call may have.
    most: u64,
}

impl Row {
    /// What has to be seen, and whether it was.
    fn wants(&self) -> Vec<(&'static str, bool)> {
        let deed = &self.deed;
        if self.names[0].ends_with(" look_up") {
            return vec![("batches", deed.calls > 1), ("pages", deed.more > 0)];
        }
        let mut wants = vec![("taken", deed.taken > 0), ("refused", deed.refused > 0)];
        if self.most > 1 {
            wants.extend([("full calls", deed.most == self.most && deed.calls > 1), ("partly refused", deed.partly > 0)]);
        }
        wants
    }
}

impl Case {
    pub(crate) fn conforms(&self, shipped: &Shipped, objects: &[Object]) {
        if objects.is_empty() {
            return;
        }
        let mut wrong = Vec::new();
        let mut gaps: BTreeMap<(String, String), bool> = BTreeMap::new();
        for (name, of_one) in self.document["gaps"].as_object().into_iter().flatten() {
            let all = of_one.as_object().unwrap();
            assert!(all.values().all(|why| why.as_str().is_some_and(|w| w.len() > 10)), "{}: a gap of {name} has no reason", self.name);
            gaps.extend(all.keys().map(|what| ((name.clone(), what.clone()), false)));
        }
        for row in self.rows(shipped, objects) {
            for (what, was_seen) in row.wants() {
                let gap = row.names.iter().map(|name| (name.clone(), what.to_owned())).find(|gap| gaps.contains_key(gap));
                match (was_seen, gap.and_then(|gap| gaps.get_mut(&gap))) {
                    (true, Some(_)) => wrong.push(format!("{}: `{what}` is no gap any more", row.names.join(", "))),
                    (false, None) => wrong.push(format!("{}: `{what}` was not seen: {:?}", row.names.join(", "), row.deed)),
                    (false, Some(used)) => *used = true,
                    (true, None) => {}
                }
            }
        }
        wrong.extend(gaps.iter().filter(|((name, _), used)| name != "*" && !**used).map(|(gap, _)| format!("{gap:?} is a gap of nothing")));
        assert!(wrong.is_empty(), "{}:\n{}", self.name, wrong.join("\n"));
    }

    /// The table: what the manifest says that it can do, with what the stand-in has seen of it.
    fn rows(&self, shipped: &Shipped, objects: &[Object]) -> Vec<Row> {
        let manifest = trib_project::yaml::parse(shipped.name, shipped.text, 1).unwrap().to_json();
        let seen = self.vendor.deeds();
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for object in manifest["objects"].as_array().into_iter().flatten() {
            let name = object["name"].as_str().unwrap();
            let described = objects.iter().find(|o| o.name == name).unwrap();
            let most = |kind: &str| described.operations.iter().find(|(o, _)| o.as_str() == kind).map_or(1, |(_, most)| *most);
            let operations = object["operations"].as_array().into_iter().flatten().map(|node| (kind(&manifest, node), node));
            for (kind, node) in operations.chain(object.get("look_up").map(|node| ("look_up".to_owned(), node))) {
                let row = rows.entry(format!("{kind} {node}")).or_insert_with(|| Row {
                    names: Vec::new(),
                    deed: Deed::default(),
                    most: most(&kind),
                });
                // An object that stands for all others is seen under the name that the test gave it.
                let is_it = |of: &str| of == name || name == "*" && !objects.iter().any(|o| o.name == of);
                for deed in seen.iter().filter(|(does, _)| does.rsplit_once(' ').is_some_and(|(of, k)| k == kind && is_it(of))) {
                    row.deed = row.deed.plus(deed.1);
                }
                row.names.push(format!("{name} {kind}"));
            }
        }
        rows.into_values().collect()
    }

    /// A call that comes too soon is made again, one with a token that has ended too, or by the next run; each record arrives once.
    pub(crate) fn is_troubled(&self) {
        let troubles = &self.document["troubles"];
        if troubles.is_null() {
            assert!(self.document["deliver"].is_null(), "{}: nobody tries a token that ends", self.name);
            return;
        }
        let sync = json!({"from": "warehouse", "to": self.name, "streams": {"marts.troubled": troubles["stream"]}});
        self.folder.write("syncs/troubles.yaml", &sync.to_string());
        let limited = if troubles["limited"].is_null() { &self.document["limit"] } else { &troubles["limited"] };
        for (number, (trouble, says)) in
            [(limited, &Value::Null), (&troubles["expired"], &troubles["expired"]["says"])].into_iter().enumerate()
        {
            let Some(rows) = troubles["rows"][number].as_str() else {
                assert!(self.document["gaps"]["*"]["expired"].is_string(), "{}: the token never ends, and nobody says why", self.name);
                continue;
            };
            assert!(trouble["docs"].as_str().is_some_and(|d| d.starts_with("https://")), "{}: {trouble}", self.name);
            self.model("troubled", &troubles["columns"], rows, None);
            self.vendor.begin(false);
            self.trib_well(&["run", "troubled"]);
            self.vendor.answer_instead(trouble["answer"].clone());
            let said = self.trib(&["run", "troubles"]);
            assert!(!self.vendor.waits_to_answer(), "{}: {}", self.name, said.all());
            if let Some(words) = says.as_str() {
                assert!(
                    said.status.is_some_and(|s| s > 0) && said.all().contains(words),
                    "{}: {:?} {}",
                    self.name,
                    said.status,
                    said.all()
                );
                assert!(self.vendor.kept().taken.is_empty(), "{}", self.name);
                self.trib_well(&["run", "troubles"]);
            } else {
                assert_eq!(said.status, Some(0), "{}: {}", self.name, said.all());
            }
            assert_eq!(self.vendor.kept().taken.len(), 1, "{}: {trouble}", self.name);
        }
    }
}

/// The `operation` of a node, which a definition may hold.
fn kind(manifest: &Value, node: &Value) -> String {
    match (node["operation"].as_str(), node["$ref"].as_str()) {
        (Some(kind), _) => kind.to_owned(),
        (None, Some(reference)) => kind(manifest, manifest.pointer(reference.trim_start_matches('#')).unwrap()),
        (None, None) => panic!("an operation without a name: {node}"),
    }
}
