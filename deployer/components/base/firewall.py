"""Which addresses may reach which port: the rules of nftables as data."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from deployer.core.component import ComponentSpec, Context, Port
from deployer.core.machine import Machine


@dataclass(frozen=True)
class Rule:
    """Let `protocol` `port` in, for one family from `addresses`, or from everywhere where `family` is empty.

    family: "ip", "ip6" or ""; comment: shown by `nft list ruleset`.
    """

    protocol: str
    port: int
    family: str = ""
    addresses: tuple[str, ...] = ()
    comment: str = ""


def rules(ctx: Context, specs: Sequence[ComponentSpec]) -> tuple[Rule, ...]:
    """One rule for each declared port and family, SSH first. A port whose sources have no address but our own
    gets no rule: what comes from this machine itself comes in by the loopback interface."""
    # Behind a port forwarding, ssh_port is the outer number and sshd still listens on 22.
    ssh = [Port(number, why="ssh") for number in sorted({22, ctx.machine.ssh_port})]
    declared = sorted(
        {
            (port.number, port.protocol, port.sources, port.why or spec.name)
            for spec in specs
            for port in spec.ports
        }
    )
    made = [rule for port in ssh for rule in _rules(ctx, port)]
    for number, protocol, sources, why in declared:
        made += _rules(ctx, Port(number, protocol, sources, why))
    return tuple(dict.fromkeys(made))


def _rules(ctx: Context, port: Port) -> Iterable[Rule]:
    comment = "".join(sign for sign in port.why if sign.isalnum() or sign in " .,:-")[:100]
    if "world" in port.sources:
        yield Rule(port.protocol, port.number, comment=comment)
        return
    found = addresses(machine for machine in _machines(ctx, port.sources) if machine.name != ctx.machine.name)
    for family, version in (("ip", 4), ("ip6", 6)):
        if own := tuple(address for address in found if ipaddress.ip_address(address).version == version):
            yield Rule(port.protocol, port.number, family, own, comment)


def _machines(ctx: Context, sources: Sequence[str]) -> Iterable[Machine]:
    names = set(ctx.machines) if "stack" in sources else set()
    for source in sources:
        names.update(ctx.roles.get(source, ()))
    return [ctx.machines[name] for name in sorted(names)]


def addresses(machines: Iterable[Machine]) -> tuple[str, ...]:
    """All addresses of the machines, public and private, sorted. What is no address yet (a machine that is still
    to be made has a placeholder) is left out."""
    texts = {text for one in machines for text in (one.address, one.private_address, one.address6)}
    found = {ipaddress.ip_address(text) for text in texts if is_address(text)}
    return tuple(str(address) for address in sorted(found, key=lambda item: (item.version, int(item))))


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def values(found: Sequence[Rule]) -> Mapping[str, object]:
    """The rules as values of templates/base/nftables.conf.j2."""
    return {"rules": [asdict(rule) for rule in found]}
