//! Reading: discovery, and splits read by `COPY`.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};
use trib_core::{Catalog, Code, Emitter, Error, Result, Source, Split, SplitEnd, State, StreamRead};
use trib_kit::cursor::{self, Boundary};

use super::WIRE;
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

/// A snapshot that nobody has begun to read from, or gone on with, for so long belongs to a load that has failed elsewhere.
const ABANDONED: Duration = Duration::from_mins(5);

/// A transaction that is kept open so that others can see what it sees. It reads splits too: then no plan waits for a connection that others hold
/// while they wait for one as well.
struct Snapshot {
    id: String,
    /// Splits that were not read to their end yet.
    open: usize,
    /// When it was last made use of.
    used: Instant,
    holder: Arc<Lock<Session>>,
}

/// The connection that a split is read by.
enum Reader {
    Own {
        session: Session,
        /// What it sees is in use for as long.
        _snapshot: Option<Arc<Lock<Session>>>,
    },
    Holder(OwnedMutexGuard<Session>),
}

impl Deref for Reader {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Reader::Own { session, .. } => session,
            Reader::Holder(session) => session,
        }
    }
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
    async fn share_snapshot(&self, session: Session, specs: &mut Vec<(Spec, Option<u64>)>, whole: Spec) -> Result<()> {
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
        let snapshot = Snapshot { id, open: specs.len(), used: Instant::now(), holder: Arc::new(Lock::new(session)) };
        self.snapshots().push(snapshot);
        Ok(())
    }

    fn snapshots(&self) -> MutexGuard<'_, Vec<Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Abandoned snapshots hold a connection, and hold back the server's vacuum, for nothing.
    fn drop_abandoned(&self) {
        self.snapshots().retain(|s| Arc::strong_count(&s.holder) > 1 || s.used.elapsed() < ABANDONED);
    }

    async fn session(&self) -> Result<Session> {
        let session = self.server.session();
        tokio::pin!(session);
        loop {
            tokio::select! {
                session = &mut session => return session,
                () = tokio::time::sleep(ABANDONED) => self.drop_abandoned(),
            }
        }
    }

    /// A connection that sees what the plan saw.
    async fn reader(&self, spec: &Spec) -> Result<Reader> {
        let Some(id) = &spec.snapshot else {
            return Ok(Reader::Own { session: self.session().await?, _snapshot: None });
        };
        let holder = self.snapshots().iter().find(|s| s.id == *id).map(|s| s.holder.clone());
        let session = match holder.clone() {
            Some(holder) => tokio::select! {
                biased;
                holder = holder.lock_owned() => return Ok(Reader::Holder(holder)),
                session = self.session() => session?,
            },
            // Another process has planned the read.
            None => self.session().await?,
        };
        let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", trib_kit::sql::literal(id));
        match session.client.batch_execute(&sql).await {
            Ok(()) => Ok(Reader::Own { session, _snapshot: holder }),
            Err(e) if error::is_state(&e, &["22023", "42704", "55000"]) => {
                Err(Error::new(Code::TransactionAborted, "the snapshot that the read was planned in is gone")
                    .hint("the read starts over by itself"))
            }
            Err(e) => Err(error::driver(e)),
        }
    }

    /// Gives a connection back whose split was read to its end, and the snapshot's own one after the last split.
    async fn done(&self, reader: Reader, snapshot: Option<&str>) -> Result<()> {
        match (reader, snapshot) {
            (Reader::Own { session, .. }, Some(_)) => {
                session.run("COMMIT").await?;
                self.server.give_back(session);
            }
            (Reader::Own { session, .. }, None) => self.server.give_back(session),
            (Reader::Holder(holder), _) => drop(holder),
        }
        let ended = {
            let mut snapshots = self.snapshots();
            let at = snapshots.iter().position(|s| Some(s.id.as_str()) == snapshot);
            at.and_then(|at| {
                snapshots[at].open = snapshots[at].open.saturating_sub(1);
                snapshots[at].used = Instant::now();
                (snapshots[at].open == 0).then(|| snapshots.swap_remove(at))
            })
        };
        if let Some(session) = ended.and_then(|s| Arc::into_inner(s.holder)).map(Lock::into_inner) {
            session.run("COMMIT").await?;
            self.server.give_back(session);
        }
        Ok(())
    }
}

/// Gives the snapshot up when the read of one of its splits fails, or is given up: the load is lost.
struct Unfinished<'a> {
    source: &'a PostgresSource,
    snapshot: Option<&'a str>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.snapshot {
            self.source.snapshots().retain(|s| s.id != id);
        }
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
        self.drop_abandoned();
        let before = cursor::CursorState::of(state, read)?;
        if !before.left.is_empty() {
            return plan::rest(&before.left);
        }
        let session = self.session().await?;
        let relation = self.relation(&session, &read.stream).await?;
        let planned = plan::plan(&session, &relation, read, before).await.map_err(|e| e.stream(&read.stream))?;
        let mut specs = planned.splits;
        if specs.len() > 1 && !read.may_stop {
            self.share_snapshot(session, &mut specs, planned.whole).await?;
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
        let mut unfinished = Unfinished { source: self, snapshot: spec.snapshot.as_deref() };
        let reader = self.reader(&spec).await?;
        let end = read_split(&reader, split, &spec, self.rules, stream, out).await.map_err(|e| e.stream(stream))?;
        // A connection that stands in the middle of its `COPY` is closed.
        if end.rest.is_none() {
            self.done(reader, unfinished.snapshot.take()).await?;
        }
        Ok(end)
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        cursor::advance(reads, state, ends)
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
    let mut decoder = Decoder::new(schema, &types, &spec.key, rules);
    let mut size = BatchSize::default();
    if out.takes(WIRE) && spec.reads_blindly() {
        decoder = decoder.keeping_rows(&types);
        size = BatchSize::SMALL;
    }
    let mut rows = CopyOut::start(session, &spec.query(rules), decoder, size).await?;
    let facts = |boundary: &Option<Boundary>| boundary.as_ref().map_or(Ok(serde_json::Value::Null), Boundary::facts);
    while let Some(decoded) = rows.next().await? {
        let mut batch = decoded.batch;
        let stop = if out.should_stop() { spec.stop(&batch) } else { None };
        if let Some((before, _)) = &stop {
            batch = batch.slice(0, *before);
        }
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
        if let Some((_, position)) = stop {
            let rest = Spec { after: Some(position), ..spec.clone() }.split(stream, None)?;
            return Ok(SplitEnd::stopped(split, rest, facts(&boundary)?));
        }
    }
    Ok(SplitEnd::finished(split, facts(&boundary)?))
}
