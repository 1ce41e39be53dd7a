#!/usr/bin/env python3
"""Writes the table of error codes in docs/src/errors.md from crates/core/src/error.rs; with --check, only says whether it is right."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crates/core/src/error.rs"
PAGE = ROOT / "docs/src/errors.md"
BEGIN, END = "<!-- codes: begin -->", "<!-- codes: end -->"

BLAME = {"User": "yours", "External": "theirs", "Internal": "ours"}
RETRY = {"Never": "never", "Backoff": "backoff", "AfterFix": "after fix"}


def table() -> str:
    block = re.search(r"^codes! \{\n(.*?)^\}", SOURCE.read_text(), re.MULTILINE | re.DOTALL)
    if not block:
        sys.exit("error: crates/core/src/error.rs has no codes! block")
    rows = re.findall(r'((?:^\s*///[^\n]*\n)+)\s*\w+ = "(\w+)", (\w+), (\w+);', block[1], re.MULTILINE)
    lines = ["| code | meaning | fault | retried |", "|---|---|---|---|"]
    for doc, code, blame, retry in rows:
        meaning = " ".join(part.strip().removeprefix("///").strip() for part in doc.strip().splitlines())
        lines.append(f"| `{code}` | {meaning} | {BLAME[blame]} | {RETRY[retry]} |")
    return "\n".join(lines)


def main() -> int:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if page == wanted:
        print("error codes: the table is right")
        return 0
    if "--check" in sys.argv[1:]:
        print("error: docs/src/errors.md is not what the code says; scripts/error-codes.py writes it")
        return 1
    PAGE.write_text(wanted)
    print("error codes: docs/src/errors.md written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
