//! Objects of an API as `trib discover` shows them.

use serde_json::Value;
use trib_core::Error;
use trib_core::delivery::{Delivers, Object, ObjectField};

use crate::app::Session;
use crate::exit::Result;
use crate::output;
use crate::render::table::{left, render, right};

/// All objects that records can be sent to, or the fields of one.
pub async fn show(session: &Session, api: &dyn Delivers, object: Option<&str>) -> Result<()> {
    let width = output::width();
    match object {
        Some(name) => {
            let object = api.describe(name).await?;
            session.output.either(|| serde_json::to_value(&object).unwrap_or_default(), || fields(&object, width));
        }
        None => {
            let objects = api.list().await?;
            let json = || objects.iter().map(|o| serde_json::to_value(o).unwrap_or_default()).collect::<Vec<Value>>().into();
            session.output.either(json, || list(&objects, width));
        }
    }
    Ok(())
}

/// The error for a connection that nothing can be sent to.
pub fn none(connection: &str) -> Error {
    crate::app::usage("the connection has no objects to send records to").detail(connection.to_owned())
}

fn list(objects: &[Object], width: Option<usize>) -> String {
    let columns = [left("object"), left("key"), left("written by"), right("fields"), left("")];
    let row = |o: &Object| {
        let operations: Vec<&str> = o.operations.keys().map(|k| k.as_str()).collect();
        let known = if o.open { String::new() } else { o.fields.len().to_string() };
        vec![o.name.clone(), keys(o), operations.join(", "), known, o.description.clone().unwrap_or_default()]
    };
    render(&columns, &objects.iter().map(row).collect::<Vec<_>>(), width)
}

fn fields(object: &Object, width: Option<usize>) -> String {
    let mut out = object.name.clone();
    if let Some(description) = &object.description {
        out += &format!(": {description}");
    }
    out.push('\n');
    let row = |f: &ObjectField| {
        let is_key = object.keys.iter().flatten().any(|k| *k == f.name);
        let marks = [
            is_key.then(|| "key".to_owned()),
            f.required.then(|| "required".to_owned()),
            (!f.writable).then(|| "read only".to_owned()),
            f.max_length.map(|most| format!("at most {most} characters")),
            f.relationship.as_ref().map(|name| format!("or `{name}.FIELD`, what identifies that record")),
        ];
        vec![f.name.clone(), f.kind.clone().unwrap_or_default(), marks.into_iter().flatten().collect::<Vec<_>>().join(", ")]
    };
    out += &render(&[left("field"), left("type"), left("")], &object.fields.iter().map(row).collect::<Vec<_>>(), width);
    if object.open {
        out += "other fields are taken too\n";
    }
    out
}

/// What identifies a record: any of these.
fn keys(object: &Object) -> String {
    object.keys.iter().map(|key| key.join(" + ")).collect::<Vec<_>>().join(", ")
}
