"""Commands that flows send to the database's machine, and the meaning of their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass

from deployer.core.errors import DeployError


@dataclass(frozen=True)
class ServerStatus:
    """version: "17.12"; standby: replays another server's WAL; sizes: bytes by database; connections: of clients."""

    version: str
    standby: bool
    connections: int
    max_connections: int
    sizes: dict[str, int]


def psql_command(database: str = "postgres") -> tuple[str, ...]:
    """Arguments that run psql as the superuser; SQL goes to its standard input, so it is in no argument list."""
    return ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database)


def status_sql() -> str:
    """One line of JSON for `parse_status`."""
    return """SELECT json_build_object(
    'version', split_part(current_setting('server_version'), ' ', 1),
    'standby', pg_is_in_recovery(),
    'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    'max_connections', current_setting('max_connections')::int,
    'sizes', (SELECT json_object_agg(datname, pg_database_size(oid)) FROM pg_database WHERE NOT datistemplate));
"""


def parse_status(output: str, machine: str = "") -> ServerStatus:
    """Raises DeployError when psql answered something else."""
    try:
        return ServerStatus(**json.loads(output.strip().splitlines()[-1]))
    except (ValueError, TypeError, IndexError) as error:
        raise DeployError(
            "reading the database's status",
            f"unexpected answer ({error})",
            "see `journalctl -u postgresql@17-main` there",
            machine=machine or None,
            detail=output[-500:],
        ) from None
