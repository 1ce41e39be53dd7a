//! How the next page is asked for.

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;

use super::env::Env;
use super::error_handler::headers_value;
use super::node::{Expr, Node};
use super::options::{Options, RequestOption};
use super::parameters::truthy;
use super::slice::Slice;
use super::template::python_str;

pub(super) struct Paginator {
    strategy: Strategy,
    page_size: Option<Expr>,
    size_option: Option<RequestOption>,
    token: TokenPlace,
}

enum Strategy {
    Page { start: i64, inject_first: bool },
    Offset { inject_first: bool },
    Cursor { value: Expr, stop: Option<Expr> },
}

enum TokenPlace {
    Nowhere,
    /// The token is the path, or the whole URL.
    Path,
    Option(RequestOption),
}

/// What is known about the page that was just read.
pub(super) struct Page<'a> {
    pub(super) response: &'a Response,
    /// The first value of the body; an empty object when there is none.
    pub(super) body: &'a Value,
    /// As they came, before any filter.
    pub(super) raw_count: usize,
    pub(super) emitted: usize,
    pub(super) last_record: Option<&'a Value>,
    /// The page size that was asked for, in place of the manifest's.
    pub(super) size: Option<i64>,
}

impl Paginator {
    /// `None` where there are no pages.
    pub(super) fn build(node: &Node<'_>) -> Result<Option<Self>> {
        match node.kind() {
            "NoPagination" => return Ok(None),
            "DefaultPaginator" => {}
            _ => return Err(node.unsupported()),
        }
        let strategy_node = node.need("pagination_strategy")?;
        let inject_first = strategy_node.flag("inject_on_first_request");
        let strategy = match strategy_node.kind() {
            "PageIncrement" => Strategy::Page { start: strategy_node.integer("start_from_page").unwrap_or(0), inject_first },
            "OffsetIncrement" => Strategy::Offset { inject_first },
            "CursorPagination" => {
                Strategy::Cursor { value: strategy_node.need_expr("cursor_value")?, stop: strategy_node.expr("stop_condition")? }
            }
            _ => return Err(strategy_node.unsupported()),
        };
        let page_size = strategy_node.expr("page_size")?;
        let size_option = RequestOption::optional(node, "page_size_option")?;
        if size_option.is_some() && page_size.is_none() {
            return Err(node.wrong("`page_size_option` needs a `page_size` in the pagination strategy"));
        }
        let token = match node.get("page_token_option") {
            None => TokenPlace::Nowhere,
            Some(option) if option.kind() == "RequestPath" => TokenPlace::Path,
            Some(option) => TokenPlace::Option(RequestOption::build(&option)?),
        };
        Ok(Some(Self { strategy, page_size, size_option, token }))
    }

    /// Whether some template looks into the answer's records, under one of these names.
    pub(super) fn looks_at(&self, names: &[&str]) -> bool {
        let texts = match &self.strategy {
            Strategy::Cursor { value, stop } => [Some(value), stop.as_ref(), self.page_size.as_ref()],
            _ => [self.page_size.as_ref(), None, None],
        };
        texts.into_iter().flatten().any(|e| e.source().contains("response") && names.iter().any(|n| e.source().contains(n)))
    }

    pub(super) fn first_token(&self) -> Option<Value> {
        match self.strategy {
            Strategy::Page { start, inject_first: true } => Some(start.into()),
            Strategy::Offset { inject_first: true } => Some(0.into()),
            _ => None,
        }
    }

    /// What takes the place of the request's path.
    pub(super) fn path(&self, token: Option<&Value>) -> Option<String> {
        let token = token.filter(|t| truthy(t))?;
        matches!(self.token, TokenPlace::Path).then(|| python_str(token))
    }

    /// `size` takes the place of the manifest's page size.
    pub(super) fn options(&self, env: &Env, token: Option<&Value>, size: Option<i64>) -> Result<Options> {
        let mut options = Options::default();
        if let (TokenPlace::Option(option), Some(token)) = (&self.token, token) {
            option.inject(env, &mut options, token.clone())?;
        }
        if let Some(option) = &self.size_option
            && let Some(size) = size.map_or_else(|| self.size(env, None), |s| Ok(Some(s)))?.filter(|s| *s != 0)
        {
            option.inject(env, &mut options, size.into())?;
        }
        Ok(options)
    }

    /// The token of the next page; `None` after the last one.
    pub(super) fn next(&self, env: &Env, page: &Page<'_>, last_token: Option<&Value>, slice: &Slice) -> Result<Option<Value>> {
        let next = match &self.strategy {
            Strategy::Page { start, .. } => {
                if self.is_last(self.size_of(env, page, None)?, page) {
                    return Ok(None);
                }
                Value::from(whole(last_token)?.unwrap_or(*start) + 1)
            }
            Strategy::Offset { .. } => {
                if self.is_last(self.size_of(env, page, Some(page.body))?, page) {
                    return Ok(None);
                }
                Value::from(whole(last_token)?.unwrap_or(0) + page.raw_count as i64)
            }
            Strategy::Cursor { value, stop } => {
                let headers = headers_with_links(page.response);
                let size = self.size_of(env, page, None)?.map_or(Value::Null, Value::from);
                let emitted = Value::from(page.emitted);
                let scope = slice
                    .record_scope(env.scope())
                    .with("response", page.body)
                    .with_headers("headers", &headers)
                    .with("last_record", page.last_record.unwrap_or(&Value::Null))
                    .with("last_page_size", &emitted)
                    .with("page_size", &size);
                if let Some(stop) = stop
                    && stop.truthy(&scope)?
                {
                    return Ok(None);
                }
                value.eval(&scope)?
            }
        };
        Ok(truthy(&next).then_some(next))
    }

    fn is_last(&self, size: Option<i64>, page: &Page<'_>) -> bool {
        page.raw_count == 0 || size.is_some_and(|size| size != 0 && (page.raw_count as i64) < size)
    }

    fn size_of(&self, env: &Env, page: &Page<'_>, response: Option<&Value>) -> Result<Option<i64>> {
        page.size.map_or_else(|| self.size(env, response), |size| Ok(Some(size)))
    }

    /// Whether the size of a page can be changed while pages are read: page numbers would then mean other records.
    pub(super) fn can_shrink(&self) -> bool {
        !matches!(self.strategy, Strategy::Page { .. }) && self.size_option.is_some() && !matches!(self.token, TokenPlace::Path)
    }

    /// The manifest's page size, as far as it is known before the first answer.
    pub(super) fn configured_size(&self, env: &Env) -> Result<Option<i64>> {
        self.size(env, None)
    }

    fn size(&self, env: &Env, response: Option<&Value>) -> Result<Option<i64>> {
        let Some(expr) = &self.page_size else { return Ok(None) };
        let scope = env.scope();
        let value = expr.eval(&match response {
            Some(response) => scope.with("response", response),
            None => scope,
        })?;
        match value.as_i64() {
            Some(size) => Ok(Some(size)),
            None => Err(Error::new(Code::ConfigInvalid, "`page_size` does not give a whole number").detail(expr.source().to_owned())),
        }
    }
}

fn whole(token: Option<&Value>) -> Result<Option<i64>> {
    match token {
        None => Ok(None),
        Some(token) => token.as_i64().map(Some).ok_or_else(|| Error::internal("a page's number is no number")),
    }
}

/// The headers, with the Link header taken apart: `headers['link']['next']['url']`.
fn headers_with_links(response: &Response) -> Value {
    let mut headers = headers_value(response);
    let links = links(&response.header("link").unwrap_or_default());
    if let Value::Object(map) = &mut headers {
        map.insert("link".to_owned(), links);
    }
    headers
}

/// RFC 8288, by relation; by URL where a link names none.
fn links(header: &str) -> Value {
    let mut found = Map::new();
    for part in split_links(header) {
        let Some((url, rest)) = part.trim().strip_prefix('<').and_then(|p| p.split_once('>')) else { continue };
        let mut link = Map::from_iter([("url".to_owned(), Value::from(url))]);
        for parameter in rest.split(';').filter(|p| !p.trim().is_empty()) {
            let Some((key, value)) = parameter.split_once('=') else { break };
            let unquoted = value.trim().trim_matches(|c| c == '"' || c == '\'');
            link.insert(key.trim().to_owned(), Value::from(unquoted));
        }
        let key = link.get("rel").and_then(Value::as_str).unwrap_or(url).to_owned();
        found.insert(key, Value::Object(link));
    }
    json!(found)
}

/// Splits at commas that stand before a `<`.
fn split_links(header: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in header.match_indices(',') {
        if header[at + 1..].trim_start().starts_with('<') {
            parts.push(&header[start..at]);
            start = at + 1;
        }
    }
    parts.push(&header[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_headers_are_taken_apart() {
        let header = "<https://a.example/x?p=2,3>; rel=\"next\", <https://a.example/x?p=9>; rel=last; title='the end'";
        let expected = json!({
            "next": {"url": "https://a.example/x?p=2,3", "rel": "next"},
            "last": {"url": "https://a.example/x?p=9", "rel": "last", "title": "the end"},
        });
        assert_eq!(links(header), expected);
        assert_eq!(links(""), json!({}));
    }
}
