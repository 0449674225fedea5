from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deployer.components.cache import spec as cache
from deployer.core.component import Context
from deployer.core.machine import Facts, Machine
from deployer.core.manifest import Manifest
from deployer.core.model import Inventory, MailPolicy, Project, SmsPolicy, Stack
from deployer.flow.wanted import render

PASSWORD = "canary-Cache_password-0123456789"


def context(memory: int = 4 << 30) -> Context:
    machine = Machine("demo-all-1", "1", "running", "192.0.2.80")
    stack = Stack("demo", "example.test", "app", (), MailPolicy("a@example.test"), SmsPolicy())
    app = Manifest("app", "1", Path("/nonexistent"), (), (), (), (), ())
    project = Project(Path("/nonexistent"), stack, Inventory("local", "local", ()), app)
    return Context(
        project,
        machine,
        {machine.name: machine},
        {"app": (machine.name,)},
        {"cache/password": PASSWORD},
        Facts(memory=memory),
    )


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (512 << 20, 64 << 20),
        (1 << 30, 64 << 20),
        (4 << 30, 256 << 20),
        (8_200_000_000, 488 << 20),
        (64 << 30, 4 << 30),
    ],
)
def test_the_cache_takes_a_sixteenth_of_the_memory(memory: int, expected: int) -> None:
    assert cache.maxmemory(memory) == expected
    [config] = [file for file in cache.spec(context(memory)).files if file.path.endswith("valkey.conf")]
    assert f"\nmaxmemory {expected}\n" in render(config, Path("/nonexistent")).decode()


def test_it_listens_on_loopback_and_opens_no_port() -> None:
    spec = cache.spec(context())
    config = render(spec.files[0], Path("/nonexistent")).decode()
    assert re.findall(r"^bind .*", config, re.MULTILINE) == ["bind 127.0.0.1 -::1"]
    assert spec.ports == ()
    assert cache.connection(context()) == {"host": "127.0.0.1", "port": 6379, "password": PASSWORD}


def test_queues_survive_and_only_what_expires_is_dropped() -> None:
    config = render(cache.spec(context()).files[0], Path("/nonexistent")).decode()
    for line in ("appendonly yes", "appendfsync everysec", "maxmemory-policy volatile-lru"):
        assert f"\n{line}\n" in config


def test_the_password_is_in_one_file_that_the_service_alone_may_read() -> None:
    spec = cache.spec(context())
    holding = [file for file in spec.files if PASSWORD in render(file, Path("/nonexistent")).decode()]
    assert [(file.path, oct(file.mode), file.owner, file.group, file.secret) for file in holding] == [
        ("/etc/valkey/password.conf", "0o640", "root", "valkey", True)
    ]
    assert PASSWORD not in str([probe.args for probe in spec.probes])
    assert PASSWORD not in repr(spec)


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("OK\nOK\nwritten\n# Memory\nused_memory:3145728\nmaxmemory:268435456\n", 0, "3 of 256 MiB"),
        ("WRONGPASS invalid\nNOAUTH Authentication required.\n", 1, "WRONGPASS"),
        ("OK\nOOM command not allowed\n\n", 1, "OOM"),
        ("", 1, "no answer"),
    ],
)
def test_the_probe_reads_the_answer(tmp_path: Path, answer: str, code: int, says: str) -> None:
    """With a stand-in for valkey-cli, to force the answers; the real one runs in the rig."""
    (tmp_path / "answer").write_text(answer)
    client = tmp_path / "valkey-cli"
    client.write_text(
        f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/argv; cat > {tmp_path}/said; cat {tmp_path}/answer\n'
    )
    client.chmod(0o755)
    (tmp_path / "password.conf").write_text(f'requirepass "{PASSWORD}"\n')
    script = cache.PROBE.replace(cache.PASSWORD_FILE, str(tmp_path / "password.conf"))
    run = subprocess.run(
        ["bash", "-s"],
        input=script,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code
    assert says in run.stdout.splitlines()[-1]
    assert (tmp_path / "said").read_text().startswith(f"AUTH {PASSWORD}\nSET ")
    assert PASSWORD not in (tmp_path / "argv").read_text()


def test_paths_packages_and_units_do_not_depend_on_facts() -> None:
    small, large = cache.spec(context(1 << 30)), cache.spec(context(64 << 30))
    assert [file.path for file in small.files] == [file.path for file in large.files]
    assert (small.packages, small.units, small.probes) == (large.packages, large.units, large.probes)
