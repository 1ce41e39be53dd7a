//! A script as a source: a program that is given tables as files, and whose output is its table.
//!
//! It is run once, before anything is planned, since only its output tells which columns it gives; what it gives waits on disk. From there on it is a stream like any
//! other.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::json::reader::infer_json_schema;
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::Value;
use tempfile::TempDir;
use trib_core::name::system;
use trib_core::{Catalog, Code, Emitter, Error, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};
use trib_kit::process::{Process, Program};
use trib_kit::sql::ANSI;

use crate::attended::{Ended, attended};
use crate::catalog::{Queries, plain, result_schema};

/// Rows of JSON whose types are looked at where none are declared.
const LOOKED_AT: usize = 10_000;

/// The form of the files that a script is given, and of what it writes to its standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Arrow IPC streams.
    Arrow,
    /// JSON Lines: an object for each row.
    Json,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Arrow => "arrow",
            Format::Json => "jsonl",
        }
    }
}

pub struct Script {
    /// What to run; the folder with the tables becomes its last argument.
    pub program: Program,
    /// What errors call it.
    pub name: String,
    pub format: Format,
    /// The tables that it is given, as `FOLDER/<name>.<extension>`: each by its name, and as SQL names it.
    pub reads: Vec<(String, String)>,
    pub timeout: Duration,
    /// Types of columns, where the format has none of its own.
    pub declared: Vec<Field>,
}

/// What a script has made. The files are removed with it.
pub struct Made {
    file: PathBuf,
    format: Format,
    /// As the file has it.
    stored: SchemaRef,
    pub schema: SchemaRef,
    pub name: String,
    _folder: TempDir,
}

impl Script {
    /// Gives the script its tables, runs it, and keeps what it gives in a folder below `spill`. `log` gets what it says on standard error, line by line.
    pub async fn run(&self, queries: &Queries, spill: &Path, log: impl Fn(String)) -> Result<Made> {
        let folder = tempfile::Builder::new().prefix("script-").tempdir_in(spill)?;
        let inputs = folder.path().join("tables");
        std::fs::create_dir(&inputs)?;
        for (name, table) in &self.reads {
            self.give(queries, table, &inputs.join(format!("{name}.{}", self.format.extension()))).await?;
        }
        let file = folder.path().join("result");
        let mut program = self.program.clone();
        program.args.push(inputs.to_string_lossy().into_owned());
        self.listen(&program, &file, log).await?;
        let stored = self.stored(&file)?;
        let schema = result_schema(&stored)?;
        Ok(Made { file, format: self.format, stored, schema, name: self.name.clone(), _folder: folder })
    }

    /// One table, without the columns that are ours.
    async fn give(&self, queries: &Queries, table: &str, file: &Path) -> Result<()> {
        let schema = queries.schema(&format!("select * from {table}")).await?;
        let theirs = schema.fields().iter().map(|f| f.name()).filter(|n| !n.starts_with(system::PREFIX));
        let columns: Vec<String> = theirs.map(|n| ANSI.identifier(n)).collect();
        let (schema, mut rows) = queries.rows(&format!("select {} from {table}", columns.join(", "))).await?;
        let mut file = BufWriter::new(File::create(file)?);
        match self.format {
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(&mut file, &schema)?;
                while let Some(batch) = rows.next().await {
                    writer.write(&batch?)?;
                }
                writer.finish()?;
            }
            Format::Json => {
                let mut writer = LineDelimitedWriter::new(&mut file);
                while let Some(batch) = rows.next().await {
                    writer.write(&batch?)?;
                }
                writer.finish()?;
            }
        }
        Ok(file.flush()?)
    }

    async fn listen(&self, program: &Program, file: &Path, log: impl Fn(String)) -> Result<()> {
        let mut process = Process::start(program, &self.name)?;
        let result = tokio::fs::File::create(file).await?;
        match attended(&mut process, result, self.timeout, log).await? {
            Ended::Well => Ok(()),
            Ended::Badly(e) => {
                Err(Error::new(Code::ScriptFailed, "the script has failed").detail(e.detail_text().unwrap_or_default()).source(e))
            }
            Ended::Late => Err(Error::new(Code::ScriptFailed, "the script took longer than it may")
                .detail(format!("{} s", self.timeout.as_secs()))
                .hint("raise `timeout:` in its front matter")),
        }
    }

    fn stored(&self, file: &Path) -> Result<SchemaRef> {
        let mut reader = BufReader::new(File::open(file)?);
        if reader.fill_buf()?.is_empty() && (self.format == Format::Arrow || self.declared.is_empty()) {
            return Err(Error::new(Code::ScriptFailed, "the script has written nothing to its standard output")
                .hint("it writes its rows there, and what it has to say to standard error"));
        }
        match self.format {
            Format::Arrow => Ok(StreamReader::try_new(reader, None).map_err(misread)?.schema()),
            Format::Json => {
                let (found, _) = infer_json_schema(reader, Some(LOOKED_AT)).map_err(misread)?;
                let mut fields = self.declared.clone();
                let known = |f: &Field| self.declared.iter().any(|d| d.name() == f.name());
                fields.extend(found.fields().iter().map(|f| f.as_ref().clone()).filter(|f| !known(f)));
                Ok(std::sync::Arc::new(Schema::new(fields)))
            }
        }
    }
}

fn misread(e: arrow::error::ArrowError) -> Error {
    Error::new(Code::ScriptFailed, "what the script has written to its standard output cannot be read")
        .source(e)
        .hint("nothing else may be printed there; `format: json` takes JSON Lines, otherwise it is an Arrow IPC stream")
}

impl Made {
    /// Its rows, in the types of [`Made::schema`].
    pub fn rows(&self) -> Result<Vec<RecordBatch>> {
        self.batches()?.map(|batch| plain(&batch?, &self.schema)).collect()
    }

    /// What the script has written, as it was written.
    fn batches(&self) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let reader = BufReader::new(File::open(&self.file)?);
        Ok(match self.format {
            Format::Arrow => Box::new(StreamReader::try_new(reader, None).map_err(misread)?.map(|b| b.map_err(misread))),
            Format::Json => Box::new(ReaderBuilder::new(self.stored.clone()).build(reader).map_err(misread)?.map(|b| b.map_err(misread))),
        })
    }
}

#[async_trait]
impl Source for Made {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        let mut stream = Stream::new(&self.name, &self.name, self.schema.clone());
        stream.read_modes = vec![ReadMode::Full];
        Ok(Catalog { streams: vec![stream] })
    }

    async fn plan(&self, reads: &[StreamRead], _: &State) -> Result<Vec<Split>> {
        Ok(reads.iter().map(|read| Split::new(&read.stream, serde_json::json!({"columns": read.columns}))).collect())
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let columns: Option<Vec<String>> = serde_json::from_value(split.spec["columns"].clone())?;
        for batch in self.batches()? {
            let mut batch = plain(&batch?, &self.schema)?;
            if let Some(columns) = &columns {
                let at: Result<Vec<usize>, _> = columns.iter().map(|c| self.schema.index_of(c)).collect();
                batch = batch.project(&at?)?;
            }
            out.batch(&self.name, batch).await?;
        }
        Ok(SplitEnd::finished(split, Value::Null))
    }

    fn advance(&self, _: &[StreamRead], state: &State, _: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }
}
