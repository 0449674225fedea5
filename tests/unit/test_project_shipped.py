"""The files that we ship are valid as they stand, and so is every example in their comments."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from deployer.core import model
from deployer.core.resources import shipped
from deployer.flow import registry
from deployer.flow.init import init
from deployer.project import load, schema

INVENTORIES = sorted(path.stem for path in shipped("inventories").glob("*.yaml"))
_EXAMPLE = re.compile(r"^( *)# ( *(?:- )?[a-z_0-9]+:(?: .*)?)$")


def uncommented(path: Path) -> None:
    """Turn the examples in comments into keys. Prose begins with a capital letter, so it stays."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(_EXAMPLE.sub(r"\1\2", line) for line in lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")], check=True
    )
    init(tmp_path / "own", "agora", "agora.example", "matrix")
    return tmp_path / "own"


@pytest.mark.parametrize("name", INVENTORIES)
def test_the_demo_loads_at_every_shipped_inventory(name: str) -> None:
    root = shipped("inventories").parent
    project = load(root, name, None, options=registry.provider_options, environment={})
    assert str(project.deployment) == f"demo@{name}"
    assert project.inventory.catch is (project.inventory.provider == "local")


@pytest.mark.parametrize("name", INVENTORIES)
def test_one_s_own_project_loads_at_every_shipped_inventory(folder: Path, name: str) -> None:
    project = load(folder, name, None, options=registry.provider_options, environment={})
    assert project.stack.operators[0].age.startswith("age1")


def test_the_examples_in_comments_are_valid(folder: Path) -> None:
    uncommented(folder / "stack.yaml")
    uncommented(folder / "inventories" / "baremetal.yaml")
    inventory = folder / "inventories" / "baremetal.yaml"
    key = (folder.parent / "home/.ssh/id_ed25519.pub").read_text(encoding="utf-8").strip()
    inventory.write_text(
        inventory.read_text(encoding="utf-8").replace("ssh-ed25519 AAAA...", key), encoding="utf-8"
    )
    (folder / "private-ca.pem").write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    passwords = {"SMARTHOST_FIRST_PASSWORD": "one", "CARRIER_FIRST_PASSWORD": "two"}
    project = load(folder, "baremetal", None, options=registry.provider_options, environment=passwords)
    assert project.inventory.smarthosts[0].password == "one"
    assert project.inventory.carriers[0].password == "two"
    assert project.inventory.carriers[0].sender == "+491701234567"
    assert project.stack.mail.dkim_selector == "deploy2"
    assert project.stack.sms.countries == ("DE", "AT", "CH")
    assert project.stack.sizes["app"].memory == 4


PAIRS: list[tuple[type[BaseModel], Any, set[str]]] = [
    (schema.StackFile, model.Stack, set()),
    (schema.OperatorSection, model.Operator, set()),
    (schema.MailSection, model.MailPolicy, set()),
    (schema.SmsSection, model.SmsPolicy, set()),
    (schema.AcmeSection, model.Acme, set()),
    (schema.SmarthostSection, model.Smarthost, set()),
    (schema.CarrierSection, model.Carrier, set()),
    (schema.DoctorSection, model.DoctorPolicy, set()),
    (schema.BackupSection, model.BackupPolicy, set()),
    (schema.RepositorySection, model.Repository, set()),
    (schema.MachineSection, model.MachineEntry, {"options"}),
    (schema.InventoryFile, model.Inventory, {"options", "name", "drill"}),
]


@pytest.mark.parametrize(("section", "record", "elsewhere"), PAIRS)
def test_schema_and_core_have_the_same_keys(
    section: type[BaseModel], record: Any, elsewhere: set[str]
) -> None:
    """elsewhere: what does not come from a key of the file."""
    fields = {item.name: item.default for item in dataclasses.fields(record) if item.name not in elsewhere}
    assert set(section.model_fields) == set(fields)
    for name, info in section.model_fields.items():
        if isinstance(fields[name], int | tuple) and not isinstance(info.default, type(None)):
            assert info.default == fields[name], name


def test_loading_needs_no_heavy_library() -> None:
    """An unchanged `up` has 2.5 s in all; cryptography alone would cost 0.1."""
    code = (
        "import sys; from pathlib import Path; from deployer.project import load; "
        f"load(Path({str(shipped('inventories').parent)!r}), 'local', None, environment={{}}); "
        "print([name for name in ('cryptography', 'pyrage', 'jinja2', 'rich', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
