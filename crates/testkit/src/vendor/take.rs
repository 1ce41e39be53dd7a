//! Records that are sent to a vendor: held against the route's rules, kept, and answered one by one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::demand::{at, check, flatten, form_object};
use super::fill::{fill, text};
use super::{Refusal, Variables};

/// What a vendor has been given.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// By collection and key.
    pub records: BTreeMap<String, BTreeMap<String, Value>>,
    /// Collection and key of each record that was taken, in the order in which they came.
    pub taken: Vec<(String, String)>,
}

/// Takes the records of a request, as the route's `takes` says. Leaves `$results` and `$wrong` for the answer, and of the last record what its rules name.
pub(super) fn take(route: &Value, body: &str, kept: &mut Kept, variables: &mut Variables) -> Result<(), Refusal> {
    let rules = &route["takes"];
    if rules.is_null() {
        return Ok(());
    }
    let records = records(rules, route["form"].is_object(), body)?;
    if rules["rest"].is_object() {
        rest(rules, body, variables)?;
    }
    if let Some(most) = rules["most"].as_u64().filter(|most| records.len() as u64 > *most) {
        return Err(Refusal::new(format!("{} records in one call, and {most} are allowed", records.len())));
    }
    let outcomes: Vec<(Variables, Result<(), Refusal>)> = records
        .iter()
        .enumerate()
        .map(|(number, record)| {
            let mut own = variables.clone();
            own.insert("number".to_owned(), json!(number));
            let outcome = fits(rules, record, kept, &mut own);
            (own, outcome)
        })
        .collect();
    let wrong = outcomes.iter().filter(|(_, o)| o.is_err()).count();
    variables.insert("refused_count".to_owned(), wrong.into());
    variables.insert("taken_count".to_owned(), (outcomes.len() - wrong).into());
    if rules["whole"] == true
        && let Some((_, Err(refusal))) = outcomes.iter().find(|(_, o)| o.is_err())
    {
        return Err(Refusal::new(refusal.why.clone()));
    }
    let (mut results, mut wrong) = (Vec::new(), Vec::new());
    for (record, (mut own, outcome)) in records.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                keep(rules, record, kept, &mut own);
                results.push(fill(&rules["each"], &own));
            }
            Err(refusal) => {
                own.insert("why".to_owned(), refusal.why.into());
                let told = fill(&rules["wrong"], &own);
                if rules["apart"] == true { wrong.push(told) } else { results.push(told) }
            }
        }
        variables.extend(own);
    }
    variables.insert("results".to_owned(), Value::Array(results));
    variables.insert("wrong".to_owned(), if wrong.is_empty() { Value::Null } else { Value::Array(wrong) });
    Ok(())
}

/// What the body says besides its records.
fn rest(rules: &Value, body: &str, variables: &mut Variables) -> Result<(), Refusal> {
    let mut body: Value = serde_json::from_str(body).map_err(|_| Refusal::new("the body is not JSON"))?;
    if let (Some(map), Some(place)) = (body.as_object_mut(), rules["in"].as_str()) {
        map.remove(place);
    }
    let mut leaves = Vec::new();
    flatten("", &body, &mut leaves);
    check(&rules["rest"], leaves, variables)
}

fn records(rules: &Value, is_form: bool, body: &str) -> Result<Vec<Value>, Refusal> {
    let body = match is_form {
        true => form_object(body),
        false if body.is_empty() => json!({}),
        false => serde_json::from_str(body).map_err(|_| Refusal::new("the body is not JSON"))?,
    };
    let Some(place) = rules["in"].as_str() else {
        return Ok(match body {
            Value::Array(items) => items,
            one => vec![one],
        });
    };
    let list = at(&body, place).and_then(Value::as_array).cloned();
    list.ok_or_else(|| Refusal::new(format!("{place} is no list of records")))
}

/// A record held against its rules, and against what is there.
fn fits(rules: &Value, record: &Value, kept: &Kept, own: &mut Variables) -> Result<(), Refusal> {
    let mut leaves = Vec::new();
    flatten("", record, &mut leaves);
    check(&rules["record"], leaves, own)?;
    let key = key(rules, record, own);
    if let Some(key) = key.as_ref().filter(|key| super::list(&rules["refuses"]).iter().any(|r| text(r) == **key)) {
        return Err(Refusal::new(format!("{key} is refused")));
    }
    let there = key.as_ref().is_some_and(|key| kept.records.get(&collection(rules, own)).is_some_and(|c| c.contains_key(key)));
    if rules["there"] == true && !there {
        return Err(Refusal::new("there is no such record"));
    }
    if rules["fresh"] == true && there {
        return Err(Refusal::new("the record is there already"));
    }
    own.insert("new".to_owned(), (!there).into());
    Ok(())
}

fn keep(rules: &Value, record: &Value, kept: &mut Kept, own: &mut Variables) {
    let collection = collection(rules, own);
    let records = kept.records.entry(collection.clone()).or_default();
    // Who is given no key makes one.
    let key = key(rules, record, own).unwrap_or_else(|| (1000 + kept.taken.len()).to_string());
    own.insert("key".to_owned(), key.clone().into());
    let fields = rules["keep"].as_str().map_or(record, |path| at(record, path).unwrap_or(&Value::Null));
    if rules["remove"] == true {
        records.remove(&key);
    } else {
        let entry = records.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let (Some(old), Some(new)) = (entry.as_object_mut(), fields.as_object()) {
            old.extend(new.clone());
        }
    }
    kept.taken.push((collection, key));
}

fn collection(rules: &Value, own: &Variables) -> String {
    text(&fill(&rules["into"], own))
}

/// A path within the record, or `$name` of what the path or a rule has named.
fn key(rules: &Value, record: &Value, own: &Variables) -> Option<String> {
    let place = rules["key"].as_str()?;
    match place.strip_prefix('$') {
        Some(name) => own.get(name).map(text),
        None => at(record, place).map(text),
    }
}
