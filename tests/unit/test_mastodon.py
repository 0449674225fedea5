"""Mastodon's manifest, as far as it can be looked at without its images: it was never run by these tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployer.core.component import Context
from deployer.core.machine import Facts, Machine
from deployer.flow import app_check, provision
from deployer.flow.wanted import render
from deployer.project import load

KNOWN = {
    line
    for line in (Path(__file__).parents[1] / "data/mastodon-variables.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
# Of those that the image's own programs read: libpq, Node.js.
OTHERS = {"PGSSLROOTCERT", "NODE_EXTRA_CA_CERTS"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that pins both images."""
    (tmp_path / "stack.yaml").write_text("name: agora\ndomain: agora.test\napp: mastodon\n")
    own = tmp_path / "templates/apps/mastodon"
    own.mkdir(parents=True)
    for name in ("web", "streaming"):
        (own / f"{name}.image").write_text(f"registry.example.net/mastodon/{name}@sha256:{'0' * 64}\n")
    return tmp_path


def variables(root: Path, inventory: str = "roles: [all]") -> dict[str, str]:
    """The environment file, as the app's machine gets it."""
    (root / "inventories").mkdir(exist_ok=True)
    (root / "inventories/local.yaml").write_text(f"provider: local\nmachines:\n- {inventory}\n")
    project = load(root, "local", None, environment={})
    machines = {
        entry.name: Machine(entry.name, "0", "running", f"192.0.2.{number}")
        for number, entry in enumerate(project.inventory.machines, 1)
    }
    from deployer.components.app.spec import spec

    roles = provision.roles(project)
    secrets = app_check._Secrets({"app/vapid": "private public"})
    context = Context(project, machines[roles["app"][0]], machines, roles, secrets, Facts(2, 2 << 30))
    [file] = [one for one in spec(context).files if one.path.endswith("/apps/mastodon/env")]
    assert file.secret and file.mode == 0o640
    return dict(line.split("=", 1) for line in render(file, root).decode().splitlines() if line)


def test_without_images_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("name: agora\ndomain: agora.test\napp: mastodon\n")
    result = app_check.check(tmp_path, "mastodon", None, None)
    texts = [str(one["text"]) for one in result["findings"]]
    assert len(texts) == 2 and all(
        "it holds a line with the image, HOST/NAME@sha256:DIGEST" in one for one in texts
    )


def test_it_is_in_order(root: Path) -> None:
    result = app_check.check(root, "mastodon", None, None)
    assert result["ok"], result["findings"]


@pytest.mark.parametrize("media", ["disk", "s3"])
@pytest.mark.parametrize(
    "inventory", ["roles: [all]", "roles: [app]\n- roles: [database]\n- roles: [mail, sms]"]
)
def test_every_variable_is_one_that_mastodon_publishes(root: Path, inventory: str, media: str) -> None:
    text = (root / "stack.yaml").read_text()
    (root / "stack.yaml").write_text(
        text
        + f"settings: {{media: {media}, s3_bucket: agora, s3_key: KEY, s3_endpoint: 'https://s3.example.net'}}\n"
    )
    found = variables(root, inventory)
    assert set(found) <= KNOWN | OTHERS
    assert ("S3_BUCKET" in found) == (media == "s3")
    assert (found["DB_SSLMODE"] == "verify-full") == (found["SMTP_ENABLE_STARTTLS"] == "always")
    assert all(re.fullmatch(r"[^\s\"'\\]+", value) for value in found.values()), found


def test_all_of_its_keys_are_in_the_bundle(root: Path) -> None:
    found = variables(root)
    assert (found["VAPID_PRIVATE_KEY"], found["VAPID_PUBLIC_KEY"]) == ("private", "public")
    for name in ("PRIMARY_KEY", "DETERMINISTIC_KEY", "KEY_DERIVATION_SALT"):
        assert found[f"ACTIVE_RECORD_ENCRYPTION_{name}"].startswith("secret-of-app-encryption")
    assert found["SECRET_KEY_BASE"].startswith("secret-of-app")
    lasting = {one.name for one in load(root, "local", None, environment={}).app.secrets if one.lasting}
    assert lasting == {"encryption_primary_key", "encryption_deterministic_key", "encryption_salt", "vapid"}
