#!/usr/bin/env python3
"""TPC-H's 22 queries as models on the lake, beside DuckDB on the same Parquet files: equal results, and the time of both.

    benches/tpch.py --scale 1 --trib target/release/trib

Data come from `tpchgen-cli`, queries from `tpch/models`: one text for both, with the parameters of the specification's validation run. Both store their
results as tables. Without the packages in this Python, a virtual environment is made in `--home` first.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measure import Measured, measure

HERE = Path(__file__).resolve().parent
PACKAGES = ["duckdb", "tpchgen-cli"]
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]


def own_python(home: Path) -> None:
    """Goes on in a Python that has the packages."""
    try:
        import duckdb  # noqa: F401
    except ImportError:
        venv = home / "venv"
        if not (venv / "bin" / "tpchgen-cli").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        if Path(sys.prefix) == venv:
            raise
        os.execv(venv / "bin" / "python", [str(venv / "bin" / "python"), *sys.argv])


def generate(data: Path, scale: str) -> None:
    if data.exists():
        return
    part = data.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    generator = Path(sys.executable).parent / "tpchgen-cli"
    subprocess.run([generator, "parquet", "-s", scale, "--output-dir", part, "--quiet"], check=True)
    part.rename(data)


def queries() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted((HERE / "tpch" / "models").glob("*.sql"))}


def duckdb_side(data: Path, answers: Path, threads: int) -> None:
    """Runs in a process of its own: what it costs is measured from outside. Prints seconds by query."""
    import duckdb

    database = duckdb.connect(str(answers))
    database.execute(f"set threads = {threads}; create schema tpch; create schema answers")
    for table in TABLES:
        database.execute(f"create view tpch.{table} as select * from read_parquet('{data / table}.parquet')")
    took = {}
    for name, sql in queries().items():
        began = time.perf_counter()
        database.execute(f"create table answers.{name} as {sql}")
        took[name] = time.perf_counter() - began
    print(json.dumps(took))


def same(a: object, b: object) -> bool:
    """Averages of decimals have six places here and are floats there."""
    try:
        x, y = float(a), float(b)
    except (TypeError, ValueError):
        return str(a) == str(b)
    return math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-6)


def canonical(rows: list[list[object]]) -> list[list[object]]:
    def key(value: object) -> str:
        try:
            return f"{float(value):.4f}"
        except (TypeError, ValueError):
            return str(value)

    return sorted(rows, key=lambda row: [key(value) for value in row])


def compare(trib: str, project: Path, env: dict[str, str], answers: Path) -> list[str]:
    import duckdb

    database = duckdb.connect(str(answers), read_only=True)
    wrong = []
    for name in queries():
        found = database.execute(f"select * from answers.{name}")
        columns = [column[0] for column in found.description]
        theirs = canonical([list(row) for row in found.fetchall()])
        listed = ", ".join(f'"{c}"' for c in columns)
        command = [trib, "query", "--json", f"select {listed} from answers.{name}"]
        said = subprocess.run(command, cwd=project, env={**os.environ, **env}, capture_output=True, text=True)
        if said.returncode:
            wrong.append(f"{name}: {said.stderr}")
            continue
        ours = canonical([[row[c] for c in columns] for row in json.loads(said.stdout or "[]")])
        if len(ours) != len(theirs):
            wrong.append(f"{name}: {len(ours)} rows, DuckDB has {len(theirs)}")
            continue
        for mine, other in zip(ours, theirs):
            if not all(same(a, b) for a, b in zip(mine, other)):
                wrong.append(f"{name}: {mine}\n    DuckDB: {other}")
                break
    return wrong


def line(name: str, measured: Measured) -> str:
    return f"| {name} | {measured.wall:.1f} | {measured.cpu:.1f} | {measured.rss_mb:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--trib", default=str(HERE.parent / "target" / "release" / "trib"))
    parser.add_argument("--home", type=Path, default=HERE.parent / "target" / "bench" / "tpch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--duckdb-side", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    own_python(args.home)
    if args.duckdb_side:
        duckdb_side(*args.duckdb_side, args.threads)
        return
    args.home.mkdir(parents=True, exist_ok=True)
    data = args.home / f"data-{args.scale}"
    generate(data, args.scale)
    project, answers = args.home / "project", args.home / "other.duckdb"
    shutil.rmtree(project, ignore_errors=True)
    answers.unlink(missing_ok=True)
    shutil.copytree(HERE / "tpch", project)
    trib = str(Path(args.trib).resolve())
    env = {"TPCH_DATA": str(data)}
    go = f"cd '{project}' && '{trib}' run"
    load = measure(f"{go} kind:sync", env)
    models = measure(f"{go} kind:model", env)
    other = measure(f"'{sys.executable}' '{__file__}' --threads {args.threads} --duckdb-side '{data}' '{answers}'", {})
    wrong = compare(trib, project, env, answers)
    print(f"TPC-H, scale factor {args.scale}, {args.threads} threads, 22 queries, results stored as tables\n")
    print("| | wall s | CPU s | memory MB |\n|---|---|---|---|")
    print(line("Parquet → lake", load))
    print(line("trib, 22 models on the lake", models))
    print(line("DuckDB, 22 tables from Parquet", other))
    print(f"\nratio {models.wall / other.wall:.2f} (target: at most 2)")
    if wrong:
        raise SystemExit("\n".join(["results differ:", *wrong]))
    print("all 22 results are equal")


if __name__ == "__main__":
    main()
