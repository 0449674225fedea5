"""How this computer gets its packages: mirror, proxies, certificates. Local machines do it the same way."""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from providers.local.host import run
from providers.local.settings import Reach

SUITE = "trixie"
CERTIFICATES = Path("/usr/local/share/ca-certificates")


@dataclass(frozen=True)
class Mirror:
    """URIs of Debian's main and security archives."""

    main: str
    security: str

    def sources(self) -> str:
        """The machine's /etc/apt/sources.list.d/debian.sources."""
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        entries = [(self.main, f"{SUITE} {SUITE}-updates"), (self.security, f"{SUITE}-security")]
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keyring}\n"
            for uri, suites in entries
        )


def of_this_computer(folder: Path = Path("/etc/apt")) -> Mirror | None:
    """The mirror that this computer uses when it is Debian and names both archives; else the choice is mmdebstrap's."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        return None
    entries = []
    # `apt-get indextargets` would tell, but takes half a second.
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.suffix in (".list", ".sources") and path.is_file():
            parse = parse_stanzas if path.suffix == ".sources" else parse_lines
            entries += parse(path.read_text(encoding="utf-8", errors="replace"))
    return choose(entries, release.get("VERSION_CODENAME", ""))


def parse_lines(text: str) -> list[tuple[str, str]]:
    """Pairs of suite and URI in the one-line style of sources.list(5)."""
    found = re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+.*\bmain\b", text, re.MULTILINE)
    return [(suite, uri) for uri, suite in found]


def parse_stanzas(text: str) -> list[tuple[str, str]]:
    """Pairs of suite and URI in the deb822 style of sources.list(5)."""
    pairs = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            key.lower(): value.split() for key, value in re.findall(r"^([\w-]+):(.*)$", stanza, re.MULTILINE)
        }
        usable = "deb" in fields.get("types", ()) and "main" in fields.get("components", ())
        if usable and fields.get("enabled") != ["no"]:
            pairs += [(suite, uri) for uri in fields.get("uris", ()) for suite in fields.get("suites", ())]
    return pairs


def choose(entries: Sequence[tuple[str, str]], codename: str) -> Mirror | None:
    """Pick Debian's archives out of pairs of suite and URI; None where one is missing."""
    found: dict[str, str] = {}
    for suite, uri in entries:
        # Other vendors use Debian's code names too; Debian's own archives end like this on every mirror.
        if uri.rstrip("/").rsplit("/", 1)[-1] in ("debian", "debian-security"):
            found.setdefault(suite, uri.rstrip("/"))
    main, security = found.get(codename), found.get(f"{codename}-security")
    return Mirror(main, security) if main and security else None


def proxies() -> tuple[str, ...]:
    """This computer's apt settings that name a proxy, as lines of an apt.conf."""
    dump = run("reading the settings of apt", ["apt-config", "dump", "Acquire"], check=False)
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    # The names may go on with a host: Acquire::http::Proxy::mirror.example "DIRECT";
    return tuple(line for line in dump.splitlines() if line.startswith(wanted) and not line.endswith(' "";'))


def proxy_ways(lines: Sequence[str]) -> tuple[Reach, ...]:
    """The ways out that machines need to get at these proxies."""
    ways = []
    for line in lines:
        url = urlsplit(line.partition('"')[2].rstrip('";'))
        if url.hostname:
            try:
                address = IPv4Address(socket.gethostbyname(url.hostname))
            except OSError:
                continue
            ways.append(Reach("tcp", url.port or 80, address))
    return tuple(ways)


def certificates() -> Mapping[str, str]:
    """Certificates that this computer trusts besides the usual ones: path below CERTIFICATES -> PEM."""
    return {
        str(path.relative_to(CERTIFICATES)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(CERTIFICATES.rglob("*.crt"))
        if path.is_file()
    }
