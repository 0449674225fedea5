"""Provider aws when things go wrong at each of its calls: lost answers, killed processes, lists that are late.

A process is "killed" at a call by letting the server answer nothing from then on; the next one is a new provider.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from deployer.core.errors import DeployError
from deployer.core.machine import MachineSpec
from providers.aws import AwsProvider, account
from tests.providers.aws import DEPLOYMENT, NAME, NOTHING, ONE, counted, fake, make, server, spec
from tests.rig.aws.fake import FakeAws
from tests.rig.hetzner.faults import AFTER, BEFORE

__all__ = ["fake", "server"]

WITH_DATA = {**ONE, "volumes": 2}


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process does not try again."""
    monkeypatch.setattr(account, "ATTEMPTS", 1)


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every call with --all; else every seventh, which still meets each part of the work."""
    return 1 if request.config.getoption("--all") else 7


def killed(fake: FakeAws, at: int, when: str, work: Callable[[AwsProvider], object]) -> bool:
    """Let a process work until its call number `at`. False when it was done before."""
    fake.faults.clear()
    fake.calls.clear()
    dead = threading.Event()

    def die() -> None:
        dead.set()
        fake.faults.reset(when=BEFORE, times=None)

    fake.faults.kill(at, when, die)
    try:
        work(make(fake))
    except DeployError:
        assert dead.is_set()
    fake.faults.clear()
    return dead.is_set()


def create(provider: AwsProvider) -> object:
    return provider.create_machine(DEPLOYMENT, wanted())


def delete(provider: AwsProvider) -> object:
    return [provider.delete_machine(one) for one in provider.list_machines(DEPLOYMENT)]


def wanted() -> MachineSpec:
    return spec(volume=5)


@pytest.mark.parametrize("when", [BEFORE, AFTER])
class TestKilled:
    def test_create_is_continued_to_one_machine(
        self, fake: FakeAws, mortal: None, stride: int, when: str
    ) -> None:
        at = 0
        while killed(fake, at, when, create):
            made = make(fake).create_machine(DEPLOYMENT, wanted())
            assert counted(fake) == WITH_DATA, f"killed {when} call {fake.calls.all[:1]}"
            assert made.address and made.volume and made.status == "running"
            assert [one.id for one in make(fake).list_machines(DEPLOYMENT)] == [made.id]
            assert make(fake).drift(made, wanted()) == []
            fake.reset()
            at += stride
        print(f"create killed {when} {at // stride} of its calls")
        assert at > 20

    def test_create_is_taken_down_completely(
        self, fake: FakeAws, mortal: None, stride: int, when: str
    ) -> None:
        at = 0
        while killed(fake, at, when, create):
            delete(make(fake))
            make(fake).delete_data(DEPLOYMENT)
            assert counted(fake) == NOTHING, f"killed {when} call {at}"
            fake.reset()
            at += stride
        assert at > 20

    def test_delete_is_finished(self, fake: FakeAws, mortal: None, stride: int, when: str) -> None:
        at, alive = 0, True
        while alive:
            make(fake).create_machine(DEPLOYMENT, wanted())
            alive = killed(fake, at, when, delete)
            delete(make(fake))
            assert counted(fake) == {**NOTHING, "volumes": 1}, f"killed {when} call {at}"
            assert make(fake).list_machines(DEPLOYMENT) == []
            fake.reset()
            at += stride
        assert at > 8


class TestLostAnswers:
    @pytest.mark.parametrize("when", [BEFORE, AFTER])
    def test_one_lost_answer_anywhere_changes_nothing(self, fake: FakeAws, stride: int, when: str) -> None:
        make(fake).create_machine(DEPLOYMENT, wanted())
        calls = len(fake.calls)
        for at in range(1 if when == AFTER else 0, calls, stride * 2):
            fake.reset()
            fake.faults.reset(when=when, at=at)
            made = make(fake).create_machine(DEPLOYMENT, wanted())
            assert counted(fake) == WITH_DATA, f"{when} {fake.calls.all[at]}"
            assert made.status == "running"

    @pytest.mark.parametrize(
        "action",
        [
            "CreateVpc",
            "CreateSubnet",
            "CreateInternetGateway",
            "AttachInternetGateway",
            "CreateRoute",
            "CreateSecurityGroup",
            "AuthorizeSecurityGroupIngress",
            "CreateNetworkInterface",
            "AllocateAddress",
            "AssociateAddress",
            "RunInstances",
        ],
    )
    def test_an_internal_error_after_the_work_was_done(self, fake: FakeAws, action: str) -> None:
        fake.faults.error(500, "InternalError", path=action, when=AFTER)
        made = make(fake).create_machine(DEPLOYMENT, wanted())
        assert counted(fake) == WITH_DATA
        assert make(fake).drift(made, wanted()) == []


class TestTokens:
    def test_a_token_that_was_used_with_something_else_gives_the_machine_of_then(
        self, fake: FakeAws, mortal: None
    ) -> None:
        run = calls_until(fake, "RunInstances")
        assert killed(fake, run, AFTER, create)
        # An operator's key was added meanwhile; and the list does not show the instance yet.
        changed = spec(volume=5, ssh_keys=("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"))
        hidden = hide(fake)
        timer = threading.Timer(1.0, hidden)
        timer.start()
        made = make(fake).create_machine(DEPLOYMENT, changed)
        timer.join()
        assert counted(fake) == WITH_DATA
        assert [one.id for one in make(fake).list_machines(DEPLOYMENT)] == [made.id]

    def test_another_machine_of_that_name_is_another_one(self, fake: FakeAws) -> None:
        first = make(fake).create_machine(DEPLOYMENT, spec())
        make(fake).delete_machine(first)
        second = make(fake).create_machine(DEPLOYMENT, spec())
        assert second.id != first.id


def calls_until(fake: FakeAws, action: str) -> int:
    """Index of the first such call of `create`."""
    make(fake).create_machine(DEPLOYMENT, wanted())
    index = next(call.index for call in fake.calls.all if call.path == action)
    fake.reset()
    return index


def hide(fake: FakeAws) -> Callable[[], None]:
    """Instances are not listed until the returned function is called."""
    backend = fake.backend()
    kept = dict(backend.reservations)
    backend.reservations.clear()
    return lambda: backend.reservations.update(kept)


class TestLateLists:
    @pytest.mark.parametrize(
        "kind", ["vpc", "subnet", "gateway", "group", "interface", "address", "instance", ""]
    )
    def test_what_is_new_is_not_listed_at_first(self, fake: FakeAws, kind: str) -> None:
        fake.faults.lag[kind] = 0.3
        made = make(fake).create_machine(DEPLOYMENT, wanted())
        assert counted(fake) == WITH_DATA
        assert made.name == NAME and made.id.startswith("i-") and made.address
        fake.faults.clear()
        assert make(fake).create_machine(DEPLOYMENT, wanted()).id == made.id
        assert counted(fake) == WITH_DATA

    def test_killed_while_the_lists_are_late_heals(self, fake: FakeAws, mortal: None, stride: int) -> None:
        """Whatever was made twice, because its first one was not shown, is one again after the next run."""
        at = 0
        while True:
            fake.faults.lag[""] = 0.3
            alive = killed_late(fake, at)
            make(fake).create_machine(DEPLOYMENT, wanted())
            assert counted(fake)["instances"] == 1, at
            fake.faults.clear()
            make(fake).create_machine(DEPLOYMENT, wanted())
            heal(fake)
            assert counted(fake) == WITH_DATA, f"killed at call {at}"
            fake.reset()
            if not alive:
                break
            at += stride if stride == 1 else stride * 2
        assert at > 20

    def test_killed_while_the_lists_are_late_goes_away(self, fake: FakeAws, mortal: None) -> None:
        for action in ("CreateVpc", "AllocateAddress", "RunInstances"):
            index = calls_until(fake, action)
            fake.faults.lag[""] = 0.3
            assert killed_late(fake, index)
            make(fake).create_machine(DEPLOYMENT, wanted())
            fake.faults.clear()
            delete(make(fake))
            make(fake).delete_data(DEPLOYMENT)
            assert counted(fake) == NOTHING, action
            fake.reset()


def killed_late(fake: FakeAws, at: int) -> bool:
    lag = dict(fake.faults.lag)
    fake.calls.clear()
    dead = threading.Event()

    def die() -> None:
        dead.set()
        fake.faults.reset(when=BEFORE, times=None)

    fake.faults.kill(at, AFTER, die)
    try:
        create(make(fake))
    except DeployError:
        assert dead.is_set()
    fake.faults.clear()
    fake.faults.lag.update(lag)
    return dead.is_set()


def heal(fake: FakeAws) -> None:
    """What another `up` does for a machine that exists: it looks, and mends."""
    provider = make(fake)
    (machine,) = provider.list_machines(DEPLOYMENT)
    provider.mend(machine, wanted())
