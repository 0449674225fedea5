"""Checks of the project folder alone: who holds the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployer.core.finding import Finding


def operators(names: Sequence[str]) -> Finding:
    """Whether losing one person's computer loses the stack."""
    id, what = "project.operators", "operators"
    if len(names) > 1:
        return Finding(id, "ok", what, found=", ".join(names))
    found = f"only {names[0]}" if names else "none: this computer's identity alone opens the secrets"
    return Finding(
        id,
        "warn",
        what,
        found=found,
        next="add a second one under operators: in stack.yaml, so that one lost computer is no lost stack",
    )


def recovery(path: str, there: bool) -> Finding:
    """path: where the first `up` writes the recovery identity; there: it still lies there."""
    id, what = "project.recovery", "recovery identity"
    if not there:
        return Finding(id, "ok", what, found="not in the project folder")
    return Finding(
        id,
        "warn",
        what,
        path,
        "whoever copies this folder can read every secret",
        "move it offline (print it, or a stick in a safe) and delete it here",
    )


def exposed(rows: Sequence[Mapping[str, object]]) -> Finding:
    """rows: of `deploy secrets list`; those with "rotate" were seen by an operator who is none any more."""
    id, what = "project.secrets", "secrets of removed operators"
    names = [str(row["name"]) for row in rows if row.get("rotate")]
    if not names:
        return Finding(id, "ok", what, found="none to rotate")
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return Finding(
        id,
        "warn",
        what,
        found=f"{len(names)} still to rotate: {shown}",
        next="deploy secrets rotate NAME for each, then deploy up; deploy secrets list says who saw them",
    )
