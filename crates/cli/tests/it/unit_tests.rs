//! Unit tests of streams, and unit tests that were recorded.

use crate::trib::Folder;

#[test]
fn a_stream_is_tested_without_its_source() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: units\n"),
        ("connections.yaml", "shop: {connector: postgres, url: \"postgres://nobody@127.0.0.1:1/none\"}\n"),
        (
            "syncs/shop.yaml",
            "from: shop\ninto: raw.{table}\nstreams:\n  public.orders:\n    cursor: updatedAt\n    where: \"status <> 'test'\"\n    columns: {email: {hash: true}, note: {drop: true}, amount: {cast: \"decimal(10, 2)\"}}\n    add: {region: \"'{connection}'\"}\n",
        ),
        (
            "tests/orders.yaml",
            "hidden:\n  node: shop/public.orders\n  types: {public.orders: {amount: text}}\n  given:\n    public.orders:\n      - {id: 1, status: paid, email: ann@example.org, note: x, amount: \"1.5\", updatedAt: \"2024-01-01T00:00:00Z\"}\n      - {id: 2, status: test, email: bob@example.org, note: y, amount: \"2\", updatedAt: \"2024-01-01T00:00:00Z\"}\n  expect:\n    - {id: 1, status: paid, amount: 1.50, region: shop, updated_at: \"2024-01-01T00:00:00Z\"}\n",
        ),
    ]);
    let said = folder.ok(&["test", "--unit"]);
    assert!(said.out.contains("unit tests: 1 passed"), "{}", said.all());
    let text = std::fs::read_to_string(folder.path().join("tests/orders.yaml")).unwrap();
    folder.write("tests/orders.yaml", &text.replace("region: shop", "region: else, email: ann@example.org"));
    let said = folder.trib(&["test", "--unit", "shop"]);
    assert_eq!(said.status, Some(4), "{}", said.all());
    assert!(said.out.contains("row 1, region: expected else, got shop") && said.out.contains("row 1, email"), "{}", said.out);
    folder.write("tests/orders.yaml", &text.replace("shop/public.orders", "shop/public.ordrs").replace("public.orders", "public.ordrs"));
    let said = folder.trib(&["test", "--unit"]);
    assert!(said.status == Some(2) && said.all().contains("did you mean \"public.ordrs\"?"), "{}", said.all());
}

#[test]
fn a_test_is_recorded_without_what_must_not_be_known() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: recorded\n"),
        ("connections.yaml", "shop: {connector: sqlite, path: shop.db}\n"),
        ("syncs/shop.yaml", "from: shop\ninto: raw.{table}\nstreams:\n  \"*\": {read: full, write: replace}\n"),
        (
            "models/paid.sql",
            "/*---\nmaterialized: view\n---*/\nselect id, customer_id, status, amount from raw.orders where status = 'paid'",
        ),
        (
            "models/spent.sql",
            "select c.email, c.country, sum(o.amount) as spent, count(*) as orders from paid o join raw.customers c on c.id = o.customer_id group by 1, 2",
        ),
    ]);
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database
        .execute_batch(
            "create table customers (id integer primary key, email text, country text, secret text);
             create table orders (id integer primary key, customer_id integer, status text, amount decimal(10, 2));
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)
             insert into customers select i, 'person' || i || '@example.org', case when i % 2 = 0 then 'DE' else 'US' end, 'shh' || i from n;
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)
             insert into orders select i, 501 - i, case when i % 3 = 0 then 'open' else 'paid' end, i * 1.25 from n;",
        )
        .unwrap();
    folder.ok(&["run"]);
    let said = folder.ok(&["test", "--record", "spent", "--rows", "5", "--plain", "country"]);
    assert!(said.out.contains("tests/spent_recorded.yaml"), "{}", said.all());
    let written = std::fs::read_to_string(folder.path().join("tests/spent_recorded.yaml")).unwrap();
    assert!(!written.contains("example.org") && !written.contains("shh"), "{written}");
    assert!(written.contains("email_1") && written.contains("paid") && written.contains("decimal(10, 2)"), "{written}");
    assert!(written.contains("DE") || written.contains("US"), "{written}");
    assert!(written.contains("spent"), "the join finds its rows: {written}");

    let said = folder.ok(&["test", "--unit"]);
    assert!(said.out.contains("unit tests: 1 passed"), "{}", said.all());
    // No table is needed any more.
    std::fs::remove_dir_all(folder.path().join(".tributary")).unwrap();
    folder.ok(&["test", "--unit"]);
    folder.write(
        "models/paid.sql",
        "/*---\nmaterialized: view\n---*/\nselect id, customer_id, status, amount from raw.orders where status = 'open'",
    );
    assert_eq!(folder.trib(&["test", "--unit"]).status, Some(4));
    let again = folder.trib(&["test", "--record", "spent"]);
    assert!(again.status == Some(2) && again.err.contains("is there already"), "{}", again.all());
}
