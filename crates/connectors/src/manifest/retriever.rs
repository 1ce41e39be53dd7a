//! Reads a slice page by page.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::{Response, shown};

use super::cursor::{Bounds, WindowRule};
use super::decode::{self, Decoder};
use super::env::Env;
use super::node::Node;
use super::options::Options;
use super::paginator::{Page, Paginator};
use super::properties::{self, QueryProperties, deep_merge};
use super::records::{Record, Records};
use super::recovery::{Progress, Recovery};
use super::requester::{Answer, Call, Refusal, Requester};
use super::selector::{Extractor, Found, Selector};
use super::slice::Slice;

/// An answer that is cut off is asked for so often at most.
const ATTEMPTS: u32 = 3;

/// What the stream around a retriever adds to it.
#[derive(Default)]
pub(super) struct Place {
    pub(super) use_cache: bool,
    /// The cursor filters records, before they are given out.
    pub(super) client_side: bool,
    /// Records come newest first: reading ends with the first that is too old.
    pub(super) data_feed: bool,
    pub(super) injections: Injections,
    pub(super) rule: Option<Arc<WindowRule>>,
    /// The properties that are wanted of the stream's schema; `None` for all.
    pub(super) wanted: Option<Map<String, Value>>,
}

/// How one page went.
enum Turn {
    /// The last answer, unless that ends the pages; the page's records.
    Page(Option<Fetched>, Records),
    Refused(Refusal),
}

/// What the slice puts into requests, by routers and by the cursor.
pub(super) type Injections = Vec<Box<dyn Fn(&Env, &Slice, &mut Options) -> Result<()> + Send + Sync>>;

pub(super) struct Retriever {
    requester: Requester,
    decoder: Decoder,
    selector: Selector,
    paginator: Option<Paginator>,
    properties: Option<QueryProperties>,
    recovery: Recovery,
    ignore_slice_on_pages: bool,
    place: Place,
}

/// How far a slice was read.
pub(super) struct PageState {
    original: Slice,
    /// The part of it that is being read.
    slice: Slice,
    token: Option<Value>,
    done: bool,
    progress: Progress,
    /// How often the original was split for it.
    depth: u32,
    /// What is left after it, the next one last.
    rest: Vec<(Slice, u32)>,
    /// The first page, where a parent's record has brought it along.
    given: Option<Response>,
}

impl PageState {
    pub(super) fn new(slice: Slice, retriever: &Retriever) -> Self {
        let given = slice.given().cloned();
        Self { original: slice.clone(), given, ..Self::at(slice, 0, retriever) }
    }

    fn at(slice: Slice, depth: u32, retriever: &Retriever) -> Self {
        Self {
            original: slice.clone(),
            slice,
            token: retriever.first_token(),
            done: false,
            progress: Progress::default(),
            depth,
            rest: Vec::new(),
            given: None,
        }
    }

    /// Goes on with another part.
    fn turn_to(&mut self, slice: Slice, depth: u32, retriever: &Retriever) {
        let (original, rest) = (self.original.clone(), std::mem::take(&mut self.rest));
        *self = Self { original, rest, ..Self::at(slice, depth, retriever) };
    }
}

/// One answer, taken apart.
struct Fetched {
    response: Response,
    body: Value,
    raw_count: usize,
    records: Records,
}

impl Retriever {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, transforms: &[Node<'_>], place: Place) -> Result<Self> {
        if node.kind() != "SimpleRetriever" {
            return Err(node.unsupported());
        }
        let requester = node.need("requester")?;
        let paginator = node.get("paginator").map_or(Ok(None), |p| Paginator::build(&p))?;
        let recovery = Recovery::build(node)?;
        if recovery.reduces() && !paginator.as_ref().is_some_and(Paginator::can_shrink) {
            return Err(
                node.wrong("`page_size_reduction` needs a paginator by offset or cursor, with a `page_size` and a `page_size_option`")
            );
        }
        Ok(Self {
            requester: Requester::build(env, &requester, place.use_cache)?,
            decoder: Decoder::optional(node, "decoder")?,
            selector: Selector::build(env, &node.need("record_selector")?, transforms, place.client_side)?,
            paginator,
            recovery,
            properties: QueryProperties::build(env, &requester, place.wanted.as_ref())?,
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
            recovery: Recovery::default(),
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
    ) -> Result<Option<Records>> {
        if state.done {
            let Some((slice, depth)) = state.rest.pop() else { return Ok(None) };
            state.turn_to(slice, depth, self);
        }
        let (last, mut records) = match self.read_page(env, state, schema, bounds).await? {
            Turn::Page(last, records) => (last, records),
            Turn::Refused(refusal) => {
                self.recover(env, state, refusal).await?;
                return Ok(Some(Records::default()));
            }
        };
        let rule = self.place.rule.as_ref().filter(|_| self.recovery.resets_by_cursor());
        if let Some(rule) = rule {
            records.iter().for_each(|record| state.progress.seen.see(rule, record));
        }
        let size = state.progress.size;
        let exhausted = self.recovery.page_read(&mut state.progress, records.len());
        match &last {
            Some(_) if exhausted => self.recover(env, state, Refusal::Reset).await?,
            Some(last) => {
                state.token = self.next_token(env, state, last, size, &records, bounds)?;
                state.done = state.token.is_none();
            }
            None => state.done = true,
        }
        if let (true, Some(bounds)) = (self.place.data_feed, bounds) {
            records.retain(|r| bounds.wants(r));
        }
        Ok(Some(records))
    }

    /// Asks for something else, as the manifest says.
    async fn recover(&self, env: &Env, state: &mut PageState, refusal: Refusal) -> Result<()> {
        let rule = self.place.rule.as_deref();
        match refusal {
            Refusal::Reset => {
                state.slice = self.recovery.restart(&mut state.progress, rule, &state.original, &state.slice)?;
                state.token = self.first_token();
            }
            Refusal::Smaller(why) => {
                let configured = self.paginator.as_ref().map_or(Ok(None), |p| p.configured_size(env))?;
                tokio::time::sleep(self.recovery.smaller(&mut state.progress, configured, &why)?).await;
            }
            Refusal::Split(why) => {
                let [first, second] = self.recovery.halves(rule, &state.slice, state.depth, &why)?;
                let depth = state.depth + 1;
                state.rest.push((second, depth));
                state.turn_to(first, depth, self);
            }
        }
        Ok(())
    }

    async fn read_page(&self, env: &Env, state: &mut PageState, schema: Option<&Value>, bounds: Option<&Bounds>) -> Result<Turn> {
        let Some(properties) = &self.properties else {
            let given = state.given.take();
            return Ok(match self.fetch(env, state, &state.slice, given, schema, bounds).await? {
                Outcome::Refused(refusal) => Turn::Refused(refusal),
                Outcome::End => Turn::Page(None, Records::default()),
                Outcome::Page(mut page) => {
                    let records = std::mem::take(&mut page.records);
                    Turn::Page(Some(page), records)
                }
            });
        };
        let mut merged: Vec<(String, Value)> = Vec::new();
        let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        let mut records = Vec::new();
        let mut last = None;
        for chunk in properties.chunks(env).await? {
            let slice = state.slice.with_extra(properties::EXTRA, chunk.into());
            match self.fetch(env, state, &slice, None, schema, bounds).await? {
                Outcome::Refused(refusal) => return Ok(Turn::Refused(refusal)),
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
        Ok(Turn::Page(last, Records::of(&records)?))
    }

    fn next_token(
        &self,
        env: &Env,
        state: &PageState,
        page: &Fetched,
        size: Option<i64>,
        records: &Records,
        bounds: Option<&Bounds>,
    ) -> Result<Option<Value>> {
        let Some(paginator) = &self.paginator else { return Ok(None) };
        let last_record = records.iter().next_back().map(Record::value);
        if self.place.data_feed
            && let (Some(bounds), Some(record)) = (bounds, &last_record)
            && !bounds.wants(record)
        {
            return Ok(None);
        }
        let facts = Page {
            response: &page.response,
            body: &page.body,
            raw_count: page.raw_count,
            emitted: records.len(),
            last_record: last_record.as_ref(),
            size,
        };
        paginator.next(env, &facts, state.token.as_ref(), &state.slice)
    }

    async fn fetch(
        &self,
        env: &Env,
        state: &PageState,
        slice: &Slice,
        given: Option<Response>,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Outcome> {
        let mut attempt = 0;
        let (response, (found, body)) = loop {
            let response = match &given {
                Some(response) => response.clone(),
                None => match self.ask(env, state, slice).await? {
                    Answer::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
                    // An error that the manifest lets pass: no records, and no more pages.
                    Answer::Response(response) if !response.ok() => return Ok(Outcome::End),
                    Answer::Response(response) => response,
                },
            };
            if let Some(found) = self.found(env, &response).await? {
                break (response, found);
            }
            attempt += 1;
            if attempt == ATTEMPTS {
                return Err(Error::new(Code::ConnectionLost, "the answer is cut off: it begins as JSON and does not end as such")
                    .detail(format!("{} gave {} bytes", shown(&response.url), response.body.len()))
                    .hint(format!("tried {attempt} times")));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let raw_count = found.len();
        let client_side = bounds.filter(|_| self.place.client_side).map(|b| |record: &Value| b.wants(record));
        let wanted = client_side.as_ref().map(|f| f as &dyn Fn(&Value) -> bool);
        let records = self.selector.select(env, slice, found, schema, wanted)?;
        Ok(Outcome::Page(Fetched { response, body, raw_count, records }))
    }

    async fn ask(&self, env: &Env, state: &PageState, slice: &Slice) -> Result<Answer> {
        let token = state.token.as_ref();
        let wrapped = token.map(|t| Value::Object([("next_page_token".to_owned(), t.clone())].into_iter().collect()));
        let path = self.paginator.as_ref().and_then(|p| p.path(token));
        let mut extra = self.paginator.as_ref().map_or(Ok(Options::default()), |p| p.options(env, token, state.progress.size))?;
        if token.is_none() || !self.ignore_slice_on_pages {
            for inject in &self.place.injections {
                let mut own = Options::default();
                inject(env, slice, &mut own)?;
                extra.merge(own)?;
            }
        }
        let call = Call { token: wrapped.as_ref(), path: path.as_deref(), ..Call::plain(slice) };
        self.requester.send(env, call, extra).await
    }

    /// The records in an answer, and the rest of it for the paginator. `None` is that it was cut off: taken for no records, it would lose some.
    async fn found(&self, env: &Env, response: &Response) -> Result<Option<(Found, Value)>> {
        let keep = self.keeps_body();
        let nothing = || Value::Object(serde_json::Map::new());
        if !keep
            && self.selector.expander.is_none()
            && let Some(path) = self.selector.extractor.plain_path(env)?
        {
            match self.decoder {
                Decoder::Json => {
                    if let Some((records, rest)) = Records::in_body(&response.body, &path) {
                        return Ok(Some((Found::Texts(records), rest)));
                    }
                }
                Decoder::Jsonl if path.is_empty() => {
                    let (records, bad) = Records::in_lines(&response.body);
                    if bad > 0 {
                        tracing::warn!(lines = bad, "lines of the answer are not JSON and are left out");
                    }
                    return Ok(Some((Found::Texts(records), nothing())));
                }
                _ => {}
            }
        }
        if matches!(self.decoder, Decoder::Json)
            && let Some(fault) = decode::fault(&response.body)
        {
            if fault.is_eof() {
                return Ok(None);
            }
            return Err(Error::new(Code::DataInvalid, "the answer begins as JSON and is none").detail(format!(
                "{}, line {}, character {}",
                shown(&response.url),
                fault.line(),
                fault.column()
            )));
        }
        let mut values = self.decoder.decode(response)?;
        let mut records = self.selector.extractor.extract(env, &mut values, keep)?;
        if let Some(expander) = &self.selector.expander {
            records = Box::pin(expander.expand(env, records)).await?;
        }
        let body = if self.decoder.is_stream() { None } else { values.into_iter().next() };
        Ok(Some((Found::Trees(records), body.unwrap_or_else(nothing))))
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
    Refused(Refusal),
}
