//! Answers to a parent stream's requests, kept for its children: within a bound, and only for this read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use trib_kit::http::{Request, Response};

/// Beyond this nothing more is kept, and requests are simply sent again.
const MOST_BYTES: usize = 16 << 20;

#[derive(Default)]
pub(super) struct ResponseCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<String, Response>,
    bytes: usize,
}

impl ResponseCache {
    pub(super) fn get(&self, request: &Request) -> Option<Response> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).answers.get(&key(request)).cloned()
    }

    /// Keeps a good answer, if there is room.
    pub(super) fn put(&self, request: &Request, response: &Response) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let size = response.body.len() + 512;
        if response.status == 200 && kept.bytes + size <= MOST_BYTES && kept.answers.insert(key(request), response.clone()).is_none() {
            kept.bytes += size;
        }
    }
}

/// Credentials are left out: they are renewed during a read, and do not change the answer.
fn key(request: &Request) -> String {
    let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let secret = |name: &str| request.secret_headers.iter().any(|s| s.eq_ignore_ascii_case(name));
    let headers: Vec<String> = request.headers.iter().filter(|(n, _)| !secret(n)).map(|(n, v)| format!("{n}:{v}")).collect();
    format!("{} {} {} {body}", request.method, request.url, headers.join("\n"))
}
