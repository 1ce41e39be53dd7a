#!/usr/bin/env python3
"""An incremental model by time range over tables of several sizes: a run for one new day must cost the same in each.

    benches/intervals.py --trib target/release/trib

A day has 20,000 rows, so a table of 20 M rows has 1,000 days. DuckDB writes the rows as Parquet files, one a month; `trib` loads them into the lake
once. Then the model computes one more day, twice, and what it has touched is printed: rows and files by the table's log, bytes that
the process has read and written (by /proc), CPU seconds. Each run also computes the last day before again. The first one finds that day in a large
file of the full build, whose other rows it has to write again; from then on a day has files of its own, and a run costs what its two days cost.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
A_DAY = 20_000
SIZES = [200_000, 2_000_000, 20_000_000]
MODEL = """/*---
materialized: incremental
cursor: day
batch_size: day
---*/
select cast(date_trunc('day', at) as date) as day, id, user_id, amount from raw.events
"""
ROWS = """copy (
  select i as id, (hash(i) % 100000)::bigint as user_id, timestamp '2020-01-01' + to_microseconds((i * 86400000000 // {a_day})::bigint) as at,
    ((hash(i * 7) % 100000) / 100.0)::decimal(12, 2) as amount
  from range({since}, {until}) t(i)
) to '{file}' (format parquet)"""


def write(data: Path, days: range) -> None:
    import duckdb

    data.mkdir(parents=True, exist_ok=True)
    for first in range(days.start, days.stop, 30):
        last = min(first + 30, days.stop)
        duckdb.sql(ROWS.format(a_day=A_DAY, since=first * A_DAY, until=last * A_DAY, file=data / f"{first:05}.parquet"))


def run(trib: str, project: Path, *words: str) -> tuple[float, float, int, int]:
    """Wall and CPU seconds, bytes read and written by the process itself."""
    began = time.perf_counter()
    process = subprocess.Popen([trib, "run", "--quiet", *words], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    read = written = 0
    while process.poll() is None:
        try:
            counts = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
            read, written = int(counts["rchar"]), int(counts["wchar"])
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(0.005)
    wall = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(process.stdout.read().decode())
    usage = os.times()
    return wall, usage.children_user + usage.children_system, read, written


def touched(table: Path, since: int) -> tuple[int, int, int]:
    """Rows added, files added and files removed by the versions from `since` on."""
    rows = added = removed = 0
    for log in sorted((table / "_delta_log").glob("*.json")):
        if not log.stem.isdigit() or int(log.stem) < since:
            continue
        for line in log.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                added += 1
                rows += json.loads(action["add"]["stats"])["numRecords"]
            removed += "remove" in action
    return rows, added, removed


def versions(table: Path) -> int:
    return len([log for log in (table / "_delta_log").glob("*.json") if log.stem.isdigit()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trib", default=str(HERE.parent / "target" / "release" / "trib"))
    parser.add_argument("--home", type=Path, default=HERE.parent / "target" / "bench" / "intervals")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from tpch import own_python

    own_python(args.home)
    trib = str(Path(args.trib).resolve())
    print("| rows before | full build s | day | wall s | CPU s | MB read | MB written | rows added | files added | files removed | files in all |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for size in args.sizes:
        days = size // A_DAY
        project = args.home / f"project-{size}"
        shutil.rmtree(project, ignore_errors=True)
        for file, text in {
            "tributary.yaml": "name: intervals\n",
            "connections.yaml": "files: {connector: files, path: data, streams: {events: {path: '*.parquet'}}}\n",
            "syncs/events.yaml": "from: files\ninto: raw.{table}\nstreams:\n  events: {read: incremental, write: append}\n",
            "models/daily.sql": MODEL,
        }.items():
            path = project / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # Up to the end of a day: the next one begins an interval's worth of work.
        write(project / "data", range(0, days))
        run(trib, project, "events")
        # In one piece, not day by day.
        first = run(trib, project, "--full-refresh", "daily")
        table = project / ".tributary/warehouse/analytics/daily"
        for day, name in enumerate(["first", "next"]):
            write(project / "data", range(days + day, days + day + 1))
            run(trib, project, "events")
            before, cpu = versions(table), os.times()
            wall, after, read, written = run(trib, project, "daily")
            used = after - cpu.children_user - cpu.children_system
            rows, added, removed = touched(table, before)
            files = sum(1 for _ in table.glob("*.parquet"))
            print(
                f"| {size:,} | {first[0]:.1f} | {name} | {wall:.2f} | {used:.2f} | {read / 1e6:.1f} | {written / 1e6:.1f} | {rows:,} | {added} | {removed}"
                f" | {files} |",
                flush=True,
            )
        shutil.rmtree(project)


if __name__ == "__main__":
    main()
