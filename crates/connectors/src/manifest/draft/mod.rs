//! A first manifest for an API, from a sample request and its answer, or from an OpenAPI document. What it proposes works for the sample; what is guessed is
//! said, so that a person looks at it.

mod asked;
mod openapi;
mod pages;
mod sample;
mod schema;
mod write;

use serde_json::{Map, Value, json};
use trib_core::Result;
use trib_kit::http::Response;
use url::Url;

pub use self::asked::Asked;
pub use self::openapi::{Operations, from_openapi};
use self::pages::Pages;

/// The version of the format that drafts are written in.
const FORMAT: &str = "7.0.0";

/// A manifest in the making.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub streams: Vec<StreamDraft>,
    /// Of a connection: name, whether it is secret, what it is.
    pub settings: Vec<Setting>,
    /// What a person should know or look at.
    pub notes: Vec<String>,
    authenticator: Option<Value>,
    url_base: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub secret: bool,
    pub required: bool,
    pub description: String,
}

#[derive(Clone, Debug)]
pub struct StreamDraft {
    pub name: String,
    path: String,
    params: Map<String, Value>,
    headers: Map<String, Value>,
    /// Where the records stand in an answer.
    pub records: Vec<String>,
    pub key: Option<String>,
    pub cursor: Option<CursorDraft>,
    pages: Pages,
    schema: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorDraft {
    pub field: String,
    pub formats: Vec<String>,
}

impl Draft {
    /// From a request and what came back. `records` is where they stand, when the user knows.
    pub fn of_sample(name: &str, asked: &Asked, response: &Response, records: Option<Vec<String>>) -> Result<Self> {
        let body: Value = serde_json::from_slice(&response.body).map_err(|e| {
            trib_core::Error::new(trib_core::Code::DataInvalid, "the answer is not JSON")
                .detail(format!("{} answered {}", trib_kit::http::shown(&asked.url), response.status))
                .hint("drafts are made from JSON; a manifest can also decode CSV, XML and JSON lines: write it by hand")
                .source(e)
        })?;
        let parts = asked.parts();
        let found = sample::records(&body, records)?;
        let pages = Pages::of(&body, response, &asked.url, found.items.len());
        let (key, cursor) = (sample::key(&found.items, name), sample::cursor(&found.items));
        let mut notes = Vec::new();
        if found.items.is_empty() {
            notes.push("the sample had no records: the schema, the key and the cursor are missing".to_owned());
        }
        notes.extend(pages.note());
        if let Some(cursor) = &cursor {
            notes.push(format!(
                "incremental reads by {}: all is asked for, and what is known is left out; if the API filters, say how with `start_time_option`",
                cursor.field
            ));
        }
        let mut settings = parts.settings;
        if cursor.is_some() {
            let description = "The first run begins here, such as 2024-01-01T00:00:00Z".to_owned();
            settings.push(Setting { name: "start_date".to_owned(), secret: false, required: false, description });
        }
        let mut params = parts.params;
        params.retain(|name, _| !pages.asks_by(name));
        let stream = StreamDraft {
            name: name.to_owned(),
            path: parts.path,
            params,
            headers: parts.headers,
            records: found.path,
            schema: schema::of_records(&found.items, key.as_deref()),
            key,
            cursor,
            pages,
        };
        Ok(Self { streams: vec![stream], settings, notes, authenticator: parts.authenticator, url_base: parts.url_base })
    }

    /// The same without pages, for an API whose pages were guessed wrongly.
    #[must_use]
    pub fn without_pages(mut self) -> Self {
        self.streams.iter_mut().for_each(|s| s.pages = Pages::None);
        self
    }

    pub fn has_pages(&self) -> bool {
        self.streams.iter().any(|s| s.pages != Pages::None)
    }

    /// The manifest as YAML, notes first.
    pub fn to_yaml(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("# {note}\n")).collect();
        format!("{notes}{}", write::yaml(&self.to_value()))
    }

    fn to_value(&self) -> Value {
        let mut requester = json!({"type": "HttpRequester", "url_base": self.url_base});
        if let Some(authenticator) = &self.authenticator {
            requester["authenticator"] = authenticator.clone();
        }
        let properties: Map<String, Value> = self.settings.iter().map(|s| (s.name.clone(), s.schema())).collect();
        let required: Vec<&str> = self.settings.iter().filter(|s| s.required).map(|s| s.name.as_str()).collect();
        json!({
            "version": FORMAT,
            "type": "DeclarativeSource",
            "check": {"type": "CheckStream", "stream_names": self.streams.first().map(|s| vec![&s.name])},
            "definitions": {"requester": requester},
            "streams": self.streams.iter().map(StreamDraft::to_value).collect::<Vec<_>>(),
            "spec": {
                "type": "Spec",
                "connection_specification": {"type": "object", "required": required, "properties": properties},
            },
        })
    }
}

impl Setting {
    fn schema(&self) -> Value {
        let mut schema = json!({"type": "string", "description": self.description});
        if self.secret {
            schema["airbyte_secret"] = true.into();
        }
        schema
    }
}

impl StreamDraft {
    fn to_value(&self) -> Value {
        let mut requester = json!({"$ref": "#/definitions/requester", "path": self.path, "http_method": "GET"});
        if !self.params.is_empty() {
            requester["request_parameters"] = Value::Object(self.params.clone());
        }
        if !self.headers.is_empty() {
            requester["request_headers"] = Value::Object(self.headers.clone());
        }
        let mut retriever = json!({
            "type": "SimpleRetriever",
            "requester": requester,
            "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": self.records}},
        });
        if let Some(paginator) = self.pages.component() {
            retriever["paginator"] = paginator;
        }
        let mut stream = json!({"type": "DeclarativeStream", "name": self.name});
        if let Some(key) = &self.key {
            stream["primary_key"] = json!([key]);
        }
        if let Some(cursor) = &self.cursor {
            stream["incremental_sync"] = cursor.component();
        }
        stream["retriever"] = retriever;
        stream["schema_loader"] = json!({"type": "InlineSchemaLoader", "schema": self.schema});
        stream
    }
}

impl CursorDraft {
    fn component(&self) -> Value {
        json!({
            "type": "DatetimeBasedCursor",
            "cursor_field": self.field,
            "datetime_format": self.formats.first(),
            "cursor_datetime_formats": self.formats,
            "start_datetime": {
                "type": "MinMaxDatetime",
                "datetime": "{{ config.get('start_date', '1970-01-01T00:00:00Z') }}",
                "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
            },
            "is_client_side_incremental": true,
        })
    }
}

/// A base and a path, such that both together are the URL without its query.
fn split(url: &Url) -> (String, String) {
    let path = url.path().trim_end_matches('/');
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    (format!("{}{folder}/", url.origin().ascii_serialization()), last.to_owned())
}

#[cfg(test)]
mod tests;
