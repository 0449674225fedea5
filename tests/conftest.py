"""What every test shares: the option --all, and the reason why a test cannot run here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the long tests too")


# Where tests have real machines, or ports and processes of this computer for themselves: one after the other.
# `-m "not machines"` are the quick ones.
MACHINES = (
    "tests/e2e/",
    "tests/engine/",
    "tests/rig/",
    "tests/components/backups/test_database_machine.py",
    "tests/components/backups/test_files_machine.py",
    "tests/components/moving/test_two_sides.py",
    "tests/providers/test_aws_machines.py",
    "tests/providers/test_hetzner.py",
    "tests/providers/test_local_machines.py",
    "tests/providers/test_ssh.py",
)


# First, so that -m, which is pytest's own, sees the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(MACHINES):
            item.add_marker(pytest.mark.machines)
    if config.getoption("--all"):
        return
    skip = pytest.mark.skip(reason="long; run it with bin/test --all")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


# What bin/test runs beside these tests: the names, and the folder where NAME.text and then NAME.code appear.
BESIDE = [name for name in os.environ.pop("CHECKS_BESIDE", "").split(",") if name]
CHECKS = Path(os.environ.pop("CHECKS", "/nonexistent"))
# Seconds to wait for them after the last test.
PATIENCE = 900


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.INTERRUPTED:
        return
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not all((CHECKS / f"{name}.code").exists() for name in BESIDE):
        time.sleep(0.1)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and failed():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def failed() -> list[str]:
    codes = {name: CHECKS / f"{name}.code" for name in BESIDE}
    return [name for name, path in codes.items() if not path.exists() or path.read_text().strip() != "0"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not BESIDE:
        return
    wrong = failed()
    terminalreporter.section("beside these tests", red=bool(wrong))
    for name in BESIDE:
        text = CHECKS / f"{name}.text"
        lines = text.read_text(errors="replace").rstrip().splitlines() if text.exists() else []
        for line in lines if name in wrong else ():
            terminalreporter.line(f"  {line}")
        last = f" ({lines[-1].strip('= ')})" if lines and name.startswith("tests") else ""
        verdict = "good" if name not in wrong else "failed" if lines else "not at an end"
        terminalreporter.line(f"{name}: {verdict}{last}")
