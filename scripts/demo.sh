#!/usr/bin/env bash
# The example project, run twice: the second run moves only what is new.
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
show run
show query "select status, count(*) as orders, sum(amount) as amount from shop.orders group by status order by status"

say "Models came along, with their tests. Payments and the census: revenue by country."
show query "select country, population, buyers, revenue from analytics.revenue_by_country order by revenue desc limit 5"
say "Campaigns, sign-ups and spending: the return on each campaign."
show query "select campaign, spent, sign_ups, buyers, revenue, return_on_spending from analytics.return_by_campaign order by return_on_spending desc"
say "And a small forecast, by a Python script that is a model."
show query "select day, expected from analytics.sign_up_forecast order by day limit 7"
show lineage analytics.revenue_by_country.revenue

say "The next day: new and changed orders, another file of events."
"$trib" init --example-changes .
show run
show query "select status, count(*) as orders, sum(amount) as amount from shop.orders group by status order by status"
show query "select * from analytics.orders_by_day order by day"
show test
show status
say "The project is in $project; the tables are Delta Lake folders in $project/.tributary/warehouse."
