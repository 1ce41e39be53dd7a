//! Commands of other tools as nodes.

use std::time::{Duration, Instant};

use crate::trib::Folder;

fn project(command: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: programs\n"),
        ("connections.yaml", "files: {connector: files, path: data}\ncrm: {connector: sqlite, path: crm.db}\n"),
        ("data/orders.csv", "id,amount\n1,10\n2,5\n"),
        ("syncs/shop.yaml", "from: files\ninto: shop.orders\nstreams:\n  orders: {read: full, write: replace}\n"),
        ("commands/build.yaml", command),
        ("models/doubled.sql", "select sum(n) * 2 as n from crm.made"),
        ("models/apart.sql", "select 1 as a"),
        (
            "make.py",
            "import sqlite3, sys, os\nc = sqlite3.connect('crm.db')\nc.executescript('create table if not exists made (n integer); insert into made values (%s)' % sys.argv[1])\nprint('made', os.environ['TRIB_ENV'], os.environ['PASS'])\n",
        ),
    ])
}

#[test]
fn a_command_runs_between_its_parents_and_its_children() {
    let mut folder = project(
        "description: Makes a table\nrun: [python3, make.py, \"21\"]\nconnection: crm\nenv: {PASS: \"${MY_PASS}\"}\nafter: [shop]\nwrites: [made]\ntags: [old]\n",
    );
    let said = folder.trib(&["run", "build"]);
    assert!(said.status == Some(2) && said.all().contains("MY_PASS"), "{}", said.all());
    folder.set("MY_PASS", "hunter2-and-more");
    let listed = folder.ok(&["ls", "+doubled"]).out;
    assert!(["shop", "build", "doubled"].iter().all(|n| listed.contains(n)) && !listed.contains("apart"), "{listed}");
    let planned = folder.ok(&["plan", "build"]).out;
    assert!(planned.contains("python3 make.py 21"), "{planned}");
    let run = folder.ok(&["run"]);
    assert!(run.all().contains("build: has ended well"), "{}", run.all());
    assert_eq!(folder.query("warehouse", "select n from analytics.doubled"), "42");
    let log = folder.ok(&["logs"]).out;
    assert!(log.contains("made default ***") && !log.contains("hunter2"), "{log}");
    for selected in ["kind:command", "tag:old", "path:commands"] {
        assert!(folder.ok(&["ls", selected]).out.contains("build"), "{selected}");
    }
    assert!(folder.ok(&["validate"]).out.contains("1 command"));
}

#[test]
fn a_command_that_fails_skips_its_children_and_nothing_else() {
    let folder = project("run: echo about to fail; exit 7\nconnection: crm\nwrites: [\"ma*\"]\n");
    let said = folder.trib(&["run", "--exclude", "shop"]);
    assert_eq!(said.status, Some(3), "{}", said.all());
    for part in ["the command has failed", "commands/build.yaml", "exit status: 7", "about to fail", "doubled: left out, build has failed"]
    {
        assert!(said.all().contains(part), "{part} is missing in {}", said.all());
    }
    assert_eq!(folder.query("warehouse", "select a from analytics.apart"), "1");
    let again = folder.trib(&["run", "--retry-failed"]);
    assert!(again.status == Some(1) && again.all().contains("doubled") && !again.all().contains("apart"), "{}", again.all());

    folder.write("commands/build.yaml", "run: [sleep, \"600\"]\nconnection: crm\nwrites: [made]\ntimeout: 1s\n");
    let began = Instant::now();
    let late = folder.trib(&["run", "build"]);
    assert!(late.status == Some(1) && late.all().contains("the command took longer than it may"), "{}", late.all());
    assert!(began.elapsed() < Duration::from_secs(300), "it was ended");
    for (text, place, hint) in [
        ("run: []\n", "commands/build.yaml:1:1", "such as"),
        ("run: [x]\nafter: [shp]\n", "commands/build.yaml", "did you mean `shop`?"),
        ("run: [x]\nread: [y]\n", "commands/build.yaml:2:1", "did you mean `reads`?"),
    ] {
        folder.write("commands/build.yaml", text);
        let said = folder.trib(&["validate"]);
        assert!(said.status == Some(2) && said.err.contains(place) && said.err.contains(hint), "{text}: {}", said.all());
    }
}
