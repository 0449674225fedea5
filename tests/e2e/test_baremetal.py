"""A machine that somebody else installed: `--provider baremetal`, reached with the operator's own key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Deployed, project
from tests.e2e.matrix import Person, number
from tests.e2e.operator import Operator
from tests.rig.remote import Remote
from tests.rig.world import World

INVENTORY = """\
provider: ssh
machines:
- {{roles: [all], address: {address}{key}}}
catch: true
acme: {{directories: []}}
"""


@pytest.fixture(scope="module")
def metal(
    rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Operator, Remote]]:
    """The operator, whose SSH key opens the machine, and the machine."""
    machine, shell = rig.bare("metal", package_layer)
    folder = tmp_path_factory.mktemp("metal")
    text = INVENTORY.format(address=machine.address, key="")
    operator = project(folder / "project", "metal.social.test", "baremetal", text, folder / "home", "metal")
    (folder / "home" / ".ssh").mkdir(mode=0o700)
    key = folder / "home" / ".ssh" / "id_ed25519"
    key.write_text(shell.key, encoding="utf-8")
    key.chmod(0o600)
    yield operator, shell
    shell.close()
    rig.provider.delete_machine(machine)
    shutil.rmtree(folder, ignore_errors=True)


def test_an_unknown_host_key_is_not_believed(metal: tuple[Operator, Remote]) -> None:
    refused = metal[0].run("up", "--yes")
    assert refused.code == 1
    assert "SHA256:" in refused.out and "--trust-first" in refused.out


def test_it_comes_up_and_a_person_signs_up(metal: tuple[Operator, Remote]) -> None:
    operator, shell = metal
    summary = operator.good("up", "--yes", "--trust-first").result
    assert operator.good("up", "--yes").result["changed"] == 0
    deployed = Deployed(operator, "metal.social.test", summary)
    digits = number()
    someone = Person(
        deployed.doors,
        deployed.domain,
        mail=f"reader{digits}@elsewhere.test",
        number=digits,
        mailbox=lambda to: operator.inbox("mail", to),
        phone=lambda digits: operator.inbox("sms", digits.removeprefix("0")),
    )
    assert someone.sign_up().status == 200
    # The operator's own key still opens the machine: it was there before us.
    shell.close()
    assert shell.run("hostname -f").strip() == "metal-all-1.metal.social.test"


def test_down_stops_the_services_and_leaves_the_machine(metal: tuple[Operator, Remote]) -> None:
    operator, shell = metal
    operator.good("down", "--yes")
    shell.close()
    assert shell.attempt("systemctl is-active matrix-synapse postfix caddy postgresql@17-main")[0] != 0
    assert shell.run("ls -d /var/lib/postgresql/17/main /var/lib/matrix").split()
    assert shell.run("nft list table inet deploy")
    again = operator.good("up", "--yes").result
    assert all(probe["ok"] for probe in again["probes"])
