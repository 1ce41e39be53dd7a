#!/usr/bin/env bash
# The example project, run twice: the second run moves only what is new. Its best customers go into a stand-in CRM.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "Building trib (the first time takes minutes, on two cores about a quarter of an hour) …"
cargo build -p trib
trib="$PWD/target/debug/trib"
[ -x "${CARGO_TARGET_DIR:-target}/debug/trib" ] && trib=$(realpath "${CARGO_TARGET_DIR:-target}/debug/trib")

project=${1:-target/demo}
rm -rf "$project"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { # COMMAND…, as one would type it
    printf '\n\033[1m$ trib'
    local argument
    for argument in "$@"; do
        case $argument in
        *\ *) printf ' "%s"' "$argument" ;;
        *) printf ' %s' "$argument" ;;
        esac
    done
    printf '\033[0m\n'
    "$trib" "$@"
}

say "A small shop: a SQLite database, events as JSON Lines, a CSV file of countries."
show init --example "$project"
cd "$project"

say "And a CRM on this machine, for as long as this takes: python3 crm.py"
python3 crm.py 0 >crm.log &
crm=$!
trap 'kill "$crm"' EXIT
for _ in $(seq 100); do # until it says where it listens
    CRM_URL=$(sed -n 's/^a CRM at //p' crm.log)
    [ -n "$CRM_URL" ] && break
    sleep 0.1
done
export CRM_URL DELIVER=true
seen=0
crm_has() { # what has come to the CRM since the last time, and what it has now
    tail -n "+$((seen + 1))" crm.log
    seen=$(wc -l <crm.log)
    python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' "$CRM_URL"
}

show run
show query "select status, count(*) as orders, sum(amount) as amount from shop.orders group by status order by status"

say "Models came along, with their tests. Payments and the census: revenue by country."
show query "select country, population, buyers, revenue from analytics.revenue_by_country order by revenue desc limit 5"
say "Campaigns, sign-ups and spending: the return on each campaign."
show query "select campaign, spent, sign_ups, buyers, revenue, return_on_spending from analytics.return_by_campaign order by return_on_spending desc"
say "And a small forecast, by a Python script that is a model."
show query "select day, expected from analytics.sign_up_forecast order by day limit 7"
show lineage analytics.revenue_by_country.revenue
say "The twenty-five best customers have gone out again, into the CRM:"
crm_has
show lineage Contact.segment

say "The next day: new and changed orders, another file of events."
"$trib" init --example-changes .
show run
say "The CRM was told only what has changed:"
crm_has
show query "select status, count(*) as orders, sum(amount) as amount from shop.orders group by status order by status"
show query "select * from analytics.orders_by_day order by day"
show test
show status
say "The project is in $project; the tables are Delta Lake folders in $project/.tributary/warehouse."
