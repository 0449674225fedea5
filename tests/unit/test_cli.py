"""The command line: parsing, exit codes, errors. Flows are stubs here; tests/e2e runs the real ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from deployer.cli import output
from deployer.cli.main import HEADINGS, deploy, main
from deployer.core.errors import DeployError, LeaseError
from deployer.core.events import Event
from deployer.core.plan import Change, Plan

Stub = Callable[..., None]


class Run:
    """How a run of `deploy` ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, and the current one."""
    (tmp_path / "stack.yaml").write_text("name: demo\n")
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "rack.yaml").write_text("provider: ssh\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    def run(*words: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Run(ended.value.code, out, err)

    yield run
    assert not output.Reader.gone


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """stub("up", function) stands for deployer.flow.up.up; more functions of the module by their names."""

    def stub(
        module: str, function: Callable[..., Any] | None = None, **functions: Callable[..., Any]
    ) -> None:
        made = ModuleType(f"deployer.flow.{module}")
        for name, value in {module: function, **functions}.items():
            setattr(made, name, value)
        monkeypatch.setitem(sys.modules, made.__name__, made)

    return stub


def commands(group: click.Group, path: str = "deploy") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL = dict(commands(deploy))
UP = {
    "urls": ["https://demo.example/"],
    "probes": [],
    "machines": [],
    "notes": [],
    "changed": 0,
    "seconds": 1.2,
}


# --- help ---


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_help_with_an_example(path: str, run: Callable[..., Run]) -> None:
    done = run(*path.split()[1:], "--help")
    assert done.code == 0
    assert "Example:" in done.out
    assert f"\n    {path}" in done.out, "the example shows the command itself"
    for option in ALL[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{path} {option.opts} has no help"
    first = ALL[path].get_short_help_str(200)
    assert len(first) <= 60, f"in the list of commands it would be cut: {first}"


def test_help_lists_every_verb_once_under_its_heading(run: Callable[..., Run]) -> None:
    listed = [name for names in HEADINGS.values() for name in names]
    assert listed == list(deploy.commands)
    out = run("--help").out
    assert "..." not in out.partition("Service:")[2]
    for name in listed:
        assert f"\n  {name} " in out


def test_version_option(run: Callable[..., Run]) -> None:
    assert run("--version").out.startswith("deploy, version ")


# --- bad usage: 2 ---


def test_an_unknown_verb_is_told_with_what_was_meant(run: Callable[..., Run]) -> None:
    done = run("stats")
    assert (done.code, done.out) == (2, "")
    assert "No such command 'stats'. Did you mean 'status'?" in done.err
    assert "next: deploy --help" in done.err


def test_an_unknown_option_is_told_with_what_was_meant(run: Callable[..., Run]) -> None:
    done = run("up", "--provder", "local")
    assert done.code == 2
    assert "Did you mean" in done.err
    assert "--provider" in done.err
    assert "next: deploy up --help" in done.err


def test_usage_errors_are_json_too(run: Callable[..., Run]) -> None:
    done = run("--json", "stats")
    assert done.code == 2
    assert done.err == ""
    assert done.json[-1]["kind"] == "error"
    assert done.json[-1]["exit_code"] == 2


@pytest.mark.parametrize("verb", ["up", "plan", "status", "down", "logs", "ssh", "inbox", "secrets list"])
def test_without_a_project_it_says_where_to_go(
    verb: str, run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = () if verb.startswith("secrets") else ("--provider", "local")
    done = run(*verb.split(), *target)
    assert done.code == 2
    assert f"no stack.yaml in {tmp_path}" in done.err
    assert "--project DIR" in done.err
    assert "deploy init" in done.err


def test_a_project_further_up_is_named(project: Path, run: Callable[..., Run]) -> None:
    done = run("--project", str(project / "inventories"), "plan", "--provider", "local")
    assert done.code == 2
    assert f"--project {project}" in done.err


def test_without_a_target_the_inventories_are_listed(project: Path, run: Callable[..., Run]) -> None:
    done = run("status")
    assert done.code == 2
    assert "--provider NAME (" in done.err
    assert "rack" in done.err, "the project's own"


def test_two_targets_or_a_missing_file_are_refused(project: Path, run: Callable[..., Run]) -> None:
    both = run("plan", "--provider", "rack", "--inventory", "inventories/rack.yaml")
    assert (both.code, "both" in both.err) == (2, True)
    missing = run("plan", "--inventory", "nowhere.yaml")
    assert (missing.code, "nowhere.yaml" in missing.err) == (2, True)


@pytest.mark.parametrize("verb", ["up", "down"])
def test_nobody_to_ask_and_no_yes(verb: str, project: Path, run: Callable[..., Run], stub: Stub) -> None:
    stub(verb, lambda *_: pytest.fail("the flow must not start"))
    done = run(verb, "--provider", "rack")
    assert done.code == 2
    assert "add --yes" in done.err


def test_exec_wants_its_command_after_dashes(project: Path, run: Callable[..., Run]) -> None:
    assert "add it: -- COMMAND" in run("exec", "--provider", "rack").err
    assert "'uptime' stands before --" in run("exec", "--provider", "rack", "uptime").err


# --- what the flows are asked ---


def test_the_request(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []

    def up(request: Any, sink: Any) -> dict[str, Any]:
        asked.append(request)
        assert request.confirm("go?")
        return UP

    stub("up", up)
    key = project / "key"
    key.touch()
    run("-v", "up", "--provider", "rack", "--app", "forum", "--trust-first", "--yes", "--identity", str(key))
    (request,) = asked
    assert (request.root, request.provider, request.app) == (project, "rack", "forum")
    assert (request.trust_first, request.verbose, request.identity) == (True, True, key)


def test_global_options_before_and_after_the_verb(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []
    stub("status", lambda request, sink: asked.append(request) or {"ok": True})
    for words in (["--json", "-v", "status"], ["status", "--json", "-v"], ["--json", "status", "-v"]):
        assert run(*words, "--provider", "rack").json[-1]["kind"] == "result"
        assert asked[-1].verbose
    assert run("status", "--provider", "rack", "--project", str(project / "nowhere")).code == 2


def test_logs(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []

    def logs(request: Any, sink: Any, *words: Any) -> Iterator[str]:
        asked.append(words)
        yield from ("one", "two")

    stub("logs", logs)
    done = run(
        "logs", "proxy", "--provider", "rack", "--machine", "a", "-n", "5", "--since", "1h ago", "--follow"
    )
    assert asked == [("proxy", "a", 5, "1h ago", True)]
    assert done.out == "one\ntwo\n"


def test_exec_passes_the_command_on_as_it_is(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []

    def execute(request: Any, sink: Any, *words: Any) -> list[dict[str, Any]]:
        asked.append(words)
        return [
            {"machine": "a", "code": 0, "stdout": "fine\n", "stderr": ""},
            {"machine": "b", "code": 4, "stdout": "", "stderr": "broken\n"},
        ]

    stub("execute", execute)
    done = run("exec", "--provider", "rack", "--role", "mail", "--", "sh", "-c", "a b", "--json", "--", "-v")
    assert asked == [(["sh", "-c", "a b", "--json", "--", "-v"], None, "mail")]
    assert done.code == 1
    assert done.out == "a\nfine\nb (exit code 4)\n"
    assert done.err == "broken\n"


def test_ssh_replaces_this_process(
    project: Path, run: Callable[..., Run], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub("ssh", ssh_command=lambda request, sink, target: ["ssh", "-p", "22", str(target)])
    started: list[Any] = []
    monkeypatch.setattr("os.execvp", lambda program, argv: started.append((program, argv)))
    run("ssh", "--provider", "rack")
    run("ssh", "database", "--provider", "rack", "--", "uptime", "-p")
    assert started == [
        ("ssh", ["ssh", "-p", "22", "None"]),
        ("ssh", ["ssh", "-p", "22", "database", "uptime", "-p"]),
    ]


def test_inbox(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []
    message = {
        "kind": "sms",
        "at": "2026-11-24T03:00:00Z",
        "sender": "Demo",
        "to": "+491",
        "subject": "",
        "text": "7",
    }
    answers = [[message], []]

    def inbox(request: Any, sink: Any, *words: Any) -> list[dict[str, Any]]:
        asked.append(words)
        return answers.pop(0)

    stub("inbox", inbox)
    first = run("inbox", "--provider", "rack", "--sms", "--to", "+491", "--last", "1")
    assert "SMS  2026-11-24T03:00:00Z" in first.out
    assert "\n  7\n" in first.out
    assert run("inbox", "--provider", "rack", "--wait", "2").code == 1, "nothing came"
    assert asked == [("sms", "+491", 1, 0), (None, None, None, 2.0)]


def test_init(tmp_path: Path, run: Callable[..., Run], stub: Stub) -> None:
    asked: list[Any] = []
    stub("init", lambda *words: asked.append(words) or {"files": ["agora/stack.yaml"], "notes": ["edit it"]})
    done = run(
        "init", str(tmp_path / "agora"), "--name", "agora", "--domain", "agora.example", "--app", "matrix"
    )
    assert asked == [(tmp_path / "agora", "agora", "agora.example", "matrix")]
    assert done.out == "made agora/stack.yaml\nnote: edit it\n"


def test_secrets(project: Path, run: Callable[..., Run], stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    done: list[Any] = []
    stub(
        "secrets",
        list_secrets=lambda request: [{"name": "cache/password", "kind": "password"}],
        read_secret=lambda request, name: "correct horse",
        set_secret=lambda request, name, value: done.append((name, value)) or {"name": name},
        rotate=lambda request, name: {"name": name, "notes": ["restarts the cache"]},
    )
    assert run("secrets", "list").out == "name            kind\ncache/password  password\n"
    assert run("secrets", "show", "cache/password").out == "correct horse\n"
    monkeypatch.setattr("sys.stdin", StringIO("line one\nline two\n"))
    assert "correct" not in run("secrets", "edit", "mail_relay/dkim").out
    assert done == [("mail_relay/dkim", "line one\nline two")]
    monkeypatch.setattr("sys.stdin", StringIO(""))
    assert run("secrets", "edit", "mail_relay/dkim").code == 2
    assert "note: restarts the cache" in run("secrets", "rotate", "cache/password").out


# --- exit codes and results ---


CHANGES = Plan(
    (
        Change("a", "base", "package", "nftables", "create"),
        Change("a", "base", "package", "ca-certificates", "create"),
        Change("a", "cache", "file", "/etc/valkey/valkey.conf", "change", "mode 0644, wanted 0640"),
    ),
    warnings=("no SMS carrier: messages wait in the spool",),
)


@pytest.mark.parametrize(
    ("found", "words", "code"),
    [(CHANGES, [], 0), (CHANGES, ["--exit-code"], 3), (Plan(), ["--exit-code"], 0)],
)
def test_plan(
    found: Plan, words: list[str], code: int, project: Path, run: Callable[..., Run], stub: Stub
) -> None:
    stub("plan", lambda request, sink: found)
    done = run("plan", "--provider", "rack", *words)
    assert done.code == code
    if found.empty:
        assert "No changes" in done.out
        return
    assert "  base   create  package  nftables ca-certificates\n" in done.out
    assert "  cache  change  file     /etc/valkey/valkey.conf  (mode 0644, wanted 0640)\n" in done.out
    assert "warning: no SMS carrier" in done.out
    assert done.out.endswith("3 changes on 1 machine: create 2, change 1.\n")


def test_plan_json(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    def plan(request: Any, sink: Any) -> Plan:
        sink(Event("notice", "looking"))
        return CHANGES

    stub("plan", plan)
    done = run("plan", "--provider", "rack", "--json")
    assert [line["kind"] for line in done.json] == ["notice", "result"]
    assert done.json[-1]["data"] == CHANGES.to_json()
    assert done.err == ""


def test_status(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    probes = [
        {
            "component": "proxy",
            "name": "https",
            "machine": "",
            "ok": False,
            "degrades": False,
            "detail": "refused",
        },
        {"component": "cache", "name": "ping", "machine": "a", "ok": True, "degrades": False, "detail": ""},
        {
            "component": "sms_gateway",
            "name": "bind",
            "machine": "a",
            "ok": False,
            "degrades": True,
            "detail": "off",
        },
    ]
    result = {
        "ok": False,
        "probes": probes,
        "machines": [{"name": "a", "address": "192.0.2.1", "roles": ["app", "mail"]}],
        "disks": [
            {
                "machine": "a",
                "mount": "/",
                "size": 40 << 30,
                "available": 7 << 30,
                "percent": 83,
                "inodes_percent": 4,
            }
        ],
        "problems": ["a: / is 83 % full"],
        "degraded": ["no smarthost"],
    }
    stub("status", lambda request, sink: result)
    done = run("status", "--provider", "rack")
    assert done.code == 1
    assert "1 of 3 green" in done.out
    assert "  red       proxy/https: refused\n" in done.out
    assert "  degraded  a: sms_gateway/bind: off\n" in done.out
    assert "  a     192.0.2.1  app, mail\n" in done.out
    assert "  a        /      83 %  7.0 GiB  40.0 GiB  4 %\n" in done.out
    assert "problem: a: / is 83 % full\n" in done.out
    assert done.out.splitlines()[-1].startswith("Not well")


def test_up_says_what_it_did(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    stub("up", lambda request, sink: UP | {"degraded": ["no SMS carrier"]})
    done = run("up", "--provider", "rack", "-y")
    assert done.code == 0
    assert "https://demo.example/" in done.out
    assert done.out.splitlines()[-2:] == [
        "Up, no change, in 1.2 s. Degraded: it serves, but something is missing:",
        "  no SMS carrier",
    ]


# --- failures ---


def failing(error: BaseException) -> Callable[..., Any]:
    def flow(request: Any, sink: Any) -> Any:
        raise error

    return flow


def test_an_error_says_where_why_and_what_next(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    error = DeployError(
        "starting caddy", "it did not start", "deploy logs proxy", machine="a", detail="line\nline 2"
    )
    stub("up", failing(error))
    done = run("up", "--provider", "rack", "--yes")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: starting caddy on a: it did not start\n  line\n  line 2\nnext: deploy logs proxy\n"
    )
    as_json = run("up", "--provider", "rack", "--yes", "--json")
    assert as_json.code == 1
    assert as_json.err == ""
    assert as_json.json[-1] == {"kind": "error", **error.to_json(), "exit_code": 1}


def test_debug_shows_where_an_error_arose(project: Path, run: Callable[..., Run], stub: Stub) -> None:
    stub("up", failing(LeaseError("taking the lease", "held by ann")))
    assert "Traceback" not in run("up", "--provider", "rack", "--yes").err
    assert "Traceback" in run("up", "--provider", "rack", "--yes", "--debug").err


@pytest.mark.parametrize(
    ("verb", "left"), [("up", "the next `deploy up` continues"), ("status", "Nothing was left")]
)
def test_ctrl_c(verb: str, left: str, project: Path, run: Callable[..., Run], stub: Stub) -> None:
    stub(verb, failing(KeyboardInterrupt()))
    done = run(verb, "--provider", "rack", *(["--yes"] if verb == "up" else []))
    assert (done.code, done.out) == (130, "")
    assert left in done.err


def test_a_bug_is_called_so_and_kept_without_secrets(
    project: Path, run: Callable[..., Run], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", "hunter2hunter2")
    made = "Zk3vT9xQpL2mN8rB5wY7cD4fG6hJ1aSe"
    stub("status", failing(ValueError(f"cannot parse {made} and hunter2hunter2 at /etc/deploy/stack.yaml")))
    done = run("status", "--provider", "rack")
    assert done.code == 1
    assert "bug of the toolkit" in done.err
    assert "--debug" in done.err
    (log,) = (project / ".deploy").glob("bug-*.log")
    assert str(log) in done.err
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert "ValueError: cannot parse *** and *** at /etc/deploy/stack.yaml" in text
    assert "test_cli.py" in text, "where it arose"
    assert made not in done.err + text
    assert "hunter2" not in done.err + text


def test_a_bug_without_a_project_is_kept_in_the_temporary_folder(
    tmp_path: Path, run: Callable[..., Run], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def version() -> dict[str, Any]:
        raise RuntimeError("oh")

    stub("version", version)
    assert run("version").code == 1
    (log,) = tmp_path.glob("deploy-*.log")
    assert log.stat().st_mode & 0o777 == 0o600


# --- completion ---


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef deploy"), ("fish", "complete --")]
)
def test_completion(shell: str, mark: str, run: Callable[..., Run]) -> None:
    done = run("completion", shell)
    assert mark in done.out
    assert f"deploy completion {shell} >" in done.out
    assert done.out.startswith("#compdef") == (shell == "zsh"), "zsh reads the first line only"
