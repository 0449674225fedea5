"""The database's backups: pgBackRest, a configuration for each repository.

What runs on the machine is in service/: database.py (the verbs), database_watch.py (who gets the WAL), archive-push
(PostgreSQL's archive_command), wal-fetch (its restore_command in a restore), heartbeat.sql.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from deployer.components.backups.parts import Part
from deployer.core import generation, moving
from deployer.core.component import Context, Directory, File, Probe, Step, Unit
from deployer.core.resources import service_file

PROGRAMS = "/usr/local/lib/deploy/backups"
TIMER = "deploy-backups-database.timer"
SERVICE = "deploy-backups-database.service"
WATCH = "deploy-backups-watch.service"
HEARTBEAT = "deploy-backups-heartbeat.service"
_POSTGRESQL = "postgresql@17-main.service"
_SYSTEMD = "/etc/systemd/system"

MODULES = (
    "archiving.py",
    "database.py",
    "database_choice.py",
    "database_conf.py",
    "database_create.py",
    "database_fetch.py",
    "database_restore.py",
    "database_server.py",
    "database_verify.py",
    "database_wal.py",
    "database_watch.py",
    "pgbackrest.py",
)
COMMANDS = ("archive-push", "wal-fetch")


def part(ctx: Context) -> Part:
    """For the machine that plays `database`, where its deployment is live."""
    if not ctx.project.inventory.repositories:
        return Part()
    return Part(
        packages=("pgbackrest", "zstd"),
        directories=(
            Directory("/etc/deploy/backups/pgbackrest", 0o750, "root", "postgres"),
            Directory("/var/lib/postgresql/pgbackrest", 0o750, "postgres", "postgres"),
        ),
        files=(*programs(), *_units(ctx)),
        units=(
            Unit(HEARTBEAT),
            Unit(WATCH),
            Unit(SERVICE, resident=False),
            Unit(TIMER),
        ),
        steps=(
            Step(
                "pgbackrest",
                "backups_program",
                check=f"python3 {PROGRAMS}/database.py configure --check >/dev/null",
                args={"program": "database.py", "words": ["configure"], "because": _digest(ctx)},
                stage="configure",
                timeout=60,
            ),
            Step(
                "repositories of the database",
                "backups_program",
                check=_ALL_IN,
                args={"program": "database.py", "words": ["prepare"], "because": ""},
                timeout=120,
            ),
        ),
        probes=(
            Probe("wal archiving", "script", {"script": _PROBE}, timeout=5, degrades=True, unit=WATCH),
            Probe(
                "heartbeat", "script", {"script": _HEARTBEAT_PROBE}, timeout=5, degrades=True, unit=HEARTBEAT
            ),
        ),
    )


def programs() -> tuple[File, ...]:
    """What must be on a machine to make, and to restore, backups of the database."""
    return (
        *(File(f"{PROGRAMS}/{name}", content=service_file("backups", name)) for name in MODULES),
        # The server runs them anew each time.
        *(
            File(f"{PROGRAMS}/{name}", content=service_file("backups", name), mode=0o755, on_change="none")
            for name in COMMANDS
        ),
        File(f"{PROGRAMS}/heartbeat.sql", content=service_file("backups", "heartbeat.sql")),
    )


def _units(ctx: Context) -> tuple[File, ...]:
    values = {
        "programs": PROGRAMS,
        "postgresql": _POSTGRESQL,
        "paths": [one.path for one in ctx.project.inventory.repositories if one.kind == "path"],
    }
    names = (HEARTBEAT, WATCH, SERVICE, TIMER)
    return tuple(File(f"{_SYSTEMD}/{name}", f"backups/{name}.j2", values) for name in names)


def _digest(ctx: Context) -> str:
    """Changes with everything that the configurations are made of; tells none of it."""
    live = moving.acting(ctx.secrets, ctx.project.deployment)
    number = live.number if live else 0
    repositories = [
        {
            **asdict(one),
            "cipher": ctx.secrets.get(generation.ciphers(number, one.name)[0].name, ""),
        }
        for one in ctx.project.inventory.repositories
    ]
    return hashlib.sha256(json.dumps([number, repositories], sort_keys=True).encode()).hexdigest()


# A repository that does not answer is the probe's to tell, and the watch puts it in later.
_ALL_IN = f"""
python3 - <<'PYTHON'
import sys
sys.path.insert(0, "{PROGRAMS}")
import archiving, pgbackrest
state = archiving.read(pgbackrest.settings())["repositories"]
sys.exit(0 if all(one["archiving"] or one["out_since"] for one in state.values()) else 1)
PYTHON
"""

_PROBE = f"""
python3 - <<'PYTHON'
import sys
sys.path.insert(0, "{PROGRAMS}")
import archiving, pgbackrest
wanted = pgbackrest.settings()
state = archiving.read(wanted)["repositories"]
backlog = archiving.measure(wanted).total
out = [f"{{name}} gets no WAL since {{one['out_since'] or 'ever'}}: {{one['out_why']}}"
       for name, one in state.items() if not one["archiving"]]
if backlog > 8 * pgbackrest.SEGMENT:
    out.append(f"{{backlog >> 20}} MiB of WAL wait to be archived")
print("; ".join(out) or f"WAL goes to {{', '.join(state)}}; {{backlog >> 20}} MiB wait")
sys.exit(1 if out else 0)
PYTHON
"""

_HEARTBEAT_PROBE = """
age=$(runuser -u postgres -- psql -XAtq -d postgres -v ON_ERROR_STOP=1 -c \\
    "SELECT round(extract(epoch FROM clock_timestamp() - at), 1) FROM deploy.heartbeat")
echo "the last one ${age:-never} s ago"
[ -n "$age" ] && [ "${age%.*}" -lt 30 ]
"""
