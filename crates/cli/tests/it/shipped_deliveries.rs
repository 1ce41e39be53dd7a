//! Each shipped manifest that can be written to, against its stand-in: what the documentation demands of requests, refused records among taken ones, the
//! limits of a call, and a second run.
//!
//! `deliver` in a file of `tests/stand_ins` lists deliveries: the `stream` as a sync has it, the `columns` of its model, and for the `first` run and the
//! `second` their `rows` (`of`: so many, by the number `n`), what the vendor has `kept` afterwards (`fields`: some of it), which reasons stand beside what was `rejected`, the keys that were
//! `taken` or how many were `sent`, how many `calls` it took, and what somebody else has removed there before (`gone`).

//!
//! `mistakes` are streams that a plan, a check and a run refuse, with what they say. `undescribed` is a call that asks for an object's fields, with the answer to
//! credentials that may not, and a stream that is sent all the same.

use serde_json::{Value, json};

use crate::shipped::Case;

impl Case {
    /// Runs all deliveries of the document, each from a state of its own.
    pub(crate) fn deliver(&self) {
        for (number, delivery) in self.document["deliver"].as_array().into_iter().flatten().enumerate() {
            let sync = json!({"from": "warehouse", "to": self.name, "streams": {format!("marts.d{number}"): delivery["stream"]}});
            self.folder.write(&format!("syncs/to{number}.yaml"), &sync.to_string());
            for phase in ["first", "second"].into_iter().filter(|phase| delivery[*phase].is_object()) {
                self.phase(number, delivery, phase);
            }
        }
    }

    fn phase(&self, number: usize, delivery: &Value, phase: &str) {
        let (at, expected) = (format!("{}, delivery {number}, {phase}", self.name), &delivery[phase]);
        self.model(&format!("d{number}"), &delivery["columns"], expected["rows"].as_str().unwrap(), expected["of"].as_u64());
        for (collection, keys) in expected["gone"].as_object().into_iter().flatten() {
            keys.as_array().unwrap().iter().for_each(|key| self.vendor.remove(collection, key.as_str().unwrap()));
        }
        self.vendor.begin(false);
        self.trib_well(&["run", &format!("d{number}")]);
        let said = self.trib(&["run", &format!("to{number}")]);
        let refusals = self.vendor.refusals();
        let wanted = expected["refusals"].as_u64().unwrap_or(0);
        assert!(said.status == Some(0) && refusals.len() as u64 == wanted, "{at}: {}\nrefused: {refusals:#?}", said.all());
        let kept = self.vendor.kept();
        for (collection, records) in expected["kept"].as_object().into_iter().flatten() {
            assert_eq!(&json!(kept.records.get(collection).cloned().unwrap_or_default()), records, "{at}: {collection}");
        }
        for (collection, records) in expected["fields"].as_object().into_iter().flatten() {
            for (key, fields) in records.as_object().unwrap() {
                let found = &kept.records[collection][key];
                assert!(fields.as_object().unwrap().iter().all(|(name, value)| found[name] == *value), "{at}: {collection} {key}: {found}");
            }
        }
        let mut taken: Vec<String> = kept.taken.into_iter().map(|(_, key)| key).collect();
        taken.sort();
        let rejected = expected["rejected"].as_array().map_or(0, Vec::len);
        if expected["taken"].is_array() {
            assert_eq!(json!(taken), expected["taken"], "{at}");
        } else if let Some(of) = expected["sent"].as_u64().or_else(|| expected["of"].as_u64()) {
            assert_eq!(taken.len() as u64 + rejected as u64, of, "{at}");
        }
        if let Some(calls) = expected["calls"].as_u64() {
            assert_eq!(self.vendor.counts().0, calls, "{at}: calls");
        }
        let listed = self.trib(&["rejected", "list", "--json"]);
        for reason in expected["rejected"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(listed.out.contains(reason), "{at}: {reason}: {}", listed.all());
        }
        self.vendor.begin(false);
        let said = self.trib(&["run", &format!("to{number}")]);
        assert_eq!((said.status, self.vendor.kept().taken.len()), (Some(0), 0), "{at}, again: {}", said.all());
    }

    /// Mappings that do not fit are told before anything is sent, by what the vendor says of its objects; who may not ask is told that, and sends.
    pub(crate) fn is_described(&self) {
        let undescribed = &self.document["undescribed"];
        if undescribed.is_null() {
            return;
        }
        self.model("described", &json!(["email", "name", "score"]), "('z9@x.example', 'Zoe', 1)", None);
        self.trib_well(&["run", "described"]);
        let deliver = |stream: &Value| {
            let sync = json!({"from": "warehouse", "to": self.name, "streams": {"marts.described": stream}});
            self.folder.write("syncs/to_described.yaml", &sync.to_string());
            self.vendor.begin(false);
        };
        for mistake in self.document["mistakes"].as_array().unwrap() {
            deliver(&mistake["stream"]);
            for command in [["plan", "to_described"], ["check", self.name], ["run", "to_described"]] {
                let said = self.trib(&command);
                let told = mistake["says"].as_array().unwrap().iter().all(|says| said.all().contains(says.as_str().unwrap()));
                assert!(said.status.is_some_and(|s| s > 0) && told, "{}: {command:?} {mistake}: {}", self.name, said.all());
            }
            assert!(self.vendor.kept().taken.is_empty(), "{}: {mistake}", self.name);
        }
        deliver(&undescribed["stream"]);
        self.vendor.close(undescribed["path"].as_str().unwrap(), undescribed["answer"].clone());
        for command in ["plan", "run"] {
            let said = self.trib_well(&[command, "to_described"]);
            assert!(said.all().contains("are not checked"), "{}: {command}: {}", self.name, said.all());
        }
        assert_eq!(self.vendor.kept().taken.len(), 1, "{}", self.name);
    }

    /// Writes a model of these rows; `of`: of so many that `n` counts.
    pub(crate) fn model(&self, name: &str, columns: &Value, rows: &str, of: Option<u64>) {
        let columns: Vec<&str> = columns.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let sql = match of {
            Some(of) => {
                let list = rows.split(", ").zip(&columns).map(|(value, name)| format!("{value} as {name}"));
                format!("select {} from (select unnest(generate_series(1, {of})) as n)", list.collect::<Vec<_>>().join(", "))
            }
            None => {
                let list = columns.iter().enumerate().map(|(i, name)| format!("column{} as {name}", i + 1));
                format!("select {} from (values {rows}) as v", list.collect::<Vec<_>>().join(", "))
            }
        };
        self.folder.write(&format!("models/{name}.sql"), &format!("/*---\nschema: marts\n---*/\n{sql}\n"));
    }
}
