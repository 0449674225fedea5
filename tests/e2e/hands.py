"""What somebody does by hand in a vendor's console, and what stands there: by the vendors' own clients."""

from __future__ import annotations

import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.rig.aws.fake import CREDENTIALS, REGION, FakeAws
from tests.rig.hetzner import FakeHetzner
from tests.rig.world import NUMBER

OPENED = 8448
SSH = 22


class Hand(ABC):
    """At the machine `name` of one vendor. rules: ports that its firewall lets in."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def id(self) -> str: ...

    @abstractmethod
    def ports(self) -> set[int]: ...

    @abstractmethod
    def open_port(self) -> None: ...

    @abstractmethod
    def close_ssh(self) -> None: ...

    @abstractmethod
    def labels(self) -> dict[str, str]: ...

    @abstractmethod
    def unlabel(self) -> None:
        """Take the stack's label off the machine."""

    @abstractmethod
    def reverse(self) -> str: ...

    @abstractmethod
    def rename(self, name: str) -> None:
        """Give the machine's address another reverse name."""


class AtHetzner(Hand):
    def __init__(self, name: str, fake: FakeHetzner) -> None:
        super().__init__(name)
        self._fake = fake

    def _client(self) -> Any:
        import hcloud

        return hcloud.Client(self._fake.token, api_endpoint=self._fake.endpoint, poll_interval=0.1)  # type: ignore[arg-type]

    def _server(self) -> Any:
        return self._client().servers.get_by_name(self.name)

    def _wall(self) -> Any:
        return self._client().firewalls.get_all()[0]

    def id(self) -> str:
        return str(self._server().id)

    def ports(self) -> set[int]:
        return {int(rule.port) for rule in self._wall().rules if rule.port}

    def open_port(self) -> None:
        from hcloud.firewalls import FirewallRule

        wall = self._wall()
        rule = FirewallRule("in", "tcp", ["0.0.0.0/0"], port=str(OPENED))
        wall.set_rules([*wall.rules, rule])

    def close_ssh(self) -> None:
        wall = self._wall()
        wall.set_rules([rule for rule in wall.rules if rule.port != str(SSH)])

    def labels(self) -> dict[str, str]:
        return dict(self._server().labels)

    def unlabel(self) -> None:
        server = self._server()
        server.update(labels={key: value for key, value in server.labels.items() if key != "deploy-stack"})

    def reverse(self) -> str:
        return str(self._server().public_net.ipv4.dns_ptr)

    def rename(self, name: str) -> None:
        server = self._server()
        server.change_dns_ptr(server.public_net.ipv4.ip, name)


class AtAmazon(Hand):
    def __init__(self, name: str, fake: FakeAws) -> None:
        super().__init__(name)
        self._endpoint = fake.endpoint

    def _client(self) -> Any:
        import boto3

        keys = {key.lower(): value for key, value in CREDENTIALS.items()}
        return boto3.client("ec2", region_name=REGION, endpoint_url=self._endpoint, **keys)

    def _instance(self) -> Any:
        alive = {"Name": "instance-state-name", "Values": ["running"]}
        found = self._client().describe_instances(Filters=[alive])["Reservations"]
        return next(one for group in found for one in group["Instances"])

    def _group(self) -> Any:
        named = [{"Name": "group-name", "Values": [f"deploy-{self.name}"]}]
        return self._client().describe_security_groups(Filters=named)["SecurityGroups"][0]

    def id(self) -> str:
        return str(self._instance()["InstanceId"])

    def ports(self) -> set[int]:
        return {entry["FromPort"] for entry in self._group()["IpPermissions"] if entry.get("FromPort", 0) > 0}

    def open_port(self) -> None:
        self._client().authorize_security_group_ingress(
            GroupId=self._group()["GroupId"],
            IpProtocol="tcp",
            FromPort=OPENED,
            ToPort=OPENED,
            CidrIp="0.0.0.0/0",
        )

    def close_ssh(self) -> None:
        group = self._group()
        shut = [entry for entry in group["IpPermissions"] if entry.get("FromPort") == SSH]
        self._client().revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=shut)

    def labels(self) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self._instance()["Tags"]}

    def unlabel(self) -> None:
        self._client().delete_tags(Resources=[self.id()], Tags=[{"Key": "deploy-stack"}])

    def _allocation(self) -> str:
        return str(self._client().describe_addresses()["Addresses"][0]["AllocationId"])

    def reverse(self) -> str:
        found = self._client().describe_addresses_attribute(
            AllocationIds=[self._allocation()], Attribute="domain-name"
        )
        return str(found["Addresses"][0].get("PtrRecord", "")).rstrip(".")

    def rename(self, name: str) -> None:
        self._client().modify_address_attribute(AllocationId=self._allocation(), DomainName=name)


@contextmanager
def kept_out(hand: Hand, address: str) -> Iterator[None]:
    """The rig's vendors note rules and block nothing: this computer sends no SSH while theirs lets none in."""
    table, done = f"closed{NUMBER}", threading.Event()

    def nft(*words: str) -> None:
        subprocess.run(["nft", *words], check=True, capture_output=True, timeout=10)

    def follow() -> None:
        while not done.wait(0.3):
            if SSH in hand.ports():
                nft("delete", "table", "ip", table)
                return

    hand.close_ssh()
    assert SSH not in hand.ports()
    nft("add", "table", "ip", table)
    nft("add", "chain", "ip", table, "out", "{ type filter hook output priority 0; }")
    nft("add", "rule", "ip", table, "out", "ip", "daddr", address, "tcp", "dport", str(SSH), "drop")
    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join(10)
        subprocess.run(["nft", "delete", "table", "ip", table], check=False, capture_output=True, timeout=10)


def rows(changes: Sequence[dict[str, str]]) -> dict[str, str]:
    """Of a plan's changes: kind and name -> detail."""
    return {f"{change['kind']} {change['name']}": change["detail"] for change in changes}
