"""What every provider of machines promises (deployer.core.provider), as tests.

A provider's own test file inherits from ProviderContract and gives the fixture `provider`, and where its vendor differs
`spec` and `deployment`; every machine that a test makes is deleted after it. A vendor whose API the rig answers gives three
more, for what goes wrong: `broken_off`, `lost_part` and `refusals`. Without them those tests are skipped.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import paramiko
import pytest

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Concurrent, Keeping, Listing, Provider


@dataclass(frozen=True)
class KeyPair:
    """An OpenSSH ed25519 key: private text, and "ssh-ed25519 AAAA..."."""

    private: str
    public: str


def make_key() -> KeyPair:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    encoding = serialization.Encoding
    private = key.private_bytes(
        encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return KeyPair(private, public)


LOGIN = make_key()
HOST = make_key()


def wait_for_port(address: str, port: int = 22, timeout: float = 30) -> None:
    """Wait until something listens there; raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} port {port} did not answer within {timeout:.0f} s") from None
            time.sleep(0.1)


def shell(machine: Machine, script: str, timeout: float = 30) -> tuple[int, str]:
    """Run a script as root by SSH, the host key checked; gives exit status and output."""
    import io

    wait_for_port(machine.address, machine.ssh_port)
    client = paramiko.SSHClient()
    kind, blob = machine.host_key_public.split()[:2]
    where = machine.address if machine.ssh_port == 22 else f"[{machine.address}]:{machine.ssh_port}"
    client.get_host_keys().add(where, kind, paramiko.PKey.from_type_string(kind, _bytes(blob)))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(LOGIN.private))
    try:
        client.connect(
            machine.address,
            machine.ssh_port,
            machine.ssh_user,
            pkey=key,
            allow_agent=False,
            look_for_keys=False,
            timeout=timeout,
        )
        _, output, _ = client.exec_command(f"{{ {script}\n}} 2>&1", timeout=timeout)
        text = output.read().decode()
        return output.channel.recv_exit_status(), text
    finally:
        client.close()


def data_outlives_the_machine(
    provider: Provider,
    deployment: Deployment,
    spec: MachineSpec,
    beside: Callable[[Machine], None] = lambda machine: None,
) -> list[str]:
    """What lies on the data volume is there again after the machine was deleted and made anew, and the first boot was
    without fault. beside: more to look at while the first machine is there. Gives what delete_data says at the end."""
    assert isinstance(provider, Keeping)
    first = provider.create_machine(deployment, spec)
    assert shell(first, "mountpoint /srv/data && echo kept >/srv/data/note; sync")[0] == 0
    addresses = {
        one.partition("/")[0] for one in shell(first, "ip -br address show host0")[1].split() if "/" in one
    }
    assert {first.private_address, first.address6} <= addresses
    beside(first)
    provider.delete_machine(first)
    second = provider.create_machine(deployment, spec)
    assert second.id != first.id and second.volume
    assert shell(second, "cat /srv/data/note") == (0, "kept\n")
    # What cloud-init itself says of the boot: no error, nor a key that it did not know.
    assert shell(second, "cloud-init status --wait --long; cloud-init schema --system 2>&1 || true")[0] == 0
    provider.delete_machine(second)
    return list(provider.delete_data(deployment))


def _bytes(blob: str) -> bytes:
    import base64

    return base64.b64decode(blob)


class ProviderContract:
    """Inherit from it as `class TestVendor(ProviderContract)` and give the three fixtures."""

    @pytest.fixture
    def provider(self) -> Provider:
        raise NotImplementedError

    @pytest.fixture
    def deployment(self) -> Deployment:
        return Deployment("trial", "contract")

    @pytest.fixture
    def spec(self) -> MachineSpec:
        return MachineSpec(
            name="trial-all-1",
            roles=("app", "database", "mail", "sms"),
            ssh_keys=(f"{LOGIN.public} tests",),
            host_key=HOST.private,
            host_key_public=HOST.public,
        )

    @pytest.fixture
    def broken_off(self) -> Callable[[int], AbstractContextManager[object]]:
        """broken_off(n): within it, the vendor's n-th call from now on (from 0) fails for good; a test may find that there
        is no such call. The provider itself must not try that one again."""
        pytest.skip("nothing here makes a creation fail half-way")

    @pytest.fixture
    def lost_part(self) -> Callable[[Machine], None]:
        """Take away at the vendor what create_machine made besides the machine, as far as the vendor lets one."""
        pytest.skip("a machine of this provider has no parts that can be lost")

    @pytest.fixture
    def refusals(self) -> Mapping[type[DeployError], AbstractContextManager[object]]:
        """Error -> a context within which the vendor refuses so that create_machine raises it."""
        pytest.skip("this provider has no vendor that refuses")

    @pytest.fixture(autouse=True)
    def clean(self, provider: Provider, deployment: Deployment) -> Iterator[None]:
        yield
        for machine in provider.list_machines(deployment):
            provider.delete_machine(machine)

    def test_check_passes_and_makes_nothing(self, provider: Provider, deployment: Deployment) -> None:
        before = list(provider.list_machines(deployment))
        provider.check()
        assert list(provider.list_machines(deployment)) == before

    def test_a_machine_is_reached_with_the_key_we_gave_it_and_made_once(
        self, provider: Provider, deployment: Deployment, spec: MachineSpec
    ) -> None:
        made = provider.create_machine(deployment, spec)
        assert made.name == spec.name
        assert made.status in ("running", "starting")
        assert made.host_key_public == spec.host_key_public
        status, text = shell(made, "id -u; cat /etc/ssh/ssh_host_ed25519_key.pub; hostname")
        assert status == 0
        assert text.splitlines()[0] == "0"
        assert spec.host_key_public in text
        assert text.splitlines()[-1] == spec.name

        again = provider.create_machine(deployment, spec)
        assert (again.id, again.address) == (made.id, made.address)
        assert [machine.id for machine in provider.list_machines(deployment)] == [made.id]

    def test_machines_are_made_side_by_side(
        self, provider: Provider, deployment: Deployment, spec: MachineSpec
    ) -> None:
        """Each once, and what they share once."""
        if not isinstance(provider, Concurrent):
            pytest.skip("machines of this provider are made one by one")
        specs = [spec, replace(spec, name=f"{spec.name}b")]
        with ThreadPoolExecutor(len(specs)) as pool:
            made = list(pool.map(lambda one: provider.create_machine(deployment, one), specs))
        assert [machine.name for machine in made] == [one.name for one in specs]
        assert {machine.id for machine in provider.list_machines(deployment)} == {one.id for one in made}
        if isinstance(provider, Listing):
            found = Counter(
                (one.kind, one.name) for one in provider.resources() if one.deployment == deployment
            )
            assert set(found.values()) == {1}, found

    def test_machines_are_told_apart_by_their_labels(
        self, provider: Provider, deployment: Deployment, spec: MachineSpec
    ) -> None:
        made = provider.create_machine(deployment, spec)
        for key, value in deployment.labels().items():
            assert made.labels[key] == value
        assert not list(provider.list_machines(Deployment(deployment.stack, "another")))
        assert not list(provider.list_machines(Deployment("another", deployment.inventory)))

    def test_a_deleted_machine_is_gone_and_deleting_it_again_is_no_error(
        self, provider: Provider, deployment: Deployment, spec: MachineSpec
    ) -> None:
        made = provider.create_machine(deployment, spec)
        provider.delete_machine(made)
        assert not list(provider.list_machines(deployment))
        provider.delete_machine(made)

    # --- what goes wrong ---

    def test_what_a_failed_creation_left_is_listed_continued_or_deleted(
        self,
        provider: Provider,
        deployment: Deployment,
        spec: MachineSpec,
        broken_off: Callable[[int], AbstractContextManager[object]],
    ) -> None:
        """Broken off at some calls in the middle: it is found by list_machines, or there is nothing of it."""
        for number in (1, 4, 9, 14):
            try:
                with broken_off(number):
                    provider.create_machine(deployment, spec)
            except DeployError:
                pass
            left = list(provider.list_machines(deployment))
            assert [machine.name for machine in left] in ([], [spec.name])
            made = provider.create_machine(deployment, spec)
            assert [machine.id for machine in provider.list_machines(deployment)] == [made.id]
            for machine in left:
                # As `down` would with the list it had: the machine has a number by now.
                provider.delete_machine(machine)
                assert not list(provider.list_machines(deployment))
            provider.delete_machine(made)

    def test_a_machine_with_missing_parts_is_deleted(
        self,
        provider: Provider,
        deployment: Deployment,
        spec: MachineSpec,
        lost_part: Callable[[Machine], None],
    ) -> None:
        made = provider.create_machine(deployment, spec)
        lost_part(made)
        assert [machine.name for machine in provider.list_machines(deployment)] == [made.name]
        provider.delete_machine(made)
        assert not list(provider.list_machines(deployment))

    def test_what_the_vendor_refuses_is_said_as_our_error(
        self,
        provider: Provider,
        deployment: Deployment,
        spec: MachineSpec,
        refusals: Mapping[type[DeployError], AbstractContextManager[object]],
    ) -> None:
        assert {CredentialError, QuotaError} <= set(refusals)
        for kind, refusing in refusals.items():
            with refusing, pytest.raises(kind) as caught:
                provider.create_machine(deployment, spec)
            assert type(caught.value) is kind
            # The vendor's own words or code, and what to do.
            assert caught.value.why
            assert caught.value.next

    def test_roles_and_name_are_labels(
        self, provider: Provider, deployment: Deployment, spec: MachineSpec
    ) -> None:
        made = provider.create_machine(deployment, spec)
        if set(made.labels) == set(deployment.labels()):
            pytest.skip("this provider keeps the deployment's labels only")
        assert made.labels["deploy-machine"] == spec.name
        assert "deploy-roles" in made.labels
        (listed,) = provider.list_machines(deployment)
        assert listed.labels == made.labels

    def test_offers_come_cheapest_first(self, provider: Provider) -> None:
        prices = [offer.price for offer in provider.offers()]
        assert prices == sorted(prices)
        assert all(offer.cores > 0 and offer.memory > 0 and offer.disk > 0 for offer in provider.offers())
