//! Each mistake names its place and what mends it.

use insta::assert_snapshot;

use crate::folder::{folder, shown};

const SHOP: (&str, &str) = ("connections.yaml", "shop: {connector: sqlite, path: shop.db}\n");

fn said(files: &[(&str, &str)]) -> String {
    match folder(files).load() {
        Ok(_) => "no error".to_owned(),
        Err(errors) => shown(&errors),
    }
}

#[test]
fn no_project() {
    let dir = tempfile::tempdir().unwrap();
    let errors = trib_project::Project::load(dir.path(), None, trib_project::Variables::given([])).err().unwrap();
    let text = shown(&errors).replace(&dir.path().display().to_string(), "DIR");
    assert_snapshot!(text, @r#"
    error: there is no project here: DIR
      hint: `trib init` makes one; `--project-dir` names another folder
    "#);
}

/// Prunes are made by comparing keys, and are no mode that a project can name.
#[test]
fn our_own_write_mode_is_none_of_a_project() {
    let text = said(&[SHOP, ("syncs/a.yaml", "from: shop\nstreams:\n  a: {write: _prune}\n  b: {write: prune}\n")]);
    assert_snapshot!(text, @r#"
    error: the setting does not take this value: `_prune`
      at syncs/a.yaml:3:14, setting streams.a.write
      hint: known here: `replace`, `append`, `insert`, `upsert`, `mirror`, `history`, `update`, `delete`
    error: the setting does not take this value: `prune`
      at syncs/a.yaml:4:14, setting streams.b.write
      hint: known here: `replace`, `append`, `insert`, `upsert`, `mirror`, `history`, `update`, `delete`
    "#);
}

#[test]
fn all_mistakes_of_all_files_are_said_at_once() {
    let sync = "from: shop\nnameing: keep\nstreams:\n  orders:\n    curser: updated_at\n    wirte: upsert\n    key: 7\n  customers: {write: upsrt, lookback: soon}\n";
    let text = said(&[
        SHOP,
        ("tributary.yaml", "name: test\nthreds: 3\n"),
        ("syncs/a.yaml", sync),
        ("jobs/j.yaml", "select: [a]\noverlap: maybe\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: there is no such setting: `threds`
      at tributary.yaml:2:1, setting threds
      hint: did you mean `threads`?
    error: there is no such setting: `nameing`
      at syncs/a.yaml:2:1, setting nameing
      hint: did you mean `naming`?
    error: there is no such setting: `curser`
      at syncs/a.yaml:5:5, setting streams.orders.curser
      hint: did you mean `cursor`?
    error: there is no such setting: `wirte`
      at syncs/a.yaml:6:5, setting streams.orders.wirte
      hint: did you mean `write`?
    error: the value is of the wrong kind: found a number (7), expected a column, a list of columns, or a map of fields to columns or SQL expressions
      at syncs/a.yaml:7:10, setting streams.orders.key
    error: the setting does not take this value: `upsrt`
      at syncs/a.yaml:8:22, setting streams.customers.write
      hint: did you mean `upsert`?
    error: the value is not right: "soon" is not a length of time such as 30s, 15m, 1h or 1d
      at syncs/a.yaml:8:39, setting streams.customers.lookback
    error: the setting does not take this value: `maybe`
      at jobs/j.yaml:2:10, setting overlap
      hint: known here: `skip`, `queue`, `cancel`
    "#);
}

#[test]
fn wrong_kinds() {
    let text = said(&[
        ("tributary.yaml", "name: 5\nthreads: many\n"),
        ("connections.yaml", "shop: sqlite\n"),
        ("syncs/a.yaml", "from: shop\nretry: {attempts: -1, backoff: 30}\nallow_empty: NO\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: the value is of the wrong kind: found a number (5), expected text
      at tributary.yaml:1:7, setting name
      hint: put it into quotes
    error: the value is of the wrong kind: found text ("many"), expected a whole number
      at tributary.yaml:2:10, setting threads
    error: the value is of the wrong kind: found text ("sqlite"), expected a map
      at connections.yaml:1:7, setting shop
    error: the value is of the wrong kind: found a number (-1), expected a whole number
      at syncs/a.yaml:2:19, setting retry.attempts
    error: the value is not right: a length of time needs its unit: 30s, 15m, 1h, 1d
      at syncs/a.yaml:2:32, setting retry.backoff
    error: the value is of the wrong kind: found text ("NO"), expected true or false
      at syncs/a.yaml:3:14, setting allow_empty
    "#);
}

#[test]
fn what_is_missing() {
    let text = said(&[("connections.yaml", "shop: {path: shop.db}\n"), ("syncs/a.yaml", "to: warehouse\n")]);
    assert_snapshot!(text, @r#"
    error: a setting is missing: `connector`
      at connections.yaml:1:7, setting shop.connector
    error: a setting is missing: `from`
      at syncs/a.yaml:1:1, setting from
    "#);
}

#[test]
fn not_yaml() {
    let text = said(&[SHOP, ("syncs/a.yaml", "from: shop\nstreams: [a\n"), ("syncs/b.yaml", "from: shop\nfrom: shop\n")]);
    assert_snapshot!(text, @r#"
    error: the file is not YAML: while parsing a flow sequence, expected ',' or ']'
      at syncs/a.yaml:3:1
    error: a key stands twice in one map: `from` in line 1 and in line 2
      at syncs/b.yaml:2:1, setting from
      hint: keep one of them
    "#);
}

#[test]
fn unknown_names() {
    let text = said(&[
        SHOP,
        ("syncs/a.yaml", "from: shpo\nto: warehuose\n"),
        ("syncs/b.yaml", "from: shop\ninto: raw.{tabel}\n"),
        ("syncs/c.yaml", "from: shop\nscope: region\n"),
        ("syncs/d e.yaml", "from: shop\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: there is no such placeholder: `{tabel}`
      at syncs/b.yaml:2:7, setting into
      hint: did you mean `{table}`?
    error: the scope is no column that is added
      at syncs/c.yaml:2:1, setting scope
      hint: add it: `add: {region: "'{connection}'"}`
    error: the name holds characters that names may not have: "d e"
      at syncs/d e.yaml:1:1
      hint: letters, digits, `_`, `-` and `.` are allowed
    "#);
    let text = said(&[
        SHOP,
        ("syncs/a.yaml", "description: x\nfrom: shpo\nto: warehuose\n"),
        ("syncs/off.yaml", "from: nowhere\nenabled: false\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: the project has no such connection: `shpo`
      at syncs/a.yaml:2:1, setting from
      hint: did you mean `shop`?
    error: the project has no such connection: `warehuose`
      at syncs/a.yaml:3:1, setting to
      hint: did you mean `warehouse`?
    "#);
}

#[test]
fn sections_that_are_empty() {
    let text = said(&[SHOP, ("syncs/a.yaml", "from: shop\ntags:\ndefaults:\nretry:\nstreams:\n")]);
    assert_snapshot!(text, @r#"
    error: the sync names no streams
      at syncs/a.yaml:5:1, setting streams
      hint: write `"*": {}` to take all of them
    "#);
}

#[test]
fn names_that_are_used_twice() {
    let text = said(&[
        SHOP,
        ("connections/more.yaml", "shop: {connector: files}\n"),
        ("syncs/orders.yaml", "from: shop\n"),
        ("models/orders.sql", "select 1 as x\n"),
        ("models/deep/orders.sql", "select 1 as x\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: a name is used twice: the connection `shop` is also in connections.yaml:1
      at connections/more.yaml:1:1
    error: a name is used twice: the name `orders` is also in syncs/orders.yaml:1
      at models/deep/orders.sql:1:1
      hint: names of syncs, models, seeds, commands and jobs are unique together: rename one of the files
    error: a name is used twice: the name `orders` is also in syncs/orders.yaml:1
      at models/orders.sql:1:1
      hint: names of syncs, models, seeds, commands and jobs are unique together: rename one of the files
    "#);
}

#[test]
fn models() {
    let text = said(&[
        ("models/a.sql", "/*---\nmaterialised: view\n---*/\nselect * from raw.x\n"),
        ("models/b.sql", "/*---\ntags: [x]\n---*/\n\nselect * form raw.x\nwhere\n"),
        ("models/c.sql", "/*---\ntags: [x]\nselect 1\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: there is no such setting: `materialised`
      at models/a.sql:2:1, setting materialised
      hint: did you mean `materialized`?
    error: the SQL cannot be parsed: expected the end of the statement, found `form`
      at models/b.sql:5:10
      hint: did you mean `from`?
    error: the front matter is never closed
      at models/c.sql:1:1
      hint: end it with `---*/`
    "#);
}

#[test]
fn sql_that_cannot_be_parsed() {
    let text = said(&[
        SHOP,
        (
            "models/filled.sql",
            "/*---\ntemplate: true\nvars: {n: 1}\n---*/\nselect\n  {{ n }} as n,\n  {{ n }} + as m,\n  a b c\nfrom raw.x\n",
        ),
        ("models/plain.sql", "/*---\ntemplate: true\n---*/\n{% if true %}\nselect 1\nfrm raw.x y\n{% endif %}"),
        ("models/tested.sql", "/*---\ntests:\n  - row_count: {min: 1}\n  - sql: select * from raw.x where\n---*/\nselect 1 as x\n"),
        (
            "syncs/a.yaml",
            "from: shop\nadd: {at: \"now(\"}\nstreams:\n  orders:\n    sql: |\n      select a,\n        b, from input x y\n  people:\n    add:\n      n: a b c\n",
        ),
        ("syncs/b.yaml", "from: shop\nstreams:\n  t: {into: X, key: {Id: id +}, map: {A: a, B: {value: 'b b', lookup: Y}}}\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: the SQL cannot be parsed: expected the end of the statement, found `y`
      at syncs/a.yaml:7:25, setting sql
      hint: something before it is missing or too many: an operator, a comma, a parenthesis, a quote
    error: the SQL cannot be parsed: expected an expression, found the end of the SQL
      at syncs/a.yaml:2:16, setting add.at
      hint: something is missing at its end
    error: the SQL cannot be parsed: expected the end of the expression, found `b`
      at syncs/a.yaml:10:12, setting add.n
      hint: something before it is missing or too many: an operator, a comma, a parenthesis, a quote
    error: the SQL cannot be parsed: expected the end of the expression, found `b`
      at syncs/b.yaml:3:59, setting map.B.value
      hint: something before it is missing or too many: an operator, a comma, a parenthesis, a quote
    error: the SQL cannot be parsed: expected an expression, found the end of the SQL
      at syncs/b.yaml:3:30, setting key.Id
      hint: something is missing at its end
    error: the SQL cannot be parsed: expected the end of the statement, found `c`
      at models/filled.sql:8:7
      hint: something before it is missing or too many: an operator, a comma, a parenthesis, a quote
    error: the SQL cannot be parsed: expected the end of the statement, found `raw`
      at models/plain.sql:6:5
      hint: did you mean `from` where `frm` stands?
    error: the SQL cannot be parsed: expected an expression, found the end of the SQL
      at models/tested.sql:4:35, setting tests.1.sql
      hint: something is missing at its end
    "#);
}

#[test]
fn circles() {
    let text = said(&[
        ("models/a.sql", "select * from analytics.b"),
        ("models/b.sql", "select * from c"),
        ("models/c.sql", "select * from analytics.a"),
    ]);
    assert_snapshot!(text, @r#"
    error: nodes need each other in a circle: a → c → b → a
      at models/a.sql:1:1
      hint: each reads a table that the one before it writes: take one of these edges away
    "#);
}

#[test]
fn modes_that_never_fit() {
    let text = said(&[
        SHOP,
        ("syncs/a.yaml", "from: shop\ndefaults: {read: incremental, cursor: at}\nstreams:\n  orders: {write: mirror}\n  \"x*\": {}\n"),
    ]);
    assert_snapshot!(text, @r#"
    error: the read mode and the write mode do not go together: `read: incremental` with `write: mirror`: a cursor cannot see deletes
      at syncs/a.yaml:4:12, stream orders, setting streams.orders.write
    "#);
}

#[test]
fn a_newer_format() {
    assert_snapshot!(said(&[("tributary.yaml", "name: test\nversion: 9\n")]), @r#"
    error: this version of the project's format is not known: this program knows versions up to 1
      at tributary.yaml:2:10, setting version
      hint: a newer `trib` has written the project: update this one
    "#);
}

#[test]
fn a_missing_variable_fails_only_what_needs_it() {
    let folder = folder(&[
        ("connections.yaml", "shop: {connector: sqlite, path: \"${SHOP_PATH}\"}\ncrm: {connector: files, path: \"${CRM_PATH}\"}\n"),
        (".env", "CRM_PATHS=x\n"),
        ("syncs/shop.yaml", "from: shop\n"),
        ("syncs/people.yaml", "from: crm\nstreams: {people: {columns: {email: {hmac: \"${PII_KEY}\"}}}}\n"),
    ]);
    let project = folder.load_in(None, &[("SHOP_PATH", "shop.db")]).unwrap();
    assert_eq!(project.connection("shop").unwrap().settings, serde_json::json!({"path": "shop.db"}));
    assert_snapshot!(shown(project.connection("crm").err().as_ref()), @r#"
    error: a variable has no value: ${CRM_PATH}
      at connections.yaml:2:31, connection crm, setting crm.path
      hint: looked in the environment, then in .env; did you mean `CRM_PATHS`?
    "#);
    assert_snapshot!(shown(project.connection("shpo").err().as_ref()), @r#"
    error: the project has no such connection: `shpo`
      hint: did you mean `shop`?
    "#);
    assert!(project.sync("shop").unwrap().ready().is_ok());
    assert_snapshot!(shown(&project.missing()), @r#"
    error: a variable has no value: ${CRM_PATH}
      at connections.yaml:2:31, connection crm, setting crm.path
      hint: looked in the environment, then in .env; did you mean `CRM_PATHS`?
    error: a variable has no value: ${PII_KEY}
      at syncs/people.yaml:2:44, setting streams.people.columns.email.hmac
      hint: looked in the environment, then in .env; set it there, or give a default with `${PII_KEY:-…}`
    "#);
}

#[test]
fn a_variables_value_is_never_shown() {
    let folder = folder(&[
        SHOP,
        (
            "syncs/a.yaml",
            "from: shop\nnaming: ${SECRET}\nretry: {attempts: \"${SECRET}\"}\nstall_timeout: ${SECRET}\nallow_empty: ${SECRET}\n",
        ),
    ]);
    let errors = folder.load_in(None, &[("SECRET", "hunter2")]).err().unwrap();
    assert!(!shown(&errors).contains("hunter2"));
    assert_snapshot!(shown(&errors), @r#"
    error: the value is not right: the variable's value is none of snake_case, keep
      at syncs/a.yaml:2:9, setting naming
    error: the value is of the wrong kind: found text (from a variable), expected a whole number
      at syncs/a.yaml:3:19, setting retry.attempts
    error: the value is not right: the variable's value is not right
      at syncs/a.yaml:4:16, setting stall_timeout
    error: the value is of the wrong kind: found text (from a variable), expected true or false
      at syncs/a.yaml:5:14, setting allow_empty
    "#);
}

#[test]
fn environments() {
    let main = "name: test\nstate: ${STATE:-local.db}\nenvironments:\n  dev: {schema_prefix: \"dev_${WHO}_\", vars: {WHO: me}}\n  prod: {protected: true, connections: {warehouse: {connector: postgres, url: \"${URL}\"}, shop: {path: prod.db}}}\n";
    let folder = folder(&[SHOP, ("tributary.yaml", main)]);
    let dev = folder.load().unwrap();
    assert_eq!((dev.environment.name.as_str(), dev.environment.schema_prefix.as_str()), ("dev", "dev_me_"));
    assert_eq!(dev.connection("warehouse").unwrap().connector, "lake");
    let prod = folder.load_in(Some("prod"), &[("URL", "postgres://h/d"), ("STATE", "x.db")]).unwrap();
    assert_eq!(prod.state.expose(), "x.db");
    assert!(prod.environment.protected);
    assert_eq!(prod.connection("warehouse").unwrap().settings, serde_json::json!({"url": "postgres://h/d"}));
    assert_eq!(prod.connection("shop").unwrap().connector, "sqlite");
    assert_eq!(prod.connection("shop").unwrap().settings, serde_json::json!({"path": "prod.db"}));
    assert_snapshot!(shown(&folder.load_in(Some("prd"), &[]).err().unwrap()), @r#"
    error: the project has no such environment: `prd`
      hint: did you mean `prod`?
    "#);
}
