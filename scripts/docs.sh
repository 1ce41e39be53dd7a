#!/usr/bin/env bash
# The guide and the API documentation, both under target/.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 scripts/check-links.py
if command -v mdbook >/dev/null 2>&1; then
    mdbook build docs
    echo "guide: target/book/index.html"
else
    echo "guide: left out; \`cargo install --locked mdbook\` brings the tool; docs/src is readable as it is"
fi
cargo doc --workspace --no-deps --quiet
echo "API: target/doc/trib_core/index.html"
