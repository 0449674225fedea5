"""What `up` and `status` say at the end, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployer.core.plan import Change
from deployer.flow.look import ProbeResult, View
from deployer.flow.session import Session
from deployer.project import load_stack


def hosts(session: Session) -> list[str]:
    """Public names of the app, in the order of the manifest's routes."""
    domain = session.project.stack.domain
    names = [
        route.host.replace("{{ domain }}", domain).replace("{{domain}}", domain)
        for route in session.project.app.routes
    ]
    return list(dict.fromkeys(name for name in names if not name.startswith("*."))) or [domain]


def degraded(view: View, probes: Sequence[ProbeResult]) -> list[str]:
    """Why the deployment works with something missing."""
    red = [
        f"{probe.component}/{probe.name}: {probe.detail}"
        for probe in probes
        if not probe.ok and probe.degrades
    ]
    return [*view.warnings, *red]


def records(view: View) -> list[dict[str, object]]:
    """The DNS records that the deployment wants, each once."""
    listed = [record for specs in view.specs.values() for spec in specs for record in spec.dns]
    return [
        vars(record)
        for record in sorted(set(listed), key=lambda record: (record.name, record.type, record.value))
    ]


def of_another_app(root: Path, app: str | None) -> list[str]:
    """What whoever brings up another app than the stack's must know: other verbs know nothing of it."""
    if app is None or (own := load_stack(root).app) == app:
        return []
    return [
        f"stack.yaml says app: {own}, and other commands go by that; to keep {app}, write app: {app} there"
    ]


def build(
    session: Session,
    view: View,
    changes: Sequence[Change],
    probes: Sequence[ProbeResult],
    seconds: float,
    new: bool,
) -> dict[str, Any]:
    """urls, machines, probes, changes, notes ...; `cli` draws it, --json prints it."""
    project = session.project
    notes = []
    front = next((m for m in view.machines.values() if m.name in provision_front(session)), None)
    if front and not project.inventory.acme.directories:
        names = " ".join([*hosts(session), f"sms.{project.stack.domain}"])
        notes.append(f"to open it from this computer, add to /etc/hosts: {front.address} {names}")
        notes.append(f"its certificates are signed by the stack's own CA: {ca_file(session)}")
    if front and project.app.admin:
        notes.append(
            f"first admin: {project.app.admin_name}; password: deploy secrets show app/admin_password"
        )
    if front and project.inventory.catch:
        notes.append("mail and SMS stay on the machine: deploy inbox")
    notes += of_another_app(session.request.root, session.request.app)
    return {
        "deployment": str(project.deployment),
        "urls": [f"https://{name}/" for name in hosts(session)] if front else [],
        "machines": [
            {"name": m.name, "address": m.address, "roles": _roles(session, m.name)}
            for m in view.machines.values()
        ],
        "changed": len(changes) + int(new and not changes),
        "changes": [change.to_json() for change in changes],
        "probes": [probe.to_json() for probe in probes],
        "degraded": degraded(view, probes),
        "dns": records(view),
        # Nobody but the operator sets them. In a rehearsal nobody shall know the names.
        "dns_by_hand": not project.inventory.dns and not project.inventory.catch,
        "notes": notes,
        "seconds": round(seconds, 2),
    }


def provision_front(session: Session) -> tuple[str, ...]:
    from deployer.flow.provision import roles

    return roles(session.project).get("app", ())


def _roles(session: Session, machine: str) -> list[str]:
    return [
        role for entry in session.project.inventory.machines if entry.name == machine for role in entry.roles
    ]


def ca_file(session: Session) -> str:
    """Write the CA's certificate (no secret) where the operator can hand it to a browser; its path."""
    from deployer.core.keytext import split_pem
    from deployer.state.files import make_private, write_atomically

    make_private(session.project.state_dir)
    path = session.project.state_dir / "ca.crt"
    certificate = split_pem(session.secrets["pki/ca"])[1]
    if not path.exists() or path.read_text(encoding="utf-8") != certificate:
        write_atomically(path, certificate, 0o644)
    return str(path)


def receipt(body: dict[str, Any]) -> dict[str, Any]:
    """The lasting record: without the notes for the terminal."""
    return {key: value for key, value in body.items() if key != "notes"}
