"""The program that makes and renews a machine's certificates, with the CA that pki/ makes."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import pwd
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from deployer.core.keytext import split_pem
from deployer.pki import authority
from tests.components.base.world import ONE, TWO, secrets

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
ME = pwd.getpwuid(os.geteuid()).pw_name


def load() -> ModuleType:
    import deployer.components.base

    path = Path(deployer.components.base.__file__).parent / "service" / "certificates.py"
    found = importlib.util.spec_from_file_location("deploy_certs", path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["deploy_certs"] = module
    found.loader.exec_module(module)
    return module


certs: Any = load()


def ask(folder: Path, name: str = "web", **values: object) -> None:
    request = {"names": ["demo-all-1.example.test", "localhost", "10.0.0.1"], "owner": ME, **values}
    (folder / "leaves.d" / f"{name}.json").write_text(json.dumps(request))


def use_issuer(folder: Path, machine: str) -> None:
    key, certificate = split_pem(secrets()[f"pki/issuer/{machine}"])
    (folder / "issuer.key").write_text(key)
    (folder / "issuer.crt").write_text(certificate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "leaves.d").mkdir()
    (tmp_path / "leaves").mkdir()
    use_issuer(tmp_path, ONE.name)
    ask(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the program; returns its exit code. A systemctl of the test notes what it was asked for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/broken ] && exit 1\necho "$*" >>{tmp_path}/asked\n'
    )
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(
        sys, "argv", ["deploy-certs", "--folder", str(folder), "--notes", str(tmp_path / "notes")]
    )
    return certs.main


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates((folder / "leaves" / "web.crt").read_bytes())[0]


def test_a_leaf_is_made_that_a_strict_client_accepts(folder: Path, run: Any) -> None:
    assert run() == 0
    chain = x509.load_pem_x509_certificates((folder / "leaves" / "web.crt").read_bytes())
    root = x509.load_pem_x509_certificate(split_pem(secrets()["pki/ca"])[1].encode())
    verifier = (
        PolicyBuilder()
        .store(Store([root]))
        .time(NOW)
        .build_server_verifier(x509.DNSName("demo-all-1.example.test"))
    )
    assert verifier.verify(chain[0], chain[1:]) == [*chain, root]
    assert chain[0].not_valid_after_utc - NOW > 89 * DAY


def test_the_key_is_its_owner_s_alone_and_one_file_holds_both(folder: Path, run: Any) -> None:
    run()
    leaves = folder / "leaves"
    modes = {path.name: path.stat().st_mode & 0o777 for path in leaves.iterdir()}
    assert modes == {"web.crt": 0o444, "web.key": 0o400, "web.pem": 0o400}
    both = (leaves / "web.key").read_text() + (leaves / "web.crt").read_text()
    assert (leaves / "web.pem").read_text() == both


def test_a_good_leaf_stays(folder: Path, run: Any) -> None:
    run()
    before = leaf(folder)
    run()
    assert leaf(folder) == before


@pytest.mark.parametrize("days, why", [(59, ""), (61, "it ends on")])
def test_it_is_renewed_thirty_days_before_its_end(folder: Path, run: Any, days: int, why: str) -> None:
    run()
    store = certs.Store(folder)
    assert store.reason(store.wanted()[0], NOW + days * DAY).startswith(why)
    assert bool(why) == bool(store.reason(store.wanted()[0], NOW + days * DAY))


def test_near_the_issuer_s_end_it_is_not_made_again_every_day(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "ISSUER_DAYS", 20)
    key, certificate = split_pem(authority.issuer(secrets()["pki/ca"], ONE.name, "example.test"))
    (folder / "issuer.key").write_text(key)
    (folder / "issuer.crt").write_text(certificate)
    run()
    store = certs.Store(folder)
    assert leaf(folder).not_valid_after_utc == store.issuer.not_valid_after_utc
    assert store.reason(store.wanted()[0], NOW + DAY) == ""


def test_other_names_or_another_issuer_make_it_again(folder: Path, run: Any) -> None:
    run()
    store = certs.Store(folder)
    ask(folder, names=["demo-all-1.example.test"])
    assert store.reason(store.wanted()[0], NOW) == "its names changed"
    ask(folder)
    use_issuer(folder, TWO.name)
    store = certs.Store(folder)
    assert store.reason(store.wanted()[0], NOW) == "the issuer changed"


def test_a_key_that_is_not_the_issuer_s_is_refused(folder: Path, run: Any) -> None:
    (folder / "issuer.key").write_text(split_pem(secrets()[f"pki/issuer/{TWO.name}"])[0])
    with pytest.raises(ValueError, match=r"issuer\.key does not belong"):
        run()


def test_units_are_told_once_for_each_certificate(folder: Path, run: Any) -> None:
    ask(folder, reload=["web.service", "mail.service"])
    run()
    run()
    assert asked(folder) == ["try-reload-or-restart -- web.service mail.service"]


def test_what_a_killed_run_left_is_made_good(folder: Path, run: Any) -> None:
    ask(folder, reload=["web.service"])
    (folder / "broken").touch()
    assert run() == 1
    (folder / "broken").unlink()
    (folder / "leaves" / "web.key").unlink()
    (folder / "leaves" / "web.crt").chmod(0o644)
    (folder / "leaves" / "web.crt").write_text("half")
    assert run() == 0
    assert asked(folder) == ["try-reload-or-restart -- web.service"]
    pem = (folder / "leaves" / "web.pem").read_text()
    assert pem == (folder / "leaves" / "web.key").read_text() + (folder / "leaves" / "web.crt").read_text()


def test_one_bad_request_does_not_stop_the_others(
    folder: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(folder, "aaa", owner="nobody-of-that-name")
    assert run() == 1
    assert "aaa: " in capsys.readouterr().err
    assert (folder / "leaves" / "web.crt").exists()
