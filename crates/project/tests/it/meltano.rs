//! A Meltano project of the usual size becomes one of ours that is valid.

use std::fs;

use trib_project::import::meltano::import;
use trib_project::{Project, Variables};

const MELTANO: &str = r#"
version: 1
default_environment: dev
project_id: shop
environments:
  - name: dev
  - name: prod
    env: {PG_HOST: db.internal}
    config:
      plugins:
        extractors:
          - name: tap-github
            config: {start_date: "2023-01-01"}
            select: ["commits.*"]
plugins:
  extractors:
    - name: tap-github
      variant: meltanolabs
      config:
        repositories: [acme/anvils]
        start_date: "2024-01-01"
        auth.token: $GITHUB_TOKEN
      select:
        - "issues.*"
        - "!issues.body"
        - "commits.sha"
        - "commits.author"
        - "!secrets.*"
        - "pulls.created_*"
      metadata:
        issues: {replication-method: INCREMENTAL, replication-key: updated_at}
    - name: tap-github--private
      inherit_from: tap-github
      config: {repositories: [acme/plans]}
    - name: tap-own
      namespace: tap_own
      pip_url: -e ./tap-own
      executable: tap-own
      config:
        path: $MELTANO_PROJECT_ROOT/data
        stream_maps:
          users: {email: null, email_hash: md5(email), __filter__: "active == True"}
          audit: null
  loaders:
    - name: target-postgres
      variant: meltanolabs
      pip_url: meltanolabs-target-postgres==0.8.1
      config: {host: "${PG_HOST}", user: loader}
    - name: target-jsonl
      pip_url: target-jsonl
  mappers:
    - name: meltano-map-transformer
      pip_url: meltano-map-transform
      mappings:
        - name: clean
          config: {stream_maps: {issues: {title: "title.strip()"}}}
  utilities:
    - name: dbt-postgres
jobs:
  - name: all
    tasks: [tap-github clean target-postgres dbt-postgres:run, [tap-own, target-jsonl]]
schedules:
  - {name: hourly, interval: "@hourly", job: all}
  - {name: private, extractor: tap-github--private, loader: target-postgres, interval: "30 2 * * *"}
"#;

const LOCK: &str =
    r#"{"name": "tap-github", "pip_url": "meltanolabs-tap-github", "executable": "tap-github", "settings": [{"name": "auth_token"}]}"#;

#[test]
fn a_project_is_carried_over() {
    let read = |path: &str| match path {
        "plugins/extractors/tap-github--meltanolabs.lock" => Some(LOCK.to_owned()),
        ".env" => Some("TARGET_POSTGRES_PASSWORD=x\nOTHER=1\n".to_owned()),
        _ => None,
    };
    let imported = import(MELTANO, "folder", &["tap-own-to-target-postgres"], &read).unwrap();
    let connections = &imported.files["connections.yaml"];
    for line in [
        "  tap: tap-github\n  pip: meltanolabs-tap-github\n",
        "      token: \"${GITHUB_TOKEN}\"\n",
        "    repositories: [acme/plans]\n",
        "  pip: \"-e ./tap-own\"\n  config:\n    path: \"./data\"\n",
        "    user: loader\n    password: \"${TARGET_POSTGRES_PASSWORD}\"\n",
        "      replication-key: updated_at\n",
    ] {
        assert!(connections.contains(line), "{line}in\n{connections}");
    }
    assert!(!connections.contains("stream_maps"), "{connections}");
    let github = &imported.files["syncs/tap-github-to-target-postgres.yaml"];
    for part in ["exclude: [secrets]", "body:\n        drop: true", "select: [sha, author]", r#"title: "trim(\"title\")""#] {
        assert!(github.contains(part), "{part} in\n{github}");
    }
    let own = &imported.files["syncs/tap-own-to-target-jsonl.yaml"];
    for part in ["exclude: [audit]", r#"where: "\"active\" = true""#, r#"email_hash: "md5(\"email\")""#] {
        assert!(own.contains(part), "{part} in\n{own}");
    }
    assert!(imported.files["jobs/hourly.yaml"].contains("cron: \"0 * * * *\""));
    for about in ["environment prod, tap-github: select", "pulls.created_*", "dbt-postgres:run", "dbt-postgres (utilities)"] {
        assert!(imported.notes.iter().any(|n| n.contains(about)), "{about}: {:?}", imported.notes);
    }

    let folder = tempfile::TempDir::new().unwrap();
    for (name, text) in &imported.files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let project = Project::load(folder.path(), Some("prod"), Variables::of_process()).unwrap();
    let names: Vec<&str> = project.syncs().iter().map(|s| s.name.as_str()).collect();
    let given = [
        "tap-github--private-to-target-postgres",
        "tap-github-to-target-postgres",
        "tap-own-to-target-jsonl",
        "tap-own-to-target-postgres",
    ];
    assert_eq!(names, given);
}
