//! Images in a real Docker engine.

use std::process::Stdio;
use std::time::{Duration, Instant};

use trib_testkit::docker_engine::DockerEngine;

use crate::trib::Folder;

/// A source that gives one record, and then does not end where its configuration says so.
const SOURCE: &str = r#"
configuration=$(cat "$3")
case $1 in
check) echo '{"type":"CONNECTION_STATUS","connectionStatus":{"status":"SUCCEEDED"}}' ;;
discover) echo '{"type":"CATALOG","catalog":{"streams":[{"name":"s","json_schema":{"properties":{"id":{"type":"integer"},"key":{"type":"string"}}},"supported_sync_modes":["full_refresh"]}]}}' ;;
read)
  echo '{"type":"RECORD","record":{"stream":"s","emitted_at":1,"data":{"id":1,"key":"'"$KEY"'"}}}'
  case $configuration in *hang*) sleep 600 ;; esac ;;
esac
"#;

fn containers(engine: &DockerEngine) -> String {
    let output = engine.command(&["ps", "--all", "--quiet", "--filter", "label=tributary.process"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_image_runs_and_a_killed_run_leaves_no_container_for_long() {
    let engine = match DockerEngine::start() {
        Ok(engine) => engine,
        Err(why) => return eprintln!("SKIPPED: images in a real engine are not tested here: {why}"),
    };
    let image = format!("trib-test/source:{}", std::process::id());
    engine.image(&image, SOURCE, &["cat", "sleep"]).unwrap();
    let connection =
        |how: &str| format!("tap: {{connector: airbyte, image: '{image}', config: {{how: {how}}}, env: {{KEY: from-the-environment}}}}\n");
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        ("connections.yaml", &connection("end")),
        ("syncs/s.yaml", "from: tap\ninto: raw.{table}\nstreams:\n  s: {read: full, write: replace}\n"),
    ]);
    if let Some(host) = engine.host() {
        folder.set("DOCKER_HOST", host);
    }
    folder.ok(&["check", "tap"]);
    folder.ok(&["run"]);
    assert!(folder.ok(&["query", "select id, key from raw.s", "--json"]).out.contains("from-the-environment"));
    wait_for("a container is left", || containers(&engine).is_empty());

    folder.write("connections.yaml", &connection("hang"));
    let mut run = folder.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let reads = || {
        let output =
            engine.command(&["ps", "--no-trunc", "--filter", "label=tributary.process", "--format", "{{.Command}}"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains(" read ")
    };
    wait_for("the read does not begin", reads);
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(reads(), "the engine knows nothing of the process that was killed, or this test shows nothing");
    folder.ok(&["check", "tap"]);
    wait_for("the container of the killed run is left", || containers(&engine).is_empty());
    engine.command(&["rmi", "--force", &image]).stdout(Stdio::null()).status().unwrap();
}
