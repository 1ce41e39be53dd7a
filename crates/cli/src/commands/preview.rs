//! `trib preview`

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use trib_core::{Code, Error, StreamRead};
use trib_engine::ChangeSource;
use trib_engine::catalog::execute;
use trib_engine::failure::query_error;

use crate::app::{Session, usage};
use crate::args::Select;
use crate::assemble::Ask;
use crate::exit::{Exit, Failure, Result};
use crate::models;
use crate::prepare::{self, Prepared, Wanted};
use crate::render::rows::{self, Format};
use crate::sample::{first_rows, transformed};

/// What a stream, its transforms applied, or a model would give, without writing
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib preview shop/public.orders --limit 5")]
pub struct Args {
    /// A model, or `sync/stream`; the sync alone when it has one stream
    node: String,
    /// Rows of the model, or rows that are read from the source
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Of a delivery: the one record with this key
    #[arg(long)]
    row: Option<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    if let Some(model) = session.project()?.models().iter().find(|m| m.name == args.node) {
        if model.is_script {
            let error = Error::new(Code::Unsupported, "a script is not run for a look at it")
                .hint("`trib run` runs it; `trib query` shows its table");
            return Err(model.at.mark(error).into());
        }
        let queries = models::queries(session, model).await?;
        let frame = queries.frame(&model.sql).await.and_then(|f| f.limit(0, Some(args.limit.max(1))).map_err(query_error));
        let (schema, rows) = execute(frame.map_err(|e| model.mark(e))?).await?;
        let format = if session.output.json { Format::Json } else { Format::Table };
        rows::write(&schema, rows, format, None, session.output).await?;
        return Ok(Exit::Success);
    }
    let prepared = one_stream(session, args).await?;
    if let Some(changes) = &prepared.changes {
        return requests(args, session, &prepared, changes).await;
    }
    if args.row.is_some() {
        return Err(usage("only a delivery has records to choose by key").hint("leave `--row` out, or ask with `trib query`").into());
    }
    let task = prepared.task.streams.first().ok_or_else(|| Error::internal("a stream was just found"))?;
    let read = StreamRead { may_stop: true, ..task.stream_read(1) };
    let place = |e: Error| e.stream(&task.spec.stream);
    let sample = first_rows(&prepared.task.source, &read, args.limit.max(1)).await.map_err(place)?;
    let batches = transformed(&session.engine()?, &task.spec, sample.batches).await.map_err(place)?;
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let format = if session.output.json { Format::Json } else { Format::Table };
    let stream = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
    rows::write(&schema, stream, format, None, session.output).await?;
    for row in sample.rejected {
        session.output.note(format!("rejected: {}: {}", row.place, row.reason));
    }
    Ok(Exit::Success)
}

/// The requests that a delivery would send, one JSON object a line.
async fn requests(args: &Args, session: &Session, prepared: &Prepared, changes: &ChangeSource) -> Result<Exit> {
    let task = prepared.task.streams.first().ok_or_else(|| Error::internal("a stream was just found"))?;
    let api = prepared.task.destination.deliveries().ok_or_else(|| Error::internal("a delivery goes to no API"))?;
    let rows = changes.rows(&task.spec.stream, args.limit.max(1)).await?;
    let requests = api.requests(&task.spec.table.name, &task.spec.key, rows).await?;
    if requests.is_empty() {
        session.output.note(match &args.row {
            Some(key) => format!("nothing would be sent: no row with the key {key} differs from what was delivered"),
            None => "nothing would be sent: what was delivered is what there is".to_owned(),
        });
    }
    let text = || requests.iter().map(|r| format!("{r:#}")).collect::<Vec<_>>().join("\n");
    session.output.either(|| requests.clone().into(), text);
    Ok(Exit::Success)
}

/// The one stream that is meant.
async fn one_stream(session: &Session, args: &Args) -> Result<Prepared> {
    let node = args.node.as_str();
    let selection = session.select(&Select { select: vec![node.to_owned()], exclude: Vec::new() }).await?;
    let project = session.project()?;
    let mut errors: Vec<Error> = Vec::new();
    let mut found: Vec<Prepared> = Vec::new();
    let ask = Ask { row: args.row.clone(), counts: true, ..Ask::default() };
    let wanted = Wanted { selection: &selection, ask: &ask, paused: &[] };
    for sync in project.syncs().iter().filter(|s| selection.contains(&s.name)) {
        for prepared in prepare::sync(session, sync, &wanted).await {
            match prepared {
                Ok(mut prepared) => {
                    errors.append(&mut prepared.errors);
                    found.push(prepared);
                }
                Err(Failure(mut more)) => errors.append(&mut more),
            }
        }
    }
    let streams: Vec<String> =
        found.iter().flat_map(|p| p.task.streams.iter().map(|s| format!("{}/{}", p.task.sync, s.spec.stream))).collect();
    match (streams.len(), errors.is_empty()) {
        (1, _) => found.into_iter().find(|p| !p.task.streams.is_empty()).ok_or_else(|| Error::internal("a stream was just found").into()),
        (0, false) => Err(Failure(errors)),
        (0, true) => {
            Err(usage("this is neither a model nor a stream of a sync").detail(node).hint("`trib query` shows what a table has").into())
        }
        _ => Err(usage("a preview shows one stream").detail(streams.join(", ")).hint("name one of them").into()),
    }
}
