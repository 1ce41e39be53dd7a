#!/usr/bin/env python3
"""Benchmark data, the same on every machine: CSV with a header, made with the standard library only.

    generate.py lineitem 6000000 lineitem.csv       TPC-H-like order lines: integers, decimals, dates, short text
    generate.py changes 6000000 1000000 batch.csv   half of the batch changes lines of that table, half are new
    generate.py events 1000000 events.csv           uuid, timestamptz, jsonb, arrays, numeric, awkward text, NULLs

Rows are made in chunks, each from a seed of its own, so that the result does not depend on the number of processes.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import random
import uuid
from itertools import accumulate

LINEITEM = (
    "l_orderkey,l_partkey,l_suppkey,l_linenumber,l_quantity,l_extendedprice,l_discount,l_tax,l_returnflag,l_linestatus,"
    "l_shipdate,l_commitdate,l_receiptdate,l_shipinstruct,l_shipmode,l_comment\n"
)
EVENTS = "id,uid,at,payload,note,tags,scores,amount,ratio,flag\n"

ORDERS_PER_CHUNK = 20_000
EVENTS_PER_CHUNK = 50_000

DAYS = [(datetime.date(1992, 1, 1) + datetime.timedelta(days=n)).isoformat() for n in range(2600)]
TODAY = DAYS.index("1995-06-17")
INSTRUCTIONS = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]
MODES = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]
WORDS = (
    "river barge harbour quick slow silent ledger anchor the of above across final pending bold even regular special "
    "request deposit account package theory instruction ideas sleep nag haggle wake among carefully furiously blithely"
).split()
# Text that breaks careless readers.
AWKWARD = [
    "plain text",
    "",
    'says "hi", then leaves',
    "line one\nline two\r\nline three",
    "tab\there, backslash \\ there, \\N and \\. too",
    "Größe – ½ · naïve · 漢字 · عربى · 👩‍👩‍👧",
    "  leading and trailing  ",
    "NULL",
    "it's 100%; -- no comment",
    "\ufeffmark, \u00a0space, e\u0301 combined",
]


def text_pool() -> str:
    words = random.Random("pool")
    return " ".join(words.choice(WORDS) for _ in range(60_000))


POOL = text_pool()


def lines_of(order: int) -> int:
    """How many lines an order has, from 1 to 7."""
    return 1 + ((order * 2_654_435_761) >> 13) % 7


def order_key(order: int) -> int:
    """Keys have gaps, as in TPC-H: eight are used, twenty-four are not."""
    return (order >> 3) * 32 + (order & 7) + 1


def line(r: random.Random, key: int, number: int, mark: str = "") -> str:
    u = r.random
    part = int(u() * 200_000) + 1
    supplier = part % 10_000 + 1
    quantity = int(u() * 50) + 1
    price = quantity * (90_000 + part // 10 % 20_001 + 100 * (part % 1000))
    discount, tax = int(u() * 11), int(u() * 9)
    ship = int(u() * 2400) + 60
    receipt = ship + int(u() * 30) + 1
    returned = ("R" if u() < 0.5 else "A") if receipt <= TODAY else "N"
    at = int(u() * (len(POOL) - 50))
    comment = mark + POOL[at : at + 10 + int(u() * 30)]
    return (
        f"{key},{part},{supplier},{number},{quantity}.00,{price // 100}.{price % 100:02d},0.{discount:02d},0.{tax:02d},"
        f"{returned},{'O' if ship > TODAY else 'F'},{DAYS[ship]},{DAYS[ship - 45 + int(u() * 90)]},{DAYS[receipt]},"
        f"{INSTRUCTIONS[int(u() * 4)]},{MODES[int(u() * 7)]},{comment}\n"
    )


def lineitem_chunk(job: tuple[int, int, int]) -> str:
    first, orders, most = job
    r = random.Random(f"lineitem {first}")
    out = []
    for order in range(first, first + orders):
        key = order_key(order)
        out.extend(line(r, key, n) for n in range(1, lines_of(order) + 1))
    return "".join(out[:most])


def lineitem_jobs(rows: int):
    first = 0
    while rows > 0:
        lines = sum(lines_of(o) for o in range(first, first + ORDERS_PER_CHUNK))
        yield first, ORDERS_PER_CHUNK, min(rows, lines)
        rows -= lines
        first += ORDERS_PER_CHUNK


def changes(table_rows: int, rows: int):
    """Existing keys spread over the table, then new ones, in an order that follows neither."""
    lines = list(accumulate((lines_of(o) for o in range(table_rows // 4)), initial=0))
    whole = next(o for o in range(len(lines) - 1, -1, -1) if lines[o] <= table_rows)
    r = random.Random("changes")
    old = [(order_key(o), n) for o in r.sample(range(whole), min(whole, rows // 2)) for n in range(1, lines_of(o) + 1)][: rows // 2]
    new = [(order_key(whole + ORDERS_PER_CHUNK * 100 + i), 1) for i in range(rows - len(old))]
    keys = [(k, "CHANGED ") for k in old] + [(k, "NEW ") for k in new]
    r.shuffle(keys)
    for (key, number), mark in keys:
        yield line(r, key, number, mark)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def array(items: list) -> str:
    """PostgreSQL's text form of an array."""

    def item(value) -> str:
        if value is None:
            return "NULL"
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return text if isinstance(value, int) else f'"{text}"'

    return "{" + ",".join(item(i) for i in items) + "}"


def event(r: random.Random, number: int) -> str:
    u = r.random
    note = AWKWARD[int(u() * len(AWKWARD))]
    micros = int(u() * 86_400_000_000 * 365)
    at = datetime.datetime(2025, 1, 1) + datetime.timedelta(microseconds=micros)
    zone = ("+00", "+05:30", "-08", "+01")[int(u() * 4)]
    payload = {
        "kind": ("view", "click", "buy")[int(u() * 3)],
        "user": {"id": int(u() * 1_000_000), "name": note, "vip": u() < 0.1},
        "items": [{"sku": f"S{int(u() * 9999):04d}", "n": int(u() * 5), "price": round(u() * 100, 2)} for _ in range(int(u() * 4))],
        "big": 9_007_199_254_740_993 + number,
    }
    cells = [
        str(number),
        str(uuid.UUID(int=r.getrandbits(128), version=4)),
        f"{at.isoformat(sep=' ', timespec='microseconds')}{zone}",
        "" if u() < 0.08 else quoted(json.dumps(payload, ensure_ascii=False)),
        "" if u() < 0.1 else quoted(note),
        "" if u() < 0.1 else quoted(array([AWKWARD[int(u() * len(AWKWARD))] for _ in range(int(u() * 3))])),
        "" if u() < 0.1 else quoted(array([None if u() < 0.2 else int(u() * 1000) for _ in range(int(u() * 4))])),
        f"{int(u() * 10**13) - 5 * 10**12}.{int(u() * 10000):04d}",
        "" if u() < 0.1 else repr((u() - 0.5) * 10 ** int(u() * 20)),
        ("", "true", "false")[int(u() * 3)],
    ]
    return ",".join(cells) + "\n"


def events_chunk(job: tuple[int, int]) -> str:
    first, rows = job
    r = random.Random(f"events {first}")
    return "".join(event(r, number) for number in range(first, first + rows))


def write(path: str, header: str, chunks) -> None:
    """Under another name first, so that a file with the right name is complete."""
    with open(path + ".part", "w", encoding="utf-8", newline="") as out:
        out.write(header)
        out.writelines(chunks)
    os.replace(path + ".part", path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    for name in ("lineitem", "events"):
        sub = what.add_parser(name)
        sub.add_argument("rows", type=int)
        sub.add_argument("out")
    sub = what.add_parser("changes")
    sub.add_argument("table_rows", type=int)
    sub.add_argument("rows", type=int)
    sub.add_argument("out")
    a = parser.parse_args()
    if a.what == "changes":
        return write(a.out, LINEITEM, changes(a.table_rows, a.rows))
    with multiprocessing.Pool() as pool:
        if a.what == "lineitem":
            write(a.out, LINEITEM, pool.imap(lineitem_chunk, lineitem_jobs(a.rows)))
        else:
            jobs = ((first, min(EVENTS_PER_CHUNK, a.rows - first)) for first in range(0, a.rows, EVENTS_PER_CHUNK))
            write(a.out, EVENTS, pool.imap(events_chunk, jobs))


if __name__ == "__main__":
    main()
