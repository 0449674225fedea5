from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from deployer.core.errors import LeaseError
from deployer.core.machine import Deployment, Machine
from deployer.state import known_hosts, lease, machines, receipts
from deployer.state.files import write_atomically
from deployer.state.journal import Journal, intention
from deployer.state.lease import Lease, may_take
from deployer.state.lease_rule import decide
from deployer.state.lock import lock

DEPLOYMENT = Deployment("demo", "local")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- journal ---


def test_an_intent_is_pending_until_its_outcome(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    first = journal.intend("create_machine", "demo-all-1", type="cx22")
    second = journal.intend("create_machine", "demo-all-2")
    third = journal.intend("create_machine", "demo-all-3")
    journal.done(first, id="4711")
    journal.failed(third, "quota")
    again = Journal(tmp_path / "state")
    assert again.pending() == [second]
    assert [(intent.call, intent.name) for intent in again.pending()] == [("create_machine", "demo-all-2")]
    assert again.entries()[3]["result"] == {"id": "4711"}
    assert mode(journal.path) == 0o600
    assert mode(journal.path.parent) == 0o700


def test_a_torn_last_line_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = journal.intend("create_machine", "demo-all-1")
    with journal.path.open("ab") as stream:
        stream.write(b'{"intent": "abc", "call": "crea')
    assert Journal(tmp_path).pending() == [whole]
    later = Journal(tmp_path).intend("delete_machine", "demo-all-1", id="1")
    assert Journal(tmp_path).pending() == [whole, later]
    assert later.about == {"id": "1"}


def test_an_intention_with_an_error_stays_pending(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with intention(journal, "create_machine", "a") as result:
        assert len(journal.pending()) == 1
        result["id"] = "7"
    with pytest.raises(TimeoutError), intention(journal, "create_machine", "b"):
        raise TimeoutError
    assert [intent.name for intent in journal.pending()] == ["b"]


def test_a_killed_process_leaves_its_intent(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from deployer.state.journal import Journal\n"
        "Journal(Path(sys.argv[1])).intend('create_machine', 'demo-all-1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert [intent.name for intent in Journal(tmp_path).pending()] == ["demo-all-1"]


def test_the_journal_is_bounded_and_keeps_what_is_pending(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    lost = journal.intend("create_machine", "lost")
    lines = [json.dumps({"done": f"{n:012}", "at": "", "result": {"id": "x" * 80}}) for n in range(3000)]
    with journal.path.open("a") as stream:
        stream.write("\n".join(lines) + "\n")
    size = journal.path.stat().st_size
    shortened = Journal(tmp_path)
    assert shortened.pending() == [lost]
    assert journal.path.stat().st_size < size / 10
    assert shortened.entries()[-1]["done"] == "000000002999"


# --- lock ---


def test_a_second_run_is_refused_with_process_and_time(tmp_path: Path) -> None:
    with lock(tmp_path, "up"), pytest.raises(LeaseError) as caught, lock(tmp_path, "down"):
        pass
    text = str(caught.value)
    assert f"process {os.getpid()}" in text
    assert "`deploy up`" in text
    assert datetime.now(UTC).strftime("since %Y-%m-%dT%H") in text
    with lock(tmp_path, "down"):
        pass


def test_the_lock_remembers_the_leases_of_ended_processes(tmp_path: Path) -> None:
    with lock(tmp_path, "up") as first:
        assert first.ours == ()
    with lock(tmp_path, "up") as second:
        assert second.ours == (first.lease,)
    with lock(tmp_path, "up") as third:
        assert third.ours == (second.lease, first.lease)
    assert len({first.lease, second.lease, third.lease}) == 3


def test_the_lock_of_a_killed_process_is_free_and_its_lease_is_ours(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from deployer.state.lock import lock\n"
        "with lock(Path(sys.argv[1]), 'up') as held: print(held.lease, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    id = child.stdout.readline().strip()
    with pytest.raises(LeaseError, match=f"process {child.pid}"), lock(tmp_path, "up"):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with lock(tmp_path, "up") as held:
        assert held.ours == (id,)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lease": 3, "before": 4}', b"\xff\xfe"])
def test_an_unreadable_lock_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with lock(tmp_path, "up") as held:
        assert held.ours == ()


def test_a_folder_copied_elsewhere_does_not_own_the_leases(tmp_path: Path) -> None:
    with lock(tmp_path / "a", "up"):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "lock").write_bytes((tmp_path / "a" / "lock").read_bytes())
    with lock(tmp_path / "b", "up") as held:
        assert held.ours == ()


# --- lease ---

ANNA = {"id": "a1", "holder": "anna@laptop", "pid": 7, "taken": 1000.0, "expires": 1120.0, "seconds": 120}
BERT = {"id": "b1", "holder": "bert@desk", "pid": 9, "taken": 0, "expires": 0, "seconds": 120}


@pytest.mark.parametrize(
    ("existing", "wanted", "now", "ours", "granted", "why"),
    [
        (None, BERT, 1050, [], True, "nobody held it"),
        ({}, BERT, 1050, [], True, "nobody held it"),
        (
            ANNA,
            BERT,
            1050,
            [],
            False,
            "held by anna@laptop (process 7) since 1970-01-01 00:16:40 UTC; "
            "it expires in 70 s unless it is renewed",
        ),
        (ANNA, BERT, 1120, [], True, "the one of anna@laptop (process 7) expired 0 s ago"),
        (ANNA, BERT, 1180, [], True, "the one of anna@laptop (process 7) expired 60 s ago"),
        (ANNA, {**BERT, "id": "a1"}, 1050, [], True, "renewed"),
        (
            ANNA,
            BERT,
            1050,
            ["x", "a1"],
            True,
            "taken over from anna@laptop (process 7), which ran on this computer and ended",
        ),
        (
            ANNA,
            BERT,
            100,
            [],
            True,
            "the one of anna@laptop (process 7) was taken by a clock that has been set back since",
        ),
        ({"id": "a1"}, BERT, 1050, [], True, "what lay there was no lease"),
        ({**ANNA, "expires": "soon"}, BERT, 1050, [], True, "what lay there was no lease"),
    ],
)
def test_who_may_take_the_lease(
    existing: dict[str, object] | None,
    wanted: dict[str, object],
    now: float,
    ours: list[str],
    granted: bool,
    why: str,
) -> None:
    answer = decide(existing, wanted, now, ours)
    assert (answer["granted"], answer["why"]) == (granted, why)
    assert ("lease" in answer) == granted


def test_a_lease_lasts_from_now_and_a_renewal_keeps_its_beginning() -> None:
    assert decide(None, BERT, 5000, [])["lease"] == {**BERT, "taken": 5000, "expires": 5120}
    renewed = decide(ANNA, {**ANNA, "taken": 0, "expires": 0}, 1100, [])["lease"]
    assert renewed == {**ANNA, "taken": 1000.0, "expires": 1220}


def test_may_take_is_the_same_rule_in_our_own_words() -> None:
    anna, bert = Lease.from_json(ANNA), Lease.from_json(BERT)
    assert may_take(anna, bert, 1050) == (None, decide(ANNA, BERT, 1050, [])["why"])
    granted, why = may_take(anna, bert, 1050, ["a1"])
    assert granted == Lease("b1", "bert@desk", 9, 1050, 1170, 120)
    assert why.startswith("taken over")
    assert Lease.from_json(anna.to_json()) == anna


def test_the_rule_works_as_a_program_of_its_own() -> None:
    program = lease.rule_source() + f"\nprint(decide({ANNA!r}, {BERT!r}, 1050, [])['granted'])\n"
    run = subprocess.run(
        [sys.executable, "-I", "-"], input=program, capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"


def test_the_lease_that_is_asked_for_names_its_holder() -> None:
    asked = lease.wanted("c3")
    assert (asked.id, asked.pid, asked.seconds) == ("c3", os.getpid(), lease.SECONDS)
    assert "@" in asked.holder


# --- receipts ---


def test_receipts_are_written_and_listed_in_order(tmp_path: Path) -> None:
    noon = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    east = datetime(2026, 11, 24, 12, 30, tzinfo=timezone(timedelta(hours=1)))
    first = receipts.write(tmp_path, "up", DEPLOYMENT, {"seconds": 4}, noon)
    second = receipts.write(tmp_path, "up", DEPLOYMENT, {"seconds": 5}, noon)
    earlier = receipts.write(tmp_path, "restore", DEPLOYMENT, {}, east)
    assert first == tmp_path / "receipts" / "up-demo@local-20261124T120000Z.json"
    assert second.name == "up-demo@local-20261124T120000Z-2.json"
    (tmp_path / "receipts" / "notes.json").write_text("[1]")
    assert [receipt.path for receipt in receipts.read_all(tmp_path)] == [earlier, second, first]
    assert [receipt.body["seconds"] for receipt in receipts.read_all(tmp_path, "up")] == [5, 4]
    assert receipts.read_all(tmp_path)[0].at == east
    assert json.loads(first.read_text())["deployment"] == "demo@local"
    assert not list((tmp_path / "receipts").glob(".*"))


def test_no_receipts_is_no_error(tmp_path: Path) -> None:
    assert receipts.read_all(tmp_path) == []


# --- files, known_hosts, machines ---


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", set()
    write_atomically(path, "a" * 100_000)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            text = path.read_text()
            seen.add((text[0], len(text), len(set(text))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        write_atomically(path, "ab"[number % 2] * 100_000)
    done.set()
    reader.join()
    assert seen <= {("a", 100_000, 1), ("b", 100_000, 1)}
    assert mode(path) == 0o600
    with pytest.raises(FileExistsError):
        write_atomically(path, "c", replace=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample"


def test_known_hosts_are_exactly_those_given(tmp_path: Path) -> None:
    path = known_hosts.write(tmp_path, [("10.1.2.3", 22, KEY + " root@demo"), ("2001:db8::1", 2222, KEY)])
    assert path.read_text() == f"10.1.2.3 {KEY}\n[2001:db8::1]:2222 {KEY}\n"
    assert mode(path) == 0o600
    known_hosts.write(tmp_path, [("10.1.2.4", 22, KEY)])
    assert path.read_text() == f"10.1.2.4 {KEY}\n"


@pytest.mark.parametrize(
    ("address", "key"),
    [("", KEY), ("*", KEY), ("a,b", KEY), ("a b", KEY), ("a", "ssh-ed25519"), ("a", KEY + "\n* " + KEY)],
)
def test_a_known_host_is_one_host_with_one_key(address: str, key: str) -> None:
    with pytest.raises(ValueError, match="no "):
        known_hosts.line(address, 22, key)


def test_machines_are_remembered_and_may_be_lost(tmp_path: Path) -> None:
    machine = Machine("demo-all-1", "17", "running", "10.1.2.3", labels={"deploy-stack": "demo"})
    machines.save(tmp_path, [machine])
    assert machines.load(tmp_path) == [machine]
    (tmp_path / "machines.json").write_text('[{"nome": 1}]')
    assert machines.load(tmp_path) == []
    assert machines.load(tmp_path / "nowhere") == []
