#!/usr/bin/env bash
# The long forms of tests: kills at random instants, for SOAK_MINUTES (30). They are ignored tests whose names contain `soak`.
set -euo pipefail
cd "$(dirname "$0")/.."
export SOAK_MINUTES=${SOAK_MINUTES:-30}
echo "soak: $SOAK_MINUTES minutes for each test"
exec cargo test --workspace --tests -- --ignored --nocapture --test-threads 1 soak
