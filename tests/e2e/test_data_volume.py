"""Data on a volume apart, on a real machine: what the vendors' machines have, with a folder in place of a disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import DeployError
from deployer.core.events import discard
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.flow.down import down
from deployer.flow.plan import plan
from deployer.flow.request import Request
from deployer.flow.up import up
from providers.local import processes
from providers.local.provider import LocalProvider
from tests.e2e.conftest import local_section, project
from tests.e2e.scratch import console, within
from tests.rig.world import World

# Four minutes; what it rests on is tested as values in tests/components/base/test_volume.py.
pytestmark = pytest.mark.long
NAME = "volume-all-1"
HELD = (
    "/var/lib/postgresql",
    "/var/lib/valkey",
    "/var/lib/matrix",
    "/var/spool/postfix",
    "/var/spool/kannel",
)
# As providers/cloudinit.py mounts it: before anybody can log in, and at each boot.
MOUNT = """
mkdir -p /srv/volume /srv/data
grep -q /srv/data /etc/fstab 2>/dev/null || echo '/srv/volume /srv/data none bind,nofail 0 0' >>/etc/fstab
mountpoint -q /srv/data || mount /srv/data
"""


@dataclass
class Site:
    """A deployment whose machine has a data volume."""

    request: Request
    machine: Path
    # What the next machine is made with: a volume that was kept, and a command for its first boot.
    kept: Path | None = None
    first: str = "true"

    def up(self) -> dict[str, Any]:
        return up(self.request, discard)

    def console(self, command: str, *, check: bool = True) -> str:
        return console(self.machine, command, check=check)


@pytest.fixture(scope="module")
def site(rig: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Up from nothing: packages are installed when the folders are mounted already."""
    folder = tmp_path_factory.mktemp("volume")
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig)
    operator = project(folder / "project", "volume.social.test", "local", text, folder / "home", "volume")
    machines = rig.folder / "machines" / "machines"
    made, described = LocalProvider.create_machine, LocalProvider._machine

    def create(self: LocalProvider, deployment: Deployment, spec: MachineSpec) -> Machine:
        machine = made(self, deployment, spec)
        if found.kept:
            target = machines / machine.name / "root" / "srv" / "volume"
            subprocess.run(["cp", "-a", str(found.kept), str(target)], check=True)
            found.kept = None
        console(machines / machine.name, f"{found.first}\n{MOUNT}")
        return machine

    found = Site(Request(root=operator.folder, provider="local"), machines / NAME)
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(operator.home))
    patch.setattr(LocalProvider, "create_machine", create)
    patch.setattr(
        LocalProvider, "_machine", lambda self, record: replace(described(self, record), volume=True)
    )
    try:
        found.up()
        yield found
        down(found.request, discard)
    finally:
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def test_all_data_lie_on_the_volume(site: Site) -> None:
    for path in HELD:
        assert site.console(f"stat -c %i:%d {path} /srv/data{path}").split()[0::2]
        assert (
            site.console(f"[ {path} -ef /srv/data{path} ] && mountpoint -q {path} && echo same").strip()
            == "same"
        )
    assert site.console("cat /srv/data/var/lib/postgresql/17/main/PG_VERSION").strip() == "17"
    needed = site.console("systemctl show -P RequiresMountsFor postgresql@17-main.service")
    assert "/var/lib/postgresql" in needed
    assert plan(site.request, discard).empty
    assert site.up()["changed"] == 0


def test_after_a_restart_they_are_there_before_the_services(site: Site) -> None:
    site.console("systemctl --no-block poweroff", check=False)
    within(30, "shutdown", lambda: not processes.leader(site.machine))
    summary = site.up()
    assert all(probe["ok"] for probe in summary["probes"])
    assert (
        site.console("[ /var/lib/postgresql -ef /srv/data/var/lib/postgresql ] && echo same").strip()
        == "same"
    )


def test_without_the_right_volume_nothing_is_written(site: Site) -> None:
    site.console("systemctl stop postgresql@17-main.service var-lib-postgresql.mount")
    site.console(
        "mv /srv/data/.deploy/volume /srv/data/.deploy/kept; echo another > /srv/data/.deploy/volume"
    )
    with pytest.raises(DeployError, match="nothing was changed") as refused:
        site.up()
    assert "is not the volume" in refused.value.detail
    assert site.console("find /var/lib/postgresql -type f | wc -l").strip() == "0"
    site.console("mv /srv/data/.deploy/kept /srv/data/.deploy/volume")
    assert site.up()["changed"]


def test_data_on_the_system_disk_are_never_moved(site: Site) -> None:
    site.console("systemctl stop valkey-server.service var-lib-valkey.mount")
    site.console("mv /srv/data/var/lib/valkey /srv/data/kept; echo precious > /var/lib/valkey/dump.rdb")
    with pytest.raises(DeployError) as refused:
        site.up()
    assert "nothing is moved by itself" in refused.value.detail
    assert site.console("cat /var/lib/valkey/dump.rdb").strip() == "precious"
    site.console(
        "rm /var/lib/valkey/dump.rdb; rm -rf /srv/data/var/lib/valkey; mv /srv/data/kept /srv/data/var/lib/valkey"
    )
    assert site.up()["changed"]
    assert plan(site.request, discard).empty


def test_another_machine_takes_the_kept_volume_with_everything_on_it(site: Site, tmp_path: Path) -> None:
    """Also when somebody else has the server's number there, so that the owners of all files have to change."""
    sql = "runuser -u postgres -- psql -XAtq -d sms_gateway -c"
    site.console(f"{sql} 'CREATE TABLE precious AS SELECT 42 AS n'")
    before = site.console("id -u postgres; id -u valkey").split()
    site.console("systemctl --no-block poweroff", check=False)
    within(30, "shutdown", lambda: not processes.leader(site.machine))
    site.kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", str(site.machine / "upper" / "srv" / "volume"), str(site.kept)], check=True)
    down(site.request, discard)
    site.first = f"useradd -r -u {before[0]} squatter"
    summary = site.up()
    assert all(probe["ok"] for probe in summary["probes"])
    now = site.console("id -u postgres; id -u valkey").split()
    assert now[0] != before[0] and now[1] == before[1]
    assert site.console(f"{sql} 'SELECT n FROM precious'").strip() == "42"
    assert not site.console("find /srv/data -xdev -user squatter").strip()
    assert site.up()["changed"] == 0
