"""How this computer gets its packages: mirror, proxies, certificates. Local machines get theirs the same way."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from providers.local.host import run
from providers.local.settings import Reach

SUITE = "trixie"
MAIN = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
CERTIFICATES = Path("/usr/local/share/ca-certificates")


@dataclass(frozen=True)
class Mirror:
    """URIs of Debian's main and security archives."""

    main: str = MAIN
    security: str = SECURITY

    def sources(self) -> str:
        """The machine's /etc/apt/sources.list.d/debian.sources."""
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        entries = [(self.main, f"{SUITE} {SUITE}-updates"), (self.security, f"{SUITE}-security")]
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keyring}\n"
            for uri, suites in entries
        )


def of_this_computer() -> Mirror:
    """The mirror that this computer uses when it is Debian, else Debian's own."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        return Mirror()
    targets = run(
        "reading the package sources",
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(REPO_URI)",
            "Created-By: Packages",
        ],
        check=False,
    )
    return choose(targets, release.get("VERSION_CODENAME", ""))


def choose(targets: str, codename: str) -> Mirror:
    """Pick the archives out of lines "RELEASE COMPONENT URI"."""
    found: dict[str, str] = {}
    for line in targets.splitlines():
        suite, component, uri = (*line.split(), "", "", "")[:3]
        # Other vendors use Debian's code names too; Debian's own archives end like this on every mirror.
        archive = uri.rstrip("/").rsplit("/", 1)[-1]
        if component == "main" and archive in ("debian", "debian-security"):
            found.setdefault(suite, uri.rstrip("/"))
    return Mirror(found.get(codename, MAIN), found.get(f"{codename}-security", SECURITY))


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
