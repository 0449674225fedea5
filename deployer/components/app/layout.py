"""Where an app's parts lie on its machine, and what its release is called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from deployer.core.errors import InputError
from deployer.core.manifest import AppStep, Manifest, Process, Runtime

# Raise it when a release is built in another way, so that every release is built anew.
BUILDER = 1
# Builds releases; owns nothing but the cache of packages.
BUILD_USER = "deploy-build"
CACHE = "/var/cache/deploy/uv"
SWITCH = "/usr/local/lib/deploy/app-switch"
EXEC = "/usr/local/lib/deploy/app-exec"
CONTAINER = "/usr/local/lib/deploy/app-container"
# Where the images of each app lie, unpacked; of its user.
CONTAINERS = "/var/lib/containers/deploy"
UV_LOCK = "/usr/local/lib/deploy/uv.lock"
NODE_LOCK = "/usr/local/lib/deploy/node.lock"

_PLACEHOLDER = re.compile(r"\{(release|config|data|runtime|port)(?::([A-Za-z0-9_-]+))?\}")
_DOMAIN = re.compile(r"\{\{\s*domain\s*\}\}")


@dataclass(frozen=True)
class Layout:
    """Paths and names of one app. All derive from its manifest."""

    app: Manifest
    domain: str

    @property
    def user(self) -> str:
        return f"app-{self.app.name}"

    @property
    def home(self) -> str:
        return f"/opt/{self.app.name}"

    @property
    def current(self) -> str:
        """The release in use: a symbolic link."""
        return f"{self.home}/current"

    @property
    def config(self) -> str:
        return f"/etc/deploy/apps/{self.app.name}"

    @property
    def data(self) -> str:
        return f"/var/lib/{self.app.name}"

    @property
    def state(self) -> str:
        """What the switch remembers; root's alone."""
        return f"/var/lib/deploy/app/{self.app.name}"

    @property
    def restored(self) -> str:
        """Lies there from a restore until the switch has brought the app's data up to its release."""
        return f"{self.state}/restored"

    @property
    def plan(self) -> str:
        """What the switch shall reach."""
        return f"/etc/deploy/app-switch/{self.app.name}.json"

    @property
    def source(self) -> str:
        """What the release was made from. The switch keeps a copy for each release that served, for a way back."""
        return f"/etc/deploy/app-switch/{self.app.name}.source.json"

    @property
    def images(self) -> tuple[Runtime, ...]:
        return tuple(runtime for runtime in self.app.runtimes if runtime.kind == "container")

    @property
    def containers(self) -> str:
        """Where its images lie unpacked, and what its user's podman remembers."""
        return f"{CONTAINERS}/{self.app.name}"

    @property
    def containers_unit(self) -> str:
        """It holds the namespace in which the user's containers lie, whichever of them start and stop."""
        return f"deploy-containers-{self.app.name}.service"

    def container(self, runtime: str, name: str = "") -> str:
        """The words that go before a command, to run it in a container of that runtime. name: of the only one like it."""
        words = [CONTAINER, "run", self.runtime(runtime), "--app", self.app.name, "--data", self.data]
        words += ["--config", self.config]
        for folder, where in next(one for one in self.images if one.name == runtime).mounts.items():
            words += ["--mount", f"{self.data}/{folder}:{where}"]
        return " ".join([*words, *(["--name", name] if name else []), "--"])

    def image(self, runtime: Runtime) -> str:
        """Where a container's image comes from: HOST/NAME@sha256:DIGEST."""
        return self._text(runtime.lock).strip()

    def in_container(self, runtime: str) -> bool:
        return any(entry.name == runtime for entry in self.images)

    def lock(self, runtime: Runtime) -> str:
        """A runtime's lock file on the machine, where the build's user can read it."""
        if runtime.kind == "node":
            return f"{self.home}/locks/{runtime.name}/package-lock.json"
        return f"{self.home}/locks/{runtime.name}.lock"

    def lock_files(self, runtime: Runtime) -> dict[str, str]:
        """What a runtime is built from: path on the machine, text."""
        found = {self.lock(runtime): self._text(runtime.lock)}
        if runtime.kind == "node":
            # npm reads both, and refuses when they do not fit.
            found[f"{self.home}/locks/{runtime.name}/package.json"] = self._text(runtime.package)
        return found

    def stdin(self, step: AppStep) -> str:
        """What goes to a step's standard input; readable by root alone, who opens it for the step."""
        return f"/etc/deploy/app-switch/{self.app.name}-{step.name}.stdin"

    def unit(self, process: Process | str) -> str:
        name = process if isinstance(process, str) else process.name
        return f"{self.app.name}-{name}.service"

    def step_unit(self, step: AppStep) -> str:
        return f"{self.app.name}-step-{step.name}.service"

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(map(self.unit, self.app.processes))

    def runtime(self, name: str) -> str:
        """A runtime's folder in the release in use."""
        return f"{self.current}/{name}"

    def programs(self, runtime: str) -> str:
        """The folder of a runtime's programs, in the release in use."""
        return f"{self.runtime(runtime)}/bin"

    def release(self) -> str:
        """Name of the release: the version for people, and a digest of all that it is built from."""
        built_from = {
            "builder": BUILDER,
            "runtimes": [
                [
                    runtime.name,
                    runtime.kind,
                    runtime.build,
                    *runtime.compile,
                    *([self.app.node] if runtime.kind == "node" else []),
                    *self.lock_files(runtime).values(),
                ]
                for runtime in self.app.runtimes
            ],
        }
        digest = hashlib.sha256(json.dumps(built_from).encode()).hexdigest()[:12]
        version = re.sub(r"[^A-Za-z0-9.]", "_", self.app.version)
        return f"{version}-{digest}"

    def _text(self, file: str) -> str:
        """A file of the app's folder."""
        return self.app.path(file).read_text(encoding="utf-8")

    def expand(self, text: str, what: str, *, runtime: str = "", port: int = 0) -> str:
        """Fill in the manifest's placeholders; no other brace is touched.

        what: where the text stands, for the message. runtime, port: the process's own.
        Raises InputError for the name of a runtime or process that there is not.
        """
        ports = {process.name: process.port for process in self.app.processes}
        # What is in an image has its place there.
        packaged = [entry.name for entry in self.app.runtimes if entry.kind != "container"]
        folders = {name: self.runtime(name) for name in packaged}
        own = {"runtime": folders.get(runtime, ""), "port": str(port) if port else ""}
        plain = {"release": self.current, "config": self.config, "data": self.data}

        def value(match: re.Match[str]) -> str:
            kind, name = match[1], match[2]
            found = _named(kind, name, ports, folders) if name else plain.get(kind) or own.get(kind, "")
            if not found:
                raise InputError(
                    f"reading the manifest of {self.app.name}",
                    f"{what}: {match[0]} stands for nothing here",
                    "name a runtime or process of the manifest, as in {runtime:NAME} or {port:NAME}",
                )
            return found

        return _DOMAIN.sub(lambda _: self.domain, _PLACEHOLDER.sub(value, text))


def _named(kind: str, name: str, ports: Mapping[str, int], folders: Mapping[str, str]) -> str:
    if kind == "port":
        return str(ports.get(name) or "")
    return folders.get(name, "") if kind == "runtime" else ""
