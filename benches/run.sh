#!/usr/bin/env bash
# Builds trib in release, then runs benches/bench.py with the scenarios that are named, or all.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${BENCH_TRIB:-}" ]; then
    echo "bench: building trib (release)" >&2
    cargo build --release -p trib
    export BENCH_TRIB="${CARGO_TARGET_DIR:-$PWD/target}/release/trib"
fi
exec python3 benches/bench.py "$@"
