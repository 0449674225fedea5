"""The cache: Valkey with a password, on the app's machine and for it alone."""

from __future__ import annotations

from deployer.core.component import ComponentSpec, Context, Data, File, Probe, Secret, Unit
from deployer.core.model import Project

HOST, PORT = "127.0.0.1", 6379
PASSWORD_FILE = "/etc/valkey/password.conf"
SECRET = "cache/password"
# bytes
LEAST = 64 << 20

# The password goes from file to program by standard input; printf is the shell's own. It is not in the script.
# A write, so that a full memory or disk shows too.
PROBE = f"""
password=$(sed -n 's/^requirepass "\\(.*\\)"$/\\1/p' {PASSWORD_FILE})
answer=$(printf 'AUTH %s\\nSET deploy:probe written EX 60\\nGET deploy:probe\\nINFO memory\\n' "$password" |
    timeout 1.8 valkey-cli -h {HOST} -p {PORT} 2>&1 | tr -d '\\r') || true
case $answer in
OK*OK*written*) ;;
*) printf '%s\\n' "${{answer:-no answer}}" | head -n 3 | tr '\\n' ' '; exit 1 ;;
esac
used=$(sed -n 's/^used_memory://p' <<<"$answer")
most=$(sed -n 's/^maxmemory://p' <<<"$answer")
echo "reads and writes; $((used >> 20)) of $((most >> 20)) MiB"
"""


def secrets(project: Project) -> tuple[Secret, ...]:
    return (Secret(SECRET),)


def connection(ctx: Context) -> dict[str, object]:
    """host, port, password: it runs where the app runs."""
    return {"host": HOST, "port": PORT, "password": ctx.secret(SECRET)}


def maxmemory(memory: int) -> int:
    """Bytes that the cache may use on a machine with `memory` bytes: a sixteenth, in whole MiB, at least 64 MiB."""
    return max(memory // 16 >> 20 << 20, LEAST)


def spec(ctx: Context) -> ComponentSpec:
    values = {
        "password_file": PASSWORD_FILE,
        "port": PORT,
        "maxmemory": maxmemory(ctx.facts.memory),
    }
    return ComponentSpec(
        name="cache",
        packages=("valkey-server", "valkey-tools"),
        files=(
            File(
                "/etc/valkey/valkey.conf",
                template="cache/valkey.conf.j2",
                values=values,
                mode=0o640,
                group="valkey",
            ),
            File(
                PASSWORD_FILE,
                content=f'requirepass "{ctx.secret(SECRET)}"\n',
                mode=0o640,
                group="valkey",
                secret=True,
            ),
            File(
                "/etc/systemd/system/valkey-server.service.d/deploy.conf",
                template="cache/valkey-server.service.conf.j2",
            ),
        ),
        units=(Unit("valkey-server.service"),),
        probes=(Probe("reads and writes", "script", {"script": PROBE}, unit="valkey-server.service"),),
        data=(Data("cache", "valkey", "/var/lib/valkey"),),
    )
