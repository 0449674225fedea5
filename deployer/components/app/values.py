"""What an app's templates may use: where it lies, its secrets, and whom it reaches of the other components."""

from __future__ import annotations

from deployer.components.app.layout import Layout
from deployer.components.cache import spec as cache
from deployer.components.database import spec as database
from deployer.components.mail_relay import spec as mail_relay
from deployer.components.sms_gateway import spec as sms_gateway
from deployer.core.component import Context
from deployer.core.errors import InputError

_MIB = 1 << 20


def values(ctx: Context, layout: Layout) -> dict[str, object]:
    """The names that a template of the app's folder sees; docs/bring-your-own-app.md lists them.

    A connection that the manifest did not ask for is not there at all, so that using it is an error.
    """
    app, project = layout.app, ctx.project
    result: dict[str, object] = {
        "app": app.name,
        "version": app.version,
        "domain": project.stack.domain,
        "release": layout.current,
        "config": layout.config,
        "data": layout.data,
        "root_ca": "/etc/deploy/pki/root.crt",
        "ports": {process.name: process.port for process in app.processes if process.port},
        "runtimes": {
            runtime.name: layout.runtime(runtime.name)
            for runtime in app.runtimes
            if runtime.kind != "container"
        },
        "settings": settings(ctx),
        "secrets": {entry.name: ctx.secret(f"app/{entry.name}") for entry in app.secrets},
        "admin_name": app.admin_name,
        "cores": ctx.facts.cores,
        # MiB, in steps: what the kernel keeps for itself moves a little, and must not restart anything.
        "memory": round(ctx.facts.memory / _MIB / 256) * 256,
    }
    if app.databases:
        result["database"] = {name: database.connection(ctx, name) for name in app.databases}
    if app.cache:
        result["cache"] = cache.connection(ctx)
    if app.mail:
        result["mail"] = mail_relay.connection(ctx)
    if app.sms:
        result["sms"] = sms_gateway.connection(ctx)
    return result


def settings(ctx: Context) -> dict[str, object]:
    """The manifest's settings with the operator's over them. Raises InputError for one that there is not."""
    app, chosen = ctx.project.app, ctx.project.stack.settings
    for name, value in chosen.items():
        if name not in app.settings:
            raise _wrong(name, f"the app {app.name} has no such setting", sorted(app.settings))
        allowed = app.choices.get(name)
        if allowed and value not in allowed:
            raise _wrong(name, f"{value!r} is none of its values", allowed)
    return {**app.settings, **chosen}


def _wrong(name: str, why: str, known: object) -> InputError:
    listed = ", ".join(map(str, known)) if isinstance(known, (list, tuple)) else str(known)
    return InputError(f"reading settings.{name} of stack.yaml", why, f"known: {listed}")
