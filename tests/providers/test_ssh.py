"""Provider ssh: options and keys as values; adopting with a real machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deployer.core.errors import InputError, UnreachableError
from deployer.core.machine import Deployment, Machine, MachineSpec
from providers import local, ssh
from tests.providers.conftest import DEPLOYMENT
from tests.providers.contract import HOST, LOGIN, make_key, wait_for_port

BARE = Deployment("trial", "baremetal")
OTHER = make_key()


def provider(*, trust_first: bool = False, adopted: Path | None = None, **entry: object) -> ssh.SshProvider:
    machine = {"name": "trial-all-1", "address": "192.0.2.10", **entry}
    options: dict[str, object] = {"machines": [machine], "trust_first": trust_first}
    if adopted:
        options["adopted"] = str(adopted)
    return ssh.make(options, BARE)


class TestOptions:
    @pytest.mark.parametrize(
        ("entry", "key"),
        [
            ({"address": "one.example"}, "address"),
            ({"address": 7}, "address"),
            ({"address6": "192.0.2.1"}, "address6"),
            ({"private_address": "x"}, "private_address"),
            ({"port": "22"}, "port"),
            ({"port": 0}, "port"),
            ({"port": True}, "port"),
            ({"user": "root; reboot"}, "user"),
            ({"host_key": "ssh-ed25519"}, "host_key"),
            ({"host_key": "ssh-ed25519 bm90IGEga2V5"}, "host_key"),
            ({"host_key": "SHA256:short"}, "host_key"),
            ({"host_key": "MD5:00"}, "host_key"),
        ],
    )
    def test_a_wrong_one_is_named_with_its_machine(self, entry: dict[str, object], key: str) -> None:
        with pytest.raises(InputError, match=f"on trial-all-1: {key}:"):
            provider(**entry)

    def test_the_address_is_needed(self) -> None:
        with pytest.raises(InputError, match="address: is missing"):
            ssh.make({"machines": [{"name": "one"}]}, BARE)

    def test_an_unknown_one_is_named(self) -> None:
        with pytest.raises(InputError, match="region:"):
            ssh.make({"region": "x"}, BARE)


class TestKeys:
    def test_the_fingerprint_is_that_of_ssh_keygen(self) -> None:
        # ssh-keygen -lf of GitHub's published host key, docs.github.com "GitHub's SSH key fingerprints"
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
        assert ssh.fingerprint(key) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"

    def test_a_key_matches_itself_with_another_comment_and_its_fingerprint(self) -> None:
        assert ssh.matches(HOST.public, f"{HOST.public} root@somewhere")
        assert ssh.matches(HOST.public, ssh.fingerprint(HOST.public))
        assert not ssh.matches(HOST.public, OTHER.public)
        assert not ssh.matches("", HOST.public)


class TestListing:
    def test_a_machine_with_a_whole_key_is_there_without_asking_it(self) -> None:
        (machine,) = provider(host_key=HOST.public, user="admin", port=2222).list_machines(BARE)
        assert machine.status == "running"
        assert (machine.address, machine.ssh_user, machine.ssh_port) == ("192.0.2.10", "admin", 2222)
        assert machine.host_key_public == HOST.public
        assert machine.labels == BARE.labels()

    def test_a_machine_whose_key_is_not_known_must_be_adopted_first(self) -> None:
        assert provider().list_machines(BARE) == []
        assert provider(host_key=ssh.fingerprint(HOST.public)).list_machines(BARE) == []

    def test_a_remembered_key_that_the_inventory_contradicts_does_not_count(self, tmp_path: Path) -> None:
        adopted = tmp_path / "hosts"
        adopted.write_text(f"# head\ntrial-all-1 {HOST.public}\n", encoding="utf-8")
        assert len(provider(adopted=adopted).list_machines(BARE)) == 1
        good, bad = ssh.fingerprint(HOST.public), ssh.fingerprint(OTHER.public)
        assert len(provider(adopted=adopted, host_key=good).list_machines(BARE)) == 1
        assert provider(adopted=adopted, host_key=bad).list_machines(BARE) == []

    def test_another_deployment_has_no_machine_here(self) -> None:
        assert provider(host_key=HOST.public).list_machines(Deployment("trial", "other")) == []

    def test_it_offers_nothing_and_deletes_nothing(self) -> None:
        made = provider(host_key=HOST.public)
        (machine,) = made.list_machines(BARE)
        made.check()
        made.delete_machine(machine)
        assert made.offers() == []
        assert list(made.list_machines(BARE)) == [machine]


class TestAdopting:
    """Against the real sshd of a local machine."""

    SPEC = MachineSpec("trial-all-1", ("app",))

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls, options: Mapping[str, object]) -> Iterator[Machine]:
        vendor = local.make(options, DEPLOYMENT)
        spec = MachineSpec("trial-ssh-1", ("app",), ssh_keys=(LOGIN.public,), host_key=HOST.private)
        made = vendor.create_machine(DEPLOYMENT, spec)
        wait_for_port(made.address)
        yield made
        vendor.delete_machine(made)

    def test_the_whole_key_is_compared(self, machine: Machine) -> None:
        found = provider(address=machine.address, host_key=HOST.public).create_machine(BARE, self.SPEC)
        assert found.host_key_public == HOST.public
        assert found.address == machine.address

    def test_the_key_behind_a_fingerprint_is_found_and_remembered(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        entry = {"address": machine.address, "host_key": ssh.fingerprint(HOST.public)}
        adopted = tmp_path / "project" / "hosts"
        made = provider(adopted=adopted, **entry).create_machine(BARE, self.SPEC)
        assert made.host_key_public == HOST.public
        assert provider(adopted=adopted, **entry).list_machines(BARE) == [made]

    @pytest.mark.parametrize("pinned", [OTHER.public, ssh.fingerprint(OTHER.public)])
    def test_a_wrong_key_is_refused_with_both_fingerprints(self, machine: Machine, pinned: str) -> None:
        wrong = provider(address=machine.address, host_key=pinned, trust_first=True)
        with pytest.raises(UnreachableError) as caught:
            wrong.create_machine(BARE, self.SPEC)
        assert ssh.fingerprint(HOST.public) in str(caught.value)
        assert ssh.fingerprint(OTHER.public) in str(caught.value)

    def test_an_unknown_key_is_believed_only_when_told(self, machine: Machine, tmp_path: Path) -> None:
        adopted = tmp_path / "hosts"
        with pytest.raises(UnreachableError, match="--trust-first") as caught:
            provider(address=machine.address, adopted=adopted).create_machine(BARE, self.SPEC)
        assert ssh.fingerprint(HOST.public) in str(caught.value)
        assert not adopted.exists()

        believing = provider(address=machine.address, adopted=adopted, trust_first=True)
        assert believing.create_machine(BARE, self.SPEC).host_key_public == HOST.public
        # From then on without being told.
        assert provider(address=machine.address, adopted=adopted).create_machine(BARE, self.SPEC)

    def test_a_key_once_believed_is_not_replaced(self, machine: Machine, tmp_path: Path) -> None:
        adopted = tmp_path / "hosts"
        adopted.write_text(f"trial-all-1 {OTHER.public}\n", encoding="utf-8")
        with pytest.raises(UnreachableError, match="expected is"):
            provider(address=machine.address, adopted=adopted, trust_first=True).create_machine(
                BARE, self.SPEC
            )


def test_a_machine_that_is_off_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        off = provider(address="127.0.0.1", port=port, host_key=HOST.public)
        with pytest.raises(UnreachableError, match=r"on trial-all-1: 127\.0\.0\.1 port") as caught:
            off.create_machine(BARE, TestAdopting.SPEC)
    assert "sshd runs" in caught.value.next


def test_something_else_on_the_port_is_named() -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        other = provider(address="127.0.0.1", port=server.getsockname()[1], host_key=HOST.public)
        with pytest.raises(UnreachableError, match="does not speak SSH"):
            other.create_machine(BARE, TestAdopting.SPEC)
        thread.join(5)
