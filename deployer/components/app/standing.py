"""What a machine says of the app's releases (service/app-status), as data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from deployer.core.errors import DeployError
from deployer.core.resources import service_file


@dataclass(frozen=True)
class Release:
    """One that is kept. at: when it was last put in service, seconds since the epoch, 0 if it never was or nobody
    knows. pause: seconds without the app then. bytes: on the disk. source: what it was made from is kept too."""

    release: str
    version: str
    at: float
    pause: float
    bytes: int
    source: bool


@dataclass(frozen=True)
class Migration:
    """begun: seconds since the epoch. done: it need not run again before the release serves."""

    release: str
    name: str
    begun: float
    done: bool
    reversible: bool


@dataclass(frozen=True)
class Standing:
    """current: the release that the app's processes start from. good: the last one that answered, with `previous` before
    it. active: all processes of the good one run."""

    current: str
    good: str
    previous: str
    active: bool
    releases: tuple[Release, ...]
    migrations: tuple[Migration, ...]

    @property
    def serves(self) -> str:
        """The release that serves; "" when none is known to."""
        return self.good if self.active and self.current == self.good else ""

    def release(self, name: str) -> Release | None:
        return next((one for one in self.releases if one.release == name), None)

    def final_since(self, release: str) -> list[Migration]:
        """Migrations that cannot be undone and began after `release` was last put in service, the first one first."""
        kept = self.release(release)
        since = kept.at if kept else 0.0
        found = [one for one in self.migrations if one.release != release and one.begun > since]
        return sorted((one for one in found if not one.reversible), key=lambda one: one.begun)


def command(app: str, release: str = "") -> tuple[str, str]:
    """A shell command, and what goes to its standard input. release: ask what that one was made from."""
    words = ["python3", "-", app, *([release] if release else [])]
    return shlex.join(words), service_file("app", "app-status")


def answer(machine: str, code: int, out: str, err: str) -> Mapping[str, object]:
    """What it printed. Raises DeployError."""
    try:
        body = json.loads(out) if code == 0 else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise DeployError(
            "asking which release serves",
            "the machine's answer cannot be read",
            "deploy status says whether it is well",
            machine=machine,
            detail=(err or out)[-2000:],
        )
    return body


def parse(body: Mapping[str, object]) -> Standing:
    """The answer without a release as data."""
    releases, migrations = body["releases"], body["migrations"]
    assert isinstance(releases, list) and isinstance(migrations, list)
    return Standing(
        current=str(body["current"]),
        good=str(body["good"]),
        previous=str(body["previous"]),
        active=bool(body["active"]),
        releases=tuple(Release(**one) for one in releases),
        migrations=tuple(Migration(**one) for one in migrations),
    )
