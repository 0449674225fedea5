"""What the operator wrote wrongly: exit 2, the place named, nothing touched. The unit tests know every mistake;
here is shown that the words arrive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.operator import CHECKOUT, Operator
from tests.e2e.scratch import error

STACK = "name: bad\ndomain: bad.social.test\napp: matrix\n"
# Machines that could never be made: whoever touches them fails in another way than is expected.
INVENTORY = "provider: local\nmachines:\n- roles: [all]\nlocal: {bridge: dnever0, subnet: 10.254.0.0/24}\n"
CARRIER = (
    'carriers:\n- {name: a, host: a.example, port: 2775, system_id: one, password: "${CARRIER}", tls: true}\n'
)

CASES: dict[str, tuple[str, str, list[str]]] = {
    "wrong YAML": (STACK + "sizes: [\n", INVENTORY, ["stack.yaml:5"]),
    "an unknown key": (
        STACK.replace("domain", "domian"),
        INVENTORY,
        ["stack.yaml:2", "domian", 'did you mean "domain"?'],
    ),
    "a variable that is not set": (
        STACK,
        INVENTORY + CARRIER,
        ["inventories/local.yaml:6", "carriers[0].password", "environment variable CARRIER is not set"],
    ),
    "an unknown provider": (
        STACK,
        INVENTORY.replace("provider: local", "provider: locl"),
        ["inventories/local.yaml:1", "unknown provider 'locl'", "known providers: aws"],
    ),
    "an unknown app": (
        STACK.replace("app: matrix", "app: matrx"),
        INVENTORY,
        ["stack.yaml:3", "app", 'did you mean "matrix"?'],
    ),
    "an invalid domain": (
        STACK.replace("bad.social.test", "bad_social"),
        INVENTORY,
        ["stack.yaml:2", "domain"],
    ),
    "two machines of one name": (
        STACK,
        INVENTORY.replace(
            "- roles: [all]", "- {name: a, roles: [app, database]}\n- {name: a, roles: [mail, sms]}"
        ),
        ["inventories/local.yaml:4", "machines[1].name", "names must differ"],
    ),
    "a role that nobody plays": (
        STACK,
        INVENTORY.replace("[all]", "[app, database, mail]"),
        ["inventories/local.yaml:2", "machines", 'nobody plays the role "sms"'],
    ),
}


def make(folder: Path, stack: str, inventory: str) -> Operator:
    (folder / "project" / "inventories").mkdir(parents=True)
    (folder / "project" / "stack.yaml").write_text(stack)
    (folder / "project" / "inventories" / "local.yaml").write_text(inventory)
    (folder / "home").mkdir()
    return Operator(folder / "project", "local", folder / "home")


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("case", CASES)
def test_it_is_named_and_nothing_is_touched(case: str, tmp_path: Path) -> None:
    stack, inventory, expected = CASES[case]
    operator = make(tmp_path, stack, inventory)
    refused(operator, tmp_path, expected)


def test_a_port_clash(tmp_path: Path) -> None:
    operator = make(tmp_path, STACK, INVENTORY)
    app = operator.folder / "templates/apps/matrix"
    shutil.copytree(CHECKOUT / "templates/apps/matrix", app)
    lines = (app / "app.yaml").read_text().splitlines()
    number = lines.index("    port: 8008") + 1
    lines[number - 1] = "    port: 5432"
    (app / "app.yaml").write_text("\n".join(lines) + "\n")
    place = f"templates/apps/matrix/app.yaml:{number}"
    refused(operator, tmp_path, [place, "processes[1].port", "port 5432 clashes with PostgreSQL"])


def refused(operator: Operator, folder: Path, expected: list[str]) -> None:
    before = listing(folder)
    run = operator.run("up", "--yes", options=(), timeout=30)
    assert run.code == 2, (run.code, run.out, run.err)
    missing = [words for words in expected if words not in run.err]
    assert not missing, f"{missing} not in:\n{run.err}"
    assert listing(folder) == before and not Path("/sys/class/net/dnever0").exists()


def test_programs_read_it_too(tmp_path: Path) -> None:
    operator = make(tmp_path, STACK.replace("domain", "domian"), INVENTORY)
    run = operator.run("up", "--yes", timeout=30)
    assert run.code == 2
    told = error(run)
    assert told["exit_code"] == 2 and "stack.yaml:2" in told["detail"], told
