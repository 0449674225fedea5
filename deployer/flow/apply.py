"""From differences to the engine's phases. Pure: the phases are data, and are tested as such."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core.component import ComponentSpec, Step
from deployer.core.plan import Change
from deployer.flow.diff import differing, managed, restart_needed, step_digest
from deployer.flow.observe import Found, step_key
from deployer.flow.wanted import Rendered, Wanted

Operation = dict[str, Any]


def phases(
    machines: Mapping[str, tuple[Wanted, Found, Sequence[Change]]], order: Sequence[str]
) -> list[dict[str, Any]]:
    """All phases for machines that have changes: settings for apt, packages and users, the tree and the steps that
    need no running service, then each component, in `order`: over all machines, so that the database serves before
    an app on another machine starts."""
    changed = {name: entry for name, entry in machines.items() if entry[2]}
    building = _phase("packages and users", changed, _install)
    building["beside"] = _phase(
        "", changed, lambda wanted, found, changes: _steps(wanted, found, changes, "build")
    )["hosts"]
    result = [
        _phase("settings and users", changed, _early),
        _phase("what building needs", changed, _needs),
        building,
        _phase("files", changed, _files),
        _phase(
            "configure", changed, lambda wanted, found, changes: _steps(wanted, found, changes, "configure")
        ),
    ]
    result += [_activation(component, changed) for component in order]
    return [phase for phase in result if phase["hosts"] or phase.get("beside") or phase.get("applied")]


def standing_by(
    machines: Mapping[str, tuple[Wanted, Found, Sequence[Change]]],
    order: Sequence[str],
    apart: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The phases for machines that shall be able to serve at once and do not serve yet: first all up to the base, then
    units that are only enabled or stopped, and the digests, which what starts later is as good as.

    apart: components whose digest is not written, since something of them runs that has not read its files. The app's
    release is not among them.
    """
    before, after = [], []
    for phase in phases(machines, order):
        if phase["name"] == "start base" or not phase["name"].startswith("start "):
            before.append({key: value for key, value in phase.items() if key != "beside"})
            continue
        units = {
            machine: [
                {**one, "args": {**one["args"], "start": [], "restart": [], "reload": []}}
                for one in operations
                if one["operation"] == "units.converged"
            ]
            for machine, operations in phase["hosts"].items()
        }
        component = phase["name"].removeprefix("start ")
        applied = {} if component in apart else phase["applied"]
        after.append(
            {"name": f"enable {component}", "hosts": units, "journal": {}, "probes": {}, "applied": applied}
        )
    return before, after


def building(machines: Mapping[str, tuple[Wanted, Found, Sequence[Change]]]) -> list[dict[str, Any]]:
    """The phase that builds what is built, when it was not fetched from elsewhere."""
    made = _phase("build", machines, lambda wanted, found, changes: _steps(wanted, found, changes, "build"))
    return [made] if made["hosts"] else []


def part(
    machines: Mapping[str, tuple[Wanted, Found, Sequence[Change]]], component: str
) -> list[dict[str, Any]]:
    """The phases of one component's changes alone, without any step of another."""
    mine = {
        name: (wanted, found, [change for change in changes if change.component == component])
        for name, (wanted, found, changes) in machines.items()
    }
    listed = [phase for phase in phases(mine, [component]) if phase["name"] != "configure"]
    return [{key: value for key, value in phase.items() if key != "beside"} for phase in listed]


def _phase(name: str, machines: Mapping[str, Any], make: Any) -> dict[str, Any]:
    hosts = {machine: made for machine, entry in machines.items() if (made := make(*entry))}
    return {"name": name, "hosts": hosts}


def _operation(operation: str, name: str, args: Mapping[str, object], timeout: int = 120) -> Operation:
    return {"operation": operation, "name": name, "args": dict(args), "timeout": timeout}


def _tree(
    name: str,
    directories: list[Any],
    items: Sequence[Rendered],
    remove: list[str],
    known: Any,
    stale: Sequence[str] = (),
) -> Operation:
    files = [
        [
            item.file.path,
            item.file.mode,
            item.file.owner,
            item.file.group,
            base64.b64encode(item.data).decode(),
        ]
        for item in items
    ]
    args = {"directories": directories, "files": files, "remove": remove, "managed": known, "stale": stale}
    return _operation("tree.placed", name, args)


def _early(wanted: Wanted, found: Found, changes: Sequence[Change]) -> list[Operation]:
    paths = {change.name for change in changes if change.kind == "file"}
    items = [item for path, item in wanted.files.items() if item.file.early and path in paths]
    files = [_tree("early settings", [], items, [], None, _stale(wanted, found))] if items else []
    return [*files, *_mounts(wanted, changes), *_users(wanted, changes, grouped=False)]


def _mounts(wanted: Wanted, changes: Sequence[Change]) -> list[Operation]:
    """Folders on the data volume, before anything writes into them; when one is not mounted, all are looked at."""
    mounts = [[mount.where, mount.what, mount.unit] for spec in wanted.specs for mount in spec.mounts]
    mine = {unit for _, _, unit in mounts}
    touched = {change.name.rsplit("/", 1)[-1] for change in changes if change.kind in ("file", "unit")}
    return [_operation("mounts.active", "data volume", {"mounts": mounts})] if mine & touched else []


def _users(wanted: Wanted, changes: Sequence[Change], *, grouped: bool) -> list[Operation]:
    """Users with supplementary groups come after the packages, which bring the groups."""
    names = {change.name for change in changes if change.kind == "user"}
    users = [
        [user.name, user.home, list(user.groups)]
        for spec in wanted.specs
        for user in spec.users
        if user.name in names and bool(user.groups) is grouped
    ]
    return [_operation("users.present", "users", {"users": users})] if users else []


def _missing(changes: Sequence[Change]) -> list[str]:
    return list(dict.fromkeys(change.name for change in changes if change.kind == "package"))


def _needed(wanted: Wanted, found: Found) -> set[str]:
    """Packages that building cannot wait for; none when everything is built."""
    done = found.part("steps")
    steps = [(spec, step) for spec in wanted.specs for step in spec.steps if step.stage == "build"]
    return {
        package
        for spec, step in steps
        if not done.get(step_key(spec, step.name), {}).get("ok")
        for package in step.needs
    }


def _needs(wanted: Wanted, found: Found, changes: Sequence[Change]) -> list[Operation]:
    needed = _needed(wanted, found)
    return _packages([name for name in _missing(changes) if name in needed])


def _install(wanted: Wanted, found: Found, changes: Sequence[Change]) -> list[Operation]:
    needed = _needed(wanted, found)
    rest = [name for name in _missing(changes) if name not in needed]
    return [*_packages(rest), *_users(wanted, changes, grouped=True)]


def _packages(names: list[str]) -> list[Operation]:
    if not names:
        return []
    count = f"{len(names)} package" + ("s" if len(names) > 1 else "")
    return [_operation("packages.installed", f"install {count}", {"names": names}, 1800)]


def _files(wanted: Wanted, found: Found, changes: Sequence[Change]) -> list[Operation]:
    directories = [
        [directory.path, directory.mode, directory.owner, directory.group]
        for path, (directory, _) in wanted.directories.items()
        if any(change.kind == "directory" and change.name == path for change in changes)
    ]
    written = {change.name for change in changes if change.kind == "file" and change.action != "remove"}
    items = [item for path, item in wanted.files.items() if path in written and not item.file.early]
    remove = [change.name for change in changes if change.kind == "file" and change.action == "remove"]
    known = managed(wanted)
    if not (directories or items or remove) and known == dict(found.part("managed")):
        return []
    return [_tree(f"{len(items)} files", directories, items, remove, known, _stale(wanted, found))]


def _stale(wanted: Wanted, found: Found) -> list[str]:
    """Components whose digests go before their files are written: a run that is killed after that must not leave
    them as applied."""
    return [spec.name for spec in wanted.specs if differing(wanted, spec.name, found) - {"none"}]


def _steps(wanted: Wanted, found: Found, changes: Sequence[Change], stage: str) -> list[Operation]:
    """Every step of the stage: each checks again by itself, now that files were written before it."""
    return [operation for spec in wanted.specs for operation in _steps_of(spec, stage)]


def _steps_of(spec: ComponentSpec, stage: str) -> list[Operation]:
    return [_step(spec, step) for step in spec.steps if step.stage == stage]


def _step(spec: ComponentSpec, step: Step) -> Operation:
    made = _operation(f"{spec.name}/{step.operation}", f"{spec.name}: {step.name}", step.args, step.timeout)
    made["step"] = {"key": step_key(spec, step.name), "check": step.check, "digest": step_digest(step)}
    if step.progress:
        made["step"]["progress"] = step.progress
    return made


def _activation(component: str, machines: Mapping[str, Any]) -> dict[str, Any]:
    phase: dict[str, Any] = {
        "name": f"start {component}",
        "hosts": {},
        "probes": {},
        "applied": {},
        "journal": {},
    }
    for machine, (wanted, found, changes) in machines.items():
        spec = next((spec for spec in wanted.specs if spec.name == component), None)
        if spec is None:
            continue
        operations = [*_units(spec, wanted, found, changes), *_steps_of(spec, "activate")]
        touched = any(change.component == component for change in changes)
        if not touched and not spec.steps:
            continue
        if operations:
            phase["hosts"][machine] = operations
        phase["journal"][machine] = [unit.name for unit in spec.units if unit.wanted]
        phase["probes"][machine] = {
            f"{component}/{probe.name}": [probe.args["script"], probe.timeout]
            for probe in spec.probes
            if not probe.outside and not probe.degrades
        }
        phase["applied"][machine] = {component: wanted.digests(spec)}
    return phase


def _units(spec: ComponentSpec, wanted: Wanted, found: Found, changes: Sequence[Change]) -> list[Operation]:
    need = restart_needed(wanted, spec, found)
    mine = {
        change.name: change for change in changes if change.component == spec.name and change.kind == "unit"
    }
    rerun = any(change.component == spec.name and change.kind in ("file", "package") for change in changes)
    if not mine and not need and not rerun:
        return []
    free = [unit for unit in spec.units if unit.wanted and unit.resident and not unit.managed_by_step]
    args = {
        "stop": [unit.name for unit in spec.units if not unit.wanted and unit.name in mine],
        "enable": [unit.name for unit in spec.units if unit.wanted and unit.name in mine],
        # Restarting starts what is not active, so only what is not restarted has to be started.
        "restart": [unit.name for unit in free if need == "restart"],
        "start": [unit.name for unit in free if need != "restart" and unit.name in mine],
        "reload": [unit.name for unit in free if need == "reload" and unit.name not in mine],
    }
    names = [*args["restart"], *args["start"], *args["reload"]]
    return [_operation("units.converged", f"{spec.name}: units {' '.join(names) or 'enabled'}", args, 180)]
