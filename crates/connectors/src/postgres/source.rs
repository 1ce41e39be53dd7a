//! Reading: discovery, and splits read by `COPY`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use trib_core::{Catalog, Code, Emitter, Error, Read, Result, Source, Split, SplitEnd, State, StreamRead};
use trib_kit::cursor::{self, Boundary};

use super::catalog::{self, Relation};
use super::config::PostgresConfig;
use super::connect::{Server, Session};
use super::copy_out::{BatchSize, CopyOut};
use super::decode::Decoder;
use super::error;
use super::pg_type::Rules;
use super::plan;
use super::split::Spec;

pub struct PostgresSource {
    server: Server,
    rules: Rules,
    schemas: Vec<String>,
    relations: Mutex<HashMap<String, Arc<Relation>>>,
    snapshots: Mutex<Vec<Snapshot>>,
}

/// A transaction that is kept open so that others can see what it sees.
struct Snapshot {
    id: String,
    stream: String,
    /// Splits that were not read to their end yet.
    open: usize,
    _session: Session,
}

impl PostgresSource {
    pub fn new(config: &PostgresConfig, server: Server) -> Self {
        let (relations, snapshots) = (Mutex::default(), Mutex::default());
        Self { server, rules: config.rules(), schemas: config.schemas.clone(), relations, snapshots }
    }

    async fn relation(&self, session: &Session, stream: &str) -> Result<Arc<Relation>> {
        let known = |source: &Self| source.relations.lock().unwrap_or_else(PoisonError::into_inner).get(stream).cloned();
        if let Some(relation) = known(self) {
            return Ok(relation);
        }
        self.learn(session, &[stream.to_owned()]).await?;
        known(self).ok_or_else(|| {
            Error::new(Code::NotFound, "the database has no such table, or the user may not read it")
                .detail(stream)
                .hint("`trib discover` lists the streams; `trib check` names the grants that are missing")
        })
    }

    async fn learn(&self, session: &Session, only: &[String]) -> Result<Vec<Arc<Relation>>> {
        let found: Vec<_> = catalog::relations(session, only, &self.schemas).await?.into_iter().map(Arc::new).collect();
        let mut known = self.relations.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(found.iter().map(|r| (r.stream_name(), r.clone())));
        Ok(found)
    }

    /// Gives several splits one snapshot, held by the connection that has planned them. A server that exports none (a hot standby, a pooler
    /// that shares connections) cannot show one state to several readers: then the read is one split.
    async fn share_snapshot(&self, session: Session, stream: &str, specs: &mut Vec<(Spec, Option<u64>)>, whole: Spec) -> Result<()> {
        const EXPORT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot()";
        let id = match session.rows(EXPORT).await {
            Ok(rows) => rows.first().and_then(|row| row.get(0)).map(str::to_owned),
            Err(e) if e.code() == Code::ConnectionLost => return Err(e),
            Err(_) => None,
        };
        let Some(id) = id else {
            let rows = specs.iter().map(|(_, rows)| *rows).sum();
            *specs = vec![(whole, rows)];
            return Ok(());
        };
        for (spec, _) in specs.iter_mut() {
            spec.snapshot = Some(id.clone());
        }
        let snapshot = Snapshot { id, stream: stream.to_owned(), open: specs.len(), _session: session };
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).push(snapshot);
        Ok(())
    }

    /// Snapshots whose reads are done hold back the server's vacuum for nothing.
    fn drop_snapshots(&self, stream: &str) {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).retain(|s| s.stream != stream && s.open > 0);
    }

    fn read_to_end(&self, snapshot: &str) {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        for held in snapshots.iter_mut().filter(|s| s.id == snapshot) {
            held.open = held.open.saturating_sub(1);
        }
    }

    /// A session that sees what the plan saw.
    async fn session_for(&self, spec: &Spec) -> Result<Session> {
        let session = self.server.session().await?;
        if let Some(id) = &spec.snapshot {
            let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", trib_kit::sql::literal(id));
            if let Err(e) = session.client.batch_execute(&sql).await {
                if error::is_state(&e, &["22023", "42704", "55000"]) {
                    return Err(Error::new(Code::TransactionAborted, "the snapshot that the read was planned in is gone")
                        .hint("the read starts over by itself"));
                }
                return Err(error::driver(e));
            }
        }
        Ok(session)
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn check(&self) -> Result<()> {
        let session = self.server.session().await?;
        let schemas = if self.schemas.is_empty() { vec!["public".to_owned()] } else { self.schemas.clone() };
        let missing = catalog::missing_grants(&session, &schemas).await?;
        self.server.give_back(session);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::PermissionDenied, "the user may not read all tables")
            .detail(format!("{} grants are missing in {}", missing.len(), schemas.join(", ")))
            .hint(format!("{};", missing.join("; "))))
    }

    async fn discover(&self, only: &[String]) -> Result<Catalog> {
        let session = self.server.session().await?;
        let relations = self.learn(&session, only).await?;
        self.server.give_back(session);
        Ok(Catalog { streams: relations.iter().map(|r| r.stream(self.rules)).collect() })
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let [read] = reads else {
            return Err(Error::internal("streams of a database are planned one by one"));
        };
        self.drop_snapshots(&read.stream);
        let before = cursor::CursorState::of(state, read)?;
        if !before.left.is_empty() {
            return plan::rest(&before.left);
        }
        let session = self.server.session().await?;
        let relation = self.relation(&session, &read.stream).await?;
        let planned = plan::plan(&session, &relation, read, before).await.map_err(|e| e.stream(&read.stream))?;
        let mut specs = planned.splits;
        if specs.len() > 1 && !read.may_stop {
            self.share_snapshot(session, &read.stream, &mut specs, planned.whole).await?;
        } else {
            self.server.give_back(session);
        }
        specs.into_iter().map(|(spec, rows)| spec.split(&read.stream, rows)).collect()
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let [stream] = split.streams.as_slice() else {
            return Err(Error::internal("a split of a database has one stream"));
        };
        let spec = Spec::of(split)?;
        let session = self.session_for(&spec).await?;
        let end = read_split(&session, split, &spec, self.rules, stream, out).await.map_err(|e| e.stream(stream))?;
        if end.rest.is_none() {
            if let Some(snapshot) = &spec.snapshot {
                session.run("COMMIT").await?;
                self.read_to_end(snapshot);
            }
            self.server.give_back(session);
        }
        Ok(end)
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        let moving: Vec<StreamRead> = reads.iter().filter(|read| matches!(read.read, Read::Full | Read::Incremental(_))).cloned().collect();
        cursor::advance(&moving, state, ends)
    }
}

async fn read_split(session: &Session, split: &Split, spec: &Spec, rules: Rules, stream: &str, out: &mut Emitter) -> Result<SplitEnd> {
    let schema = spec.schema(rules);
    let delivered: Vec<usize> = (0..spec.columns.len() - spec.hidden).collect();
    let mut boundary = spec
        .cursor
        .as_ref()
        .map(|range| {
            let at = schema.index_of(&range.column)?;
            let t = schema.field(at).data_type();
            Boundary::new((at, t), range.reached.as_deref(), &range.upper, range.seen.clone(), range.exactly_once)
        })
        .transpose()?;
    let mut types = spec.types();
    for (column, t) in spec.columns.iter().zip(&mut types) {
        // Decoded as the text that the query asks for.
        if column.several_dimensions {
            *t = super::pg_type::PgType::parse("text");
        }
    }
    let decoder = Decoder::new(schema, &types, &spec.key, rules);
    let mut rows = CopyOut::start(session, &spec.query(rules), decoder, BatchSize::default()).await?;
    let facts = |boundary: &Option<Boundary>| boundary.as_ref().map_or(Ok(serde_json::Value::Null), Boundary::facts);
    while let Some(decoded) = rows.next().await? {
        let position = spec.position(&decoded.batch);
        let mut batch = decoded.batch;
        if let Some(boundary) = &mut boundary {
            batch = boundary.filter(batch)?;
        }
        if spec.hidden > 0 {
            batch = batch.project(&delivered)?;
        }
        for row in decoded.rejected {
            out.reject(stream, row).await?;
        }
        out.batch(stream, batch).await?;
        if let (true, Some(position)) = (out.should_stop(), position) {
            let rest = Spec { after: Some(position), ..spec.clone() }.split(stream, None)?;
            return Ok(SplitEnd::stopped(split, rest, facts(&boundary)?));
        }
    }
    Ok(SplitEnd::finished(split, facts(&boundary)?))
}
