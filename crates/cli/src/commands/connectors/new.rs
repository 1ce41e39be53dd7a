//! `trib connectors new`

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trib_connectors::manifest::Manifest;
use trib_connectors::manifest::draft::{Asked, Draft, from_openapi};
use trib_core::{Code, Error};
use trib_kit::http::{Client, Response, shown};
use trib_kit::scrub::Scrub;
use trib_project::lock::{FOLDER, manifest_file};
use url::Url;

use super::project_dir;
use crate::app::{Session, usage};
use crate::exit::{Exit, Result};
use crate::hub::bench::read;
use crate::hub::place::Place;
use crate::output;

const PATIENCE: Duration = Duration::from_secs(60);
/// Pages that show whether pages were guessed rightly.
const TRIED_PAGES: usize = 2;

/// Write a manifest for an API: from a sample request, which is made, or from an OpenAPI document
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors new orders --url https://api.example.com/v1/orders --header 'Authorization: Bearer …'")]
pub struct Args {
    /// What the connector is called
    name: String,
    /// A request that gives records: the whole URL, with its query
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A header of the request; credentials become settings, and are written nowhere
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Where the records stand in the answer, such as data.items; found when left out
    #[arg(long, value_name = "PATH")]
    records: Option<String>,
    /// What the stream is called; the URL's last part when left out
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// An OpenAPI 3 document: each of its lists becomes a stream
    #[arg(long, value_name = "URL|FILE", conflicts_with_all = ["url", "records", "stream"])]
    openapi: Option<String>,
    /// Only these paths of the document
    #[arg(long = "path", value_name = "PATH", requires = "openapi")]
    paths: Vec<String>,
    /// Replace a file of this name
    #[arg(long)]
    force: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let dir = project_dir(session)?;
    if args.name.is_empty() || !args.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(usage("this is no name for a connector")
            .detail(format!("`{}`", args.name))
            .hint("letters, digits, `-` and `_`")
            .into());
    }
    let file = manifest_file(&dir, &args.name);
    let place = file.strip_prefix(&dir).unwrap_or(&file).display().to_string();
    if file.exists() && !args.force {
        return Err(usage("the project has a connector of this name").file(place, None, None).hint("`--force` replaces the file").into());
    }
    let made = match &args.openapi {
        Some(document) => of_document(document, &args.paths).await?,
        None => of_request(args, &file).await?,
    };
    let text = made.draft.to_yaml();
    // What is written must be right: a draft that is not is our mistake.
    Manifest::parse(&file, &text)?;
    std::fs::create_dir_all(dir.join(FOLDER))?;
    std::fs::write(&file, &text).map_err(|e| Error::from(e).file(&place, None, None))?;
    let streams: Vec<&str> = made.draft.streams.iter().map(|s| s.name.as_str()).collect();
    session.output.either(
        || {
            let stream = |s: &trib_connectors::manifest::draft::StreamDraft| {
                json!({"name": s.name, "records": s.records, "key": s.key, "cursor": s.cursor.as_ref().map(|c| &c.field)})
            };
            json!({"connector": args.name, "file": place, "streams": made.draft.streams.iter().map(stream).collect::<Vec<_>>(), "read": made.read,
                   "notes": made.draft.notes, "left_out": made.left_out})
        },
        || format!("{place}: {}{}", streams.join(", "), made.read.map(|n| format!("; {n} records read with it")).unwrap_or_default()),
    );
    for note in &made.draft.notes {
        session.output.note(format!("note: {note}"));
    }
    if !made.left_out.is_empty() {
        session.output.note(format!("note: {} operations were left out, such as {}", made.left_out.len(), made.left_out[0]));
    }
    session.output.note(format!("\n# connections.yaml\n{}", connection(&args.name, &made.draft)));
    session.output.note(format!("\nsee it at work: trib connectors dev {place}"));
    Ok(Exit::Success)
}

struct Made {
    draft: Draft,
    /// Records that a trial has read.
    read: Option<usize>,
    left_out: Vec<String>,
}

async fn of_document(document: &str, paths: &[String]) -> Result<Made> {
    let place = Place::parse(document)?;
    let from = if let Place::Url(url) = &place { Some(url.clone()) } else { None };
    let operations = from_openapi(&place.to_string(), &place.read().await?, from.as_ref(), paths)?;
    let left_out = operations.left_out.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    Ok(Made { draft: operations.draft, read: None, left_out })
}

async fn of_request(args: &Args, file: &Path) -> Result<Made> {
    let asked = asked(args)?;
    let last = asked.url.path_segments().and_then(|mut s| s.rfind(|s| !s.is_empty()).map(str::to_owned)).unwrap_or_default();
    let stem = last.split('.').next().unwrap_or_default().replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_lowercase();
    let stream = args.stream.clone().or_else(|| Some(stem).filter(|s| !s.is_empty())).unwrap_or_else(|| args.name.clone());
    let response = Client::new(concat!("tributary/", env!("CARGO_PKG_VERSION")), PATIENCE)?.send(asked.request()).await?;
    refused(&asked, &response)?;
    let records = args.records.as_ref().map(|path| path.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect());
    let mut draft = Draft::of_sample(&stream, &asked, &response, records)?;
    let config = asked.config();
    let mut pages = tried(file, &draft, &config).await?;
    if draft.has_pages() && repeats(&pages) {
        draft = draft.without_pages();
        draft
            .notes
            .push("the second page was the first one again: the way to ask for pages was guessed wrongly and is left out".to_owned());
        pages = tried(file, &draft, &config).await?;
    }
    Ok(Made { draft, read: Some(pages.iter().map(Vec::len).sum()), left_out: Vec::new() })
}

fn asked(args: &Args) -> Result<Asked> {
    let interactive = output::is_interactive();
    let mut headers = args.headers.clone();
    let text = match &args.url {
        Some(url) => url.clone(),
        None if interactive => {
            let url = output::ask("URL of a request that gives records:").unwrap_or_default();
            while let Some(header) = output::ask("Header, such as `Authorization: Bearer …` (empty: no more):").filter(|h| !h.is_empty())
            {
                headers.push(header);
            }
            url
        }
        None => return Err(usage("there is no request to begin with").hint("give one with --url, or a document with --openapi").into()),
    };
    let url = Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| usage("this is no URL of an API").hint("such as https://api.example.com/v1/orders?status=open"))?;
    let header = |text: &String| -> trib_core::Result<(String, String)> {
        let (name, value) = text.split_once(':').ok_or_else(|| usage("a header is written as `NAME: VALUE`"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(Asked { url, headers: headers.iter().map(header).collect::<trib_core::Result<_>>()? })
}

/// An answer that is a failure is no sample.
fn refused(asked: &Asked, response: &Response) -> trib_core::Result<()> {
    if response.ok() {
        return Ok(());
    }
    let (code, message) = match response.status {
        401 => (Code::AuthFailed, "the API does not accept the credentials"),
        403 => (Code::PermissionDenied, "the API does not permit this with these credentials"),
        404 => (Code::NotFound, "the API has nothing under this address"),
        429 => (Code::RateLimited, "the API asks for fewer requests"),
        500.. => (Code::Unavailable, "the API could not answer"),
        _ => (Code::SystemError, "the API refuses the request"),
    };
    let config = asked.config();
    let secrets = config.as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str());
    let told: String = Scrub::new(secrets).body(&response.body).chars().take(300).collect();
    let error = Error::new(code, message).detail(format!("{} answered {}: {told}", shown(&asked.url), response.status));
    Err(match code {
        Code::AuthFailed | Code::PermissionDenied => error.hint("credentials go into --header, such as --header 'Authorization: Bearer …'"),
        _ => error,
    })
}

/// The first pages that the draft itself reads.
async fn tried(file: &Path, draft: &Draft, config: &Value) -> trib_core::Result<Vec<Vec<Value>>> {
    let manifest = Manifest::parse(file, &draft.to_yaml())?;
    let opened = Arc::new(manifest.open(config)?);
    let Some(stream) = draft.streams.first() else { return Ok(Vec::new()) };
    let read = read(&opened, &stream.name, Some(TRIED_PAGES)).await?;
    read.error.map_or(Ok(read.pages), Err)
}

/// Whether any record came twice.
fn repeats(pages: &[Vec<Value>]) -> bool {
    let mut seen = HashSet::new();
    !pages.iter().flatten().all(|record| seen.insert(record.to_string()))
}

/// What the user writes to use the connector; secrets as variables.
fn connection(name: &str, draft: &Draft) -> String {
    let mut settings = vec![format!("connector: {name}")];
    for setting in draft.settings.iter().filter(|s| s.required) {
        let variable = format!("{name}_{}", setting.name).to_uppercase().replace('-', "_");
        settings.push(format!("{}: \"${{{variable}}}\"", setting.name));
    }
    format!("{name}: {{{}}}", settings.join(", "))
}
