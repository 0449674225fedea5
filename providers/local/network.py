"""The bridge of the local machines and their way out, made for the first machine and removed after the last.

Machines reach each other, the bridge's own address, and outside only DNS and TCP 80 and 443: no mail can
leave from a trial. Nothing from outside this computer reaches them. IPv6 works among the machines and this
computer; it is not routed outside, as forwarding it would make this computer ignore its own router.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

from deployer.core.errors import DeployError
from providers.local import forwarding
from providers.local.host import lock, run
from providers.local.settings import Reach, Settings

LOCK = Path("/run/deploy-local/lock")


def has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").is_dir()


def ruleset(settings: Settings, reach: Iterable[Reach] = ()) -> str:
    """The nftables table as text; loading it replaces a former one at once."""
    bridge, subnet, table = settings.bridge, settings.subnet, settings.table
    extra = "".join(
        f'        iifname "{bridge}" ip daddr {way.address} {way.protocol} dport {way.port} accept\n'
        for way in reach
    )
    return f"""\
table inet {table} {{}}
delete table inet {table}
table inet {table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" oifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" reject
        iifname "{bridge}" udp dport 53 accept
        iifname "{bridge}" tcp dport {{ 53, 80, 443 }} accept
{extra}        iifname "{bridge}" meta l4proto tcp reject with tcp reset
        iifname "{bridge}" reject
    }}
}}
"""


def ensure(settings: Settings, reach: Iterable[Reach] = ()) -> None:
    """Make bridge, addresses, forwarding and rules; repeating it is harmless. Raises DeployError."""
    bridge = settings.bridge
    with lock(LOCK, "making the bridge of the local machines"):
        if not _is_ours(bridge):
            if Path(f"/sys/class/net/{bridge}").exists():
                raise DeployError(
                    "making the bridge of the local machines",
                    f"this computer already has an interface {bridge}, which is not ours",
                    "set another `bridge` in the inventory",
                )
            command = ["ip", "link", "add", "name", bridge, "address", hardware(bridge), "type", "bridge"]
            run(f"making the bridge {bridge}", command)
        run(f"setting up {bridge}", ["ip", "link", "set", bridge, "up"])
        _address(bridge, f"{settings.gateway}/{settings.subnet.prefixlen}")
        if has_ipv6():
            Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6").write_text("0", encoding="ascii")
            # Without nodad the address would stay tentative until the bridge has its first port.
            _address(bridge, f"{settings.gateway6}/64", "nodad")
        run("loading the rules of the bridge", ["nft", "-f", "-"], stdin=ruleset(settings, reach))
        forwarding.turn_on()
        forwarding.except_bridge(bridge)


def remove(settings: Settings) -> None:
    """Remove all that `ensure` made; what is missing already is no error."""
    with lock(LOCK, "removing the bridge of the local machines"):
        forwarding.forget_bridge(settings.bridge)
        if settings.table in _tables():
            run("removing the rules of the bridge", ["nft", "delete", "table", "inet", settings.table])
        if _is_ours(settings.bridge):
            run(f"removing the bridge {settings.bridge}", ["ip", "link", "delete", settings.bridge])
        # Another instance's machines may still need the forwarding.
        if not any(name.startswith("deploy_local_") for name in _tables()):
            forwarding.restore()


def clash(settings: Settings) -> str:
    """Interface of this computer that already uses the subnet; "" when none does."""
    links = json.loads(run("reading the addresses of this computer", ["ip", "-json", "-4", "address"]))
    for link in links:
        for entry in link.get("addr_info", ()):
            other = IPv4Network(f"{entry['local']}/{entry['prefixlen']}", strict=False)
            if link["ifname"] != settings.bridge and other.overlaps(settings.subnet):
                return str(link["ifname"])
    return ""


def hardware(bridge: str) -> str:
    """The bridge's hardware address. It marks the bridge as ours from the moment it exists; and it stays,
    while a bridge otherwise takes its ports' lowest one, which changes as they come and go."""
    digest = hashlib.sha256(f"deploy-local {bridge}".encode()).digest()
    # 02: locally administered (IEEE 802).
    return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def _is_ours(bridge: str) -> bool:
    folder = Path(f"/sys/class/net/{bridge}")
    if not (folder / "bridge").is_dir():
        return False
    return (folder / "address").read_text(encoding="ascii").strip() == hardware(bridge)


def _address(bridge: str, address: str, *flags: str) -> None:
    run(f"giving {bridge} its address", ["ip", "address", "replace", address, "dev", bridge, *flags])


def _tables() -> list[str]:
    output = run("listing the tables of nftables", ["nft", "list", "tables"])
    return [line.split()[-1] for line in output.splitlines() if line.startswith("table inet ")]
