"""Provider local, without root: options, rules, files and commands as values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import pytest

from deployer.core.errors import DeployError, InputError
from deployer.core.machine import Deployment, MachineSpec
from providers import local
from providers.local import forwarding, image, mirror, network, processes, seed
from providers.local.records import Record, Records, lowest_free
from providers.local.settings import Reach, Settings, parse

DEPLOYMENT = Deployment("demo", "local")


def record(**changes: object) -> Record:
    values: dict[str, object] = {
        "name": "demo-all-1",
        "labels": DEPLOYMENT.labels(),
        "address": "10.213.0.10",
        "address6": "fd00::a",
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


class TestOptions:
    def test_defaults(self) -> None:
        settings = parse({})
        assert settings.bridge == "deploy0"
        assert settings.subnet == IPv4Network("10.213.0.0/24")
        assert settings.gateway == IPv4Address("10.213.0.1")
        assert settings.state_dir == Path("/var/lib/deploy-local")

    def test_what_a_flow_tells_every_provider_is_accepted(self) -> None:
        provider = local.make({"trust_first": False, "machines": [{"name": "demo-all-1"}]}, DEPLOYMENT)
        assert provider.settings == parse({})

    def test_the_ipv6_network_is_a_unique_local_one_of_the_bridge(self) -> None:
        first, again, other = parse({}).subnet6, parse({}).subnet6, parse({"bridge": "deploy1"}).subnet6
        assert first == again != other
        assert first.prefixlen == 64
        assert first.network_address.packed[0] == 0xFD

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"brigde": "deploy0"}, "brigde"),
            ({"bridge": "a-name-that-is-too-long"}, "bridge"),
            ({"bridge": 'x" accept'}, "bridge"),
            ({"bridge": 7}, "bridge"),
            ({"subnet": "10.213.0.1/24"}, "subnet"),
            ({"subnet": "8.8.8.0/24"}, "subnet"),
            ({"subnet": "10.0.0.0/8"}, "subnet"),
            ({"subnet6": "2001:db9::/64"}, "subnet6"),
            ({"subnet6": "fd00::/48"}, "subnet6"),
            ({"state_dir": "relative"}, "state_dir"),
            ({"state_dir": "/with,comma"}, "state_dir"),
            ({"layer": ["/a:b"]}, "layer"),
            ({"layer": [1]}, "layer"),
            ({"nameservers": "dns.example"}, "nameservers"),
            ({"reach": "tcp/0@192.0.2.1"}, "reach"),
            ({"reach": "tcp/25@mail.example"}, "reach"),
            ({"nesting": "yes"}, "nesting"),
        ],
    )
    def test_a_wrong_one_is_named(self, options: dict[str, object], key: str) -> None:
        with pytest.raises(InputError, match=f"{key}:"):
            parse(options)


class TestAddresses:
    def test_the_lowest_free_one_is_taken(self) -> None:
        settings = Settings()
        assert lowest_free(settings, []) == 10
        assert lowest_free(settings, ["10.213.0.10", "10.213.0.12"]) == 11

    def test_a_full_subnet_is_an_error(self) -> None:
        settings = parse({"subnet": "10.9.9.0/27"})
        taken = [str(address) for address in settings.subnet.hosts()]
        with pytest.raises(DeployError, match="taken"):
            lowest_free(settings, taken)


class TestRecords:
    def test_a_record_is_read_back(self, tmp_path: Path) -> None:
        records = Records(Settings(state_dir=tmp_path))
        records.save(record(lower=["/base"]))
        assert records.load("demo-all-1") == record(lower=["/base"])
        assert records.all() == [record(lower=["/base"])]

    def test_a_folder_without_a_record_is_no_machine(self, tmp_path: Path) -> None:
        records = Records(Settings(state_dir=tmp_path))
        records.of("demo-all-1").mkdir(parents=True)
        # What a process that was killed while writing leaves.
        (records.folder / ".demo-all-1.json.new").write_text("{", encoding="utf-8")
        assert records.load("demo-all-1") is None
        assert records.all() == []

    def test_a_broken_record_is_named(self, tmp_path: Path) -> None:
        records = Records(Settings(state_dir=tmp_path))
        records.folder.mkdir()
        records.path("demo-all-1").write_text("{", encoding="utf-8")
        with pytest.raises(DeployError, match=r"demo-all-1\.json"):
            records.all()


class TestRules:
    def test_only_dns_and_web_get_out(self) -> None:
        rules = network.ruleset(Settings())
        assert 'ip saddr 10.213.0.0/24 oifname != "deploy0" masquerade' in rules
        accepted = [line.strip() for line in rules.splitlines() if line.strip().endswith("accept")]
        assert accepted == [
            'iifname "deploy0" oifname "deploy0" accept',
            'oifname "deploy0" ct state established,related accept',
            'iifname "deploy0" udp dport 53 accept',
            'iifname "deploy0" tcp dport { 53, 80, 443 } accept',
        ]
        assert rules.rstrip().splitlines()[-3].strip() == 'iifname "deploy0" reject'

    def test_a_further_destination_is_one_address_and_one_port(self) -> None:
        rules = network.ruleset(Settings(), [Reach("tcp", 3128, IPv4Address("192.0.2.7"))])
        assert 'iifname "deploy0" ip daddr 192.0.2.7 tcp dport 3128 accept' in rules

    def test_two_bridges_have_two_tables(self) -> None:
        assert Settings(bridge="my-br.1").table == "deploy_local_my_br_1"

    def test_an_exception_names_its_bridge_in_both_directions(self) -> None:
        assert [rule[:3] for rule in forwarding.exceptions("deploy0")] == [
            ["FORWARD", "-i", "deploy0"],
            ["FORWARD", "-o", "deploy0"],
        ]

    def test_a_bridge_is_known_by_its_hardware_address(self) -> None:
        assert network.hardware("deploy0") == network.hardware("deploy0") != network.hardware("deploy1")
        assert network.hardware("deploy0").startswith("02:")


class TestMirror:
    def test_lines(self) -> None:
        text = (
            "# deb http://commented.example/debian trixie main\n"
            "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian/ trixie main contrib\n"
            "deb-src http://src.example/debian trixie main\n"
            "deb http://sec.example/debian-security trixie-security main\n"
        )
        found = mirror.choose(mirror.parse_lines(text), "trixie")
        assert found == mirror.Mirror("http://mirror.example/debian", "http://sec.example/debian-security")

    def test_stanzas(self) -> None:
        text = (
            "Types: deb\nURIs: https://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
            "Components: main\nSigned-By: /k.gpg\n\n"
            "Types: deb\nURIs: https://off.example/debian-security\nSuites: bookworm-security\n"
            "Components: main\nEnabled: no\n"
        )
        assert mirror.parse_stanzas(text) == [
            ("bookworm", "https://mirror.example/debian"),
            ("bookworm-updates", "https://mirror.example/debian"),
        ]

    def test_archives_of_other_vendors_are_left_out(self) -> None:
        assert mirror.choose([("trixie", "https://packages.example/node")], "trixie") is None

    def test_a_mirror_without_security_updates_is_not_enough(self) -> None:
        assert mirror.choose([("trixie", "https://mirror.example/debian")], "trixie") is None

    def test_the_way_to_a_proxy_is_opened(self) -> None:
        lines = [
            'Acquire::http::Proxy "http://192.0.2.8:3142/";',
            'Acquire::http::Proxy::own.example "DIRECT";',
        ]
        assert mirror.proxy_ways(lines) == (Reach("tcp", 3142, IPv4Address("192.0.2.8")),)


class TestImage:
    MIRROR = mirror.Mirror("http://mirror.example/debian", "http://mirror.example/debian-security")

    def test_another_recipe_is_another_image(self) -> None:
        first = image.Recipe(self.MIRROR, (), {})
        assert first.name == image.Recipe(self.MIRROR, (), {}).name
        assert first.name != image.Recipe(self.MIRROR, (), {"own.crt": "PEM"}).name
        assert first.name.startswith("debian-13-")

    def test_the_command(self) -> None:
        wanted = image.Recipe(self.MIRROR, ('Acquire::http::Proxy "http://p:1";',), {})
        command = image.builder(wanted, Path("/state/base/new"))
        assert command[0] == "mmdebstrap"
        assert '--aptopt=Acquire::http::Proxy "http://p:1";' in command
        assert "deb http://mirror.example/debian-security trixie-security main" in command

    def test_without_a_mirror_of_this_computer_mmdebstrap_chooses(self) -> None:
        assert image.builder(image.Recipe(None, (), {}), Path("/state/base/new"))[-2:] == [
            "trixie",
            "/state/base/new",
        ]


class TestSeed:
    SPEC = MachineSpec("demo-all-1", ("app",), ssh_keys=("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two\n"))

    def test_files(self) -> None:
        files = seed.files(record(), self.SPEC, Settings(), "nameserver 192.0.2.53\n")
        assert files["root/.ssh/authorized_keys"] == ("ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n", 0o600)
        assert files["etc/resolv.conf"][0] == "nameserver 192.0.2.53\n"
        network_file = files["etc/systemd/network/10-host0.network"][0]
        assert "Address=10.213.0.10/24" in network_file
        assert "Gateway=10.213.0.1\n" in network_file
        assert "Address=fd00::a/64" in network_file

    def test_the_host_key_is_written_for_root_alone(self, tmp_path: Path) -> None:
        from tests.providers.contract import HOST

        spec = MachineSpec("demo-all-1", ("app",), host_key=HOST.private)
        settings = Settings(nameservers=("192.0.2.53",))
        for _ in range(2):
            assert seed.write(tmp_path, record(), spec, settings) == HOST.public
        assert (tmp_path / seed.HOST_KEY).stat().st_mode & 0o777 == 0o600

    def test_a_link_in_the_way_is_replaced_not_followed(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("untouched", encoding="utf-8")
        root = tmp_path / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc/resolv.conf").symlink_to(outside)
        seed.write(root, record(), self.SPEC, Settings(nameservers=("192.0.2.53",)))
        assert outside.read_text(encoding="utf-8") == "untouched"

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            (
                "# made by x\nnameserver 192.0.2.53\nsearch example.org\n",
                ["nameserver 192.0.2.53", "search example.org"],
            ),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.53\n", ["nameserver 192.0.2.53"]),
            ("nameserver fe80::1%eth0\nnameserver 192.0.2.53\n", ["nameserver 192.0.2.53"]),
            ("nameserver 127.0.0.53\noptions edns0\n", []),
            ("nameserver ::1\n", []),
            ("", []),
        ],
    )
    def test_resolvers_that_a_machine_does_not_reach_are_left_out(self, text: str, kept: list[str]) -> None:
        assert seed.reachable(text) == kept


class TestProcess:
    def test_the_command(self) -> None:
        command = processes.nspawn(
            "demo-all-1", Path("/state/machines/demo-all-1"), Settings(), nesting=False
        )
        assert command[0] == "systemd-nspawn"
        assert "--directory=/state/machines/demo-all-1/root" in command
        assert "--machine=demo-all-1.deploy0" in command
        assert "--network-bridge=deploy0" in command
        assert "--capability=all" not in command

    def test_nesting_adds_what_containers_need(self) -> None:
        command = processes.nspawn("m", Path("/m"), Settings(), nesting=True)
        assert "--capability=all" in command
        assert "--bind=/m/containers:/var/lib/containers" in command

    def test_a_machine_that_was_never_started_does_not_run(self, tmp_path: Path) -> None:
        assert not processes.runs(tmp_path)
        assert processes.leader(tmp_path) == 0

    @pytest.mark.parametrize("ended", [FileNotFoundError, ProcessLookupError])
    def test_one_that_ends_while_it_is_looked_at_does_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: type[OSError]
    ) -> None:
        """The kernel answers ENOENT before /proc/PID/comm is open, and ESRCH after it."""

        def read_text(path: Path, **_: object) -> str:
            raise ended(path)

        monkeypatch.setattr(processes, "find", lambda _: {1: "systemd-nspawn"})
        monkeypatch.setattr(Path, "read_text", read_text)
        assert processes.leader(tmp_path) == 0


def test_this_computer_is_the_only_offer(tmp_path: Path) -> None:
    (offer,) = local.make({"state_dir": str(tmp_path)}, DEPLOYMENT).offers()
    assert offer.name == "this-computer"
    assert offer.price == 0


def test_without_root_the_operator_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(DeployError, match="sudo bin/deploy") as caught:
        local.make({}, DEPLOYMENT).check()
    assert caught.value.exit_code == 1


def test_the_default_networks_are_private() -> None:
    assert ip_address(str(Settings().gateway)).is_private
