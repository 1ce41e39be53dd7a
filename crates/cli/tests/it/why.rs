//! `trib why`: a row with the load that brought it, what it was made from, and what was made from it.

use serde_json::Value;

use crate::trib::Folder;

fn shop() -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: shop\n"),
        (
            "connections.yaml",
            "shop: {connector: sqlite, path: shop.db}\ncrm: {connector: sqlite, path: crm.db}\ndrop: {connector: files, path: data}\n",
        ),
        ("syncs/shop.yaml", "from: shop\ninto: shop.{table}\ndefaults: {read: full, write: replace}\nstreams: {orders: {}}\n"),
        (
            "syncs/drop.yaml",
            "from: drop\ninto: raw.{table}\nstreams: {people: {read: incremental, write: upsert, key: id, contract: {type_changes: reject_row}}}\n",
        ),
        (
            "syncs/crm.yaml",
            "from: warehouse\nto: crm\ninto: main.{table}\nstreams: {analytics.totals: {select: [customer, total], key: customer, write: upsert}}\n",
        ),
        ("models/paid.sql", "/*---\nmaterialized: view\n---*/\nselect id, customer, amount from shop.orders where amount > 0"),
        (
            "models/totals.sql",
            "/*---\nmaterialized: incremental\nkey: customer\n---*/\nselect customer, sum(amount) as total from paid group by customer",
        ),
        ("models/whole.sql", "select sum(total) as whole from totals"),
        ("data/people/1.csv", "id,name\n1,ann\n"),
    ]);
    rusqlite::Connection::open(folder.path().join("shop.db"))
        .unwrap()
        .execute_batch(
            "create table orders (id integer primary key, customer text, amount integer);
             insert into orders values (1, 'ann', 10), (2, 'bob', 20), (3, 'ann', 5), (4, 'it''s', 7);",
        )
        .unwrap();
    folder.ok(&["run"]);
    folder
}

fn why(folder: &Folder, args: &[&str]) -> Value {
    let mut all = vec!["why"];
    all.extend(args);
    all.push("--json");
    let said = folder.ok(&all);
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()))
}

/// The tables on a way, with how many rows of each are meant, by depth.
fn way(found: &Value) -> Vec<String> {
    let mut all = vec![format!("{} {}", found["table"].as_str().unwrap(), found["count"])];
    for next in found["next"].as_array().unwrap() {
        all.extend(way(next));
    }
    all
}

#[test]
fn a_row_is_followed_both_ways() {
    let folder = shop();
    let found = why(&folder, &["totals", "ann"]);
    assert_eq!(way(&found["row"]), ["analytics.totals 1", "analytics.paid 2", "shop.orders 2", "shop: orders 0"]);
    assert_eq!(found["row"]["rows"][0]["total"], 15);
    let orders = &found["row"]["next"][0]["next"][0];
    assert_eq!(orders["next"][0]["note"], "the source");
    // The load is one that the control database knows, of this run.
    let runs: Value = serde_json::from_str(&folder.ok(&["runs", "--json"]).out).unwrap();
    assert_eq!(orders["loads"][0]["run"], runs[0]["id"]);
    let goes: Vec<String> = found["goes_into"].as_array().unwrap().iter().flat_map(way).collect();
    assert_eq!(goes, ["main.totals 1", "analytics.whole 0"]);

    let found = why(&folder, &["shop.orders", "id=2"]);
    let goes: Vec<String> = found["goes_into"].as_array().unwrap().iter().flat_map(way).collect();
    assert_eq!(goes[0], "analytics.paid 1", "{goes:?}");
    // A value is text, whatever it holds.
    assert_eq!(why(&folder, &["totals", "it's"])["row"]["count"], 1);
    let said = folder.ok(&["why", "totals", "ann"]);
    assert!(said.out.contains("← shop.orders  customer = ann") && said.out.contains("→ main.totals  customer = ann"), "{}", said.out);
}

#[test]
fn a_row_that_is_not_there() {
    let folder = shop();
    folder.write("data/people/2.csv", "id,name\ntwo,bob\n3,cem\n");
    assert_ne!(folder.trib(&["run", "drop"]).status, None);
    let said = folder.trib(&["why", "raw.people", "two"]);
    assert_eq!(said.status, Some(1), "{}", said.all());
    assert!(said.out.contains("there is no such row") && said.out.contains("rejected: "), "{}", said.all());
    for (args, status, text) in [
        (["why", "raw.peopel", "1"], 2, "did you mean raw.people?"),
        (["why", "whole", "1"], 2, "has no key that is known"),
        (["why", "whole", "whole=35"], 1, "there is no such row"),
    ] {
        let said = folder.trib(&args);
        assert!(said.status == Some(status) && said.all().contains(text), "{args:?}: {}", said.all());
    }
}
