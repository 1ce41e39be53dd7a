#!/usr/bin/env python3
"""Reads a paged API through a declarative manifest, with trib and, where it is installed, with Airbyte's Python CDK, and prints both as a Markdown table.

    BENCH_TRIB=target/release/trib python3 benches/manifest.py
    BENCH_CDK=/venv/bin/source-declarative-manifest python3 benches/manifest.py

BENCH_RECORDS (1,000,000) records come in pages of a thousand from a server in a process of its own, which holds all pages ready. What the server takes by itself
is measured by fetching the same pages and looking at nothing; the table shows its share of each wall time. A tenth of the records is read first: the peak of
memory should not depend on their number. Every reader writes Airbyte's protocol, its messages are counted.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measure import measure

HERE = Path(__file__).resolve().parent
RECORDS = int(os.environ.get("BENCH_RECORDS", "1000000"))
TRIB = os.environ.get("BENCH_TRIB", str(HERE.parent / "target" / "release" / "trib"))
CDK = os.environ.get("BENCH_CDK")
PAGE = 1000


def record(number: int) -> str:
    return (
        f'{{"id":{number},"name":"Customer {number}","email":"customer{number}@example.com","amount":{number % 10000}.25,'
        f'"currency":"EUR","active":{"true" if number % 3 else "false"},"city":"K\\u00f6ln","score":{number % 97},'
        f'"created_at":"2026-01-{number % 28 + 1:02}T08:15:30Z","tags":["a","b"],"note":null}}'
    )


def serve() -> None:
    """Answers `/items?page=N` for as long as it is asked, and prints its port first."""
    pages = []
    for page in range(RECORDS // PAGE):
        rows = ",".join(record(page * PAGE + row) for row in range(PAGE))
        body = f'{{"items":[{rows}],"page":{page + 1}}}'.encode()
        pages.append(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    empty = b'{"items":[]}'
    nothing = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(empty) + empty

    def talk(client: socket.socket) -> None:
        with client, client.makefile("rb", buffering=1 << 16) as reading:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while line := reading.readline():
                while reading.readline() not in (b"\r\n", b""):
                    pass
                query = line.split(b" ")[1].partition(b"?")[2]
                asked = dict(pair.split(b"=") for pair in query.split(b"&") if pair)
                page = int(asked.get(b"page", b"1"))
                limit = int(asked.get(b"pages", len(pages)))
                client.sendall(pages[page - 1] if page <= min(limit, len(pages)) else nothing)

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=talk, args=(client,), daemon=True).start()


def manifest(port: int, pages: int) -> str:
    kinds = {"id": "integer", "name": "string", "email": "string", "amount": "number", "currency": "string", "active": "boolean",
             "city": "string", "score": "integer", "tags": "array", "note": "string"}
    properties = {name: {"type": [kind, "null"]} for name, kind in kinds.items()}
    properties["created_at"] = {"type": "string", "format": "date-time"}
    return json.dumps({
        "version": "7.0.0", "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["items"]},
        "streams": [{
            "type": "DeclarativeStream", "name": "items", "primary_key": "id",
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {"type": "HttpRequester", "url_base": f"http://127.0.0.1:{port}/", "path": "items", "http_method": "GET",
                              "request_parameters": {"pages": str(pages)}},
                "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": ["items"]}},
                "paginator": {"type": "DefaultPaginator",
                              "pagination_strategy": {"type": "PageIncrement", "start_from_page": 1, "page_size": PAGE, "inject_on_first_request": True},
                              "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"}},
            },
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": properties}},
        }],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    })


def server_alone(port: int, pages: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    buffer = bytearray(1 << 20)
    started = time.perf_counter()
    for page in range(1, pages + 2):
        connection.request("GET", f"/items?page={page}&pages={pages}")
        answer = connection.getresponse()
        while answer.readinto(buffer):
            pass
    return time.perf_counter() - started


def main() -> None:
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        print("| reader | records | wall s | records/s | CPU s | peak MB | server's share |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        with tempfile.TemporaryDirectory() as folder:
            compare(port, Path(folder))
    finally:
        server.terminate()
        server.wait()


def compare(port: int, folder: Path) -> None:
    catalog = {"streams": [{"stream": {"name": "items", "json_schema": {}, "supported_sync_modes": ["full_refresh"]},
                            "sync_mode": "full_refresh", "destination_sync_mode": "append"}]}
    (folder / "catalog.json").write_text(json.dumps(catalog))
    (folder / "config.json").write_text("{}")
    common = f"--config {folder}/config.json --catalog {folder}/catalog.json"
    speeds = {}
    for records in (RECORDS // 10, RECORDS):
        pages = records // PAGE
        (folder / "m.yaml").write_text(manifest(port, pages))
        alone = server_alone(port, pages)
        readers = {"trib": f"{TRIB} airbyte read --manifest {folder}/m.yaml {common}"}
        if CDK:
            readers["CDK"] = f"{CDK} read --manifest-path {folder}/m.yaml {common}"
        for name, command in readers.items():
            # Counting is done by grep in the same pipe: its time and memory are part of what is measured, for all alike.
            took = measure(f'test "$({command} | grep -c \'"RECORD"\')" = {records}', {})
            speeds[name] = records / took.wall
            print(f"| {name} | {records:,} | {took.wall:.2f} | {speeds[name]:,.0f} | {took.cpu:.2f} | {took.rss_mb:.0f} | {alone / took.wall:.0%} |", flush=True)
    if len(speeds) > 1:
        print(f"\n{speeds['trib'] / speeds['CDK']:.0f} times as many records a second.")


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
