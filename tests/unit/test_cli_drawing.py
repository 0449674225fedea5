"""How events and results look: plain, live on a terminal, JSON; and when the reader leaves."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployer.cli import output
from deployer.cli.draw import Drawer, sentence, summary
from deployer.core.events import Event

ROOT = Path(__file__).resolve().parents[2]
# A run with a stub flow, as a program of its own: what terminals and pipes do cannot be seen from inside.
PROGRAM = """
import sys, time
from types import ModuleType
from deployer.core.events import Event

def up(request, sink):
    sink(Event("stage", "install", status="start"))
    sink(Event("step", "61 packages", machine="app-1", status="start"))
    time.sleep(0.4)
    sink(Event("step", "61 packages", machine="app-1", status="ok", seconds=0.4))
    sink(Event("stage", "install", status="ok", seconds=12.3))
    sink(Event("change", "base: create file /etc/hosts", machine="app-1", data={"action": "create", "kind": "file"}))
    sink(Event("warning", "no SMS carrier"))
    if not request.confirm("1 change(s). Go on?"):
        raise SystemExit("never")
    return {"urls": [f"https://{n}.example/" for n in range(3000 if request.app == "many" else 1)], "changed": 1}

flow = ModuleType("deployer.flow.up")
flow.up = up
sys.modules[flow.__name__] = flow
from deployer.cli.main import main
main()
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "stack.yaml").touch()
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, "-I", str(path), "--project", str(tmp_path), "up", "--provider", "local"]


def on_terminal(command: list[str], answer: str = "", **environment: str) -> tuple[int, str]:
    """Run with a terminal for all three streams; type `answer` when asked. Exit code and all that was shown."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", **environment}
    )
    os.close(theirs)
    shown, deadline = "", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            shown += part.decode()
            if answer and "[y/N]" in shown:
                os.write(ours, answer.encode())
                answer = ""
    os.close(ours)
    return process.wait(10), shown


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")


def test_on_a_terminal_it_moves_asks_and_then_is_still(program: list[str]) -> None:
    code, shown = on_terminal(program, "y\n")
    assert code == 0
    text = plain(shown)
    assert "61 packages" in text, "the running step, below its stage"
    assert "done    install  12 s\n" in text
    assert "warning: no SMS carrier" in text
    assert text.index("app-1  create file 1") < text.index("Go on? [y/N]"), (
        "what is asked about stands before"
    )
    assert "https://0.example/" in text
    assert shown.isascii(), "calm: no symbols"


def test_no_on_the_question_stops_it(program: list[str]) -> None:
    code, shown = on_terminal(program, "n\n")
    assert code == 1
    assert plain(shown).endswith("You said no: nothing was changed.\n")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(environment: dict[str, str], program: list[str]) -> None:
    shown = on_terminal([*program, "--yes"], **environment)[1]
    # Bold and dim may stay, says https://no-color.org.
    assert not re.search(r"\x1b\[(\d+;)*[349]\d[;m]", shown)
    if "TERM" in environment:
        assert "\x1b" not in shown


def test_plain_lines_where_there_is_no_terminal(program: list[str]) -> None:
    done = subprocess.run([*program, "--yes"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "  0:00  install",
        "  0:00  install: done (12 s)",
        "  0:00  warning: no SMS carrier",
    ]
    assert done.stdout.splitlines()[:2] == ["Addresses", "  https://0.example/"]
    verbose = subprocess.run([*program, "--yes", "-v"], capture_output=True, text=True, timeout=30)
    assert "app-1: 61 packages: done (0.4 s)" in verbose.stderr


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_error(words: list[str], program: list[str]) -> None:
    command = [*program, "--yes", "--app", "many", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(30) == 0, "the work was done all the same"
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_help_into_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "deployer.cli", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""


def test_sentences() -> None:
    assert (
        sentence(Event("step", "files", machine="a", status="ok", seconds=1.25)) == "a: files: done (1.2 s)"
    )
    assert sentence(Event("stage", "install", status="failed", seconds=75)) == "install: failed (1 min 15 s)"
    assert sentence(Event("warning", "no carrier")) == "warning: no carrier"


def test_a_red_probe_is_shown_and_a_green_one_is_not() -> None:
    draw = Drawer(verbose=False)
    assert draw.line(Event("probe", "https", status="ok")) is None
    assert "https: failed" in str(draw.line(Event("probe", "https", status="failed")))
    assert draw.line(Event("step", "files", machine="a", status="ok")) is None
    assert draw.line(Event("step", "files", machine="a", status="failed")) is not None


def test_summary_counts_by_machine() -> None:
    def change(machine: str, kind: str) -> Event:
        return Event("change", "x", machine=machine, data={"action": "create", "kind": kind})

    found = summary([change("a", "file"), change("b", "file"), change("a", "file"), change("a", "unit")])
    assert found == ["Changes:", "  a  create file 2, create unit 1", "  b  create file 1"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.3, "12 s"), (59.7, "1 min 00 s"), (3725, "1 h 02 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert output.clock(seconds) == text
