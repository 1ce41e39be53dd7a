//! Stand-ins against what their vendors publish for programs: an OpenAPI or discovery document, or a library that the vendor generates from one. What a run of a
//! shipped manifest asked and what the stand-in answered, a few of each route and status, has to have published paths, parameters, fields and types.
//!
//! `held_against` in a manifest's `metadata` names the package. A manifest without it has none that can be installed; what its rules come from, its stand-in says.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use trib_connectors::manifest::Shipped;

use crate::shipped::Case;

/// Without what they need in order to run: only their files are read.
const PACKAGES: &[&str] = &[
    "--no-deps",
    "--no-compile",
    "asana==5.4.0",
    "facebook-business==26.0.3",
    "google-api-python-client==2.202.0",
    "hubspot-api-client==12.0.0",
    "mailchimp-marketing==3.0.80",
    "openapi-jira-client==3.0.1",
    "slack-sdk==3.47.0",
    "stripe==16.1.0",
];

impl Case {
    pub(crate) fn is_published(&self, shipped: &Shipped) {
        let Some(source) = shipped.edition().unwrap().held_against else { return };
        let named = source.split(',').next().unwrap().replace(' ', "==");
        assert!(PACKAGES.contains(&named.as_str()), "{}: {named} is none of those that are held against", self.name);
        let python = trib_testkit::python_venv::bin("published", PACKAGES).unwrap().join("python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published/check.py");
        let mut check = Command::new(python)
            .arg(script)
            .arg(self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = String::new();
        for exchange in self.vendor.exchanges() {
            let (asked, answer) = (&exchange.asked, &exchange.answer);
            // The authorization server is another API.
            if asked.path == "/token" {
                continue;
            }
            let line = json!({
                "method": asked.method, "path": asked.path, "query": asked.query, "type": asked.header("content-type").unwrap_or_default(),
                "body": asked.body, "status": answer.status, "answer": String::from_utf8_lossy(&answer.body),
            });
            lines.push_str(&format!("{line}\n"));
        }
        check.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}, against {source}:\n{said}{}", self.name, String::from_utf8_lossy(&output.stderr));
    }
}
