#!/usr/bin/env bash
# All that must hold before a change goes in. One profile, one feature set. The last line says how it went.
set -uo pipefail
cd "$(dirname "$0")/.."

started=$SECONDS
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failures=()

step() { # NAME COMMAND…
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$out"
    local status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || failures+=("$name")
    return "$status"
}

step imports python3 scripts/check-imports.py
step links python3 scripts/check-links.py
step "error codes" python3 scripts/error-codes.py --check
step format cargo fmt --all --check

# Counted from the runner's own summary.
passed=0 failed=0 skipped=0
if cargo nextest --version >/dev/null 2>&1; then
    step tests cargo nextest run --workspace --no-fail-fast --color never
    summary=$(grep -E '^ *Summary ' "$out" | tail -1)
    count() { grep -oE "[0-9]+ $1" <<<"$summary" | head -1 | cut -d' ' -f1; }
    passed=$(count passed) failed=$(count 'failed') skipped=$(count skipped)
else
    step tests cargo test --workspace --lib --bins --tests --no-fail-fast
    read -r passed failed skipped < <(awk '
        /^test result:/ { for (i = 2; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i } }
        END { print p + 0, f + 0, s + 0 }' "$out")
fi

counts="${passed:-0} passed, ${failed:-0} failed, ${skipped:-0} skipped"
took="$((SECONDS - started)) s"
if [ ${#failures[@]} = 0 ]; then
    echo "make test: ok: $counts, in $took"
else
    echo "make test: FAILED (${failures[*]}): $counts, in $took"
    exit 1
fi
