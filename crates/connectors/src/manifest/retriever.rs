//! Reads a slice page by page.

use std::sync::Arc;

use serde_json::Value;
use trib_core::Result;
use trib_kit::http::Response;

use super::cursor::Bounds;
use super::decode::Decoder;
use super::env::Env;
use super::node::Node;
use super::options::Options;
use super::paginator::{Page, Paginator};
use super::properties::{self, QueryProperties, deep_merge};
use super::requester::{Answer, Call, Requester};
use super::selector::{Extractor, Selector};
use super::slice::Slice;

/// What the stream around a retriever adds to it.
#[derive(Default)]
pub(super) struct Place {
    pub(super) use_cache: bool,
    /// The cursor filters records, before they are given out.
    pub(super) client_side: bool,
    /// Records come newest first: reading ends with the first that is too old.
    pub(super) data_feed: bool,
    pub(super) injections: Injections,
}

/// What the slice puts into requests, by routers and by the cursor.
pub(super) type Injections = Vec<Box<dyn Fn(&Env, &Slice, &mut Options) -> Result<()> + Send + Sync>>;

pub(super) struct Retriever {
    requester: Requester,
    decoder: Decoder,
    selector: Selector,
    paginator: Option<Paginator>,
    properties: Option<QueryProperties>,
    ignore_slice_on_pages: bool,
    place: Place,
}

/// How far a slice was read.
pub(super) struct PageState {
    slice: Slice,
    token: Option<Value>,
    done: bool,
}

impl PageState {
    pub(super) fn new(slice: Slice, retriever: &Retriever) -> Self {
        Self { slice, token: retriever.first_token(), done: false }
    }
}

/// One answer, taken apart.
struct Fetched {
    response: Response,
    body: Value,
    raw_count: usize,
    records: Vec<Value>,
}

impl Retriever {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, transforms: &[Node<'_>], place: Place) -> Result<Self> {
        if node.kind() != "SimpleRetriever" {
            return Err(node.unsupported());
        }
        for part in ["pagination_reset", "page_size_reduction", "request_window_splitting"] {
            if let Some(part) = node.get(part) {
                return Err(part.unsupported());
            }
        }
        let requester = node.need("requester")?;
        Ok(Self {
            requester: Requester::build(env, &requester, place.use_cache)?,
            decoder: Decoder::optional(node, "decoder")?,
            selector: Selector::build(&node.need("record_selector")?, transforms, place.client_side)?,
            paginator: node.get("paginator").map_or(Ok(None), |p| Paginator::build(&p))?,
            properties: QueryProperties::build(env, &requester)?,
            ignore_slice_on_pages: node.flag("ignore_stream_slicer_parameters_on_paginated_requests"),
            place,
        })
    }

    /// One that only downloads: no filter, no changes.
    pub(super) fn plain(requester: Requester, decoder: Decoder, extractor: Extractor, paginator: Option<Paginator>) -> Self {
        Self {
            requester,
            decoder,
            selector: Selector::plain(extractor),
            paginator,
            properties: None,
            ignore_slice_on_pages: false,
            place: Place::default(),
        }
    }

    fn first_token(&self) -> Option<Value> {
        self.paginator.as_ref().and_then(Paginator::first_token)
    }

    pub(super) fn normalizes(&self) -> bool {
        self.selector.normalizes()
    }

    /// The records of the next page, which may be none; `None` after the last page.
    pub(super) async fn next_page(
        &self,
        env: &Env,
        state: &mut PageState,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Option<Vec<Value>>> {
        if state.done {
            return Ok(None);
        }
        let Some((last, mut records)) = self.read_page(env, state, schema, bounds).await? else {
            state.token = self.first_token();
            return Ok(Some(Vec::new()));
        };
        match &last {
            Some(last) => {
                state.token = self.next_token(env, state, last, &records, bounds)?;
                state.done = state.token.is_none();
            }
            None => state.done = true,
        }
        if let (true, Some(bounds)) = (self.place.data_feed, bounds) {
            records.retain(|r| bounds.wants(r));
        }
        Ok(Some(records))
    }

    /// The page's records, with the last answer unless that ends the pages. `None` is that reading starts over.
    async fn read_page(
        &self,
        env: &Env,
        state: &PageState,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Option<(Option<Fetched>, Vec<Value>)>> {
        let Some(properties) = &self.properties else {
            return Ok(match self.fetch(env, &state.slice, state.token.as_ref(), schema, bounds).await? {
                Outcome::Reset => None,
                Outcome::End => Some((None, Vec::new())),
                Outcome::Page(mut page) => {
                    let records = std::mem::take(&mut page.records);
                    Some((Some(page), records))
                }
            });
        };
        let mut merged: Vec<(String, Value)> = Vec::new();
        let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        let mut records = Vec::new();
        let mut last = None;
        for chunk in properties.chunks(env).await? {
            let slice = state.slice.with_extra(properties::EXTRA, chunk.into());
            match self.fetch(env, &slice, state.token.as_ref(), schema, bounds).await? {
                Outcome::Reset => return Ok(None),
                Outcome::End => last = None,
                Outcome::Page(mut page) => {
                    for record in std::mem::take(&mut page.records) {
                        match properties.chunking.as_ref().and_then(|c| c.key_of(&record)) {
                            None => records.push(record),
                            Some(key) => match places.get(&key) {
                                Some(at) => deep_merge(&mut merged[*at].1, record),
                                None => {
                                    places.insert(key.clone(), merged.len());
                                    merged.push((key, record));
                                }
                            },
                        }
                    }
                    last = Some(page);
                }
            }
        }
        records.extend(merged.into_iter().map(|(_, record)| record));
        Ok(Some((last, records)))
    }

    fn next_token(
        &self,
        env: &Env,
        state: &PageState,
        page: &Fetched,
        records: &[Value],
        bounds: Option<&Bounds>,
    ) -> Result<Option<Value>> {
        let Some(paginator) = &self.paginator else { return Ok(None) };
        let last_record = records.last();
        if self.place.data_feed
            && let (Some(bounds), Some(record)) = (bounds, last_record)
            && !bounds.wants(record)
        {
            return Ok(None);
        }
        let facts = Page { response: &page.response, body: &page.body, raw_count: page.raw_count, emitted: records.len(), last_record };
        paginator.next(env, &facts, state.token.as_ref(), &state.slice)
    }

    async fn fetch(
        &self,
        env: &Env,
        slice: &Slice,
        token: Option<&Value>,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Outcome> {
        let wrapped = token.map(|t| Value::Object([("next_page_token".to_owned(), t.clone())].into_iter().collect()));
        let path = self.paginator.as_ref().and_then(|p| p.path(token));
        let mut extra = self.paginator.as_ref().map_or(Ok(Options::default()), |p| p.options(env, token))?;
        if token.is_none() || !self.ignore_slice_on_pages {
            for inject in &self.place.injections {
                let mut own = Options::default();
                inject(env, slice, &mut own)?;
                extra.merge(own)?;
            }
        }
        let call = Call { slice, token: wrapped.as_ref(), path: path.as_deref() };
        let response = match self.requester.send(env, call, extra).await? {
            Answer::Reset => return Ok(Outcome::Reset),
            // An error that the manifest lets pass: no records, and no more pages.
            Answer::Response(response) if !response.ok() => return Ok(Outcome::End),
            Answer::Response(response) => response,
        };
        let mut values = self.decoder.decode(&response)?;
        let keep = self.keeps_body();
        let raw = self.selector.extractor.extract(env, &mut values, keep)?;
        let body = if self.decoder.is_stream() { None } else { values.into_iter().next() };
        let body = body.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let raw_count = raw.len();
        let client_side = bounds.filter(|_| self.place.client_side).map(|b| |record: &Value| b.wants(record));
        let wanted = client_side.as_ref().map(|f| f as &dyn Fn(&Value) -> bool);
        let records = self.selector.select(env, slice, raw, schema, wanted)?;
        Ok(Outcome::Page(Fetched { response, body, raw_count, records }))
    }

    /// Whether the paginator looks at the records within the answer, so that they have to be copied out of it.
    fn keeps_body(&self) -> bool {
        let Some(paginator) = &self.paginator else { return false };
        match self.selector.extractor.names() {
            Some(names) => paginator.looks_at(&names),
            None => paginator.looks_at(&[""]),
        }
    }
}

enum Outcome {
    Page(Fetched),
    End,
    Reset,
}
