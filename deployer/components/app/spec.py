"""The app component: everything follows from the manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from deployer.components.app import source
from deployer.components.app.layout import (
    BUILD_USER,
    CACHE,
    CONTAINER,
    CONTAINERS,
    EXEC,
    NODE_LOCK,
    SWITCH,
    UV_LOCK,
    Layout,
)
from deployer.components.app.units import process_values, step_values, switch_plan
from deployer.components.app.values import values
from deployer.core.component import (
    ComponentSpec,
    Context,
    Data,
    Directory,
    File,
    Probe,
    Secret,
    Step,
    Unit,
    User,
)
from deployer.core.errors import InputError
from deployer.core.manifest import AppStep, Manifest
from deployer.core.model import Project
from deployer.core.resources import find_template, node_version, service_file

# pip's wheel alone, without pip as a package: it fetches uv once, and uv does the rest.
_PACKAGES = ("python3", "python3-pip-whl", "ca-certificates", "curl")
# skopeo fetches an image as it is, podman runs it. uidmap gives the app's user numbers for the users of its images;
# catatonit is the first process in a container, and holds the namespace.
_CONTAINER_PACKAGES = ("podman", "crun", "skopeo", "uidmap", "catatonit")
# Seconds that a process without an address must stay active; the same in service/app-switch.
STEADY = 5


def secrets(project: Project) -> tuple[Secret, ...]:
    """The app's own secrets, and its first admin's password."""
    app = project.app
    own = tuple(Secret(f"app/{entry.name}", entry.kind, entry.lasting) for entry in app.secrets)
    return own + ((Secret("app/admin_password"),) if app.admin else ())


def spec(ctx: Context) -> ComponentSpec:
    """Raises InputError for a manifest that asks for what is not there."""
    app = ctx.project.app
    check(app)
    layout = Layout(app, ctx.project.stack.domain)
    return ComponentSpec(
        name="app",
        packages=_packages(layout),
        users=(User(BUILD_USER), User(layout.user, home=layout.data)),
        directories=tuple(_directories(layout)),
        files=tuple(_files(ctx, layout)),
        units=(
            *((Unit(layout.containers_unit),) if layout.images else ()),
            *(Unit(name, managed_by_step=True) for name in layout.units),
        ),
        steps=tuple(_steps(ctx, layout)),
        probes=tuple(_probes(layout)),
        data=tuple(_data(layout)),
    )


def check(app: Manifest) -> None:
    """Refuse what a manifest may say but this version does not do."""

    def refuse(why: str, next: str) -> InputError:
        return InputError(f"reading the manifest of {app.name}", why, next)

    if app.overlap:
        raise refuse(
            "overlap: true is not supported yet: every release takes over from the one before it",
            "leave it out; requests wait at the proxy during the change",
        )
    names = [process.name for process in app.processes]
    steps = [step.name for step in _app_steps(app)]
    for name in [*names, *steps]:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise refuse(f"{name!r} is no name for a process or step", "use small letters, digits and dashes")
    if twice := sorted({name for name in steps if steps.count(name) > 1}):
        raise refuse(f"two steps are called {twice[0]}", "give each its own name")
    for process in app.processes:
        if not process.ready and process.start_timeout <= 2 * STEADY:
            raise refuse(
                f"{process.name} has no `ready`, so it must stay up for {STEADY} s, and gets {process.start_timeout} s",
                f"give it a start_timeout of more than {2 * STEADY} s, or an address to ask",
            )


def _packages(layout: Layout) -> tuple[str, ...]:
    """Debian's, that a release needs before it is built."""
    own = (name for entry in layout.app.runtimes for name in entry.packages)
    return tuple(dict.fromkeys([*_PACKAGES, *(_CONTAINER_PACKAGES if layout.images else ()), *own]))


def _app_steps(app: Manifest) -> tuple[AppStep, ...]:
    return (*app.migrations, *app.after_restore, *((app.admin,) if app.admin else ()))


def _directories(layout: Layout) -> Iterator[Directory]:
    yield Directory("/etc/deploy")
    yield Directory("/etc/deploy/apps")
    yield Directory("/etc/deploy/app-switch", mode=0o700)
    yield Directory(layout.config, mode=0o750, group=layout.user)
    yield Directory(layout.data, mode=0o750, owner=layout.user, group=layout.user)
    yield Directory(layout.home)
    yield Directory(f"{layout.home}/releases")
    yield Directory("/var/lib/deploy/app", mode=0o700)
    yield Directory(layout.state, mode=0o700)
    yield Directory(CACHE)
    if layout.images:
        yield Directory(CONTAINERS)
        yield Directory(layout.containers, mode=0o700, owner=layout.user, group=layout.user)
    folders = {_folder(entry.kind, entry.path) for entry in layout.app.data} | {"cache"}
    for folder in sorted(folders - {"."}):
        yield Directory(f"{layout.data}/{folder}", mode=0o750, owner=layout.user, group=layout.user)


def _folder(kind: str, path: str) -> str:
    return str(PurePosixPath(path).parent) if kind == "sqlite" else path


# --- files ---


def _files(ctx: Context, layout: Layout) -> Iterator[File]:
    app = layout.app
    shared = values(ctx, layout)
    yield File(SWITCH, content=service_file("app", "app-switch"), mode=0o755, on_change="none")
    yield File(EXEC, content=service_file("app", "app-exec"), mode=0o755, on_change="none")
    yield File(UV_LOCK, content=_shipped(ctx, "app/uv.lock"), early=True, on_change="none")
    if _node(ctx):
        yield File(NODE_LOCK, content=_shipped(ctx, "app/node.lock"), early=True, on_change="none")
    if layout.images:
        yield from _container_files(layout)
    for runtime in app.runtimes:
        # Another lock is another release, which the plan of the switch names.
        for path, text in layout.lock_files(runtime).items():
            yield File(path, content=text, early=True, on_change="none")
    for file in app.files:
        yield File(
            f"{layout.config}/{file.path}",
            template=f"apps/{app.name}/{file.template}",
            values=shared,
            mode=0o640,
            group=layout.user,
            secret=file.secret,
        )
    for process in app.processes:
        yield File(
            f"/etc/systemd/system/{layout.unit(process)}",
            template="app/process.service.j2",
            values=process_values(layout, process),
        )
    for step in _app_steps(app):
        # A migration's unit names the release too, but is no reason to restart anything.
        yield File(
            f"/etc/systemd/system/{layout.step_unit(step)}",
            template="app/step.service.j2",
            values=step_values(layout, step),
            on_change="none",
        )
        if step.stdin:
            yield File(
                layout.stdin(step),
                template=f"apps/{app.name}/{step.stdin}",
                values=_stdin_values(ctx, shared),
                mode=0o600,
                secret=True,
                on_change="none",
            )
    yield File(layout.plan, content=switch_plan(layout), mode=0o600)
    yield File(layout.source, content=source.pack(layout), mode=0o600, on_change="none")


def _container_files(layout: Layout) -> Iterator[File]:
    yield File(CONTAINER, content=service_file("app", "app-container"), mode=0o755, on_change="none")
    yield File(
        f"/etc/systemd/system/{layout.containers_unit}",
        template="app/containers.service.j2",
        values={
            "app": layout.app.name,
            "user": layout.user,
            "command": f"{CONTAINER} hold --app {layout.app.name}",
        },
    )
    for runtime in layout.images:
        if runtime.ca:
            text = layout.app.path(runtime.ca).read_text(encoding="utf-8")
            registry = layout.image(runtime).partition("/")[0]
            # containers-certs.d(5)
            yield File(
                f"/etc/containers/certs.d/{registry}/ca.crt",
                content=text,
                early=True,
                on_change="none",
            )


def _node(ctx: Context) -> str:
    """The version of Node.js that the app's releases get; "" for an app that needs none."""
    if not any(runtime.kind == "node" for runtime in ctx.project.app.runtimes):
        return ""
    return node_version(ctx.project.root)


def _shipped(ctx: Context, template: str) -> str:
    return find_template(template, ctx.project.root).read_text(encoding="utf-8")


def _stdin_values(ctx: Context, shared: dict[str, object]) -> dict[str, object]:
    """The admin's password is in no file that the app's user can read."""
    if ctx.project.app.admin is None:
        return shared
    return {**shared, "admin_password": ctx.secret("app/admin_password")}


# --- steps, probes, data ---


def _steps(ctx: Context, layout: Layout) -> Iterator[Step]:
    app, release = layout.app, layout.release()
    [uv] = re.findall(r"^uv==(\S+)", _shipped(ctx, "app/uv.lock"), re.MULTILINE)
    builds = [
        [entry.name, entry.kind, layout.lock(entry), entry.build, list(entry.compile)]
        for entry in app.runtimes
    ]
    yield Step(
        "release",
        "release",
        check=f"test -d {layout.home}/releases/{release}",
        args={
            "home": layout.home,
            "release": release,
            "uv": uv,
            "node": _node(ctx),
            "runtimes": builds,
        },
        stage="build",
        # Some packages of npm compile for minutes.
        timeout=2400 if _node(ctx) else 1200,
        needs=_packages(layout),
    )
    if layout.images:
        names = [runtime.name for runtime in layout.images]
        yield Step(
            "images",
            "images",
            check=f"{CONTAINER} check --app {app.name} {layout.home}/releases/{release} {' '.join(names)}",
            args={
                "app": app.name,
                "user": layout.user,
                "folder": f"{layout.home}/releases/{release}",
                "runtimes": names,
            },
            timeout=1800,
        )
    # Every process and migration may take its time; then the old release once more.
    bound = 300 + 2 * sum(process.start_timeout for process in app.processes)
    yield Step(
        "release in service",
        "in_service",
        check=f"{SWITCH} {app.name} --check",
        args={"app": app.name},
        timeout=bound + sum(step.timeout for step in (*app.migrations, *app.after_restore)),
    )
    if app.admin:
        yield Step(
            f"first admin {app.admin_name}",
            "once",
            check=f"test -e {layout.state}/once/{app.admin.name}",
            # With another password it runs again: an app whose command can, gives it to the admin who exists.
            args={
                "app": app.name,
                "step": app.admin.name,
                "unit": layout.step_unit(app.admin),
                "password": hashlib.sha256(ctx.secret("app/admin_password").encode()).hexdigest()[:32],
            },
            timeout=app.admin.timeout + 30,
        )


# What has no address to ask. One that ends again and again runs now and then, so it is asked since when.
_RUNS = """\
state=$(systemctl is-active {unit}) || {{ echo "$state"; exit 1; }}
since=$(systemctl show -p ActiveEnterTimestampMonotonic --value {unit})
[ $(($(cut -d. -f1 /proc/uptime) - since / 1000000)) -ge 4 ] || {{ echo "it was started a moment ago"; exit 1; }}
echo runs
"""


def _probes(layout: Layout) -> Iterator[Probe]:
    for probe in layout.app.probes:
        process = probe.process or layout.app.processes[0].name
        script = layout.expand(probe.script, f"script of probe {probe.name}")
        yield Probe(probe.name, "script", {"script": script}, unit=layout.unit(process))
    for one in layout.app.processes:
        if not one.ready:
            unit = layout.unit(one.name)
            yield Probe(
                f"{layout.app.name}-{one.name}", "script", {"script": _RUNS.format(unit=unit)}, unit=unit
            )


def _data(layout: Layout) -> Iterator[Data]:
    for name in layout.app.databases:
        yield Data(name, "postgres", name)
    for entry in layout.app.data:
        yield Data(
            entry.name,
            entry.kind,  # type: ignore[arg-type]
            f"{layout.data}/{entry.path}",
            layout.data,
        )
