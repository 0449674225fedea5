"""The shipped Matrix app: its manifest is valid, and its templates give what Synapse and Sydent shall read."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deployer.components.app.spec import secrets, spec
from deployer.core.component import Context, Secret
from deployer.core.machine import Machine
from deployer.core.manifest import Manifest
from deployer.core.resources import shipped
from deployer.flow.wanted import render
from deployer.project.manifest import load
from deployer.project.mistakes import Mark, Mistakes

CONFIG = "/etc/deploy/apps/matrix"
FOLDER = shipped("templates") / "apps" / "matrix"


@pytest.fixture
def matrix(tmp_path: Path) -> Manifest:
    mistakes = Mistakes()
    manifest = load("matrix", tmp_path, Mark("stack.yaml", 1), mistakes)
    assert manifest is not None, vars(mistakes)
    return manifest


@pytest.fixture
def place(context: Callable[..., Context], matrix: Manifest) -> Callable[..., Context]:
    def make(**settings: object) -> Context:
        made = context({**matrix.settings, **settings})
        return replace(made, project=replace(made.project, app=matrix))

    return make


def _text(context: Context, path: str) -> str:
    [file] = [item for item in spec(context).files if item.path == path]
    return render(file, context.project.root).decode()


def _homeserver(context: Context) -> dict[str, object]:
    result = yaml.safe_load(_text(context, f"{CONFIG}/homeserver.yaml"))
    assert isinstance(result, dict)
    return result


def _sydent(context: Context) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(_text(context, f"{CONFIG}/sydent.conf"))
    return parser


def _apart(context: Context) -> Context:
    """The same, with the app on a machine of its own."""
    other = Machine("demo-database-1", "2", "running", "192.0.2.2")
    roles = {**context.roles, **dict.fromkeys(("database", "mail", "sms"), (other.name,))}
    return replace(context, machines={**context.machines, other.name: other}, roles=roles)


def test_sign_up_needs_mail_and_telephone(place: Callable[..., Context]) -> None:
    config = _homeserver(place())
    assert config["enable_registration"] is True
    assert config["registrations_require_3pid"] == ["email", "msisdn"]
    assert config["account_threepid_delegates"] == {"msisdn": "http://127.0.0.1:8090"}
    closed = _homeserver(place(registration="closed"))
    assert closed["enable_registration"] is False
    assert closed["registrations_require_3pid"] == ["email", "msisdn"]


def test_one_machine(place: Callable[..., Context]) -> None:
    config = _homeserver(place())
    assert config["server_name"] == "demo.test"
    assert config["public_baseurl"] == "https://demo.test/"
    assert config["database"] == {
        "name": "psycopg2",
        "args": {
            "host": "localhost",
            "port": 5432,
            "user": "synapse",
            "password": "secret of database/synapse",
            "dbname": "synapse",
            "sslmode": "disable",
            "cp_min": 2,
            "cp_max": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    }
    assert config["email"] == {
        "smtp_host": "127.0.0.1",
        "smtp_port": 587,
        "enable_tls": False,
        "require_transport_security": False,
        "notif_from": "demo.test <noreply@demo.test>",
        "app_name": "demo.test",
        "enable_notifs": False,
        "validation_token_lifetime": "1h",
    }
    start = _text(place(), f"{CONFIG}/sydent_start.py")
    assert 'API_BASE_URL = "http://127.0.0.1:8070/sms/v4/mt"' in start
    compile(start, "sydent_start.py", "exec")


def test_two_machines(place: Callable[..., Context]) -> None:
    config = _homeserver(_apart(place()))
    args = config["database"]["args"]  # type: ignore[index]
    assert (args["host"], args["sslmode"]) == ("demo-database-1.demo.test", "verify-full")
    assert args["sslrootcert"] == "/etc/deploy/pki/root.crt"
    email = config["email"]
    assert isinstance(email, dict)
    assert (email["smtp_host"], email["require_transport_security"]) == ("demo-database-1.demo.test", True)
    assert "https://demo-database-1.demo.test:8071/sms" in _text(_apart(place()), f"{CONFIG}/sydent_start.py")


def test_what_grows_is_bounded(place: Callable[..., Context]) -> None:
    config = _homeserver(place(remote_media=7, upload=20))
    assert config["media_retention"] == {"remote_media_lifetime": "7d"}
    assert config["max_upload_size"] == "20M"
    assert config["url_preview_enabled"] is False


def test_sydent(place: Callable[..., Context]) -> None:
    parser = _sydent(place())
    assert parser["sms"]["bodytemplate"] == "{token} is your code for demo.test"
    assert parser["sms"]["password"] == "secret of sms_gateway/password"
    assert parser["crypto"]["ed25519.signingkey"] == "ed25519 0 secret of app/sydent_signing_key"
    assert parser["general"]["log.level"] == "WARNING"


def test_logs_go_to_the_journal_without_tokens(place: Callable[..., Context]) -> None:
    log = yaml.safe_load(_text(place(), f"{CONFIG}/log.yaml"))
    assert log["handlers"] == {
        "journal": {"class": "logging.StreamHandler", "formatter": "short", "stream": "ext://sys.stdout"}
    }
    assert log["loggers"]["synapse.access.http"] == {"level": "WARNING"}


def test_secrets(place: Callable[..., Context]) -> None:
    assert secrets(place().project) == (
        Secret("app/registration_shared_secret"),
        Secret("app/macaroon_secret_key"),
        Secret("app/form_secret"),
        Secret("app/signing_key", "ed25519_seed"),
        Secret("app/sydent_signing_key", "ed25519_seed"),
        Secret("app/admin_password"),
    )
    for path in ("homeserver.yaml", "signing.key", "sydent.conf"):
        [file] = [item for item in spec(place()).files if item.path == f"{CONFIG}/{path}"]
        assert (file.mode, file.group, file.secret) == (0o640, "app-matrix", True)


@pytest.mark.parametrize("lock", ["synapse.lock", "sydent.lock"])
def test_locks_are_hashed_and_name_no_index(lock: str) -> None:
    text = (FOLDER / lock).read_text()
    assert "://" not in text and "--index" not in text
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[.*\])?==\S+", entry), entry[:60]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]


def test_version_is_the_locks(matrix: Manifest) -> None:
    assert f"\nmatrix-synapse=={matrix.version} " in (FOLDER / "synapse.lock").read_text()
