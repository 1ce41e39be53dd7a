//! Settings meet a catalog.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use insta::assert_snapshot;
use trib_core::source::Read;
use trib_core::{Catalog, ReadMode, Stream};
use trib_project::{Resolved, check_writers};

use crate::folder::{folder, shown};

const CONNECTIONS: (&str, &str) = ("connections.yaml", "shop: {connector: sqlite, path: a}\nshop_de: {connector: sqlite, path: b}\n");

fn table(name: &str, columns: &[(&str, DataType)], key: &[&str]) -> Stream {
    let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
    let (schema, table) = name.split_once('.').map_or((None, name), |(schema, table)| (Some(schema.to_owned()), table));
    let mut stream = Stream::new(name, table, Arc::new(Schema::new(fields)));
    stream.schema_name = schema;
    stream.primary_key = key.iter().map(|&k| k.to_owned()).collect();
    stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental];
    stream.cursors = trib_core::catalog::propose_cursors(&stream.schema, &stream.primary_key);
    stream
}

fn catalog() -> Catalog {
    let at = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let mut files = table("files", &[("x", DataType::Utf8)], &[]);
    files.cursors = vec!["_file".into()];
    Catalog {
        streams: vec![
            table("public.orders", &[("id", DataType::Int64), ("email", DataType::Utf8), ("updated_at", at())], &["id"]),
            table("public.customers", &[("id", DataType::Int64), ("updated_at", at())], &["id"]),
            table("public.event_clicks", &[("id", DataType::Int64), ("at", at())], &[]),
            table("audit.Orders", &[("id", DataType::Int64)], &["id"]),
            files,
        ],
    }
}

/// What a sync does with the catalog above; `main` is what `tributary.yaml` holds beside its name.
fn resolved(main: &str, sync: &str) -> Resolved {
    let main = format!("name: test\n{main}");
    let folder = folder(&[CONNECTIONS, ("tributary.yaml", &main), ("syncs/s.yaml", sync)]);
    let project = folder.load().unwrap_or_else(|errors| panic!("{}", shown(&errors)));
    project.sync("s").unwrap().streams_for("shop", &catalog()).unwrap()
}

fn lines(resolved: &Resolved) -> String {
    let plans = resolved.streams.iter().map(|p| {
        let cursor = match &p.read {
            Read::Incremental(c) => format!(" by {}{}", c.column, c.lookback.map(|l| format!("-{l}")).unwrap_or_default()),
            _ => String::new(),
        };
        format!("{} -> {}: {}{cursor}, {} ({})\n", p.stream, p.table, p.mode.as_str(), p.write.as_str(), p.key.join(", "))
    });
    plans.collect::<String>() + &shown(&resolved.errors)
}

#[test]
fn what_discover_proposes_fits_the_catalog() {
    let mut catalog = catalog();
    catalog.streams.push(table("Odd $name: *", &[("true", DataType::Int64)], &["true"]));
    let sync = trib_project::template::sync("shop", &catalog);
    let folder = folder(&[CONNECTIONS, ("syncs/s.yaml", &sync)]);
    let project = folder.load().unwrap_or_else(|errors| panic!("{}", shown(&errors)));
    let resolved = project.sync("s").unwrap().streams_for("shop", &catalog).unwrap();
    assert_eq!(trib_project::format::format_yaml(&sync).unwrap(), sync);
    assert_snapshot!(lines(&resolved), @r#"
    public.orders -> shop_public.orders: incremental by updated_at, upsert (id)
    public.customers -> shop_public.customers: incremental by updated_at, upsert (id)
    public.event_clicks -> shop_public.event_clicks: full, replace ()
    audit.Orders -> shop_audit.orders: full, replace (id)
    files -> shop.files: incremental by _file, append ()
    Odd $name: * -> shop.odd_name: full, replace (true)
    "#);
}

#[test]
fn modes_by_default() {
    let text = lines(&resolved(
        "",
        "from: shop\nstreams:\n  public.customers:\n  public.orders: {cursor: updated_at, lookback: 1h}\n  public.event_clicks: {cursor: id, lookback: ~}\n  files: {read: incremental}\n",
    ));
    assert_snapshot!(text, @r#"
    public.orders -> shop.orders: incremental by updated_at-3600, upsert (id)
    public.customers -> shop.customers: full, replace (id)
    public.event_clicks -> shop.event_clicks: incremental by id, append ()
    files -> shop.files: incremental by _file, append ()
    "#);
}

#[test]
fn what_is_more_specific_wins() {
    let main = "defaults: {sync: {into: \"p.{table}\", contract: {new_columns: ignore}, defaults: {read: full, tags: [project], columns: {email: {hash: true}, id: {description: p}}}}}\n";
    let sync = "from: shop
contract: {dropped_columns: freeze}
defaults: {tags: [sync]}
streams:
  \"public.o*\": {write: insert, where: short}
  \"public.ord*\": {where: long, contract: {type_changes: freeze}, columns: {id: {rename: number}}}
  public.orders: {tags: [exact], write: ~}
";
    let resolved = resolved(main, sync);
    let plan = &resolved.streams[0];
    assert_eq!(lines(&resolved), "public.orders -> p.orders: full, replace (id)\n");
    assert_eq!(plan.tags, ["exact"]);
    assert_eq!(plan.transform.filter.as_deref(), Some("long"));
    assert!(plan.transform.columns["email"].hash);
    assert_eq!(
        (plan.transform.columns["id"].rename.as_deref(), plan.transform.columns["id"].description.as_deref()),
        (Some("number"), Some("p"))
    );
    let contract = serde_json::to_value(&plan.contract).unwrap();
    assert_eq!(
        contract,
        serde_json::json!({"new_streams": "evolve", "new_columns": "ignore", "dropped_columns": "freeze", "type_changes": "freeze"})
    );
}

#[test]
fn patterns() {
    let cases = [
        ("from: shop\n", "public.orders public.customers public.event_clicks audit.Orders files"),
        ("from: shop\nstreams: [public.orders, files]\n", "public.orders files"),
        ("from: shop\nstreams: {\"public.*\": {}}\nexclude: [\"*.event_*\"]\n", "public.orders public.customers"),
        ("from: shop\nstreams: {\"*\": {}, public.orders: {}}\nexclude: [\"public.*\"]\n", "public.orders audit.Orders files"),
        ("from: shop\nstreams: {\"*\": {}, files: {enabled: false}, gone: {enabled: false}}\nexclude: [\"public.*\"]\n", "audit.Orders"),
        ("from: shop\nstreams: {\"{public,audit}.[oO]rders\": {into: \"{schema}.{table}\"}}\n", "public.orders audit.Orders"),
    ];
    for (sync, expected) in cases {
        let resolved = resolved("", &format!("{sync}into: \"{{schema}}.{{table}}\"\n"));
        let names: Vec<&str> = resolved.streams.iter().map(|s| s.stream.as_str()).collect();
        assert_eq!((names.join(" ").as_str(), shown(&resolved.errors).as_str()), (expected, ""), "{sync}");
    }
}

#[test]
fn tables() {
    let cases = [
        ("", "", "shop.orders"),
        ("into: raw.{table}\n", "", "raw.orders"),
        ("into: \"{schema}.{table}\"\n", "", "audit.orders"),
        ("into: \"{connection}_{schema}.{table}\"\n", "", "shop_audit.orders"),
        ("into: \"{stream}\"\n", "", "audit_orders"),
        ("into: raw.{table}\nnaming: keep\n", "", "raw.Orders"),
        ("into: raw.{table}\n", "environments: {dev: {schema_prefix: me_}}\n", "me_raw.orders"),
    ];
    for (sync, main, expected) in cases {
        let resolved = resolved(main, &format!("from: shop\nstreams: [audit.Orders]\n{sync}"));
        assert_eq!(resolved.streams[0].table.to_string(), expected, "{sync}");
    }
}

#[test]
fn what_does_not_fit() {
    let sync = "from: shop
streams:
  public.order: {}
  public.orders: {cursor: updatd_at}
  public.customers: {key: [ident]}
  public.event_clicks: {read: incremental}
  files: {read: cdc}
";
    assert_snapshot!(lines(&resolved("", sync)), @r#"
    error: the stream has no such column: `updatd_at`
      at syncs/s.yaml:4:19, connection shop, stream public.orders, setting streams.public.orders.cursor
      hint: did you mean `updated_at`?
    error: the stream has no such column: `ident`
      at syncs/s.yaml:5:22, connection shop, stream public.customers, setting streams.public.customers.key
      hint: `trib discover shop public.customers` lists its columns
    error: an incremental read needs a cursor
      at syncs/s.yaml:6:25, connection shop, stream public.event_clicks, setting streams.public.event_clicks.read
      hint: name the column that tells what is new; `cursor: at` looks right
    error: the source cannot read the stream in this way: `read: cdc`
      at syncs/s.yaml:7:11, connection shop, stream files, setting streams.files.read
      hint: it can be read as: full, incremental
    error: the source has no such stream: public.order
      at syncs/s.yaml:3:3, connection shop, stream public.order, setting streams.public.order
      hint: did you mean "public.orders"? `trib discover` lists the streams
    "#);
    let sync = "from: shop
streams:
  public.orders: {write: append}
  public.customers: {cursor: id, lookback: 1h}
  public.event_clicks: {cursor: id, write: append, lookback: 5}
  files: {write: mirror}
  audit.Orders: {select: [id, nme], into: a.b}
";
    assert_snapshot!(lines(&resolved("", sync)), @r#"
    error: each run would load all rows again: `read: full` with `write: append`
      at syncs/s.yaml:3:19, connection shop, stream public.orders, setting streams.public.orders.write
      hint: say `duplicates: allow` if that is meant; otherwise give a cursor, or `write: replace`
    error: a length of time does not fit a cursor that is a number
      at syncs/s.yaml:4:34, connection shop, stream public.customers, setting streams.public.customers.lookback
      hint: `id` is a number: write `lookback: 1000`, in its own units
    error: reading back would append rows that were loaded already
      at syncs/s.yaml:5:52, connection shop, stream public.event_clicks, setting streams.public.event_clicks.lookback
      hint: give the stream a key and `write: insert`, or leave `lookback` out
    error: the stream has no such column: `nme`
      at syncs/s.yaml:7:18, connection shop, stream audit.Orders, setting streams.audit.Orders.select
      hint: `trib discover shop audit.Orders` lists its columns
    error: the write mode needs a key: `write: mirror`
      at syncs/s.yaml:6:11, connection shop, stream files, setting streams.files.write
      hint: name the columns that identify a row with `key:`, since the source declares none
    "#);
    let sync = "from: shop
streams:
  public.orders: {columns: {emial: {hmac: x}}}
  \"public.c*\": {columns: {email: {hmac: x}}}
  public.event_clicks: {deletes: {detect: compare}}
  audit.Orders: {deletes: {detect: log}, into: a.b}
";
    assert_snapshot!(lines(&resolved("", sync)), @r#"
    public.customers -> shop.customers: full, replace (id)
    error: the stream has no such column: `emial`
      at syncs/s.yaml:3:29, connection shop, stream public.orders, setting streams.public.orders.columns
      hint: did you mean `email`?
    error: comparing needs a key
      at syncs/s.yaml:5:25, connection shop, stream public.event_clicks, setting streams.public.event_clicks.deletes
      hint: name the columns that identify a row with `key:`
    error: deletes can be taken from the log only when it is read
      at syncs/s.yaml:6:18, connection shop, stream audit.Orders, setting streams.audit.Orders.deletes
      hint: use `read: cdc`, or `detect: compare`
    "#);
}

#[test]
fn what_select_may_not_leave_out() {
    let sync = "from: shop
streams:
  public.orders: {cursor: updated_at, select: [id, email]}
  public.customers: {write: mirror, select: [updated_at]}
  public.event_clicks: {select: [at]}
";
    assert_snapshot!(lines(&resolved("", sync)), @r#"
    public.event_clicks -> shop.event_clicks: full, replace ()
    error: a column is left out that the stream's key or cursor needs: `updated_at`
      at syncs/s.yaml:3:39, connection shop, stream public.orders, setting streams.public.orders.select
      hint: add it to `select:`
    error: a column is left out that the stream's key or cursor needs: `id`
      at syncs/s.yaml:4:37, connection shop, stream public.customers, setting streams.public.customers.select
      hint: add it to `select:`
    "#);
}

#[test]
fn nothing_matches() {
    assert_snapshot!(lines(&resolved("", "from: shop\nstreams: {\"sales.*\": {}}\n")), @r#"
    error: the source has no stream that the sync's patterns take: sales.*
      at syncs/s.yaml:2:1, connection shop, setting streams
      hint: it offers public.orders, public.customers, public.event_clicks and others; `trib discover shop` lists them
    "#);
}

#[test]
fn one_table_has_one_writer_or_scopes() {
    assert_snapshot!(lines(&resolved("", "from: shop\ninto: raw.{table}\nstreams: {\"*rders\": {}}\n")), @r#"
    error: two streams are written into one table: s/public.orders of shop and s/audit.Orders of shop into raw.orders
      at syncs/s.yaml:3:11, connection shop, stream audit.Orders
      hint: put `{schema}` or `{connection}` into `into:`; or tell their rows apart with `add: {source: "'{connection}'"}` and `scope: source`
    "#);

    let scoped = "from: [shop, shop_de]\ninto: raw.orders\nadd: {source: \"'{connection}'\"}\nscope: source\nstreams: [public.orders]\n";
    for (sync, rivals) in [(scoped, 0), ("from: [shop, shop_de]\ninto: raw.orders\nstreams: [public.orders]\n", 1)] {
        let folder = folder(&[CONNECTIONS, ("syncs/s.yaml", sync)]);
        let project = folder.load().unwrap_or_else(|errors| panic!("{}", shown(&errors)));
        let sync = project.sync("s").unwrap();
        let both: Vec<_> = ["shop", "shop_de"].into_iter().flat_map(|c| sync.streams_for(c, &catalog()).unwrap().streams).collect();
        assert_eq!(check_writers(&both).len(), rivals);
    }
}

#[test]
fn scopes_are_the_connections() {
    let resolved = resolved("", "from: shop\nadd: {source: \"'{connection}'\"}\nscope: source\nstreams: [public.orders]\n");
    let scope = resolved.streams[0].scope.as_ref().unwrap();
    assert_eq!((scope.column.as_str(), scope.value()), ("source", Some("shop")));
    assert_eq!(resolved.streams[0].transform.add["source"], "'shop'");
}
