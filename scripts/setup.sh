#!/bin/sh
# Installs what building and testing need and this machine lacks. Says what it does, and is silent when nothing is missing.
set -eu

missing=""
reasons=""
need() { # PACKAGE REASON
    missing="$missing $1"
    reasons="$reasons
  $1: $2"
}

command -v cc >/dev/null 2>&1 || need build-essential "the C compiler that SQLite and zstd are built with"
command -v ld.lld >/dev/null 2>&1 || need lld "the linker that .cargo/config.toml names"
if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    need postgresql "the server that tests and benchmarks start for themselves"
fi

if ! command -v mariadb-install-db >/dev/null 2>&1; then
    need "mariadb-server-core mariadb-client-core" "the source that the Singer tap for MySQL is tested with"
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust is missing; install it as its own site describes, then try again" >&2
    exit 1
fi
[ -z "$missing" ] && exit 0

echo "setup: missing here:$reasons"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this is not Debian; install the above with this system's package manager, then try again" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: run as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "setup: failed: $*" >&2
        exit 1
    fi
}
apt() { quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }

echo "setup: reading the package lists"
apt update -q
case "$missing" in
*postgresql*)
    # Only the programs are wanted: without this, Debian starts a server on the usual port.
    apt install -qy --no-install-recommends postgresql-common
    settings=/etc/postgresql-common/createcluster.conf
    if [ -f $settings ]; then
        quietly $as_root sed -i 's/^#\{0,1\} *create_main_cluster.*/create_main_cluster = false/' $settings
    fi
    ;;
esac
echo "setup: installing$missing"
# Word splitting is meant: one argument per package.
apt install -qy --no-install-recommends $missing
echo "setup: done"
