"""What is read and written in passing: positions, settings, rsync's lines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.components.moving.programs import load

postgres, copies, sending = load("postgres"), load("copies"), load("sending")
Failure = load("ground").Failure
CONTROL = """\
pg_control version number:            1700
Database system identifier:           7550000000000000001
Database cluster state:               shut down
Latest checkpoint location:           1/A0000028
Latest checkpoint's REDO location:    1/A0000028
max_connections setting:              200
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
"""
CONFIG: dict[str, Any] = {
    "machines": [{"name": "old/m", "address": "10.1.2.3", "port": 2222, "lead": True}],
    "copies": [
        {"name": "mail queue", "kind": "files", "where": "/var/spool/postfix", "peer": "old/m"},
        {"name": "spool", "kind": "sqlite", "where": "/var/lib/sms-gateway/spool.db", "peer": "old/m"},
        {"name": "pictures", "kind": "files", "where": "/srv/my pictures/", "peer": "old/m"},
        {"name": "marks", "kind": "marks", "where": "/var/lib/deploy/app/notes", "peer": "old/m"},
    ],
}


def test_positions() -> None:
    assert postgres.lsn("1/A0000028") == (1 << 32) + 0xA0000028
    assert postgres.lsn("0/FFFFFFFF") < postgres.lsn("1/0")
    for text in ("", "12", "x/y"):
        with pytest.raises(ValueError):
            postgres.lsn(text)


def test_pg_controldata() -> None:
    found = postgres.parse_control(CONTROL)
    assert (found["state"], found["checkpoint"]) == ("shut down", "1/A0000028")
    assert found["settings"]["max_connections"] == 200
    assert found["settings"]["max_prepared_transactions"] == 0
    with pytest.raises(ValueError, match="cluster state"):
        postgres.parse_control("nothing")


def test_settings_above_all_others() -> None:
    text = "# kept\nprimary_conninfo = 'host=a'\nwork_mem = '4MB'\nSynchronous_Standby_Names = 'x'\n"
    new = postgres.edit(text, {"primary_conninfo": "host=b password=it's", "synchronous_standby_names": None})
    assert new == "# kept\nwork_mem = '4MB'\nprimary_conninfo = 'host=b password=it''s'\n"
    assert postgres.edit(new, {"primary_conninfo": None}) == "# kept\nwork_mem = '4MB'\n"


def test_what_of_a_folder_is_copied() -> None:
    queue, spool, pictures, marks = (sending.plan(item) for item in CONFIG["copies"])
    assert queue[0] == "/var/spool/postfix" and queue[1][-1] == "--exclude=*"
    assert "--include=/deferred/***" in queue[1] and not any(
        "private" in rule or "pid" in rule for rule in queue[1]
    )
    assert spool == (
        "/var/lib/sms-gateway",
        ["--include=/spool.db", "--include=/spool.db-wal", "--include=/spool.db-shm",
         "--include=/spool.db-journal", "--exclude=*"],
    )  # fmt: skip
    assert pictures == ("/srv/my pictures", [])
    assert marks[1] == ["--include=/migrated/***", "--include=/once/***", "--exclude=*"]
    with pytest.raises(Failure):
        sending.plan({"name": "x", "kind": "postgres", "where": "/x", "peer": "old/m"})


SENDER = [
    "rsync",
    "--server",
    "--sender",
    "-logDtpHAXre.iLsfxCIvu",
    "--modify-window=-1",
    "--timeout=60",
    ".",
]


def test_a_list_comes_by_the_connection() -> None:
    words = [*SENDER[:-1], "--ignore-missing-args", "--files-from=-", "--from0", ".", "/srv/my pictures/"]
    assert sending.server(CONFIG, words) == words


@pytest.mark.parametrize("path", ["/var/spool/postfix/", "/var/lib/sms-gateway/", "/srv/my pictures/"])
def test_a_peer_may_fetch_the_copies(path: str) -> None:
    assert sending.server(CONFIG, [*SENDER, path])[-1] == path


@pytest.mark.parametrize(
    "words",
    [
        [*SENDER, "/etc/"],
        [*SENDER, "/var/spool/postfix"],
        [*SENDER, "/var/spool/postfix/../../etc/"],
        [*SENDER, "/var/spool/postfix/", "/etc/"],
        SENDER,
        ["rsync", "--server", "-logDtpr", ".", "/var/spool/postfix/"],
        ["rsync", "--server", "--sender", "--remove-source-files", ".", "/var/spool/postfix/"],
        ["rsync", "--server", "--sender", "--log-file=/etc/x", ".", "/var/spool/postfix/"],
        ["rsync", "--server", "--sender", "--files-from=/etc/shadow", ".", "/var/spool/postfix/"],
        ["rsync", "--server", "--sender", "-e", "sh", ".", "/var/spool/postfix/"],
        ["rsync", "--daemon", "--sender", "-a", ".", "/var/spool/postfix/"],
        ["rsync", "-e", "sh", "/var/spool/postfix/", "x:/"],
    ],
)
def test_and_nothing_else(words: list[str]) -> None:
    with pytest.raises(Failure):
        sending.server(CONFIG, words)


def test_rsyncs_words() -> None:
    assert copies.received("Total bytes sent: 12\nTotal bytes received: 3456\n") == 3456
    assert copies.received("") == 0
    line = copies.line(CONFIG, CONFIG["copies"][1], True)
    assert "--checksum" in line and line[-2:] == [
        "root@10.1.2.3:/var/lib/sms-gateway/",
        "/var/lib/sms-gateway/",
    ]
    shell = line[line.index("-e") + 1]
    assert "StrictHostKeyChecking=yes" in shell and "-p 2222" in shell and "root@" not in shell
    assert "--checksum" not in copies.line(CONFIG, CONFIG["copies"][2], True)
    assert "--files-from=-" in copies.line(CONFIG, CONFIG["copies"][2], True, listed=True)
