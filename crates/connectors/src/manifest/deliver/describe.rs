//! Objects and fields that an API tells of itself, so that a mapping is held against them before anything is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use trib_core::Result;
use trib_core::delivery::{Object, ObjectField};

use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::retriever::{PageState, Place, Retriever};
use super::super::slice::Slice;

/// How the API is asked for an object's fields.
pub(super) struct FieldDiscovery {
    retriever: Retriever,
    name: Expr,
    kind: Option<Expr>,
    required: Option<Expr>,
    writable: Option<Expr>,
    /// It identifies a record.
    key: Option<Expr>,
    max_length: Option<Expr>,
    relationship: Option<Expr>,
}

/// How the API is asked for the objects that it has.
pub(super) struct ObjectDiscovery {
    retriever: Retriever,
    name: Expr,
    description: Option<Expr>,
}

impl FieldDiscovery {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        Ok(Self {
            retriever: retriever(env, node)?,
            name: node.need_expr("name")?,
            kind: node.expr("kind")?,
            required: node.expr("required")?,
            writable: node.expr("writable")?,
            key: node.expr("key")?,
            max_length: node.expr("max_length")?,
            relationship: node.expr("relationship")?,
        })
    }

    /// The object as the manifest has it, with what the API says. What the manifest declares stays: it may know of fields that the API does not list.
    pub(super) async fn describe(&self, env: &Env, known: &Object) -> Result<Object> {
        let mut object = known.clone();
        let mut keys = Vec::new();
        let called = Value::from(known.name.as_str());
        each(&self.retriever, env, Slice::default().with_extra("object", called.clone()), |result| {
            let scope = env.scope().with("result", result).with("object", &called);
            let yes = |expr: &Option<Expr>, usual| expr.as_ref().map_or(Ok(usual), |e| e.truthy(&scope));
            let text = |expr: &Option<Expr>| -> Result<Option<String>> {
                let text = expr.as_ref().map(|e| e.text(&scope)).transpose()?;
                Ok(text.filter(|text| !text.is_empty()))
            };
            let field = ObjectField {
                name: self.name.text(&scope)?,
                kind: text(&self.kind)?,
                required: yes(&self.required, false)?,
                writable: yes(&self.writable, true)?,
                // 0 is how APIs say that there is none.
                max_length: text(&self.max_length)?.and_then(|n| n.parse().ok()).filter(|n| *n > 0),
                relationship: text(&self.relationship)?,
            };
            if field.name.is_empty() {
                return Ok(());
            }
            if yes(&self.key, false)? {
                keys.push(vec![field.name.clone()]);
            }
            match object.fields.iter_mut().find(|f| f.name == field.name) {
                Some(declared) => *declared = ObjectField { required: field.required || declared.required, ..field },
                None => object.fields.push(field),
            }
            Ok(())
        })
        .await?;
        object.open = false;
        if object.keys.is_empty() {
            object.keys = keys;
        }
        Ok(object)
    }
}

impl ObjectDiscovery {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        Ok(Self { retriever: retriever(env, node)?, name: node.need_expr("name")?, description: node.expr("description")? })
    }

    /// Each as `like` is, under a name of its own.
    pub(super) async fn list(&self, env: &Env, like: &Object) -> Result<Vec<Object>> {
        let (mut objects, mut seen) = (Vec::new(), BTreeSet::new());
        each(&self.retriever, env, Slice::default(), |result| {
            let scope = env.scope().with("result", result);
            let name = self.name.text(&scope)?;
            let description = self.description.as_ref().map(|d| d.text(&scope)).transpose()?.filter(|d| !d.is_empty());
            if !name.is_empty() && seen.insert(name.clone()) {
                objects.push(Object { name, description, ..like.clone() });
            }
            Ok(())
        })
        .await?;
        Ok(objects)
    }
}

fn retriever(env: &Arc<Env>, node: &Node<'_>) -> Result<Retriever> {
    Retriever::build(env, &node.need("retriever")?, &[], Place::default())
}

/// What a retriever gives, page by page.
async fn each(retriever: &Retriever, env: &Env, slice: Slice, mut take: impl FnMut(&Value) -> Result<()>) -> Result<()> {
    let mut pages = PageState::new(slice, retriever);
    while let Some(page) = retriever.next_page(env, &mut pages, None, None).await? {
        for result in page.iter() {
            take(&result.value())?;
        }
    }
    Ok(())
}
