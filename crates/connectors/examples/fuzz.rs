//! Looks for panics and hangs in what reads text that others have written: the loader of manifests, and the template engine.
//!
//! ```sh
//! cargo run -p trib-connectors --example fuzz -- loader 600      # seconds
//! cargo run -p trib-connectors --example fuzz -- templates 600
//! cargo run -p trib-connectors --example fuzz -- loader 600 manifests/*.yaml      # begin with these
//! ```
//!
//! Texts that are known to be right are cut, doubled, mixed and spoiled. A case that panics or takes longer than ten seconds is printed, and the exit status is 1.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use trib_connectors::manifest::{Manifest, interpolate};

const TOO_LONG: Duration = Duration::from_secs(10);

const MANIFEST: &str = r##"
version: 7.0.0
definitions:
  base: &base
    type: HttpRequester
    url_base: "https://{{ config['host'] }}/v1"
    path: "{{ parameters.path or 'items' }}"
    request_parameters: {limit: "{{ 10 * 2 }}", since: "{{ stream_interval['start_time'] }}"}
    authenticator: {type: BearerAuthenticator, api_token: "{{ config['token'] }}"}
    error_handler: {type: DefaultErrorHandler, response_filters: [{type: HttpResponseFilter, http_codes: [404], action: IGNORE}]}
  retriever:
    type: SimpleRetriever
    requester: {$ref: "#/definitions/base"}
    record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: ["rows", "*"]}}
    paginator:
      type: DefaultPaginator
      pagination_strategy: {type: CursorPagination, cursor_value: "{{ response['next'] }}", stop_condition: "{{ not response['next'] }}"}
      page_token_option: {type: RequestOption, inject_into: request_parameter, field_name: after}
check: {type: CheckStream, stream_names: [items]}
streams:
  - type: DeclarativeStream
    name: items
    primary_key: [id]
    $parameters: {path: items, n: 1.5e3}
    retriever: {$ref: "#/definitions/retriever", ignore_stream_slicer_parameters_on_paginated_requests: yes}
    incremental_sync: {type: DatetimeBasedCursor, cursor_field: at, datetime_format: "%Y-%m-%d", start_datetime: "2024-01-01", step: P1M, cursor_granularity: P1D}
    transformations: [{type: AddFields, fields: [{path: [a, b], value: "{{ record['x'] | int + 1 }}"}]}]
    schema_loader: {type: InlineSchemaLoader, schema: {type: object, properties: {id: {type: [integer, "null"]}}}}
spec: {type: Spec, connection_specification: {type: object, properties: {token: {type: string, airbyte_secret: true}}}}
"##;

const TEMPLATES: [&str; 10] = [
    "{{ config['a'] if config.get('a') else now_utc().strftime('%Y-%m-%dT%H:%M:%SZ') }}",
    "{% for r in record.items() %}{% set x = r[0] %}{{ x ~ ',' }}{% endfor %}",
    "{{ (response.data | map(attribute='id') | list)[-1] + 1 }}",
    "{{ '%05.2f|%s' % (1.5, record) }}{{ 'a,b'.split(',')[1:] | join('-') | upper }}",
    "{{ format_datetime(day_delta(-1), '%s') }}{{ duration('P1D') + today_utc() }}",
    "{{ [1, 2, 3] | sum ** 2 // 3 % 4 <= 5 and not none is defined }}",
    "{{ {'a': [1, (2, 3)]}['a'][1] }}{# comment #}{{ 'x' | hash('md5') | base64encode }}",
    "{%- set ns = namespace(n=0) -%}{%- if ns.n == 0 -%}{{ ns.n }}{%- elif 1 -%}b{%- else -%}c{%- endif -%}",
    "{{ str_to_datetime('2024-02-30') - duration('P1M') }}{{ '1_000' | int }}{{ max(1, 2.5) }}",
    "{{ record['name'].strip().lower().replace(' ', '_') | regex_search('(?<=a)b+') }}",
];

const PIECES: [&str; 24] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "- ",
    ": ",
    "\n  ",
    "\n",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "$ref: \"#/definitions/base\"",
    "*base",
    "&x ",
    "<<: ",
    "null",
    "type: ",
    "$parameters: ",
    "9999999999999999999",
    "\u{0}",
    "é\u{202e}",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn of<'a>(&mut self, items: &'a [String]) -> &'a str {
        &items[self.below(items.len())]
    }
}

/// A right text, spoiled a few times.
fn spoiled(random: &mut Random, seeds: &[String]) -> String {
    let mut text: Vec<char> = random.of(seeds).chars().collect();
    for _ in 0..=random.below(6) {
        let (from, length) = (random.below(text.len() + 1), random.below(40));
        let to = (from + length).min(text.len());
        match random.below(5) {
            0 => drop(text.drain(from..to)),
            1 => {
                let part: Vec<char> = text[from..to].to_vec();
                let at = random.below(text.len() + 1);
                text.splice(at..at, part);
            }
            2 => {
                let other: Vec<char> = random.of(seeds).chars().collect();
                let start = random.below(other.len());
                let end = (start + random.below(200)).min(other.len());
                text.splice(from..to, other[start..end].iter().copied());
            }
            3 => drop(text.splice(from..from, PIECES[random.below(PIECES.len())].repeat(1 + random.below(4)).chars())),
            _ => {
                if let Some(c) = text.get_mut(from) {
                    *c = char::from(random.below(128) as u8);
                }
            }
        }
    }
    text.into_iter().collect()
}

fn try_manifest(text: &str) {
    if let Ok(manifest) = Manifest::parse(Path::new("m.yaml"), text) {
        let _ = manifest.spec();
        if let Ok(opened) = manifest.open(&json!({"token": "t", "host": "a.example"})) {
            let _ = opened.concurrency();
        }
    }
}

fn try_template(text: &str) {
    let context = json!({"config": {"a": "x"}, "record": {"name": "A b", "x": "7"}, "response": {"data": [{"id": 1}]}, "parameters": {}});
    let _ = interpolate(&json!({"kind": "string", "template": text, "context": context}));
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(60);
    let (mut seeds, attempt): (Vec<String>, fn(&str)) = match what.as_str() {
        "loader" => (vec![MANIFEST.to_owned()], try_manifest),
        "templates" => (TEMPLATES.map(str::to_owned).to_vec(), try_template),
        _ => {
            eprintln!("usage: fuzz loader|templates SECONDS [FILE…]");
            std::process::exit(2);
        }
    };
    seeds.extend(arguments.filter_map(|file| std::fs::read_to_string(file).ok()));

    let current: Arc<Mutex<(Instant, String)>> = Arc::new(Mutex::new((Instant::now(), String::new())));
    let lock = |m: &Mutex<(Instant, String)>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let shown = current.clone();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("{panic}\nthe case:\n{}", lock(&shown).1);
        std::process::exit(1);
    }));
    let watched = current.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let (since, case) = lock(&watched);
            if since.elapsed() > TOO_LONG {
                eprintln!("this takes longer than {TOO_LONG:?}:\n{case}");
                std::process::exit(1);
            }
        }
    });

    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    println!("{what}: {seconds} s from seed {seed}, {} texts to begin with", seeds.len());
    let (mut random, began, mut cases) = (Random(seed), Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let case = spoiled(&mut random, &seeds);
        *current.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), case.clone());
        attempt(&case);
        cases += 1;
    }
    println!("{cases} cases, no panic and no hang");
}
