//! Deliveries when something goes wrong on the way: limits, cut connections, killed processes, tokens that end. Nothing is lost, nothing is made twice.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use trib_testkit::chance::Chance;
use trib_testkit::stand_in::{Answer, StandIn};
use trib_testkit::vendor::Trouble;

use crate::deliveries::{BUDGET, Bench, TOKEN, UPSERT, manifest};

/// Parts of the manifest that tests change.
const BEARER: &str = "authenticator: {type: BearerAuthenticator, api_token: \"{{ config['token'] }}\"}";
const BACKOFF: &str = "backoff_strategies: [{type: ConstantBackoffStrategy, backoff_time_in_seconds: -0.95}]";

/// Limits, failures, cut connections and records that are wrong for good: what can be sent again safely arrives, once where the API can tell; the rest
/// is told. More goes out than the declared budget in no second.
#[test]
fn trouble_on_the_way_loses_nothing() {
    for (stream, collection, rows) in [
        (UPSERT, "contacts", 2000),
        (&UPSERT.replace("Contact", "Single"), "contacts", 400),
        ("{into: Task, key: {title: email}, map: {}, write: insert}", "tasks", 300),
        ("{into: Note, key: {title: email}, map: {}, write: insert}", "notes", 300),
    ] {
        let bench = Bench::new(stream);
        // As the API says, not as the manifest does.
        let careful = manifest(&bench.api.url()).replace(BACKOFF, "").replace("objects:\n", &format!("{BUDGET}objects:\n"));
        bench.folder.write("connectors/crm.yaml", &careful);
        bench.many(&format!(
            "select 'p' || value || '@x' as email, case value % 200 when 7 then repeat('x', 30) else 'N' end as name, cast(value as double) as score
             from (select unnest(generate_series(1, {rows})) as value)"
        ));
        bench.api.trouble(7, Trouble { limited: 10, failed: 5, cut: 20 });
        let (said, taken) = bench.deliver(&[]);
        assert_eq!(said.status, Some(0), "{stream}: {}", said.all());
        assert!(bench.api.most_within(Duration::from_secs(1)) <= 100, "{stream}: {}", bench.api.most_within(Duration::from_secs(1)));
        let listed = bench.folder.ok(&["rejected", "list", "--json", "--limit", "1000"]);
        let unknown = listed.out.matches("nobody knows whether it arrived").count();
        let wrong = listed.out.matches("name=xxx").count();
        let once: BTreeSet<&String> = taken.iter().collect();
        match collection {
            // Sent again after a cut, and the same afterwards.
            "contacts" => assert_eq!((once.len() + wrong, wrong, unknown), (rows, rows / 200, 0), "{stream}: {}", listed.all()),
            "tasks" => assert_eq!((once.len(), taken.len(), unknown), (rows, rows, 0), "an idempotency key lets each be made once"),
            // Without one, a cut or a failure leaves it open, and nothing is made twice.
            _ => {
                assert!(
                    taken.len() == once.len() && unknown > 0 && once.len() + unknown >= rows,
                    "{} {unknown}: {}",
                    taken.len(),
                    listed.all()
                );
            }
        }
        bench.api.trouble(7, Trouble::default());
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 0), "{stream}: nothing is sent again: {}", said.all());
    }
}

/// The process dies at random moments of a delivery, in batches and one by one: in the end the API has what the model has.
#[test]
fn a_killed_delivery_goes_on_where_it_was() {
    let kills: u64 = std::env::var("TRIB_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(4);
    let benches = [(Bench::new(UPSERT), 400, 40), (Bench::new(&UPSERT.replace("Contact", "Single")), 150, 150)];
    let mut chance = Chance::new(11);
    for round in 0..kills {
        let (bench, rows, calls) = &benches[round as usize % 2];
        bench.many(&format!(
            "select 'p' || value || '@x' as email, 'N{round}' as name, cast(value as double) as score from (select unnest(generate_series(1, {rows})) as value)"
        ));
        bench.api.begin(false);
        let mut child = bench.folder.command(&["run", "crm"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // When so many calls were made, whatever the machine's speed, and a little later; after the last one fates are noted.
        let (at, then) = (chance.below(calls + 1), Duration::from_millis(chance.below(40)));
        let begun = std::time::Instant::now();
        while bench.api.counts().0 < at && child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(then);
        child.kill().unwrap();
        child.wait().unwrap();
        let (said, _) = bench.deliver(&[]);
        assert_eq!(said.status, Some(0), "{}", said.all());
        let records = bench.records("contacts");
        let records = records.as_object().unwrap();
        let right = |r: &Value| r["name"] == format!("N{round}");
        assert!(records.len() == *rows && records.values().all(right), "round {round}, killed after {at} calls");
        let (said, taken) = bench.deliver(&[]);
        assert_eq!((said.status, taken.len()), (Some(0), 0), "{}", said.all());
    }
}

/// An API whose newest token is good for 25 calls. `revoked`: after so many calls no token is given any more.
fn forgetful(revoked: Arc<AtomicU64>, taken: Arc<Mutex<Vec<String>>>) -> StandIn {
    let tokens = Mutex::new((0u64, 0u64, 0u64));
    StandIn::start(move |asked| {
        let (given, used, calls) = &mut *tokens.lock().unwrap();
        let is_revoked = *calls >= revoked.load(Ordering::SeqCst);
        if asked.path == "/token" {
            if is_revoked || asked.field("client_secret").as_deref() != Some(TOKEN) {
                return Answer::text(400, r#"{"error": "invalid_grant", "error_description": "the access was revoked"}"#);
            }
            (*given, *used) = (*given + 1, 0);
            return Answer::json(&json!({"access_token": format!("acce55-{given}"), "expires_in": 3600}));
        }
        (*used, *calls) = (*used + 1, *calls + 1);
        let token = asked.header("authorization").and_then(|h| h.strip_prefix("Bearer acce55-")?.parse::<u64>().ok()).unwrap_or(0);
        if is_revoked || token != *given || *used > 25 {
            return Answer::text(401, r#"{"message": "the token is no longer valid"}"#);
        }
        taken.lock().unwrap().push(asked.path.clone());
        Answer::json(&json!({}))
    })
}

/// Tokens that run out in the middle are renewed; where access is revoked the run ends and says so, and goes on when it is given back.
#[test]
fn tokens_run_out_in_the_middle_of_a_run() {
    let (revoked, taken): (Arc<AtomicU64>, Arc<Mutex<Vec<String>>>) = (Arc::new(u64::MAX.into()), Arc::default());
    let api = forgetful(revoked.clone(), taken.clone());
    let bench = Bench::new(&UPSERT.replace("Contact", "Single"));
    let login = format!(
        "authenticator: {{type: OAuthAuthenticator, token_refresh_endpoint: \"{}/token\", client_id: us, client_secret: \"{{{{ config['token'] }}}}\", grant_type: client_credentials}}",
        api.url()
    );
    let renewing = "response_filters: [{type: HttpResponseFilter, http_codes: [401], action: REFRESH_TOKEN_THEN_RETRY}]";
    let changed = manifest(&api.url()).replace(BEARER, &login).replace(BACKOFF, renewing);
    bench.folder.write("connectors/crm.yaml", &changed);
    let rows = |name: &str| {
        bench.many(&format!(
            "select 'p' || value || '@x' as email, '{name}' as name, cast(value as double) as score from (select unnest(generate_series(1, 60)) as value)"
        ));
    };
    rows("N");
    let (said, _) = bench.deliver(&[]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    assert!(taken.lock().unwrap().len() == 60 && !said.all().contains("acce55"), "{}", said.all());

    rows("M");
    taken.lock().unwrap().clear();
    revoked.store(60 + 60 / 25 + 30, Ordering::SeqCst);
    let (said, _) = bench.deliver(&[]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert!(!said.all().contains("acce55") && !said.all().contains(TOKEN));
    // By the API or by who gives tokens, whichever is asked first.
    assert!(
        said.err.contains("the API does not accept the credentials") || said.err.contains("the provider does not accept"),
        "{}",
        said.all()
    );
    let before = taken.lock().unwrap().len();
    assert!((1..60).contains(&before), "{before}");
    revoked.store(u64::MAX, Ordering::SeqCst);
    let (said, _) = bench.deliver(&[]);
    let taken = taken.lock().unwrap();
    assert_eq!((said.status, taken.len(), taken.iter().collect::<BTreeSet<_>>().len()), (Some(0), 60, 60), "{}", said.all());
}

/// Credentials that are revoked in the middle: the run ends with what is wrong, and goes on when it is mended.
#[test]
fn revoked_credentials_end_the_run_and_the_next_goes_on() {
    let bench = Bench::new(UPSERT);
    bench.model("('a@x', 'Ann', 1)");
    bench.folder.write("connections.yaml", "crm: {connector: crm, token: wrong-t0ken}\n");
    let (said, taken) = bench.deliver(&[]);
    assert!(said.status.is_some_and(|s| s > 0) && taken.is_empty(), "{}", said.all());
    assert!(said.all().contains("does not accept the credentials") && !said.all().contains("wrong-t0ken"), "{}", said.all());
    bench.folder.write("connections.yaml", "crm: {connector: crm, token: \"${TOKEN}\"}\n");
    let (said, taken) = bench.deliver(&[]);
    assert_eq!((said.status, taken.len()), (Some(0), 1), "{}", said.all());
}
