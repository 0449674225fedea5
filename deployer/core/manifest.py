"""The app's manifest (templates/apps/APP/app.yaml), after checking; made by project/manifest.py. Frozen.

Commands, environments and probe scripts may hold these placeholders, and no other brace is touched:

    {release} {config} {data} {runtime} {port}   the folder in use, its folders, the folder of the process's
                                                  own runtime, its own port
    {runtime:NAME} {port:NAME}                    of another runtime or process
    {{ domain }}                                  the stack's domain
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal


@dataclass(frozen=True)
class Runtime:
    """A set of packages installed together into one folder of the release, or an image that holds them.

    kind: "python", "node" or "container"; lock: file in the app's folder with pinned, hashed packages
    (a pip requirements file, or package-lock.json with its package.json beside it); of a container, a file with one line
    that names its image with the digest: HOST/NAME@sha256:...
    ca: of a container, file in the app's folder with the certificate of who signs that registry, for one of one's own.
    mounts: of a container, folder of the app's data -> where its image has it, beside {data} itself.
    packages: Debian packages that it needs on the machine.
    build: of python, packages may be built from source, so that their own code runs at installation; else wheels only.
    compile: of node, the packages that are compiled there; no other package runs a script of its own.
    """

    name: str
    kind: str
    lock: str = ""
    packages: tuple[str, ...] = ()
    build: bool = False
    compile: tuple[str, ...] = ()
    ca: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package.json that belongs to the lock file of a node runtime."""
        return str(PurePosixPath(self.lock).with_name("package.json"))


@dataclass(frozen=True)
class Process:
    """A long-running process, run by systemd as the app's user.

    command: what runs, without a shell ("" with a container is what its image says); prepare: commands that run before
    each start, in order. memory: MiB that it may take with all that it starts; 0 is no bound.
    environment_file: an AppFile's path (KEY=VALUE lines), for what must not be seen in the unit.
    ready: URL on loopback that answers 2xx once it serves; "" is ready when it stays active.
    """

    name: str
    runtime: str
    command: str = ""
    port: int = 0
    ready: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0
    # seconds that starting may take
    start_timeout: int = 60
    prepare: tuple[str, ...] = ()
    environment_file: str = ""


@dataclass(frozen=True)
class AppFile:
    """A template of the app's folder, written below the app's configuration folder."""

    template: str
    path: str
    secret: bool = False


@dataclass(frozen=True)
class AppStep:
    """A command run as the app's user: a migration (once a release), or making the first admin (once).

    The command must do no harm when it runs twice. `stdin`: template whose text goes to its standard
    input, for what must not be an argument. reversible: an older release still works after it; unless a migration
    says so, it counts as one that cannot be undone. timeout: seconds.
    """

    name: str
    runtime: str
    command: str
    stdin: str = ""
    reversible: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: str = ""
    timeout: int = 600


@dataclass(frozen=True)
class AppData:
    """Data of the app. path: below the app's data folder. kind: "files", "sqlite" (one file), or
    "sqlite_folder" (a folder with SQLite files anywhere below it, each copied between two transactions).

    references: SQL for the app's first database, giving the paths below `path` that it names, and maybe the time of
    each (seconds since 1970), so that a restore can tell which of them the files lack, and which are too new for them.
    """

    name: str
    kind: str
    path: str
    references: str = ""


@dataclass(frozen=True)
class Route:
    """Requests for host (a template over `domain`) and path go to process; `respond` answers with a text instead.

    long_polls: they hang until there is news, as WebSockets do. Nobody waits for their end before a pause.
    ask: of a host that is written "*.NAME", which stands for every name right below: path at the process that answers 2xx
    when the name in its query (`domain=`) shall have a certificate. No other name gets one.
    """

    host: str
    path: str
    process: str = ""
    ask: str = ""
    respond: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    long_polls: bool = False


@dataclass(frozen=True)
class AppSecret:
    """kind: of core.component.Secret. lasting: what the app keeps, or what others know it by, is bound to it; it is never
    replaced by itself."""

    name: str
    kind: str = "password"
    lasting: bool = False


@dataclass(frozen=True)
class AppProbe:
    """A bash script on the machine that reads something which is in the database.

    process: whose journal explains a red probe; the first one when it is empty.
    """

    name: str
    script: str
    process: str = ""


@dataclass(frozen=True)
class Manifest:
    """An app, as its folder templates/apps/APP describes it. folder: where its app.yaml lies."""

    name: str
    version: str
    folder: Path
    runtimes: tuple[Runtime, ...]
    processes: tuple[Process, ...]
    files: tuple[AppFile, ...]
    routes: tuple[Route, ...]
    probes: tuple[AppProbe, ...]
    databases: tuple[str, ...] = ()
    # Of PostgreSQL's builtin provider: "C.UTF-8" knows letters of all languages, "C" bytes only (some apps insist).
    database_locale: Literal["C.UTF-8", "C"] = "C.UTF-8"
    cache: bool = False
    mail: bool = False
    sms: bool = False
    data: tuple[AppData, ...] = ()
    secrets: tuple[AppSecret, ...] = ()
    migrations: tuple[AppStep, ...] = ()
    admin: AppStep | None = None
    admin_name: str = "admin"
    # Run once after a restore, before the app serves, in order: a counter that may only rise has to jump forward.
    after_restore: tuple[AppStep, ...] = ()
    # A Python program in the app's folder that a drill runs on its machine, as root, where mail and SMS are caught: a
    # person signs up and uses the service through its public doors. Exit 0 is good. Arguments: the domain, and until
    # when files must be there (seconds since 1970). It may import templates/app/doors.py.
    drill: str = ""
    # Two releases may serve at the same time from one database.
    overlap: bool = False
    # What the operator may set under `settings:` in stack.yaml, with defaults.
    settings: Mapping[str, object] = field(default_factory=dict)
    # The values that a setting may have, where they are few.
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Where its files are looked for: the project's own folder goes before the shipped one. () is `folder` alone.
    folders: tuple[Path, ...] = ()
    # The version of the wheel that its node runtimes get, by templates/app/node.lock; set where the manifest is read.
    node: str = ""

    def path(self, name: str) -> Path:
        """A file of the app, such as a lock or a template; where it ought to be when it is nowhere."""
        places = [base / name for base in self.folders or (self.folder,)]
        return next((path for path in places if path.is_file()), self.folder / name)
