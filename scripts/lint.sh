#!/usr/bin/env bash
# Whatever a machine can say about the code without running it.
set -uo pipefail
cd "$(dirname "$0")/.."

failures=()
step() { # NAME COMMAND…
    echo "== $1"
    "${@:2}" || failures+=("$1")
}

step imports python3 scripts/check-imports.py
step links python3 scripts/check-links.py
step "error codes" python3 scripts/error-codes.py --check
step format cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
    step licences cargo deny --workspace check
else
    echo "== licences: left out; \`cargo install --locked cargo-deny\` brings the tool"
fi

if [ ${#failures[@]} != 0 ]; then
    echo "make lint: FAILED (${failures[*]})"
    exit 1
fi
echo "make lint: ok"
