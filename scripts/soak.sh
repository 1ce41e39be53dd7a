#!/usr/bin/env bash
# Kills loads at random moments, again and again, and compares what arrives with what was sent. TRIB_KILLS says how often for
# each destination and write mode (30 where it is not set). Then every Singer tap that is known to work into every place, and Meltano with us as its plugins.
set -euo pipefail
cd "$(dirname "$0")/.."

export TRIB_KILLS="${TRIB_KILLS:-30}"
echo "== soak: $TRIB_KILLS kills for each destination and write mode"
cargo test -p trib --test it -- crash --nocapture --test-threads=2

echo "== soak: Singer taps into every place; Meltano"
cargo test -p trib --test it -- singer_pairs::soak singer_meltano::soak --ignored --nocapture --test-threads=1
