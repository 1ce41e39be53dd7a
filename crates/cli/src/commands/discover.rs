//! `trib discover`

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde_json::{Value, json};
use std::sync::Arc;
use trib_core::{Catalog, Code, Error, Stream};

use crate::app::{Session, usage};
use crate::exit::{Exit, Result};
use crate::objects;
use crate::output;
use crate::render::amount::{bytes, count};
use crate::render::rows::texts;
use crate::render::table::{Column, left, render, right};
use crate::sample::{first_rows, whole};

/// What a connection offers: its streams, one stream's columns, first rows, or a sync to begin with
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib discover shop public.orders --sample 10")]
pub struct Args {
    connection: String,
    /// Only this stream, with its columns
    stream: Option<String>,
    /// Also so many of its first rows
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "10", requires = "stream")]
    sample: Option<usize>,
    /// Write syncs/CONNECTION.yaml, with keys and cursors proposed
    #[arg(long, conflicts_with_all = ["stream", "sample"])]
    write: bool,
    /// Objects that records can be sent to, or the fields of the one that is named, as the API tells of them
    #[arg(long, conflicts_with_all = ["sample", "write"])]
    objects: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    // What can only be written to is asked for its objects.
    if args.objects || session.connection(&args.connection)?.1.source.is_none() {
        let destination = session.destination(&args.connection)?;
        let api = destination.deliveries().ok_or_else(|| objects::none(&args.connection))?;
        objects::show(session, api, args.stream.as_deref()).await?;
        return Ok(Exit::Success);
    }
    let source = session.source(&args.connection)?;
    let only: Vec<String> = args.stream.iter().cloned().collect();
    let catalog = source.discover(&only).await?;
    let width = output::width();
    if let Some(name) = &args.stream {
        let stream = catalog.stream(name).map_err(|e| e.connection(&args.connection))?;
        let sample = match args.sample {
            None => None,
            Some(rows) => Some(first_rows(&source, &whole(stream), rows).await.map_err(|e| e.connection(&args.connection).stream(name))?),
        };
        let batches = sample.as_ref().map(|s| s.batches.as_slice()).unwrap_or_default();
        let rows: Vec<Value> = batches.iter().flat_map(|b| (0..b.num_rows()).map(|i| Value::Object(trib_kit::object::row(b, i)))).collect();
        let table = if sample.is_some() { sample_table(&stream.schema, batches, width)? } else { String::new() };
        session.output.either(
            || {
                let mut value = to_json(stream);
                if sample.is_some() {
                    value["sample"] = rows.into();
                }
                value
            },
            || format!("{}{table}", columns(stream, width)),
        );
    } else if args.write {
        let file = write(session, &args.connection, &catalog)?;
        session
            .output
            .either(|| json!({"written": file}), || format!("{file}: written; look it over, then `trib plan {}`", args.connection));
    } else {
        session.output.either(|| catalog.streams.iter().map(to_json).collect(), || list(&catalog.streams, width));
    }
    Ok(Exit::Success)
}

fn list(streams: &[Stream], width: Option<usize>) -> String {
    if streams.is_empty() {
        return "the connection offers no streams: check what its user may see".to_owned();
    }
    let columns = [left("stream"), left("key"), left("cursors"), right("columns"), right("rows"), right("size"), left("read as")];
    let row = |s: &Stream| {
        let modes: Vec<&str> = s.read_modes.iter().map(|m| m.as_str()).collect();
        vec![
            s.name.clone(),
            s.primary_key.join(", "),
            s.cursors.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
            s.schema.fields().len().to_string(),
            s.rows.map(count).unwrap_or_default(),
            s.bytes.map(bytes).unwrap_or_default(),
            modes.join(", "),
        ]
    };
    render(&columns, &streams.iter().map(row).collect::<Vec<_>>(), width)
}

fn columns(stream: &Stream, width: Option<usize>) -> String {
    let mut out = stream.name.clone();
    if let Some(description) = &stream.description {
        let _ = write!(out, ": {description}");
    }
    out.push('\n');
    let marks = |name: &String| {
        let key = stream.primary_key.contains(name).then_some("key");
        let cursor = stream.cursors.contains(name).then_some("cursor");
        [key, cursor].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let row = |f: &Arc<arrow::datatypes::Field>| {
        let null = if f.is_nullable() { "" } else { "not null" };
        vec![f.name().clone(), f.data_type().to_string(), null.to_owned(), marks(f.name())]
    };
    let rows: Vec<Vec<String>> = stream.schema.fields().iter().map(row).collect();
    out + &render(&[left("column"), left("type"), left(""), left("")], &rows, width)
}

fn sample_table(schema: &Schema, batches: &[RecordBatch], width: Option<usize>) -> Result<String> {
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(texts(batch)?);
    }
    let columns: Vec<Column> =
        schema.fields().iter().map(|f| Column { name: f.name().clone(), right: f.data_type().is_numeric() }).collect();
    Ok(format!("\n{}", render(&columns, &rows, width)))
}

fn to_json(stream: &Stream) -> Value {
    let columns: Vec<Value> = stream
        .schema
        .fields()
        .iter()
        .map(|f| json!({"name": f.name(), "type": f.data_type().to_string(), "nullable": f.is_nullable()}))
        .collect();
    json!({
        "name": stream.name, "schema": stream.schema_name, "table": stream.table, "columns": columns, "primary_key": stream.primary_key,
        "cursors": stream.cursors, "read_modes": stream.read_modes, "rows": stream.rows, "bytes": stream.bytes,
        "description": stream.description,
    })
}

/// Writes the proposal, and gives the file's name. What is there already is never touched.
fn write(session: &Session, connection: &str, catalog: &Catalog) -> Result<String> {
    let dir = session.project_dir()?;
    let file = format!("syncs/{connection}.yaml");
    if dir.join(&file).exists() {
        return Err(usage("the sync is there already")
            .detail(file)
            .hint("`trib discover` without `--write` shows what could be added")
            .into());
    }
    if catalog.streams.is_empty() {
        let error = Error::new(Code::NotFound, "the connection offers no streams").connection(connection);
        return Err(error.hint("check what its user may see").into());
    }
    let text = trib_project::format::format_yaml(&trib_project::template::sync(connection, catalog))?;
    std::fs::create_dir_all(dir.join("syncs"))?;
    std::fs::write(dir.join(&file), text)?;
    Ok(file)
}
