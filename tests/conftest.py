"""What every test shares: the option --all, and the reason why a test cannot run here."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the long tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    skip = pytest.mark.skip(reason="long; run it with bin/test --all")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


# What bin/test found wrong before it started pytest ("ruff check, import rules"), or nothing.
CHECKS_FAILED = os.environ.get("CHECKS_FAILED", "")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if CHECKS_FAILED and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHECKS_FAILED:
        terminalreporter.section("failed before the tests", red=True)
        terminalreporter.line(f"{CHECKS_FAILED}: see above, before pytest's first line")
