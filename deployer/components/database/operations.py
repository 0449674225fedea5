"""Steps of `database`, carried out by the engine."""

from __future__ import annotations

import re
from collections.abc import Generator

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script

# A name that needs no quoting in SQL beyond the quotes themselves.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_LOCALES = {"C.UTF-8": "C.UTF-8", "C": "C"}


@operation()
def cluster() -> Generator[StringCommand, None, None]:
    """Make the cluster 17/main, or see that the one that is there is as it must be. Never drops one: it may hold
    the only copy of somebody's data."""
    yield script("""
data=/var/lib/postgresql/17/main
conf=/etc/postgresql/17/main
if [ -e "$data/PG_VERSION" ] && [ -e "$conf/postgresql.conf" ]; then
    exit 0
fi
if [ -e "$data/PG_VERSION" ]; then
    echo "$data holds a cluster without settings in $conf; move one or the other away" >&2
    exit 1
fi
# What a killed initdb left: no PG_VERSION or no settings, so no data either.
export LC_ALL=C.UTF-8
pg_createcluster 17 main --port=5432 --start-conf=auto -- \\
    --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 --data-checksums
""")


@operation()
def database(name: str, verifier: str, locale: str) -> Generator[StringCommand, None, None]:
    """The role `name` with this SCRAM verifier and the database `name` that it owns.

    locale: of the builtin provider. Raises ValueError for a name that SQL would not take.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a database")
    collation = _LOCALES[locale]
    yield script(f"""
runuser -u postgres -- psql -XAtq -d postgres -v ON_ERROR_STOP=1 <<'SQL'
-- Not even the verifier is to be in a log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
SELECT 'CREATE ROLE "{name}"' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
ALTER ROLE "{name}" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD '{verifier}';
SELECT 'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0 ENCODING ''UTF8'' LOCALE_PROVIDER builtin '
    'BUILTIN_LOCALE ''{locale}'' LC_COLLATE ''{collation}'' LC_CTYPE ''{collation}'''
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec
ALTER DATABASE "{name}" OWNER TO "{name}";
REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;
SQL
found=$(runuser -u postgres -- psql -XAtq -d postgres \\
    -c "SELECT datlocprovider || ' ' || coalesce(datlocale, datcollate) FROM pg_database WHERE datname = '{name}'")
if [ "$found" != "b {locale}" ]; then
    echo "database {name} exists with the locale \\"$found\\" (wanted: builtin {locale}). Its locale cannot be changed:" \\
        "dump it, drop it and load it again." >&2
    exit 1
fi
""")
