//! `trib airbyte`: a manifest as an Airbyte connector, for somebody else's pipeline.

use std::io::{BufWriter, Stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use trib_connectors::manifest::Manifest;
use trib_connectors::manifest::protocol::Messages;
use trib_core::{Code, Error};

use crate::exit::{Exit, Result};

/// Be an Airbyte connector: run a declarative (low-code) manifest and speak the protocol on standard output
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// What the connector's configuration is made of
    #[command(before_help = "Example: trib airbyte spec --manifest manifest.yaml")]
    Spec(Spec),
    /// Whether the configuration works
    #[command(before_help = "Example: trib airbyte check --manifest manifest.yaml --config config.json")]
    Check(Configured),
    /// The streams on offer
    #[command(before_help = "Example: trib airbyte discover --manifest manifest.yaml --config config.json")]
    Discover(Configured),
    /// Records and states of the streams in a configured catalog
    #[command(
        before_help = "Example: trib airbyte read --manifest manifest.yaml --config config.json --catalog catalog.json --state state.json"
    )]
    Read(Read),
}

#[derive(clap::Args, Debug)]
struct Spec {
    /// The connector's YAML
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
}

#[derive(clap::Args, Debug)]
struct Configured {
    /// The connector's YAML
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The configuration, as JSON
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(clap::Args, Debug)]
struct Read {
    #[command(flatten)]
    configured: Configured,
    /// The configured catalog, as JSON
    #[arg(long, value_name = "FILE")]
    catalog: PathBuf,
    /// Where the last read has ended, as JSON: a list of state messages
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

type Out = Messages<BufWriter<Stdout>>;

/// Errors are messages of the protocol too: whoever runs a connector reads nothing else.
pub async fn run(args: &Args) -> Result<Exit> {
    let mut out = Messages::new(BufWriter::with_capacity(1 << 16, std::io::stdout()));
    match carry_out(args, &mut out).await {
        Ok(true) => Ok(Exit::Success),
        Ok(false) => Ok(Exit::Failed),
        Err(error) => {
            out.error(&error, None)?;
            Ok(Exit::Failed)
        }
    }
}

async fn carry_out(args: &Args, out: &mut Out) -> trib_core::Result<bool> {
    match &args.command {
        Command::Spec(args) => out.spec(&manifest(&args.manifest)?)?,
        Command::Check(args) => out.check(&manifest(&args.manifest)?, &json(&args.config)?).await?,
        Command::Discover(args) => out.discover(&manifest(&args.manifest)?, &json(&args.config)?).await?,
        Command::Read(args) => {
            let manifest = manifest(&args.configured.manifest)?;
            let state = args.state.as_deref().map(json).transpose()?;
            return out.read(&manifest, &json(&args.configured.config)?, &json(&args.catalog)?, state.as_ref()).await;
        }
    }
    Ok(true)
}

fn manifest(file: &Path) -> trib_core::Result<Arc<Manifest>> {
    Manifest::parse(file, &text(file)?)
}

fn json(file: &Path) -> trib_core::Result<Value> {
    // What stands in the file may be secret, and the parser's message does not show it.
    serde_json::from_str(&text(file)?).map_err(|e| {
        Error::new(Code::UsageInvalid, "the file is not JSON").file(file.display().to_string(), Some(e.line()), Some(e.column()))
    })
}

fn text(file: &Path) -> trib_core::Result<String> {
    std::fs::read_to_string(file).map_err(|e| Error::from(e).file(file.display().to_string(), None, None))
}
