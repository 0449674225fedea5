"""The app's manifest, templates/apps/APP/app.yaml. Its schema is the dataclass Manifest itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from deployer.core.model import Manifest
from deployer.core.resources import shipped
from deployer.project.document import Document, read
from deployer.project.mistakes import Mark, Mistakes, Place, did_you_mean
from deployer.project.wording import explain

# Ports of the other components and of sshd; an app's process may take none of them.
FIXED_PORTS = {
    22: "SSH",
    25: "mail",
    80: "the proxy",
    443: "the proxy",
    587: "mail submission",
    5432: "PostgreSQL",
    2019: "the proxy",
    6379: "the cache",
    8070: "the SMS gateway",
    8071: "the SMS gateway",
    **dict.fromkeys(range(10465, 10485), "the mail relay"),
    **dict.fromkeys(range(13000, 13200), "the SMS gateway"),
}
_RESERVED_DATABASES = ("postgres", "template0", "template1", "sms_gateway")
# Kinds that pki/ can make for an app.
_SECRET_KINDS = ("password", "hex", "rsa", "ssh", "ed25519_seed", "given")


def apps(root: Path) -> dict[str, Path]:
    """Folder of each known app's manifest: the project's own templates/apps goes before the shipped one."""
    found: dict[str, Path] = {}
    for base in (shipped_apps(), own_apps(root)):
        found.update({path.parent.name: path.parent for path in sorted(base.glob("*/app.yaml"))})
    return found


def shipped_apps() -> Path:
    return shipped("templates") / "apps"


def own_apps(root: Path) -> Path:
    """Where the project's own apps lie, and single files that go before those of shipped ones."""
    return root / "templates" / "apps"


def load(name: str, root: Path, mark: Mark, mistakes: Mistakes) -> Manifest | None:
    """The manifest of app `name`. mark: where the name stands, for messages; None after a mistake."""
    known = apps(root)
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        why = f'unknown app "{name}"{did_you_mean(name, known)}'
        mistakes.add(mark, "app", why if listed in why else f"{why} (known: {listed})")
        return None
    folder = known[name]
    before = len(mistakes)
    document = read(folder / "app.yaml", f"templates/apps/{name}/app.yaml", mistakes, None)
    if document is None:
        return None
    for key in ("folder", "folders", "name"):
        if key in document.data and (key != "name" or document.data[key] != name):
            mistakes.add(document.mark((key,)), key, f'must not be given; it is "{folder.name}"')
    data: dict[str, Any] = {k: v for k, v in document.data.items() if v is not None}
    folders = tuple(base / name for base in (own_apps(root), shipped_apps()) if (base / name).is_dir())
    data |= {"name": name, "folder": folder, "folders": folders}
    if isinstance(data.get("settings"), dict):
        data["settings"] = document.settle(("settings",))
    try:
        # In a list, because pydantic takes a configuration for containers only.
        adapter = TypeAdapter(list[Manifest], config=ConfigDict(extra="forbid"))
        manifest = adapter.validate_python([data])[0]
    except ValidationError as error:
        explain(error, document, Manifest, mistakes, skip=1)
        return None
    _cross_check(manifest, document, mistakes)
    return manifest if len(mistakes) == before else None


def _cross_check(manifest: Manifest, document: Document, mistakes: Mistakes) -> None:
    def wrong(place: Place, why: str) -> None:
        mistakes.add(document.mark(place), place, why)

    runtimes = [runtime.name for runtime in manifest.runtimes]
    processes = [process.name for process in manifest.processes]
    configured = [file.path for file in manifest.files]
    _unique("runtimes", runtimes, wrong)
    _unique("processes", processes, wrong)
    for section, expected in (
        ("runtimes", ("python", "node")),
        ("data", ("files", "sqlite", "sqlite_folder")),
        ("secrets", _SECRET_KINDS),
    ):
        for index, item in enumerate(getattr(manifest, section)):
            if item.kind not in expected:
                wrong((section, index, "kind"), f'"{item.kind}" must be one of {", ".join(expected)}')
    for index, runtime in enumerate(manifest.runtimes):
        if not manifest.path(runtime.lock).is_file():
            wrong(("runtimes", index, "lock"), f'there is no file "{runtime.lock}" beside app.yaml')
        elif runtime.kind == "node" and not manifest.path(runtime.package).is_file():
            wrong(("runtimes", index, "lock"), f'there is no file "{runtime.package}" beside it')
    for index, file in enumerate(manifest.files):
        if not manifest.path(file.template).is_file():
            wrong(("files", index, "template"), f'there is no file "{file.template}" beside app.yaml')
        if file.path.startswith("/") or ".." in Path(file.path).parts:
            wrong(("files", index, "path"), f'"{file.path}" must lie inside the configuration folder')
    ports: dict[int, str] = {}
    for index, process in enumerate(manifest.processes):
        _runs(("processes", index), process.runtime, process.environment_file, runtimes, configured, wrong)
        _port(("processes", index, "port"), process.name, process.port, ports, wrong)
    steps = [(("migrations", index), step) for index, step in enumerate(manifest.migrations)]
    steps += [(("after_restore", index), step) for index, step in enumerate(manifest.after_restore)]
    steps += [(("admin",), manifest.admin)] if manifest.admin else []  # type: ignore[list-item]
    for place, step in steps:
        _runs(place, step.runtime, step.environment_file, runtimes, configured, wrong)
        if step.stdin and not manifest.path(step.stdin).is_file():
            wrong((*place, "stdin"), f'there is no file "{step.stdin}" beside app.yaml')
    if manifest.drill and not manifest.path(manifest.drill).is_file():
        wrong(("drill",), f'there is no file "{manifest.drill}" beside app.yaml')
    for index, route in enumerate(manifest.routes):
        if route.process and route.process not in processes:
            wrong(
                ("routes", index, "process"),
                f'"{route.process}" is no process{did_you_mean(route.process, processes)}',
            )
        if not route.process and not route.respond:
            wrong(("routes", index), "needs a process or a text to respond with")
    for index, database in enumerate(manifest.databases):
        if not re.match(r"[a-z_][a-z0-9_]{0,62}\Z", database) or database in _RESERVED_DATABASES:
            wrong(("databases", index), f'"{database}" cannot be the name of an app\'s database')


def _unique(section: str, names: Iterable[str], wrong: Any) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            wrong((section, index, "name"), f'"{name}" is there twice')
        seen.add(name)


def _runs(
    place: Place, runtime: str, environment_file: str, runtimes: list[str], files: list[str], wrong: Any
) -> None:
    if runtime not in runtimes:
        wrong((*place, "runtime"), f'"{runtime}" is no runtime{did_you_mean(runtime, runtimes)}')
    if environment_file and environment_file not in files:
        wrong((*place, "environment_file"), f'"{environment_file}" is the path of no file in files')


def _port(place: Place, process: str, port: int, taken: dict[int, str], wrong: Any) -> None:
    if not port:
        return
    if port in FIXED_PORTS:
        wrong(place, f"port {port} clashes with {FIXED_PORTS[port]}")
    elif port in taken:
        wrong(place, f'port {port} clashes with the process "{taken[port]}"')
    elif not 1024 <= port <= 65535:
        wrong(place, f'"{port}" is not a port that an app may take; they are 1024 to 65535')
    taken.setdefault(port, process)
