"""The same move as a careful person does it by hand: stop, dump, copy, restore, start. What a receipt is compared with."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass

from providers.local import processes
from tests.e2e.moving import Site
from tests.rig.remote import Remote

# What is beside the stop is done beforehand: packages, settings, an empty database, SSH from one machine to the other.
BEFORE = """\
set -euo pipefail
mkdir -p -m 700 /run/by-hand && cd /run/by-hand
cat >ssh <<'END'
#!/bin/sh
exec ssh -i /run/by-hand/key -o UserKnownHostsFile=/run/by-hand/known_hosts -o BatchMode=yes "$@"
END
chmod 755 ssh
there="./ssh root@{target}"
install='command -v rsync >/dev/null || (apt-get -q update && apt-get -q -y install --no-install-recommends rsync)'
sh -c "$install" >&2
$there "$install" >&2
rsync -a -e ./ssh /etc/deploy/ root@{target}:/etc/deploy/
rsync -a -e ./ssh --include='matrix*' --exclude='*' /etc/systemd/system/ root@{target}:/etc/systemd/system/
$there rm -rf '/etc/systemd/system/matrix*.service.d' '&&' systemctl daemon-reload
$there install -d -o app-matrix -g app-matrix /var/lib/matrix
rsync -a -e ./ssh /var/lib/matrix/ root@{target}:/var/lib/matrix/
$there 'pg_lsclusters -h | grep -q "^17 main" || pg_createcluster 17 main -- --locale=C.UTF-8'
$there 'pg_ctlcluster 17 main start || true'
$there "runuser -u postgres -- psql -q" <<'END'
CREATE ROLE synapse LOGIN PASSWORD {password};
CREATE DATABASE synapse OWNER synapse TEMPLATE template0 ENCODING 'UTF8'
  LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LOCALE 'C';
END
"""
DURING = """\
set -euo pipefail
cd /run/by-hand
there="./ssh root@{target}"
stopped=$(date +%s.%N)
systemctl stop matrix-synapse matrix-sydent
runuser -u postgres -- pg_dump -Fc synapse >synapse.dump
rsync -a -e ./ssh synapse.dump root@{target}:/tmp/synapse.dump
$there 'chmod 644 /tmp/synapse.dump'
$there 'runuser -u postgres -- pg_restore --no-owner --role=synapse -d synapse /tmp/synapse.dump'
rsync -a -e ./ssh --delete /var/lib/matrix/ root@{target}:/var/lib/matrix/
$there 'systemctl start matrix-synapse matrix-sydent'
$there 'until curl -sf -m 2 http://127.0.0.1:8008/health; do sleep 0.2; done'
echo " stop $stopped $(date +%s.%N)"
"""
AFTER = "systemctl start matrix-synapse matrix-sydent; rm -rf /run/by-hand"


@dataclass(frozen=True)
class ByHand:
    """stopped: seconds that nobody was served; names would come on top."""

    stopped: float


def by_hand(source: Site, target: Remote, host_key: str) -> ByHand:
    """Copy the service from a machine of the stack to a bare one that has the packages. The stack serves again after it.

    host_key: of the target, as a line of known_hosts has it after the address.
    """
    target.connect()
    _put(source, "/run/by-hand/key", target.key)
    _put(source, "/run/by-hand/known_hosts", f"{target.address} {host_key}\n")
    settings = source.console("cat /etc/deploy/apps/matrix/homeserver.yaml")
    found = re.search(r"user: \"synapse\"\s+password: (\"[^\"]+\")", settings)
    assert found, "the app's settings name no password"
    words = {"target": target.address, "password": "'" + found[1].strip('"') + "'"}
    _run(source, BEFORE.format(**words))
    try:
        out = _run(source, DURING.format(**words))
    finally:
        _run(source, AFTER)
    stop, start = out.rsplit(" stop ", 1)[1].split()
    return ByHand(float(start) - float(stop))


def _put(site: Site, path: str, text: str) -> None:
    folder = shlex.quote(path.rpartition("/")[0])
    _run(site, f"mkdir -p -m 700 {folder} && umask 077 && printf %s {shlex.quote(text)} >{shlex.quote(path)}")


def _run(site: Site, script: str, timeout: float = 1800) -> str:
    leader = processes.leader(site.folder)
    assert leader, f"{site.folder.name} does not run"
    done = subprocess.run(
        # Not on standard input: ssh would read on there.
        ["nsenter", "--all", "-t", str(leader), "--", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-3000:])
    return done.stdout
