#!/usr/bin/env python3
"""Every relative link of the documentation leads somewhere, and every page of the guide is in its table of contents."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "src"
SKIPPED = {"target", ".git", ".tributary", "node_modules"}

LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
INCLUDE = re.compile(r"\{\{#include ([^}:]+)")


def pages() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.md") if not SKIPPED & set(p.relative_to(ROOT).parts))


def anchors(page: Path) -> set[str]:
    """Headings as their anchors, in the way of most renderers."""
    found = set()
    fenced = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#{1,6} (.+)", line)):
            text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text)))
    return found


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda m: " " * len(m[0]), text)


def broken(page: Path) -> list[tuple[int, str]]:
    text = page.read_text()
    code_free = without_code(text)
    found = []
    targets = [(m.start(), m[1]) for m in LINK.finditer(code_free)] + [(m.start(), m[1].strip()) for m in INCLUDE.finditer(text)]
    for at, target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        line = text.count("\n", 0, at) + 1
        if not other.exists():
            found.append((line, f"{target} is not there"))
        elif anchor and other.suffix == ".md" and anchor not in anchors(other):
            found.append((line, f"{target}: no such heading"))
    return found


def main() -> int:
    errors = [f"{page.relative_to(ROOT)}:{line}: {what}" for page in pages() for line, what in broken(page)]
    if (GUIDE / "SUMMARY.md").is_file():
        listed = {(GUIDE / m[1]).resolve() for m in LINK.finditer((GUIDE / "SUMMARY.md").read_text())}
        errors += [
            f"{page.relative_to(ROOT)}: not in docs/src/SUMMARY.md"
            for page in sorted(GUIDE.rglob("*.md"))
            if page.name != "SUMMARY.md" and page.resolve() not in listed
        ]
    for error in errors:
        print(f"error: {error}")
    print(f"links: {len(errors)} broken in {len(pages())} pages" if errors else f"links: {len(pages())} pages lead where they say")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
