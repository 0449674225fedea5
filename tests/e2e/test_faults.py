"""What breaks at a machine: told with machine, step and journal, and mended by the next `up`."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

from tests.e2e.operator import CHECKOUT
from tests.e2e.scratch import Scratch, nothing_to_do, pause_at, within

MACHINE = "scratch-all-1"


def test_drift_is_shown_and_mended(scratch: Scratch) -> None:
    """A file edited by hand, a service stopped, a port opened."""
    scratch.console(
        "echo '# by hand' >>/etc/valkey/valkey.conf"
        " && systemctl stop postfix.service"
        " && nft add rule inet deploy input tcp dport 9999 accept"
    )
    plan = scratch.operator.run("plan", "--exit-code")
    assert plan.code == 3
    found = {(change["kind"], change["name"]) for change in plan.result["changes"]}
    assert found >= {
        ("file", "/etc/valkey/valkey.conf"),
        ("unit", "postfix.service"),
        ("step", "firewall"),
    }, found
    scratch.mended()
    nothing_to_do(scratch.operator)
    assert "9999" not in scratch.console("nft list ruleset")
    scratch.console("! grep 'by hand' /etc/valkey/valkey.conf && systemctl is-active postfix.service")


# --- SSH ---


def test_without_ssh_it_waits_a_bounded_time(scratch: Scratch) -> None:
    scratch.console(
        "systemd-run --on-active=30 --timer-property=AccuracySec=100ms systemctl start ssh.service"
        " && systemctl stop ssh.service"
    )
    began = time.monotonic()
    told = scratch.broken()
    assert time.monotonic() - began < 35
    assert told["machine"] == MACHINE and told["what"] == "connecting", told
    assert "no SSH within 20 s" in told["why"] and "port 22" in told["next"], told
    # It comes back while this one waits.
    scratch.mended()


def test_another_host_key_stops_it(scratch: Scratch) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    scratch.console(
        f"mkdir /root/kept && mv {key} {key}.pub /root/kept/ && ssh-keygen -q -t ed25519 -N '' -f {key}"
        " && systemctl restart ssh.service"
    )
    try:
        told = scratch.broken()
        assert told["machine"] == MACHINE and "another SSH host key" in told["why"], told
        assert "do not go on before you know why" in told["next"], told
        assert scratch.operator.run("plan").code == 1
        assert scratch.operator.run("exec", "--", "true").code == 1
    finally:
        scratch.console("mv /root/kept/* /etc/ssh/ && rmdir /root/kept && systemctl restart ssh.service")
    scratch.mended()


# --- disk, packages, services ---


def test_a_full_disk(scratch: Scratch) -> None:
    scratch.console(
        "mount -t tmpfs -o size=8k tmpfs /etc/deploy/sms_gateway"
        " && head -c 8192 /dev/zero >/etc/deploy/sms_gateway/filler"
    )
    try:
        told = scratch.broken()
    finally:
        scratch.console("umount /etc/deploy/sms_gateway")
    assert told["machine"] == MACHINE and told["what"].startswith("files, step "), told
    assert "No space left on device" in told["detail"], told
    assert "cannot write /etc/deploy/sms_gateway/" in told["detail"], told
    scratch.mended()


def test_a_package_that_does_not_install(scratch: Scratch) -> None:
    """The project's own variant of the app asks for a package that Debian does not have."""
    app = scratch.folder / "templates/apps/matrix"
    shutil.copytree(CHECKOUT / "templates/apps/matrix", app)
    text = (app / "app.yaml").read_text()
    line = "{name: synapse, kind: python, lock: synapse.lock"
    assert line in text
    (app / "app.yaml").write_text(text.replace(line, line + ", packages: [no-such-package]"))
    try:
        told = scratch.broken()
    finally:
        shutil.rmtree(scratch.folder / "templates")
    assert told["machine"] == MACHINE and told["what"].startswith("packages and users, step "), told
    assert "Unable to locate package no-such-package" in told["detail"], told
    scratch.mended()


def test_a_service_that_does_not_start(scratch: Scratch) -> None:
    folder = scratch.folder / "templates/cache"
    folder.mkdir(parents=True)
    text = (CHECKOUT / "templates/cache/valkey.conf.j2").read_text()
    (folder / "valkey.conf.j2").write_text(text + "no-such-directive yes\n")
    try:
        told = scratch.broken()
    finally:
        shutil.rmtree(scratch.folder / "templates")
    assert told["machine"] == MACHINE and told["what"].startswith("start cache, step "), told
    # The service's own words, from its journal.
    assert "no-such-directive" in told["detail"], told
    scratch.mended()
    nothing_to_do(scratch.operator)


# --- Ctrl-C ---


@pytest.mark.parametrize("options", [("--json",), ("-v",)], ids=["json", "plain"])
def test_ctrl_c(scratch: Scratch, options: tuple[str, ...]) -> None:
    scratch.console("echo '# by hand' >>/etc/valkey/valkey.conf")
    process = scratch.operator.start("up", "--yes", options=options)
    stream = process.stdout if options == ("--json",) else process.stderr
    assert stream and process.stderr
    if options == ("--json",):
        pause_at(process, lambda event: event["kind"] == "stage" and event["text"] == "files")
    else:
        within(30, "stage", lambda: "files" in stream.readline())
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, (process.returncode, out, err)
    words = out if options == ("--json",) else err
    assert "the next `deploy up` continues from there" in words, (out, err)
    assert "Traceback" not in err
    # Nobody has to wait for the lease.
    assert scratch.console("cat /var/lib/deploy/lease.json 2>/dev/null || true") == ""
    scratch.mended()


def test_a_bad_file_that_was_loaded_is_replaced_in_what_runs_too(scratch: Scratch) -> None:
    """`up` with a project's change is killed after the service had read it; then the change is taken back."""
    folder = scratch.folder / "templates/cache"
    folder.mkdir(parents=True)
    text = (CHECKOUT / "templates/cache/valkey.conf.j2").read_text()
    (folder / "valkey.conf.j2").write_text(text + "maxclients 77\n")
    process = scratch.operator.start("up", "--yes")
    pause_at(
        process,
        lambda event: event["kind"] == "step" and "valkey" in event["text"] and event["status"] == "ok",
    )
    process.kill()
    process.communicate()
    shutil.rmtree(scratch.folder / "templates")
    asked = (
        "valkey-cli --no-auth-warning -a $(cut -d'\"' -f2 /etc/valkey/password.conf) config get maxclients"
    )
    assert "77" in scratch.console(asked)
    scratch.mended()
    assert "77" not in scratch.console(asked)
