//! What a promotion would do, and what keeps it from being done: models and seeds whose definition is another one in the environment that they go to.

use std::collections::BTreeMap;

use trib_core::{Code, Error, TableName};
use trib_project::config::model::Materialized;
use trib_project::graph::{GraphNode, makers};
use trib_project::place::At;
use trib_project::{DataTest, NodeKind, Project, Selection};
use trib_runtime::Promotion;
use trib_store::{LastTest, ScopeRecord};

use crate::app::Session;
use crate::assemble::identity;
use crate::exit::{Failure, Result};
use crate::made_from::{record, stored_parents};
use crate::models;

/// The project in two environments.
#[derive(Clone, Copy)]
pub struct Sides<'a> {
    pub from: &'a Session,
    pub to: &'a Session,
    /// Rows that were made from other data than the target's, or from older, are taken as well.
    pub allow_other_data: bool,
}

#[derive(Default)]
pub struct Decided {
    /// By connection, parents first: what one destination publishes together.
    pub promotions: BTreeMap<String, Vec<Promotion>>,
    /// Made from the same definition already.
    pub same: Vec<String>,
    /// Views of databases that have another query, or are not there.
    pub views: Vec<String>,
    pub notes: Vec<String>,
}

/// A model or seed with a table.
struct Made<'a> {
    name: &'a str,
    connection: &'a str,
    table: &'a TableName,
    key: Vec<String>,
    tests: &'a [DataTest],
    materialized: Materialized,
    at: &'a At,
}

impl<'a> Made<'a> {
    fn of(project: &'a Project, node: &'a GraphNode) -> Option<Self> {
        if let Some(seed) = project.seeds().iter().find(|s| s.name == node.name) {
            let (name, connection) = (seed.name.as_str(), seed.connection.as_str());
            return Some(Self {
                name,
                connection,
                table: &seed.table,
                key: vec![],
                tests: &[],
                materialized: Materialized::Table,
                at: &seed.at,
            });
        }
        let model = project.model(&node.name).ok().filter(|_| node.kind == NodeKind::Model)?;
        let spec = &model.spec;
        let key = spec.key.clone().unwrap_or_default().0;
        let (connection, tests, materialized) = (spec.connection.as_str(), model.tests.as_slice(), spec.materialized);
        Some(Self { name: &model.name, connection, table: &model.table, key, tests, materialized, at: &model.at })
    }
}

impl Sides<'_> {
    /// Looks at both environments and changes neither. The error has everything that stands in the way.
    pub async fn decide(&self, selection: &Selection) -> Result<Decided> {
        let (graph, project) = (self.to.graph()?, self.to.project()?);
        let before = self.to.last_manifest().await?.unwrap_or_default();
        let tested = self.from.store().await?.last_tests().await?;
        let mut decided = Decided::default();
        let mut errors = Vec::new();
        for node in graph.order().into_iter().filter(|n| selection.contains(&n.name)) {
            let Some(made) = Made::of(project, node) else { continue };
            if !made.materialized.is_stored() {
                let in_database = made.materialized == Materialized::View && !models::is_here(self.to, project.model(made.name)?)?;
                let list = if in_database && before.get(made.name) != Some(&node.hash) { &mut decided.views } else { &mut decided.same };
                list.push(made.name.to_owned());
                continue;
            }
            let target = record(self.to, made.name).await?;
            let made_from = graph.fingerprint(made.name);
            if target.as_ref().is_some_and(|r| r.known.staged.is_none() && r.made_from == made_from) {
                decided.same.push(made.name.to_owned());
                continue;
            }
            if made.materialized == Materialized::History {
                decided
                    .notes
                    .push(format!("{} keeps a history of its own in each environment: the next run there goes on with it", made.name));
                continue;
            }
            let source = record(self.from, made.name).await?;
            let obstacles = self.obstacles(&made, selection, source.as_ref(), target.as_ref(), &tested).await?;
            match (source, made_from) {
                (Some(source), Some(made_from)) if obstacles.is_empty() => {
                    let promotion = self.promotion(&made, source, target, made_from)?;
                    decided.promotions.entry(made.connection.to_owned()).or_default().push(promotion);
                }
                _ => errors.extend(obstacles.into_iter().map(|e| made.at.mark(e))),
            }
        }
        if errors.is_empty() { Ok(decided) } else { Err(Failure(errors)) }
    }

    fn names(&self) -> Result<[&str; 2]> {
        Ok([&self.from.project()?.environment.name, &self.to.project()?.environment.name])
    }

    fn tables(&self, table: &TableName) -> Result<[TableName; 2]> {
        Ok([self.from.project()?.environment.physical(table), self.to.project()?.environment.physical(table)])
    }

    fn promotion(&self, made: &Made<'_>, source: ScopeRecord, target: Option<ScopeRecord>, made_from: String) -> Result<Promotion> {
        Ok(Promotion {
            name: made.name.to_owned(),
            identities: [identity(self.from.project()?, made.name, ""), identity(self.to.project()?, made.name, "")],
            scope: source.scope,
            tables: self.tables(made.table)?,
            key: made.key.clone(),
            seen: [source.known.load, target.and_then(|r| r.known.load)],
            state: source.state,
            made_from,
        })
    }

    /// Why a table may not be promoted. The first reasons that are found make those after them idle.
    async fn obstacles(
        &self,
        made: &Made<'_>,
        selection: &Selection,
        source: Option<&ScopeRecord>,
        target: Option<&ScopeRecord>,
        tested: &[LastTest],
    ) -> Result<Vec<Error>> {
        let [from, to] = self.names()?;
        let [here, there] = self.tables(made.table)?;
        let refuse =
            |code, message, detail: String, hint: String| Ok(vec![Error::new(code, message).stream(made.name).detail(detail).hint(hint)]);
        if !self.is_same_connection(made.connection) {
            let hint = format!("make it there: `trib run --env {to} {}`", made.name);
            return refuse(Code::Unsupported, "the environments keep this table in different systems", made.connection.to_owned(), hint);
        }
        if here == there {
            let hint = "give one of them a `schema_prefix`".to_owned();
            return refuse(Code::Unsupported, "both environments have one table: there is nothing to promote", here.to_string(), hint);
        }
        let (graph, project) = (self.from.graph()?, self.from.project()?);
        let made_from = graph.fingerprint(made.name);
        if made_from != self.to.graph()?.fingerprint(made.name) {
            let hint = format!("a template looks at it; make the table there: `trib run --env {to} {}`", made.name);
            return refuse(Code::Unsupported, "the definition depends on the environment", format!("{from}, {to}"), hint);
        }
        let run = |how: &str| format!("`trib run --env {from} {how}{}`", made.name);
        let Some(source) = source else {
            return refuse(Code::NotFound, "the table has not been made in the environment that it comes from", here.to_string(), run("+"));
        };
        if source.known.staged.is_some() || source.made_from != made_from {
            let how = if made.materialized == Materialized::Incremental { "--full-refresh +" } else { "+" };
            return refuse(Code::NotFound, "the table is not made from what the project's files say now", here.to_string(), run(how));
        }
        let mut obstacles = self.tests(made, source, tested)?;
        for parent in stored_parents(graph, project, made.name).into_iter().filter(|p| !selection.contains(p)) {
            let known = record(self.to, &parent).await?.and_then(|r| r.made_from);
            if known.is_none() || known != graph.fingerprint(&parent) {
                let error =
                    Error::new(Code::UsageInvalid, "what it reads is made from another definition there, and is not promoted with it");
                obstacles.push(
                    error
                        .stream(made.name)
                        .detail(parent)
                        .hint(format!("promote both: `trib promote +{} --from {from} --to {to}`", made.name)),
                );
            }
        }
        let mut other = if self.allow_other_data { Vec::new() } else { self.other_data(made.name)? };
        if let Some(target) = target.filter(|t| !self.allow_other_data && t.updated_at > source.updated_at) {
            let [newer, older] = [target.updated_at, source.updated_at].map(|at| at.format("%Y-%m-%d %H:%M:%S UTC"));
            other.push(format!("{there} was made at {newer}, {here} at {older}: older rows would take the place of newer ones"));
        }
        obstacles.extend(other.into_iter().map(|why| {
            let error = Error::new(Code::Held, "the table's rows are not those that the other environment would have").stream(made.name);
            error.detail(why).hint(format!("{} makes it again; `--allow-other-data` promotes it as it is", run("+")))
        }));
        Ok(obstacles)
    }

    /// Every test that may keep a table from being published has found nothing wrong since the table was made.
    fn tests(&self, made: &Made<'_>, source: &ScopeRecord, tested: &[LastTest]) -> Result<Vec<Error>> {
        let [from, _] = self.names()?;
        let mut obstacles = Vec::new();
        for test in made.tests {
            let last = tested.iter().find(|t| t.node == made.name && t.stream.is_empty() && t.test == test.name);
            let (message, hint) = match last.map(|t| (t.status.as_str(), t.tested_at >= source.updated_at)) {
                Some(("passed" | "warned", true)) => continue,
                Some(("failed" | "broken", _)) => ("a test of the table has failed", format!("`trib run --env {from} {}`", made.name)),
                _ => ("a test was not asked since the table was made", format!("`trib test --env {from} {}`", made.name)),
            };
            obstacles.push(Error::new(Code::TestFailed, message).stream(made.name).detail(&test.name).hint(hint));
        }
        Ok(obstacles)
    }

    /// Tables on the way to this one that hold other data where it comes from than where it goes.
    fn other_data(&self, name: &str) -> Result<Vec<String>> {
        let [_, to] = self.names()?;
        let (graph, project) = (self.from.graph()?, self.from.project()?);
        let mut found = Vec::new();
        for above in std::iter::once(name.to_owned()).chain(graph.reach(name, true, usize::MAX)) {
            if let Ok(sync) = project.sync(&above) {
                let others = sync.spec.from.0.iter().filter(|c| !self.is_same_connection(c));
                found.extend(others.map(|c| format!("{above} loads from {c}, which is another system in {to}")));
            } else if project.commands().iter().any(|c| c.name == above) {
                found.push(format!("what {above} makes, a command, is made in each environment"));
            } else if let Ok(model) = project.model(&above) {
                if model.spec.materialized == Materialized::History {
                    found.push(format!("{above} keeps a history of its own in each environment"));
                }
                let others = model.elsewhere.iter().filter(|(c, _)| !self.is_same_connection(c));
                found.extend(others.map(|(c, table)| format!("{above} reads {table} of {c}, which is another system in {to}")));
                for table in model.reads.iter().filter(|t| makers(project, &model.spec.connection, t).is_empty()) {
                    let [here, there] = self.tables(table)?;
                    if here != there {
                        found.push(format!("{above} reads {here}, which no node makes, and would read {there} in {to}"));
                    }
                }
            }
        }
        Ok(found)
    }

    fn is_same_connection(&self, name: &str) -> bool {
        let of = |session: &Session| Some(session.project().ok()?.connection(name).ok()).flatten();
        match (of(self.from), of(self.to)) {
            (Some(a), Some(b)) => a.connector == b.connector && a.settings == b.settings,
            _ => false,
        }
    }
}
