//! `trib docs`: pages that stand for themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::trib::Folder;

/// The values of an attribute, in the order of the page.
fn attribute<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!(" {name}=\"");
    page.match_indices(&open).filter_map(|(at, _)| page[at + open.len()..].split('"').next()).collect()
}

fn unescaped(address: &str) -> String {
    let bytes = address.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            out.push(u8::from_str_radix(&address[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

fn pages(folder: &Path) -> Vec<(PathBuf, String)> {
    let all = [folder.to_owned(), folder.join("tables")];
    let files = all.iter().flat_map(|dir| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()));
    files.filter(|f| f.is_file()).map(|f| (f.clone(), fs::read_to_string(&f).unwrap())).collect()
}

/// Every link leads to a file of the folder and to a place in it, and nothing is fetched from anywhere else.
fn check_links(folder: &Path) -> usize {
    let pages = pages(folder);
    let mut followed = 0;
    for (file, page) in &pages {
        assert!(!page.contains("://"), "{}: an address of the network", file.display());
        for link in ["href", "src"].into_iter().flat_map(|name| attribute(page, name)).filter(|l| *l != "data:,") {
            let (path, place) = link.split_once('#').map_or((link, None), |(path, place)| (path, Some(place)));
            let to = if path.is_empty() { file.clone() } else { fs::canonicalize(file.parent().unwrap().join(unescaped(path))).unwrap() };
            let (_, there) = pages.iter().find(|(f, _)| fs::canonicalize(f).unwrap() == fs::canonicalize(&to).unwrap()).unwrap();
            if let Some(place) = place {
                let places: Vec<String> = attribute(there, "id").iter().map(|id| id.replace("&lt;", "<").replace("&gt;", ">")).collect();
                assert!(places.contains(&unescaped(place)), "{}: {link}", file.display());
            }
            followed += 1;
        }
    }
    followed
}

#[test]
fn the_example_as_pages() {
    let folder = Folder::new();
    folder.ok(&["init", "--example", "."]);
    folder.ok(&["run"]);
    folder.ok(&["docs", "--out", "site"]);
    let site = folder.path().join("site");
    assert!(check_links(&site) > 100);
    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
    let page = read("tables/analytics.revenue_by_country.html");
    for shown in [
        "What each country has paid and how many of its people that is",
        "co.population",
        "status passed",
        "unique(country)",
        "reconcile(sum(revenue), shop.orders)",
        "href=\"shop.orders.html#amount\"",
        "class=\"box source\"",
        "decimal(",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    // A rule of the sync is seen from both ends, and so is a child table.
    assert!(read("tables/shop.customers.html").contains("shop: customers.email <i>transformed</i>"));
    assert!(read("tables/web.events__items.html").contains("drop: events.items <i>transformed</i>"));
    assert!(read("tables/analytics.sign_up_forecast.html").contains("class=\"kind script\""));
    let index = read("index.html");
    assert!(index.contains("A small shop") && index.contains("class=\"succeeded\"") && !index.contains("Not described"), "{index}");
    assert!(
        read("runs.html").contains("<code>trib run</code>")
            && read("tests.html").contains("row_count") == read("site.js").contains("row_count")
    );
}

#[test]
fn pages_follow_the_project() {
    let model = |sql: &str| {
        format!("/*---\ndescription: \"<b>bold</b> & 'odd'\"\ncolumns: {{id: {{tests: [not_null, {{range: {{max: 1}}}}]}}}}\n---*/\n{sql}")
    };
    let folder = Folder::with(&[
        ("tributary.yaml", "name: odd\n"),
        ("connections.yaml", "drop: {connector: files, path: data}\naway: {connector: sqlite, path: nowhere/away.db}\n"),
        ("syncs/drop.yaml", "from: drop\ninto: raw.{table}\nstreams: {people: {}}\n"),
        ("syncs/away.yaml", "from: away\n"),
        ("data/people/1.csv", "id,name\n1,</td><script>alert(1)</script>\n2,b\n"),
        ("models/odd.sql", &model("select id, name as \"a<b>\" from raw.people where name <> '</code><script>'")),
        ("models/gone.sql", "select id from odd"),
    ]);
    // A test fails, and one source is not there: both stand on the pages.
    assert_ne!(folder.trib(&["run"]).status, Some(0));
    folder.ok(&["docs"]);
    let site = folder.path().join(".tributary/docs");
    check_links(&site);
    for (file, page) in pages(&site).iter().filter(|(f, _)| f.extension().is_some_and(|e| e == "html")) {
        // One script, which is a file of the folder.
        assert_eq!(page.matches("<script").count(), 1, "{}", file.display());
        assert!(!page.contains("<b>bold"), "{}", file.display());
    }
    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
    assert!(read("tables/analytics.odd.html").contains("<span class=\"status failed\">failed</span></td><td class=\"n\">1</td>"));
    assert!(read("index.html").contains("Not described"));
    assert!(read("runs.html").contains("class=\"error\""));
    fs::remove_file(folder.path().join("models/gone.sql")).unwrap();
    folder.write("models/new.sql", "select id from odd");
    folder.ok(&["docs"]);
    let tables: BTreeSet<String> =
        fs::read_dir(site.join("tables")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(tables, ["analytics.new.html", "analytics.odd.html", "raw.people.html"].map(str::to_owned).into());
    // Nothing is taken away from a folder that is somebody else's.
    folder.write("mine/tables/kept.txt", "x");
    let refused = folder.trib(&["docs", "--out", "mine"]);
    assert!(refused.status == Some(2) && folder.path().join("mine/tables/kept.txt").is_file(), "{}", refused.all());
}
