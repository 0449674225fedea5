"""A network that fails: between two machines of a bridge, or on the way to who takes changes of names.

    with cut(machines / "agora-all-1", machines / "metal"):
        ...                          each reaches everybody but the other

A machine is given by its folder (providers/local). What a machine starts anew meanwhile is cut too: by its MAC address,
which is made from its name. Needs root and the nftables family "bridge".
"""

from __future__ import annotations

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


def mac(machine: Path) -> str:
    """Of the machine's own end of its wire."""
    leader = processes.leader(machine)
    assert leader, f"{machine.name} does not run"
    command = ["nsenter", "-n", "-t", str(leader), "ip", "-o", "link", "show", "host0"]
    words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    return words[words.index("link/ether") + 1]


class Cut:
    """The wire between two machines, which can be cut in either direction or in both. Prepared beforehand, so that a cut
    takes milliseconds."""

    def __init__(self, first: Path, second: Path) -> None:
        self._first, self._second = mac(first), mac(second)

    def both(self) -> None:
        self._set((self._first, self._second), (self._second, self._first))

    def towards_second(self) -> None:
        """What the first sends is lost; what the second sends arrives."""
        self._set((self._first, self._second))

    def towards_first(self) -> None:
        self._set((self._second, self._first))

    def heal(self) -> None:
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
    wire = Cut(first, second)
    try:
        wire.both()
        yield wire
    finally:
        wire.heal()


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
