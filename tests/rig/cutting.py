"""A network that fails: between two machines of a bridge, or on the way to who takes changes of names.

    with cut(machines / "agora-all-1", machines / "metal"):
        ...                          each reaches everybody but the other

A machine is given by its folder (providers/local). What a machine starts anew meanwhile is cut too: by its MAC address,
which is made from its name. Needs root and the nftables family "bridge".
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from providers.local import processes
from tests.rig.world import NUMBER

TABLE = f"cut{NUMBER}"


def nft(text: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, (text, done.stderr)


def wire(machine: Path) -> tuple[str, str]:
    """The MAC address of the machine's own end of its wire, and the name of this computer's end."""
    leader = processes.leader(machine)
    assert leader, f"{machine.name} does not run"
    command = ["nsenter", "-n", "-t", str(leader), "ip", "-o", "link", "show", "host0"]
    words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    number = int(words[1].rstrip(":").rpartition("@if")[2])
    return words[words.index("link/ether") + 1], socket.if_indextoname(number)


class Cut:
    """The wire between two machines, which can be cut in either direction or in both. Prepared beforehand, so that a cut
    takes some milliseconds."""

    def __init__(self, first: Path, second: Path) -> None:
        self._first, one = wire(first)
        self._second, other = wire(second)
        self._ports = [Path(f"/sys/class/net/{name}/brport/isolated") for name in (one, other)]

    def both(self) -> None:
        self._set((self._first, self._second), (self._second, self._first))

    def towards_second(self) -> None:
        """What the first sends is lost; what the second sends arrives."""
        self._set((self._first, self._second))

    def towards_first(self) -> None:
        self._set((self._second, self._first))

    def at_once(self) -> None:
        """Both ways, within microseconds; until one of the machines starts anew. Isolated ports of a bridge reach all but
        one another."""
        for port in self._ports:
            port.write_text("1", encoding="ascii")

    def heal(self) -> None:
        for port in self._ports:
            with suppress(OSError):
                port.write_text("0", encoding="ascii")
        with suppress(AssertionError):
            nft(f"delete table bridge {TABLE}\n")

    def _set(self, *ways: tuple[str, str]) -> None:
        rules = "".join(f"ether saddr {source} ether daddr {target} drop\n" for source, target in ways)
        # Replaced at once. ARP and IPv6's neighbours are cut with the rest as soon as they answer each other.
        nft(
            f"table bridge {TABLE} {{}}\ndelete table bridge {TABLE}\n"
            f"table bridge {TABLE} {{\nchain pass {{\ntype filter hook forward priority 0;\n{rules}}}\n}}\n"
        )


@contextmanager
def cut(first: Path, second: Path) -> Iterator[Cut]:
    """Both ways, until the end of the block at the latest."""
    made = Cut(first, second)
    try:
        made.both()
        yield made
    finally:
        made.heal()


@contextmanager
def no_updates(server: str) -> Iterator[None]:
    """This computer's TCP to a name server is refused: it takes no updates (RFC 2136) and gives no zone, and still answers
    questions."""
    table = f"names{NUMBER}"
    nft(
        f"table ip {table} {{\nchain out {{\ntype filter hook output priority 0;\n"
        f"ip daddr {server} tcp dport 53 reject with tcp reset\n}}\n}}\n"
    )
    try:
        yield
    finally:
        nft(f"delete table ip {table}\n")
