"""The app's manifest, templates/apps/APP/app.yaml. Its schema is the dataclass Manifest itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from deployer.core.manifest import Manifest, Runtime
from deployer.core.resources import node_version, shipped
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
# An image by its digest. A registry's host has a dot or a port: no short name, which would be looked for in several places.
_IMAGE = re.compile(
    r"(?:[a-z0-9-]+\.[a-z0-9.-]+(?::\d+)?|[a-z0-9-]+:\d+)/[a-z0-9]+(?:[._/-]+[a-z0-9]+)*@sha256:[0-9a-f]{64}"
)
# Kinds that pki/ can make for an app.
_SECRET_KINDS = ("password", "hex", "rsa", "ssh", "ed25519_seed", "vapid", "given")


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
    for key in ("folder", "folders", "name", "node"):
        if key in document.data and (key != "name" or document.data[key] != name):
            why = "templates/app/node.lock says it" if key == "node" else f'it is "{folder.name}"'
            mistakes.add(document.mark((key,)), key, f"must not be given; {why}")
    data: dict[str, Any] = {k: v for k, v in document.data.items() if v is not None}
    folders = tuple(base / name for base in (own_apps(root), shipped_apps()) if (base / name).is_dir())
    data |= {"name": name, "folder": folder, "folders": folders, "node": node_version(root)}
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
        ("runtimes", ("python", "node", "container")),
        ("data", ("files", "sqlite", "sqlite_folder")),
        ("secrets", _SECRET_KINDS),
    ):
        for index, item in enumerate(getattr(manifest, section)):
            if item.kind not in expected:
                wrong((section, index, "kind"), f'"{item.kind}" must be one of {", ".join(expected)}')
    for index, runtime in enumerate(manifest.runtimes):
        for key, why in _runtime(manifest, runtime):
            wrong(("runtimes", index, key), why)
    for index, file in enumerate(manifest.files):
        if not manifest.path(file.template).is_file():
            wrong(("files", index, "template"), f'there is no file "{file.template}" beside app.yaml')
        if file.path.startswith("/") or ".." in Path(file.path).parts:
            wrong(("files", index, "path"), f'"{file.path}" must lie inside the configuration folder')
    ports: dict[int, str] = {}
    images = {runtime.name for runtime in manifest.runtimes if runtime.kind == "container"}
    for index, process in enumerate(manifest.processes):
        if not process.command and process.runtime not in images:
            wrong(("processes", index, "command"), "is missing; only a container's image may say what runs")
        if process.prepare and process.runtime in images:
            wrong(("processes", index, "prepare"), "is not for containers: let the image's own command do it")
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
    _many(manifest, wrong)
    for index, database in enumerate(manifest.databases):
        if not re.match(r"[a-z_][a-z0-9_]{0,62}\Z", database) or database in _RESERVED_DATABASES:
            wrong(("databases", index), f'"{database}" cannot be the name of an app\'s database')


def _runtime(manifest: Manifest, runtime: Runtime) -> Iterator[tuple[str, str]]:
    """What is wrong with one: its key, and why."""
    boxed = runtime.kind == "container"
    if not manifest.path(runtime.lock).is_file():
        more = "; it holds a line with the image, HOST/NAME@sha256:DIGEST" if boxed else ""
        yield "lock", f'there is no file "{runtime.lock}" beside app.yaml{more}'
    elif boxed:
        found = manifest.path(runtime.lock).read_text(encoding="utf-8").strip()
        if not _IMAGE.fullmatch(found):
            why = "is no HOST/NAME@sha256:DIGEST; a tag may be another image tomorrow"
            yield "lock", f'"{found[:200]}" in {runtime.lock} {why}'
    elif runtime.kind == "node" and not manifest.path(runtime.package).is_file():
        yield "lock", f'there is no file "{runtime.package}" beside it'
    if boxed:
        for key in ("build", "compile", "packages"):
            if getattr(runtime, key):
                yield key, "is not for containers: what they need is in the image"
        for folder, where in runtime.mounts.items():
            inside = not folder.startswith("/") and ".." not in Path(folder).parts
            if not inside or not re.fullmatch(r"/[A-Za-z0-9._/-]+", where):
                yield "mounts", f'"{folder}: {where}" must be a folder of the data and a path in the image'
        if runtime.ca and not manifest.path(runtime.ca).is_file():
            yield "ca", f'there is no file "{runtime.ca}" beside app.yaml'
        return
    for key in ("ca", "mounts"):
        if getattr(runtime, key):
            yield key, "is for a container"
    if runtime.build and runtime.kind == "node":
        yield "build", "of npm, name the packages that are compiled: compile: [NAME]"
    if runtime.compile and runtime.kind != "node":
        yield "compile", "is for npm's packages; python has build: true"


def _many(manifest: Manifest, wrong: Any) -> None:
    """Routes whose host stands for many names."""
    many = [index for index, route in enumerate(manifest.routes) if route.host.startswith("*.")]
    for index, route in enumerate(manifest.routes):
        if "*" in route.host.removeprefix("*."):
            wrong(
                ("routes", index, "host"), 'a star stands for the first part of a name only, as in "*.NAME"'
            )
        if route.ask and index not in many:
            wrong(("routes", index, "ask"), 'is for a host that stands for many names, "*.NAME"')
        if route.ask and not (route.process and route.ask.startswith("/")):
            wrong(("routes", index, "ask"), "must be a path of the route's process")
    # Without it anybody could make the proxy get certificates for names that he thought up.
    if many and len({(one.process, one.ask) for one in manifest.routes if one.ask}) != 1:
        wrong(("routes", many[0]), 'needs `ask`, the same on all: who says which names under "*." there are')


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
