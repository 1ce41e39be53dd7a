#!/usr/bin/env python3
"""Who may import whom, and a few more rules that no compiler knows.

Reads every crate's manifest and sources. Prints each breach with its place and the rule, and exits with 1 if there is one.
The tables below are the rules; `docs/src/architecture.md` gives the reasons.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES = ROOT / "crates"

# A crate's folder, and the folders of the crates that it may depend on.
MAY_IMPORT = {
    "core": set(),
    "kit": {"core"},
    "engine": {"core", "kit"},
    "connectors": {"core", "kit"},
    "lake": {"core", "kit", "engine"},
    "project": {"core"},
    "store": {"core"},
    "runtime": {"core", "kit", "engine", "store"},
    "server": {"core", "kit", "engine", "project", "store", "runtime"},
    "testkit": {"core", "kit"},
    "cli": {"core", "kit", "engine", "connectors", "lake", "project", "store", "runtime", "server"},
}

# Only ever a dev-dependency, and of anybody.
DEV_ONLY = {"testkit"}

# Heavy or opinionated crates, and the rooms that they stay in.
STAYS_IN = {
    "datafusion": {"engine", "lake", "cli"},
    "deltalake": {"lake"},
    "sqlx": {"store"},
    "clap": {"cli"},
    "indicatif": {"cli"},
    "axum": {"server"},
    "tokio-postgres": {"connectors"},
    "rusqlite": {"connectors", "cli"},  # the command line makes the example's database
}

# Rooms that know no connector by name.
NAMELESS = ["core", "kit", "engine", "project", "store", "runtime"]

# Names that those rooms may use all the same, and why.
NAMED_ALL_THE_SAME = {
    "store": {"postgres", "sqlite"},  # the control database lives in these two itself
    # every project has a warehouse that is a lake, unless it says otherwise; Meltano's plugins become Singer's connections, and Airbyte's own are imported
    "project": {"lake", "singer", "airbyte"},
    "kit": {"singer"},  # JSON Schema has a format of this name
}

# Folders of those rooms that hold a user's project, not our code.
TEMPLATES = ["project/src/template", "project/src/templates"]

# Words of the language that are also connectors: only the quoted name counts.
ORDINARY_WORDS = {"files", "lake", "manifest"}

BANNED_MODULES = {"utils", "util", "common", "helpers", "helper", "types", "misc"}
LONG_FILE = 600
TOO_LONG_FILE = 720

TOKENS = re.compile(
    r"""
    (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<raw>b?r(?P<hashes>\#*)".*?"(?P=hashes))
  | (?P<string>b?"(?:\\.|[^"\\])*")
  | (?P<char>b?'(?:\\[^\n]+?|[^\\'\n])')
    """,
    re.VERBOSE | re.DOTALL,
)


def without_comments(source: str) -> str:
    """The source with comments blanked out; lines keep their numbers."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0]) if match["comment"] else match[0]

    return TOKENS.sub(blank, source)


def without_unit_tests(source: str) -> str:
    """Up to the unit tests, which stand last in a file by custom."""
    at = re.search(r"^#\[cfg\(test\)\]\s*\n(?:#\[[^\n]*\n)*\s*mod \w+ \{", source, re.MULTILINE)
    return source[: at.start()] if at else source


class Report:
    def __init__(self) -> None:
        self.breaches: list[str] = []
        self.notes: list[str] = []

    def breach(self, path: Path, line: int | None, text: str) -> None:
        self.breaches.append(f"{place(path, line)}: {text}")

    def note(self, path: Path, line: int | None, text: str) -> None:
        self.notes.append(f"{place(path, line)}: {text}")


def place(path: Path, line: int | None) -> str:
    shown = path.relative_to(ROOT)
    return f"{shown}:{line}" if line else str(shown)


def hits(pattern: str, source: str):
    for match in re.finditer(pattern, source):
        yield source.count("\n", 0, match.start()) + 1, match


def room_of(package: str) -> str:
    """`trib-core` lives in `core`; the binary's package is `trib`."""
    return "cli" if package == "trib" else package.removeprefix("trib-")


def check_manifest(room: str, manifest: Path, report: Report) -> None:
    content = tomllib.loads(manifest.read_text())
    tables = {key: content.get(key, {}) for key in ("dependencies", "build-dependencies", "dev-dependencies")}
    for target in content.get("target", {}).values():
        for key in tables:
            tables[key] = {**tables[key], **target.get(key, {})}
    for key, dependencies in tables.items():
        dev = key == "dev-dependencies"
        for package in dependencies:
            if package.startswith("trib"):
                other = room_of(package)
                if other in DEV_ONLY:
                    if not dev:
                        report.breach(manifest, None, f"{package} may only be a dev-dependency")
                elif other != room and other not in MAY_IMPORT[room]:
                    report.breach(manifest, None, f"{room} may not depend on {other}")
            elif not dev:
                rooms = STAYS_IN.get(package) or STAYS_IN.get(package.split("-")[0] if package.startswith("datafusion") else "")
                if rooms is not None and room not in rooms:
                    report.breach(manifest, None, f"{package} stays in {', '.join(sorted(rooms))}")


def check_uses(room: str, path: Path, code: str, report: Report) -> None:
    for line, match in hits(r"\btrib_(\w+)(?=\s*(?:::|;|\s+as\b))", code):
        other = match[1]
        if other in MAY_IMPORT and other != room and other not in MAY_IMPORT[room] and other not in DEV_ONLY:
            report.breach(path, line, f"{room} may not import {other}")


def check_siblings(path: Path, code: str, folders: list[str], report: Report) -> None:
    """A connector never imports another."""
    own = path.relative_to(CRATES / "connectors" / "src").parts[0]
    if own not in folders:
        return
    others = "|".join(name for name in folders if name != own)
    if others:
        for line, match in hits(rf"\b(?:crate|trib_connectors)::({others})\b", code):
            report.breach(path, line, f"the connector {own} may not import the connector {match[1]}; what both need belongs in kit")


def check_names(room: str, path: Path, code: str, names: set[str], report: Report) -> None:
    if any(path.is_relative_to(CRATES / t) or path == CRATES / f"{t}.rs" for t in TEMPLATES):
        return
    for name in sorted(names - NAMED_ALL_THE_SAME.get(room, set())):
        pattern = rf'"{name}"' if name in ORDINARY_WORDS else rf"(?i)\b{name}\b"
        for line, _ in hits(pattern, code):
            report.breach(path, line, f"{room} knows no connector by name, and this names {name}; differences are data (Capabilities, Dialect)")


def connector_names() -> tuple[list[str], set[str]]:
    source = CRATES / "connectors" / "src"
    folders = sorted(p.name for p in source.iterdir() if p.is_dir()) if source.is_dir() else []
    names = set(folders)
    for crate in ("connectors", "lake"):
        for path in (CRATES / crate / "src").rglob("*.rs"):
            names.update(re.findall(r'const NAME: &\'static str = "([\w-]+)"', path.read_text()))
    return folders, names


def main() -> int:
    report = Report()
    folders, names = connector_names()
    rooms = sorted(p.name for p in CRATES.iterdir() if (p / "Cargo.toml").is_file())
    files = 0
    for room in rooms:
        crate = CRATES / room
        if room not in MAY_IMPORT:
            report.breach(crate / "Cargo.toml", None, f"the crate {room} has no entry in the table of scripts/check-imports.py")
            continue
        check_manifest(room, crate / "Cargo.toml", report)
        for path in sorted(crate.rglob("*.rs")):
            if "target" in path.relative_to(crate).parts:
                continue
            files += 1
            source = path.read_text()
            code = without_comments(source)
            in_src = path.is_relative_to(crate / "src")
            lines = source.count("\n")
            if lines > TOO_LONG_FILE:
                report.breach(path, None, f"{lines} lines; more than {TOO_LONG_FILE} hold more than one idea")
            elif lines > LONG_FILE:
                report.note(path, None, f"{lines} lines; about {LONG_FILE} is the measure")
            if {path.stem, *path.relative_to(crate).parts[:-1]} & BANNED_MODULES:
                report.breach(path, None, "the name says nothing; name it by what it does")
            if in_src:
                check_uses(room, path, code, report)
                if room == "connectors":
                    check_siblings(path, code, folders, report)
                if room in NAMELESS:
                    check_names(room, path, without_unit_tests(code), names, report)
    for text in report.notes:
        print(f"note: {text}")
    for text in report.breaches:
        print(f"error: {text}")
    if report.breaches:
        print(f"imports: {len(report.breaches)} breaches in {files} files of {len(rooms)} crates")
        return 1
    print(f"imports: {files} files of {len(rooms)} crates keep to the rules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
