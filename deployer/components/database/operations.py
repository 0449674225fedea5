"""Steps of `database`, carried out by the engine."""

from __future__ import annotations

import re
from collections.abc import Generator

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script

# A name that needs no quoting in SQL beyond the quotes themselves.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


@operation()
def cluster() -> Generator[StringCommand, None, None]:
    """Make the cluster 17/main, or see that the one that is there is as it must be. Never removes one that was ever
    started: it may hold the only copy of somebody's data."""
    yield script("""
data=/var/lib/postgresql/17/main
conf=/etc/postgresql/17/main
# There from before the first byte until after the last: what it marks was left by a run that was killed.
unfinished=/var/lib/deploy/cluster.unfinished
# The same for the settings of a cluster that was there.
taken=/var/lib/deploy/cluster.taken
if [ -e "$taken" ]; then rm -f "$conf/postgresql.conf" "$conf/pg_hba.conf" "$conf/pg_ident.conf"; fi
if [ -e "$unfinished" ] && [ ! -e "$data/postmaster.opts" ]; then
    rm -rf "$data" "$conf/postgresql.conf" "$conf/pg_hba.conf" "$conf/pg_ident.conf"
elif [ -e "$data/PG_VERSION" ] && [ -e "$conf/postgresql.conf" ]; then
    sums=$(/usr/lib/postgresql/17/bin/pg_controldata "$data" | sed -n 's/^Data page checksum version: *//p')
    [ "$sums" != 0 ] && exit 0
    echo "the cluster 17/main has no data checksums; with the server stopped, run as postgres:" >&2
    echo "/usr/lib/postgresql/17/bin/pg_checksums --enable -D $data" >&2
    exit 1
elif [ -e "$data/PG_VERSION" ] && mountpoint -q /var/lib/postgresql; then
    # The data volume of a former machine: it gets settings, and is used as it is. Debian's program takes them out of
    # the folder of the data, where its own initdb would have put them.
    for name in postgresql pg_hba pg_ident; do
        runuser -u postgres -- install -m 0600 /usr/share/postgresql/17/$name.conf.sample "$data/$name.conf"
    done
    touch "$taken"
    pg_createcluster 17 main --port=5432 --start-conf=auto
    rm "$taken"
    exit 0
elif [ -e "$data/PG_VERSION" ]; then
    echo "$data holds a cluster without its settings in $conf: bring them back, or move the folder away" >&2
    exit 1
fi
touch "$unfinished"
LC_ALL=C.UTF-8 pg_createcluster 17 main --port=5432 --start-conf=auto -- --encoding=UTF8 \\
    --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 --data-checksums
sync -f "$data"
rm "$unfinished"
""")


@operation()
def database(database: str, verifier: str, locale: str) -> Generator[StringCommand, None, None]:
    """The role `database` with this SCRAM verifier, and the database of that name, which it owns.

    locale: of the builtin provider. Raises ValueError for a name that SQL would not take.
    """
    if not _NAME.fullmatch(database):
        raise ValueError(f"{database!r} is no name for a database")
    yield script(f"""
runuser -u postgres -- psql -XAtq -d postgres -v ON_ERROR_STOP=1 <<'SQL'
-- Not even the verifier is to be in a log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
SELECT 'CREATE ROLE "{database}"' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{database}') \\gexec
ALTER ROLE "{database}" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD '{verifier}';
SELECT 'CREATE DATABASE "{database}" OWNER "{database}" TEMPLATE template0 ENCODING ''UTF8'' LOCALE_PROVIDER builtin '
    'BUILTIN_LOCALE ''{locale}'' LC_COLLATE ''{locale}'' LC_CTYPE ''{locale}'''
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec
ALTER DATABASE "{database}" OWNER TO "{database}";
REVOKE ALL ON DATABASE "{database}" FROM PUBLIC;
SQL
found=$(runuser -u postgres -- psql -XAtq -d postgres \\
    -c "SELECT concat_ws(' ', datlocprovider, datlocale, datctype) FROM pg_database WHERE datname = '{database}'")
if [ "$found" != "b {locale} {locale}" ]; then
    echo "the database {database} exists with the locale \\"$found\\" instead of \\"b {locale} {locale}\\"," \\
        "which cannot be changed: dump it, drop it, run this again and load it" >&2
    exit 1
fi
""")
