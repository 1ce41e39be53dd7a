#!/usr/bin/env python3
"""Runs trib and the machine's own limit for the same work, in turns, and prints both as a Markdown table.

    benches/run.sh                     # everything; builds trib and the data first
    benches/run.sh A B                 # some scenarios
    BENCH_ROWS=1000000 BENCH_RUNS=5 benches/run.sh

The limit of a scenario is what the systems at both ends need at the least: the same bytes moved by their own tools, decoded and
checked by nobody. Medians; memory is the peak of all processes of the command together.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from measure import Measured, measure
from parquet_rows import rows_below
from server import Server

HERE = Path(__file__).resolve().parent
ROWS = int(os.environ.get("BENCH_ROWS", "6000000"))
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
BATCH = ROWS // 6
HOME = Path(os.environ.get("BENCH_HOME", HERE.parent / "target" / "bench"))
TRIB = os.environ.get("BENCH_TRIB", str(HERE.parent / "target" / "release" / "trib"))
KEY = "l_orderkey,l_linenumber"

LINEITEM = """(
  l_orderkey bigint not null, l_partkey integer not null, l_suppkey integer not null, l_linenumber integer not null,
  l_quantity numeric(15,2) not null, l_extendedprice numeric(15,2) not null, l_discount numeric(15,2) not null,
  l_tax numeric(15,2) not null, l_returnflag char(1) not null, l_linestatus char(1) not null, l_shipdate date not null,
  l_commitdate date not null, l_receiptdate date not null, l_shipinstruct char(25) not null, l_shipmode char(10) not null,
  l_comment varchar(44) not null)"""
EVENTS = """(
  id bigint primary key, uid uuid not null, at timestamptz not null, payload jsonb, note text, tags text[], scores integer[],
  amount numeric(18,4), ratio double precision, flag boolean)"""


@dataclass
class Contender:
    name: str
    command: str
    """Rows that arrived; `None` where that cannot be asked."""
    count: Callable[[], int] | None = None
    prepare: Callable[[], None] = lambda: None
    runs: list[Measured] = field(default_factory=list)


@dataclass
class Scenario:
    name: str
    what: str
    rows: int
    contenders: list[Contender]
    ratio_of: str = "wall"


class Bench:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.out = HOME / "out"
        self.src, self.dst = server.url("src"), server.url("dst")
        self.psql_src, self.psql_dst = server.psql("src"), server.psql("dst")
        # A stream of files is named after its file.
        self.data = HOME / str(ROWS)
        self.data.mkdir(exist_ok=True)
        self.lineitem = self.data / "lineitem.csv"
        self.changes = self.data / "changes.csv"
        self.binary = self.data / "lineitem.pgbin"
        self.incoming = HOME / "incoming" / "lineitem.csv"
        self.lake = HOME / "lake"

    # Data

    def load(self) -> None:
        events = self.data / "events.csv"
        for path, args in [
            (self.lineitem, ["lineitem", ROWS]),
            (self.changes, ["changes", ROWS, BATCH]),
            (events, ["events", BATCH]),
        ]:
            if not path.exists():
                say(f"generating {path.name}")
                subprocess.run([sys.executable, HERE / "generate.py", *map(str, args), path], check=True)
        say("loading PostgreSQL")
        self.server.fresh("src")
        self.sql(f"create table lineitem {LINEITEM}")
        self.copy_in("lineitem", self.lineitem)
        self.sql(f"alter table lineitem add primary key ({KEY})")
        self.sql(f"create table events {EVENTS}")
        self.copy_in("events", events)
        self.sql("create table lineitem10 (like lineitem including all)")
        self.sql("insert into lineitem10 select * from lineitem order by l_orderkey, l_linenumber limit 10")
        self.sql("vacuum analyze")
        if not self.binary.exists():
            self.sql(f"\\copy lineitem to '{self.binary}' (format binary)")

    def sql(self, text: str, database: str = "src") -> str:
        return self.server.sql(text, database)

    def copy_in(self, table: str, path: Path) -> None:
        self.sql(f"\\copy {table} from '{path}' (format csv, header)")

    # Before and after a run

    def empty_folder(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)

    def empty_database(self) -> None:
        self.server.fresh("dst")
        self.server.sql("checkpoint")

    def heap(self) -> None:
        self.empty_database()
        self.sql(f"create table lineitem {LINEITEM}", "dst")

    def rows_in_database(self, table: str) -> int:
        found = self.sql(
            f"select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables where tablename = '{table}' and schemaname !~ '^pg_'",
            "dst",
        ).split()
        return sum(int(self.sql(f"select count(*) from {t}", "dst")) for t in found)

    def rows_in_folder(self) -> int:
        return rows_below(self.out)

    def first_lake_load(self) -> None:
        say("loading the lake")
        for name in ("lake", "lake-home"):
            shutil.rmtree(HOME / name, ignore_errors=True)
            shutil.rmtree(HOME / f"{name}-loaded", ignore_errors=True)
        self.arrives(self.lineitem)
        measure(self.upsert(), {})
        for name in ("lake", "lake-home"):
            (HOME / name).rename(HOME / f"{name}-loaded")

    def before_upsert(self) -> None:
        """The lake as the first load left it, with what trib remembers of it, and the batch in the file's place."""
        for name in ("lake", "lake-home"):
            shutil.rmtree(HOME / name, ignore_errors=True)
            shutil.copytree(HOME / f"{name}-loaded", HOME / name)
        self.arrives(self.changes)

    def arrives(self, csv: Path) -> None:
        self.incoming.parent.mkdir(exist_ok=True)
        self.incoming.unlink(missing_ok=True)
        shutil.copyfile(csv, self.incoming)

    def upsert(self) -> str:
        return f"XDG_DATA_HOME={HOME}/lake-home {TRIB} copy {self.incoming} lake:{self.lake} --streams lineitem --key {KEY} --write upsert"

    # Scenarios

    def scenarios(self) -> dict[str, Callable[[], Scenario]]:
        return {"A": self.a, "B": self.b, "C": self.c, "CF": self.cf, "E": self.e, "F": self.f, "H": self.h, "M": self.m, "U": self.u}

    def a(self) -> Scenario:
        return Scenario("A", "PostgreSQL → Parquet", ROWS, [
            Contender("limit: COPY BINARY to nowhere", f"{self.psql_src} -c 'copy lineitem to stdout (format binary)' > /dev/null"),
            Contender("trib", self.trib(f"copy {self.src} {self.out} --streams public.lineitem --format parquet"), self.rows_in_folder, self.empty_folder),
        ])

    def b(self) -> Scenario:
        pipe = f"{self.psql_src} -c 'copy lineitem to stdout (format binary)' | {self.psql_dst} -c 'copy lineitem from stdin (format binary)'"
        count = lambda: self.rows_in_database("lineitem")  # noqa: E731
        return Scenario("B", "PostgreSQL → PostgreSQL", ROWS, [
            Contender("limit: COPY BINARY pipe, no key", pipe, count, self.heap),
            Contender("trib", self.trib(f"copy {self.src} {self.dst} --streams public.lineitem"), count, self.empty_database),
        ])

    def c(self) -> Scenario:
        return Scenario("C", "CSV → PostgreSQL", ROWS, [
            Contender(
                "limit: COPY of a ready binary file",
                f"{self.psql_dst} -c \"\\copy lineitem from '{self.binary}' (format binary)\"",
                lambda: self.rows_in_database("lineitem"), self.heap,
            ),
            Contender(
                "trib", self.trib(f"copy {self.lineitem} {self.dst} --streams lineitem"),
                lambda: self.rows_in_database("lineitem"), self.empty_database,
            ),
        ])

    def cf(self) -> Scenario:
        return Scenario("CF", "CSV → Parquet", ROWS, [
            Contender("limit: read the file once", f"wc -l < {self.lineitem}"),
            Contender("trib", self.trib(f"copy {self.lineitem} {self.out} --streams lineitem --format parquet"), self.rows_in_folder, self.empty_folder),
        ])

    def e(self) -> Scenario:
        return Scenario("E", "PostgreSQL events (jsonb, arrays, text) → Parquet", BATCH, [
            Contender("limit: COPY BINARY to nowhere", f"{self.psql_src} -c 'copy events to stdout (format binary)' > /dev/null"),
            Contender("trib", self.trib(f"copy {self.src} {self.out} --streams public.events --format parquet"), self.rows_in_folder, self.empty_folder),
        ])

    def f(self) -> Scenario:
        messages = self.data / "lineitem.singer"
        if not messages.exists():
            record = "json_build_object('type', 'RECORD', 'stream', 'lineitem', 'record', row_to_json(l))"
            records = f'{self.psql_src} -c "select {record} from lineitem l limit {BATCH}"'
            make = f"(echo '{json.dumps(SINGER_SCHEMA)}'; {records}) > {messages}.part && mv {messages}.part {messages}"
            subprocess.run(["bash", "-c", make], check=True)
        count = lambda: self.rows_in_database("lineitem")  # noqa: E731
        target = lambda to: f"cat {messages} | ({self.trib(f'target --to {to}')})"  # noqa: E731
        return Scenario("F", "Singer records → Parquet, PostgreSQL", BATCH, [
            Contender("limit: cat to nowhere", f"cat {messages} | cat > /dev/null"),
            Contender("trib target, Parquet", target(f"{self.out}/"), self.rows_in_folder, self.empty_folder),
            Contender("trib target, PostgreSQL", target(self.dst), count, self.empty_database),
        ])

    def h(self) -> Scenario:
        count = lambda: self.rows_in_database("lineitem10")  # noqa: E731
        make = f"{self.psql_dst} -c 'create table lineitem10 {LINEITEM}' -c 'copy lineitem10 from stdin (format binary)'".replace("\n", " ")
        return Scenario("H", "10 rows PostgreSQL → PostgreSQL, whole process", 10, [
            Contender("limit: psql pipe", f"{self.psql_src} -c 'copy lineitem10 to stdout (format binary)' | {make}", count, self.empty_database),
            Contender("trib", self.trib(f"copy {self.src} {self.dst} --streams public.lineitem10"), count, self.empty_database),
        ])

    def m(self) -> Scenario:
        """Does memory grow with the table? The same rows, then ten times as many."""
        small = max(ROWS // 6, 10)
        for table, rows in (("small", small), ("large", small * 10)):
            if self.sql(f"select to_regclass('{table}') is null") == "t":
                self.sql(f"create table {table} (like lineitem)")
                self.sql(
                    f"insert into {table} select (l_orderkey + n * 100000000)::bigint, {LINEITEM_REST} "
                    f"from generate_series(0, 1) n, lineitem order by n limit {rows}"
                )
                self.sql(f"alter table {table} add primary key ({KEY})")
        self.sql("vacuum analyze")
        copy = lambda table: self.trib(f"copy {self.src} {self.out} --streams public.{table} --format parquet")  # noqa: E731
        return Scenario("M", f"memory: {small:,} and {small * 10:,} rows PostgreSQL → Parquet", small, [
            Contender("trib, once", copy("small"), None, self.empty_folder),
            Contender("trib, tenfold", copy("large"), None, self.empty_folder),
        ], ratio_of="rss_mb")

    def u(self) -> Scenario:
        self.first_lake_load()
        return Scenario("U", f"upsert of {BATCH:,} rows into {ROWS:,} in the lake", BATCH, [
            Contender("limit: copy the table's files once", f"cp -r {HOME}/lake-loaded {self.out}/lake", None, self.empty_folder),
            Contender("trib", self.upsert(), None, self.before_upsert),
        ])

    def trib(self, arguments: str) -> str:
        """With nothing remembered of earlier runs."""
        return f"rm -rf {HOME}/data-home; XDG_DATA_HOME={HOME}/data-home {TRIB} {arguments}"


SINGER_TYPES = {
    "integer": "l_orderkey l_partkey l_suppkey l_linenumber",
    "number": "l_quantity l_extendedprice l_discount l_tax",
    "string": "l_returnflag l_linestatus l_shipinstruct l_shipmode l_comment",
    "date": "l_shipdate l_commitdate l_receiptdate",
}
SINGER_SCHEMA = {
    "type": "SCHEMA",
    "stream": "lineitem",
    "schema": {"properties": {
        name: {"type": "string", "format": "date"} if t == "date" else {"type": t} for t, names in SINGER_TYPES.items() for name in names.split()
    }},
    "key_properties": KEY.split(","),
}
LINEITEM_REST = ", ".join(
    f"l_{c}" for c in "partkey suppkey linenumber quantity extendedprice discount tax returnflag linestatus shipdate commitdate receiptdate shipinstruct shipmode comment".split()
)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(scenario: Scenario) -> None:
    for turn in range(RUNS):
        for contender in scenario.contenders:
            contender.prepare()
            measured = measure(contender.command, {})
            contender.runs.append(measured)
            say(f"{scenario.name} {turn + 1}/{RUNS} {contender.name}: {measured.wall:.2f} s")
            if contender.count and (rows := contender.count()) != scenario.rows:
                raise SystemExit(f"{scenario.name}, {contender.name}: {rows} rows arrived instead of {scenario.rows}")


def table(scenarios: list[Scenario]) -> str:
    lines = ["| | scenario | | wall s | rows/s | CPU s | peak RSS MB | × limit |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for s in scenarios:
        median = lambda c, of: statistics.median(getattr(m, of) for m in c.runs)  # noqa: E731
        limit = median(s.contenders[0], s.ratio_of)
        for i, c in enumerate(s.contenders):
            wall, cpu, rss = (median(c, of) for of in ("wall", "cpu", "rss_mb"))
            rows = s.rows * (10 if c.name.endswith("tenfold") else 1)
            lines.append(
                f"| {s.name if i == 0 else ''} | {s.what if i == 0 else ''} | {c.name} | {wall:.2f} | {rows / wall:,.0f} | {cpu:.1f} | {rss:.0f} | {median(c, s.ratio_of) / limit:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    with Server(Path(tempfile.gettempdir()) / f"trib-bench-{os.getpid()}") as server:
        bench = Bench(server)
        known = bench.scenarios()
        wanted = sys.argv[1:] or list(known)
        if unknown := [name for name in wanted if name not in known]:
            raise SystemExit(f"no such scenario: {', '.join(unknown)}; there are {', '.join(known)}")
        bench.load()
        done = []
        for name in wanted:
            scenario = known[name]()
            run(scenario)
            done.append(scenario)
        print(f"\n{ROWS:,} rows, medians of {RUNS}, {os.cpu_count()} cores, PostgreSQL {server.sql('show server_version')}\n")
        print(table(done))


if __name__ == "__main__":
    main()
