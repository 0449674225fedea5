"""What doctor asks with: the program for mail machines, DNS, and the verb's words."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from deployer.cli.main import main
from deployer.components.mail_relay import outlook
from deployer.core.errors import DeployError
from deployer.probes.names import Resolver, Server, ask_authority, door

PROGRAM = Path(outlook.__file__).parent / "service" / "outlook.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("outlook_program", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- on the mail machine ---


def listener(greeting: bytes) -> socket.socket:
    """A server on loopback that says one thing to one caller."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        caller, _ = server.accept()
        with caller:
            caller.sendall(greeting)
            caller.recv(100)

    threading.Thread(target=serve, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("greeting", "ok"),
    [(b"220 mx ESMTP\r\n", True), (b"554 not you\r\n", True), (b"HTTP/1.1 403\r\n", False)],
)
def test_a_greeting_makes_port_25_open(program: ModuleType, greeting: bytes, ok: bool) -> None:
    with listener(greeting) as server:
        assert program.greet("127.0.0.1", server.getsockname()[1])[0] is ok


def test_a_refusal_is_told(program: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert program.greet("127.0.0.1", port) == (False, "connection refused")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(socket.EAI_NONAME, []), (-5, []), (socket.EAI_AGAIN, None), (socket.EAI_FAIL, None)],
)
def test_no_such_name_is_not_no_answer(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, error: int, expected: list[str] | None
) -> None:
    def lookup(*arguments: Any) -> Any:
        raise socket.gaierror(error, "words")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert program.look_up("7.2.0.192.bl.example.net") == expected


def test_the_script_answers_what_parse_reads_and_in_time() -> None:
    script = outlook.script(["127.0.0.1"], [], 3)
    done = subprocess.run(
        ["bash", "-s"], input=script, capture_output=True, text=True, timeout=20, check=True
    )
    seen = outlook.parse(done.stdout)
    # Whatever listens at port 25 here: there is an answer.
    assert set(seen.servers) == {"127.0.0.1"} and seen.names == {}


def test_names_without_answer_are_told_from_names_that_are_not_there() -> None:
    text = json.dumps(
        {"servers": {"mx": [True, "220"]}, "names": {"a": None, "b": [], "c": ["127.0.0.2"]}, "helo": "m"}
    )
    seen = outlook.parse(f"noise\n{text}\n")
    assert seen == outlook.Outlook({"mx": (True, "220")}, {"a": None, "b": (), "c": ("127.0.0.2",)}, "m")


@pytest.mark.parametrize("text", ["", "bash: python3: not found", "{}", "[]"])
def test_other_answers_are_an_error(text: str) -> None:
    with pytest.raises(DeployError) as caught:
        outlook.parse(text, "m1")
    assert caught.value.machine == "m1"


# --- DNS ---

RECORDS = {
    ("demo.test.", "SOA"): "ns.demo.test. root.demo.test. 1 60 60 60 1",
    ("demo.test.", "NS"): "ns.demo.test.",
    ("ns.demo.test.", "A"): "127.0.0.1",
    ("demo.test.", "A"): "192.0.2.7",
    ("7.2.0.192.in-addr.arpa.", "PTR"): "mail.demo.test.",
}


@pytest.fixture
def authority() -> Iterator[int]:
    """A name server on loopback; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    data, caller = server.recvfrom(512)
                except TimeoutError:
                    continue
                server.sendto(respond(data), caller)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()


def respond(data: bytes) -> bytes:
    query = dns.message.from_wire(data)
    answer = dns.message.make_response(query)
    question = query.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    if name == "refused.test.":
        answer.set_rcode(dns.rcode.REFUSED)
    elif name != "lame.test.":
        answer.flags |= dns.flags.AA
    if name == "www.demo.test.":
        answer.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", "demo.test."))
    elif value := RECORDS.get((name, kind)):
        answer.answer.append(dns.rrset.from_text(name, 300, "IN", kind, value))
    elif not any(known == name for known, _ in RECORDS):
        answer.set_rcode(answer.rcode() or dns.rcode.NXDOMAIN)
    return answer.to_wire()


@pytest.mark.parametrize(
    ("name", "type", "values", "why"),
    [
        ("demo.test", "A", ("192.0.2.7",), ""),
        ("demo.test", "AAAA", (), ""),
        ("absent.test", "A", (), ""),
        ("www.demo.test", "A", ("CNAME demo.test.",), ""),
        ("refused.test", "A", (), "it answers REFUSED"),
    ],
)
def test_asking_an_authority(authority: int, name: str, type: str, values: tuple[str, ...], why: str) -> None:
    answer = ask_authority(Server("ns", f"127.0.0.1:{authority}"), name, type)
    assert (answer.values, answer.why) == (values, why)
    assert answer.ttl == (300 if values else 0)


def test_a_server_that_is_none_or_does_not_answer() -> None:
    assert "no address" in ask_authority(Server("ns", ""), "demo.test", "A").why
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        answer = ask_authority(Server("ns", f"127.0.0.1:{mute.getsockname()[1]}"), "demo.test", "A")
    assert answer.why.startswith("no answer")


@pytest.fixture
def resolver(authority: int) -> Resolver:
    made = Resolver(["127.0.0.1"])
    made._resolver.port = authority
    return made


def test_the_way_from_a_name_to_its_authorities(resolver: Resolver) -> None:
    assert resolver.zone("sms.demo.test").values == ("demo.test",)
    assert resolver.authorities("demo.test") == [Server("ns.demo.test", "127.0.0.1")]
    assert resolver.zone("absent.test").values == ()
    assert resolver.reverse("192.0.2.7").values == ("mail.demo.test.",)
    assert resolver.zone("refused.test").why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_addresses_with_and_without_port(text: str, expected: tuple[str, int]) -> None:
    assert door(text) == expected


# --- the verb ---


def finding(status: str, next: str = "") -> dict[str, str]:
    return {
        "id": "x",
        "status": status,
        "what": f"what {status}",
        "where": "m1",
        "found": "seen",
        "next": next,
    }


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    (tmp_path / "stack.yaml").write_text("name: demo\n")

    def run(*words: str, findings: list[dict[str, str]]) -> tuple[object, str]:
        made = ModuleType("deployer.flow.doctor")
        failed = sum(one["status"] == "fail" for one in findings)
        counts = {
            status: sum(one["status"] == status for one in findings)
            for status in ("fail", "warn", "ok", "skipped")
        }
        result = {"ok": not failed, "counts": counts, "findings": findings, "seconds": 1.5}
        made.doctor = lambda request, sink: result  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, made.__name__, made)
        with pytest.raises(SystemExit) as ended:
            main(["--project", str(tmp_path), *words, "doctor", "--provider", "local"])
        return ended.value.code, capsys.readouterr().out

    return run


def test_failures_come_last_with_what_to_do(verb: Any) -> None:
    code, out = verb(
        findings=[finding("fail", "mend it"), finding("ok"), finding("warn", "think"), finding("skipped")]
    )
    assert code == 1
    lines = out.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == [
        "Skipped",
        "Good",
        "Warnings",
        "Failed",
        "1 failed, 1 good, 1 to think about, 1 skipped, in 1.5 s.",
    ]
    assert lines[lines.index("Failed") + 2] == "    next: mend it"
    assert "\x1b" not in out


def test_warnings_alone_fail_nothing(verb: Any) -> None:
    code, out = verb(findings=[finding("warn", "think")])
    assert code == 0 and out.splitlines()[-1] == "Nothing failed: 0 good, 1 to think about, in 1.5 s."


def test_json(verb: Any) -> None:
    code, out = verb("--json", findings=[finding("fail", "mend it")])
    last = json.loads(out.splitlines()[-1])
    assert code == 1 and last["kind"] == "result" and last["data"]["findings"][0]["next"] == "mend it"
