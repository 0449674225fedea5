# Sourced by the launchers, which set $here (the folder bin/). Sets $root (the checkout) and offers
# `environment LOCK`.
#
# The way of an unchanged environment costs one `cmp` and no Python, since every `deploy` goes it.

root=$(CDPATH='' cd -P -- "$here/.." && pwd -P)

# The first Python from 3.11 on. Those that all parts are tested with go first.
find_python() {
    for python in python3.13 python3.12 python3.11 python3.14 python3; do
        if command -v "$python" >/dev/null 2>&1 &&
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return 0
        fi
    done
    echo "deploy needs Python 3.11 or later, and none is on the PATH." >&2
    if command -v python3 >/dev/null 2>&1; then
        echo "  found: $(python3 --version 2>&1) at $(command -v python3)" >&2
    fi
    echo "next: install one (Debian 12 or later: apt-get install python3-venv), then run this again" >&2
    exit 1
}

# environment LOCK: see that .venv holds what the file LOCK of the checkout says.
environment() {
    if [ -x "$root/.venv/bin/python" ] && cmp -s "$root/$1" "$root/.venv/$1"; then
        return 0
    fi
    find_python
    "$python" -I "$root/bin/environment.py" "$1"
}
