"""The pure difference of wanted and found, for one machine."""

from __future__ import annotations

from collections.abc import Iterator

from deployer.core.component import ComponentSpec, Step
from deployer.core.plan import Change
from deployer.flow.observe import Found, step_key
from deployer.flow.wanted import Wanted, digest


def step_digest(step: Step) -> str:
    """What a step's marker on the machine holds: another operation or other arguments run it again."""
    return digest([step.operation, step.args])


def restart_needed(wanted: Wanted, spec: ComponentSpec, found: Found) -> str:
    """ "restart", "reload" or "": what the digests on the machine call for. They were written when the component was
    last green with them, so a run that was killed between writing and restarting is made good by the next.

    A file that differs calls for it too: what runs may have read it since (edited by hand, or by a run that failed
    before its digest was written, and whose cause was taken back)."""
    applied, now = found.part("applied").get(spec.name, {}), wanted.digests(spec)
    differs = differing(wanted, spec.name, found)
    if applied.get("restart") != now["restart"] or "restart" in differs:
        return "restart"
    return "reload" if applied.get("reload") != now["reload"] or "reload" in differs else ""


def differing(wanted: Wanted, component: str, found: Found) -> set[str]:
    """What the component's files on the machine that are not as wanted call for: "restart", "reload", "none"."""
    have = found.part("files")
    return {
        item.file.on_change
        for path, item in wanted.files.items()
        if item.component == component and have.get(path) != item.found_as
    }


def managed(wanted: Wanted) -> dict[str, str]:
    """Path -> component of the files that are removed when they are no longer wanted."""
    return {path: item.component for path, item in sorted(wanted.files.items()) if not item.file.keep}


def diff(wanted: Wanted, found: Found) -> list[Change]:
    """All changes for the machine, in the order in which they are made."""
    changes: list[Change] = []
    for part in (_packages, _users, _directories, _files, _steps, _units):
        changes += part(wanted, found)
    return changes


def _packages(wanted: Wanted, found: Found) -> Iterator[Change]:
    have = found.part("packages")
    for spec in wanted.specs:
        for package in spec.packages:
            if package not in have:
                yield Change(wanted.machine, spec.name, "package", package, "create")


def _users(wanted: Wanted, found: Found) -> Iterator[Change]:
    have = found.part("users")
    for spec in wanted.specs:
        for user in spec.users:
            if user.name not in have:
                yield Change(wanted.machine, spec.name, "user", user.name, "create")
            elif missing := sorted(set(user.groups) - set(have[user.name])):
                yield Change(
                    wanted.machine, spec.name, "user", user.name, "change", f"groups {', '.join(missing)}"
                )


def _directories(wanted: Wanted, found: Found) -> Iterator[Change]:
    have = found.part("files")
    for path, (directory, component) in wanted.directories.items():
        wish = [directory.mode, directory.owner, directory.group, "dir"]
        if path not in have:
            yield Change(wanted.machine, component, "directory", path, "create")
        elif have[path] != wish:
            yield Change(
                wanted.machine, component, "directory", path, "change", _difference(have[path], wish)
            )


def _files(wanted: Wanted, found: Found) -> Iterator[Change]:
    have, former = found.part("files"), found.part("managed")
    for path, item in wanted.files.items():
        if path not in have:
            yield Change(wanted.machine, item.component, "file", path, "create")
        elif have[path] != item.found_as:
            detail = _difference(have[path], item.found_as)
            yield Change(wanted.machine, item.component, "file", path, "change", detail)
    for path, component in former.items():
        if path not in wanted.files:
            yield Change(wanted.machine, component, "file", path, "remove", "no longer wanted")


def _difference(have: list[object], wish: list[object]) -> str:
    parts = []
    for label, old, new in zip(("mode", "owner", "group"), have, wish, strict=False):
        if old != new:
            both = (
                (f"{old:04o}", f"{new:04o}") if isinstance(old, int) and isinstance(new, int) else (old, new)
            )
            parts.append(f"{label} {both[0]} -> {both[1]}")
    if have[3] != wish[3]:
        parts.append("content")
    return ", ".join(parts)


def _steps(wanted: Wanted, found: Found) -> Iterator[Change]:
    have = found.part("steps")
    for spec in wanted.specs:
        for step in spec.steps:
            state = have.get(step_key(spec, step.name), {})
            if not state.get("ok"):
                yield Change(
                    wanted.machine, spec.name, "step", step.name, "run", "" if not state else "not done"
                )
            elif state.get("marker") != step_digest(step):
                yield Change(wanted.machine, spec.name, "step", step.name, "run", "arguments changed")


def _units(wanted: Wanted, found: Found) -> Iterator[Change]:
    have = found.part("units")
    for spec in wanted.specs:
        need = restart_needed(wanted, spec, found)
        for unit in spec.units:
            state = have.get(unit.name, {})
            # One that fails and is tried again and again is "activating" too, between the tries.
            active = (
                state.get("active") in ("active", "activating", "reloading")
                and state.get("sub") != "auto-restart"
            )
            enabled = state.get("enabled") in (
                "enabled",
                "static",
                "alias",
                "generated",
                "indirect",
                "enabled-runtime",
            )
            if not unit.wanted:
                # Also when it does not exist yet: a package that brings it must not start it.
                if state.get("load") != "masked":
                    yield Change(wanted.machine, spec.name, "unit", unit.name, "stop")
            elif not enabled or (unit.resident and not active):
                detail = "not enabled" if active else state.get("active", "")
                yield Change(wanted.machine, spec.name, "unit", unit.name, "start", detail)
        if need == "restart":
            yield Change(
                wanted.machine, spec.name, "restart", spec.name, "restart", "its files or packages changed"
            )
        elif need == "reload":
            yield Change(wanted.machine, spec.name, "reload", spec.name, "reload", "its files changed")
