"""Provider local with real machines: the contract, killed processes, the network and what `down` leaves."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, Machine, MachineSpec
from providers import local
from providers.local import LocalProvider, cache, forwarding, host, processes
from providers.local.records import Record
from providers.local.settings import Settings
from tests.providers.conftest import DEPLOYMENT
from tests.providers.contract import HOST, LOGIN, ProviderContract, shell, wait_for_port

ROOT = Path(__file__).resolve().parents[2]
Options = Mapping[str, object]


def spec(name: str) -> MachineSpec:
    return MachineSpec(
        name, ("app",), ssh_keys=(LOGIN.public,), host_key=HOST.private, host_key_public=HOST.public
    )


def folder(options: Options, name: str = "trial-all-1") -> Path:
    return Path(str(options["state_dir"])) / "machines" / name


def assert_nothing_left(options: Options) -> None:
    """No machine, bridge, mount, rule, process or group."""
    state = Path(str(options["state_dir"]))
    assert not host.mounts_below(state)
    assert not list((state / "machines").glob("[!.]*"))
    assert not Path("/sys/class/net/dprov0").exists()
    tables = host.run("listing", ["nft", "list", "tables"])
    assert "deploy_local_dprov0" not in tables
    if "deploy_local_" not in tables:
        assert not forwarding.FORMER.exists()
    assert not processes.runs(folder(options))
    group = processes.control_group("trial-all-1", local.make(options, DEPLOYMENT).settings)
    assert group is None or not group.exists()


class TestLocal(ProviderContract):
    @pytest.fixture
    def provider(self, options: Options) -> LocalProvider:
        return local.make(options, DEPLOYMENT)


@pytest.fixture(scope="class")
def pair(options: Options) -> Iterator[list[Machine]]:
    """Two machines for the tests of a class. Deleting them at its end leaves nothing."""
    before = forwarding.SWITCH.read_text(encoding="ascii")
    alone = not forwarding.FORMER.exists()
    provider = local.make(options, DEPLOYMENT)
    machines = [provider.create_machine(DEPLOYMENT, spec(f"trial-app-{number}")) for number in (1, 2)]
    for machine in machines:
        wait_for_port(machine.address)
    yield machines
    provider.delete_machine(machines[0])
    assert Path("/sys/class/net/dprov0").exists(), "the bridge stays while a machine is on it"
    provider.delete_machine(machines[1])
    assert_nothing_left(options)
    if alone and not forwarding.FORMER.exists():
        assert forwarding.SWITCH.read_text(encoding="ascii") == before


class TestNetwork:
    def test_ipv6_answers(self, pair: list[Machine]) -> None:
        socket.create_connection((pair[0].address6, 22), timeout=5).close()

    def test_machines_reach_each_other_on_every_port(self, pair: list[Machine]) -> None:
        for address in (pair[1].address, pair[1].address6):
            status, text = shell(pair[0], f"timeout 5 bash -c '</dev/tcp/{address}/22'")
            assert status == 0, text

    def test_the_web_is_reached(self, pair: list[Machine]) -> None:
        mirror = r"$(grep -rhom 1 'https\?://[^ ]*' /etc/apt/sources.list* | head -n 1)"
        status, text = shell(pair[0], f"curl -sS -m 20 -o /dev/null {mirror}/")
        assert status == 0, text

    def test_mail_is_refused_at_once(self, pair: list[Machine]) -> None:
        status, text = shell(pair[0], "time timeout 5 bash -c '</dev/tcp/192.0.2.1/25'")
        assert status == 1
        assert "refused" in text

    def test_only_the_given_host_key_is_offered(self, pair: list[Machine]) -> None:
        status, text = shell(pair[0], "sshd -T | grep '^hostkey '; ls /etc/ssh/ssh_host_*")
        assert status == 0
        assert text.split() == [
            "hostkey",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/ssh/ssh_host_ed25519_key.pub",
        ]

    def test_each_machine_has_an_id_and_a_control_group_of_its_own(self, pair: list[Machine]) -> None:
        ids = {shell(machine, "cat /etc/machine-id")[1].strip() for machine in pair}
        assert len(ids) == 2
        for machine in pair:
            # In a shared group, systemd of one machine would see processes that it cannot name.
            status, text = shell(machine, "grep -rlx 0 /sys/fs/cgroup --include=cgroup.procs")
            assert (status, text) == (1, "")

    def test_nothing_failed_at_boot(self, pair: list[Machine]) -> None:
        assert shell(pair[0], "systemctl is-system-running --wait") == (0, "running\n")

    def test_a_reboot_inside_comes_back(self, options: Options, pair: list[Machine]) -> None:
        before = shell(pair[0], "echo kept >/root/note; sync; cat /proc/sys/kernel/random/boot_id")[1]
        leader = processes.leader(folder(options, pair[0].name))
        shell(pair[0], "systemctl reboot")
        wait_until_changed(options, pair[0].name, leader)
        status, text = shell(pair[0], "cat /root/note /proc/sys/kernel/random/boot_id")
        assert (status, text.splitlines()[0]) == (0, "kept")
        assert before.strip() not in text

    def test_a_stopped_machine_is_started_with_its_disk(self, options: Options, pair: list[Machine]) -> None:
        provider = local.make(options, DEPLOYMENT)
        assert shell(pair[1], "echo kept >/root/note")[0] == 0
        provider.stop_machine(pair[1])
        assert {m.name: m.status for m in provider.list_machines(DEPLOYMENT)} == {
            "trial-app-1": "running",
            "trial-app-2": "stopped",
        }
        assert provider.create_machine(DEPLOYMENT, spec("trial-app-2")) == pair[1]
        assert shell(pair[1], "cat /root/note") == (0, "kept\n")

    def test_a_machine_of_another_deployment_is_left_alone(
        self, options: Options, pair: list[Machine]
    ) -> None:
        other = Deployment("other", "contract")
        foreign = local.make(options, other)
        with pytest.raises(DeployError, match="belongs to"):
            foreign.create_machine(other, spec(pair[0].name))
        with pytest.raises(DeployError, match="belongs to"):
            foreign.delete_machine(pair[0])
        assert shell(pair[0], "true")[0] == 0


def wait_until_changed(options: Options, name: str, leader: int) -> None:
    import time

    deadline = time.monotonic() + 40
    while processes.leader(folder(options, name)) in (0, leader):
        assert time.monotonic() < deadline, "the machine did not come back within 40 s"
        time.sleep(0.1)


# Runs a method of the provider in a process that is killed (-9) just before its Nth step that others can see:
# a program started, a file renamed or removed. It needs no hook in the product.
VICTIM = """
import json, os, signal, sys
task = json.load(sys.stdin)
sys.path.insert(0, task["root"])
from deployer.core.machine import Deployment, MachineSpec
from providers import local
deployment = Deployment(*task["deployment"])
provider = local.make(task["options"], deployment)
machines = provider.list_machines(deployment)
left = task["steps"]
def count(event, arguments):
    global left
    if event in ("subprocess.Popen", "os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
if task["method"] == "create":
    provider.create_machine(deployment, MachineSpec(**task["spec"]))
else:
    for machine in machines:
        provider.delete_machine(machine)
"""


def run_and_kill(options: Options, method: str, steps: int) -> bool:
    """Whether it was killed; False when it was done before."""
    wanted = spec("trial-all-1")
    task = {
        "root": str(ROOT),
        "options": dict(options),
        "deployment": [DEPLOYMENT.stack, DEPLOYMENT.inventory],
        "method": method,
        "steps": steps,
        "spec": {
            "name": wanted.name,
            "roles": wanted.roles,
            "ssh_keys": wanted.ssh_keys,
            "host_key": wanted.host_key,
            "host_key_public": wanted.host_key_public,
        },
    }
    done = subprocess.run(
        [sys.executable, "-c", VICTIM], input=json.dumps(task).encode(), timeout=60, check=False
    )
    assert done.returncode in (0, -9)
    return done.returncode == -9


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every step with --all; else every third one, which still meets each part of the work."""
    return 1 if request.config.getoption("--all") else 3


class TestKilled:
    def test_create_killed_at_any_step_is_continued_to_one_machine(
        self, options: Options, stride: int
    ) -> None:
        provider = local.make(options, DEPLOYMENT)
        steps = 1
        while run_and_kill(options, "create", steps):
            machine = provider.create_machine(DEPLOYMENT, spec("trial-all-1"))
            assert machine.host_key_public == HOST.public
            assert list(provider.list_machines(DEPLOYMENT)) == [machine]
            programs = list(processes.find(folder(options)).values())
            assert programs.count("systemd-nspawn") == 1, f"killed at step {steps}: {programs}"
            assert len(host.mounts_below(folder(options))) == 1
            provider.delete_machine(machine)
            assert_nothing_left(options)
            steps += stride
        assert steps > 10
        assert shell(provider.list_machines(DEPLOYMENT)[0], "true")[0] == 0

    def test_create_killed_at_any_step_is_taken_down_completely(self, options: Options, stride: int) -> None:
        provider = local.make(options, DEPLOYMENT)
        for machine in provider.list_machines(DEPLOYMENT):
            provider.delete_machine(machine)
        steps = 1
        while run_and_kill(options, "create", steps):
            for machine in provider.list_machines(DEPLOYMENT):
                provider.delete_machine(machine)
            assert_nothing_left(options)
            steps += stride
        assert steps > 10

    def test_delete_killed_at_any_step_is_finished(self, options: Options, stride: int) -> None:
        provider = local.make(options, DEPLOYMENT)
        steps = 1
        killed = True
        while killed:
            provider.create_machine(DEPLOYMENT, spec("trial-all-1"))
            killed = run_and_kill(options, "delete", steps)
            for machine in provider.list_machines(DEPLOYMENT):
                provider.delete_machine(machine)
            assert_nothing_left(options)
            steps += stride
        assert steps > 5


def test_the_base_image_belongs_to_no_machine(options: Options) -> None:
    from providers.local import image

    base = image.path(local.make(options, DEPLOYMENT).settings, image.recipe())
    assert not list(base.glob("etc/ssh/ssh_host_*"))
    assert (base / "etc/machine-id").read_text(encoding="ascii") == ""
    assert not (base / "etc/hostname").exists()


def test_a_killed_build_leaves_nothing_that_the_next_one_uses(options: Options, tmp_path: Path) -> None:
    from providers.local import image

    settings = Settings(shared_dir=tmp_path)
    wanted = image.recipe()
    target = image.path(settings, wanted)
    half = target.with_name(f"building-{wanted.name}")
    # The builder mounts this computer's own folders there, and a killed one leaves them mounted.
    (half / "proc").mkdir(parents=True)
    host.run("mounting", ["mount", "-t", "proc", "proc", str(half / "proc")])
    old = target.with_name("debian-13-0000000000")
    old.mkdir()
    kept = target.with_name("debian-13-1111111111")
    kept.mkdir()
    target.mkdir()
    assert image.build(settings, wanted, frozenset({kept})) == target
    assert not half.exists()
    assert not old.exists()
    assert kept.exists()


def test_a_layer_lies_over_the_base_image(options: Options, tmp_path: Path) -> None:
    (tmp_path / "layer" / "etc").mkdir(parents=True)
    (tmp_path / "layer" / "etc" / "note").write_text("from the layer\n", encoding="utf-8")
    provider = local.make({**options, "layer": str(tmp_path / "layer")}, DEPLOYMENT)
    machine = provider.create_machine(DEPLOYMENT, spec("trial-all-1"))
    assert shell(machine, "cat /etc/note; echo mine >/etc/note") == (0, "from the layer\n")
    provider.delete_machine(machine)
    assert (tmp_path / "layer" / "etc" / "note").read_text(encoding="utf-8") == "from the layer\n"


def test_images_of_other_instances_are_in_use(options: Options, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    base = local.make({**options, "shared_dir": str(shared)}, DEPLOYMENT)
    other = local.make(
        {**options, "shared_dir": str(shared), "state_dir": str(tmp_path / "other")}, DEPLOYMENT
    )
    other._register()
    other._records.save(Record("trial-all-1", {}, "10.216.0.10", "", lower=["/kept"]))
    assert base._layers_in_use() == {Path("/kept")}


def test_packages_of_one_machine_are_there_for_the_next(tmp_path: Path) -> None:
    settings = Settings(shared_dir=tmp_path / "shared")
    first, second = tmp_path / "first", tmp_path / "second"
    (first / cache.ARCHIVES / "partial").mkdir(parents=True)
    (first / cache.ARCHIVES / "one.deb").write_bytes(b"one")
    (first / cache.ARCHIVES / "partial" / "half.deb").write_bytes(b"h")
    for _ in range(2):
        cache.collect(settings, first)
        cache.fill(settings, second)
    assert [path.name for path in (second / cache.ARCHIVES).iterdir()] == ["one.deb"]
    assert (second / cache.ARCHIVES / "one.deb").read_bytes() == b"one"


def test_a_cache_that_is_too_large_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(shared_dir=tmp_path)
    for folder in (cache.packages(settings), cache.uv(settings)):
        folder.mkdir(parents=True)
        (folder / "one.deb").write_bytes(b"one")
    cache.bound(settings, idle=True)
    assert (cache.packages(settings) / "one.deb").exists()
    monkeypatch.setattr(cache, "APT_LIMIT", 2)
    monkeypatch.setattr(cache, "UV_LIMIT", 2)
    cache.bound(settings, idle=False)
    assert not cache.packages(settings).exists()
    assert cache.uv(settings).exists(), "a machine that runs may be using it"
    cache.bound(settings, idle=True)
    assert not cache.uv(settings).exists()


def test_machines_made_at_the_same_time_have_addresses_of_their_own(options: Options) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def make(name: str) -> Machine:
        return local.make(options, DEPLOYMENT).create_machine(DEPLOYMENT, spec(name))

    # One name twice: two operators, or a run beside the one that was thought to be dead.
    names = ["trial-a-1", "trial-b-1", "trial-c-1", "trial-a-1"]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, names))
        assert made[0] == made[3]
        assert len({machine.address for machine in made}) == 3
        assert len(list(processes.find(folder(options, "trial-a-1")))) <= 2
        list(pool.map(local.make(options, DEPLOYMENT).delete_machine, made[:3]))
    assert_nothing_left(options)
