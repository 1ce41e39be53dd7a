//! What other tools' files become: projects that are valid, and a list of what is not in them.

use std::fs;

use trib_project::import::{Imported, airbyte, dlt, sling};
use trib_project::{Project, Variables};

/// The text of all that was written, after it was found to be a project with one sync.
fn valid(imported: &Imported, sync: &str) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    for (name, text) in &imported.files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let project = Project::load(folder.path(), None, Variables::of_process()).unwrap();
    assert_eq!(project.syncs().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), [sync], "{:?}", imported.files);
    imported.files.iter().map(|(name, text)| format!("# {name}\n{text}")).collect()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

/// What the public API answers.
const PUBLIC: &str = r#"{
  "connectionId": "9924bcd0-99be-453d-ba47-c2c9766f7da5", "name": "Shop to lake", "sourceId": "0c31738c", "destinationId": "18dccc91",
  "status": "active", "schedule": {"scheduleType": "cron", "cronExpression": "0 30 6 ? * *"},
  "nonBreakingSchemaUpdatesBehavior": "ignore", "namespaceDefinition": "custom_format", "namespaceFormat": "raw_${SOURCE_NAMESPACE}", "prefix": "ab_",
  "configurations": {"streams": [
    {"name": "orders", "namespace": "public", "syncMode": "incremental_deduped_history", "cursorField": ["updated_at"], "primaryKey": [["id"], ["line"]],
     "selectedFields": [{"fieldPath": ["id"]}, {"fieldPath": ["line"]}, {"fieldPath": ["updated_at"]}],
     "mappers": [{"type": "hashing", "mapperConfiguration": {"targetField": "email", "method": "SHA-256"}}, {"type": "row-filtering", "mapperConfiguration": {}}]},
    {"name": "events", "syncMode": "incremental_append", "cursorField": ["meta", "at"], "primaryKey": []},
    {"name": "countries", "syncMode": "full_refresh_overwrite"},
    {"name": "log", "syncMode": "full_refresh_append"}
  ]}
}"#;

#[test]
fn an_airbyte_connection() {
    let imported = airbyte::import(PUBLIC, "connection.json").unwrap();
    let text = valid(&imported, "source-to-warehouse");
    has(
        &text,
        &[
            "into: \"raw_{schema}.ab_{table}\"",
            "  public.orders:\n    read: incremental\n    write: upsert\n    cursor: updated_at\n    key: [id, line]\n    select: [id, line, updated_at]\n",
            "email:\n        hmac: \"${PII_KEY}\"",
            "  events:\n    read: incremental\n    write: append\n",
            "  countries:\n    read: full\n    write: replace\n",
            "    duplicates: allow\n",
            "new_columns: discard_value",
            "cron: \"30 6 * * *\"",
        ],
    );
    has(&imported.notes.join("\n"), &["row-filtering is not carried over", "[\"meta\",\"at\"] is inside of a column", "pip:", "state"]);
}

/// What the web application's API answers: with source and destination, the catalog in two halves, and settings masked.
const INTERNAL: &str = r#"{
  "name": "pg", "namespaceDefinition": "source", "prefix": "", "status": "inactive",
  "source": {"name": "Shop DB", "sourceName": "Postgres", "connectionConfiguration": {"host": "db.internal", "port": 5433, "database": "shop", "username": "reader",
    "password": "**********", "replication_method": {"method": "CDC"}, "tunnel_method": {"tunnel_method": "SSH_KEY_AUTH"}}},
  "destination": {"name": "Data warehouse", "destinationName": "Snowflake", "connectionConfiguration": {"password": "hunter2"}},
  "syncCatalog": {"streams": [
    {"stream": {"name": "orders", "namespace": "public", "jsonSchema": {}}, "config": {"syncMode": "incremental", "destinationSyncMode": "append_dedup", "cursorField": ["id"], "primaryKey": [["id"]], "selected": true}},
    {"stream": {"name": "secrets", "namespace": "public"}, "config": {"syncMode": "full_refresh", "destinationSyncMode": "overwrite", "selected": false}}
  ]},
  "scheduleType": "basic", "scheduleData": {"basicSchedule": {"timeUnit": "hours", "units": 6}}
}"#;

#[test]
fn an_airbyte_connection_with_its_ends() {
    let imported = airbyte::import(INTERNAL, "connection.json").unwrap();
    let text = valid(&imported, "shop_db-to-warehouse");
    has(
        &text,
        &[
            "connector: postgres",
            "host: db.internal",
            "port: 5433",
            "password: \"${SHOP_DB_PASSWORD}\"",
            "enabled: false",
            "cron: \"0 */6 * * *\"",
        ],
    );
    assert!(!text.contains("secrets") && !text.contains("hunter2") && !text.contains("****"), "{text}");
    has(&imported.notes.join("\n"), &["SHOP_DB_PASSWORD", "change log", "SSH tunnel", "snowflake"]);
}

/// As octavia writes it.
const OCTAVIA: &str = r#"
definition_type: connection
resource_name: github to pg
source_configuration_path: sources/github/configuration.yaml
destination_configuration_path: destinations/postgres_dwh/configuration.yaml
configuration:
  status: active
  namespace_definition: destination
  prefix: ""
  schedule_type: cron
  schedule_data: {cron: {cron_expression: "0 0 12 * * ?", cron_time_zone: Europe/Berlin}}
  sync_catalog:
    streams:
      - stream: {name: issues, source_defined_primary_key: [[id]]}
        config: {sync_mode: incremental, destination_sync_mode: append_dedup, cursor_field: [updated_at], primary_key: [[id]], selected: true}
"#;

#[test]
fn octavias_yaml() {
    let imported = airbyte::import(OCTAVIA, "configuration.yaml").unwrap();
    let text = valid(&imported, "github-to-postgres_dwh");
    has(
        &text,
        &[
            "tap: tap-github",
            "connector: postgres",
            "into: \"airbyte.{table}\"",
            "cursor: updated_at",
            "timezone: Europe/Berlin",
            "cron: \"0 12 * * *\"",
        ],
    );
    let error = airbyte::import("{\"a\": 1}", "x.json").unwrap_err().to_string();
    assert!(error.contains("no export of an Airbyte connection"), "{error}");
}

const SLING: &str = r#"
source: MY_POSTGRES
target: MY_SNOWFLAKE
env: {SLING_THREADS: 3, SLING_LOADED_AT_COLUMN: true}
hooks: {start: []}
defaults:
  mode: incremental
  object: '{target_schema}.{stream_schema}_{stream_table}'
  primary_key: [id]
  update_key: updated_at
  target_options: {add_new_columns: true}
streams:
  public.*:
  public."Accounts":
    mode: full-refresh
    object: raw.accounts
    columns: {balance: 'decimal(12,2)', location: geometry}
    select: [-ssn, "*"]
  public.events: {mode: snapshot, where: "at > now() - interval '1 day'"}
  public.lines: {update_key: null}
  public.secrets: {disabled: true}
  public.report: {sql: "select 1", object: 'raw.{run_timestamp}'}
  file:///tmp/x.csv: {object: raw.x}
"#;

#[test]
fn a_sling_replication() {
    let imported = sling::import(SLING, "replication.yaml", "Shop copy", &|_| None).unwrap();
    let text = valid(&imported, "my_postgres-to-warehouse");
    has(
        &text,
        &[
            "url: \"${MY_POSTGRES}\"",
            "into: \"public.{schema}_{table}\"",
            "threads: 3",
            "exclude: [public.secrets]",
            "\"public.*\":\n    read: incremental\n    cursor: updated_at\n    write: upsert\n    key: [id]",
            "public.Accounts:\n    read: full\n    write: replace",
            "ssn:\n        drop: true",
            "cast: \"decimal(12,2)\"",
            "into: raw.accounts",
            "    duplicates: allow\n",
            "where: \"at > now()",
        ],
    );
    has(
        &imported.notes.join("\n"),
        &["MY_SNOWFLAKE", "geometry", "its SQL ran at the source", "run_timestamp", "file:///tmp/x.csv", "hooks", "SLING_LOADED_AT_COLUMN"],
    );
    let env = "connections:\n  MY_POSTGRES: {type: postgres, host: db, user: u, password: hunter2, database: shop}\n  MY_SNOWFLAKE: {type: sqlite, database: out.db}\n";
    let imported = sling::import(SLING, "replication.yaml", "x", &|path| (path == "env.yaml").then(|| env.to_owned())).unwrap();
    let text = valid(&imported, "my_postgres-to-my_snowflake");
    has(&text, &["host: db", "password: \"${MY_POSTGRES_PASSWORD}\"", "path: out.db"]);
    assert!(!text.contains("hunter2"));
}

const DLT: &str = r"
version: 5
name: github
tables:
  _dlt_loads: {columns: {load_id: {data_type: text}}}
  issues:
    columns:
      id: {data_type: bigint, primary_key: true, nullable: false}
      updated_at: {data_type: timestamp, incremental: true}
      _dlt_id: {data_type: text, unique: true}
    write_disposition: merge
    resource: issues
    schema_contract: {columns: freeze}
  issues__labels: {parent: issues, columns: {name: {data_type: text}}}
  repos: {columns: {id: {data_type: bigint}}, write_disposition: replace, resource: repos}
  stars: {columns: {user: {data_type: text}}, write_disposition: append, resource: stars}
";

#[test]
fn a_schema_of_dlt() {
    let imported = dlt::import(DLT, "github.schema.yaml").unwrap();
    let text = valid(&imported, "github");
    has(
        &text,
        &[
            "tap: tap-github",
            "  issues:\n    read: incremental\n    cursor: updated_at\n    write: upsert\n    key: [id]\n    contract:\n      new_columns: freeze\n",
            "  repos:\n    read: full\n    write: replace\n",
            "duplicates: allow",
        ],
    );
    assert!(!text.contains("_dlt") && !text.contains("labels"), "{text}");
    has(&imported.notes.join("\n"), &["stars: no column says what is new", "Python"]);
}
