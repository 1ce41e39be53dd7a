#!/usr/bin/env python3
"""Reverse ETL of a large table of which little has changed: a million contacts in the lake, 50,000 of them different from what was delivered.

    benches/deliver.py --trib target/release/trib

A stand-in of an API takes batches of 1,000 records. The first run delivers all of them. Then one row in twenty changes: `trib plan` finds out which (detection), a run
sends them, and a third run sends nothing. Printed are wall and CPU seconds and peak memory of each command, and what the API was sent.
"""

import argparse
import json
import os
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
EVERY = 20
MANIFEST = """
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/api", path: contacts}}
definitions: {api: {type: HttpRequester, url_base: "URL"}}
concurrency_level: {type: ConcurrencyLevel, default_concurrency: 4}
objects:
  - name: Contact
    keys: [[id]]
    open: true
    operations:
      - {operation: upsert, requester: {$ref: "#/definitions/api", path: contacts, http_method: POST}, batch: {max_records: 1000}}
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
"""
SYNC = "from: warehouse\nto: crm\nstreams:\n  marts.contacts: {into: Contact, key: {id: id}, map: {email: email, name: name, score: score, segment: segment}}\n"
MODEL = """/*---
schema: marts
---*/
select value as id, 'person' || value || '@example.com' as email, 'Person ' || value as name,
  cast(value % 1000 as double) / 10 + case when value % {every} = 0 then {changed} else 0 end as score,
  case when value % 3 = 0 then 'hot' else 'warm' end as segment
from (select unnest(generate_series(1, {rows})) as value)
"""


class Api:
    """Counts the records that it is given, and how many of them are of rows that have changed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = self.records = self.changed = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with api.lock:
                    api.calls += 1
                    api.records += len(records)
                    api.changed += sum(record["id"] % EVERY == 0 for record in records)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def taken(self) -> tuple[int, int, int]:
        with self.lock:
            taken = self.calls, self.records, self.changed
            self.calls = self.records = self.changed = 0
        return taken


def run(trib: str, project: Path, *words: str) -> tuple[float, float, float]:
    """Wall and CPU seconds, and peak memory in MB."""
    began = time.perf_counter()
    with open(project / "said.txt", "wb") as said:
        process = subprocess.Popen([trib, *words], cwd=project, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"trib {' '.join(words)}: {(project / 'said.txt').read_text()}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trib", default=str(HERE.parent / "target" / "release" / "trib"))
    parser.add_argument("--home", type=Path, default=HERE.parent / "target" / "bench" / "deliver")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    trib, api = str(Path(args.trib).resolve()), Api()
    shutil.rmtree(args.home, ignore_errors=True)
    for file, text in {
        "tributary.yaml": "name: deliver\n",
        "connections.yaml": "crm: {connector: crm}\n",
        "connectors/crm.yaml": MANIFEST.replace("URL", f"http://127.0.0.1:{api.server.server_port}"),
        "syncs/crm.yaml": SYNC,
    }.items():
        path = args.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def model(changed: int) -> None:
        path = args.home / "models/contacts.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MODEL.format(every=EVERY, changed=changed, rows=args.rows))
        run(trib, args.home, "run", "contacts")

    print("| | wall s | CPU s | peak MB | calls | records | of changed rows |")
    print("|---|---|---|---|---|---|---|")
    changed = args.rows // EVERY

    def show(what: str, expected: int, *words: str) -> None:
        wall, cpu, peak = run(trib, args.home, *words)
        calls, records, of_changed = api.taken()
        print(f"| {what} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {calls:,} | {records:,} | {of_changed:,} |", flush=True)
        if records != expected or expected == changed and of_changed != changed:
            raise SystemExit(f"{expected:,} records were expected")

    model(0)
    show("first delivery", args.rows, "run", "crm")
    model(1)
    show(f"detection of {changed:,} changed rows of {args.rows:,}", 0, "plan", "crm")
    show("their delivery", changed, "run", "crm")
    show("nothing has changed", 0, "run", "crm")
    shutil.rmtree(args.home)


if __name__ == "__main__":
    main()
