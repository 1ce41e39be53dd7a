//! How an API gives its next page, as far as one answer shows it.

use serde_json::{Value, json};
use trib_kit::http::Response;
use url::Url;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    None,
    /// A `Link` header.
    Link,
    /// The answer holds the next page's URL.
    Url(Vec<String>),
    /// The answer holds a token, which goes into this parameter.
    Token {
        path: Vec<String>,
        param: String,
    },
    /// Pages have numbers.
    Number {
        param: String,
        start: u64,
        size: Option<(String, u64)>,
        page: u64,
    },
    Offset {
        param: String,
        size: Option<(String, u64)>,
        page: u64,
    },
}

/// Where answers keep the next page's URL.
const URLS: [&str; 12] = [
    "next",
    "next_url",
    "nextUrl",
    "next_page",
    "next_page_url",
    "nextLink",
    "@odata.nextLink",
    "links.next",
    "_links.next.href",
    "paging.next",
    "pagination.next",
    "meta.next",
];
/// Where they keep a token, and which parameter it goes into.
const TOKENS: [(&str, &str); 13] = [
    ("next_cursor", "cursor"),
    ("nextCursor", "cursor"),
    ("cursor.next", "cursor"),
    ("meta.next_cursor", "cursor"),
    ("pagination.next_cursor", "cursor"),
    ("response_metadata.next_cursor", "cursor"),
    ("paging.cursors.after", "after"),
    ("paging.next.after", "after"),
    ("meta.after_cursor", "page[after]"),
    ("nextPageToken", "pageToken"),
    ("next_page_token", "page_token"),
    ("next_token", "next_token"),
    ("continuation_token", "continuation_token"),
];
const NUMBERS: [&str; 4] = ["page", "page_number", "pageNumber", "p"];
const OFFSETS: [&str; 4] = ["offset", "start", "skip", "startAt"];
const SIZES: [&str; 7] = ["limit", "per_page", "page_size", "pageSize", "perPage", "maxResults", "count"];

impl Pages {
    /// `count` is how many records the page has.
    pub(super) fn of(body: &Value, response: &Response, asked: &Url, count: usize) -> Self {
        if response.header("link").is_some_and(|l| l.contains("rel=\"next\"") || l.contains("rel=next")) {
            return Pages::Link;
        }
        let path = |dotted: &str| -> Vec<String> {
            // This one's dot is part of its name.
            if dotted.starts_with('@') { vec![dotted.to_owned()] } else { dotted.split('.').map(str::to_owned).collect() }
        };
        let text = |dotted: &str| {
            let found = path(dotted).iter().try_fold(body, |at, key| at.get(key))?;
            found.as_str().filter(|t| !t.is_empty())
        };
        if let Some(found) = URLS.iter().find(|at| text(at).is_some_and(|t| t.starts_with("http") || t.starts_with('/'))) {
            return Pages::Url(path(found));
        }
        if let Some((found, param)) = TOKENS.iter().find(|(at, _)| text(at).is_some()) {
            return Pages::Token { path: path(found), param: (*param).to_owned() };
        }
        let query =
            |names: &[&str]| asked.query_pairs().find(|(k, _)| names.contains(&k.as_ref())).map(|(k, v)| (k.into_owned(), v.into_owned()));
        let size = query(&SIZES).and_then(|(name, value)| Some((name, value.parse().ok()?)));
        let page = size.as_ref().map_or(count as u64, |(_, size)| *size).max(1);
        if let Some((param, start)) = query(&NUMBERS) {
            return Pages::Number { param, start: start.parse().unwrap_or(1), size, page };
        }
        if let Some((param, _)) = query(&OFFSETS) {
            return Pages::Offset { param, size, page };
        }
        // An answer that counts pages, and there are more.
        let number = |names: &[&str]| {
            let places = [
                Some(body),
                body.get("meta"),
                body.get("pagination"),
                body.get("paging"),
                body.get("meta").and_then(|m| m.get("pagination")),
            ];
            places.into_iter().flatten().find_map(|at| names.iter().find_map(|n| at.get(n)?.as_u64()))
        };
        let (now, last) =
            (number(&["page", "current_page", "currentPage"]), number(&["total_pages", "totalPages", "last_page", "pages", "page_count"]));
        match (now, last) {
            (Some(now), Some(last)) if last > now && count > 0 => Pages::Number { param: "page".to_owned(), start: now, size, page },
            _ => Pages::None,
        }
    }

    /// By the names of an operation's parameters.
    pub(super) fn by_parameters(names: &[String]) -> Self {
        const PAGE: u64 = 100;
        let one_of = |known: &[&str]| names.iter().find(|n| known.contains(&n.as_str())).cloned();
        let size = one_of(&SIZES).map(|name| (name, PAGE));
        match (one_of(&NUMBERS), one_of(&OFFSETS), &size) {
            (Some(param), ..) => Pages::Number { param, start: 1, size, page: PAGE },
            (None, Some(param), Some(_)) => Pages::Offset { param, size, page: PAGE },
            _ => Pages::None,
        }
    }

    /// Whether a parameter of the sample is the paginator's business.
    pub(super) fn asks_by(&self, name: &str) -> bool {
        match self {
            Pages::Number { param, size, .. } | Pages::Offset { param, size, .. } => {
                param == name || size.as_ref().is_some_and(|(s, _)| s == name)
            }
            Pages::Token { param, .. } => param == name,
            Pages::None | Pages::Link | Pages::Url(_) => false,
        }
    }

    pub(super) fn note(&self) -> Option<String> {
        match self {
            Pages::None => Some("the sample shows no further pages: if there are, the stream needs a paginator".to_owned()),
            Pages::Token { path, param } => {
                Some(format!("the next page is asked for by `{param}`, a guess from `{}` in the answer", path.join(".")))
            }
            Pages::Number { page, .. } | Pages::Offset { page, .. } => {
                Some(format!("a page with fewer than {page} records is taken for the last"))
            }
            Pages::Link | Pages::Url(_) => None,
        }
    }

    pub(super) fn component(&self) -> Option<Value> {
        let by_path = |value: &str, stop: &str| {
            json!({
                "type": "DefaultPaginator",
                "page_token_option": {"type": "RequestPath"},
                "pagination_strategy": {"type": "CursorPagination", "cursor_value": value, "stop_condition": stop},
            })
        };
        let option = |name: &str| json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": name});
        let counted = |param: &str, size: &Option<(String, u64)>, strategy: Value| {
            let mut paginator = json!({"type": "DefaultPaginator", "page_token_option": option(param), "pagination_strategy": strategy});
            if let Some((name, _)) = size {
                paginator["page_size_option"] = option(name);
            }
            paginator
        };
        Some(match self {
            Pages::None => return None,
            Pages::Link => by_path("{{ headers['link']['next']['url'] }}", "{{ 'next' not in headers['link'] }}"),
            Pages::Url(path) => by_path(&format!("{{{{ {} }}}}", get(path)), &format!("{{{{ not {} }}}}", get(path))),
            Pages::Token { path, param } => json!({
                "type": "DefaultPaginator",
                "page_token_option": option(param),
                "pagination_strategy": {
                    "type": "CursorPagination",
                    "cursor_value": format!("{{{{ {} }}}}", get(path)),
                    "stop_condition": format!("{{{{ not {} }}}}", get(path)),
                },
            }),
            Pages::Number { param, start, size, page } => counted(
                param,
                size,
                json!({"type": "PageIncrement", "start_from_page": start, "page_size": page, "inject_on_first_request": true}),
            ),
            Pages::Offset { param, size, page } => {
                counted(param, size, json!({"type": "OffsetIncrement", "page_size": page, "inject_on_first_request": true}))
            }
        })
    }
}

/// `response.get('a', {}).get('b')`
fn get(path: &[String]) -> String {
    let mut text = "response".to_owned();
    for (i, key) in path.iter().enumerate() {
        let last = i + 1 == path.len();
        text.push_str(&if last { format!(".get('{key}')") } else { format!(".get('{key}', {{}})") });
    }
    text
}
