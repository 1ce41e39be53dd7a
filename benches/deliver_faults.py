#!/usr/bin/env python3
"""Reverse ETL through trouble: how long a delivery takes beside what the API's declared limit allows.

    benches/deliver_faults.py --trib target/release/trib [one] [batch] [bulk]

A stand-in of an API refuses 1 % of all calls with 429 and `Retry-After: 1`, fails 0.5 % with 500, cuts 0.5 % of the connections before it has done anything and as many
afterwards, and refuses 0.5 % of the records for good. It remembers idempotency keys. Records go one a call, in batches of 100, and in bulk jobs of 10,000 that
it works on one after another. Printed are the time that the limit allows for the least number of calls (of a job: for the work on its records), the wall time of
`trib run`, and the ratio. A record that was made twice or not at all, a refused one that is not listed, or more calls in a second than declared end the benchmark.
"""

import argparse
import json
import random
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deliver import HERE, run

BATCH, JOB = 100, 10_000
# What goes out, calls a second, and records a second that the API works on in jobs.
MODES = {"one": (4_000, 100, 0), "batch": (60_000, 20, 0), "bulk": (100_000, 20, 5_000)}
MANIFEST = """
version: 7.0.0
check: {type: CheckRequest, requester: {$ref: "#/definitions/api", path: ping}}
definitions:
  api: {type: HttpRequester, url_base: "URL"}
  insert: {$ref: "#/definitions/api", http_method: POST, request_headers: {Idempotency-Key: "{{ delivery_id }}"}}
  job: {$ref: "#/definitions/api", path: "jobs/{{ job['id'] }}"}
  results: {type: SimpleRetriever, requester: {$ref: "#/definitions/job"}, record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: []}}}
concurrency_level: {type: ConcurrencyLevel, default_concurrency: 4}
api_budget: {type: HTTPAPIBudget, policies: [{type: MovingWindowCallRatePolicy, rates: [{limit: LIMIT, interval: PT1S}], matchers: []}]}
objects:
  - name: one
    open: true
    operations: [{operation: insert, idempotent: true, requester: {$ref: "#/definitions/insert", path: one}}]
  - name: batch
    open: true
    operations:
      - operation: insert
        idempotent: true
        requester: {$ref: "#/definitions/insert", path: batch}
        batch: {max_records: BATCH}
        answers: {path: [], failed: "{{ result['why'] }}", message: "{{ result['why'] }}"}
  - name: bulk
    open: true
    operations:
      - operation: upsert
        requester: {$ref: "#/definitions/insert", path: one}
        job:
          format: jsonl
          max_records: JOB
          create: {$ref: "#/definitions/api", path: jobs, http_method: POST}
          upload: {$ref: "#/definitions/job", http_method: PUT}
          close: {$ref: "#/definitions/job", http_method: PATCH}
          poll: {$ref: "#/definitions/job"}
          status: "{{ response['state'] }}"
          open: [open]
          completed: [done]
          record_key: "{{ record['id'] }}"
          result_key: "{{ result['id'] }}"
          taken: {id: "", retriever: {$ref: "#/definitions/results", requester: {$ref: "#/definitions/job", path: "jobs/{{ job['id'] }}/taken"}}}
          refused: {message: "{{ result['why'] }}", retriever: {$ref: "#/definitions/results", requester: {$ref: "#/definitions/job", path: "jobs/{{ job['id'] }}/refused"}}}
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
"""
SYNC = "from: warehouse\nto: crm\nstreams:\n  marts.contacts: {into: MODE, key: {id: id}, map: {name: name}, write: WRITE}\n"
MODEL = "/*---\nschema: marts\n---*/\nselect value as id, 'Person ' || value as name from (select unnest(generate_series(1, ROWS)) as value)\n"


def why(record: dict) -> str:
    return f"number {record['id']} is not wanted" if record["id"] % 200 == 7 else ""


class Api:
    """What it has made, how often, and when it was asked."""

    def __init__(self, seed: int, rate: int) -> None:
        self.lock, self.chance, self.rate = threading.Lock(), random.Random(seed), rate
        self.made: dict[int, int] = {}
        self.done: dict[str, bytes] = {}
        self.came: list[float] = []
        self.faults = {"429": 0, "500": 0, "cut": 0}
        self.jobs: list[dict] = []
        self.busy_until = 0.0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with api.lock:
                    api.came.append(time.monotonic())
                    status, answer, cut = api.answer(self.command, self.path, self.headers.get("Idempotency-Key", ""), body)
                if cut:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_PATCH = serve

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, bytes, bool]:
        drawn = self.chance.random()
        if drawn < 0.01:
            self.faults["429"] += 1
            return 429, b"{}", False
        if drawn < 0.015:
            self.faults["500"] += 1
            return 500, b"{}", False
        if drawn < 0.02:
            self.faults["cut"] += 1
            return 0, b"", True
        status, answer = self.work(method, path, key, body)
        if drawn < 0.025:
            self.faults["cut"] += 1
        return status, answer, drawn < 0.025

    def work(self, method: str, path: str, key: str, body: bytes) -> tuple[int, bytes]:
        parts = path.strip("/").split("/")
        if parts[0] == "jobs":
            return 200, json.dumps(self.job(method, parts[1:], body)).encode()
        if key not in self.done:
            records = json.loads(body)
            one = isinstance(records, dict)
            records = [records] if one else records
            self.make(records)
            told = [{"why": why(record)} for record in records]
            self.done[key] = json.dumps(told[0] if one else told).encode()
        answer = self.done[key]
        return (400 if parts[0] == "one" and b"not wanted" in answer else 200), answer.replace(b"why", b"message" if parts[0] == "one" else b"why")

    def make(self, records: list[dict]) -> None:
        for record in records:
            if not why(record):
                self.made[record["id"]] = self.made.get(record["id"], 0) + 1

    def job(self, method: str, parts: list[str], body: bytes) -> object:
        if not parts:
            self.jobs.append({"records": [], "done": 0.0})
            return {"id": len(self.jobs) - 1}
        job, now = self.jobs[int(parts[0])], time.monotonic()
        if method == "PUT":
            job["records"] = [json.loads(line) for line in body.splitlines()]
        elif method == "PATCH" and not job["done"]:
            self.make(job["records"])
            self.busy_until = max(self.busy_until, now) + len(job["records"]) / self.rate
            job["done"] = self.busy_until
        elif parts[1:]:
            told = [{"id": record["id"], "why": why(record)} for record in job["records"]]
            return [one for one in told if bool(one["why"]) == (parts[1] == "refused")]
        return {"state": "open" if not job["done"] else "done" if job["done"] <= now else "working"}

    def most_in_a_second(self) -> int:
        most = first = 0
        for last, at in enumerate(self.came):
            while self.came[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most


def deliver(mode: str, trib: str, home: Path, seed: int) -> str:
    rows, limit, rate = MODES[mode]
    api = Api(seed, rate)
    shutil.rmtree(home, ignore_errors=True)
    for file, text in {
        "tributary.yaml": "name: faults\n",
        "connections.yaml": "crm: {connector: crm}\n",
        "connectors/crm.yaml": MANIFEST.replace("URL", f"http://127.0.0.1:{api.server.server_port}")
        .replace("LIMIT", str(limit))
        .replace("BATCH", str(BATCH))
        .replace("JOB", str(JOB)),
        "syncs/crm.yaml": SYNC.replace("MODE", mode).replace("WRITE", "upsert" if mode == "bulk" else "insert"),
        "models/contacts.sql": MODEL.replace("ROWS", str(rows)),
    }.items():
        path = home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run(trib, home, "run", "contacts")
    wall, cpu, peak = run(trib, home, "run", "crm")
    listed = subprocess.run([trib, "rejected", "list", "--json", "--limit", "1000000"], cwd=home, capture_output=True, text=True, check=True)
    listed = json.loads(listed.stdout)
    refused = {n for n in range(1, rows + 1) if n % 200 == 7}
    if {row["row"]["id"] for row in listed} != refused or any("is not wanted" not in row["reason"] for row in listed):
        raise SystemExit(f"{mode}: {len(listed)} records are listed, {len(refused)} were refused: {listed[:3]}")
    if set(api.made) != set(range(1, rows + 1)) - refused or max(api.made.values()) != 1:
        twice = sum(times > 1 for times in api.made.values())
        raise SystemExit(f"{mode}: {len(api.made)} of {rows - len(refused)} records were made, {twice} of them more than once")
    if api.most_in_a_second() > limit:
        raise SystemExit(f"{mode}: {api.most_in_a_second()} calls in a second, and {limit} are allowed")
    allowed = rows / rate if rate else rows / (1 if mode == "one" else BATCH) / limit
    calls, busy = len(api.came), api.came[-1] - api.came[0]
    shutil.rmtree(home)
    faults = ", ".join(f"{count} × {what}" for what, count in api.faults.items())
    return f"| {mode} | {rows:,} | {calls:,} | {faults} | {allowed:.1f} | {busy:.1f} | {wall:.1f} | {wall / allowed:.2f} | {cpu:.1f} | {peak:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="*", help="one, batch, bulk; all when left out")
    parser.add_argument("--trib", default=str(HERE.parent / "target" / "release" / "trib"))
    parser.add_argument("--home", type=Path, default=HERE.parent / "target" / "bench" / "faults")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    print("| | records | calls | faults | allowed s | first to last call s | wall s | ratio | CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for mode in args.modes or MODES:
        print(deliver(mode, str(Path(args.trib).resolve()), args.home, args.seed), flush=True)


if __name__ == "__main__":
    main()
