"""PostgreSQL 17: one cluster with the builtin locale, one database and owner for each that needs one."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from deployer.components.database import scram
from deployer.components.database.sizing import MAX_CONNECTIONS, size
from deployer.core import moving
from deployer.core.component import (
    ComponentSpec,
    Context,
    Data,
    Directory,
    File,
    Port,
    Probe,
    Secret,
    Step,
    Unit,
)
from deployer.core.machine import Machine
from deployer.core.model import Project

PORT = 5432
UNIT = "postgresql@17-main.service"
FOLDER = "/etc/postgresql/17/main"
_LEAF = "/etc/deploy/pki/leaves/postgresql"
_CA = "/etc/deploy/pki/root.crt"


@dataclass(frozen=True)
class Database:
    """name: of the database and of the role that owns it. role: whose machines connect. locale: of the builtin
    provider, "C.UTF-8" or "C"; LC_COLLATE and LC_CTYPE are the same."""

    name: str
    role: str
    locale: str = "C.UTF-8"


def databases(project: Project) -> tuple[Database, ...]:
    """All databases of the stack: those of the app, and the gateway's delivery reports."""
    app = [Database(name, "app", project.app.database_locale) for name in project.app.databases]
    return (*app, Database("sms_gateway", "sms"))


def secrets(project: Project) -> tuple[Secret, ...]:
    """A password for each database."""
    return tuple(Secret(f"database/{database.name}") for database in databases(project))


def connection(ctx: Context, name: str) -> dict[str, object]:
    """How a program on ctx.machine connects to the database `name`: host, port, user, password, name, sslmode
    ("disable" by loopback, otherwise "verify-full") and ca, the file with the CA to verify with."""
    if name not in {database.name for database in databases(ctx.project)}:
        raise KeyError(f"no database {name!r}: name it under `databases` in the app's manifest")
    return {
        "host": ctx.address_of("database"),
        "port": PORT,
        "user": name,
        "password": ctx.secret(f"database/{name}"),
        "name": name,
        "sslmode": "disable" if ctx.plays("database") else "verify-full",
        "ca": _CA,
    }


def spec(ctx: Context) -> ComponentSpec:
    wanted = databases(ctx.project)
    remote = {database.name: _remote(ctx, database.role) for database in wanted}
    return ComponentSpec(
        name="database",
        packages=("postgresql-17", "postgresql-client-17"),
        directories=(
            # As postgresql-common makes them.
            Directory("/etc/postgresql/17", 0o755, "postgres", "postgres"),
            Directory(FOLDER, 0o755, "postgres", "postgres"),
            Directory(f"{FOLDER}/conf.d", 0o755, "postgres", "postgres"),
            Directory("/etc/deploy/postgresql", 0o755),
        ),
        files=_files(ctx, remote),
        units=(Unit(UNIT, reload=True),),
        ports=_ports(ctx),
        steps=(
            Step("cluster", "cluster", check=_CLUSTER_CHECK, stage="configure"),
            *(_database_step(ctx, database) for database in wanted),
        ),
        probes=(Probe("postgresql", "script", {"script": _PROBE}, unit=UNIT),),
        data=tuple(Data(database.name, "postgres", database.name) for database in wanted),
    )


def _remote(ctx: Context, role: str) -> tuple[Machine, ...]:
    """The other machines that play the role."""
    return tuple(ctx.machines[name] for name in ctx.roles.get(role, ()) if name != ctx.machine.name)


def _ports(ctx: Context) -> tuple[Port, ...]:
    roles = tuple(sorted({one.role for one in databases(ctx.project) if _remote(ctx, one.role)}))
    return (Port(PORT, "tcp", roles, "postgresql"),) if roles else ()


def _files(ctx: Context, remote: Mapping[str, Sequence[Machine]]) -> tuple[File, ...]:
    away = any(remote.values())
    shared = any(ctx.plays(role) for role in ctx.roles if role != "database")
    settings = {
        "listen": ["127.0.0.1", "::1", *([ctx.machine.internal] if away else [])],
        "port": PORT,
        "leaf": _LEAF,
        "ca": _CA,
        "max_connections": MAX_CONNECTIONS,
        **asdict(size(ctx.facts.memory, shared)),
    }
    leaf = {"names": [ctx.fqdn(ctx.machine), "localhost"], "owner": "postgres", "reload": [UNIT]}
    return (
        # Read when the package is installed: no cluster in glibc's locale, ours is made by the step.
        File(
            "/etc/postgresql-common/createcluster.conf",
            "database/createcluster.conf.j2",
            early=True,
            on_change="none",
        ),
        File(f"{FOLDER}/conf.d/10-deploy.conf", "database/postgresql.conf.j2", settings),
        File(
            f"{FOLDER}/conf.d/20-archive.conf",
            "database/archive.conf.j2",
            {"archiving": _archiving(ctx)},
            on_change="reload",
        ),
        File(
            "/etc/deploy/postgresql/pg_hba.conf",
            "database/pg_hba.conf.j2",
            {"rules": hba(remote)},
            mode=0o640,
            group="postgres",
            on_change="reload",
        ),
        File(
            "/etc/systemd/system/postgresql@17-main.service.d/deploy.conf",
            "database/unit.conf.j2",
            {"away": away, "paths": _paths(ctx)},
        ),
        File("/etc/deploy/pki/leaves.d/postgresql.json", content=json.dumps(leaf), on_change="none"),
    )


def _archiving(ctx: Context) -> bool:
    """Whether this deployment is live, or about to be, and has somewhere to put its WAL. A standby archives nothing."""
    live = moving.acting(ctx.secrets, ctx.project.deployment)
    return live is not None and bool(ctx.project.inventory.repositories)


def _paths(ctx: Context) -> list[str]:
    """Folders besides its own that the server writes to: repositories that are folders."""
    repositories = ctx.project.inventory.repositories if _archiving(ctx) else ()
    return [one.path for one in repositories if one.kind == "path"]


def hba(remote: Mapping[str, Sequence[Machine]]) -> list[dict[str, str]]:
    """Who may connect to which database: its owner only, by loopback or, with TLS, from machines of its role.
    remote: other machines by database."""
    rules = []
    for name in remote:
        rules += [{"type": "host", "name": name, "address": own} for own in ("127.0.0.1/32", "::1/128")]
        for machine in remote[name]:
            rules += [{"type": "hostssl", "name": name, "address": address} for address in _networks(machine)]
    return rules


def _networks(machine: Machine) -> list[str]:
    """The machine's addresses as networks of one host; a connection comes from the private or the public one."""
    found = []
    for text in (machine.private_address, machine.address, machine.address6):
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            # There is none, or it is known after the machine was made.
            continue
    return list(dict.fromkeys(found))


def _database_step(ctx: Context, database: Database) -> Step:
    verifier = scram.verifier(database.name, ctx.secret(f"database/{database.name}"))
    # Only the verifier's digest is in the check. A restored backup brings its own passwords: then it differs.
    digest = hashlib.sha256(verifier.encode()).hexdigest()
    check = f"""
found=$(runuser -u postgres -- psql -XAtq -d postgres <<'SQL'
SELECT 'ok' FROM pg_database d JOIN pg_authid r ON r.oid = d.datdba
WHERE d.datname = '{database.name}' AND r.rolname = d.datname
AND d.datlocale = '{database.locale}' AND d.datctype = d.datlocale AND r.rolcanlogin
AND encode(sha256(r.rolpassword::bytea), 'hex') = '{digest}'
AND NOT has_database_privilege('pg_monitor', d.oid, 'CONNECT');
SQL
)
[ "$found" = ok ]
"""
    args = {"database": database.name, "verifier": verifier, "locale": database.locale}
    return Step(f"database {database.name}", "database", check=check, args=args)


_CLUSTER_CHECK = (
    f"[ -e {FOLDER}/postgresql.conf ] && [ -e /var/lib/postgresql/17/main/PG_VERSION ]"
    " && [ ! -e /var/lib/deploy/cluster.taken ]"
)

# Commits to disk, so a standby or a full disk is not green.
_PROBE = """
runuser -u postgres -- psql -XAtq -d postgres -v ON_ERROR_STOP=1 \
  -c "SET log_min_error_statement = panic" \
  -c "DO 'BEGIN PERFORM pg_logical_emit_message(true, ''deploy'', ''probe''); END'" \
  -c "SELECT 'reads and writes; ' || count(*) || ' of ' || current_setting('max_connections') || ' connections'
      FROM pg_stat_activity WHERE backend_type = 'client backend'"
"""
