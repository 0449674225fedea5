"""The section dns of an inventory: what it may say, and what the operator reads when it is wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from deployer.core.errors import CredentialError, DeployError, InputError
from deployer.core.model import DnsService
from deployer.dns import vendors
from deployer.project.document import read
from deployer.project.mistakes import Mistakes
from deployer.project.zones import services

ENVIRONMENT = {"KEY": "c2VjcmV0", "TOKEN": "t" * 64}


def parsed(tmp_path: Path, text: str, *, expand: bool = True) -> tuple[tuple[DnsService, ...], list[str]]:
    path = tmp_path / "here.yaml"
    path.write_text(textwrap.dedent(text))
    mistakes = Mistakes()
    document = read(path, "here.yaml", mistakes, ENVIRONMENT if expand else None)
    assert document
    return services(document, "chat.example.org", mistakes), mistakes.lines


def test_every_vendor(tmp_path: Path) -> None:
    found, wrong = parsed(
        tmp_path,
        """\
        dns:
        - provider: hetzner
        - {provider: route53, zone: Example.org, limit: 50, nameservers: [192.0.2.53, "192.0.2.54:5353"]}
        - {provider: rfc2136, host: ns.example.org, port: 5353, key_name: k, key_secret: "${KEY}"}
        - {provider: octodns_powerdns.PowerDnsProvider, host: 192.0.2.1, api_key: "${KEY}"}
        """,
    )
    assert wrong == []
    assert found == (
        DnsService("hetzner"),
        DnsService("route53", "example.org", nameservers=("192.0.2.53", "192.0.2.54:5353"), limit=50),
        DnsService(
            "rfc2136",
            options={"host": "ns.example.org", "port": 5353, "key_name": "k", "key_secret": "c2VjcmV0"},
        ),
        DnsService("octodns_powerdns.PowerDnsProvider", options={"host": "192.0.2.1", "api_key": "c2VjcmV0"}),
    )
    assert "c2VjcmV0" not in repr(found)


@pytest.mark.parametrize("text", ["provider: local\n", "dns: none\n", "dns:\n"])
def test_by_hand(tmp_path: Path, text: str) -> None:
    assert parsed(tmp_path, text) == ((), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dns: hetzner\n", 'here.yaml:1: dns: must be a list ("- provider: ..." lines), or none'),
        ("dns: [hetzner]\n", 'here.yaml:1: dns[0]: must be a section of keys ("provider: hetzner"'),
        ("dns:\n- zone: example.org\n", "here.yaml:2: dns[0].provider: is missing"),
        (
            "dns:\n- provider: hetzer\n",
            'here.yaml:2: dns[0].provider: "hetzer" is no vendor; did you mean "hetzner"?',
        ),
        (
            "dns:\n- {provider: hetzner, tokn: x}\n",
            'here.yaml:2: dns[0].tokn: unknown key; did you mean "token"?',
        ),
        (
            "dns:\n- {provider: hetzner, token: abc}\n",
            "here.yaml:2: dns[0].token: is a secret, and must come from the environment: write ${NAME}",
        ),
        ("dns:\n- {provider: a.B, api_key: abc}\n", "here.yaml:2: dns[0].api_key: is a secret"),
        ("dns:\n- provider: rfc2136\n", "here.yaml:2: dns[0].host: is missing"),
        (
            'dns:\n- {provider: rfc2136, host: ns.example.org, key_secret: "${KEY}"}\n',
            "here.yaml:2: dns[0].key_name: is missing; key_name and key_secret go together",
        ),
        (
            "dns:\n- {provider: rfc2136, host: ns.example.org, port: many}\n",
            "here.yaml:2: dns[0].port: is not a port",
        ),
        (
            "dns:\n- {provider: hetzner, zone: example.com}\n",
            'here.yaml:2: dns[0].zone: "example.com" has nothing to do with the stack\'s domain chat.example.org',
        ),
        ("dns:\n- {provider: hetzner, limit: 300}\n", "here.yaml:2: dns[0].limit: must be a percentage"),
        (
            "dns:\n- {provider: hetzner, nameservers: ns.example.org}\n",
            'here.yaml:2: dns[0].nameservers: "ns.example.org" is not an address',
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    _, wrong = parsed(tmp_path, text)
    assert len(wrong) == 1 and wrong[0].startswith(expected), wrong


# --- making octoDNS's providers ---


def test_a_variable_that_is_read_late(tmp_path: Path) -> None:
    """As `down` does, which reads the project without the vendors' secrets."""
    text = 'dns:\n- {provider: rfc2136, host: 192.0.2.1, key_name: k, key_secret: "${KEY}"}\n'
    [service], _ = parsed(tmp_path, text, expand=False)
    assert vendors.make(service, ENVIRONMENT).key_secret == "c2VjcmV0"
    with pytest.raises(CredentialError, match="KEY is not set") as caught:
        vendors.make(service, {})
    assert caught.value.next.startswith("export KEY")


def test_any_provider_of_octodns_by_its_class(tmp_path: Path) -> None:
    made = vendors.make(
        DnsService(
            "octodns.provider.yaml.YamlProvider",
            options={"directory": str(tmp_path), "escaped_semicolons": True},
        ),
        {},
    )
    assert not isinstance(made, vendors.Exact)
    with pytest.raises(InputError, match="not a provider of octoDNS"):
        vendors.make(DnsService("octodns.zone.Zone"), {})
    with pytest.raises(InputError, match="YamlProvider"):
        vendors.make(DnsService("octodns.provider.yaml.YamlProvider", options={"folder": "x"}), {})
    with pytest.raises(DeployError, match="'octodns_absent' is not installed") as caught:
        vendors.make(DnsService("octodns_absent.Provider"), {})
    assert "pip install" in caught.value.next
